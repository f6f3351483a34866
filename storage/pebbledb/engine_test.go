package pebbledb

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/storagetest"
)

// TestMain looks for goroutines left behind. An Open that fails late leaves one of
// Pebble's: it starts its compaction scheduler, and only a Close would stop it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(
		"github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"))
}

// small returns options that reach flushes and compactions with little data.
func small(fs vfs.FS) Options {
	o := Default()
	o.FS = fs
	o.CacheBytes = 1 << 20
	o.MemTableBytes = 256 << 10
	return o
}

func open(t testing.TB, dir string, o Options) *Engine {
	t.Helper()
	e, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEngine(t *testing.T) {
	for _, c := range []struct {
		name string
		open storagetest.Open
	}{
		{"memory", func(t *testing.T) storage.Engine { return open(t, "db", small(vfs.NewMem())) }},
		{"disk", func(t *testing.T) storage.Engine { return open(t, t.TempDir(), Default()) }},
	} {
		t.Run(c.name, func(t *testing.T) { storagetest.Run(t, c.open) })
	}
}

package pebbledb

import (
	"fmt"
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

// TestInternals: what Pebble does behind the scenes is told.
func TestInternals(t *testing.T) {
	e := open(t, "db", small(vfs.NewMem()))
	defer func() { _ = e.Close() }()
	value := make([]byte, 8<<10)
	for i := range 200 {
		b := e.NewBatch()
		b.Set(fmt.Append(nil, i), value)
		if err := b.Commit(storage.Applied, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Get(nil, []byte("7")); err != nil {
		t.Fatal(err)
	}
	s := e.Stats()
	i := s.Internals
	if i.Flushes == 0 || i.FlushedBytes == 0 || i.Tables == 0 || i.ReadAmplification == 0 || i.LogWritten < 200*8<<10 {
		t.Errorf("%+v", i)
	}
	if s.Blocks.Hits+s.Blocks.Misses == 0 {
		t.Error("a read of a table asked no cache")
	}
}

package pebbledb

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/dynactor/dynactor/storage"
)

// TestEmptyBatchSyncsAllBefore: a batch without writes that is to be durable makes durable
// what was applied before it, as one with writes does. Who answers that it has something
// which it need not write again relies on that.
func TestEmptyBatchSyncsAllBefore(t *testing.T) {
	for name, d := range map[string]storage.Durability{"synced": storage.Synced, "vital": storage.Vital} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			o := Default()
			o.FS = fs
			e, err := Open("store", o)
			if err != nil {
				t.Fatal(err)
			}
			b := e.NewBatch()
			b.Set([]byte("key"), []byte("value"))
			if err := b.Commit(storage.Applied, nil); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			if err := e.NewBatch().Commit(d, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			o.FS = fs.CrashClone(vfs.CrashCloneCfg{})
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if e, err = Open("store", o); err != nil {
				t.Fatal(err)
			}
			if got, err := e.Get(nil, []byte("key")); err != nil || string(got) != "value" {
				t.Errorf("after the crash: %q, %v", got, err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

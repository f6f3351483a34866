package actors

import (
	"testing"

	"github.com/dynactor/dynactor/storage"
)

// TestFailureOvertakesPrepared: the word that the local commit failed may come
// before the word that the write was made. It is not one that never was.
func TestFailureOvertakesPrepared(t *testing.T) {
	r := start(t, setup{nodes: 3, change: func(c *Config) { c.Engine = late{c.Engine} }})
	x := r.replicas("n2", "n3")
	r.engine.FailSyncs(errTest)
	r.put(putOf("k", "v", nil)) // W = 2 by the others
	r.quiet()
	if len(x["n2"].holds("k").Versions) != 1 || len(x["n3"].holds("k").Versions) != 1 {
		t.Error("the others do not hold it")
	}
}

// late is an engine whose Commit returns after its done was called.
type late struct{ storage.Engine }

func (l late) NewBatch() storage.Batch { return lateBatch{l.Engine.NewBatch()} }

type lateBatch struct{ storage.Batch }

func (b lateBatch) Commit(d storage.Durability, done func(error)) error {
	told := make(chan struct{})
	err := b.Batch.Commit(d, func(err error) {
		done(err)
		close(told)
	})
	if err == nil {
		<-told
	}
	return err
}

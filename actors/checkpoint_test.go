package actors

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
)

// steps is an engine that notes what checkpoints write in one commit.
type steps struct {
	storage.Engine
	commits, largest atomic.Int64
}

type stepBatch struct {
	storage.Batch
	e    *steps
	size int
}

func (e *steps) NewBatch() storage.Batch { return &stepBatch{Batch: e.Engine.NewBatch(), e: e} }

func (b *stepBatch) Set(key, value []byte) {
	if head, _ := vnode.TreeRange(0, 3); len(key) > len(head) && string(key[:len(head)]) == string(head) {
		b.size += len(value)
	}
	b.Batch.Set(key, value)
}

func (b *stepBatch) Commit(d storage.Durability, done func(error)) error {
	if b.size > 0 {
		b.e.commits.Add(1)
		b.e.largest.Store(max(b.e.largest.Load(), int64(b.size)))
	}
	return b.Batch.Commit(d, done)
}

// TestCheckpointInSteps: the checkpoint of a large tree is made in small steps while the
// vnode serves, is whole when they are done, and has afterwards only what was written to
// since.
func TestCheckpointInSteps(t *testing.T) {
	t.Parallel()
	const keys = 13_000 // 4,096 leaves, 64 parts
	disk := diskOf(t)
	for i := range keys {
		put(t, disk, 0, fmt.Sprint("k", i), elsewhere(t, 9, "v"))
	}
	e := &steps{Engine: keep{disk}}
	r := start(t, setup{engine: e, change: paced(upkeepPace{tick: time.Millisecond, sample: time.Hour, checkpoint: time.Millisecond})})
	parts := func(width uint8) (n int) {
		lower, upper := vnode.TreeParts(0, 3, width)
		if err := disk.Scan(lower, upper, func(_, _ []byte) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	marks := func() (n int) {
		lower, upper := vnode.MarkRange(0, 3)
		if err := disk.Scan(lower, upper, func(_, _ []byte) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	actortest.Eventually(t, "the checkpoint is whole", func() bool { return parts(6) == 64 })
	if got, want := loadSaved(t, disk, 1, 0).Root(), treeOf(t, disk).Root(); got != want {
		t.Errorf("the checkpoint has %v, the store %v", got, want)
	}
	if n := e.largest.Load(); n > checkpointBytes+2<<10 || e.commits.Load() < 3 {
		t.Errorf("%d steps, one of %d bytes", e.commits.Load(), n)
	}
	before := e.commits.Load()
	e.largest.Store(0)
	r.written("k7", "another", none)
	actortest.Eventually(t, "what was written to is saved", func() bool { return e.commits.Load() > before && marks() == 0 })
	if n := e.largest.Load(); n > 2<<10 {
		t.Errorf("%d bytes are saved for one write", n)
	}
	r.stop()
	checkSaved(t, disk)
	if b := loadSaved(t, disk, 1, 0).Bits(); b != hashtree.MinBits+6 {
		t.Errorf("the tree has %d bits", b)
	}
}

// TestNoCheckpointOfWhatIsDropped: a vnode whose objects are dropped and put back stores nothing of its
// trees, also when it is not to be dropped any more by then: it would have a tree of what is lost.
func TestNoCheckpointOfWhatIsDropped(t *testing.T) {
	t.Parallel()
	for _, dropped := range []bool{false, true} {
		r := start(t, setup{})
		tree := r.s.keep(treeOf(t, r.engine), true)
		tree.saving = true
		v := &vnodeActor{s: r.s, self: r.pid(), partition: 0, status: vnodeServing}
		v.upkeep.trees[3], v.loss.interrupted = tree, dropped
		v.onPaused(&checkpointPaused{by: v})
		stored := false
		lower, upper := vnode.TreeRange(0, 3)
		if err := r.engine.Scan(lower, upper, func(_, _ []byte) bool { stored = true; return false }); err != nil || stored == dropped {
			t.Errorf("dropped=%v: stored=%v, %v", dropped, stored, err)
		}
	}
}

package actors

import (
	"bytes"
	"cmp"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
)

const (
	// checkpointEvery is how old the checkpoint of a tree that changes gets. It is made in
	// steps of about checkpointBytes with pauses: a commit of much at once keeps all others
	// waiting.
	checkpointEvery = 10 * time.Minute
	checkpointBytes = 32 << 10
	checkpointPause = 100 * time.Millisecond
)

// keptTree is a tree and what is stored of it: a checkpoint in parts, and marks.
type keptTree struct {
	*hashtree.Tree
	// changed: the checkpoint is not the tree. stored: there is one, or a part of one.
	changed, stored bool
	// width is that of the parts that are stored, mixed if there may be others.
	width uint8
	// saved is when the checkpoint was made last; saving: it is being made, and parts
	// before from are.
	saved  time.Time
	saving bool
	from   uint32
	// sample is the range to be sampled next, of as many bits as the tree had.
	sample hashtree.Prefix
}

// checkpointPaused is the end of the pause between two steps of checkpoints; by is whose.
type checkpointPaused struct{ by *vnodeActor }

// RuntimeControl lets it overtake.
func (*checkpointPaused) RuntimeControl() {}

// mixed is no width of parts.
const mixed = 255

// loadTrees reads the checkpoints, and what is marked as written since.
func (v *vnodeActor) loadTrees() error {
	partitions := v.s.Document().Settled.Partitions()
	for n := 1; n <= quorum.MaxN; n++ {
		t, err := v.s.loadTree(partitions, v.partition, n)
		if errors.Is(err, storage.ErrDamaged) {
			t = v.s.keep(hashtree.New(partitions, v.partition), true)
			t.DoubtAll()
		}
		if err := v.tolerate(err); err != nil {
			return err
		}
		v.upkeep.trees[n] = t
	}
	return nil
}

// loadTree is nil if there is nothing. Marks count also after a clean stop: it may have
// come before the ranges that an unclean one had left were read.
func (s *Services) loadTree(partitions int, p dynamo.Partition, n int) (*keptTree, error) {
	var parts [][]byte
	lower, upper := vnode.TreeRange(p, n)
	err := s.Engine.Scan(lower, upper, func(_, value []byte) bool {
		parts = append(parts, bytes.Clone(value))
		return true
	})
	if err != nil {
		return nil, err
	}
	var marks []hashtree.Prefix
	lower, upper = vnode.MarkRange(p, n)
	err = s.Engine.Scan(lower, upper, func(key, _ []byte) bool {
		if mark, ok := vnode.ParseMark(key); ok && mark < 1<<hashtree.MarkBits {
			marks = append(marks, hashtree.Prefix{Bits: hashtree.MarkBits, Index: mark})
		}
		return true
	})
	objects := false
	if err == nil && len(parts) == 0 && len(marks) == 0 {
		lower, upper = vnode.ReplicaRange(p, n)
		err = s.Engine.Scan(lower, upper, func(_, _ []byte) bool { objects = true; return false })
	}
	if err != nil || len(parts) == 0 && len(marks) == 0 && !objects {
		return nil, err
	}
	t, bad := hashtree.Load(partitions, p, parts)
	if bad != nil {
		s.Log.Error("what is damaged of a hash tree is built anew", slog.Uint64("partition", uint64(p)), slog.Int("n", n), slog.Any("error", bad))
	}
	changed := !t.Settled() || len(marks) > 0
	for _, mark := range marks {
		t.Doubt(mark)
	}
	t.Marked(marks)
	kept := s.keep(t, changed)
	kept.stored = len(parts) > 0
	return kept, nil
}

func (s *Services) keep(t *hashtree.Tree, changed bool) *keptTree {
	// At different times, so that not all vnodes write checkpoints at once.
	return &keptTree{Tree: t, changed: changed, width: mixed, saved: time.Now().Add(-rand.N(checkpointEvery))}
}

// checkpoint adds what is not saved of a tree to a batch that has nothing else of the vnode's
// objects, from its part from on and about as many bytes as given, and returns what to do
// when it is applied. A tree that is not settled keeps its marks.
func (v *vnodeActor) checkpoint(b storage.Batch, n int, size int) (saved func()) {
	t := v.upkeep.trees[n]
	var parts []hashtree.Prefix
	p, ok := t.Unsaved(t.from)
	if ok && t.width != p.Bits { // before the tree grew it was cut in other parts
		lower, upper := vnode.TreeRange(v.partition, n)
		first, after := vnode.TreeParts(v.partition, n, p.Bits)
		b.DeleteRange(lower, first)
		b.DeleteRange(after, upper)
	}
	for ; ok && size > 0; p, ok = t.Unsaved(p.Index + 1) {
		part := t.Encode(p)
		b.Set(vnode.TreeKey(v.partition, n, p.Bits, p.Index), part)
		size -= len(part)
		parts = append(parts, p)
	}
	if len(parts) > 0 { // what lies between has no marks
		first, _ := hashtree.Marks(parts[0])
		_, last := hashtree.Marks(parts[len(parts)-1])
		b.DeleteRange(vnode.MarkSpan(v.partition, n, first, last))
	}
	return func() {
		for _, p := range parts {
			t.Saved(p)
			t.stored, t.width, t.from = true, p.Bits, p.Index+1
		}
		if !ok && t.Settled() {
			t.saving, t.from, t.saved = false, 0, time.Now()
			_, t.changed = t.Unsaved(0)
		}
	}
}

// save goes on with checkpoints that are being made, and begins those that are old. A crash may lose
// what is written of them and then loses all that was written after it, so nobody waits for the disk.
func (v *vnodeActor) save() {
	v.upkeep.saver.Stop()
	saving := false
	for n, t := range v.upkeep.trees {
		if t == nil || !t.changed || !t.Settled() {
			continue
		}
		if !t.saving && time.Since(t.saved) < cmp.Or(v.s.pace.checkpoint, checkpointEvery) {
			continue
		}
		t.saving = true
		b := v.s.Engine.NewBatch()
		saved := v.checkpoint(b, n, checkpointBytes)
		if err := b.Commit(storage.Applied, nil); err != nil {
			v.s.Log.Warn("no checkpoint of a hash tree", slog.Uint64("partition", uint64(v.partition)), slog.Any("error", err))
			return // the next tick goes on
		}
		saved()
		saving = saving || t.saving
	}
	if saving {
		v.upkeep.saver = v.s.Wheel.Send(v.self, &checkpointPaused{by: v}, checkpointPause)
	}
}

// onPaused goes on with the checkpoints.
func (v *vnodeActor) onPaused(m *checkpointPaused) {
	if m.by == v && v.status == vnodeServing && !v.away() {
		v.save()
	}
}

// saveAll adds to a batch all that is not saved of the trees, and returns what to do when it is
// applied.
func (v *vnodeActor) saveAll(b storage.Batch) (saved func()) {
	var each []func()
	for n, t := range v.upkeep.trees {
		if t != nil && t.changed {
			t.from = 0
			each = append(each, v.checkpoint(b, n, math.MaxInt))
		}
	}
	return func() {
		for _, saved := range each {
			saved()
		}
	}
}

// remark marks a range in which the checkpoint is wrong, without a write that would have
// marked it: it is read again after a crash.
func (v *vnodeActor) remark(t *keptTree, n int, p hashtree.Prefix) {
	marks := t.Unmarked(p)
	if len(marks) == 0 {
		return
	}
	b := v.s.Engine.NewBatch()
	for _, m := range marks {
		b.Set(vnode.MarkKey(v.partition, n, m.Index), []byte{})
	}
	if err := b.Commit(storage.Applied, nil); err != nil {
		v.s.Log.Warn("no marks of a hash tree", slog.Uint64("partition", uint64(v.partition)), slog.Any("error", err))
		return
	}
	t.Marked(marks)
}

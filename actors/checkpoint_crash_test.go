package actors

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
)

// TestCheckpointAfterCrash: whatever was written, read again, grown and saved in whatever
// steps, what a crash leaves is the tree of the store but for what is in doubt.
func TestCheckpointAfterCrash(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		r := start(t, setup{})
		v := &vnodeActor{s: r.s, self: r.pid(), partition: 0}
		v.write.reset(r.s.Engine)
		widths := map[uint8]bool{}
		for step := range 200 {
			switch rnd.IntN(6) {
			case 0:
				v.writeSome(t, fmt.Sprint(step), 150) // grows to 256 and to 1,024 leaves
			case 1:
				v.writeSome(t, "again", 1+rnd.IntN(3))
			case 2:
				v.tree(3).Doubt(hashtree.Prefix{Bits: hashtree.MinBits, Index: rnd.Uint32N(1 << hashtree.MinBits)})
			case 3:
				v.mendSome(t, v.tree(3), 1+rnd.IntN(90))
			default:
				b := r.s.Engine.NewBatch()
				saved := v.checkpoint(b, 3, 1+rnd.IntN(4000))
				if err := b.Commit(storage.Applied, nil); err != nil {
					t.Fatal(err)
				}
				saved()
				widths[v.tree(3).width] = true
			}
			opened, err := r.s.loadTree(1, 0, 3)
			if err != nil {
				t.Fatal(err)
			}
			if opened == nil {
				continue
			}
			opened.stored = false // it is only looked at, and marks nothing
			for !opened.Settled() {
				v.mendSome(t, opened, 1)
			}
			if got, want := opened.Root(), treeOf(t, r.engine).Root(); got != want {
				t.Fatalf("seed %d, step %d: a tree of %v, the store is %v", seed, step, got, want)
			}
		}
		if !widths[0] || !widths[2] || !widths[4] {
			t.Errorf("seed %d: saved in parts of the widths %v only", seed, widths)
		}
	}
}

// writeSome is a turn that writes some objects.
func (v *vnodeActor) writeSome(t *testing.T, name string, count int) {
	t.Helper()
	v.write.reset(v.s.Engine)
	for i := range count {
		key := object(0, fmt.Sprint(name, i))
		before, err := v.loadForWrite(key)
		if err != nil {
			t.Fatal(err)
		}
		v.write.setObject(key, vnode.Stored{Record: elsewhere(t, byte(9+len(before.Record.Versions)), name)}, before)
	}
	v.commit()
}

// mendSome reads as many ranges of a tree as need it, up to so many.
func (v *vnodeActor) mendSome(t *testing.T, tree *keptTree, count int) {
	t.Helper()
	for range count {
		p, ok := tree.Work()
		if !ok {
			return
		}
		check := tree.Check(p)
		first, last := tree.Range(check.Prefix())
		lower, upper := vnode.PositionRange(0, 3, first, last)
		read := &rangeRead{by: v, check: check}
		read.damaged, read.err = v.s.entries(0, lower, upper, func(key, _ []byte, h hashtree.Hash) bool {
			read.entries = append(read.entries, hashtree.Entry{Position: vnode.ObjectPosition(key), Hash: h})
			return true
		})
		mine := v.upkeep.trees[3]
		v.upkeep.trees[3], v.upkeep.reading, v.upkeep.n = tree, check, 3
		v.onRange(read)
		v.upkeep.trees[3] = mine
	}
}

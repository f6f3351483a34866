package sim

import (
	"bytes"
	"slices"

	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// keptTree is a vnode's hash tree, of the one n that there is, and what is stored of it:
// a checkpoint, and marks of the ranges that were written to since.
type keptTree struct {
	*hashtree.Tree
	changed bool // since the checkpoint
	reading bool // the range that is in doubt, or looked after
}

// wholeTree is the only part of a checkpoint here: there are too few keys for more.
var wholeTree = hashtree.Prefix{}

// touched is an object that a turn writes or drops, and the hash of what it was before.
type touched struct {
	key *keyInfo
	was hashtree.Hash
}

// sortKeys puts the keys of each partition in the order of the store.
func (c *cluster) sortKeys() {
	c.sorted = make([][]*keyInfo, c.plan.partitions)
	for i := range c.keys {
		k := &c.keys[i]
		c.sorted[k.partition] = append(c.sorted[k.partition], k)
	}
	for _, keys := range c.sorted {
		slices.SortFunc(keys, func(a, b *keyInfo) int { return bytes.Compare(a.stored, b.stored) })
	}
}

// between are the keys of the partition whose positions are in a range of its tree.
func (v *vnodeShell) between(p hashtree.Prefix) []*keyInfo {
	first, last := v.tree.Range(p)
	var out []*keyInfo
	for _, k := range v.n.c.sorted[v.partition] {
		if bytes.Compare(k.position[:], first[:]) >= 0 && bytes.Compare(k.position[:], last[:]) <= 0 {
			out = append(out, k)
		}
	}
	return out
}

// entry is the hash of what reads see of a key; a value that is damaged is none.
func (n *node) entry(k *keyInfo) hashtree.Hash {
	r := n.record(k, false)
	if r.IsZero() {
		return hashtree.Hash{}
	}
	return hashtree.EntryHash(k.key, r.CausalHash())
}

func (v *vnodeShell) treeKey(part hashtree.Prefix) string {
	return string(vnode.TreeKey(v.partition, v.n.c.plan.properties.Quorum.N, part.Bits, part.Index))
}

func (v *vnodeShell) markKey(p hashtree.Prefix) string {
	return string(vnode.MarkKey(v.partition, v.n.c.plan.properties.Quorum.N, p.Index))
}

// loadTree makes the tree of the checkpoint, and doubts what is marked as written since.
func (v *vnodeShell) loadTree() {
	c, store := v.n.c, v.n.disk.volatile
	if !c.plan.heals() {
		return
	}
	t := hashtree.New(c.plan.partitions, v.partition)
	if part := store[v.treeKey(wholeTree)]; part != nil {
		var err error
		if t, err = hashtree.Load(c.plan.partitions, v.partition, [][]byte{part}); err != nil {
			c.fail("T1", "the checkpoint of partition %d on %s: %v", v.partition, v.n.id, err)
		}
	} else if slices.ContainsFunc(c.sorted[v.partition], func(k *keyInfo) bool { return store[string(k.stored)] != nil }) {
		t.DoubtAll()
	}
	v.tree = keptTree{Tree: t}
	for _, k := range c.sorted[v.partition] {
		mark := t.Prefix(k.position, hashtree.MarkBits)
		if _, marked := store[v.markKey(mark)]; marked {
			t.Doubt(mark)
			t.Marked([]hashtree.Prefix{mark})
			v.tree.changed = true
		}
	}
}

// touch notes what an object is before the turn.
func (v *vnodeShell) touch(k *keyInfo) {
	again := slices.ContainsFunc(v.touched, func(t touched) bool { return t.key == k })
	if v.tree.Tree != nil && !again {
		v.touched = append(v.touched, touched{k, v.n.entry(k)})
	}
}

// markTree adds to the turn's batch the marks of what it writes.
func (v *vnodeShell) markTree() {
	for _, t := range v.touched {
		if mark, first := v.tree.Mark(t.key.position); first {
			v.writes = append(v.writes, write{key: v.markKey(mark), value: []byte{}})
		}
	}
}

// growTree brings what the turn has written into the tree, now that reads see it.
func (v *vnodeShell) growTree() {
	for _, t := range v.touched {
		now := v.n.entry(t.key)
		if v.n.c.mutation == treeKeepsDropped && now.IsZero() {
			continue
		}
		v.tree.Update(t.key.position, t.was, now)
		v.tree.changed = true
	}
	for _, k := range v.damaged {
		v.doubt(k)
	}
}

// doubt has the leaf of an object read again.
func (v *vnodeShell) doubt(k *keyInfo) {
	if v.tree.Tree != nil {
		v.tree.Doubt(v.tree.Leaf(k.position))
	}
}

// verify reads all objects and sets the tree right.
func (v *vnodeShell) verify() {
	n, t := v.n, &v.tree
	if t.reading || v.status != vnodeServing || v.isLost() {
		return
	}
	t.reading = true
	tree, check, whole := t.Tree, t.Check(hashtree.Prefix{}), v.watch()
	n.after(scale(n.c.random.disk.Float64(), n.c.plan.disk.read), func() {
		if t.Tree != tree {
			return // it was dropped with the rest
		}
		t.reading = false
		if !whole() {
			t.Abandon(check)
			return
		}
		var entries []hashtree.Entry
		for _, k := range v.between(check.Prefix()) {
			if _, _, err := n.disk.get(k.stored); err != nil {
				v.met(err)
				t.Abandon(check)
				return
			}
			if h := n.entry(k); !h.IsZero() {
				entries = append(entries, hashtree.Entry{Position: k.position, Hash: h})
			}
		}
		settled := t.Settled()
		did, err := t.Mend(check, entries)
		switch {
		case err != nil:
			n.c.fail("T1", "the tree of partition %d on %s: %v", v.partition, n.id, err)
		case did.Wrong > 0 && settled && !n.c.plan.rots():
			n.c.fail("T1", "of the tree of partition %d on %s %d leaves were wrong", v.partition, n.id, did.Wrong)
		case did.Wrong > 0:
			v.remark(check.Prefix())
		}
	})
}

// remark marks what the checkpoint has wrong. A range without keys needs no mark.
func (v *vnodeShell) remark(p hashtree.Prefix) {
	t, b := &v.tree, batch{}
	marks := t.Unmarked(p)
	for _, k := range v.between(p) {
		if mark := t.Prefix(k.position, hashtree.MarkBits); slices.Contains(marks, mark) {
			b.writes = append(b.writes, write{key: v.markKey(mark), value: []byte{}})
		}
	}
	t.changed = true
	if v.n.disk.commit(b) == nil {
		t.Marked(marks)
	}
}

// checkpoint stores the tree, and removes the marks.
func (v *vnodeShell) checkpoint() {
	t := &v.tree
	if !t.changed || !t.Settled() || v.status != vnodeServing {
		return
	}
	part, unsaved := t.Unsaved(0)
	if !unsaved {
		t.changed = false
		return
	}
	if part != wholeTree {
		v.n.c.fail("T1", "the tree of partition %d on %s has grown to %d bits", v.partition, v.n.id, t.Bits())
	}
	b := batch{writes: []write{{key: v.treeKey(part), value: t.Encode(part)}}}
	for _, k := range v.n.c.sorted[v.partition] {
		b.writes = append(b.writes, write{key: v.markKey(t.Prefix(k.position, hashtree.MarkBits))})
	}
	if v.n.disk.commit(b) == nil {
		t.Saved(part)
		t.changed = false
	}
}

package sim

import (
	"bytes"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// apartness is what lies on a node that is for others, as the checker sees it on the
// disk, whatever the node counts: whether there is something, how often it changed, and
// in which life of the process that was seen, for what a process had on its way goes with it.
type apartness struct {
	lies  bool
	count int
	life  uint64
}

// place names the disk of a node, and a partition on it.
type place struct {
	store     member.StoreID
	node      int
	partition dynamo.Partition
}

// wrote takes note of a write to a node's disk, or of one that a crash undid.
func (h *checker) wrote(n *node, key string) {
	if !h.c.plan.reaps() {
		return
	}
	_, object, hint := vnode.ParseHintKey([]byte(key))
	if hint {
		key = string(object)
	}
	if i, known := h.c.byStore[key]; known && (hint || !n.owns(&h.c.keys[i])) {
		h.aparts[place{n.store, n.index, h.c.keys[i].partition}]++
	}
}

// apartOf is what lies on a vnode's node of its partition.
func (h *checker) apartOf(v *vnodeShell) apartness {
	n := v.n
	a := apartness{count: h.aparts[place{n.store, n.index, v.partition}], life: n.life}
	for _, k := range h.c.sorted[v.partition] {
		_, there := n.disk.volatile[string(k.stored)]
		a.lies = a.lies || there && !n.owns(k) || slices.ContainsFunc(h.c.nodes, func(x *node) bool { return n.marked(k, x.id) })
	}
	return a
}

// reaping is D2 when a reaping begins: nobody sees anything in what it is about, as far
// as the clocks are no further apart than they may be.
func (h *checker) reaping(s *reapShell) {
	first, last := h.c.clocks()
	for i, r := range s.records {
		for _, v := range r.Versions {
			if !v.Tombstone && (v.Expires == 0 || last.Sub(first) <= h.c.plan.heal.skew && v.Expires > first) {
				h.c.fail("D2", "%s reaps %v, of which %v %q is there for some", s.n.id, h.c.keys[s.keys[i]].key, v.Dot, v.Value)
			}
		}
	}
}

// clocks are the earliest and the latest time that a node believes it is.
func (c *cluster) clocks() (first, last dynamo.Timestamp) {
	first, last = c.nodes[0].now(), c.nodes[0].now()
	for _, n := range c.nodes {
		first, last = min(first, n.now()), max(last, n.now())
	}
	return first, last
}

// doomed is what must be true when a reaping decides: what the records cover is nowhere
// (D1), no member was out of reach all the time (D3), and nothing was kept for others
// from the first answers to the last (D5). From now on what they cover is gone for good.
func (h *checker) doomed(s *reapShell, keys []int) {
	h.heard(s)
	for _, i := range keys {
		k, r := &h.c.keys[s.keys[i]], s.records[i]
		l := h.ledger(k)
		l.doomed = l.doomed.Merge(r.Clock)
		for _, e := range r.Clock.Entries() {
			made := l.byActor[e.Actor]
			for _, w := range made[:min(e.Counter, uint64(len(made)))] {
				if !r.Has(w.dot) && !w.reaped {
					w.reaped, w.reapedAt = true, h.c.now
				}
			}
		}
		for _, n := range h.c.nodes {
			if !n.off {
				h.back(n, l, n.record(k, false), s.n.c.now+1)
				h.back(n, l, n.record(k, true), s.n.c.now+1)
			}
		}
	}
}

// heard is D3 and D5.
func (h *checker) heard(s *reapShell) {
	for _, id := range slices.Concat(s.plan.Members, s.plan.Primaries) {
		n := h.c.node(id)
		cut := h.c.net.cutSince(s.n.index, n.index)
		switch {
		case !n.up && n.downSince <= s.started, n.paused && n.pausedSince <= s.started, cut != whole && cut <= s.started:
			h.c.fail("D3", "%s reaps of partition %d since %v, and has heard nothing of %s", s.n.id, s.partition, s.started, id)
		}
		a, askedA := s.truths[0][id]
		b, askedB := s.truths[1][id]
		if askedA && askedB && (a.lies || a != b) {
			h.c.fail("D5", "%s reaps of partition %d, of which %s had something for others, or may have had: %+v, %+v", s.n.id, s.partition, id, a, b)
		}
	}
}

// back is D1: what a reaped record had covered is not back, as far as a record was read
// after that.
func (h *checker) back(n *node, l *ledger, r version.Record, read time.Duration) {
	for _, v := range r.Versions {
		if w := l.find(v.Dot); w != nil && w.reaped && w.reapedAt < read && !l.truncated {
			h.c.fail("D1", "%s has %v of %v, %q, which what was reaped at %v had covered", n.id, v.Dot, l.key.key, v.Value, w.reapedAt)
		}
	}
}

// ended is D6: a value that was told to be over is not shown later on, when all clocks
// must have passed that moment, wherever they were set to.
func (h *checker) ended(g *getShell, l *ledger, r version.Record) {
	for _, v := range r.Versions {
		told, over := l.over[v.Dot]
		switch expired := v.Expired(g.n.now()); {
		case expired && !over:
			l.over[v.Dot] = h.c.now
		case !expired && over && h.c.now-told > h.c.skews[1]-h.c.skews[0]:
			h.c.fail("D6", "%s shows %v of %v, which was told to be over at %v", g.n.id, v.Dot, l.key.key, told)
		}
	}
}

// reaped is D2 when a primary drops: it is nothing but what was decided on.
func (h *checker) reaped(v *vnodeShell, k *keyInfo, have version.Record) {
	if l := h.ledger(k); !l.doomed.Descends(have.Clock) && !l.truncated {
		h.c.fail("D2", "%s drops %v with %v, of %v, and only what %v covers was to be reaped", v.n.id, k.key, dots(have), have.Clock, l.doomed)
	}
}

// allReaped is D4: nothing is left that two rounds should have reaped; due says when it
// had to be over.
func (h *checker) allReaped(due dynamo.Timestamp) {
	for i := range h.c.keys {
		k := &h.c.keys[i]
		for _, id := range h.c.doc.Settled.Primaries(k.partition, h.c.plan.properties.Quorum.N) {
			if r := h.c.node(id).record(k, true); reap.Reapable(r, due.Add(reap.Skew)) {
				h.c.fail("D4", "%s still has %v, nobody sees it any more: %v", id, k.key, dots(r))
				return
			}
		}
	}
}

// treeIsStore is T1: a tree that is compared is what the store holds.
func (h *checker) treeIsStore(v *vnodeShell) {
	if h.c.plan.rots() || v.hasHole() {
		return
	}
	var sum hashtree.Hash
	for _, k := range h.c.sorted[v.partition] {
		for i, b := range v.n.entry(k) {
			sum[i] ^= b
		}
	}
	if root := v.tree.Root().Hash; !bytes.Equal(root[:], sum[:]) {
		h.c.fail("T1", "%s compares by a tree of partition %d with the root %x, of the store it is %x", v.n.id, v.partition, root, sum)
	}
}

// mended reports whether what faults destroyed of a key is everywhere again where it was,
// and no reaping has decided on it, so that more may be destroyed.
func (h *checker) mended(k *keyInfo) bool {
	if !h.c.plan.heals() {
		return true
	}
	l := h.ledger(k)
	for _, n := range h.c.nodes {
		if !n.record(k, true).Clock.Merge(l.doomed).Merge(l.handed[n.index]).Descends(l.durableDamage[n.index]) {
			return false
		}
		if s := n.tending.reapings[k.partition]; n.up && s != nil && s.machine.State() >= reap.Confirming {
			return false
		}
	}
	return true
}

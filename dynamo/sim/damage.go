package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// lossPlan is how blocks of stored objects become unreadable; zero in a run in which none does.
type lossPlan struct {
	// every is the mean time between two that do.
	every time.Duration
}

// loses reports whether stored objects become unreadable in the run.
func (p *plan) loses() bool { return p.loss.every > 0 }

// drawLoss has stored objects become unreadable. A replica of which nobody else has the data stays as
// it is, so that there is none where n is 1.
func drawLoss(p *plan, r *rand.Rand) {
	if p.properties.Quorum.N > 1 && p.move.ruins == 0 {
		p.loss.every = between(r, 100*time.Millisecond, 2*time.Second)
	}
}

// hole is what lies under the key of an object whose block is damaged.
var hole = []byte("hole")

func isHole(value []byte) bool { return string(value) == string(hole) }

// holed reports whether the node cannot read a key.
func (n *node) holed(k *keyInfo) bool { return isHole(n.disk.volatile[string(k.stored)]) }

// hasHole reports whether some object of the partition cannot be read.
func (v *vnodeShell) hasHole() bool {
	return slices.ContainsFunc(v.n.c.sorted[v.partition], v.n.holed)
}

// hasDamage reports whether a node has yet to mend its store.
func (n *node) hasDamage() bool {
	return n.c.plan.loses() && slices.ContainsFunc(n.vnodes, func(v *vnodeShell) bool {
		return v.loss.Suspect > 0 || v.loss.interrupted || v.isLost() || v.hasHole()
	})
}

// mending reports whether damage is not made up for yet, so that no disk may be lost.
func (c *cluster) mending() bool {
	lost := func(f member.Fill) bool { return f.Since > 0 }
	unread := func(n *node) bool {
		return slices.ContainsFunc(c.keys, func(k keyInfo) bool { return n.holed(&k) })
	}
	return c.plan.loses() && (slices.ContainsFunc(c.doc.Movement.Filling, lost) || slices.ContainsFunc(c.nodes, unread))
}

// damage makes blocks of stored objects unreadable, until the faults are over.
func (c *cluster) damage() {
	if !c.plan.loses() {
		return
	}
	r := c.random.loss
	c.after(scale(r.ExpFloat64(), c.plan.loss.every)+time.Millisecond, func() {
		n, k := c.nodes[r.IntN(len(c.nodes))], &c.keys[r.IntN(len(c.keys))]
		objects := c.sorted[k.partition]
		first := slices.Index(objects, k)
		for _, k := range objects[first:min(first+1+r.IntN(3), len(objects))] {
			if _, there := n.disk.durable[string(k.stored)]; !there || n.holed(k) {
				continue // a block has nothing of it
			}
			if c.calm || !c.mayDamage(n, k) {
				break
			}
			c.tracef("%s cannot read %v any more", n.id, k.key)
			c.check.destroy(n, k)
			n.disk.durable[string(k.stored)], n.disk.volatile[string(k.stored)] = hole, hole
		}
		if !c.calm {
			c.damage()
		}
	})
}

// mayDamage reports whether a node may be unable to read its copy of a key: a fill of it finds
// all that the copy has, by the ring that is read and, while the partition moves, by the other one:
// from its switch on nobody else is asked.
func (c *cluster) mayDamage(n *node, k *keyInfo) bool {
	d, q := c.doc, c.plan.properties.Quorum.N
	has := func(x *node) bool {
		m, known := d.Member(x.id)
		return known && !x.off && !m.Removed && m.Status != member.Gone && m.Store == x.store && d.Holds(k.partition, q, x.id)
	}
	if c.move.hole != "" || !has(n) || n.disk.touches(string(k.stored)) {
		return false
	}
	lists := []ring.Ring{d.Reading(k.partition)}
	if also, moves := d.AlsoWriting(k.partition, q); moves {
		lists = append(lists, also)
	}
	have := n.record(k, true).Clock
	for _, list := range lists {
		rest := c.check.ledger(k).doomed
		for _, id := range list.Primaries(k.partition, q) {
			if x := c.node(id); x != n && has(x) {
				rest = rest.Merge(x.record(k, true).Clock)
			}
		}
		if !rest.Descends(have) {
			return false
		}
	}
	return have.Len() > 0
}

// careForLosses has the vnodes go on with what they have to do about damage, and finds damage
// that no request has met.
func (n *node) careForLosses() {
	if !n.c.plan.loses() || n.inForce == nil {
		return
	}
	for _, v := range n.vnodes {
		if v.status == vnodeFailed {
			v.probe() // nobody may ask it to write any more
		}
		if v.status != vnodeServing {
			continue
		}
		v.careForLoss()
		switch {
		case !v.hasHole():
		case !v.isReplica():
			v.forgetHoles()
		case n.c.calm || chance(n.c.random.loss, scanned):
			v.met(errHole)
		}
	}
}

// forgetHoles takes damage away that nobody mends: of objects that the node is no replica of any
// more. An operator would give the node an empty disk.
func (v *vnodeShell) forgetHoles() {
	if v.loss.dropping {
		return
	}
	var b batch
	for _, k := range v.n.c.sorted[v.partition] {
		if v.n.holed(k) {
			b.writes = append(b.writes, write{key: string(k.stored)})
			v.doubt(k)
		}
	}
	for _, r := range vnode.OwnRanges(v.partition) {
		for _, key := range v.n.stored(r[0], r[1]) {
			if key != string(vnode.MetaKey(v.partition)) {
				b.writes = append(b.writes, write{key: key})
			}
		}
	}
	if err := v.n.disk.commit(b); err != nil {
		v.n.c.tracef("%s keeps damage of partition %d: %v", v.n.id, v.partition, err)
	}
}

package sim

import (
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

// ruinSome has the disks of the first replicas of a partition get lost, each as soon as the one before
// is taken over, so that no replica is filled in between.
func (c *cluster) ruinSome(p dynamo.Partition) {
	list := c.doc.Reading(p).Primaries(p, 1+c.random.fault.IntN(c.plan.move.ruins))
	c.ruin(list, 0)
}

// ruin has the disk of the first node get lost, and later those of the others.
func (c *cluster) ruin(list []dynamo.NodeID, waited time.Duration) {
	const pause = 5 * time.Millisecond
	if len(list) == 0 || c.calm || waited > time.Second {
		return
	}
	n := c.node(list[0])
	if x, known := c.doc.Member(n.id); !known || x.Out() || x.Removed || x.Store != n.store || n.off || !n.up || !c.remembered(n) {
		c.after(pause, func() { c.ruin(list, waited+pause) })
		return
	}
	c.tracef("the disk of %s is lost, and %v are next", n.id, list[1:])
	n.crash(0)
	for i := range c.keys {
		c.check.destroy(n, &c.keys[i])
	}
	held := c.check.heldBy(n)
	n.empty()
	c.check.ruined(held)
	c.move.Ruins++
	c.after(pause, n.start)
	c.after(pause, func() { c.ruin(list[1:], 0) })
}

// remembered reports whether a majority is left when a member loses its votes, and one of them has the newest
// version on its disk: else nobody might know who is to decide on the next one.
// So no other lost disk waits to be taken over: members that leave meanwhile would make a majority of those that are lost.
func (c *cluster) remembered(n *node) bool {
	knows := func(o *node) bool {
		v, saved := o.savedVoter()
		x, known := c.doc.Member(o.id)
		return o != n && !o.off && saved && v.Document.Version == c.doc.Version && known && !x.Out() && x.Store == o.store
	}
	untaken := func(o *node) bool {
		x, known := c.doc.Member(o.id)
		return o != n && known && !x.Out() && x.Store != o.store
	}
	return c.outlived(n) && !slices.ContainsFunc(c.nodes, untaken) && slices.ContainsFunc(c.nodes, knows)
}

// heldBy are the acknowledged writes of which a node has a copy on its disk, be it as a hint.
func (h *checker) heldBy(n *node) map[*put]*keyInfo {
	held := map[*put]*keyInfo{}
	for i := range h.c.keys {
		k := &h.c.keys[i]
		for _, w := range h.ledger(k).acked {
			if !w.excused && n.holds(k, w.dot, true) {
				held[w] = k
			}
		}
	}
	return held
}

// ruined excuses those of a lost disk of which no replica that reads ask has a copy.
func (h *checker) ruined(held map[*put]*keyInfo) {
	for w, k := range held {
		w.excused = !h.heldForReads(k, w)
	}
}

// ruinedBefore reports whether a write was on disks that were lost while their confirmations were under way, so that
// reads may miss it once operators have accepted the loss: W of the replicas that they ask had it on such a disk, and
// none of them has it any more. Others may: the other list of a partition that moves hands it over, later. Only
// runs with ruins are asked: there no other fault destroys what is durable.
func (h *checker) ruinedBefore(k *keyInfo, w *put) bool {
	if h.c.plan.move.ruins == 0 || h.heldForReads(k, w) {
		return false
	}
	l, q, lost := h.ledger(k), h.c.plan.properties.Quorum, 0
	for _, id := range h.c.doc.Reading(k.partition).Primaries(k.partition, q.N) {
		if l.durableDamage[h.c.node(id).index].Covers(w.dot) {
			lost++
		}
	}
	return lost >= q.W
}

// heldForReads reports whether a replica that reads ask has a write on its disk.
func (h *checker) heldForReads(k *keyInfo, w *put) bool {
	list := h.c.doc.Reading(k.partition).Primaries(k.partition, h.c.plan.properties.Quorum.N)
	return slices.ContainsFunc(list, func(id dynamo.NodeID) bool { return h.c.node(id).holds(k, w.dot, true) })
}

// accept is an operator's acceptance of all that is lost.
func (c *cluster) accept(now member.Document, version uint64) (member.Document, error) {
	out, err := now.AcceptLoss(nil, version)
	if err == nil && c.mutation == acceptSourced {
		out.Movement.Filling = slices.DeleteFunc(slices.Clone(out.Movement.Filling), func(f member.Fill) bool {
			return f.Accepted != 0 && sourced(&now, f, c.plan.properties.Quorum.N)
		})
	}
	return out, err
}

// losses is M8: a fill of which there was no source is over only if its loss was accepted before; and
// what is accepted has no source, and was destroyed.
func (h *checker) losses(before, d member.Document) {
	q := h.c.plan.properties.Quorum.N
	for _, f := range before.Movement.Filling {
		now, waits := d.Filling(f.Partition, f.Node)
		if now.Accepted&^f.Accepted != 0 {
			h.c.move.Accepted++
		}
		x, known := d.Member(f.Node)
		from, to := before.FillRange(f)
		if !known || x.Out() || x.Removed || q < from || to < q {
			continue
		}
		accepted, has := f.Accepted>>q&1 != 0, sourced(&before, f, q)
		if !waits && !accepted && !has {
			h.c.fail("M8", "version %d: %s is filled with partition %d, of which nobody has the data", d.Version, f.Node, f.Partition)
		}
		if now.Accepted>>q&1 != 0 && !accepted && (has || !h.harmed(f.Partition)) {
			h.c.fail("M8", "version %d: the loss of partition %d on %s is accepted, and somebody has the data, or no copy was destroyed", d.Version, f.Partition, f.Node)
		}
	}
}

// sourced reports whether some replica has the data that a fill lacks: its disk was not lost, or it was
// filled since. While a partition is switched, those of the list before have it, too.
func sourced(d *member.Document, f member.Fill, n int) bool {
	list := d.Reading(f.Partition).Primaries(f.Partition, n)
	if d.Phase(f.Partition) == member.PhaseSwitched {
		list = append(list, d.Settled.Primaries(f.Partition, n)...)
	}
	return f.Since > 0 && !f.Emptied || slices.ContainsFunc(list, func(id dynamo.NodeID) bool {
		x, known := d.Member(id)
		lack, lacks := d.Filling(f.Partition, id)
		return known && !x.Removed && id != f.Node && (!lacks || !lack.Whole || lack.Since > 0 && !lack.Emptied)
	})
}

// harmed reports whether the ledgers know, of each acknowledged write of the partition that is gone, that
// a copy was destroyed.
func (h *checker) harmed(p dynamo.Partition) bool {
	return !slices.ContainsFunc(h.c.sorted[p], func(k *keyInfo) bool {
		l := h.ledger(k)
		return !l.harmed() && slices.ContainsFunc(l.acked, func(w *put) bool {
			return !w.excused && !l.doomed.Covers(w.dot) && !h.heldForReads(k, w)
		})
	})
}

package sim

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo/version"
)

// handedOver is I5: what is dropped the intended node has on its disk, unless a
// fault destroyed it there.
func (h *checker) handedOver(n *node, k *keyInfo, m *dropHints, record version.Record) {
	l := h.ledger(k)
	intended := m.intended
	if !m.home {
		h.handedToAll(n, k, record)
		return
	}
	x := h.c.node(intended)
	// It may have handed it on since, as no replica any more.
	there := x.record(k, true).Clock.Merge(l.durableDamage[x.index]).Merge(l.appliedDamage[x.index]).Merge(l.handed[x.index]).Merge(l.doomed)
	if !l.truncated && !there.Descends(record.Clock) {
		h.c.fail("I5", "%s drops %v, kept for %s, which has %v of %v", n.id, k.key, intended, there, record.Clock)
	}
}

// handedToAll is I5 for what is kept for nobody who is a replica: of each list that
// writes need enough have it.
func (h *checker) handedToAll(n *node, k *keyInfo, record version.Record) {
	l, q := h.ledger(k), h.c.plan.properties.Quorum
	replicas, lists := n.needs(k.partition)
	if slices.Contains(replicas, n.id) {
		return // it has the record itself
	}
	for _, list := range lists {
		have := 0
		for _, id := range list {
			x := h.c.node(id)
			there := x.record(k, true).Clock.Merge(l.durableDamage[x.index]).Merge(l.handed[x.index]).Merge(l.doomed)
			if there.Descends(record.Clock) {
				have++
			}
		}
		if !l.truncated && have < min(len(list), max(q.W, q.N/2+1)) {
			h.c.fail("I5", "%s drops %v, which %d of %v have: %v", n.id, k.key, have, list, record.Clock)
		}
	}
}

// checkHints: when all is at rest, nothing is kept for anybody.
func (c *cluster) checkHints() {
	for _, n := range c.nodes {
		for _, x := range c.nodes {
			for i := range c.keys {
				if n.marked(&c.keys[i], x.id) {
					c.fail("L3", "%s still keeps %v for %s", n.id, c.keys[i].key, x.id)
				}
			}
		}
	}
}

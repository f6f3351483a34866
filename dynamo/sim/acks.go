package sim

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// acked is I4, at the moment of the acknowledgement: W distinct nodes hold the
// write or cover it, as durably as the bucket asks. A copy that was there and
// that an injected fault destroyed counts.
func (h *checker) acked(p *putShell, dot clock.Dot) {
	n, k, request := p.n, p.key, p.message.id
	l := h.ledger(k)
	w := l.find(dot)
	if w == nil || w.request != request {
		h.c.fail("I15", "%s acknowledges the request %s with %v, which is not its dot", n.id, request, dot)
		return
	}
	durable, applied, primaries := 0, 0, 0
	for _, x := range h.c.nodes {
		onDisk := x.holds(k, dot, true) || l.durableDamage[x.index].Covers(dot) || l.doomed.Covers(dot)
		if h.c.plan.moves() && l.handed[x.index].Covers(dot) {
			onDisk = true
		}
		inMemory := onDisk || x.holds(k, dot, false) || l.appliedDamage[x.index].Covers(dot)
		if onDisk {
			durable++
		}
		if inMemory {
			applied++
			if h.primary(k, x) {
				primaries++
			}
		}
	}
	needDurable, b := 0, h.c.plan.properties
	if b.Durability == dynamo.DurabilityAll {
		// With one, the paper's durable write of a single replica is not waited
		// for (§ 6.1): the quorum may be met before it.
		needDurable = max(b.Quorum.W, b.Quorum.PW)
	}
	if durable < needDurable || applied < max(b.Quorum.W, b.Quorum.PW) || primaries < b.Quorum.PW {
		h.c.fail("I4", "%s acknowledges %v of %v: %d nodes have it, %d durably, %d primaries; %v, durability %v",
			n.id, dot, k.key, applied, durable, primaries, b.Quorum, b.Durability)
	}
	h.lists(p, w)
	if !w.acked {
		w.acked = true
		// All copies may have been destroyed while the confirmations travelled, or all
		// that were durable: a crash may take the others.
		onDisk := func(x *node) bool { return x.holds(k, dot, true) || h.c.plan.moves() && l.handed[x.index].Covers(dot) }
		w.excused = l.lostEverywhere(w) || needDurable > 0 && !slices.ContainsFunc(h.c.nodes, onDisk)
		w.unread = h.ruinedBefore(k, w)
		l.acked = append(l.acked, w)
	}
}

func (h *checker) primary(k *keyInfo, n *node) bool {
	for _, r := range h.c.doc.Settled.Preference(k.partition, h.c.plan.properties.Quorum.N, ring.Everyone) {
		if r.Node == n.id {
			return true
		}
	}
	return false
}

// began returns how many writes of a key were acknowledged when a get began.
func (h *checker) began(k *keyInfo) int { return len(h.ledger(k).acked) }

// got is R1: with R+W>N and primaries only, a read sees every write that was
// acknowledged before it began, unless faults destroyed the copies that the two
// quorums have in common. Its record obeys the rules of stored ones.
func (h *checker) got(g *getShell, r version.Record) {
	l := h.ledger(g.key)
	if len(r.Missing()) > 0 {
		// Only of versions that no reader sees may values be missing.
		r.Versions = r.Live(g.n.now())
	}
	h.values(g.n, l, r)
	h.back(g.n, l, r, g.started)
	h.ended(g, l, r)
	p := h.c.plan.properties.Quorum
	common := max(p.R, p.PR) + max(p.W, p.PW) - p.N
	if common <= 0 || h.c.plan.spares > 0 || l.truncated {
		return
	}
	for _, w := range l.acked[:g.seen] {
		if h.c.plan.move.ruins > 0 && (w.excused || w.unread) {
			continue // with the disks of all that had it, or that reads ask
		}
		if !r.Clock.Covers(w.dot) && !l.doomed.Covers(w.dot) && l.destroyed(w) < common {
			h.c.fail("R1", "a get of %v on %s, begun at %v, has not seen %v %q, acknowledged before: %v",
				g.key.key, g.n.id, g.started, w.dot, w.value, r.Clock)
			return
		}
	}
}

// destroyed counts the nodes that lost a copy of a write and answer as if they
// never had it.
func (l *ledger) destroyed(w *put) int {
	n := 0
	for i := range l.readDamage {
		if l.readDamage[i].Covers(w.dot) {
			n++
		}
	}
	return n
}

// crashed takes note of what a crash destroyed: copies that were applied and
// not durable. Below durability all that may be all copies of a write.
func (h *checker) crashed(n *node, before map[string][]byte, lost []string) {
	for _, key := range lost {
		i, ok := h.c.byStore[key]
		if !ok {
			continue
		}
		k := &h.c.keys[i]
		l := h.ledger(k)
		s, err := vnode.DecodeStored(k.stored, before[key])
		if err != nil {
			continue // it had been corrupted, and counted then
		}
		l.appliedDamage[n.index] = l.appliedDamage[n.index].Merge(s.Record.Clock)
		if h.c.plan.moves() {
			continue // what was acknowledged is durable
		}
		h.hidden(n, k)
		if h.c.plan.properties.Durability != dynamo.DurabilityAll {
			h.excuse(l)
		}
	}
}

// excuse strikes acknowledged writes off whose last copy is gone.
func (h *checker) excuse(l *ledger) {
	for _, w := range l.acked {
		w.excused = w.excused || l.lostEverywhere(w)
	}
}

// spare reports whether the durable copy of a key on a node may be destroyed:
// another primary must have a readable one, and each acknowledged write must stay
// durable on another node. It is the budget of the faults.
func (h *checker) spare(n *node, k *keyInfo) bool {
	l := h.ledger(k)
	rest, readable := clock.Clock{}, false
	for _, x := range h.c.nodes {
		if x != n && h.primary(k, x) { // what a fallback keeps may be about to go
			there := x.record(k, true).Clock
			rest = rest.Merge(there)
			readable = readable || there.Len() > 0
		}
	}
	have := n.record(k, false).Clock
	if have.Len() > 0 && !readable {
		return false
	}
	for _, w := range l.acked {
		if !w.excused && !l.doomed.Covers(w.dot) && have.Covers(w.dot) && !rest.Covers(w.dot) {
			return false
		}
	}
	return true
}

// hidden takes note that reads of a node's copy do not show its damage.
func (h *checker) hidden(n *node, k *keyInfo) {
	l, i := h.ledger(k), n.index
	l.readDamage[i] = l.readDamage[i].Merge(l.durableDamage[i]).Merge(l.appliedDamage[i])
}

// destroy takes note that a node's copy of a key is about to be destroyed.
func (h *checker) destroy(n *node, k *keyInfo) {
	l := h.ledger(k)
	l.durableDamage[n.index] = l.durableDamage[n.index].Merge(n.record(k, true).Clock)
	l.appliedDamage[n.index] = l.appliedDamage[n.index].Merge(n.record(k, false).Clock)
}

// harmed reports whether a copy of the key was destroyed.
func (l *ledger) harmed() bool {
	return slices.ContainsFunc(append(slices.Clone(l.durableDamage), l.appliedDamage...), func(c clock.Clock) bool { return c.Len() > 0 })
}

// same reports whether the copies of a key on two nodes are equal enough after healing. Exchanges and read repair compare
// clocks and versions: a replica that lost its own copy, or the disk that had it, and takes the next write alone remembers
// no request before that one. The others still do, and a merge with any of them drops what a retry wrote twice
// (version.Record.Merge). Two that lost no copy are equal in what they remember, too.
func (h *checker) same(l *ledger, a *node, inA version.Record, b *node, inB version.Record) bool {
	lost := l.durableDamage[a.index].Len() > 0 || l.durableDamage[b.index].Len() > 0
	if h.c.plan.heals() || h.c.plan.rots() && l.harmed() || lost {
		return inA.SameCausal(inB)
	}
	return inA.Equal(inB)
}

// final checks what is left after healing: A1, C1, I15.
func (h *checker) final() {
	for i := range h.c.keys {
		k := &h.c.keys[i]
		l := h.ledger(k)
		var all version.Record
		var first *node
		for j, r := range h.c.doc.Settled.Preference(k.partition, h.c.plan.properties.Quorum.N, ring.Everyone) {
			n := h.c.node(r.Node)
			rec := n.record(k, true)
			if j == 0 {
				first, all = n, rec
			}
			h.back(n, l, rec, h.c.now+1)
			if !h.same(l, n, rec, first, all) {
				h.c.fail("C1", "%v: after healing %s holds %v %v, the first primary %v %v", k.key, r.Node, rec.Clock, dots(rec), all.Clock, dots(all))
				return
			}
		}
		for _, w := range l.acked {
			if w.excused || l.truncated || all.Has(w.dot) || l.doomed.Covers(w.dot) {
				continue
			}
			if !all.Clock.Covers(w.dot) || !l.superseded(all, w) {
				h.c.fail("A1", "%v: the acknowledged write %v %q is lost; left is %v with %v", k.key, w.dot, w.value, all.Clock, dots(all))
				return
			}
		}
	}
}

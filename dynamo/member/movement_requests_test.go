package member

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// plan is a version that somebody goes by.
func (w *moving) plan() *Document {
	if w.r.IntN(4) == 0 {
		return w.docs[w.r.IntN(len(w.docs))]
	}
	return w.nodes[w.names[w.r.IntN(len(w.names))]].doc
}

// served reports whether a replica serves a request planned with a version.
func (w *moving) served(n *movingNode, plan *Document) bool {
	if !n.serves() {
		return false
	}
	if n.damaged && plan.Version > n.doc.Version && w.bug != "takes what was planned after the loss" {
		return false
	}
	if plan.Version < n.moved && w.bug != "stale is served" {
		w.counts.refused++
		return false
	}
	return true
}

func (w *moving) write() {
	if len(w.writes) < 5 && w.started < 60 {
		w.writes = append(w.writes, &keyWrite{slow: w.slow && w.r.IntN(2) == 0, bit: 1 << w.started, plan: w.plan()})
		w.started++
		return
	}
	w.deliverWrite()
}

func (w *moving) deliverWrite() {
	if len(w.writes) == 0 {
		return
	}
	i := w.r.IntN(len(w.writes))
	k := w.writes[i]
	if k.slow && w.r.IntN(8) > 0 {
		return
	}
	if w.r.IntN(20) == 0 { // the coordinator gives up
		w.writes = slices.Delete(w.writes, i, i+1)
		return
	}
	lists := [][]dynamo.NodeID{k.plan.Reading(0).Primaries(0, w.n)}
	also, both := k.plan.AlsoWriting(0, w.n)
	if both && w.bug != "joint skipped" {
		lists = append(lists, also.Primaries(0, w.n))
	}
	to := slices.Concat(lists...)
	n := w.nodes[to[w.r.IntN(len(to))]]
	if slices.Contains(k.acks, n.id) || !w.served(n, k.plan) {
		return
	}
	n.data |= k.bit
	k.acks = append(k.acks, n.id)
	w.logf("%s has %b of plan %d", n.id, k.bit, k.plan.Version)
	for _, list := range lists {
		if count(list, k.acks) < w.W {
			return
		}
	}
	if w.acked&k.bit == 0 {
		w.acked |= k.bit
		w.counts.writes++
		if both {
			w.counts.joint++
		}
		w.logf("%b is acknowledged", k.bit)
	}
}

func count(list, acks []dynamo.NodeID) int {
	c := 0
	for _, id := range list {
		if slices.Contains(acks, id) {
			c++
		}
	}
	return c
}

func (w *moving) read() {
	if len(w.reads) >= 5 {
		w.reads = w.reads[1:]
	}
	w.reads = append(w.reads, &keyRead{slow: w.slow && w.r.IntN(2) == 0, plan: w.plan(), must: w.acked})
}

func (w *moving) deliverRead() {
	if len(w.reads) == 0 {
		return
	}
	i := w.r.IntN(len(w.reads))
	if w.reads[i].slow && w.r.IntN(8) > 0 {
		return
	}
	if w.ask(w.reads[i]) {
		w.reads = slices.Delete(w.reads, i, i+1)
	}
}

// ask brings a read to one replica; true when the read is complete. Only replicas that
// lack nothing count, whether they answer with a value or not: an old value of one
// that is being filled proves nothing either.
func (w *moving) ask(k *keyRead) bool {
	from := k.plan.Reading(0)
	if w.bug == "next is read before it is filled" && k.plan.Phase(0) == PhaseJoint {
		from = *k.plan.Next
	}
	list := from.Primaries(0, w.n)
	n := w.nodes[list[w.r.IntN(len(list))]]
	if slices.Contains(k.asked, n.id) || n.unreadable || !w.served(n, k.plan) {
		return false
	}
	k.asked = append(k.asked, n.id)
	k.got |= n.data
	filled := k.plan.Authoritative(0, w.n, n.id)
	if w.bug == "a value counts while it is filled" && n.data != 0 || w.bug == "next is read before it is filled" {
		filled = true
	}
	if filled {
		k.answers++
	}
	w.logf("%s answers plan %d: %b", n.id, k.plan.Version, n.data)
	if k.answers < w.R {
		return false
	}
	w.counts.reads++
	if lost := k.must &^ k.got; lost != 0 {
		w.fail("n=%d r=%d w=%d: a read of plan %d at %v misses write %b", w.n, w.R, w.W, k.plan.Version, k.asked, lost)
	}
	return true
}

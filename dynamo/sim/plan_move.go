package sim

import (
	"math/rand/v2"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// movePlan is what operators do in a run; zero in one without.
type movePlan struct {
	// spares is how many machines there are beyond the founders.
	spares int
	// every is the mean time between two acts of each operator.
	every time.Duration
	// operators are how many act at once.
	operators int
	// deaf is how much longer what concerns the document takes to reach one of the
	// founders: it goes by old ones for a while.
	deaf time.Duration
	// ruins is how many replicas of a partition may lose their disks, one while the other is filled.
	ruins int
	// Weights of what they do.
	join, leave, remove, replace, capacity float64
}

// slots is how many machines there are at most.
func (p *plan) slots() int { return p.nodes + p.move.spares }

// moves reports whether members and ring change in the run.
func (p *plan) moves() bool { return p.move.operators > 0 }

// slotName is the name of a machine.
func slotName(i int) dynamo.NodeID { return dynamo.NodeID(rune('a' + i)) }

// drawMove makes members and ring of a plan change. What the checks cannot tell apart
// from a fault of the movement is left to the other runs: copies that were never
// durable, values that are damaged or forgotten.
func drawMove(p *plan, r *rand.Rand) {
	q := [][3]int{{3, 2, 2}, {3, 2, 2}, {3, 2, 2}, {3, 2, 2}, {3, 1, 3}, {3, 3, 2}, {2, 1, 2}, {2, 2, 2}, {1, 1, 1}, {3, 3, 1}, {4, 3, 2}, {5, 3, 3}}[r.IntN(12)]
	p.properties.Quorum = quorum.Params{N: q[0], R: q[1], W: q[2]}
	p.properties.Durability = dynamo.DurabilityAll
	p.nodes = max(3, q[0]+r.IntN(3))
	p.partitions = 1 << r.IntN(4)
	if p.spares > 1 || chance(r, 0.5) {
		p.spares = 0
	}
	p.move = movePlan{spares: 2 + r.IntN(2), every: between(r, 100*time.Millisecond, 1500*time.Millisecond), operators: 2}
	w := &p.move
	for _, x := range []*float64{&w.join, &w.leave, &w.remove, &w.replace, &w.capacity} {
		if chance(r, 0.7) {
			*x = 0.2 + r.Float64()
		}
	}
	w.join = max(w.join, 0.3)
	for _, k := range []faultKind{faultCorrupt, faultForget} {
		p.fault.weights[k] = 0
	}
	if chance(r, 0.5) {
		p.fault.weights[faultWipe] = 0.3
	}
	p.fault.every = max(p.fault.every, 100*time.Millisecond)
	p.queue, p.inFlight = 64, 64
	p.load.operations = 300 + r.IntN(300)
	p.load.clients = 2 + r.IntN(4)
	p.load.think = between(r, 10*time.Millisecond, 80*time.Millisecond)
	if chance(r, 0.3) {
		w.deaf = between(r, 0, time.Second)
	}
	if p.fault.weights[faultWipe] > 0 && chance(r, 0.4) {
		w.ruins, w.remove = q[0], 0
	}
}

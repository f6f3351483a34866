package sim

import (
	"fmt"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
)

// exchange is what all request shells have: a client to answer exactly once, a
// time limit, and timers.
type exchange struct {
	order
	n          *node
	key        *keyInfo
	candidates []dynamo.Replica
	// also is the second list of a write while the partition moves, filling the
	// replicas whose "nothing found" proves nothing.
	also    []dynamo.Replica
	filling []dynamo.NodeID
	// plan is the version of the document that the request was planned with;
	// newest the one that a replica knows which refused it; stale is set when the
	// request waits for it.
	plan, newest uint64
	stale        *request.Outdated
	client       pid
	number       uint64
	started      time.Duration
	timeout      time.Duration
	// asOf is when the oldest record that the request goes on with was read.
	asOf     time.Duration
	timer    uint64
	answered bool
	ended    bool
}

func (n *node) exchange(key int, timeout time.Duration, client pid, o order) exchange {
	x := exchange{order: o, n: n, key: &n.c.keys[key], client: client, timeout: timeout, started: n.c.now, plan: n.inForce.Version}
	doc, p, q := n.inForce, x.key.partition, n.c.plan.properties.Quorum.N
	read := doc.Reading(p)
	if n.c.mutation == readNext && doc.Phase(p) == member.PhaseJoint {
		read = *doc.Next
	}
	for _, id := range read.Primaries(p, q) {
		if !n.c.authoritative(doc, p, id) {
			x.filling = append(x.filling, id)
		}
	}
	if n.c.mutation == unfilledCount || n.c.mutation == readNext {
		x.filling = nil
	}
	if n.c.plan.spares > 0 {
		x.candidates = read.Sloppy(p, q, n.c.plan.spares, n.reachable)
	} else {
		x.candidates = read.Candidates(p, q, 0, ring.Everyone)
	}
	return x
}

// write plans the second list of a write, if the partition moves.
func (x *exchange) write() {
	doc, p, c := x.n.inForce, x.key.partition, x.n.c
	q := c.plan.properties.Quorum.N
	also, moves := doc.AlsoWriting(p, q)
	if !moves || c.mutation == writeOnce {
		return
	}
	reachable := ring.Everyone
	if c.plan.spares > 0 {
		reachable = x.n.reachable
	}
	x.candidates, x.also = ring.Joint(doc.Reading(p), also, p, q, c.plan.spares, reachable)
}

// begin gives the request its number.
func (x *exchange) begin(s shell) {
	x.n.next++
	x.number = x.n.next
	x.n.requests[x.number] = s
	x.n.inFlight++
}

// end ends the request. Its number stays for a while, so that late answers
// reach a machine that is done and must not be moved by them.
func (x *exchange) end() {
	if x.ended {
		return
	}
	x.ended = true
	x.n.inFlight--
	x.await()
	n, number := x.n, x.number
	n.after(linger, func() { delete(n.requests, number) })
}

func (x *exchange) left() time.Duration {
	return max(time.Millisecond, (x.timeout - (x.n.c.now - x.started)).Truncate(time.Millisecond))
}

// deadline is a timer's message.
type deadline struct{ state request.State }

func (x *exchange) arm(a request.Arm) {
	d := x.left()
	if a.Timeout == request.Linger {
		d = linger
		if a.For == request.AwaitingQuorum {
			d = min(d, x.left())
		}
	}
	x.timer++
	timer, n, number := x.timer, x.n, x.number
	n.after(d, func() {
		if s, ok := n.requests[number]; ok && !x.ended && x.timer == timer {
			s.receive(n.index, deadline{a.For})
		}
	})
}

// reply answers the client, once.
func (x *exchange) reply(body any) {
	if x.answered {
		x.n.c.fail("I12", "a request on %s answers twice, now %T", x.n.id, body)
	}
	x.answered = true
	x.n.tell(x.client, x.verdict(body))
}

// allow is I12 for one effect: nothing after the end, no new work after the
// reply or the deadline.
func (x *exchange) allow(e request.Effect) {
	work := false
	switch e.(type) {
	case request.Ask, request.Coordinate, request.Replicate:
		work = true
	}
	// A deadline that is armed when the time is over has a millisecond still.
	late := x.n.c.now > x.started+x.timeout+time.Millisecond && x.n.resumed < x.started
	if x.ended || work && (x.answered || late) {
		x.n.c.fail("I12", "%T of %v on %s: ended %v, answered %v, %v after the start", e, x.key.key, x.n.id, x.ended, x.answered, x.n.c.now-x.started)
	}
}

// String is the request in failures.
func (x *exchange) String() string {
	return fmt.Sprintf("request %d of %v, begun at %v, answered %v, ended %v", x.number, x.key.key, x.started, x.answered, x.ended)
}

func (x *exchange) pid() pid { return pid{x.n.index, x.number} }

func (x *exchange) to(r dynamo.Replica) *node { return x.n.c.node(r.Node) }

// context is the encoded context of a result, naming this node.
func (x *exchange) context(rec version.Record) []byte {
	c := rec.Context()
	c.Coordinator = x.n.id
	return c.Encode(x.key.key)
}

func (x *exchange) replicate(rec version.Record, sync bool) *replicateRequest {
	read := x.asOf
	if x.n.c.mutation == dateSent {
		read = x.n.c.now
	}
	return &replicateRequest{key: x.key.index, record: version.Append(nil, rec), read: read, sync: sync, timeout: x.left(), plan: x.plan}
}

package sim

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/request"
)

// order is a client's request on its way to be planned, for the first time or anew:
// round is how often it was before; attempted: a write was made then.
type order struct {
	round     int
	attempted bool
	// again plans the request anew.
	again func(order)
}

// rounds is how often a request is planned at most.
const rounds = 4

// verdict is what a failure of this round says of the whole request.
func (o order) verdict(body any) any {
	if _, failed := body.(failure); failed && o.attempted {
		return failure{codeUnknown}
	}
	return body
}

// outdated ends a round: the request waits for the document that a replica knew. It
// reports false when the client has to be told instead.
func (x *exchange) outdated(r request.Outdated) bool {
	if x.round+1 >= rounds {
		return false
	}
	x.stale = &r
	return true
}

// outdatedPut is outdated for a write, which is made again under its id.
func (p *putShell) outdatedPut(r request.Outdated) {
	if !p.outdated(r) {
		c := codeUnavailable
		if r.Attempted {
			c = codeUnknown
		}
		p.reply(failure{c})
		return
	}
	client, m := p.client, *p.message
	p.again = func(o order) {
		m.age += p.n.c.now - p.started
		m.timeout, m.retry = p.left(), m.retry || o.attempted
		p.n.takePut(&m, client, o)
	}
}

// refusedBy takes note that a replica knows a newer document.
func (x *exchange) refusedBy(node dynamo.NodeID, version uint64) {
	x.newest = max(x.newest, version)
	x.n.behind(version, x.n.c.node(node).index)
}

// await has a request that ended as outdated wait for the document, but not for ever.
func (x *exchange) await() {
	if x.stale == nil {
		return
	}
	x.n.waiting = append(x.n.waiting, x)
	x.n.after(x.left(), func() {
		if x.stale == nil {
			return
		}
		attempted := x.attempted || x.stale.Attempted
		x.stale = nil
		c := codeUnavailable
		if attempted {
			c = codeUnknown
		}
		x.reply(failure{c})
	})
	x.n.after(0, x.n.replan)
}

// replan plans those requests anew whose document has come into force.
func (n *node) replan() {
	all := n.waiting
	n.waiting = nil
	for _, x := range all {
		switch {
		case x.stale == nil:
		case n.inForce.Version < max(x.newest, x.plan+1):
			n.waiting = append(n.waiting, x)
		default:
			o := order{round: x.round + 1, attempted: x.attempted || x.stale.Attempted}
			x.stale, x.answered = nil, true
			n.c.move.Replans++
			x.again(o)
		}
	}
}

// enforce brings a document into force. What changed before this life of the node it
// does not know, so the first one counts as a change of everything.
func (n *node) enforce(d member.Document) {
	before := n.inForce
	if before != nil && before.Version >= d.Version {
		return
	}
	since := make([]uint64, n.c.plan.partitions)
	for p := range since {
		since[p] = d.Version
		if before != nil && !d.Moved(before, dynamo.Partition(p)) {
			since[p] = n.since[p]
		}
	}
	n.inForce, n.since = &d, since
	n.lostNow()
	if n.members != nil {
		n.c.tracef("%s goes by version %d", n.id, d.Version)
		n.c.check.enforced(n)
		n.replan()
		n.wakeHandoff()
	}
}

// current reports whether a request was planned with a document that still says where
// the partition is, and answers it if not.
func (v *vnodeShell) current(plan uint64, from pid) bool {
	n := v.n
	if n.inForce == nil {
		n.tell(from, failure{codeNotReady})
		return false
	}
	if v.refuses(plan, from) {
		return false
	}
	stale := plan < n.since[v.partition] && n.c.mutation != serveStale
	if stale {
		n.tell(from, staleReply{n.inForce.Version})
		return false
	}
	n.c.check.served(v, plan)
	return true
}

// behind reports whether a node was shown a version that it does not know, and has it
// ask for that.
func (n *node) behind(version uint64, endpoint int) bool {
	if n.inForce == nil || version <= n.inForce.Version {
		return false
	}
	if m := n.members; m != nil && m.voter != nil && version > m.voter.Document.Version && endpoint < len(n.c.nodes) && endpoint != n.index {
		m.contact(n.c.nodes[endpoint].id)
	}
	return true
}

// owns reports whether a node keeps a key as its own.
func (n *node) owns(k *keyInfo) bool {
	return n.inForce != nil && n.inForce.Holds(k.partition, n.c.plan.properties.Quorum.N, n.id)
}

// proves reports whether it is a proof that a node has nothing of a key.
func (n *node) proves(k *keyInfo) bool {
	d, q := n.inForce, n.c.plan.properties.Quorum.N
	switch n.c.mutation {
	case readNext:
		if d.Phase(k.partition) == member.PhaseJoint {
			return d.Next.IsPrimary(k.partition, q, n.id)
		}
	case unfilledCount:
		return d.Reading(k.partition).IsPrimary(k.partition, q, n.id)
	}
	return n.c.authoritative(d, k.partition, n.id) && !n.vnodes[k.partition].doubted()
}

// needs is who must confirm what is handed over of a partition.
func (n *node) needs(p dynamo.Partition) (replicas []dynamo.NodeID, lists [][]dynamo.NodeID) {
	d, q := n.inForce, n.c.plan.properties.Quorum.N
	lists = [][]dynamo.NodeID{d.Reading(p).Primaries(p, q)}
	if also, ok := d.AlsoWriting(p, q); ok {
		lists = append(lists, also.Primaries(p, q))
	}
	return d.Holders(p, q), lists
}

func sameLists(a, b [][]dynamo.NodeID) bool {
	return slices.EqualFunc(a, b, slices.Equal[[]dynamo.NodeID])
}

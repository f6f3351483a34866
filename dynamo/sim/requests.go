package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// linger is how long a request stays after its reply for late answers.
const linger = time.Second

// refusal is why a node takes no request right now, or 0.
func (n *node) refusal() code {
	switch {
	case n.stopping:
		return codeNotReady
	case n.inFlight >= n.c.plan.inFlight:
		return codeOverloaded
	}
	return 0
}

// takeGet is the coordinator's part in a get.
func (n *node) takeGet(m *getRequest, client pid) {
	if f := n.refusal(); f != 0 {
		n.tell(client, failure{f})
		return
	}
	g := &getShell{exchange: n.exchange(m.key, m.timeout, client)}
	var err error
	g.machine, err = request.NewGet(request.GetConfig{
		Key: g.key.key, Partition: g.key.partition, Params: n.c.plan.properties.Quorum, Candidates: g.candidates,
		Near: n.id, DigestAbove: n.c.plan.digestAbove,
	})
	if err != nil {
		n.c.fail("L2", "a get of %v cannot be planned: %v", g.key.key, err)
		return
	}
	g.begin(g)
	g.seen = n.c.check.began(g.key)
	g.run(g.machine.Start())
}

// takePut is the coordinator's part in a put: it runs the write, or passes it
// to a node that may.
func (n *node) takePut(m *putRequest, client pid) {
	if f := n.refusal(); f != 0 {
		n.tell(client, failure{f})
		return
	}
	x := n.exchange(m.key, m.timeout, client)
	first := x.candidates[:min(n.c.plan.properties.Quorum.N, len(x.candidates))]
	at := slices.IndexFunc(first, func(r dynamo.Replica) bool { return r.Node == n.id })
	primaryUp := slices.ContainsFunc(first, func(r dynamo.Replica) bool { return r.Role == dynamo.Primary && n.reachable(r.Node) })
	mine := at >= 0 && (first[at].Role == dynamo.Primary || !primaryUp)
	switch {
	case mine && n.serves(x.key.partition):
		n.startPut(x, m)
	case m.hops > 0:
		n.tell(client, failure{codeUnavailable})
	default:
		f := &forwardShell{exchange: x, message: m, next: first}
		f.begin(f)
		f.arm(request.Arm{For: request.AwaitingQuorum})
		f.pass()
	}
}

func (n *node) startPut(x exchange, m *putRequest) {
	seen, err := version.DecodeContext(x.key.key, m.context)
	if err != nil {
		n.c.fail("I8", "a context of %v that a client was given cannot be decoded: %v", x.key.key, err)
		return
	}
	p := &putShell{exchange: x, message: m, seen: seen}
	params := n.c.plan.properties.Quorum
	if n.c.mutation == ackBelowW {
		params.W = max(1, params.W-1)
	}
	p.machine, err = request.NewPut(request.PutConfig{
		Key: x.key.key, Partition: x.key.partition, Params: params, Durability: n.c.plan.properties.Durability,
		Candidates: x.candidates, Local: n.id,
	})
	if err != nil {
		n.c.fail("L2", "a put of %v cannot be planned: %v", x.key.key, err)
		return
	}
	p.begin(p)
	p.run(p.machine.Start())
}

// exchange is what all request shells have: a client to answer exactly once, a
// time limit, and timers.
type exchange struct {
	n          *node
	key        *keyInfo
	candidates []dynamo.Replica
	client     pid
	number     uint64
	started    time.Duration
	timeout    time.Duration
	timer      uint64
	answered   bool
	ended      bool
}

func (n *node) exchange(key int, timeout time.Duration, client pid) exchange {
	k, quorum := &n.c.keys[key], n.c.plan.properties.Quorum
	x := exchange{n: n, key: k, client: client, timeout: timeout, started: n.c.now}
	if n.c.plan.spares > 0 {
		x.candidates = n.c.doc.Settled.Sloppy(k.partition, quorum.N, n.c.plan.spares, n.reachable)
	} else {
		x.candidates = n.c.doc.Settled.Candidates(k.partition, quorum.N, 0, ring.Everyone)
	}
	return x
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
	x.n.tell(x.client, body)
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
	return &replicateRequest{key: x.key.index, record: version.Append(nil, rec), sync: sync, timeout: x.left()}
}

// getShell runs one read.
type getShell struct {
	exchange
	machine  *request.Get
	fetching []dynamo.NodeID
	// seen is how many acknowledged writes the read must find.
	seen int
}

// String is the read in failures.
func (g *getShell) String() string {
	return fmt.Sprintf("get %v: %+v", &g.exchange, g.machine.Describe())
}

func (g *getShell) step(e request.Event) { g.run(g.machine.Step(g.n.now(), e)) }

func (g *getShell) receive(from int, body any) {
	node := g.n.c.nodes[from].id
	switch m := body.(type) {
	case readReply:
		g.answer(node, m)
	case failure:
		g.step(request.Fail{From: node, Fetched: g.fetched(node), Reason: m.reason()})
	case deadline:
		g.step(request.Deadline{For: m.state})
	}
}

func (g *getShell) undelivered(to int, why request.Reason) {
	node := g.n.c.nodes[to].id
	g.step(request.Fail{From: node, Fetched: g.fetched(node), Reason: why})
}

func (g *getShell) answer(node dynamo.NodeID, m readReply) {
	a := request.Answer{From: node, Fetched: g.fetched(node), Authoritative: m.authoritative}
	if len(m.record) > 0 {
		rec, err := version.Decode(m.record)
		if err != nil {
			g.n.c.fail("I8", "the record of %v that %s read cannot be decoded: %v", g.key.key, node, err)
			return
		}
		g.n.c.check.canonical(g.key, rec, m.record)
		a.Found, a.Record = true, rec
	}
	g.step(a)
}

func (g *getShell) fetched(node dynamo.NodeID) bool {
	i := slices.Index(g.fetching, node)
	if i < 0 {
		return false
	}
	g.fetching = slices.Delete(g.fetching, i, i+1)
	return true
}

func (g *getShell) run(effects []request.Effect) {
	for _, e := range effects {
		g.allow(e)
		switch e := e.(type) {
		case request.Ask:
			g.read(e.Replica, e.DigestAbove)
		case request.Fetch:
			g.fetching = append(g.fetching, e.Replica.Node)
			g.read(e.Replica, 0)
		case request.Repair:
			g.repair(e)
		case request.Reply:
			g.replied(e.Result)
		case request.Arm:
			g.arm(e)
		case request.Stop:
			g.end()
		}
	}
}

func (g *getShell) read(r dynamo.Replica, digestAbove int) {
	t := g.left()
	g.n.ask(g.to(r), g.key.partition, g.pid(), t, &readRequest{key: g.key.index, digestAbove: digestAbove, timeout: t})
}

func (g *getShell) repair(e request.Repair) {
	rec := e.Record
	if g.n.c.mutation == repairHalf {
		rec, _ = rec.Omit(g.n.c.plan.digestAbove)
	}
	g.n.c.tracef("%s repairs %v on %s: %v", g.n.id, g.key.key, e.Replica.Node, e.Cause)
	g.n.ask(g.to(e.Replica), g.key.partition, pid{}, g.left(), g.replicate(rec, true))
}

func (g *getShell) replied(r request.Result) {
	switch r := r.(type) {
	case request.Found:
		g.n.c.check.got(g, r.Record)
		live := r.Record.Live(g.n.now())
		if g.n.c.plan.properties.Conflicts == dynamo.LastWriteWins {
			live = live[:0]
			if v, ok := r.Record.Latest(g.n.now()); ok {
				live = append(live, v)
			}
		}
		g.reply(getReply{versions: live, context: g.context(r.Record)})
	case request.NotFound:
		g.n.c.check.got(g, r.Record)
		g.reply(getReply{context: g.context(r.Record)})
	default:
		g.reply(failure{codeUnavailable})
	}
}

// putShell runs one write.
type putShell struct {
	exchange
	machine *request.Put
	message *putRequest
	seen    version.Context
}

// String is the write in failures.
func (p *putShell) String() string {
	return fmt.Sprintf("put %v: %+v", &p.exchange, p.machine.Describe())
}

func (p *putShell) step(e request.Event) { p.run(p.machine.Step(p.n.now(), e)) }

func (p *putShell) receive(from int, body any) {
	node := p.n.c.nodes[from].id
	switch m := body.(type) {
	case prepared:
		r := m.result
		p.step(request.Prepared{Record: r.Stored.Record, Dot: r.Dot, Known: r.Known})
	case durable:
		p.step(request.Durable{From: p.n.id})
	case refused:
		p.step(request.Refused{Err: m.err, Unknown: errors.Is(m.err, vnode.ErrUnknown)})
	case replicateReply:
		p.step(request.Durable{From: node})
		if p.n.c.mutation == countTwice {
			p.step(request.Durable{From: p.candidates[len(p.candidates)-1].Node})
		}
	case failure:
		p.step(request.Fail{From: node, Reason: m.reason()})
	case deadline:
		p.step(request.Deadline{For: m.state})
	}
}

func (p *putShell) undelivered(to int, why request.Reason) {
	p.step(request.Fail{From: p.n.c.nodes[to].id, Reason: why})
}

func (p *putShell) run(effects []request.Effect) {
	for _, e := range effects {
		p.allow(e)
		switch e := e.(type) {
		case request.Coordinate:
			t := p.left()
			p.n.ask(p.n, p.key.partition, p.pid(), t, p.coordinate(e, t))
		case request.Replicate:
			m := p.replicate(p.delta(e.Record), e.Sync)
			m.hintFor = e.Replica.For
			p.n.ask(p.to(e.Replica), p.key.partition, p.pid(), p.left(), m)
		case request.KeepHint:
			p.n.ask(p.n, p.key.partition, pid{}, p.left(), &keepHint{key: p.key.index, owner: e.For})
		case request.Reply:
			p.replied(e.Result)
		case request.Arm:
			p.arm(e)
		case request.Stop:
			p.end()
		}
	}
}

// delta is the mutation that replicates only the newest version.
func (p *putShell) delta(rec version.Record) version.Record {
	if p.n.c.mutation == sendDelta {
		rec.Versions = slices.DeleteFunc(slices.Clone(rec.Versions), func(v version.Version) bool { return v.Request != p.message.id })
	}
	return rec
}

func (p *putShell) coordinate(e request.Coordinate, timeout time.Duration) *coordinate {
	m, properties := p.message, p.n.c.plan.properties
	return &coordinate{key: p.key.index, hintFor: e.Replica.For, sync: e.Sync, timeout: timeout, put: vnode.Put{
		Request: m.id, Retry: m.retry, Age: m.age, Context: p.seen, Value: m.value, Tombstone: m.delete,
		TTL: properties.TTL, Conflicts: properties.Conflicts, Now: p.n.now(), Slack: p.n.c.plan.slack,
	}}
}

func (p *putShell) replied(r request.Result) {
	if r.Certainty() == request.NotAttempted {
		p.n.c.check.unattempted(p)
	}
	switch r := r.(type) {
	case request.Written:
		p.n.c.check.acked(p.n, p.key, p.message.id, r.Dot)
		p.reply(putReply{context: p.context(r.Record)})
	case request.Unattempted:
		p.reply(failure{refusalCode(r.Err)})
	case request.Unavailable:
		c := codeUnavailable
		if r.Attempted {
			c = codeUnknown
		}
		p.reply(failure{c})
	default:
		p.reply(failure{codeUnknown})
	}
}

// refusalCode translates the vnode's decision against a write.
func refusalCode(err error) code {
	switch {
	case errors.Is(err, vnode.ErrSiblings):
		return codeSiblings
	case errors.Is(err, vnode.ErrUnknown):
		return codeUnknown
	case errors.Is(err, vnode.ErrLease):
		return codeOverloaded
	}
	return codeInvalid
}

// forwardShell passes a write to a node that may coordinate it, trying the
// preference list in order, and passes the answer back.
type forwardShell struct {
	exchange
	message *putRequest
	next    []dynamo.Replica
	// at is the node that has the request now.
	at int
}

func (f *forwardShell) receive(from int, body any) {
	if _, over := body.(deadline); f.ended || !over && from != f.at {
		return
	}
	switch m := body.(type) {
	case putReply:
		f.finish(m)
	case failure:
		if m.notAttempted() {
			f.pass()
			return
		}
		f.finish(m)
	case deadline:
		f.finish(failure{codeUnknown})
	}
}

func (f *forwardShell) undelivered(to int, _ request.Reason) {
	if !f.ended && to == f.at {
		f.pass()
	}
}

func (f *forwardShell) pass() {
	for len(f.next) > 0 {
		to := f.to(f.next[0])
		f.next = f.next[1:]
		if to == f.n {
			continue
		}
		m := *f.message
		m.hops, m.timeout = m.hops+1, f.left()
		c, me := f.n.c, f.pid()
		f.at = to.index
		c.net.sendOnce(f.n.index, to.index, func() { to.arrive(func() { to.takePut(&m, me) }) }, f.n.returned(me, to.index))
		return
	}
	f.finish(failure{codeUnavailable})
}

func (f *forwardShell) finish(body any) {
	f.reply(body)
	f.end()
}

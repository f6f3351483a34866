package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// linger is how long a request stays after its reply for late answers.
const linger = time.Second

// refusal is why a node takes no request right now, or 0.
func (n *node) refusal(o order) code {
	switch {
	case n.inForce == nil:
		return codeNotReady
	case n.stopping:
		return codeNotReady
	case n.inFlight >= n.c.plan.inFlight && o.round == 0:
		return codeOverloaded
	}
	return 0
}

// takeGet is the coordinator's part in a get.
func (n *node) takeGet(m *getRequest, client pid, o order) {
	if f := n.refusal(o); f != 0 {
		n.tell(client, o.verdict(failure{f}))
		return
	}
	g := &getShell{exchange: n.exchange(m.key, m.timeout, client, o)}
	var err error
	g.machine, err = request.NewGet(request.GetConfig{
		Key: g.key.key, Partition: g.key.partition, Params: n.c.plan.properties.Quorum, Candidates: g.candidates,
		Filling: g.filling, Near: n.id, DigestAbove: n.c.plan.digestAbove,
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
func (n *node) takePut(m *putRequest, client pid, o order) {
	if f := n.refusal(o); f != 0 {
		n.tell(client, o.verdict(failure{f}))
		return
	}
	x := n.exchange(m.key, m.timeout, client, o)
	x.write()
	q := n.c.plan.properties.Quorum.N
	first := x.candidates[:min(q, len(x.candidates))]
	for _, r := range x.also[:min(q, len(x.also))] {
		if !slices.Contains(first, r) {
			first = append(slices.Clip(first), r)
		}
	}
	at := slices.IndexFunc(first, func(r dynamo.Replica) bool { return r.Node == n.id })
	primaryUp := slices.ContainsFunc(first, func(r dynamo.Replica) bool { return r.Role == dynamo.Primary && n.reachable(r.Node) })
	mine := at >= 0 && (first[at].Role == dynamo.Primary || !primaryUp)
	switch {
	case mine && n.serves(x.key.partition):
		n.startPut(x, m)
	case m.hops > 0:
		n.tell(client, o.verdict(failure{codeUnavailable}))
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
		Candidates: x.candidates, Also: x.also, Local: n.id,
	})
	if err != nil {
		n.c.fail("L2", "a put of %v cannot be planned: %v", x.key.key, err)
		return
	}
	p.begin(p)
	p.run(p.machine.Start())
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
	case staleReply:
		g.refusedBy(node, m.version)
		g.step(request.Fail{From: node, Fetched: g.fetched(node), Reason: request.Stale})
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
		if g.n.old(m.read) {
			g.step(request.Fail{From: node, Fetched: a.Fetched, Reason: request.TimedOut})
			return
		}
		if g.asOf == 0 || m.read < g.asOf {
			g.asOf = m.read
		}
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
	g.n.ask(g.to(r), g.key.partition, g.pid(), t, &readRequest{key: g.key.index, digestAbove: digestAbove, timeout: t, plan: g.plan})
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
	case request.Outdated:
		if !g.outdated(r) {
			g.reply(failure{codeUnavailable})
			return
		}
		client, m := g.client, &getRequest{key: g.key.index}
		g.again = func(o order) {
			m.timeout = g.left()
			g.n.takeGet(m, client, o)
		}
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
		p.asOf = m.read
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
	case staleReply:
		p.refusedBy(node, m.version)
		p.step(request.Fail{From: node, Reason: request.Stale})
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
	if m.ttl > 0 {
		properties.TTL = m.ttl
	}
	return &coordinate{key: p.key.index, hintFor: e.Replica.For, sync: e.Sync, timeout: timeout, plan: p.plan, put: vnode.Put{
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
		p.n.c.check.acked(p, r.Dot)
		p.reply(putReply{context: p.context(r.Record)})
	case request.Unattempted:
		p.reply(failure{refusalCode(r.Err)})
	case request.Unavailable:
		c := codeUnavailable
		if r.Attempted {
			c = codeUnknown
		}
		p.reply(failure{c})
	case request.Outdated:
		p.outdatedPut(r)
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

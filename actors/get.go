package actors

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
)

// getActor runs one read: it carries out what request.Get decides.
type getActor struct {
	exchange
	get *request.Get
	// fetching are the nodes asked again for values. They have answered the
	// first question, so what comes from them next belongs to the second.
	fetching map[dynamo.NodeID]bool
	// asking is the question to those who may answer with digests, encoded
	// once for all that are asked at the same time.
	asking *link.Shared
	// same is what replicas answered last, encoded and decoded: most agree.
	same    []byte
	decoded version.Record
	// oldest dates what was answered so far, all records together.
	oldest int64
	// fastest is the primary whose record came first: the next write is best
	// coordinated there (§ 5).
	fastest dynamo.NodeID
}

func newGet(s *Services, p plan) (*getActor, error) {
	get, err := request.NewGet(request.GetConfig{
		Key: p.key, Partition: p.partition, Params: p.params, Candidates: p.candidates, Filling: p.filling, Near: s.Self,
		DigestAbove: s.DigestAbove,
	})
	return &getActor{exchange: exchange{s: s, plan: p, op: Get}, get: get}, err
}

// Receive translates messages to events.
func (a *getActor) Receive(ctx actor.Context) {
	a.tick()
	if a.waits(ctx) {
		return
	}
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.begin(ctx)
		a.run(ctx, a.get.Start())
	case *messages.ReadReply:
		a.step(ctx, a.answer(ctx, m))
	case *messages.Failure:
		a.refusedBy(from(ctx), m)
		a.step(ctx, a.failed(from(ctx), reason(m)))
	case *link.Undelivered:
		a.step(ctx, a.failed(target(m), undelivered(m)))
	case *peerDown:
		if a.broke(m) {
			a.step(ctx, a.failed(m.node, request.Unreachable))
		}
	case *actor.DeadLetterResponse: // this node's own vnode has stopped for good
		a.step(ctx, a.failed(a.s.Self, request.Unreachable))
	case *deadline:
		a.note(messages.StepDue, "")
		a.step(ctx, request.Deadline{For: m.state})
	case *endRequest:
		a.giveUp(ctx, m)
	case *actor.Stopping:
		a.fail(messages.Fail(messages.CodeInternal, "the read failed on %s", a.s.Self))
	}
}

func (a *getActor) step(ctx actor.Context, e request.Event) { a.run(ctx, a.get.Step(a.s.Now(), e)) }

// answer translates a replica's record; one that cannot be decoded is a
// failure of that replica.
func (a *getActor) answer(ctx actor.Context, m *messages.ReadReply) request.Event {
	node := from(ctx)
	a.s.answered(node, a.at, false)
	found := true
	if len(m.GetRecord()) > 0 {
		if a.s.tooOld(m.GetReadMs(), a.s.millis()) != nil {
			return a.failed(node, request.Declined)
		}
		if a.oldest == 0 || m.GetReadMs() < a.oldest {
			a.oldest = m.GetReadMs()
		}
	}
	if len(m.GetRecord()) == 0 || !bytes.Equal(m.GetRecord(), a.same) {
		var err error
		if a.decoded, found, err = messages.ToRecord(m); err != nil {
			a.same = nil
			return a.failed(node, request.Declined)
		}
		a.same = m.GetRecord()
	}
	a.note(messages.StepAnswered, node).spent = [4]uint32{m.GetWaitedUs(), m.GetTurnUs(), m.GetReaderUs(), m.GetStoreUs()}
	if a.fastest == "" && found && a.s.primary(a.plan, node) {
		a.fastest = node
	}
	return request.Answer{
		From: node, Fetched: a.fetched(node), Found: found, Authoritative: m.GetAuthoritative(), Record: a.decoded,
	}
}

// primary reports whether a node is one of a plan's primaries.
func (s *Services) primary(p plan, node dynamo.NodeID) bool {
	return slices.ContainsFunc(p.candidates, func(r dynamo.Replica) bool { return r.Node == node && r.Role == dynamo.Primary })
}

func (a *getActor) failed(node dynamo.NodeID, why request.Reason) request.Event {
	a.noteFailed(node, why)
	return request.Fail{From: node, Fetched: a.fetched(node), Reason: why}
}

func (a *getActor) fetched(node dynamo.NodeID) bool {
	fetched := a.fetching[node]
	delete(a.fetching, node)
	return fetched
}

// run carries out effects in order.
func (a *getActor) run(ctx actor.Context, effects []request.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case request.Ask:
			a.note(messages.StepAsked, e.Replica.Node)
			a.ask(ctx, e)
		case request.Fetch:
			if a.fetching == nil {
				a.fetching = map[dynamo.NodeID]bool{}
			}
			a.fetching[e.Replica.Node] = true
			a.note(messages.StepFetched, e.Replica.Node)
			ctx.Request(a.vnode(e.Replica.Node), a.question(0))
		case request.Repair:
			a.s.Counters.repair(e.Cause)
			a.note(messages.StepRepaired, e.Replica.Node)
			ctx.Send(on(e.Replica.Node, vnodeName(a.plan.partition)), a.replicate(e.Record, a.oldest, true))
		case request.Reply:
			a.replied(e.Result)
		case request.Arm:
			a.arm(ctx, e)
		case request.Stop:
			a.noticeSilence(false, a.get.Silent()...)
			a.end(ctx)
		}
	}
	a.asking = nil
}

func (a *getActor) ask(ctx actor.Context, e request.Ask) {
	vnode := a.vnode(e.Replica.Node)
	if e.DigestAbove == 0 {
		ctx.Request(vnode, a.question(0))
		return
	}
	if a.asking == nil {
		a.asking = link.Share(a.question(e.DigestAbove))
	}
	ctx.Request(vnode, a.asking.For(a.s.System, vnode))
}

func (a *getActor) vnode(node dynamo.NodeID) *actor.PID { return on(node, vnodeName(a.plan.partition)) }

func (a *getActor) question(digestAbove int) *messages.ReadRequest {
	return &messages.ReadRequest{
		Partition: uint32(a.plan.partition), Bucket: []byte(a.plan.key.Bucket), Key: []byte(a.plan.key.Name),
		DigestAbove: uint32(digestAbove), Plan: a.plan.version, N: uint32(a.plan.params.N), TimeoutMs: a.left(),
		TraceParent: a.header(),
	}
}

// replied answers the client.
func (a *getActor) replied(r request.Result) {
	switch r := r.(type) {
	case request.Found:
		a.s.Counters.GetsFound.Add(1)
		a.s.requests.met(Get, a.get.Answered())
		a.found(r.Record)
	case request.NotFound:
		a.s.Counters.GetsNotFound.Add(1)
		a.s.requests.met(Get, a.get.Answered())
		a.reply(&messages.GetReply{Context: a.context(r.Record)})
	case request.Unavailable:
		a.s.Counters.GetsFailed.Add(1)
		a.reply(a.whyLost(unavailable(r)))
	case request.Outdated:
		if !a.outdated(r) {
			a.s.Counters.GetsFailed.Add(1)
			a.reply(outdated(r))
		}
	}
}

// found answers with what a reader of the bucket sees.
func (a *getActor) found(rec version.Record) {
	live := rec.Live(a.s.Now())
	a.s.Counters.siblings(len(live))
	a.s.requests.found(a.plan.key.Bucket, len(live))
	if a.plan.properties.Conflicts == dynamo.LastWriteWins {
		live = live[:0]
		if v, ok := rec.Latest(a.s.Now()); ok {
			live = append(live, v)
		}
	}
	c := rec.Context()
	c.Coordinator = cmp.Or(a.fastest, a.s.Self)
	a.reply(messages.FromLive(a.plan.key, live, c))
}

// exchange is what all request actors have: a client to answer exactly once, a
// time limit, and timers.
type exchange struct {
	s        *Services
	plan     plan
	op       Operation
	self     *actor.PID
	started  time.Time
	answered bool
	timer    *rt.Timer
	// newest is the version of the document that a replica knows which refused the
	// plan; stale is set when the request waits for it.
	newest uint64
	stale  *request.Outdated

	// lead is the time before the request was begun here, at the time since then, of the
	// message that is being handled.
	lead, at time.Duration
	marks    marks
	// inner has what other coordinators say of the request, by mark.
	inner map[int]*messages.Timeline
	// took and outcome are of the answer to the client; held is that answer if it is sent
	// with the whole timeline, when the request ends.
	took    time.Duration
	outcome string
	held    any
	ended   bool
}

// deadline is a timer's message, tagged with the state it was armed for.
type deadline struct{ state request.State }

// linger is how long a request stays after its reply for late answers.
const linger = time.Second

func (x *exchange) begin(ctx actor.Context) {
	x.self, x.started, x.at = ctx.Self(), time.Now(), 0
	if x.plan.arrived.IsZero() {
		x.plan.arrived = x.started
	}
	x.lead = max(x.started.Sub(x.plan.arrived), 0)
}

// broke reports whether the link broke when this request may have sent something
// over it: one that began later uses the next connection.
func (x *exchange) broke(m *peerDown) bool { return !m.at.Before(x.started) }

// left is the time left for the request, at least a millisecond, because 0
// means no limit.
func (x *exchange) left() uint32 {
	return uint32(max(1, (x.plan.timeout - time.Since(x.started)).Milliseconds()))
}

// arm sets the timer for a state. States before the reply share the request's
// limit, so one timer serves them; a stale tag is ignored by the machine.
func (x *exchange) arm(ctx actor.Context, a request.Arm) {
	d := time.Duration(x.left()) * time.Millisecond
	switch {
	case x.held != nil: // the client still waits
		d = min(d*3/4, linger)
	case a.Timeout == request.Linger && x.answered:
		d = linger
	case a.Timeout == request.Linger:
		d = min(d, linger)
	}
	x.timer.Stop()
	x.timer = x.s.Wheel.Send(ctx.Self(), &deadline{state: a.For}, d)
}

// reply answers the client, once.
func (x *exchange) reply(m any) {
	if x.answered {
		return
	}
	x.answered = true
	x.s.unanswered.Add(-1)
	if f, failed := m.(*messages.Failure); failed {
		m = x.plan.verdict(f)
	}
	took := time.Since(x.started)
	x.at, x.took, x.outcome = took, x.lead+took, replyName(m)
	x.note(messages.StepReplied, "")
	x.s.latencies.add(took)
	// Before the answer: who has it finds it counted.
	x.s.requests.answered(x.plan.key.Bucket, x.op, m, x.took)
	if x.plan.request.GetTimeline() {
		x.held = m
	} else {
		x.s.answer(x.plan.client, x.self, m)
	}
	if took > slowRequest {
		x.s.Log.Warn("slow request", "actor", x.self.GetId(), "took", took, "reply", replyName(m))
	}
}

// fail answers a client that has no answer yet when the actor stops: also a
// crash is an answer.
func (x *exchange) fail(f *messages.Failure) {
	x.timer.Stop()
	x.reply(f)
	x.over()
}

func (x *exchange) end(ctx actor.Context) {
	if x.stale != nil {
		x.await(ctx)
		return
	}
	x.timer.Stop()
	ctx.Stop(ctx.Self())
}

// noticeSilence tells the failure detector who did not answer. A request that had
// hardly any time proves nothing.
func (x *exchange) noticeSilence(write bool, nodes ...dynamo.NodeID) {
	if time.Since(x.started) < leastSilence {
		return
	}
	for _, node := range nodes {
		x.s.missed(node, write)
	}
}

// leastSilence is how long a node must have said nothing.
const leastSilence = 100 * time.Millisecond

// context is the encoded context of a result, naming this node as the one to
// send the next write to.
func (x *exchange) context(rec version.Record) []byte {
	c := rec.Context()
	c.Coordinator = x.s.Self
	return c.Encode(x.plan.key)
}

// replicate makes the message that hands a record, which read dates, to a replica.
func (x *exchange) replicate(rec version.Record, read int64, sync bool) *messages.ReplicateRequest {
	return &messages.ReplicateRequest{
		Partition: uint32(x.plan.partition), Bucket: []byte(x.plan.key.Bucket), Key: []byte(x.plan.key.Name),
		Record: version.Append(nil, rec), Sync: sync, Plan: x.plan.version, N: uint32(x.plan.params.N), TimeoutMs: x.left(),
		ReadMs: read, TraceParent: x.header(),
	}
}

func from(ctx actor.Context) dynamo.NodeID { return dynamo.NodeID(ctx.Sender().GetAddress()) }

func target(m *link.Undelivered) dynamo.NodeID { return dynamo.NodeID(m.Target.GetAddress()) }

// reason translates a replica's failure.
func reason(f *messages.Failure) request.Reason {
	switch f.GetCode() {
	case messages.CodeOverloaded:
		return request.Overloaded
	case messages.CodeUnreachable, messages.CodeNotReady:
		return request.Unreachable
	case messages.CodeStorage:
		return request.StorageFailed
	case messages.CodeExpired:
		return request.TimedOut
	case messages.CodeStale:
		return request.Stale
	case messages.CodeInternal:
		return request.Crashed
	case messages.CodeUnsupported:
		return request.Unsupported
	}
	return request.Declined
}

// undelivered translates what the link says of a message that it did not send.
func undelivered(m *link.Undelivered) request.Reason {
	switch m.Reason {
	case link.Full:
		return request.Overloaded
	case link.Expired:
		return request.TimedOut
	}
	return request.Unreachable
}

// unavailable is the answer when too few replicas did their part: for a write
// that was attempted, that it may still appear.
func unavailable(u request.Unavailable) *messages.Failure {
	code := messages.CodeUnavailable
	if u.Attempted {
		code = messages.CodeUnknown
	}
	return &messages.Failure{
		Code: code, Text: u.String(), Answered: uint32(u.Answered), Needed: uint32(u.Needed),
		PrimariesAnswered: uint32(u.PrimariesAnswered), PrimariesNeeded: uint32(u.PrimariesNeeded),
	}
}

// outdated is the answer when a replica knows a newer ring: for a write that was
// attempted, that it may still appear.
func outdated(o request.Outdated) *messages.Failure {
	if o.Attempted {
		return messages.Fail(messages.CodeUnknown, "%s knows a newer ring; try again with the same request id", o.Node)
	}
	return messages.Fail(messages.CodeStale, "%s knows a newer ring; try again with the same request id", o.Node)
}

func replyName(m any) string {
	if f, ok := m.(*messages.Failure); ok {
		return messages.CodeName(f.GetCode())
	}
	return "done"
}

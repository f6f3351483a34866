package actors

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
)

// coordinatorActor takes clients' requests and spawns one actor for each,
// bounded in number: what is over the bound is answered `overloaded`.
type coordinatorActor struct {
	s        *Services
	inFlight int
	next     uint64 // random at the start, so that an answer from before a restart reaches nobody
	stopping bool
	// finished are to be told once no request is in flight.
	finished []*finishRequests
	// props start every request actor; spawning is the one that starts now.
	props    *actor.Props
	spawning actor.Actor
}

// finishRequests tells the coordinator to take no more requests; done is
// called once those in flight have ended.
type finishRequests struct{ done func() }

// RuntimeControl lets it overtake the requests that it refuses.
func (*finishRequests) RuntimeControl() {}

// peerDown: the link to a node broke at a time. What was sent to it before and not
// answered may have been carried out or not; no answer to it will come.
type peerDown struct {
	node dynamo.NodeID
	at   time.Time
}

// RuntimeControl lets it overtake requests: those under way wait for it.
func (*peerDown) RuntimeControl() {}

// IgnoreDeadLetterLogging: links outlive requests when the node stops.
func (*peerDown) IgnoreDeadLetterLogging() {}

func newCoordinator(s *Services) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor {
		c := &coordinatorActor{s: s, next: rand.Uint64() >> 8}
		c.props = actor.PropsFromProducer(func() actor.Actor { return c.spawning }, flat,
			actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: s.Registry, Brief: true})), actor.WithDispatcher(rt.Inline()))
		return c
	}, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{
			Size: messageSize, TTL: messageTTL, Shed: s.shed, Expired: s.expired, Failed: s.failed, Registry: s.Registry,
			Batch: 1, // an envelope tells when the message came
		})),
		actor.WithSupervisor(rt.StopOnFailure()))
}

// Receive admits requests.
func (c *coordinatorActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *rt.Batch:
		for _, e := range m.Envelopes {
			c.receive(ctx, e)
		}
	case *actor.Terminated:
		c.inFlight--
		c.finish()
	case *peerDown, *document:
		for _, request := range ctx.Children() {
			ctx.Send(request, m)
		}
	case *actor.Stopping:
		c.stopping = true // a child spawned now would be told by nobody to stop
	case *finishRequests:
		c.stopping = true
		c.finished = append(c.finished, m)
		c.finish()
	case *actor.Restarting: // the next instance has to know
		for _, f := range c.finished {
			ctx.Send(ctx.Self(), f)
		}
		c.finished = nil
	}
}

// receive admits a request that came, or one that is to be planned anew.
func (c *coordinatorActor) receive(ctx actor.Context, e rt.Envelope) {
	switch m := e.Message.(type) {
	case *messages.GetRequest:
		c.admit(ctx, order{request: m, client: e.Sender, arrived: arrived(e), trace: c.s.traced(m.GetTraceParent(), false)})
	case *messages.PutRequest:
		c.admit(ctx, order{request: m, client: e.Sender, arrived: arrived(e), trace: c.s.traced(m.GetTraceParent(), m.GetHops() > 0)})
	case *order:
		c.admit(ctx, *m)
	}
}

// plan is where a request goes and what it needs: all that is decided before
// its machine starts.
type plan struct {
	order
	key        dynamo.Key
	position   ring.Position
	partition  dynamo.Partition
	properties bucket.Properties
	params     quorum.Params
	candidates []dynamo.Replica
	// also is the second list of a write while the partition moves.
	also []dynamo.Replica
	// filling are the primaries whose "nothing found" proves nothing (reads only).
	filling []dynamo.NodeID
	version uint64
	timeout time.Duration
}

// admit plans a request and spawns its actor, or answers why not.
func (c *coordinatorActor) admit(ctx actor.Context, o order) {
	if f := c.refusal(o); f != nil {
		c.refuse(ctx, o, f)
		return
	}
	p, err := c.plan(o)
	if err == nil {
		if put, ok := o.request.(*messages.PutRequest); ok {
			err = c.spawnPut(ctx, p, put)
		} else {
			err = c.spawnGet(ctx, p)
		}
	}
	if err != nil {
		c.refuse(ctx, o, failure(err))
	}
}

// lingerFactor is how many times MaxRequests may be in flight with those that
// are answered and wait for stragglers.
const lingerFactor = 4

// refusal is why the node does not take a request right now, or nil.
func (c *coordinatorActor) refusal(o order) *messages.Failure {
	switch {
	case c.s.Document() == nil:
		return messages.Fail(messages.CodeNotReady, "%s is not in a cluster yet", c.s.Self)
	case c.stopping:
		return messages.Fail(messages.CodeNotReady, "%s is stopping", c.s.Self)
	case c.s.quarantined() != "":
		return messages.Fail(messages.CodeNotReady, "%s", c.s.quarantined())
	case o.round > 0: // was let in before
	case c.s.unanswered.Load() >= c.s.maxRequests.Load(), int64(c.inFlight) >= lingerFactor*c.s.maxRequests.Load():
		c.s.Counters.Shed.Add(1)
		f := messages.Fail(messages.CodeOverloaded, "%s has %d requests in flight; try again", c.s.Self, c.inFlight)
		f.RetryAfterMs = 50
		return f
	}
	return nil
}

func (c *coordinatorActor) refuse(ctx actor.Context, o order, f *messages.Failure) {
	c.s.requests.refused(&o, f)
	c.s.answer(o.client, ctx.Self(), o.verdict(f))
}

func (c *coordinatorActor) plan(o order) (plan, error) {
	p := plan{order: o}
	var err error
	if p.key, err = messages.ToKey(o.request.GetBucket(), o.request.GetKey()); err != nil {
		return p, err
	}
	if p.timeout, err = messages.ToTimeout(o.request.GetTimeoutMs(), c.s.Timeout); err != nil {
		return p, err
	}
	doc := c.s.Document()
	p.properties, _ = doc.Bucket(p.key.Bucket)
	if p.params, err = p.properties.Quorum.Override(messages.ToOverride(o.request.GetQuorum())); err != nil {
		return p, err
	}
	p.position = ring.Hash(p.key)
	p.partition = ring.PartitionOf(p.position, doc.Settled.Partitions())
	p.version = doc.Version
	c.place(&p, doc)
	return p, nil
}

// place plans where a request goes: reads to the replicas that the document says, or
// who stands in for them; writes also to those on the other side of a movement.
func (c *coordinatorActor) place(p *plan, doc *member.Document) {
	n, read := p.params.N, doc.Reading(p.partition)
	_, write := p.request.(*messages.PutRequest)
	if !write {
		p.filling = unfilled(doc, p.partition, n)
	} else if also, moves := doc.AlsoWriting(p.partition, n); moves {
		p.candidates, p.also = ring.Joint(read, also, p.partition, n, spareFallbacks, c.s.reachable)
		return
	}
	p.candidates = read.Sloppy(p.partition, n, spareFallbacks, c.s.reachable)
}

// spareFallbacks is how many nodes beyond the first N are there to be asked when
// one of those fails.
const spareFallbacks = 2

func (c *coordinatorActor) spawnGet(ctx actor.Context, p plan) error {
	get, err := newGet(c.s, p)
	if err != nil {
		return err
	}
	return c.spawn(ctx, messages.TargetGet, get)
}

func (c *coordinatorActor) spawnPut(ctx actor.Context, p plan, m *messages.PutRequest) error {
	put, err := messages.ToPut(m, c.s.MaxValue)
	if err != nil {
		return err
	}
	if p.prepared != nil || c.coordinates(p) {
		a, err := newPut(c.s, p, put)
		if err != nil {
			return err
		}
		return c.spawn(ctx, messages.TargetPut, a)
	}
	if m.GetHops() > 0 {
		return c.spawnPassed(ctx, p, m)
	}
	c.s.Counters.Forwards.Add(1)
	return c.spawn(ctx, messages.TargetForward, newForward(c.s, p, m))
}

// spawnPassed has a write that was passed on to this node, which may not coordinate it
// as far as it knows, wait for the document of whoever passed it on, or refuses it.
func (c *coordinatorActor) spawnPassed(ctx actor.Context, p plan, m *messages.PutRequest) error {
	by := dynamo.NodeID(p.client.GetAddress())
	if _, member := c.s.Document().Member(by); member && m.GetPlan() > p.version {
		c.s.tellBehind(by, m.GetPlan())
		return c.spawn(ctx, messages.TargetForward, newBehind(c.s, p, by, m))
	}
	f := messages.Fail(messages.CodeUnavailable, "%s cannot coordinate writes of partition %d", c.s.Self, p.partition)
	if version, stale := c.s.stale(p.partition, m.GetPlan()); stale {
		f.Code, f.DocumentVersion = messages.CodeStale, version
	}
	c.refuse(ctx, p.order, f)
	return nil
}

// coordinates reports whether this node makes the dot of a write: a primary of
// either list does; a fallback only when no primary is up.
func (c *coordinatorActor) coordinates(p plan) bool {
	first := slices.Concat(p.candidates[:min(len(p.candidates), p.params.N)], p.also[:min(len(p.also), p.params.N)])
	i := slices.IndexFunc(first, func(r dynamo.Replica) bool { return r.Node == c.s.Self })
	if i < 0 || !c.s.vnodes.has(p.partition) {
		return false
	}
	return first[i].Role == dynamo.Primary ||
		!slices.ContainsFunc(first, func(r dynamo.Replica) bool { return r.Role == dynamo.Primary && c.s.reachable(r.Node) })
}

// spawn starts a request actor. It runs inline, in the goroutine of whoever
// sends to it: its handlers never block, and a message costs no wake-up. It is
// never restarted, so the one instance is all there will be; the library takes
// it from the producer before SpawnNamed returns.
func (c *coordinatorActor) spawn(ctx actor.Context, prefix string, a actor.Actor) error {
	c.next++
	c.inFlight++
	c.s.unanswered.Add(1)
	c.spawning = a
	_, err := ctx.SpawnNamed(c.props, prefix+strconv.FormatUint(c.next, 36))
	c.spawning = nil
	if err != nil {
		c.inFlight--
		c.s.unanswered.Add(-1)
	}
	return err
}

// finish tells those who wait for the last request.
func (c *coordinatorActor) finish() {
	if c.inFlight > 0 {
		return
	}
	finished := c.finished
	c.finished = nil
	for _, f := range finished {
		f.done()
	}
}

// failure turns an error of checking a request into its answer.
func failure(err error) *messages.Failure {
	code := messages.CodeInvalid
	switch {
	case errors.Is(err, version.ErrContext), errors.Is(err, version.ErrFormat), errors.Is(err, version.ErrContextSize):
		code = messages.CodeBadContext
	case errors.Is(err, messages.ErrValueTooLarge):
		code = messages.CodeTooLarge
	case errors.Is(err, actor.ErrNameExists):
		code = messages.CodeInternal
	}
	return messages.Fail(code, "%v", err)
}

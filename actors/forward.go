package actors

import (
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/messages"
)

// forwardActor passes a write to a node that may coordinate it (§ 4.5), trying
// the primaries in the order of the preference list, and passes the answer
// back. The client is connected to this node, perhaps to no other. When none takes
// it because the ring has changed since it was planned, it is planned anew.
type forwardActor struct {
	exchange
	request *messages.PutRequest
	next    []dynamo.Replica
	asked   dynamo.NodeID // who has the request now
	tried   []string
	// short is the first answer that too few replicas are there: it says more
	// than that nobody took the request.
	short *messages.Failure
}

func newForward(s *Services, p plan, m *messages.PutRequest) *forwardActor {
	return &forwardActor{exchange: exchange{s: s, plan: p, op: Forward}, request: m, next: s.coordinators(p)}
}

// newBehind waits for the document by which the write was passed on to this node.
func newBehind(s *Services, p plan, by dynamo.NodeID, m *messages.PutRequest) *forwardActor {
	return &forwardActor{exchange: exchange{s: s, plan: p, op: Forward, newest: m.GetPlan(), stale: &request.Outdated{Node: by}}, request: m}
}

// coordinators are the nodes that may coordinate a write, best first: primaries
// that are up and not slow, those that are slow, fallbacks if there are none of
// them, and at last the primaries that seem to be down.
func (s *Services) coordinators(p plan) []dynamo.Replica {
	rank := func(r dynamo.Replica) int {
		switch {
		case r.Role == dynamo.Fallback:
			return 2
		case !s.reachable(r.Node):
			return 3
		case s.opinion(r.Node).slow:
			return 1
		}
		return 0
	}
	out := slices.Clone(p.candidates)
	for _, r := range p.also {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b dynamo.Replica) int { return rank(a) - rank(b) })
	if len(out) > 0 && rank(out[0]) < 2 {
		out = slices.DeleteFunc(out, func(r dynamo.Replica) bool { return r.Role == dynamo.Fallback })
	}
	return out
}

// Receive passes the request on and its answer back.
func (a *forwardActor) Receive(ctx actor.Context) {
	a.tick()
	if _, starts := ctx.Message().(*actor.Started); !starts && a.waits(ctx) {
		return
	}
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.begin(ctx)
		if a.stale != nil {
			a.await(ctx)
			return
		}
		a.arm(ctx, request.Arm{For: request.AwaitingQuorum})
		a.pass(ctx)
	case *messages.PutReply:
		if from(ctx) == a.asked {
			a.note(messages.StepAnswered, a.asked)
			a.keepInner(m.GetTimeline())
			a.finish(ctx, m)
		}
	case *messages.Failure:
		a.refused(ctx, m)
	case *link.Undelivered:
		if target(m) == a.asked {
			a.noteFailed(a.asked, undelivered(m))
			a.tried = append(a.tried, string(a.asked)+": unreachable")
			a.pass(ctx)
		}
	case *peerDown:
		if m.node == a.asked && a.broke(m) {
			a.noteFailed(a.asked, request.Unreachable)
			a.finish(ctx, messages.Fail(messages.CodeUnknown, "the connection to %s broke; the write may still appear", m.node))
		}
	case *deadline:
		a.note(messages.StepDue, a.asked)
		a.noticeSilence(true, a.asked)
		a.finish(ctx, messages.Fail(messages.CodeUnknown, "no answer in time from a node that may coordinate the write"))
	case *endRequest:
		a.giveUp(ctx, m)
	case *actor.Stopping:
		a.fail(messages.Fail(messages.CodeUnknown, "the write failed on %s; it may still appear", a.s.Self))
	}
}

// refused goes on to the next primary if nothing was written, and else passes
// the failure back. One that comes from a node asked before says nothing of the
// node that has the request now: passing it on again would make two writes.
func (a *forwardActor) refused(ctx actor.Context, f *messages.Failure) {
	if from(ctx) != a.asked {
		return
	}
	a.noteFailed(a.asked, reason(f))
	a.keepInner(f.GetTimeline())
	switch {
	case notAttempted(f.GetCode()):
		a.refusedBy(a.asked, f)
		a.tried = append(a.tried, string(a.asked)+": "+f.Error())
		if a.short == nil && f.GetNeeded() > 0 {
			a.short = f
		}
		a.pass(ctx)
	default:
		a.finish(ctx, f)
	}
}

// pass sends the request to the next primary.
func (a *forwardActor) pass(ctx actor.Context) {
	for len(a.next) > 0 {
		node := a.next[0].Node
		a.next = a.next[1:]
		if node == a.s.Self {
			continue
		}
		w := repeated(a.request, time.Since(a.started), a.left())
		w.Hops++
		w.Plan, w.TraceParent = a.plan.version, a.passedHeader(w.GetTraceParent())
		a.note(messages.StepPassed, node)
		a.asked = node
		ctx.Request(on(node, nameCoordinator), w)
		return
	}
	_, stale := a.s.stale(a.plan.partition, a.plan.version)
	switch {
	case (stale || a.newest > a.plan.version) && a.outdated(request.Outdated{Node: a.asked}):
		a.await(ctx)
	case a.short != nil:
		a.finish(ctx, a.short)
	default:
		a.finish(ctx, messages.Fail(messages.CodeUnavailable, "no node that may coordinate the write took it: %v", a.tried))
	}
}

func (a *forwardActor) finish(ctx actor.Context, m any) {
	a.reply(m)
	a.end(ctx)
}

// notAttempted reports whether a failure means that nothing was written, so
// that another node may be asked.
func notAttempted(code uint32) bool {
	switch code {
	case messages.CodeOverloaded, messages.CodeUnreachable, messages.CodeNotReady, messages.CodeUnavailable,
		messages.CodeUnsupported, messages.CodeStorage, messages.CodeStale:
		return true
	}
	return false
}

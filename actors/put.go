package actors

import (
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

// putActor runs one write: it carries out what request.Put decides.
type putActor struct {
	exchange
	put   *request.Put
	write messages.Put
	// synced and applied are the replication message with and without the
	// order to wait for the disk, each encoded once for all replicas.
	synced, applied *link.Shared
	// prepared: the vnode made the dot; lost: its commit failed.
	prepared, lost bool
}

func newPut(s *Services, p plan, write messages.Put) (*putActor, error) {
	put, err := request.NewPut(request.PutConfig{
		Key: p.key, Partition: p.partition, Params: p.params, Durability: p.properties.Durability, Candidates: p.candidates,
		Local: s.Self,
	})
	return &putActor{exchange: exchange{s: s, plan: p}, put: put, write: write}, err
}

// Receive translates messages to events.
func (a *putActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.begin(ctx)
		a.run(ctx, a.put.Start())
	case *prepared:
		a.prepared = true
		a.step(ctx, request.Prepared{Record: m.result.Stored.Record, Dot: m.result.Dot, Known: m.result.Known})
		a.checkLost(ctx)
	case *durable:
		a.step(ctx, request.Durable{From: a.s.Self})
	case *notDurable:
		a.lost = true
		a.checkLost(ctx)
	case *refused:
		a.step(ctx, request.Refused{Err: m.err, Unknown: errors.Is(m.err, vnode.ErrUnknown)})
	case *messages.ReplicateReply:
		a.step(ctx, request.Durable{From: from(ctx)})
	case *messages.Failure:
		a.step(ctx, request.Fail{From: from(ctx), Reason: reason(m)})
	case *link.Undelivered:
		a.step(ctx, request.Fail{From: target(m), Reason: undelivered(m)})
	case *peerDown:
		a.step(ctx, request.Fail{From: m.node, Reason: request.Unreachable})
	case *actor.DeadLetterResponse: // this node's own vnode has stopped for good
		a.step(ctx, request.Fail{From: a.s.Self, Reason: request.Unreachable})
	case *deadline:
		a.step(ctx, request.Deadline{For: m.state})
	case *actor.Stopping:
		a.fail(messages.Fail(messages.CodeUnknown, "the write failed on %s; it may still appear", a.s.Self))
	}
}

func (a *putActor) step(ctx actor.Context, e request.Event) { a.run(ctx, a.put.Step(a.s.Now(), e)) }

// checkLost fails the local replica when its commit failed. That may be heard
// before the word that the write was prepared, which is on its way: without it
// the machine would take the failure for one of a write that never was.
func (a *putActor) checkLost(ctx actor.Context) {
	if a.prepared && a.lost {
		a.step(ctx, request.Fail{From: a.s.Self, Reason: request.StorageFailed})
	}
}

// run carries out effects in order.
func (a *putActor) run(ctx actor.Context, effects []request.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case request.Coordinate:
			ctx.Request(on(e.Replica.Node, vnodeName(a.plan.partition)), a.coordinate(e.Sync))
		case request.Replicate:
			ctx.Request(on(e.Replica.Node, vnodeName(a.plan.partition)), a.replication(e))
		case request.Reply:
			a.replied(e.Result)
		case request.Arm:
			a.arm(ctx, e)
		case request.Stop:
			a.end(ctx)
		}
	}
}

// replication is the message to a replica.
func (a *putActor) replication(e request.Replicate) *link.Shared {
	shared := &a.applied
	if e.Sync {
		shared = &a.synced
	}
	if *shared == nil {
		*shared = link.Share(a.replicate(e.Record, e.Sync))
	}
	return *shared
}

// replied answers the client.
func (a *putActor) replied(r request.Result) {
	if w, ok := r.(request.Written); ok {
		a.s.Counters.PutsDone.Add(1)
		a.reply(&messages.PutReply{Context: a.context(w.Record), Replicas: uint32(w.Replicas)})
		return
	}
	a.s.Counters.PutsFailed.Add(1)
	switch r := r.(type) {
	case request.Unattempted:
		a.reply(refusal(r.Err))
	case request.Unavailable:
		a.reply(unavailable(r))
	case request.Outdated:
		a.reply(outdated(r))
	case request.Unknown:
		a.reply(messages.Fail(messages.CodeUnknown, "the vnode on %s did not answer in time; the write may still appear", a.s.Self))
	}
}

func (a *putActor) coordinate(sync bool) *coordinate {
	w := a.write
	return &coordinate{
		key: w.Key, n: a.plan.params.N, position: a.plan.position.Bytes(), sync: sync, until: a.started.Add(a.plan.timeout),
		put: vnode.Put{
			Request: w.Request, Retry: w.Retry, Age: w.Age, Context: w.Context, Value: w.Value, Tombstone: w.Delete,
			TTL: a.plan.properties.TTL, Conflicts: a.plan.properties.Conflicts, Now: a.s.Now(),
		},
	}
}

// refusal translates the vnode's decision against a write.
func refusal(err error) *messages.Failure {
	code := messages.CodeInternal
	switch {
	case errors.Is(err, vnode.ErrSiblings):
		code = messages.CodeSiblings
	case errors.Is(err, vnode.ErrClockAhead):
		code = messages.CodeClockAhead
	case errors.Is(err, vnode.ErrUnknown):
		code = messages.CodeForgotten
	case errors.Is(err, vnode.ErrEpoch):
		code = messages.CodeStorage // another node may take it
	case errors.Is(err, vnode.ErrLease):
		f := messages.Fail(messages.CodeOverloaded, "%v", err)
		f.RetryAfterMs = 50
		return f
	}
	return messages.Fail(code, "%v", err)
}

// forwardActor passes a write to a node that may coordinate it (§ 4.5), trying
// the primaries in the order of the preference list, and passes the answer
// back. The client is connected to this node, perhaps to no other.
type forwardActor struct {
	exchange
	request *messages.PutRequest
	next    []dynamo.Replica
	asked   dynamo.NodeID // who has the request now
	tried   []string
}

func newForward(s *Services, p plan, m *messages.PutRequest) *forwardActor {
	return &forwardActor{exchange: exchange{s: s, plan: p}, request: m, next: p.candidates}
}

// Receive passes the request on and its answer back.
func (a *forwardActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.begin(ctx)
		a.arm(ctx, request.Arm{For: request.AwaitingQuorum})
		a.pass(ctx)
	case *messages.PutReply:
		a.finish(ctx, m)
	case *messages.Failure:
		if notAttempted(m.GetCode()) {
			a.tried = append(a.tried, string(from(ctx))+": "+m.Error())
			a.pass(ctx)
			return
		}
		a.finish(ctx, m)
	case *link.Undelivered:
		a.tried = append(a.tried, string(target(m))+": unreachable")
		a.pass(ctx)
	case *peerDown:
		if m.node == a.asked {
			a.finish(ctx, messages.Fail(messages.CodeUnknown, "the connection to %s broke; the write may still appear", m.node))
		}
	case *deadline:
		a.finish(ctx, messages.Fail(messages.CodeUnknown, "no answer in time from a node that may coordinate the write"))
	case *actor.Stopping:
		a.fail(messages.Fail(messages.CodeUnknown, "the write failed on %s; it may still appear", a.s.Self))
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
		w := &messages.PutRequest{
			Bucket: a.request.GetBucket(), Key: a.request.GetKey(), Value: a.request.GetValue(), Context: a.request.GetContext(),
			Delete: a.request.GetDelete(), Quorum: a.request.GetQuorum(), RequestId: a.request.GetRequestId(),
			AgeMs: a.request.GetAgeMs() + uint32(time.Since(a.started).Milliseconds()), Retry: a.request.GetRetry(), Hops: a.request.GetHops() + 1, TimeoutMs: a.left(),
		}
		a.asked = node
		ctx.Request(on(node, nameCoordinator), w)
		return
	}
	a.finish(ctx, messages.Fail(messages.CodeUnavailable, "no node that may coordinate the write took it: %v", a.tried))
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
		messages.CodeUnsupported, messages.CodeStorage:
		return true
	}
	return false
}

package actors

import (
	"errors"
	"slices"
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
	// replicated is when the replicas were sent the record, since the request began.
	replicated time.Duration
	// prepared: the vnode made the dot; lost: its commit failed.
	prepared, lost bool
}

func newPut(s *Services, p plan, write messages.Put) (*putActor, error) {
	put, err := request.NewPut(request.PutConfig{
		Key: p.key, Partition: p.partition, Params: p.params, Durability: p.properties.Durability, Candidates: p.candidates,
		Also: p.also, Local: s.Self, Resume: p.prepared,
	})
	return &putActor{exchange: exchange{s: s, plan: p, op: writing(write.Delete)}, put: put, write: write}, err
}

// Receive translates messages to events.
func (a *putActor) Receive(ctx actor.Context) {
	a.tick()
	if a.waits(ctx) {
		return
	}
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.begin(ctx)
		a.run(ctx, a.put.Start())
	case *prepared:
		a.prepared = true
		made := request.Prepared{Record: m.result.Stored.Record, Dot: m.result.Dot, Known: m.result.Known}
		a.plan.prepared, a.plan.read = &made, m.read
		a.note(messages.StepPrepared, a.s.Self).spent = [4]uint32{m.waited, m.turn}
		a.step(ctx, made)
		a.checkLost(ctx)
	case *durable:
		a.note(messages.StepDurable, a.s.Self).spent = [4]uint32{3: m.store}
		a.step(ctx, request.Durable{From: a.s.Self})
	case *notDurable:
		a.lost = true
		a.noteFailed(a.s.Self, request.StorageFailed)
		a.checkLost(ctx)
	case *refused:
		a.noteFailed(a.s.Self, request.Declined)
		a.step(ctx, request.Refused{Err: m.err, Unknown: errors.Is(m.err, vnode.ErrUnknown)})
	case *messages.ReplicateReply:
		a.note(messages.StepDurable, from(ctx)).spent = [4]uint32{m.GetWaitedUs(), m.GetTurnUs(), 0, m.GetStoreUs()}
		a.s.answered(from(ctx), a.at-a.replicated, a.plan.properties.Durability == dynamo.DurabilityAll)
		a.step(ctx, request.Durable{From: from(ctx)})
	case *messages.Failure:
		a.refusedBy(from(ctx), m)
		a.failed(ctx, from(ctx), reason(m))
	case *link.Undelivered:
		a.failed(ctx, target(m), undelivered(m))
	case *peerDown:
		if a.broke(m) {
			a.failed(ctx, m.node, request.Unreachable)
		}
	case *actor.DeadLetterResponse: // this node's own vnode has stopped for good
		a.failed(ctx, a.s.Self, request.Unreachable)
	case *deadline:
		a.note(messages.StepDue, "")
		a.step(ctx, request.Deadline{For: m.state})
	case *endRequest:
		a.giveUp(ctx, m)
	case *actor.Stopping:
		a.fail(messages.Fail(messages.CodeUnknown, "the write failed on %s; it may still appear", a.s.Self))
	}
}

func (a *putActor) failed(ctx actor.Context, node dynamo.NodeID, why request.Reason) {
	a.noteFailed(node, why)
	a.step(ctx, request.Fail{From: node, Reason: why})
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
			a.note(messages.StepCoordinated, e.Replica.Node)
			ctx.Request(on(e.Replica.Node, vnodeName(a.plan.partition)), a.coordinate(e))
		case request.Replicate:
			a.replicated = a.at
			a.note(messages.StepReplicated, e.Replica.Node)
			to := on(e.Replica.Node, vnodeName(a.plan.partition))
			ctx.Request(to, a.replication(e).For(a.s.System, to))
		case request.KeepHint:
			a.note(messages.StepHinted, e.For)
			ctx.Send(on(a.s.Self, vnodeName(a.plan.partition)), &keepHint{
				key: a.plan.key, n: a.plan.params.N, position: a.plan.position.Bytes(), node: e.For, hintFor: a.s.standsFor(a.plan),
			})
		case request.Reply:
			a.replied(e.Result)
		case request.Arm:
			a.arm(ctx, e)
		case request.Stop:
			a.noticeSilence(true, a.put.Silent()...)
			a.end(ctx)
		}
	}
}

// replication is the message to a replica; one that stands in for another gets
// its own.
func (a *putActor) replication(e request.Replicate) *link.Shared {
	if e.Replica.Role == dynamo.Fallback {
		m := a.replicate(e.Record, a.plan.read, e.Sync)
		m.HintFor = string(e.Replica.For)
		return link.Share(m)
	}
	shared := &a.applied
	if e.Sync {
		shared = &a.synced
	}
	if *shared == nil {
		*shared = link.Share(a.replicate(e.Record, a.plan.read, e.Sync))
	}
	return *shared
}

// replied answers the client.
func (a *putActor) replied(r request.Result) {
	if w, ok := r.(request.Written); ok {
		a.s.Counters.PutsDone.Add(1)
		a.s.requests.met(a.op, w.Replicas)
		a.reply(&messages.PutReply{Context: a.context(w.Record), Replicas: uint32(w.Replicas)})
		return
	}
	if o, ok := r.(request.Outdated); ok && a.outdated(o) {
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

func (a *putActor) coordinate(e request.Coordinate) *coordinate {
	w := a.write
	return &coordinate{
		hintFor: e.Replica.For,
		key:     w.Key, n: a.plan.params.N, position: a.plan.position.Bytes(), sync: e.Sync, until: a.started.Add(a.plan.timeout),
		plan: a.plan.version, sent: a.started.Add(a.at), trace: a.header(),
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

// standsFor is the primary in whose place this node takes part in a request, empty
// when it is one itself.
func (s *Services) standsFor(p plan) dynamo.NodeID {
	all := slices.Concat(p.candidates, p.also)
	i := slices.IndexFunc(all, func(r dynamo.Replica) bool { return r.Node == s.Self })
	if i < 0 {
		return ""
	}
	return all[i].For
}

package actors

import (
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/messages"
)

// asking is what GetRequest and PutRequest have in common.
type asking interface {
	GetBucket() []byte
	GetKey() []byte
	GetQuorum() *messages.Quorum
	GetTimeoutMs() uint32
	GetTimeline() bool
	GetTraceParent() []byte
}

// order is a client's request on its way to be planned, for the first time or anew:
// a replica knew a newer cluster document, which has come into force here. The
// coordinator gets the latter as a message of its own.
type order struct {
	request asking
	client  *actor.PID
	// round is how often it was planned before; attempted: a write was made then,
	// and may still appear.
	round     int
	attempted bool
	// prepared is what the write has made then, and read dates its record.
	prepared *request.Prepared
	read     int64
	// arrived is when the request came to this node for the first time, zero if that is not
	// known; trace is its span, nil if it has none.
	arrived time.Time
	trace   *tracing
	// earlier is what happened in the rounds before, without leftOut steps.
	earlier []messages.Step
	leftOut int
}

// rounds is how often a request is planned at most. Each time the document is newer,
// so more would mean that it changes faster than requests are served.
const rounds = 4

// verdict is what a failure of this round says of the whole request.
func (o *order) verdict(f *messages.Failure) *messages.Failure {
	if !o.attempted || f.GetCode() == messages.CodeUnknown || f.GetCode() == messages.CodeForgotten {
		return f
	}
	return &messages.Failure{
		Code: messages.CodeUnknown, Text: "the ring changed during the write, which may still appear; last: " + f.Error(),
		RetryAfterMs: f.GetRetryAfterMs(), Answered: f.GetAnswered(), Needed: f.GetNeeded(),
		PrimariesAnswered: f.GetPrimariesAnswered(), PrimariesNeeded: f.GetPrimariesNeeded(),
	}
}

// repeats reports whether the request may be carried out again after one more round.
// A write that was made goes on with what it made; if that is not known, somebody must
// recognise it by its id.
func (o *order) repeats(attempted bool) bool {
	put, write := o.request.(*messages.PutRequest)
	return o.round+1 < rounds && (!write || !attempted || o.prepared != nil || len(put.GetRequestId()) > 0)
}

// after is the request as it is to be planned after some time, with what is left of
// its own.
func (o *order) after(d time.Duration, left uint32) asking {
	switch m := o.request.(type) {
	case *messages.PutRequest:
		out := repeated(m, d, left)
		out.Retry = out.Retry || o.attempted
		return out
	case *messages.GetRequest:
		return &messages.GetRequest{Bucket: m.GetBucket(), Key: m.GetKey(), Quorum: m.GetQuorum(), TimeoutMs: left, Timeline: m.GetTimeline(), TraceParent: m.GetTraceParent()}
	}
	return o.request
}

// repeated is a write as it is to be sent on after some time. A message that was sent
// is never changed, so it is a new one.
func repeated(m *messages.PutRequest, d time.Duration, left uint32) *messages.PutRequest {
	return &messages.PutRequest{
		Bucket: m.GetBucket(), Key: m.GetKey(), Value: m.GetValue(), Context: m.GetContext(), Delete: m.GetDelete(),
		Quorum: m.GetQuorum(), RequestId: m.GetRequestId(), AgeMs: m.GetAgeMs() + uint32(d.Milliseconds()),
		Retry: m.GetRetry(), Hops: m.GetHops(), Plan: m.GetPlan(), TimeoutMs: left,
		Timeline: m.GetTimeline(), TraceParent: m.GetTraceParent(),
	}
}

// refusedBy notes what a replica's failure says of the document: that it knows a
// newer one.
func (x *exchange) refusedBy(node dynamo.NodeID, f *messages.Failure) {
	if f.GetCode() == messages.CodeStale {
		x.newest = max(x.newest, f.GetDocumentVersion())
		x.s.tellBehind(node, f.GetDocumentVersion())
	}
}

// outdated ends a round: the request waits for the document that the replica knew, to
// be planned anew. It reports false when the client has to be told instead.
func (x *exchange) outdated(o request.Outdated) bool {
	if !x.plan.repeats(o.Attempted) {
		return false
	}
	x.stale = &o
	x.note(messages.StepOutdated, o.Node)
	x.plan.attempted = x.plan.attempted || o.Attempted
	return true
}

// await begins to wait for the document; the coordinator tells of each one.
func (x *exchange) await(ctx actor.Context) {
	x.arm(ctx, request.Arm{For: request.Done})
	x.replan(ctx)
}

// replan hands the request to the coordinator when the document is in force. From
// then on whoever gets the message owes the client the answer.
func (x *exchange) replan(ctx actor.Context) {
	if x.answered || x.s.Document().Version < max(x.newest, x.plan.version+1) {
		return
	}
	x.answered, x.ended = true, true
	x.s.unanswered.Add(-1)
	so := x.timeline()
	again := x.plan.order
	again.earlier, again.leftOut = so.Steps, so.LeftOut
	again.request = x.plan.after(time.Since(x.started), x.left())
	again.round++
	ctx.Send(on(x.s.Self, nameCoordinator), &again)
	x.timer.Stop()
	ctx.Stop(x.self)
}

// failures counts the requests of this kind that failed.
func (x *exchange) failures() *atomic.Uint64 {
	if _, write := x.plan.request.(*messages.PutRequest); write {
		return &x.s.Counters.PutsFailed
	}
	return &x.s.Counters.GetsFailed
}

// waits reports whether the request waits for a document, and serves the message if
// so: the machine is done, and what replicas say now is of the old plan.
func (x *exchange) waits(ctx actor.Context) bool {
	if x.stale == nil {
		return false
	}
	switch m := ctx.Message().(type) {
	case *document:
		x.replan(ctx)
	case *deadline:
		if m.state == request.Done {
			x.failures().Add(1)
			x.reply(outdated(*x.stale))
			ctx.Stop(x.self)
		}
	case *actor.Stopping, *endRequest:
		return false
	}
	return true
}

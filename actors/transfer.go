package actors

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

// transferActor runs one transfer. Batches are named by their number, and other
// messages say in what state they are awaited.
type transferActor struct {
	s        *Services
	at       slot
	parent   *actor.PID
	self     *actor.PID
	transfer *transfer.Transfer
	cursor   []byte // the next read begins here
	batch    []hint
	dated    int64 // when it was read
	needs    transfer.Batch
	// bytes of the batch that the rate has to allow for; sent are all of it.
	bytes, sent int
	turn        turn
	timer       *rt.Timer
	progress    *progress
	ended       bool
}

// batchRead is the outcome of a read of the store that by asked for: an earlier
// transfer of the same partition and node has had the same name.
type batchRead struct {
	by    *transferActor
	hints []hint
	dated int64 // when their reading began
	next  []byte
	bytes int
	err   error
}

// batchDue ends the wait for a batch; batchPause is the end of a pause.
type (
	batchDue   struct{ state transfer.State }
	batchPause struct{}
)

// ringChanged: what was offered is not dropped, but offered again.
type ringChanged struct{}

func newTransfer(s *Services, j job, given bool, parent *actor.PID) *transferActor {
	at := j.slot
	lower, _ := vnode.HintRange(at.node, at.partition)
	if at.node == "" {
		lower, _ = vnode.ObjectRange(at.partition)
	}
	// An answer to an earlier transfer, perhaps of before a restart of this node,
	// finds this one under its name, so numbers are not used twice.
	return &transferActor{s: s, at: at, parent: parent, transfer: transfer.New(at.node, rand.Uint64()>>1, given), cursor: lower, progress: j.progress}
}

// Receive translates messages to events.
func (a *transferActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		a.turn.gone(a.s, a.self)
		a.run(ctx, a.transfer.Start())
	case *batchRead:
		a.read(ctx, m)
	case *batchPause:
		a.pace()
	case *sliceGranted:
		if a.turn.begins(a.s, a.self) {
			a.fetch()
		}
	case *askAgain:
		if a.turn.asked {
			a.timer = a.turn.next(a.s, a.self)
		}
	case *messages.HandoffReply:
		a.step(ctx, transfer.Confirmed{Node: from(ctx), Batch: m.GetBatch()})
	case *messages.Failure:
		a.refused(ctx, m)
	case *link.Undelivered:
		if r, ok := m.Message.(*messages.HandoffRequest); ok {
			a.step(ctx, transfer.Failed{Node: target(m), Batch: r.GetBatch(), Unreachable: m.Reason == link.NotConnected, Reason: m.Reason.String()})
		}
	case *hintsDropped:
		a.progress.add(len(a.batch)-m.kept, a.sent)
		a.s.Counters.TransferBytes.Add(uint64(a.sent))
		a.step(ctx, transfer.Dropped{Kept: m.kept})
	case *batchDue:
		if a.transfer.State() == m.state {
			a.step(ctx, transfer.Broken{Reason: fmt.Sprintf("no answer within %v while %v", transferTimeout, m.state)})
		}
	case *ringChanged:
		a.step(ctx, transfer.Broken{Reason: "the ring has changed"})
	case *actor.DeadLetterResponse:
		a.step(ctx, transfer.Broken{Reason: "this node's own vnode has stopped"})
	case *actor.Stopping:
		a.timer.Stop()
		a.turn.gone(a.s, a.self)
		a.tell(ctx, transfer.Outcome{Reason: "stopped"})
	}
}

// refused takes a failure: of this node's vnode it ends the transfer; of a
// receiver it says that this one has not the batch.
func (a *transferActor) refused(ctx actor.Context, f *messages.Failure) {
	if from(ctx) == a.s.Self {
		a.step(ctx, transfer.Broken{Reason: f.Error()})
		return
	}
	a.step(ctx, transfer.Failed{Node: from(ctx), Batch: a.transfer.Number(), Reason: f.Error()})
}

func (a *transferActor) step(ctx actor.Context, e transfer.Event) { a.run(ctx, a.transfer.Step(e)) }

func (a *transferActor) run(ctx actor.Context, effects []transfer.Effect) {
	var request *link.Shared
	for _, e := range effects {
		switch e := e.(type) {
		case transfer.ReadNext:
			a.pace()
		case transfer.Offer:
			if request == nil {
				request = link.Share(a.request(e.Batch))
				a.arm(&batchDue{transfer.Confirming}, transferTimeout)
			}
			a.offer(ctx, e.Node, request)
		case transfer.Drop:
			a.drop(ctx)
		case transfer.Finish:
			a.tell(ctx, e.Outcome)
			ctx.Stop(ctx.Self())
		}
	}
}

// drop has the vnode drop the batch, if the ring is still as it was when it was
// offered: new replicas may not have been among those who confirmed it.
func (a *transferActor) drop(ctx actor.Context) {
	if !sameNeeds(a.needs, a.s.needs(a.at.partition, a.batch)) {
		ctx.Send(a.self, &ringChanged{})
		return
	}
	a.arm(&batchDue{transfer.Dropping}, transferTimeout)
	ctx.Request(on(a.s.Self, vnodeName(a.at.partition)), &dropHints{hints: a.batch})
}

// offer sends the batch to a replica. One that is not worth asking could not be
// reached: a disk that hangs must not keep others from what is theirs.
func (a *transferActor) offer(ctx actor.Context, node dynamo.NodeID, request *link.Shared) {
	to := on(node, vnodeName(a.at.partition))
	if node != a.at.node && !a.s.reachable(node) {
		ctx.Send(a.self, &link.Undelivered{Target: to, Message: request.Message(), Reason: link.NotConnected})
		return
	}
	ctx.Request(to, request.For(a.s.System, to))
}

func (a *transferActor) arm(m any, d time.Duration) {
	a.timer.Stop()
	a.timer = a.s.Wheel.Send(a.self, m, d)
}

// tell says how it ended, once.
func (a *transferActor) tell(ctx actor.Context, o transfer.Outcome) {
	if !a.ended {
		a.ended = true
		ctx.Request(a.parent, &transferEnded{at: a.at, outcome: o})
	}
}

func (a *transferActor) request(number uint64) *messages.HandoffRequest {
	m := &messages.HandoffRequest{
		Partition: uint32(a.at.partition), Batch: number, N: uint32(vnode.ObjectN(a.batch[0].object)), ReadMs: a.dated,
		TimeoutMs: uint32(transferTimeout.Milliseconds()),
	}
	for i := range a.batch {
		h := &a.batch[i]
		if len(h.encoded) == 0 {
			continue
		}
		_, key, _ := vnode.ParseObjectKey(h.object)
		m.Records = append(m.Records, &messages.HandoffRecord{Bucket: []byte(key.Bucket), Key: []byte(key.Name), Record: h.encoded})
	}
	return m
}

// pace asks for a slice of time for the next batch, when the rate allows what the
// last one took.
func (a *transferActor) pace() {
	a.turn.over(a.s, a.self)
	pause := rest(a.bytes)
	if a.bytes = 0; pause >= time.Millisecond {
		a.arm(&batchPause{}, pause)
		return
	}
	a.timer.Stop()
	a.timer = a.turn.next(a.s, a.self)
}

// fetch reads the next batch on the pool of readers.
func (a *transferActor) fetch() {
	a.arm(&batchDue{transfer.Reading}, transferTimeout) // a read that panics says nothing
	self, root, s, at, cursor := a.self, a.s.System.Root, a.s, a.at, a.cursor
	submitted := s.Readers.Submit(func() {
		began := s.millis()
		m := s.readBatch(at, cursor)
		m.by, m.dated = a, began
		root.Send(self, m)
	})
	if !submitted {
		a.turn.over(a.s, a.self)
		a.arm(&batchPause{}, transferPause)
	}
}

// read offers what was read. Once it was offered, nothing may take its place: what
// is dropped is what lies here.
func (a *transferActor) read(ctx actor.Context, m *batchRead) {
	if m.by != a || a.transfer.State() != transfer.Reading {
		return
	}
	if m.err != nil {
		a.step(ctx, transfer.Broken{Reason: m.err.Error()})
		return
	}
	a.batch, a.dated, a.cursor, a.bytes, a.sent = m.hints, m.dated, m.next, m.bytes, m.bytes
	b := transfer.Batch{Size: len(m.hints)}
	if b.Size > 0 {
		b = a.s.needs(a.at.partition, m.hints)
	}
	a.needs = b
	a.step(ctx, transfer.Read{Batch: b})
}

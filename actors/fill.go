package actors

import (
	"errors"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/messages"
)

// fillActor runs a fill until it is complete or can do nothing more for now.
type fillActor struct {
	*filling
	s            *Services
	parent, self *actor.PID
	// page is the last answer that the fill took; wanted are the keys that the last
	// page of digests has left.
	page   *messages.FillReply
	wanted []*messages.FillKey
	// asking is what is asked for when the rate allows.
	asking transfer.Ask
	turn   turn
	bytes  int // of page
	timer  *rt.Timer
	*progress
	soon  bool
	ended bool
}

// pageCompared is the outcome of a comparison that by asked for.
type pageCompared struct {
	by     *fillActor
	batch  uint64
	wanted []*messages.FillKey
	err    error
}

// fillDue ends the wait for what is awaited since a batch came into a state;
// fillPause is the end of a pause.
type (
	fillDue struct {
		batch uint64
		state transfer.FillState
	}
	fillPause struct{ batch uint64 }
)

// errReadersBusy: the pool of readers takes no more for now.
var errReadersBusy = errors.New("too many reads of the store wait")

func newFill(s *Services, f *filling, p *progress, parent *actor.PID) *fillActor {
	return &fillActor{filling: f, s: s, progress: p, parent: parent}
}

// Receive translates messages to events.
func (a *fillActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		a.turn.gone(a.s, a.self)
		a.run(ctx, a.fill.Start(a.streams))
	case *messages.FillReply:
		a.answered(ctx, m)
	case *pageCompared:
		a.compared(ctx, m)
	case *messages.HandoffReply:
		a.step(ctx, transfer.Merged{Batch: m.GetBatch()})
	case *messages.Failure:
		a.refused(ctx, m)
	case *link.Undelivered:
		if r, ok := m.Message.(*messages.FillRequest); ok {
			a.step(ctx, transfer.Failed{Node: target(m), Batch: r.GetBatch(), Unreachable: true, Reason: m.Reason.String()})
		}
	case *fillPause:
		if m.batch == a.fill.Number() && a.fill.State() == transfer.Asking {
			a.pace()
		}
	case *sliceGranted:
		if a.turn.begins(a.s, a.self) {
			a.send(ctx)
		}
	case *askAgain:
		if a.turn.asked {
			a.timer = a.turn.next(a.s, a.self)
		}
	case *fillDue:
		a.due(ctx, m)
	case *actor.DeadLetterResponse:
		a.step(ctx, transfer.Broken{Reason: "this node's own vnode has stopped"})
	case *actor.Stopping:
		a.timer.Stop()
		a.turn.gone(a.s, a.self)
		if !a.ended {
			a.fill.Step(transfer.Broken{Reason: "stopped"}) // so that it can be started again
			a.tell(ctx, a.fill.Progress())
		}
	}
}

func (a *fillActor) step(ctx actor.Context, e transfer.Event) { a.run(ctx, a.fill.Step(e)) }

func (a *fillActor) run(ctx actor.Context, effects []transfer.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case transfer.Ask:
			a.asking = e
			a.pace()
		case transfer.Compare:
			a.compare(ctx, e.Batch)
		case transfer.Merge:
			a.merge(ctx, e.Batch, a.page.GetRecords(), a.page.GetReadMs())
		case transfer.Seal:
			a.merge(ctx, e.Batch, nil, 0)
		case transfer.Rest:
			a.tell(ctx, e.Outcome)
			ctx.Stop(ctx.Self())
		}
	}
}

// pace asks for a slice of time for the next question, when the rate allows what the
// last answer took.
func (a *fillActor) pace() {
	a.turn.over(a.s, a.self)
	pause := rest(a.bytes)
	if a.bytes = 0; pause >= time.Millisecond {
		a.arm(&fillPause{a.asking.Batch}, pause)
		return
	}
	a.timer.Stop()
	a.timer = a.turn.next(a.s, a.self)
}

func (a *fillActor) send(ctx actor.Context) {
	e := a.asking
	m := &messages.FillRequest{
		Partition: uint32(a.partition), N: uint32(e.N), Target: a.target, Store: a.s.Founding.Config.Self.Store[:], Batch: e.Batch,
		Since: a.since, Cursor: e.Cursor, Digests: e.Digests, TimeoutMs: uint32(transferTimeout.Milliseconds()),
	}
	if e.Wanted > 0 {
		a.wanted = a.wanted[len(a.wanted)-e.Wanted:] // those before were handled
		m.Wanted = a.wanted
	}
	to := on(e.Source, vnodeName(a.partition))
	if !a.s.reachable(e.Source) {
		ctx.Send(a.self, &link.Undelivered{Target: to, Message: m, Reason: link.NotConnected})
		return
	}
	a.arm(&fillDue{e.Batch, transfer.Asking}, transferTimeout)
	ctx.Request(to, m)
}

func (a *fillActor) arm(m any, d time.Duration) {
	a.timer.Stop()
	a.timer = a.s.Wheel.Send(a.self, m, d)
}

// answered takes a source's answer. What the fill does not take must not be in the
// place of what it is about to merge.
func (a *fillActor) answered(ctx actor.Context, m *messages.FillReply) {
	page := transfer.Page{
		Node: from(ctx), Batch: m.GetBatch(), Cursor: m.GetCursor(), More: m.GetMore(), Digests: a.asking.Digests,
		Records: len(m.GetRecords()), Handled: int(m.GetHandled()), Damaged: int(m.GetDamaged()),
	}
	if page.Digests && page.Records > 0 || !page.Digests && len(m.GetDigests()) > 0 {
		a.step(ctx, transfer.Failed{Node: page.Node, Batch: page.Batch, Reason: "it answers another question"})
		return
	}
	if page.Records > 0 {
		if f := a.s.tooOld(m.GetReadMs(), a.s.millis()); f != nil {
			a.step(ctx, transfer.Failed{Node: page.Node, Batch: page.Batch, Reason: f.Error()})
			return
		}
	}
	effects := a.fill.Step(page)
	if len(effects) == 0 {
		return
	}
	a.page, a.bytes = m, messageSize(m)
	a.progress.add(len(m.GetRecords()), a.bytes)
	a.s.Counters.FillBytes.Add(uint64(a.bytes))
	a.run(ctx, effects)
}

// compare finds out, on the pool of readers, which of the records that the page has
// hashes of differ from those here.
func (a *fillActor) compare(ctx actor.Context, batch uint64) {
	a.arm(&fillDue{batch, transfer.Comparing}, transferTimeout) // a read that panics says nothing
	self, root, s, p, n, page := a.self, a.s.System.Root, a.s, a.partition, a.asking.N, a.page
	submitted := s.Readers.Submit(func() {
		out := &pageCompared{by: a, batch: batch}
		digests, err := messages.ToDigests(page)
		if err == nil {
			out.wanted, err = s.differing(p, n, digests)
		}
		out.err = err
		root.Send(self, out)
	})
	if !submitted {
		ctx.Send(a.self, &pageCompared{by: a, batch: batch, err: errReadersBusy})
	}
}

func (a *fillActor) compared(ctx actor.Context, m *pageCompared) {
	switch {
	case m.by != a:
	case m.err != nil:
		a.step(ctx, transfer.Broken{Reason: m.err.Error()})
	case m.batch == a.fill.Number() && a.fill.State() == transfer.Comparing:
		a.wanted = m.wanted
		a.step(ctx, transfer.Compared{Batch: m.batch, Wanted: len(m.wanted)})
	}
}

// merge has this node's own vnode, the only one that writes here, merge records. Its
// answer says that the disk has them, and all that it had accepted before.
func (a *fillActor) merge(ctx actor.Context, batch uint64, records []*messages.HandoffRecord, read int64) {
	a.arm(&fillDue{batch, a.fill.State()}, transferTimeout)
	ctx.Request(on(a.s.Self, vnodeName(a.partition)), &messages.HandoffRequest{
		Partition: uint32(a.partition), Batch: batch, N: uint32(a.asking.N), Records: records, ReadMs: read,
		TimeoutMs: uint32(transferTimeout.Milliseconds()),
	})
}

// refused takes a failure: of this node's vnode it ends the run, of a source it
// leaves that one for now.
func (a *fillActor) refused(ctx actor.Context, f *messages.Failure) {
	if from(ctx) == a.s.Self {
		a.step(ctx, transfer.Broken{Reason: f.Error()})
		return
	}
	a.soon = a.soon || f.GetCode() == messages.CodeStale
	a.step(ctx, transfer.Failed{Node: from(ctx), Batch: a.fill.Number(), Reason: f.Error()})
}

// due ends a wait that took too long.
func (a *fillActor) due(ctx actor.Context, m *fillDue) {
	if m.batch != a.fill.Number() || m.state != a.fill.State() {
		return
	}
	why := fmt.Sprintf("no answer within %v while %v", transferTimeout, m.state)
	if m.state == transfer.Asking {
		a.step(ctx, transfer.Failed{Node: a.fill.Source(), Batch: m.batch, Reason: why})
		return
	}
	a.step(ctx, transfer.Broken{Reason: why})
}

// tell says how it ended. The fill belongs to the parent then.
func (a *fillActor) tell(ctx actor.Context, o transfer.FillOutcome) {
	a.ended = true
	ctx.Request(a.parent, &fillEnded{of: a.filling, outcome: o, soon: a.soon})
}

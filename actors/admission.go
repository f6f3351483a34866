package actors

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo/admission"
	"github.com/dynactor/dynactor/messages"
)

const (
	// admissionTick is how often it is looked at what requests took.
	admissionTick  = 200 * time.Millisecond
	wantAgainAfter = 5 * time.Second
)

// latencies counts what the requests of clients took, from when their coordinator
// began to its answer.
type latencies [admission.Buckets]atomic.Uint64

func (l *latencies) add(d time.Duration) { l[admission.Bucket(d)].Add(1) }

// What workers and the admission actor say to each other.
type (
	sliceWanted  struct{}
	sliceGranted struct{}
	sliceDone    struct{ took time.Duration }
	workerGone   struct{}
)

// askAgain is for a worker that has heard nothing for a while: the actor that it asked
// may have failed.
type askAgain struct{}

// RuntimeControl lets it overtake: a vnode reads for its trees between two turns.
func (*sliceGranted) RuntimeControl() {}

// admit is the tick of admission, creditDue says that there is credit again.
type (
	admit     struct{}
	creditDue struct{}
)

// RuntimeControl lets it overtake.
func (*admit) RuntimeControl() {}

// admissionActor hands slices of time to what runs in the background (§ 6.5).
type admissionActor struct {
	s          *Services
	self       *actor.PID
	controller *admission.Controller
	// seen, served and shed are what was counted at the last tick.
	seen         [admission.Buckets]uint64
	served, shed uint64
	recent       recent
	share        float64
	work         map[string]*backgroundWork // by kind
	timer        *rt.Timer
	due          *rt.Timer
}

// backgroundWork is what one kind of work got.
type backgroundWork struct {
	slices uint64
	took   time.Duration
}

func newAdmission(s *Services) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor {
		return &admissionActor{s: s, controller: admission.New(admission.Config{Floor: s.BackgroundFloor}), work: map[string]*backgroundWork{}}
	}, flat, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: s.Registry})))
}

// Receive translates messages to the controller's events.
func (a *admissionActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		a.requests()
		a.tick()
	case *admit:
		t := a.requests()
		a.recent.add(&t.Requests)
		a.step(t)
		a.publish()
		a.tick()
	case *sliceWanted:
		a.step(admission.Want{Worker: admission.Worker(ctx.Sender().GetId())})
	case *sliceDone:
		a.count(ctx.Sender().GetId(), m.took)
		a.step(admission.Done{Worker: admission.Worker(ctx.Sender().GetId()), Took: m.took})
	case *workerGone:
		a.step(admission.Gone{Worker: admission.Worker(ctx.Sender().GetId())})
	case *creditDue:
		a.step(admission.Gone{})
	case *messages.BackgroundRequest:
		a.s.answer(ctx.Sender(), a.self, a.status())
	case *actor.Stopping:
		a.timer.Stop()
		a.due.Stop()
	}
}

func (a *admissionActor) tick() {
	a.timer.Stop()
	a.timer = a.s.Wheel.Send(a.self, &admit{}, admissionTick)
}

// step hands out what the controller grants. The clock is the wall's, so that all
// nodes rest at the same time.
func (a *admissionActor) step(e admission.Event) {
	for _, g := range a.controller.Step(time.Duration(time.Now().UnixNano()), e) {
		a.s.System.Root.Send(actor.NewPID(a.self.GetAddress(), string(g.Worker)), &sliceGranted{})
	}
	a.due.Stop()
	if after, ok := a.controller.Wake(); ok {
		a.due = a.s.Wheel.Send(a.self, &creditDue{}, after)
	}
	if s := a.controller.Status(); s.Share != a.share && len(s.Working)+len(s.Waiting) > 0 {
		a.share = s.Share
		a.s.Log.Debug("share of background work", slog.Float64("share", s.Share), slog.String("reason", s.Why))
	}
}

// count adds a slice to what its kind of work got.
func (a *admissionActor) count(worker string, took time.Duration) {
	if took == 0 { // was given back
		return
	}
	kind, _, _ := strings.Cut(worker, "/")
	w := a.work[kind]
	if w == nil {
		w = &backgroundWork{}
		a.work[kind] = w
	}
	w.slices++
	w.took += took
}

// status is how the controller stands, for operators.
func (a *admissionActor) status() *messages.BackgroundReply {
	now := time.Duration(time.Now().UnixNano())
	a.step(admission.Gone{}) // brings it up to date
	s := a.controller.Status()
	out := &messages.BackgroundReply{
		Share: s.Share, Floor: s.Floor, Used: s.Used, Parallel: uint32(s.Parallel), Why: s.Why,
		WithUs: uint64(s.With.Microseconds()), WithoutUs: uint64(s.Without.Microseconds()),
	}
	if s.Changed != 0 {
		out.ChangedMsAgo = uint64(max(1, (now - s.Changed).Milliseconds()))
	}
	for _, w := range s.Working {
		out.Working = append(out.Working, string(w))
	}
	for _, w := range s.Waiting[:min(len(s.Waiting), maxStates)] {
		out.Waiting = append(out.Waiting, string(w))
	}
	for _, kind := range slices.Sorted(maps.Keys(a.work)) {
		w := a.work[kind]
		out.Work = append(out.Work, &messages.BackgroundWork{Kind: kind, Slices: w.slices, TookMs: uint64(w.took.Milliseconds())})
	}
	return out
}

// publish tells for metrics how the controller stands.
func (a *admissionActor) publish() {
	s := a.controller.Status()
	f := &AdmissionFigures{Share: s.Share, Floor: s.Floor, Used: s.Used, Kinds: map[string]WorkFigures{}}
	change := func(w admission.Worker, by func(*WorkFigures)) {
		kind, _, _ := strings.Cut(string(w), "/")
		row := f.Kinds[kind]
		by(&row)
		f.Kinds[kind] = row
	}
	for kind, w := range a.work {
		change(admission.Worker(kind), func(f *WorkFigures) { f.Slices, f.Took = w.slices, w.took })
	}
	for _, w := range s.Working {
		change(w, func(f *WorkFigures) { f.Working++ })
	}
	for _, w := range s.Waiting {
		change(w, func(f *WorkFigures) { f.Waiting++ })
	}
	a.s.published.admission.Store(f)
}

// requests is what was counted since the last call.
func (a *admissionActor) requests() (t admission.Tick) {
	for i := range t.Requests {
		now := a.s.latencies[i].Load()
		t.Requests[i], a.seen[i] = float64(now-a.seen[i]), now
	}
	served, shed := a.s.served.Load(), a.s.Counters.Shed.Load()
	t.Served, t.Refused = int(served-a.served), int(shed-a.shed)
	a.served, a.shed = served, shed
	return t
}

// turn is a worker's side: it works in slices.
type turn struct {
	asked bool
	began time.Time // of the slice that it has; zero: none
}

// want asks for a slice.
func (t *turn) want(s *Services, self *actor.PID) {
	t.asked = true
	s.answer(on(s.Self, nameAdmission), self, &sliceWanted{})
}

// next asks for a slice, and says when to ask again.
func (t *turn) next(s *Services, self *actor.PID) *rt.Timer {
	t.want(s, self)
	return s.Wheel.Send(self, &askAgain{}, wantAgainAfter)
}

// over ends the slice that a worker has.
func (t *turn) over(s *Services, self *actor.PID) {
	if !t.began.IsZero() {
		s.answer(on(s.Self, nameAdmission), self, &sliceDone{took: time.Since(t.began)})
		t.began = time.Time{}
	}
}

// begins takes a slice that was granted, and reports whether it was asked for. The
// worker before it, of the same name, may have asked.
func (t *turn) begins(s *Services, self *actor.PID) bool {
	if !t.asked {
		s.answer(on(s.Self, nameAdmission), self, &sliceDone{})
		return false
	}
	t.asked, t.began = false, time.Now()
	return true
}

// gone says that the worker ends, or begins under a name that was used before.
func (t *turn) gone(s *Services, self *actor.PID) {
	*t = turn{}
	s.answer(on(s.Self, nameAdmission), self, &workerGone{})
}

package actors

import (
	"fmt"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/messages"
)

// replicaSet is a partition and one n: the objects in it have the same replicas.
type replicaSet struct {
	partition dynamo.Partition
	n         int
}

// reapJob is one reaping: its keys, and the document that it goes by.
type reapJob struct {
	replicaSet
	number uint64
	keys   []messages.ReapKeyOf
	doc    *member.Document
	pid    *actor.PID
}

// name is that of the actor that does it. No two have the same, so that an answer to an
// earlier one finds nobody.
func (j *reapJob) name() string {
	return messages.TargetReap + strconv.FormatUint(uint64(j.partition), 10) + "/" + strconv.Itoa(j.n) + "/" + strconv.FormatUint(j.number, 10)
}

// reapActor runs one reaping of some keys. It rests for nearly all of its time; what it
// asks for it asks for in slices of time.
type reapActor struct {
	s            *Services
	job          *reapJob
	parent, self *actor.PID
	reap         *reap.Reap
	// todo are the questions of a round that are not asked yet, asked the keys that the last
	// ones were about.
	todo  []reap.Effect
	asked []int
	turn  turn
	timer *rt.Timer
	ended bool
}

// reapPaused ends the pause, reapDue the wait for the answers of a round. reapBroken says
// that the reaping's document is not in force any more.
type (
	reapPaused struct{ round uint64 }
	reapDue    struct{ round uint64 }
	reapBroken struct{}
)

// reapEnded is the last word of a reaping.
type reapEnded struct {
	number  uint64
	outcome reap.Outcome
}

func newReap(s *Services, j *reapJob, parent *actor.PID) *reapActor {
	plan := reap.Plan{
		Version: j.doc.Version, Primaries: j.doc.Settled.Primaries(j.partition, j.n), Members: j.doc.Voters(), Keys: len(j.keys),
		Life: s.MessageLife.Truncate(time.Millisecond),
	}
	return &reapActor{s: s, job: j, parent: parent, reap: reap.New(plan, 0)}
}

// Receive translates messages to events.
func (a *reapActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		a.run(ctx, a.reap.Start())
	case *messages.ReapReply:
		a.answered(ctx, m)
	case *messages.ReapDropReply:
		a.step(ctx, reap.Dropped{Round: m.GetRound(), Node: from(ctx), Count: int(m.GetDropped())})
	case *messages.Failure:
		a.step(ctx, reap.Failed{Round: a.reap.Round(), Node: from(ctx), Reason: m.Error()})
	case *link.Undelivered:
		a.step(ctx, reap.Failed{Round: a.reap.Round(), Node: target(m), Reason: m.Reason.String()})
	case *sliceGranted:
		if a.turn.begins(a.s, a.self) {
			a.ask(ctx)
		}
	case *askAgain:
		if a.turn.asked {
			a.timer = a.turn.next(a.s, a.self)
		}
	case *reapPaused:
		a.step(ctx, reap.Waited{Round: m.round})
	case *reapDue:
		if m.round == a.reap.Round() && a.reap.State() != reap.Waiting {
			a.step(ctx, reap.Broken{Reason: fmt.Sprintf("not all have answered within %v", transferTimeout)})
		}
	case *reapBroken:
		a.step(ctx, reap.Broken{Reason: "there is a newer cluster document"})
	case *actor.DeadLetterResponse:
		a.step(ctx, reap.Broken{Reason: "this node's own vnode has stopped"})
	case *actor.Stopping:
		a.timer.Stop()
		a.turn.gone(a.s, a.self)
		a.tell(ctx, reap.Outcome{Reason: "stopped"})
	}
}

func (a *reapActor) step(ctx actor.Context, e reap.Event) { a.run(ctx, a.reap.Step(e)) }

func (a *reapActor) run(ctx actor.Context, effects []reap.Effect) {
	if len(effects) == 0 {
		return
	}
	a.turn.over(a.s, a.self)
	a.timer.Stop()
	switch e := effects[0].(type) { // a step has effects of one kind
	case reap.Wait:
		a.timer = a.s.Wheel.Send(a.self, &reapPaused{e.Round}, reap.PauseOf(a.s.MessageLife))
	case reap.Finish:
		a.tell(ctx, e.Outcome)
		ctx.Stop(ctx.Self())
	default:
		a.todo = append(a.todo, effects...)
		a.timer = a.turn.next(a.s, a.self)
	}
}

// ask asks all questions of a round at once: the slice lasts until they are answered.
func (a *reapActor) ask(ctx actor.Context) {
	a.timer.Stop()
	a.timer = a.s.Wheel.Send(a.self, &reapDue{a.reap.Round()}, transferTimeout)
	all := a.todo
	a.todo = nil
	for _, e := range all {
		switch e := e.(type) {
		case reap.Ask:
			m := &messages.ReapRequest{
				Partition: uint32(a.job.partition), N: uint32(a.job.n), Round: e.Round, Keys: a.keys(e.Keys), TimeoutMs: uint32(transferTimeout.Milliseconds()),
			}
			if len(e.Keys) > 0 {
				a.asked = e.Keys
			}
			a.send(ctx, on(e.Node, nameReaps), m)
		case reap.Drop:
			a.send(ctx, on(e.Node, vnodeName(a.job.partition)), &messages.ReapDropRequest{
				Partition: uint32(a.job.partition), N: uint32(a.job.n), Round: e.Round, Keys: a.keys(e.Keys), TimeoutMs: uint32(transferTimeout.Milliseconds()),
			})
		}
	}
}

func (a *reapActor) keys(places []int) []*messages.ReapKey {
	keys := make([]messages.ReapKeyOf, len(places))
	for i, place := range places {
		keys[i] = a.job.keys[place]
	}
	return messages.FromReapKeys(keys)
}

func (a *reapActor) send(ctx actor.Context, to *actor.PID, m any) {
	if !a.s.reachable(dynamo.NodeID(to.GetAddress())) {
		ctx.Send(a.self, &link.Undelivered{Target: to, Message: m, Reason: link.NotConnected})
		return
	}
	ctx.Request(to, m)
}

// answered takes an answer to the round that is under way; the machine takes no other.
func (a *reapActor) answered(ctx actor.Context, m *messages.ReapReply) {
	if m.GetRound() != a.reap.Round() {
		return
	}
	answer, err := messages.ToReapAnswer(m, a.asked)
	if err != nil {
		a.step(ctx, reap.Failed{Round: m.GetRound(), Node: from(ctx), Reason: err.Error()})
		return
	}
	a.step(ctx, reap.Answered{Round: m.GetRound(), Node: from(ctx), Answer: answer})
}

// tell says how it ended, once.
func (a *reapActor) tell(ctx actor.Context, o reap.Outcome) {
	if !a.ended {
		a.ended = true
		ctx.Send(a.parent, &reapEnded{number: a.job.number, outcome: o})
	}
}

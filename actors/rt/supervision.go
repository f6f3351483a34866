package rt

import (
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// StopOnFailure returns a strategy that stops a child that panicked. It is for
// request actors: a restarted one would send its requests twice. The child
// sees Stopping and can still answer its client.
func StopOnFailure() actor.SupervisorStrategy { return stopOnFailure{} }

type stopOnFailure struct{}

// HandleFailure implements actor.SupervisorStrategy.
func (stopOnFailure) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID,
	_ *actor.RestartStatistics, reason any, _ any) {
	publish(system, child, reason, actor.StopDirective)
	supervisor.StopChildren(child)
}

// RestartWithLimit returns a strategy that restarts a child that panicked, and
// stops it at the failure after max failures within the given time. Then
// giveUp (may be nil) is told, on the supervisor's goroutine, so that somebody
// can report the loss: a child that is stopped for ever is an event, not an
// end.
func RestartWithLimit(max int, within time.Duration, giveUp func(child *actor.PID, reason any)) actor.SupervisorStrategy {
	return &restartWithLimit{max: max, within: within, giveUp: giveUp}
}

type restartWithLimit struct {
	max    int
	within time.Duration
	giveUp func(child *actor.PID, reason any)
}

// HandleFailure implements actor.SupervisorStrategy.
func (s *restartWithLimit) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID,
	rs *actor.RestartStatistics, reason any, _ any) {
	if fail(rs, s.within) <= s.max {
		publish(system, child, reason, actor.RestartDirective)
		supervisor.RestartChildren(child)
		return
	}
	rs.Reset()
	publish(system, child, reason, actor.StopDirective)
	supervisor.StopChildren(child)
	if s.giveUp != nil {
		s.giveUp(child, reason)
	}
}

// RestartWithBackoff returns a strategy that restarts a child for ever, after
// a pause that doubles from shortest to longest with each failure within the
// last ten times longest, and is jittered by half. The child handles nothing
// during the pause, so its mailbox must be bounded.
func RestartWithBackoff(shortest, longest time.Duration) actor.SupervisorStrategy {
	return &restartWithBackoff{shortest: shortest, longest: longest}
}

type restartWithBackoff struct{ shortest, longest time.Duration }

// HandleFailure implements actor.SupervisorStrategy.
func (s *restartWithBackoff) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID,
	rs *actor.RestartStatistics, reason any, _ any) {
	failures := fail(rs, 10*s.longest)
	pause := s.shortest << min(max(failures-1, 0), 16)
	if pause > s.longest || pause <= 0 {
		pause = s.longest
	}
	pause = pause/2 + rand.N(pause/2+1)
	publish(system, child, reason, actor.RestartDirective)
	// RestartChildren only sends a system message: any goroutine may call it,
	// and a child that has gone by then makes it a dead letter.
	time.AfterFunc(pause, func() { supervisor.RestartChildren(child) })
}

// fail counts a failure and returns how many there were within the given time.
// The library keeps every failure for ever; old ones are forgotten here.
func fail(rs *actor.RestartStatistics, within time.Duration) int {
	if rs.NumberOfFailures(within) == 0 {
		rs.Reset()
	}
	rs.Fail()
	return rs.NumberOfFailures(within)
}

// publish tells the event stream what the library's own strategies tell it.
func publish(system *actor.ActorSystem, child *actor.PID, reason any, directive actor.Directive) {
	system.EventStream.Publish(&actor.SupervisorEvent{Child: child, Reason: reason, Directive: directive})
}

package rt

import "github.com/asynkron/protoactor-go/actor"

// Visit is a look at an actor from inside. The mailbox carries it out on the actor's
// goroutine, between two messages: it is a control message that no actor has to handle, and
// none is looked at while it works. Registry.Visit sends it.
//
// One of the two functions is called, once, and must neither block nor panic; an actor that
// is stuck, or waits for its supervisor, calls them when it goes on.
type Visit struct {
	// Look gets the actor, for as long as it runs. A panic does the actor no harm.
	Look func(actor.Actor)
	// Missed is called if nothing was seen: with what Look panicked with, or with nil when the
	// actor has stopped or has as many control messages as it may.
	Missed func(panicked any)
}

// RuntimeControl lets a visit overtake: an operator looks at what has a long queue.
func (*Visit) RuntimeControl() {}

// visit is no message: it does not count as one, and what goes wrong is the visitor's.
func (m *mailbox) visit(v *Visit) {
	m.handlingAt.Store(m.now())
	defer func() {
		m.handlingAt.Store(0)
		if reason := recover(); reason != nil {
			v.Missed(reason)
		}
	}()
	v.Look(m.self.Actor())
}

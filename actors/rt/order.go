package rt

import (
	"fmt"
	"time"
)

// Order is why an actor fails or ends that was told to: it has no defect.
type Order struct {
	// Done is what was asked for, as it is said afterwards: "restarted".
	Done string
	// By is who has asked.
	By string
}

// Error says it in one line.
func (o *Order) Error() string { return fmt.Sprintf("%s by an operator (%s)", o.Done, o.By) }

// failNow has an actor fail because of an order. As with a visit, no actor handles it.
type failNow struct{ order *Order }

// RuntimeControl lets it overtake: an operator wants it now.
func (*failNow) RuntimeControl() {}

// Fail has an actor fail because of an order when its turn comes: its supervisor decides what
// comes of it. It is false if there is no such actor.
func (r *Registry) Fail(id string, order *Order) bool {
	e, ok := r.find(id)
	if ok {
		e.PostUserMessage(&failNow{order})
	}
	return ok
}

// Replaced is how the actor is to look that takes the place of one that an order ends, see
// MailboxOptions.After.
func (s Stats) Replaced(order *Order) *Stats {
	s.Restarts++
	s.LastPanic = failureBy(order)
	return &s
}

// failureBy is the failure that an order makes.
func failureBy(order *Order) *Panic { return &Panic{Reason: order, At: time.Now()} }

// follow takes over what is left of an actor that was killed.
func (m *mailbox) follow(before *Stats) {
	if before != nil {
		m.restarts.Store(before.Restarts)
		m.lastPanic.Store(before.LastPanic)
	}
}

// countFollower counts the start of an actor in the place of one that was killed as a restart.
func (m *mailbox) countFollower() {
	if m.options.After != nil {
		m.totals().restarts.Add(1)
	}
}

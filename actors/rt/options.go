package rt

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Bounds of a mailbox that does not set its own.
const (
	// DefaultMaxMessages is how many user messages a mailbox holds.
	DefaultMaxMessages = 4096
	// DefaultMaxBytes is how many bytes of user messages a mailbox holds, when
	// MailboxOptions.Size says what a message weighs.
	DefaultMaxBytes = 64 << 20
	// DefaultMaxControl is how many control messages a mailbox holds. They do
	// not count against the two bounds above.
	DefaultMaxControl = 1024
)

// Control marks a message that overtakes the ordinary ones of its mailbox:
// ring changes, gossip, a cancellation. Control messages keep their order
// among themselves, are never part of a [Batch], and have a bound of their
// own, so that a full queue cannot keep out the message that would empty it.
type Control interface{ RuntimeControl() }

// Expirer is implemented by messages that know when they are worth nothing any
// more. The mailbox asks when it takes the message out of its queue.
type Expirer interface {
	// Expired reports whether the message is of no use at now.
	Expired(now time.Time) bool
}

// MailboxOptions are what a mailbox must know about its actor and messages.
// The zero value is usable: default bounds, nobody told of what is refused.
type MailboxOptions struct {
	// MaxMessages bounds the ordinary messages waiting; 0 is DefaultMaxMessages.
	MaxMessages int
	// MaxBytes bounds their weight as told by Size; 0 is DefaultMaxBytes. One
	// message above the bound is still taken when the queue is empty, or it
	// could never be handled at all.
	MaxBytes int
	// MaxControl bounds the control messages waiting; 0 is DefaultMaxControl.
	MaxControl int
	// Size tells a message's weight in bytes; nil weighs everything 0. It runs
	// on the sender's goroutine.
	Size func(message any) int
	// TTL tells for how long a message may wait in this mailbox, counted from
	// its arrival; 0 is for ever, nil is for ever for all. It is for messages
	// that carry a remaining time (what comes off the wire), as Expirer is for
	// those that carry an instant.
	TTL func(message any) time.Duration
	// Shed is told of each message that will not be handled because the
	// mailbox was full or the actor had stopped, so that it can answer. It
	// runs on the sender's goroutine (full) or the actor's (stopped), holds no
	// lock of the mailbox, and must neither block nor panic. sender is nil if
	// the message had none. Nil: such messages are only counted.
	Shed func(sender *actor.PID, message any)
	// Expired is told of each message dropped because its time was over, on
	// the actor's goroutine. Nil: they are only counted.
	Expired func(sender *actor.PID, message any)
	// Failed is told of each message that was in the handler when it panicked
	// (all of the batch in batch mode, some of which may have been answered
	// already), after the failure went to the supervisor. Nil: their senders
	// learn by their deadline.
	Failed func(sender *actor.PID, message any)
	// Batch > 0 hands the actor a *Batch of up to so many ordinary messages
	// instead of one at a time, as many as are waiting.
	Batch int
	// Registry lists the mailbox while its actor lives; nil lists it nowhere.
	Registry *Registry
	// After is how the actor was that this one takes the place of because it was killed: the
	// restarts, which include this one, and the failure are taken over. nil: there was none.
	After *Stats
	// Brief: the actor lives for one request and is never restarted. To be listed costs it
	// no lock and no memory; when too many live at once, it is not.
	Brief bool
}

func (o MailboxOptions) withDefaults() MailboxOptions {
	if o.MaxMessages <= 0 {
		o.MaxMessages = DefaultMaxMessages
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxControl <= 0 {
		o.MaxControl = DefaultMaxControl
	}
	return o
}

// Envelope is one message of a batch.
type Envelope struct {
	Message any
	// Sender is whom to answer; nil if nobody.
	Sender *actor.PID
	// Until is when the time that TTL gave the message is over; zero is never.
	Until time.Time
}

// Expired reports whether the message is of no use at now. The mailbox hands
// over none that is; who keeps one asks again.
func (e Envelope) Expired(now time.Time) bool {
	if !e.Until.IsZero() && now.After(e.Until) {
		return true
	}
	x, ok := e.Message.(Expirer)
	return ok && x.Expired(now)
}

// Batch is what a mailbox in batch mode hands to its actor: everything that
// was waiting, oldest first, at least one. The batch and its slice are reused
// for the next one: they are valid during the Receive that got them, and
// whoever wants to keep an envelope copies it.
type Batch struct {
	Envelopes []Envelope
}

package link

import (
	"fmt"
	"time"
)

// State is where a lane stands.
type State uint8

// States of a lane.
const (
	// Idle: no connection and nothing to dial; the peer may call.
	Idle State = iota
	// Dialing: connecting (TCP, TLS); nothing has been said.
	Dialing
	// Greeting: our hello is out, the answer is not there.
	Greeting
	// Up: a connection carries messages.
	Up
	// Backoff: the last attempt failed; the next one has its time.
	Backoff
	// Closed: the peer is removed or the node stops; the last state.
	Closed
)

var stateNames = [...]string{"idle", "dialing", "greeting", "up", "backoff", "closed"}

// String is the state's name in the console.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// mark is a point in what an end has said: its start, then its sequence.
type mark struct{ start, sequence uint64 }

func (m mark) newer(than mark) bool {
	if m.start != than.start {
		return m.start > than.start
	}
	return m.sequence > than.sequence
}

type eventKind uint8

const (
	// evDialable: there is an address to dial; dial now, also out of a pause.
	evDialable eventKind = iota
	// evUndialable: there is none any more; what is up stays up.
	evUndialable
	evDialed
	evDialFailed
	evGreeted
	evGreetFailed
	// evInbound: the peer has called and its hello is acceptable.
	evInbound
	// evBroken: the connection of that number ended.
	evBroken
	// evTimer: the pause of that attempt is over.
	evTimer
	evClose
)

// event is what happened to a lane. Answers of the outside carry the attempt
// or the connection they belong to; those of former ones are ignored.
type event struct {
	kind    eventKind
	attempt uint64
	conn    uint64
	// theirs is what the peer said: evGreeted, evInbound.
	theirs mark
	// smaller: the peer's id is smaller than ours (evInbound).
	smaller bool
	// client: the peer is a client, whose start numbers have no order.
	client bool
	// stable: the connection had lasted, so the next pause is a short one.
	stable bool
}

type effectKind uint8

const (
	// fxDial: begin attempt.
	fxDial effectKind = iota
	// fxGreet: say hello with sequence on the connection just dialled.
	fxGreet
	// fxAbandon: give up attempt, in whatever phase it is.
	fxAbandon
	// fxAdopt: the connection just greeted is conn.
	fxAdopt
	// fxAccept: welcome the caller with sequence; its connection is conn.
	fxAccept
	// fxRefuse: refuse the caller with code.
	fxRefuse
	// fxDrop: connection conn is over; why tells the reason.
	fxDrop
	// fxPause: send evTimer of attempt after the back-off for failures.
	fxPause
	// fxDiscard: the connection that came with the event is of no use.
	fxDiscard
)

type effect struct {
	kind     effectKind
	attempt  uint64
	conn     uint64
	sequence uint64
	failures int
	code     RefusalCode
	replaced bool // fxDrop: by a newer connection
}

// machine is the state of one lane. It decides, and its actor acts: nothing in
// it waits, reads a clock or knows a connection. doc.go has the rules for both
// ends dialling at once.
type machine struct {
	state    State
	dialable bool
	attempt  uint64 // of the dial that goes on, or the last one
	sequence uint64 // of the last hello or welcome of ours
	conn     uint64 // number of the connection, or the last one
	theirs   mark   // what the peer said on that connection
	failures int    // attempts and short connections in a row
}

// step takes an event to effects, which are carried out in order.
func (m *machine) step(ev event) []effect {
	switch ev.kind {
	case evDialable:
		m.dialable = true
		if m.state == Idle || m.state == Backoff {
			return m.dial()
		}
	case evUndialable:
		return m.undialable()
	case evDialed, evDialFailed, evGreeted, evGreetFailed:
		return m.answered(ev)
	case evInbound:
		return m.inbound(ev)
	case evBroken:
		if m.state == Up && ev.conn == m.conn {
			return m.broken(ev)
		}
	case evTimer:
		if m.state == Backoff && ev.attempt == m.attempt {
			return m.dial()
		}
	case evClose:
		return m.close()
	}
	return nil
}

func (m *machine) dial() []effect {
	m.state = Dialing
	m.attempt++
	return []effect{{kind: fxDial, attempt: m.attempt}}
}

// pause goes to Backoff, or to Idle when there is nothing to dial.
func (m *machine) pause() []effect {
	if !m.dialable {
		m.state = Idle
		return nil
	}
	m.state = Backoff
	return []effect{{kind: fxPause, attempt: m.attempt, failures: m.failures}}
}

func (m *machine) undialable() []effect {
	m.dialable = false
	switch m.state {
	case Dialing, Greeting:
		m.state = Idle
		return []effect{{kind: fxAbandon, attempt: m.attempt}}
	case Backoff:
		m.state = Idle
	}
	return nil
}

// answered takes what became of the dial that goes on.
func (m *machine) answered(ev event) []effect {
	dialling := ev.kind == evDialed || ev.kind == evDialFailed
	if ev.attempt != m.attempt || m.state != Dialing && m.state != Greeting || dialling != (m.state == Dialing) {
		if ev.kind == evDialed || ev.kind == evGreeted {
			return []effect{{kind: fxDiscard}}
		}
		return nil
	}
	switch ev.kind {
	case evDialed:
		m.state = Greeting
		m.sequence++
		return []effect{{kind: fxGreet, attempt: m.attempt, sequence: m.sequence}}
	case evGreeted:
		m.up(ev)
		return []effect{{kind: fxAdopt, conn: m.conn}}
	}
	m.failures++
	return m.pause()
}

func (m *machine) up(ev event) {
	m.state = Up
	m.conn++
	m.theirs = ev.theirs
}

func (m *machine) inbound(ev event) []effect {
	var before []effect
	switch m.state {
	case Closed:
		return []effect{{kind: fxRefuse, code: RefusedStopping}}
	case Dialing:
		before = []effect{{kind: fxAbandon, attempt: m.attempt}}
	case Greeting:
		if !ev.smaller {
			return []effect{{kind: fxRefuse, code: RefusedSuperseded}}
		}
		before = []effect{{kind: fxAbandon, attempt: m.attempt}}
	case Up:
		if ev.client && ev.theirs.start != m.theirs.start {
			return []effect{{kind: fxRefuse, code: RefusedDuplicate}}
		}
		if !ev.theirs.newer(m.theirs) {
			return []effect{{kind: fxRefuse, code: RefusedStale}}
		}
		before = []effect{{kind: fxDrop, conn: m.conn, replaced: true}}
	}
	m.up(ev)
	m.sequence++
	return append(before, effect{kind: fxAccept, conn: m.conn, sequence: m.sequence})
}

func (m *machine) broken(ev event) []effect {
	m.failures++
	if ev.stable {
		m.failures = 0
	}
	return append([]effect{{kind: fxDrop, conn: m.conn}}, m.pause()...)
}

func (m *machine) close() []effect {
	was := m.state
	m.state = Closed
	m.dialable = false
	switch was {
	case Dialing, Greeting:
		return []effect{{kind: fxAbandon, attempt: m.attempt}}
	case Up:
		return []effect{{kind: fxDrop, conn: m.conn}}
	}
	return nil
}

// backoff is the pause before the next attempt: doubling from shortest to
// longest, and jittered down by up to a half (random is in [0, 1)) so that
// nodes that lost each other at once do not all come back at once.
func backoff(shortest, longest time.Duration, failures int, random float64) time.Duration {
	d := longest
	if shift := max(failures-1, 0); shift < 30 && shortest<<shift < longest {
		d = shortest << shift
	}
	return d - time.Duration(random*float64(d)/2)
}

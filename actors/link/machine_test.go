package link

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// in brings a machine into a state by the events that lead there.
func in(s State) *machine {
	m := &machine{}
	path := map[State][]event{
		Idle:     nil,
		Dialing:  {{kind: evDialable}},
		Greeting: {{kind: evDialable}, {kind: evDialed, attempt: 1}},
		Up:       {{kind: evDialable}, {kind: evDialed, attempt: 1}, {kind: evGreeted, attempt: 1, theirs: mark{5, 10}}},
		Backoff:  {{kind: evDialable}, {kind: evDialFailed, attempt: 1}},
		Closed:   {{kind: evClose}},
	}
	for _, ev := range path[s] {
		m.step(ev)
	}
	if m.state != s {
		panic(fmt.Sprintf("%v, want %v", m.state, s))
	}
	return m
}

func kinds(fx []effect) []effectKind {
	var k []effectKind
	for _, f := range fx {
		k = append(k, f.kind)
	}
	return k
}

func TestMachine(t *testing.T) {
	newer, older := mark{5, 11}, mark{5, 9}
	for _, c := range []struct {
		name string
		from State
		ev   event
		to   State
		want []effectKind
	}{
		{"an address to dial", Idle, event{kind: evDialable}, Dialing, []effectKind{fxDial}},
		{"connected", Dialing, event{kind: evDialed, attempt: 1}, Greeting, []effectKind{fxGreet}},
		{"no connection", Dialing, event{kind: evDialFailed, attempt: 1}, Backoff, []effectKind{fxPause}},
		{"welcome", Greeting, event{kind: evGreeted, attempt: 1}, Up, []effectKind{fxAdopt}},
		{"refused", Greeting, event{kind: evGreetFailed, attempt: 1}, Backoff, []effectKind{fxPause}},
		{"pause over", Backoff, event{kind: evTimer, attempt: 1}, Dialing, []effectKind{fxDial}},
		{"address during the pause", Backoff, event{kind: evDialable}, Dialing, []effectKind{fxDial}},
		{"broken", Up, event{kind: evBroken, conn: 1}, Backoff, []effectKind{fxDrop, fxPause}},
		{"address while dialling", Dialing, event{kind: evDialable}, Dialing, nil},
		{"address while up", Up, event{kind: evDialable}, Up, nil},

		{"called while idle", Idle, event{kind: evInbound}, Up, []effectKind{fxAccept}},
		{"called while dialling", Dialing, event{kind: evInbound}, Up, []effectKind{fxAbandon, fxAccept}},
		{"called by a smaller one while greeting", Greeting, event{kind: evInbound, smaller: true}, Up, []effectKind{fxAbandon, fxAccept}},
		{"called by a larger one while greeting", Greeting, event{kind: evInbound}, Greeting, []effectKind{fxRefuse}},
		{"called during the pause", Backoff, event{kind: evInbound}, Up, []effectKind{fxAccept}},
		{"called again", Up, event{kind: evInbound, theirs: newer}, Up, []effectKind{fxDrop, fxAccept}},
		{"a call from before", Up, event{kind: evInbound, theirs: older}, Up, []effectKind{fxRefuse}},
		{"called after a restart", Up, event{kind: evInbound, theirs: mark{6, 1}}, Up, []effectKind{fxDrop, fxAccept}},
		{"a client called again", Up, event{kind: evInbound, theirs: newer, client: true}, Up, []effectKind{fxDrop, fxAccept}},
		{"another client with the id", Up, event{kind: evInbound, theirs: mark{6, 1}, client: true}, Up, []effectKind{fxRefuse}},
		{"called when closed", Closed, event{kind: evInbound}, Closed, []effectKind{fxRefuse}},

		{"address gone while idle", Idle, event{kind: evUndialable}, Idle, nil},
		{"address gone while dialling", Dialing, event{kind: evUndialable}, Idle, []effectKind{fxAbandon}},
		{"address gone while greeting", Greeting, event{kind: evUndialable}, Idle, []effectKind{fxAbandon}},
		{"address gone during the pause", Backoff, event{kind: evUndialable}, Idle, nil},
		{"address gone while up", Up, event{kind: evUndialable}, Up, nil},

		{"late: another attempt's connection", Dialing, event{kind: evDialed, attempt: 9}, Dialing, []effectKind{fxDiscard}},
		{"late: another attempt's failure", Dialing, event{kind: evDialFailed, attempt: 9}, Dialing, nil},
		{"late: a connection nobody waits for", Up, event{kind: evDialed, attempt: 1}, Up, []effectKind{fxDiscard}},
		{"late: a welcome nobody waits for", Backoff, event{kind: evGreeted, attempt: 1}, Backoff, []effectKind{fxDiscard}},
		{"late: another connection broke", Up, event{kind: evBroken, conn: 9}, Up, nil},
		{"late: another pause", Backoff, event{kind: evTimer, attempt: 9}, Backoff, nil},
		{"late: pause over while up", Up, event{kind: evTimer, attempt: 1}, Up, nil},
		{"late: address when closed", Closed, event{kind: evDialable}, Closed, nil},

		{"close while dialling", Dialing, event{kind: evClose}, Closed, []effectKind{fxAbandon}},
		{"close while greeting", Greeting, event{kind: evClose}, Closed, []effectKind{fxAbandon}},
		{"close while up", Up, event{kind: evClose}, Closed, []effectKind{fxDrop}},
		{"close during the pause", Backoff, event{kind: evClose}, Closed, nil},
	} {
		m := in(c.from)
		got := kinds(m.step(c.ev))
		if m.state != c.to || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v → %v %v, want %v %v", c.name, c.from, m.state, got, c.to, c.want)
		}
	}
}

func TestMachineBrokenWithoutAddressIsIdle(t *testing.T) {
	m := &machine{}
	m.step(event{kind: evInbound})
	if fx := m.step(event{kind: evBroken, conn: 1}); m.state != Idle || !slices.Equal(kinds(fx), []effectKind{fxDrop}) {
		t.Errorf("%v %v", m.state, fx)
	}
}

func TestBackoff(t *testing.T) {
	const shortest, longest = 50 * time.Millisecond, 2 * time.Second
	for failures, want := range map[int]time.Duration{
		0: shortest, 1: shortest, 2: 2 * shortest, 4: 8 * shortest, 7: longest, 1000: longest,
	} {
		if d := backoff(shortest, longest, failures, 0); d != want {
			t.Errorf("after %d failures %v, want %v", failures, d, want)
		}
		if d := backoff(shortest, longest, failures, 0.999); d < want/2 || d > want {
			t.Errorf("jittered after %d failures: %v of %v", failures, d, want)
		}
	}
}

func TestMachineCountsFailures(t *testing.T) {
	m := in(Dialing)
	for i := 1; i < 5; i++ {
		fx := m.step(event{kind: evDialFailed, attempt: m.attempt})
		if fx[0].failures != i {
			t.Errorf("attempt %d pauses for %d failures", i, fx[0].failures)
		}
		m.step(event{kind: evTimer, attempt: m.attempt})
	}
	m.step(event{kind: evInbound})
	if fx := m.step(event{kind: evBroken, conn: m.conn, stable: true}); fx[1].failures != 0 {
		t.Errorf("a connection that lasted is followed by the pause for %d failures", fx[1].failures)
	}
}

// Two machines over a network that delivers what happened in any order, as far
// as one connection keeps its own: whatever breaks, both end up on the same
// connection, and nothing but a fault takes that down again.
func TestTwoEndsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newPair(t)
		faults := rapid.IntRange(0, 6).Draw(t, "faults")
		for step := 0; ; step++ {
			if step > 2000 {
				t.Fatalf("no end after %d steps: %v and %v", step, w.ends[0].m, w.ends[1].m)
			}
			todo := w.possible()
			if faults > 0 && rapid.IntRange(0, 9).Draw(t, "fault") == 0 {
				faults--
				w.breakOne(t)
				continue
			}
			if len(todo) == 0 {
				if faults == 0 {
					break
				}
				faults--
				w.breakOne(t)
				continue
			}
			todo[rapid.IntRange(0, len(todo)-1).Draw(t, "next")]()
		}
		a, b := w.ends[0], w.ends[1]
		if a.m.state != Up || b.m.state != Up || a.up != b.up || a.up == nil || a.up.closed {
			t.Fatalf("ended as %v on %p and %v on %p", a.m.state, a.up, b.m.state, b.up)
		}
	})
}

// Without faults two simultaneous attempts are decided in one round: there are
// at most the two connections of these attempts, and what comes up stays up.
// (A pause is longer than a message's flight here.)
func TestTwoEndsDecideInOneRound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newPair(t)
		for {
			todo := w.flights()
			if len(todo) == 0 {
				todo = w.timers()
			}
			if len(todo) == 0 {
				break
			}
			todo[rapid.IntRange(0, len(todo)-1).Draw(t, "next")]()
			if len(w.conns) > 2 || w.drops > 0 {
				t.Fatalf("%d connections, %d given up", len(w.conns), w.drops)
			}
		}
		a, b := w.ends[0], w.ends[1]
		if a.m.state != Up || b.m.state != Up || a.up != b.up {
			t.Fatalf("ended as %v and %v", a.m.state, b.m.state)
		}
	})
}

// pair is the world of these tests.
type pair struct {
	t     *rapid.T
	ends  [2]*simEnd
	conns []*simConn
	drops int
}

type simEnd struct {
	index   int
	m       machine
	up      *simConn
	current *simConn // of the attempt that goes on
	timer   func()
	dialing func()
}

// simConn is a connection; each direction is a queue of what has been said.
type simConn struct {
	dialler int
	to      [2][]func() // what is on its way to an end
	closed  bool
	settled bool // both ends were up on it
	attempt uint64
}

func newPair(t *rapid.T) *pair {
	w := &pair{t: t}
	for i := range w.ends {
		w.ends[i] = &simEnd{index: i}
	}
	for _, e := range w.ends {
		w.step(e, event{kind: evDialable}, nil)
	}
	return w
}

// possible lists what may happen next.
func (w *pair) possible() []func() { return append(w.timers(), w.flights()...) }

func (w *pair) timers() []func() {
	var todo []func()
	for _, e := range w.ends {
		if e.timer != nil {
			todo = append(todo, func() { f := e.timer; e.timer = nil; f() })
		}
	}
	return todo
}

// flights are dials and messages on their way.
func (w *pair) flights() []func() {
	var todo []func()
	for _, e := range w.ends {
		if e.dialing != nil {
			todo = append(todo, func() { f := e.dialing; e.dialing = nil; f() })
		}
	}
	for _, c := range w.conns {
		for i := range c.to {
			if len(c.to[i]) > 0 {
				todo = append(todo, func() { f := c.to[i][0]; c.to[i] = c.to[i][1:]; f() })
			}
		}
	}
	return todo
}

// breakOne cuts a connection; both ends learn of it in their own time.
func (w *pair) breakOne(t *rapid.T) {
	if len(w.conns) == 0 {
		return
	}
	c := w.conns[rapid.IntRange(0, len(w.conns)-1).Draw(t, "broken")]
	c.settled = false
	w.close(c, -1)
}

// close ends a connection; by is the end that did it, which knows.
func (w *pair) close(c *simConn, by int) {
	if c.closed {
		return
	}
	c.closed = true
	for i := range c.to {
		if i != by {
			c.to[i] = append(c.to[i], func() { w.ended(c, i) })
		}
	}
}

// ended is what an end makes of a closed connection.
func (w *pair) ended(c *simConn, i int) {
	e := w.ends[i]
	if e.up == c {
		w.step(e, event{kind: evBroken, conn: e.m.conn}, nil)
		return
	}
	if c.dialler == i {
		w.step(e, event{kind: evGreetFailed, attempt: c.attempt}, nil)
	}
}

func (w *pair) step(e *simEnd, ev event, c *simConn) {
	other := w.ends[1-e.index]
	for _, fx := range e.m.step(ev) {
		switch fx.kind {
		case fxDial:
			e.dialing = func() {
				w.step(e, event{kind: evDialed, attempt: fx.attempt}, &simConn{dialler: e.index, attempt: fx.attempt})
			}
		case fxGreet:
			e.current = c
			w.conns = append(w.conns, c)
			theirs := mark{1, fx.sequence}
			c.to[other.index] = append(c.to[other.index], func() {
				w.step(other, event{kind: evInbound, theirs: theirs, smaller: e.index < other.index}, c)
			})
		case fxAbandon:
			e.dialing = nil
			if e.current != nil && e.current.attempt == fx.attempt {
				w.close(e.current, e.index)
			}
		case fxAdopt:
			w.adopt(e, c)
		case fxAccept:
			theirs := mark{1, fx.sequence}
			w.adopt(e, c)
			c.to[other.index] = append(c.to[other.index], func() {
				w.step(other, event{kind: evGreeted, attempt: c.attempt, theirs: theirs}, c)
			})
		case fxRefuse, fxDiscard:
			w.close(c, e.index)
		case fxDrop:
			w.drops++
			if e.up.settled {
				w.t.Fatalf("end %d gave up a connection that both had and nothing broke", e.index)
			}
			w.close(e.up, e.index)
			e.up = nil
		case fxPause:
			e.timer = func() { w.step(e, event{kind: evTimer, attempt: fx.attempt}, nil) }
		}
	}
}

func (w *pair) adopt(e *simEnd, c *simConn) {
	e.up = c
	if w.ends[0].up == w.ends[1].up && !c.closed {
		c.settled = true
	}
}

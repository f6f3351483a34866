package rt

import (
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// wheelSlots is the number of slots, a power of two. A timer further away than
// one turn stays in its slot and is looked at once a turn.
const wheelSlots = 1024

// Wheel runs all timers of a node on one goroutine. Arming and cancelling is a
// lock and a list operation, far cheaper than a runtime timer with its own
// goroutine each; the price is that a timer is late by up to one tick. It is
// never early. An idle wheel does not tick.
//
// An actor arms a timer with a message to itself that carries what the timer
// was for (request id, generation), because a message that is already on its
// way cannot be cancelled.
type Wheel struct {
	system *actor.ActorSystem
	tick   time.Duration
	base   time.Time
	wake   chan struct{}
	quit   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	slots   [wheelSlots]Timer // list heads
	current int64             // last tick whose timers have fired
	armed   int
	stopped bool
}

// Timer is one armed timer; it is used once.
type Timer struct {
	next, prev *Timer
	wheel      *Wheel
	at         int64 // tick
	pid        *actor.PID
	message    any
	run        func()
}

// NewWheel starts a wheel that sends into the given system. tick is its
// resolution; 0 is 10 ms. Stop it before the system shuts down.
func NewWheel(system *actor.ActorSystem, tick time.Duration) *Wheel {
	if tick <= 0 {
		tick = 10 * time.Millisecond
	}
	w := &Wheel{
		system: system, tick: tick, base: time.Now(),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	for i := range w.slots {
		head := &w.slots[i]
		head.next, head.prev = head, head
	}
	go w.loop()
	return w
}

// Send sends message to pid, without a sender, once d has passed. The timer
// it returns can be stopped.
func (w *Wheel) Send(pid *actor.PID, message any, d time.Duration) *Timer {
	return w.arm(&Timer{wheel: w, pid: pid, message: message}, d)
}

// After calls run on the wheel's goroutine once d has passed. All timers wait
// for run to return: it must be short.
func (w *Wheel) After(d time.Duration, run func()) *Timer {
	return w.arm(&Timer{wheel: w, run: run}, d)
}

func (w *Wheel) arm(t *Timer, d time.Duration) *Timer {
	due := time.Since(w.base) + max(d, 0)
	// Rounding up, so that the tick's instant is not before the timer's.
	t.at = int64((due + w.tick - 1) / w.tick)
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return t
	}
	if w.armed == 0 {
		// The wheel stood still: nothing is left to fire before this tick.
		w.current = max(w.current, int64(time.Since(w.base)/w.tick)-1)
	}
	t.at = max(t.at, w.current+1)
	head := &w.slots[t.at&(wheelSlots-1)]
	t.prev, t.next = head.prev, head
	head.prev.next, head.prev = t, t
	w.armed++
	first := w.armed == 1
	w.mu.Unlock()
	if first {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return t
}

// Stop cancels the timer. It reports false if the timer has fired, is firing
// right now, or was stopped before: then its message may still arrive.
func (t *Timer) Stop() bool {
	if t == nil {
		return false
	}
	w := t.wheel
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.next == nil {
		return false
	}
	w.unlink(t)
	return true
}

// unlink takes a timer off its slot; the lock is held.
func (w *Wheel) unlink(t *Timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	w.armed--
}

// Armed is the number of timers waiting.
func (w *Wheel) Armed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.armed
}

// Stop ends the wheel's goroutine and forgets every timer. Timers armed later
// never fire. It must not be called from a timer's function.
func (w *Wheel) Stop() {
	w.mu.Lock()
	if !w.stopped {
		w.stopped = true
		close(w.quit)
		for i := range w.slots {
			for head := &w.slots[i]; head.next != head; {
				w.unlink(head.next)
			}
		}
	}
	w.mu.Unlock()
	<-w.done
}

func (w *Wheel) loop() {
	defer close(w.done)
	timer := time.NewTimer(w.tick)
	defer timer.Stop()
	var due []*Timer
	for {
		var armed bool
		due, armed = w.collect(due[:0])
		for i, t := range due {
			w.fire(t)
			due[i] = nil
		}
		var tick <-chan time.Time
		if armed {
			timer.Reset(w.untilNext())
			tick = timer.C
		}
		select {
		case <-tick:
		case <-w.wake:
		case <-w.quit:
			return
		}
	}
}

// untilNext is the time to the next tick's instant.
func (w *Wheel) untilNext() time.Duration {
	return w.tick - time.Since(w.base)%w.tick
}

// collect takes the timers that are due, oldest tick first, and reports
// whether others remain.
func (w *Wheel) collect(due []*Timer) ([]*Timer, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.armed == 0 {
		return due, false
	}
	now := int64(time.Since(w.base) / w.tick)
	first := w.current + 1
	if now-first >= wheelSlots {
		// More than a turn behind (the process was stopped): each slot once.
		first = now - wheelSlots + 1
	}
	for tick := first; tick <= now; tick++ {
		head := &w.slots[tick&(wheelSlots-1)]
		for t := head.next; t != head; {
			next := t.next
			if t.at <= now {
				w.unlink(t)
				due = append(due, t)
			}
			t = next
		}
	}
	w.current = max(w.current, now)
	return due, w.armed > 0
}

func (w *Wheel) fire(t *Timer) {
	select {
	case <-w.quit:
		return
	default:
	}
	if t.run != nil {
		t.run()
		return
	}
	w.system.Root.Send(t.pid, t.message)
}

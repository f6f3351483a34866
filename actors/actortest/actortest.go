// Package actortest is what tests of actors need: a quiet actor system, probes
// that record what is sent to them, and other nodes that are functions of the
// test.
//
// Nothing here waits for time: a test waits for a message or for a condition,
// and fails when it does not come within Patience.
package actortest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
)

// Patience is how long a test waits for what must happen.
const Patience = 20 * time.Second

// System makes an actor system that logs nothing and ends with the test.
func System(t testing.TB, node string) *actor.ActorSystem {
	t.Helper()
	system := rt.NewSystem(node, nil)
	t.Cleanup(system.Shutdown)
	return system
}

// Eventually waits until a condition holds.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// Received is one message as it arrived.
type Received struct {
	// Target is whom it was sent to, Sender whom to answer; nil if nobody.
	Target, Sender *actor.PID
	Message        any
}

// Probe stands for an actor: it records all that is sent to its PID, in the
// sender's goroutine, so what was sent is there when the send returns.
type Probe struct {
	// PID is the probe's address.
	PID *actor.PID

	system *actor.ActorSystem
	mu     sync.Mutex
	got    []Received
	// taken marks what Next has returned.
	taken   []bool
	changed chan struct{}
}

var probes atomic.Uint64

// NewProbe registers a probe under a name of its own.
func NewProbe(system *actor.ActorSystem) *Probe {
	p := &Probe{system: system, changed: make(chan struct{})}
	p.PID, _ = system.ProcessRegistry.Add(p, fmt.Sprintf("probe/%d", probes.Add(1)))
	return p
}

// Ask sends a message with the probe as the one to answer.
func (p *Probe) Ask(target *actor.PID, message any) {
	p.system.Root.RequestWithCustomSender(target, message, p.PID)
}

// SendUserMessage implements actor.Process.
func (p *Probe) SendUserMessage(pid *actor.PID, posted any) {
	_, message, sender := actor.UnwrapEnvelope(posted)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, Received{Target: pid, Sender: sender, Message: message})
	p.taken = append(p.taken, false)
	close(p.changed)
	p.changed = make(chan struct{})
}

// SendSystemMessage implements actor.Process; there is nothing to do.
func (p *Probe) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process; there is nothing to do.
func (p *Probe) Stop(*actor.PID) {}

// All returns what came so far, what Next has returned included.
func (p *Probe) All() []Received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Received(nil), p.got...)
}

// take returns the oldest message that fits and was not returned before.
func (p *Probe) take(fits func(any) bool) (Received, bool, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.got {
		if !p.taken[i] && fits(r.Message) {
			p.taken[i] = true
			return r, true, nil
		}
	}
	return Received{}, false, p.changed
}

// Next waits for a message of type M and returns the oldest one that it did not
// return before; others stay.
func Next[M any](t testing.TB, p *Probe) M {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		r, ok, changed := p.take(func(m any) bool { _, ok := m.(M); return ok })
		if ok {
			return r.Message.(M)
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("no %T came; there were %v", *new(M), kinds(p.All()))
		}
	}
}

// Count is how many messages of type M came so far.
func Count[M any](p *Probe) int {
	n := 0
	for _, r := range p.All() {
		if _, ok := r.Message.(M); ok {
			n++
		}
	}
	return n
}

func kinds(all []Received) []string {
	out := make([]string, len(all))
	for i, r := range all {
		out[i] = fmt.Sprintf("%T %v", r.Message, r.Message)
	}
	return out
}

package link

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// prospect is an address of which we want to know who is there. It asks with a
// probe, a hello that makes no link, so that the link itself is made by the
// peer's own actor under the peer's own name, with the rules for that.
type prospect struct {
	links    *Links
	address  string
	id       atomic.Pointer[string]
	snapshot atomic.Pointer[snapshot]
}

func (p *prospect) known() string {
	if id := p.id.Load(); id != nil {
		return *id
	}
	return ""
}

func (p *prospect) forget() { p.id.Store(nil) }

// Names of asking actors cannot be node ids.
const prospectPrefix = "@"

func prospectName(address string) string { return prospectPrefix + address }

func prospectAddress(name string) (string, bool) { return strings.CutPrefix(name, prospectPrefix) }

type (
	probed struct {
		attempt int
		hello   Hello
		err     error
	}
	askNow struct{ attempt int }
)

// asker is the actor of one prospect.
type asker struct {
	prospect *prospect
	attempt  int
	failures int
	asking   bool
	cancel   context.CancelFunc
	timer    *time.Timer
	work     sync.WaitGroup
}

// Receive implements actor.Actor.
func (a *asker) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		if a.prospect.known() == "" {
			a.ask(ctx.Self())
		}
	case *askAgain:
		if !a.asking {
			a.ask(ctx.Self())
		}
	case *askNow:
		if m.attempt == a.attempt {
			a.ask(ctx.Self())
		}
	case *probed:
		if m.attempt == a.attempt {
			a.answered(ctx.Self(), m)
		}
	case *actor.Stopping, *actor.Restarting:
		a.end()
	}
}

func (a *asker) ask(self *actor.PID) {
	a.end()
	a.attempt++
	a.asking = true
	a.publish(Dialing, nil)
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	l, attempt := a.prospect.links, a.attempt
	a.work.Go(func() {
		hello, err := l.probe(ctx, a.prospect.address)
		l.system.Root.Send(self, &probed{attempt: attempt, hello: hello, err: err})
	})
}

// probe asks who is at the address.
func (l *Links) probe(ctx context.Context, address string) (Hello, error) {
	w, err := l.dial(ctx, address)
	if err != nil {
		return Hello{}, err
	}
	defer l.closeWire(w)
	own := l.own(laneProbe, 0, "")
	return l.greet(ctx, w, &own)
}

func (a *asker) answered(self *actor.PID, m *probed) {
	a.asking = false
	l := a.prospect.links
	if m.err == nil {
		a.failures = 0
		id := m.hello.NodeID
		a.prospect.id.Store(&id)
		a.publish(Idle, nil)
		l.found(a.prospect, id)
		return
	}
	var r *Refusal
	if errors.As(m.err, &r) {
		l.refused(r)
	}
	a.failures++
	a.publish(Backoff, m.err)
	pause := backoff(l.config.BackoffMin, l.config.BackoffMax, a.failures, rand.Float64())
	if r != nil && r.Code == RefusedSelf {
		// A list of seeds may name the node itself. Its address could move.
		pause = 10 * l.config.BackoffMax
	}
	attempt := a.attempt
	a.timer = time.AfterFunc(pause, func() { l.system.Root.Send(self, &askNow{attempt: attempt}) })
}

func (a *asker) publish(state State, err error) {
	s := &snapshot{address: a.prospect.address, since: time.Now()}
	s.states[LaneRequest] = state
	if err != nil {
		s.lastError = err.Error()
	} else if old := a.prospect.snapshot.Load(); old != nil {
		s.lastError = old.lastError
	}
	a.prospect.snapshot.Store(s)
}

func (a *asker) end() {
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.cancel != nil {
		a.cancel()
	}
	a.work.Wait()
}

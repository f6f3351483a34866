package rt

import (
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Panic is the last failure of an actor.
type Panic struct {
	// Reason is the value the actor panicked with.
	Reason any
	// Stack is the goroutine's stack at that moment.
	Stack string
	// Message is the type of what was being handled; nil if nothing was.
	Message reflect.Type
	At      time.Time
}

// Stats is one actor as seen from outside, without its cooperation: a stuck
// actor shows up in them and does not delay them.
type Stats struct {
	// ID and Parent are the PIDs' ids; Parent is empty under the root.
	ID, Parent string
	// Type is the Go type of the actor.
	Type string
	// Queued and Control are the messages waiting, Bytes the weight of Queued.
	Queued, Control, Bytes int
	// Processed, Shed and Expired count messages since the actor was spawned.
	Processed, Shed, Expired uint64
	// Restarts counts what the supervisor ordered.
	Restarts uint64
	// LastPanic is nil if the actor never panicked.
	LastPanic *Panic
	// OldestAge is for how long the oldest waiting message has waited. It may
	// be too high by the time that message came after the one its buffer
	// began with, and is never too low.
	OldestAge time.Duration
	// InHandler is for how long the current handler runs; 0 if none does.
	InHandler time.Duration
	// Suspended: the actor failed and its supervisor has not decided yet.
	Suspended bool
}

// Registry lists the mailboxes of live actors. A nil registry lists nothing.
type Registry struct {
	mu    sync.Mutex
	boxes map[*mailbox]listed
}

type listed struct {
	self, parent string
	kind         reflect.Type
}

// NewRegistry makes an empty registry; one per actor system.
func NewRegistry() *Registry {
	return &Registry{boxes: make(map[*mailbox]listed)}
}

func (r *Registry) add(self selfInvoker, m *mailbox) {
	if r == nil {
		return
	}
	l := listed{self: self.Self().GetId(), parent: self.Parent().GetId(), kind: reflect.TypeOf(self.Actor())}
	r.mu.Lock()
	r.boxes[m] = l
	r.mu.Unlock()
}

func (r *Registry) remove(m *mailbox) {
	if r == nil {
		return
	}
	r.mu.Lock()
	delete(r.boxes, m)
	r.mu.Unlock()
}

// Len is the number of live actors listed.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.boxes)
}

// List returns the actors ordered by id. limit > 0 bounds how many; the rest
// is left out.
func (r *Registry) List(limit int) []Stats {
	r.mu.Lock()
	all := make([]Stats, 0, len(r.boxes))
	for m, l := range r.boxes {
		all = append(all, m.stats(l))
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b Stats) int { return strings.Compare(a.ID, b.ID) })
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

// Find returns one actor by the id of its PID.
func (r *Registry) Find(id string) (Stats, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m, l := range r.boxes {
		if l.self == id {
			return m.stats(l), true
		}
	}
	return Stats{}, false
}

func (m *mailbox) stats(l listed) Stats {
	now := m.now()
	s := Stats{
		ID: l.self, Parent: l.parent,
		Queued: int(m.queued.Load()), Control: int(m.controls.Load()), Bytes: int(m.bytes.Load()),
		Processed: m.processed.Load(), Shed: m.shed.Load(), Expired: m.expired.Load(),
		Restarts: m.restarts.Load(), LastPanic: m.lastPanic.Load(),
		Suspended: m.suspended.Load(),
	}
	if l.kind != nil {
		s.Type = l.kind.String()
	}
	if at := m.handlingAt.Load(); at != 0 {
		s.InHandler = time.Duration(now - at)
	}
	if s.Queued > 0 {
		// outSince is set while the older of the two buffers holds something.
		since := m.outSince.Load()
		if since == 0 {
			since = m.inSince.Load()
		}
		if since != 0 {
			s.OldestAge = time.Duration(now - since)
		}
	}
	return s
}

var _ actor.Mailbox = (*mailbox)(nil)

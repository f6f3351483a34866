package rt

import (
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Panic is the last failure of an actor, or an order to fail or end.
type Panic struct {
	// Reason is the value the actor panicked with, or the *Order.
	Reason any
	// Stack is the goroutine's stack at that moment; empty with an order, which has no place.
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
	// Restarts counts what the supervisor ordered, and how often one of its name was killed
	// and started again.
	Restarts uint64
	// Age is for how long the actor has been there; a restart does not end it.
	Age time.Duration
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
	// brief are the actors that live for one request: they come and go without a lock.
	brief    [briefSlots]atomic.Pointer[mailbox]
	next     atomic.Uint32
	unlisted atomic.Int64
	kinds    sync.Map // string to *kindTotals
}

// briefSlots is a power of two, briefTries in how many of them an actor looks for a place.
const briefSlots, briefTries = 4096, 8

type listed struct {
	self, parent string
	kind         reflect.Type
}

// entered is one mailbox and what it is listed as.
type entered struct {
	*mailbox
	listed
}

// NewRegistry makes an empty registry; one per actor system.
func NewRegistry() *Registry {
	return &Registry{boxes: make(map[*mailbox]listed)}
}

func (r *Registry) add(self selfInvoker, m *mailbox) {
	if r == nil {
		return
	}
	if m.options.Brief {
		r.addBrief(m)
		return
	}
	l := listing(self)
	r.mu.Lock()
	r.boxes[m] = l
	r.mu.Unlock()
}

func listing(self selfInvoker) listed {
	return listed{self: self.Self().GetId(), parent: self.Parent().GetId(), kind: reflect.TypeOf(self.Actor())}
}

// addBrief takes a free place. When there are so many that none is found, the actor is not
// listed: nobody waits for it.
func (r *Registry) addBrief(m *mailbox) {
	for range briefTries {
		if place := &r.brief[r.next.Add(1)%briefSlots]; place.CompareAndSwap(nil, m) {
			m.place = place
			return
		}
	}
	r.unlisted.Add(1)
}

func (r *Registry) remove(m *mailbox) {
	switch {
	case r == nil:
	case m.place != nil:
		m.place.Store(nil)
	case m.options.Brief:
		r.unlisted.Add(-1)
	default:
		totals := r.of(m.self.Self().GetId())
		r.mu.Lock()
		delete(r.boxes, m)
		totals.processed.Add(m.processed.Load())
		r.mu.Unlock()
	}
}

// all are those that are listed, in any order. Actors wait for it no longer than it takes to
// copy their names, and brief ones not at all.
func (r *Registry) all() []entered {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	out := make([]entered, 0, len(r.boxes)+16)
	for m, l := range r.boxes {
		out = append(out, entered{m, l})
	}
	r.mu.Unlock()
	for i := range r.brief {
		if m := r.brief[i].Load(); m != nil {
			out = append(out, entered{m, listing(m.self)})
		}
	}
	return out
}

// Len is the number of live actors listed.
func (r *Registry) Len() int { return len(r.all()) }

// Unlisted is how many live actors are not listed, because too many requests are under way.
func (r *Registry) Unlisted() int { return int(r.unlisted.Load()) }

// List returns the actors whose ids match, ordered by id; nil matches all. limit > 0 bounds
// how many, more is how many were left out.
func (r *Registry) List(match func(id string) bool, limit int) (out []Stats, more int) {
	all := r.all()
	if match != nil {
		all = slices.DeleteFunc(all, func(e entered) bool { return !match(e.listed.self) })
	}
	slices.SortFunc(all, func(a, b entered) int { return strings.Compare(a.listed.self, b.listed.self) })
	if limit > 0 && len(all) > limit {
		all, more = all[:limit], len(all)-limit
	}
	for _, e := range all {
		out = append(out, e.stats(e.listed))
	}
	return out, more
}

// Find returns one actor by the id of its PID.
func (r *Registry) Find(id string) (Stats, bool) {
	e, ok := r.find(id)
	if !ok {
		return Stats{}, false
	}
	return e.stats(e.listed), true
}

func (r *Registry) find(id string) (entered, bool) {
	all := r.all()
	i := slices.IndexFunc(all, func(e entered) bool { return e.listed.self == id })
	if i < 0 {
		return entered{}, false
	}
	return all[i], true
}

// Visit sends a visit to one actor, and returns how that one was before. It is false if
// there is none: then the visit was not sent.
func (r *Registry) Visit(id string, v *Visit) (Stats, bool) {
	e, ok := r.find(id)
	if !ok {
		return Stats{}, false
	}
	s := e.stats(e.listed)
	e.PostUserMessage(v)
	return s, true
}

// now is the mailbox's clock: nanoseconds since it was made, at least 1.
func (m *mailbox) now() int64 { return int64(time.Since(m.born)) + 1 }

func (m *mailbox) stats(l listed) Stats {
	now := m.now()
	s := Stats{
		ID: l.self, Parent: l.parent,
		Queued: int(m.queued.Load()), Control: int(m.controls.Load()), Bytes: int(m.bytes.Load()),
		Processed: m.processed.Load(), Shed: m.shed.Load(), Expired: m.expired.Load(),
		Restarts: m.restarts.Load(), LastPanic: m.lastPanic.Load(), Age: time.Duration(now),
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

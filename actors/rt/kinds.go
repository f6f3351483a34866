package rt

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// KindStats are the actors of one kind together: all vnodes, all reads.
type KindStats struct {
	// Kind is the part of their names before the slash.
	Kind string
	// Live are listed now; Queued, Control and Bytes are what waits for them.
	Live, Queued, Control, Bytes int
	// Oldest is the longest OldestAge, InHandler the longest of theirs.
	Oldest, InHandler time.Duration
	// Processed, Shed, Expired, Restarts and Panics count since the start, also of those that are
	// gone: they only grow. Of actors that live for one request Processed is not counted.
	Processed, Shed, Expired, Restarts, Panics uint64
}

// kindTotals are the counts of one kind. What hardly ever happens is counted at once, processed of
// an actor when it goes.
type kindTotals struct{ processed, shed, expired, restarts, panics atomic.Uint64 }

// nobodys are the counts of mailboxes that are listed nowhere.
var nobodys kindTotals

// otherKind is that of actors whose name says none.
const otherKind = "other"

// kindOf is the kind of an actor by its name. Names that the library makes up are none.
func kindOf(id string) string {
	kind, _, _ := strings.Cut(id, "/")
	if kind == "" || strings.HasPrefix(kind, "$") {
		return otherKind
	}
	return kind
}

// of are the counts of an actor's kind.
func (r *Registry) of(id string) *kindTotals {
	kind := kindOf(id)
	t, ok := r.kinds.Load(kind)
	if !ok {
		t, _ = r.kinds.LoadOrStore(strings.Clone(kind), &kindTotals{})
	}
	return t.(*kindTotals)
}

// totals are the counts of the mailbox's kind.
func (m *mailbox) totals() *kindTotals {
	if m.options.Registry == nil {
		return &nobodys
	}
	m.mu.Lock()
	self := m.self
	m.mu.Unlock()
	if self == nil { // it was posted to before it was born
		return m.options.Registry.of(otherKind)
	}
	return m.options.Registry.of(self.Self().GetId())
}

// Kinds are the actors by kind, in the order of their names, also kinds of which none lives that
// something was counted of.
func (r *Registry) Kinds() []KindStats {
	if r == nil {
		return nil
	}
	rows := map[string]*KindStats{}
	row := func(kind string) *KindStats {
		if rows[kind] == nil {
			rows[kind] = &KindStats{Kind: kind}
		}
		return rows[kind]
	}
	r.mu.Lock() // an actor that goes is counted here or in the totals, not in both
	var live []entered
	for m, l := range r.boxes {
		live = append(live, entered{m, l})
		row(kindOf(l.self)).Processed += m.processed.Load()
	}
	r.kinds.Range(func(kind, t any) bool {
		row(kind.(string)).Processed += t.(*kindTotals).processed.Load()
		return true
	})
	r.mu.Unlock()
	for i := range r.brief {
		if m := r.brief[i].Load(); m != nil {
			live = append(live, entered{m, listed{self: m.self.Self().GetId()}})
		}
	}
	for _, e := range live {
		s, k := e.stats(e.listed), row(kindOf(e.listed.self))
		k.Live++
		k.Queued, k.Control, k.Bytes = k.Queued+s.Queued, k.Control+s.Control, k.Bytes+s.Bytes
		k.Oldest, k.InHandler = max(k.Oldest, s.OldestAge), max(k.InHandler, s.InHandler)
	}
	out := make([]KindStats, 0, len(rows))
	for kind, k := range rows {
		if t, ok := r.kinds.Load(kind); ok {
			t := t.(*kindTotals)
			k.Shed, k.Expired, k.Restarts, k.Panics = t.shed.Load(), t.expired.Load(), t.restarts.Load(), t.panics.Load()
		}
		out = append(out, *k)
	}
	slices.SortFunc(out, func(a, b KindStats) int { return cmp.Compare(a.Kind, b.Kind) })
	return out
}

// Package clock is the vector clock of one key (paper § 4.4), in the dotted
// form: each write has a dot of its own, apart from its causal past.
//
// Invariants:
//
//   - An actor is a pair (vnode incarnation, epoch). A vnode begins a new epoch
//     whenever it may have forgotten what it did under the old one, so a dot
//     names one write for all time.
//   - Counters under one actor run per key and without gaps: an entry n covers
//     the dots 1 to n.
//   - A Clock is immutable and its entries are sorted, so equal clocks have
//     equal encodings.
package clock

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/dynactor/dynactor/dynamo"
)

// Incarnation is the random 128-bit id that a vnode takes when it first creates
// its store. It lives and dies with that store.
type Incarnation [16]byte

// String is the incarnation in hexadecimal.
func (i Incarnation) String() string { return hex.EncodeToString(i[:]) }

// Actor is one history of writes: a vnode's incarnation in one of its epochs.
type Actor struct {
	Incarnation Incarnation
	Epoch       uint64
}

// Compare orders actors by incarnation, then epoch.
func (a Actor) Compare(b Actor) int {
	if c := bytes.Compare(a.Incarnation[:], b.Incarnation[:]); c != 0 {
		return c
	}
	return cmp.Compare(a.Epoch, b.Epoch)
}

// Dot names one write: the counter-th of an actor on a key. Counters begin at 1.
type Dot struct {
	Actor   Actor
	Counter uint64
}

// Compare orders dots by actor, then counter.
func (d Dot) Compare(o Dot) int {
	if c := d.Actor.Compare(o.Actor); c != 0 {
		return c
	}
	return cmp.Compare(d.Counter, o.Counter)
}

// IsZero reports whether the dot names no write.
func (d Dot) IsZero() bool { return d.Counter == 0 }

// String prints the first bytes of the incarnation, the epoch and the counter.
func (d Dot) String() string {
	out := hex.AppendEncode(make([]byte, 0, 32), d.Actor.Incarnation[:4])
	out = strconv.AppendUint(append(out, '.'), d.Actor.Epoch, 10)
	return string(strconv.AppendUint(append(out, '.'), d.Counter, 10))
}

// Entry is a clock's knowledge of one actor: it covers the dots 1 to Counter.
type Entry struct {
	Actor   Actor
	Counter uint64
	// Time is when the write Counter was made, by its coordinator's clock. It
	// serves truncation only (§ 4.4).
	Time dynamo.Timestamp
}

// Clock is a set of covered dots: one entry per actor. The zero Clock covers
// nothing.
type Clock struct {
	entries []Entry
}

// Of makes a clock of entries in any order; of several entries for one actor
// the highest counts. Entries with counter 0 are dropped.
func Of(entries ...Entry) Clock {
	sorted := slices.Clone(entries)
	sorted = slices.DeleteFunc(sorted, func(e Entry) bool { return e.Counter == 0 })
	slices.SortFunc(sorted, func(a, b Entry) int { return a.Actor.Compare(b.Actor) })
	out := sorted[:0]
	for _, e := range sorted {
		if n := len(out); n > 0 && out[n-1].Actor == e.Actor {
			out[n-1] = later(out[n-1], e)
			continue
		}
		out = append(out, e)
	}
	return Clock{entries: out}
}

// Entries returns the entries, sorted by actor. The caller must not change them.
func (c Clock) Entries() []Entry { return c.entries }

// Len is the number of actors.
func (c Clock) Len() int { return len(c.entries) }

// Counter returns how far the clock covers an actor; 0 means not at all.
func (c Clock) Counter(a Actor) uint64 {
	if i, ok := c.find(a); ok {
		return c.entries[i].Counter
	}
	return 0
}

// Covers reports whether the write d is in the clock's past.
func (c Clock) Covers(d Dot) bool { return d.Counter <= c.Counter(d.Actor) }

// Latest returns the entry with the highest epoch of an incarnation.
func (c Clock) Latest(inc Incarnation) (Entry, bool) {
	i, _ := slices.BinarySearchFunc(c.entries, inc, func(e Entry, inc Incarnation) int {
		if r := bytes.Compare(e.Actor.Incarnation[:], inc[:]); r != 0 {
			return r
		}
		return -1 // all of this incarnation stand before the place we look for
	})
	if i == 0 || c.entries[i-1].Actor.Incarnation != inc {
		return Entry{}, false
	}
	return c.entries[i-1], true
}

// Descends reports whether c covers all that o covers.
func (c Clock) Descends(o Clock) bool {
	for _, e := range o.entries {
		if c.Counter(e.Actor) < e.Counter {
			return false
		}
	}
	return true
}

// Equal reports whether both cover the same dots.
func (c Clock) Equal(o Clock) bool {
	return slices.EqualFunc(c.entries, o.entries, func(a, b Entry) bool {
		return a.Actor == b.Actor && a.Counter == b.Counter
	})
}

// Concurrent reports whether neither covers the other.
func (c Clock) Concurrent(o Clock) bool { return !c.Descends(o) && !o.Descends(c) }

// Merge covers what either covers.
func (c Clock) Merge(o Clock) Clock {
	if len(o.entries) == 0 {
		return c
	}
	if len(c.entries) == 0 {
		return o
	}
	out := make([]Entry, 0, len(c.entries)+len(o.entries))
	a, b := c.entries, o.entries
	for len(a) > 0 && len(b) > 0 {
		switch r := a[0].Actor.Compare(b[0].Actor); {
		case r < 0:
			out, a = append(out, a[0]), a[1:]
		case r > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, later(a[0], b[0])), a[1:], b[1:]
		}
	}
	out = append(out, a...)
	return Clock{entries: append(out, b...)}
}

// With returns the clock with an actor's entry raised to e.
func (c Clock) With(e Entry) Clock {
	i, ok := c.find(e.Actor)
	out := make([]Entry, 0, len(c.entries)+1)
	out = append(out, c.entries[:i]...)
	if ok {
		out = append(out, later(c.entries[i], e))
		i++
	} else {
		out = append(out, e)
	}
	return Clock{entries: append(out, c.entries[i:]...)}
}

// NotAfter returns the clock with no entry's time later than limit: times come
// from outside with a client's context, and a far future would stay for ever.
func (c Clock) NotAfter(limit dynamo.Timestamp) Clock {
	late := func(e Entry) bool { return e.Time > limit }
	if !slices.ContainsFunc(c.entries, late) {
		return c
	}
	out := slices.Clone(c.entries)
	for i := range out {
		out[i].Time = min(out[i].Time, limit)
	}
	return Clock{entries: out}
}

// String prints the entries as dots, for tests and the console.
func (c Clock) String() string {
	parts := make([]string, len(c.entries))
	for i, e := range c.entries {
		parts[i] = Dot{Actor: e.Actor, Counter: e.Counter}.String()
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func (c Clock) find(a Actor) (int, bool) {
	return slices.BinarySearchFunc(c.entries, a, func(e Entry, a Actor) int { return e.Actor.Compare(a) })
}

// later picks the entry with the higher counter; times break ties so that the
// choice does not depend on the order of the arguments.
func later(a, b Entry) Entry {
	if b.Counter > a.Counter || b.Counter == a.Counter && b.Time > a.Time {
		return b
	}
	return a
}

// Sorted makes a clock of entries that are already sorted by actor, one per
// actor and none with counter 0, as a decoder has checked. It keeps the slice.
func Sorted(entries []Entry) Clock { return Clock{entries: entries} }

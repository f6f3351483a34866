package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/test/journal"
)

// Kind is what is wrong.
type Kind string

// What a checker finds.
const (
	// Lost: a write was acknowledged; in the end it is neither there nor covered by
	// a write whose context had seen it.
	Lost Kind = "lost"
	// Ghost: a write failed for certain and was seen.
	Ghost Kind = "ghost"
	// Foreign: a value that nobody wrote under this key.
	Foreign Kind = "foreign"
	// Resurrected: a value is there in the end although an acknowledged delete or
	// put had seen it.
	Resurrected Kind = "resurrected"
	// Zombie: a value was shown beside one that had replaced it.
	Zombie Kind = "zombie"
	// Stale: a read missed a write that was acknowledged before the read began.
	Stale Kind = "stale"
	// Unequal: replicas of a key differ.
	Unequal Kind = "unequal"
	// Unread: nothing is known of how a key was in the end.
	Unread Kind = "unread"
	// Reused: an id names two writes, so that the journal proves nothing.
	Reused Kind = "reused"
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind Kind
	Key  string
	Text string
}

// Options say what may be expected.
type Options struct {
	// Strict: no node failed, so that no fallback took part, and every read must
	// show the writes that ended before it began. Quorums must overlap: R + W > N.
	Strict bool
	// NoFinal: there is only the journal.
	NoFinal bool
}

// history is what is known of one key.
type history struct {
	key    string
	writes map[string]*journal.Op
	order  []*journal.Op
	reads  []*journal.Op
	// whole is what the cluster said in the end, replicas what each one did.
	whole    *journal.Final
	replicas []journal.Final
	findings []Finding
}

// Check looks at all keys. The findings are in the order of keys.
func Check(ops []journal.Op, finals []journal.Final, o Options) []Finding {
	keys := map[string]*history{}
	of := func(key string) *history {
		h, ok := keys[key]
		if !ok {
			h = &history{key: key, writes: map[string]*journal.Op{}}
			keys[key] = h
		}
		return h
	}
	for i := range ops {
		of(ops[i].Key).add(&ops[i])
	}
	for i, f := range finals {
		h := of(f.Key)
		if f.Replica == "" {
			h.whole = &finals[i]
		} else {
			h.replicas = append(h.replicas, f)
		}
	}
	var out []Finding
	for _, h := range keys {
		h.check(o)
		out = append(out, h.findings...)
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

func (h *history) add(op *journal.Op) {
	if op.Kind == journal.Get {
		h.reads = append(h.reads, op)
		return
	}
	if h.writes[op.ID] != nil {
		h.found(Reused, "%s", op.ID)
	}
	h.writes[op.ID] = op
	h.order = append(h.order, op)
}

func (h *history) found(kind Kind, format string, args ...any) {
	h.findings = append(h.findings, Finding{Kind: kind, Key: h.key, Text: fmt.Sprintf(format, args...)})
}

func (h *history) check(o Options) {
	for _, r := range h.reads {
		if r.Outcome == journal.OK {
			h.shown(fmt.Sprintf("a read at %v", r.Start), r.Read)
			if o.Strict {
				h.fresh(r)
			}
		}
	}
	h.equal()
	if h.whole == nil {
		if !o.NoFinal {
			h.found(Unread, "not among what was read in the end")
		}
		return
	}
	h.shown("in the end", h.whole.Values)
	h.complete()
	h.dead()
}

// closure is all writes that are among the given ones or were seen by one of them,
// at any remove: a context covers what the contexts of what it has seen cover.
func (h *history) closure(from []string) map[string]bool {
	in := map[string]bool{}
	for len(from) > 0 {
		id := from[len(from)-1]
		from = from[:len(from)-1]
		if in[id] {
			continue
		}
		in[id] = true
		if w := h.writes[id]; w != nil {
			from = append(from, w.Saw...)
		}
	}
	return in
}

// replaced is what the writes with the ids have replaced: their closure without
// themselves.
func (h *history) replaced(ids ...string) map[string]bool {
	var saw []string
	for _, id := range ids {
		if w := h.writes[id]; w != nil {
			saw = append(saw, w.Saw...)
		}
	}
	return h.closure(saw)
}

// deletes are the deletes that may have taken effect before a time.
func (h *history) deletes(before time.Duration) []string {
	var out []string
	for _, w := range h.order {
		if w.Kind == journal.Delete && w.Outcome != journal.Failed && w.Start <= before {
			out = append(out, w.ID)
		}
	}
	return out
}

// shown checks values that were shown together.
func (h *history) shown(when string, values []string) {
	replaced := h.replaced(values...)
	for _, v := range values {
		switch w := h.writes[v]; {
		case w == nil || w.Kind == journal.Delete:
			h.found(Foreign, "%s: %q is there, nobody wrote it", when, v)
		case w.Outcome == journal.Failed:
			h.found(Ghost, "%s: %s is there, it failed: %s", when, v, w.Error)
		}
		if replaced[v] {
			h.found(Zombie, "%s: %s is there beside what replaced it: %v", when, v, values)
		}
	}
}

// fresh checks that a read shows or covers what was acknowledged before it began.
func (h *history) fresh(r *journal.Op) {
	covered := h.closure(slices.Concat(r.Read, h.deletes(r.End)))
	for _, w := range h.order {
		if w.Outcome == journal.OK && w.End < r.Start && w.Kind == journal.Put && !covered[w.ID] {
			h.found(Stale, "a read at %v shows %v; %s was acknowledged at %v", r.Start, r.Read, w.ID, w.End)
		}
	}
}

// forever is later than all that happened.
const forever = time.Duration(1<<63 - 1)

// complete checks that nothing that was acknowledged is lost.
func (h *history) complete() {
	covered := h.closure(slices.Concat(h.whole.Values, h.deletes(forever)))
	for _, w := range h.order {
		if w.Outcome == journal.OK && w.Kind == journal.Put && !covered[w.ID] {
			h.found(Lost, "%s, acknowledged at %v; in the end there is %v", w.ID, w.End, h.whole.Values)
		}
	}
}

// dead checks that nothing is back that an acknowledged write replaced.
func (h *history) dead() {
	for _, w := range h.order {
		if w.Outcome != journal.OK || len(w.Saw) == 0 {
			continue
		}
		replaced := h.replaced(w.ID)
		for _, v := range h.whole.Values {
			if replaced[v] {
				h.found(Resurrected, "%s is there; the %s %s, acknowledged at %v, had seen it", v, w.Kind, w.ID, w.End)
			}
		}
	}
}

// equal checks that all replicas that were asked have the same.
func (h *history) equal() {
	for i := range h.replicas {
		a, b := h.replicas[0], h.replicas[i]
		if !slices.Equal(versions(a), versions(b)) {
			h.found(Unequal, "%s has %v, %s has %v", a.Replica, versions(a), b.Replica, versions(b))
		}
	}
}

// versions are the values with their dots, in an order of their own.
func versions(f journal.Final) []string {
	out := slices.Clone(f.Values)
	for i := range f.Dots {
		out[i] += "@" + f.Dots[i]
	}
	slices.Sort(out)
	return out
}

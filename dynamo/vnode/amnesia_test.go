package vnode

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
)

// amnesia is a model of one key on some replicas that put, replicate in any
// order, lose messages, and forget: the hardest known test of a version scheme
// (one vnode's amnesia made Riak lose acknowledged writes for years). Beside
// the real records it keeps, for each write, the set of writes that the
// client's context had shown, which is all that may ever supersede a write.
type amnesia struct {
	states  []*State
	stored  []Stored
	names   map[string]int // value → write
	covered []map[int]bool // write → writes its context covered
	puts    []Put          // the writes, as their clients sent them
	next    int
	held    []version.Record // messages under way, also to be delivered twice
	retried bool             // a write was coordinated again
	now     dynamo.Timestamp
}

func newAmnesia(replicas int) *amnesia {
	m := &amnesia{names: map[string]int{}}
	for i := range replicas {
		m.states = append(m.states, Open(inc(byte(i+1)), 1, 1<<20, true, 0))
		m.stored = append(m.stored, Stored{})
	}
	return m
}

func (m *amnesia) put(t *rapid.T, at int, seen version.Record) {
	m.now++
	value := fmt.Sprint("w", m.next)
	m.names[value] = m.next
	shown := map[int]bool{}
	for _, v := range seen.Versions {
		shown[m.names[string(v.Value)]] = true
	}
	m.covered = append(m.covered, shown)
	p := Put{
		Value: []byte(value), Request: dynamo.RequestID{1, byte(m.next >> 8), byte(m.next)}, Context: seen.Context(),
		MaxSiblings: 1 << 20, Prune: -1, Now: m.now,
	}
	m.puts, m.next = append(m.puts, p), m.next+1
	r, err := m.states[at].Coordinate(m.stored[at], p)
	if err != nil {
		t.Fatalf("put at %d: %v", at, err)
	}
	m.stored[at] = r.Stored
	m.held = append(m.held, r.Stored.Record)
}

func (m *amnesia) deliver(t *rapid.T, rec version.Record, at int) {
	out, _, err := m.states[at].Accept(m.stored[at], rec)
	if err != nil {
		t.Fatalf("deliver to %d: %v", at, err)
	}
	m.stored[at] = out
}

// check compares what all replicas together hold with what no context covered.
// Writes that only a forgetting replica held may be gone; the caller passes
// them as lost.
func (m *amnesia) check(t *rapid.T, lost map[int]bool) {
	var all version.Record
	for _, s := range m.stored {
		all = version.Merge(all, s.Record)
	}
	for _, rec := range m.held {
		all = version.Merge(all, rec)
	}
	have := map[int]bool{}
	for _, v := range all.Versions {
		have[m.names[string(v.Value)]] = true
	}
	superseded := map[int]bool{}
	for _, shown := range m.covered {
		maps.Copy(superseded, shown)
	}
	for w := range m.next {
		switch {
		case !superseded[w] && !have[w] && !lost[w]:
			t.Fatalf("write %d is gone though no context covered it; held: %v", w, slices.Sorted(maps.Keys(have)))
		case superseded[w] && have[w] && !m.forgot():
			t.Fatalf("write %d is back though a context covered it", w)
		}
	}
}

// TestNoAmnesia runs the model. Messages are never destroyed here (held), so no
// write may be lost at all, whatever a replica forgets of its own store.
func TestNoAmnesia(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const replicas = 3
		m := newAmnesia(replicas)
		at := rapid.IntRange(0, replicas-1)
		var seen []version.Record // what clients have read
		t.Repeat(map[string]func(*rapid.T){
			"blind put": func(t *rapid.T) { m.put(t, at.Draw(t, "at"), version.Record{}) },
			"read":      func(t *rapid.T) { seen = append(seen, m.stored[at.Draw(t, "at")].Record) },
			"put with context": func(t *rapid.T) {
				if len(seen) == 0 {
					t.Skip()
				}
				m.put(t, at.Draw(t, "at"), rapid.SampledFrom(seen).Draw(t, "seen"))
			},
			"deliver": func(t *rapid.T) {
				if len(m.held) == 0 {
					t.Skip()
				}
				m.deliver(t, rapid.SampledFrom(m.held).Draw(t, "message"), at.Draw(t, "at"))
			},
			"forget the key": func(t *rapid.T) {
				i := at.Draw(t, "at")
				m.held = append(m.held, m.stored[i].Record) // somebody has it still
				m.stored[i] = Stored{}
			},
			"crash": func(t *rapid.T) {
				i := at.Draw(t, "at")
				s := m.states[i]
				m.states[i] = Open(s.Incarnation(), s.limit, s.limit+1<<20, false, s.floor)
			},
			"crash losing the last write": func(t *rapid.T) {
				i := at.Draw(t, "at")
				if m.stored[i].IsZero() {
					t.Skip()
				}
				before := m.stored[i]
				m.put(t, i, version.Record{}) // its replication is under way (held)
				s := m.states[i]
				m.stored[i] = before
				m.states[i] = Open(s.Incarnation(), s.limit, s.limit+1<<20, false, s.floor)
			},
			"": func(t *rapid.T) { m.check(t, nil) },
		})
	})
}

// TestDoomstone is the scenario of a late tombstone: a key is deleted, its
// tombstone forgotten by the primaries, the key written anew, and then a
// replica that was away delivers the old tombstone.
func TestDoomstone(t *testing.T) {
	s := open(1)
	a := must(t, s, Stored{}, Put{Value: []byte("a"), Now: 1})
	dead := must(t, s, a.Stored, Put{Tombstone: true, Context: a.Stored.Record.Context(), Now: 2})
	reborn := must(t, s, Stored{}, Put{Value: []byte("b"), Now: 3})
	out, _, err := s.Accept(reborn.Stored, dead.Stored.Record)
	if err != nil {
		t.Fatal(err)
	}
	if live := out.Record.Live(3); len(live) != 1 || string(live[0].Value) != "b" {
		t.Fatalf("the old tombstone killed the new value: %v", values(out))
	}
}

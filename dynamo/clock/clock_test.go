package clock

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

func act(b byte, epoch uint64) Actor { return Actor{Incarnation: Incarnation{b}, Epoch: epoch} }

func draw(t *rapid.T, label string) Clock {
	n := rapid.IntRange(0, 6).Draw(t, label)
	var entries []Entry
	for range n {
		c := uint64(rapid.IntRange(0, 4).Draw(t, "counter"))
		entries = append(entries, Entry{
			Actor:   act(byte(rapid.IntRange(1, 3).Draw(t, "incarnation")), uint64(rapid.IntRange(1, 2).Draw(t, "epoch"))),
			Counter: c, Time: dynamo.Timestamp(c),
		})
	}
	return Of(entries...)
}

// dots is the slow and obvious meaning of a clock.
func dots(c Clock) map[Dot]bool {
	out := map[Dot]bool{}
	for _, e := range c.Entries() {
		for i := uint64(1); i <= e.Counter; i++ {
			out[Dot{Actor: e.Actor, Counter: i}] = true
		}
	}
	return out
}

func TestClockAgainstSetsOfDots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t, "a"), draw(t, "b")
		da, db := dots(a), dots(b)
		union := map[Dot]bool{}
		descends := true
		for d := range da {
			union[d] = true
		}
		for d := range db {
			union[d] = true
			descends = descends && da[d]
		}
		if a.Descends(b) != descends {
			t.Fatalf("%v descends from %v: %v", a, b, a.Descends(b))
		}
		m := a.Merge(b)
		if got := dots(m); len(got) != len(union) {
			t.Fatalf("merge of %v and %v is %v", a, b, m)
		}
		if !m.Equal(b.Merge(a)) || !m.Descends(a) || !m.Descends(b) {
			t.Fatal("merge is the least clock that covers both, in either order")
		}
		if a.Concurrent(b) != (!a.Descends(b) && !b.Descends(a)) {
			t.Fatal("concurrent means that neither descends")
		}
		for d := range union {
			if a.Covers(d) != da[d] {
				t.Fatalf("%v covers %v: %v", a, d, a.Covers(d))
			}
		}
	})
}

func TestWithAndLatest(t *testing.T) {
	c := Of(Entry{Actor: act(2, 1), Counter: 3}, Entry{Actor: act(1, 5), Counter: 1}, Entry{Actor: act(2, 7), Counter: 2})
	if e, ok := c.Latest(Incarnation{2}); !ok || e.Actor.Epoch != 7 || e.Counter != 2 {
		t.Fatalf("latest: %v %v", e, ok)
	}
	if e, ok := c.Latest(Incarnation{1}); !ok || e.Actor.Epoch != 5 {
		t.Fatalf("latest: %v %v", e, ok)
	}
	if _, ok := c.Latest(Incarnation{3}); ok {
		t.Fatal("an incarnation that is not there has no latest entry")
	}
	if _, ok := c.Latest(Incarnation{0}); ok {
		t.Fatal("an incarnation before all others has no latest entry")
	}
	d := c.With(Entry{Actor: act(2, 1), Counter: 9}).With(Entry{Actor: act(3, 1), Counter: 1})
	if d.Counter(act(2, 1)) != 9 || d.Counter(act(3, 1)) != 1 || d.Len() != 4 || c.Counter(act(2, 1)) != 3 {
		t.Fatalf("with: %v from %v", d, c)
	}
	if got := d.With(Entry{Actor: act(2, 1), Counter: 4}).Counter(act(2, 1)); got != 9 {
		t.Fatalf("an entry never goes down, have %d", got)
	}
}

func TestPrune(t *testing.T) {
	var entries []Entry
	for i := range 10 {
		entries = append(entries, Entry{Actor: act(byte(i), 1), Counter: 1, Time: dynamo.Timestamp(10 - i)})
	}
	c := Of(entries...)
	keep := func(a Actor) bool { return a == act(9, 1) } // the oldest
	p, n := c.Prune(4, keep)
	if n != 6 || p.Len() != 4 {
		t.Fatalf("dropped %d, %d left", n, p.Len())
	}
	for i, e := range []byte{0, 1, 2, 9} {
		if p.Entries()[i].Actor != act(e, 1) {
			t.Fatalf("wrong entries left: %v", p)
		}
	}
	if _, n := c.Prune(0, keep); n != 0 {
		t.Fatal("no limit means no truncation")
	}
	if p, n := c.Prune(3, func(Actor) bool { return true }); n != 0 || !p.Equal(c) {
		t.Fatal("entries to keep were dropped")
	}
}

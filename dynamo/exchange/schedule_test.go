package exchange

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

func at(d time.Duration) dynamo.Timestamp { return dynamo.Timestamp(1 << 50).Add(d) }

func names(pairs []Pair) string {
	var out string
	for _, p := range pairs {
		out += string(p.Peer)
	}
	return out
}

var (
	equal  = Outcome{Complete: true, Equal: true}
	mended = Outcome{Complete: true, In: 1}
	failed = Outcome{}
)

func TestSchedule(t *testing.T) {
	s := NewSchedule(10*time.Minute, 2)
	all := []Pair{{1, 3, "a"}, {1, 3, "b"}, {1, 3, "c"}, {2, 3, "d"}}
	next := func(d time.Duration, want string) {
		t.Helper()
		if got := names(s.Next(at(d))); got != want {
			t.Fatalf("after %v: %q, want %q", d, got, want)
		}
	}
	wake := func(want time.Duration) {
		t.Helper()
		if got, ok := s.Wake(); !ok || got != at(want) {
			t.Fatalf("it wakes at %v (%v), want %v", got.Sub(at(0)), ok, want)
		}
	}
	if _, ok := s.Wake(); ok {
		t.Error("it wakes for nothing")
	}
	s.Set(at(0), all)
	wake(0)
	next(0, "ab")
	next(0, "")
	if _, ok := s.Wake(); ok {
		t.Error("it wakes at its limit")
	}
	s.Done(at(time.Minute), all[0], equal)
	s.Done(at(time.Minute), all[0], equal) // again
	if got, ok := s.Equal(all[0]); !ok || got != at(time.Minute) {
		t.Errorf("a was equal at %v, %v", got, ok)
	}
	if _, ok := s.Equal(all[1]); ok {
		t.Error("b was never found equal")
	}
	next(time.Minute, "c")
	s.Done(at(time.Minute), all[1], mended)
	s.Done(at(time.Minute), all[2], failed)
	next(time.Minute, "d")
	wake(2 * time.Minute)
	s.Done(at(time.Minute), all[3], mended)
	next(2*time.Minute-1, "")
	next(2*time.Minute, "bd") // what differed comes before what failed
	s.Done(at(2*time.Minute), all[1], equal)
	next(2*time.Minute, "c")
	s.Done(at(2*time.Minute), all[2], failed)
	next(4*time.Minute-1, "") // twice as long
	next(4*time.Minute, "c")
	// c leaves while it is compared, and d while it is.
	s.Set(at(4*time.Minute), all[:2])
	next(11*time.Minute, "")
	s.Done(at(4*time.Minute), all[2], equal)
	next(11*time.Minute, "a")
	s.Set(at(11*time.Minute), all) // d comes back and is still compared
	next(12*time.Minute, "")
	s.Done(at(12*time.Minute), all[3], equal)
	next(12*time.Minute, "c")
}

func TestBackOffEnds(t *testing.T) {
	s := NewSchedule(0, 0)
	p := Pair{1, 3, "a"}
	s.Set(at(0), []Pair{p})
	now := at(0)
	var waits []string
	for range 100 {
		if !slices.Equal(s.Next(now), []Pair{p}) {
			t.Fatal("it is not tried")
		}
		s.Done(now, p, failed)
		wake, _ := s.Wake()
		waits = append(waits, wake.Sub(now).String())
		now = wake
	}
	if got := fmt.Sprint(waits[:6]); got != "[1m0s 2m0s 4m0s 8m0s 10m0s 10m0s]" || waits[99] != "10m0s" {
		t.Errorf("%v … %v", got, waits[99])
	}
}

func TestOneOfTwoBegins(t *testing.T) {
	begun := map[dynamo.NodeID]int{}
	for p := range dynamo.Partition(64) {
		if Begins(p, "a", "b") == Begins(p, "b", "a") {
			t.Errorf("partition %d: both or neither", p)
		}
		if Begins(p, "a", "b") {
			begun["a"]++
		}
	}
	if begun["a"] != 32 {
		t.Errorf("a begins %d of 64", begun["a"])
	}
}

// TestEveryPairHasItsTurn: whatever the exchanges find, at most so many run at once,
// none twice, and each pair's turn comes within two and a half intervals.
func TestEveryPairHasItsTurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 3).Draw(t, "limit")
		s := NewSchedule(10*time.Minute, limit)
		var pairs []Pair
		last := map[Pair]dynamo.Timestamp{}
		for i := range rapid.IntRange(1, 20).Draw(t, "pairs") {
			pairs = append(pairs, Pair{dynamo.Partition(i), 3, "x"})
			last[pairs[i]] = at(0)
		}
		s.Set(at(0), pairs)
		type run struct {
			Pair
			end dynamo.Timestamp
		}
		var running []run
		// An exchange takes at most 25 s, so that 20 pairs, one after the other, fit
		// into an interval.
		for now := at(0); now < at(2*time.Hour); now = now.Add(5 * time.Second) {
			running = slices.DeleteFunc(running, func(r run) bool {
				if r.end <= now {
					s.Done(now, r.Pair, rapid.SampledFrom([]Outcome{equal, mended, mended, failed}).Draw(t, "outcome"))
				}
				return r.end <= now
			})
			for _, p := range s.Next(now) {
				if slices.ContainsFunc(running, func(r run) bool { return r.Pair == p }) {
					t.Fatalf("%v runs twice", p)
				}
				running = append(running, run{p, now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "takes")) * 5 * time.Second)})
				last[p] = now
			}
			if len(running) > limit {
				t.Fatalf("%d run", len(running))
			}
			for p, when := range last {
				if now.Sub(when) > 25*time.Minute {
					t.Fatalf("%v waits for %v", p, now.Sub(when))
				}
			}
		}
	})
}

// TestHurry: what an operator asks for comes first, begins after it was asked for, and is
// tried again when it fails, a few times; also where nothing else is ever due.
func TestHurry(t *testing.T) {
	all := []Pair{{1, 3, "a"}, {1, 3, "b"}, {2, 3, "c"}}
	for _, interval := range []time.Duration{time.Hour, Never} {
		s := NewSchedule(interval, 1)
		next := func(d time.Duration, want string) {
			t.Helper()
			if got := names(s.Next(at(d))); got != want {
				t.Fatalf("%v: after %v: %q, want %q", interval, d, got, want)
			}
		}
		s.Set(at(0), all)
		if interval == Never {
			next(0, "")
			if _, ok := s.Wake(); ok {
				t.Error("it wakes although nothing will be due")
			}
		} else {
			for _, p := range all {
				next(0, string(p.Peer))
				s.Done(at(0), p, equal)
			}
		}
		s.Hurry(at(time.Second), Pair{9, 3, "a"}) // there is none
		s.Hurry(at(time.Second), all[1])
		if !s.Hurried(all[1]) || s.Hurried(all[0]) || s.Hurried(Pair{9, 3, "a"}) {
			t.Errorf("%v: hurried is not what was", interval)
		}
		next(time.Second, "b")
		s.Hurry(at(2*time.Second), all[1]) // the one that runs may have looked before
		s.Done(at(3*time.Second), all[1], equal)
		if !s.Hurried(all[1]) {
			t.Errorf("%v: one that had begun before is enough", interval)
		}
		next(3*time.Second, "b")
		d := 4 * time.Second
		for range hurriedTries - 1 {
			s.Done(at(d), all[1], failed)
			next(d, "")
			if got, ok := s.Wake(); !ok || got > at(d+hurriedPause) {
				t.Errorf("%v: it does not wake", interval)
			}
			d += hurriedPause
			next(d, "b")
		}
		s.Done(at(d), all[1], failed)
		if s.Hurried(all[1]) {
			t.Errorf("%v: it is tried for ever", interval)
		}
		next(d+hurriedPause, "")
		s.Hurry(at(d), all[2])
		next(d, "c")
		s.Done(at(d), all[2], mended)
		next(d, "")
		if s.Hurried(all[2]) {
			t.Errorf("%v: it was complete", interval)
		}
	}
}

package version

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
)

// carriedOut is the i-th request of a key, at time i.
func carriedOut(i int, retried bool) Applied {
	a := actorOf(1, 1)
	return Applied{Request: dynamo.RequestID{byte(i), byte(i >> 8)}, Dot: clock.Dot{Actor: a, Counter: uint64(i)}, Time: dynamo.Timestamp(i), Retried: retried}
}

func TestRecentIsBounded(t *testing.T) {
	var r Record
	for i := range 100 {
		r = r.Remember(carriedOut(i+1, i%2 == 1), 0)
	}
	if len(r.Recent) != RecentRequests/2+RetriedRequests || r.Forgotten != 100-RecentRequests {
		t.Fatalf("%d remembered, forgotten until %d", len(r.Recent), r.Forgotten)
	}
	for i, want := range map[int]bool{100: true, 85: true, 84: true, 83: false, 6: true, 5: false, 4: false} { // of the even ones the last 48
		if _, ok := r.Known(carriedOut(i, false).Request); ok != want {
			t.Errorf("request %d of 100 is remembered: %v", i, ok)
		}
	}
	if _, ok := r.Known(dynamo.RequestID{}); ok {
		t.Fatal("the zero id is never known")
	}
	if r = r.Remember(Applied{}, 90); len(r.Recent) != 5+RetriedRequests || r.Forgotten != 89 {
		t.Fatalf("of the last ten minutes, and of those retried, %d are remembered, forgotten until %d", len(r.Recent), r.Forgotten)
	}
}

func TestRetryIsRememberedLonger(t *testing.T) {
	var r Record
	for i := range 20 {
		r = r.Remember(carriedOut(i+1, false), 0)
	}
	for i, want := range map[int]bool{3: false, 5: true, 20: true} {
		marked, changed := r.Retry(carriedOut(i, false).Request)
		if changed != want {
			t.Fatalf("request %d is marked: %v", i, changed)
		}
		if _, again := marked.Retry(carriedOut(i, false).Request); again {
			t.Errorf("request %d is marked twice", i)
		}
		for j := 20; j < 60; j++ {
			marked = marked.Remember(carriedOut(j+1, false), 0)
		}
		if _, known := marked.Known(carriedOut(i, false).Request); known != want {
			t.Errorf("request %d is known 40 requests later: %v", i, known)
		}
	}
	v := Version{Request: dynamo.RequestID{7, 7}, Dot: clock.Dot{Actor: actorOf(2, 1), Counter: 1}, Time: 3}
	r.Versions = []Version{v}
	r, changed := r.Retry(v.Request)
	if r.Versions = nil; !changed {
		t.Fatal("a request whose version is there is not marked")
	}
	if dot, known := r.Known(v.Request); !known || dot != v.Dot {
		t.Fatal("a forgotten request whose version was there when it was retried is forgotten with it")
	}
}

// TestRecentMergesInAnyOrder: what replicas remember does not depend on the order
// in which they hear of each other.
func TestRecentMergesInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		marks := rapid.SampledFrom([]int{2, 10, 100}).Draw(t, "one in so many is retried")
		replica := func(name string) Record {
			var r Record
			for i := range rapid.IntRange(1, 150).Draw(t, name) {
				if rapid.IntRange(0, 3).Draw(t, "heard of") > 0 {
					before := r
					r = r.Remember(carriedOut(i+1, rapid.IntRange(1, marks).Draw(t, "retried") == 1), dynamo.Timestamp(i-rapid.IntRange(1, 40).Draw(t, "ago")))
					if !Merge(before, r).Equal(r) {
						t.Fatalf("a replica that takes a write in has not what its coordinator has:\n%+v\n%+v", before, r)
					}
				}
			}
			return r
		}
		a, b, c := replica("a"), replica("b"), replica("c")
		ab := Merge(a, b)
		if !Merge(a, a).Equal(a) || !ab.Equal(Merge(b, a)) || !Merge(ab, b).Equal(ab) {
			t.Fatal("not idempotent or not commutative")
		}
		if left, right := Merge(ab, c), Merge(a, Merge(b, c)); !left.Equal(right) {
			t.Fatalf("not associative:\n%+v\n%+v", left, right)
		}
		if !recentSorted(ab) {
			t.Fatalf("not as it is stored: %+v", ab)
		}
	})
}

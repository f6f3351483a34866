package exchange

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo/hashtree"
)

func calm() bool { return true }

// pair makes two replicas that hold the same n keys.
func pair(t tester, n, size int) *world {
	w := &world{t: t, a: newReplica(t, size), b: newReplica(t, size), turn: calm}
	for _, r := range []*replica{w.a, w.b} {
		for k := range n {
			r.store[k] = 1
			r.keys = append(r.keys, k)
			r.tree.Update(position(k), hashtree.Hash{}, hash(k, 1))
		}
		sortKeys(r)
		r.settle()
	}
	return w
}

func same(t tester, what string, w *world) {
	t.Helper()
	if !maps.Equal(w.a.store, w.b.store) {
		t.Fatalf("%s: a has %d records, b %d, and they differ", what, len(w.a.store), len(w.b.store))
	}
}

// TestMends shows what an exchange costs: nothing to speak of when nothing differs,
// and bytes that grow with the difference and not with the data.
func TestMends(t *testing.T) {
	const keys = 60_000
	w := pair(t, keys, 1000)
	out := w.run(0, 0)
	if !out.Complete || !out.Equal || out.Bytes > 100 {
		t.Errorf("equal replicas: %+v", out)
	}
	number := w.x.Number()
	for _, d := range []int{1, 1, 1, 1, 10, 100, 1000, 10_000} {
		w.messages = 0
		for i := range d {
			k := (i*7919 + d) % keys
			side := []*replica{w.a, w.b}[i%2]
			side.merge(k, record(2)<<(number%60))
		}
		out := w.run(number, number)
		same(t, fmt.Sprint(d), w)
		if !out.Complete || out.Equal || out.In != d/2 || out.Out != d-d/2 || out.Damaged+out.Changed+out.Rechecked != 0 {
			t.Errorf("%d differing keys: %+v", d, out)
		}
		for k, n := range w.in {
			if n > 1 || w.out[k] > 1 {
				t.Errorf("the record of key %d travelled %d and %d times", k, n, w.out[k])
			}
		}
		t.Logf("%5d of %d keys: %7d bytes in %4d messages and %9d of records: %.0f a key", d, keys, out.Bytes-out.RecordBytes, w.messages, out.RecordBytes, float64(out.Bytes-out.RecordBytes)/float64(d))
		if number = w.x.Number(); d == 1 && out.Bytes-out.RecordBytes > 350 {
			t.Errorf("one key costs %d bytes", out.Bytes-out.RecordBytes)
		}
		if again := w.run(number, number); !again.Equal {
			t.Errorf("%d: %+v afterwards", d, again)
		}
	}
}

// TestBounded: two replicas without a key in common, one of them with many in one
// leaf; no message is larger than the limits allow.
func TestBounded(t *testing.T) {
	w := pair(t, 0, 2000)
	for k := range 4000 {
		if k%2 == 0 || k < 2000 {
			w.a.merge(k, 1)
		}
		if k%2 == 1 || k < 1500 {
			w.b.merge(k, 2)
		}
	}
	out := w.run(0, 0)
	same(t, "afterwards", w)
	if !out.Complete || out.Changed+out.Damaged > 0 {
		t.Errorf("%+v", out)
	}
	if w.largest > MaxRecordBytes+100 {
		t.Errorf("a message had %d bytes", w.largest)
	}
	w = pair(t, 0, 3<<20)
	w.a.merge(1, 1)
	w.a.merge(2, 1)
	if out := w.run(0, 0); out.Out != 2 || w.largest < 3<<20 || w.largest > 4<<20 {
		t.Errorf("large records: %+v, the largest message %d", out, w.largest)
	}
}

// TestDifferentTrees: trees with different numbers of leaves compare at what they
// have in common.
func TestDifferentTrees(t *testing.T) {
	w := pair(t, 3000, 10)
	for k := range 3000 {
		w.a.merge(10_000+k, 1)
	}
	w.a.settle()
	if w.a.tree.Bits() == w.b.tree.Bits() {
		t.Fatal("the trees are alike")
	}
	if out := w.run(0, 0); !out.Complete || out.Out != 3000 {
		t.Errorf("%+v", out)
	}
	same(t, "afterwards", w)
}

// TestRechecks: a tree that is wrong about equal data is mended, not compared for
// ever (HAZARDS H35).
func TestRechecks(t *testing.T) {
	w := pair(t, 5000, 10)
	w.b.tree.Update(position(77), hashtree.Hash{}, hashtree.Hash{9, 9})
	w.a.tree.Update(position(78), hashtree.Hash{}, hashtree.Hash{7})
	out := w.run(0, 0)
	if !out.Complete || out.Equal || out.Rechecked != 2 || out.In+out.Out != 0 {
		t.Errorf("%+v", out)
	}
	if out := w.run(100, 1); !out.Equal {
		t.Errorf("afterwards %+v", out)
	}
}

// TestDamageIsIsolated: what one side cannot read it gets from the other, and what
// cannot be merged keeps nothing else from being mended (HAZARDS H35, H43).
func TestDamageIsIsolated(t *testing.T) {
	w := pair(t, 3000, 10)
	for k := range 100 {
		w.a.merge(k, 2)
		w.b.merge(k, 4)
	}
	w.a.damaged[5], w.b.damaged[6], w.b.damaged[2500] = true, true, true
	w.a.stuck[7], w.b.stuck[8] = true, true
	number := uint64(0)
	for round := range uint64(3) {
		out := w.run(number, round)
		number = w.x.Number()
		if !out.Complete || out.Damaged == 0 {
			t.Errorf("%+v", out)
		}
		w.b.tree.Doubt(hashtree.Prefix{}) // the background check finds 2500
	}
	for k := range 3000 {
		want := record(1)
		switch {
		case k == 2500, k >= 100:
		case k == 7: // a cannot take b's, but gives its own
			if w.a.store[k] != 3 || w.b.store[k] != 7 {
				t.Errorf("key 7: %b and %b", w.a.store[k], w.b.store[k])
			}
			continue
		case k == 8:
			if w.a.store[k] != 7 || w.b.store[k] != 5 {
				t.Errorf("key 8: %b and %b", w.a.store[k], w.b.store[k])
			}
			continue
		case k == 5: // a's write was in no other place
			want = 5
		case k == 6:
			want = 3
		default:
			want = 7
		}
		if w.a.store[k] != want || w.b.store[k] != want {
			t.Errorf("key %d: %b and %b, want %b", k, w.a.store[k], w.b.store[k], want)
		}
	}
}

// TestNothingIsUndone runs exchanges between replicas with random differences, while
// writes go to both and messages are lost. Nothing that a replica had it loses; when
// it is calm again the two hold the same, and all that was ever written.
func TestNothingIsUndone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, a: newReplica(t, 100), b: newReplica(t, 100)}
		sides := []*replica{w.a, w.b}
		key := rapid.Custom(func(t *rapid.T) int {
			if rapid.Bool().Draw(t, "close") {
				return rapid.IntRange(1000, 1020).Draw(t, "key")
			}
			return rapid.IntRange(0, 60).Draw(t, "key")
		})
		all := map[int]record{}
		write := func() {
			k, bit := key.Draw(t, "key"), record(1)<<rapid.IntRange(0, 63).Draw(t, "write")
			all[k] |= bit
			rapid.SampledFrom(sides).Draw(t, "side").merge(k, bit)
		}
		had := []map[int]record{{}, {}}
		noLoss := func() {
			for i, r := range sides {
				for k, rec := range had[i] {
					if rec&^r.store[k] != 0 {
						t.Fatalf("replica %d lost writes of key %d", i, k)
					}
				}
				had[i] = maps.Clone(r.store)
			}
		}
		if rapid.Bool().Draw(t, "many") {
			for k := range 1500 {
				all[k+2000] = 1
				sides[k%7%2].merge(k+2000, 1)
			}
		}
		number, chaos := uint64(0), true
		w.turn = func() bool {
			if !chaos {
				return true
			}
			noLoss()
			switch rapid.IntRange(0, 9).Draw(t, "meanwhile") {
			case 0, 1, 2:
				write()
			case 3:
				return false
			}
			return true
		}
		for round := range rapid.Uint64Range(1, 4).Draw(t, "rounds") {
			for range rapid.IntRange(0, 30).Draw(t, "writes") {
				write()
			}
			w.run(number, round)
			number = w.x.Number()
		}
		chaos = false
		last := w.run(number, 7)
		noLoss()
		same(t, "in the end", w)
		if !last.Complete || !maps.Equal(w.a.store, all) {
			t.Fatalf("%+v; written were %d keys, here are %d", last, len(all), len(w.a.store))
		}
		// The last one may have found leaves to recheck.
		if after := w.run(w.x.Number(), 8); !after.Equal {
			t.Fatalf("after the end: %+v", after)
		}
	})
}

// TestEveryMoment puts one write to either side, and a loss, at every moment of an
// exchange.
func TestEveryMoment(t *testing.T) {
	runs := 0
	for first, more := 0, true; more; first++ {
		for second := first; ; second++ {
			w := pair(t, 40, 10)
			w.a.merge(1, 2) // only here
			w.b.merge(2, 2) // only there
			w.a.merge(3, 4) // both
			w.b.merge(3, 8)
			w.b.merge(100, 1) // a key that is missing
			now := 0
			w.turn = func() bool {
				now++
				if now-1 == first {
					w.a.merge(3, 16)
					w.a.merge(2, 32)
				}
				if now-1 == second {
					w.b.merge(3, 64)
					w.b.merge(1, 128)
					return first%2 == 0
				}
				return true
			}
			out := w.run(0, 0)
			moments := now
			w.turn = calm
			w.run(w.x.Number(), 1)
			same(t, fmt.Sprintf("writes at %d and %d, first %+v", first, second, out), w)
			written := first < moments && second < moments
			if written && (w.a.store[3] != 1|4|8|16|64 || w.a.store[2] != 1|2|32 || w.a.store[1] != 1|2|128) {
				t.Fatalf("writes at %d and %d: %b %b %b", first, second, w.a.store[1], w.a.store[2], w.a.store[3])
			}
			if out := w.run(w.x.Number(), 2); !out.Equal {
				t.Fatalf("writes at %d and %d: %+v", first, second, out)
			}
			runs++
			if second >= moments {
				more = first < moments
				break
			}
		}
	}
	if runs < 50 {
		t.Errorf("only %d runs", runs)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	tree := hashtree.New(1, 0)
	for name, c := range map[string]Compare{
		"too deep": {Index: []uint32{0}, Bits: 6, To: 7}, "too wide": {Index: []uint32{0}, To: 5}, "upwards": {Index: []uint32{0}, Bits: 4, To: 4},
		"none": {To: 4}, "twice": {Bits: 2, Index: []uint32{1, 1}, To: 4}, "outside": {Bits: 2, Index: []uint32{4}, To: 4},
		"many": {Bits: 6, Index: make([]uint32, 200), To: 8},
	} {
		if _, err := Digests(tree, c); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, l := range map[string]List{
		"none": {Bits: 6}, "outside": {Bits: 6, Index: []uint32{64}}, "deep": {Bits: 99, Index: []uint32{0}},
	} {
		if err := l.Check(); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, _, err := Meet(tree, hashtree.Hash{1}, 200, 0); err != nil {
		t.Errorf("a larger tree: %v", err)
	}
	if _, _, _, err := Meet(tree, hashtree.Hash{1}, 0, 0); !errors.Is(err, ErrRequest) {
		t.Errorf("a tree of nothing: %v", err)
	}
}

func TestBatch(t *testing.T) {
	const m = MaxRecordBytes
	for _, tc := range []struct {
		sizes []int
		want  [4]int
	}{
		{nil, [4]int{}}, {[]int{m + 1, 1}, [4]int{1, 1, 0, m + 1}}, {[]int{0, -1, m, -1, 0, 1, 0}, [4]int{5, 1, 2, m}},
		{[]int{m / 2, m / 2, 1}, [4]int{2, 2, 0, m}}, {[]int{0, 0}, [4]int{2, 0, 0, 0}},
	} {
		h, r, d, n := Batch(tc.sizes)
		if got := [4]int{h, r, d, n}; got != tc.want {
			t.Errorf("%v: %v, want %v", tc.sizes, got, tc.want)
		}
	}
}

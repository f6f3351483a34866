package vnode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
)

const second = dynamo.Timestamp(time.Second)

func inc(b byte) clock.Incarnation { return clock.Incarnation{b} }

func open(b byte) *State { return Open(inc(b), 1, 1000, true, 0) }

// must coordinates a write that is expected to succeed.
func must(t *testing.T, s *State, st Stored, p Put) Result {
	t.Helper()
	r, err := s.Coordinate(st, p)
	if err != nil {
		t.Fatalf("Coordinate: %v", err)
	}
	return r
}

func values(st Stored) string {
	var out [][]byte
	for _, v := range st.Record.Versions {
		if v.Tombstone {
			out = append(out, []byte("-"))
			continue
		}
		out = append(out, v.Value)
	}
	return string(bytes.Join(out, []byte(",")))
}

func TestCoordinateSupersedesWhatTheContextCovers(t *testing.T) {
	s := open(1)
	a := must(t, s, Stored{}, Put{Value: []byte("a"), Now: second})
	b := must(t, s, a.Stored, Put{Value: []byte("b"), Now: 2 * second})
	if got := values(b.Stored); got != "a,b" {
		t.Fatalf("a blind write must be concurrent: have %s", got)
	}
	c := must(t, s, b.Stored, Put{Value: []byte("c"), Context: a.Stored.Record.Context(), Now: 3 * second})
	if got := values(c.Stored); got != "b,c" {
		t.Fatalf("the context covers only a: have %s", got)
	}
	d := must(t, s, c.Stored, Put{Tombstone: true, Context: c.Stored.Record.Context(), Now: 4 * second})
	if got := values(d.Stored); got != "-" {
		t.Fatalf("delete with a full context: have %s", got)
	}
	if d.Dot.Actor != a.Dot.Actor || d.Dot.Counter != 4 {
		t.Fatalf("counters under one actor run without gaps: %v after %v", d.Dot, a.Dot)
	}
}

func TestNewEpochWhenTheVnodeMayHaveForgotten(t *testing.T) {
	mine := func(epoch, counter uint64) version.Record {
		a := clock.Actor{Incarnation: inc(1), Epoch: epoch}
		return version.Record{
			Clock:    clock.Of(clock.Entry{Actor: a, Counter: counter, Time: second}),
			Versions: []version.Version{{Dot: clock.Dot{Actor: a, Counter: counter}, Time: second, Value: []byte(fmt.Sprint(epoch, counter))}},
		}
	}
	for _, tc := range []struct {
		name   string
		state  *State
		stored Stored
		seen   clock.Clock
		accept version.Record
		fresh  bool
	}{
		{name: "no local record", state: Open(inc(1), 7, 100, true, 0), fresh: true},
		{name: "own entry as stored", state: Open(inc(1), 7, 100, true, 0), stored: Stored{Record: mine(3, 2)}},
		{name: "context shows an own entry above", state: Open(inc(1), 7, 100, true, 0), stored: Stored{Record: mine(3, 2)}, seen: mine(3, 3).Clock, fresh: true},
		{name: "context shows an own epoch unknown here", state: Open(inc(1), 7, 100, true, 0), stored: Stored{Record: mine(3, 2)}, seen: mine(5, 1).Clock, fresh: true},
		{name: "context shows no more than stored", state: Open(inc(1), 7, 100, true, 0), stored: Stored{Record: mine(3, 2)}, seen: mine(3, 1).Clock},
		{name: "a record brought an own entry above", state: Open(inc(1), 7, 100, true, 0), stored: Stored{Record: mine(3, 2)}, accept: mine(3, 4), fresh: true},
		{name: "a record brought an own entry back", state: Open(inc(1), 7, 100, true, 0), accept: mine(3, 1), fresh: true},
		{name: "unclean start raised the floor", state: Open(inc(1), 7, 100, false, 0), stored: Stored{Record: mine(3, 2)}, fresh: true},
		{name: "floor of an earlier unclean start", state: Open(inc(1), 7, 100, true, 5), stored: Stored{Record: mine(3, 2)}, fresh: true},
		{name: "floor below the entry", state: Open(inc(1), 7, 100, true, 2), stored: Stored{Record: mine(3, 2)}},
		{name: "lease was rolled back below what is seen", state: Open(inc(1), 2, 100, true, 0), stored: Stored{Record: mine(3, 2)}, seen: mine(9, 1).Clock, fresh: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := tc.stored
			if !tc.accept.IsZero() {
				var err error
				if st, _, err = tc.state.Accept(st, tc.accept); err != nil {
					t.Fatal(err)
				}
			}
			r := must(t, tc.state, st, Put{Value: []byte("new"), Context: version.Context{Clock: tc.seen}, Now: 9 * second})
			if r.NewEpoch != tc.fresh {
				t.Fatalf("new epoch: %v, want %v (dot %v)", r.NewEpoch, tc.fresh, r.Dot)
			}
			if !tc.fresh {
				return
			}
			if r.Dot.Counter != 1 {
				t.Fatalf("a new epoch begins at counter 1: %v", r.Dot)
			}
			for _, c := range []clock.Clock{st.Record.Clock, tc.seen} {
				if e, ok := c.Latest(inc(1)); ok && e.Actor.Epoch >= r.Dot.Actor.Epoch {
					t.Fatalf("new epoch %d is not above the seen epoch %d", r.Dot.Actor.Epoch, e.Actor.Epoch)
				}
			}
		})
	}
}

func TestRaiseFloorAfterFailedCommit(t *testing.T) {
	s := open(1)
	a := must(t, s, Stored{}, Put{Value: []byte("a"), Now: second})
	s.RaiseFloor() // the commit of a may be lost here while replicas have it
	b := must(t, s, a.Stored, Put{Value: []byte("b"), Now: second})
	if !b.NewEpoch {
		t.Fatalf("the epoch of a failed commit was continued: %v", b.Dot)
	}
}

func TestLease(t *testing.T) {
	s := Open(inc(1), 1, 2, true, 0)
	must(t, s, Stored{}, Put{Value: []byte("a"), Now: second})
	if _, err := s.Coordinate(Stored{}, Put{Value: []byte("b"), Now: second}); !errors.Is(err, ErrLease) {
		t.Fatalf("want ErrLease with the lease used up, have %v", err)
	}
	s.Extend(s.Lease(10))
	if r := must(t, s, Stored{}, Put{Value: []byte("b"), Now: second}); r.Dot.Actor.Epoch != 2 {
		t.Fatalf("after the lease: %v", r.Dot)
	}
}

// TestForgedEpoch: a context is not signed, so a client can make one that names
// any epoch of a vnode. It must not use up the epochs of the vnode's other keys.
func TestForgedEpoch(t *testing.T) {
	for _, epoch := range []uint64{1 << 40, 1<<63 + 1, ^uint64(0) - 1, ^uint64(0)} {
		s := open(1)
		forged := clock.Of(clock.Entry{Actor: clock.Actor{Incarnation: inc(1), Epoch: epoch}, Counter: 1})
		if _, err := s.Coordinate(Stored{}, Put{Context: version.Context{Clock: forged}, Now: second}); !errors.Is(err, ErrEpoch) {
			t.Fatalf("epoch %d: %v", epoch, err)
		}
		poisoned, _, err := s.Accept(Stored{}, version.Record{Clock: forged})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Coordinate(poisoned, Put{Now: second}); !errors.Is(err, ErrEpoch) {
			t.Fatalf("epoch %d in a record: %v", epoch, err)
		}
		if r := must(t, s, Stored{}, Put{Now: second}); r.Dot.Actor.Epoch != 1 {
			t.Fatalf("epoch %d: another key gets %v", epoch, r.Dot)
		}
	}
}

func TestStartStop(t *testing.T) {
	s, m := Start(Meta{}, false, inc(4), 10)
	first := must(t, s, Stored{}, Put{Value: []byte("a"), Now: second})
	if m.Clean || m.Incarnation != inc(4) || m.Limit <= first.Dot.Actor.Epoch {
		t.Fatalf("lease %+v does not cover %v", m, first.Dot)
	}

	crashed, _ := Start(m, true, inc(9), 10)
	if crashed.Incarnation() != inc(4) {
		t.Fatal("a stored incarnation is kept")
	}
	if r := must(t, crashed, first.Stored, Put{Value: []byte("b"), Now: second}); !r.NewEpoch || r.Dot.Actor.Epoch < m.Limit {
		t.Fatalf("after a crash an epoch at or above the lease's end begins: %v, lease ended at %d", r.Dot, m.Limit)
	}

	clean, _ := Start(s.Stop(), true, inc(9), 10)
	if r := must(t, clean, first.Stored, Put{Value: []byte("b"), Now: second}); r.NewEpoch {
		t.Fatalf("after a clean stop the epoch goes on: %v", r.Dot)
	}
	if r := must(t, clean, Stored{}, Put{Value: []byte("c"), Now: second}); r.Dot.Actor.Epoch <= first.Dot.Actor.Epoch {
		t.Fatalf("a used epoch was given out again: %v", r.Dot)
	}
}

func TestMetaCodec(t *testing.T) {
	m := Meta{Incarnation: inc(3), Limit: 9, Floor: 4, Clean: true, Next: 7}
	got, err := DecodeMeta(m.Encode())
	if err != nil || got != m {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range m.Encode() {
		b := m.Encode()
		b[i] ^= 0x40
		if _, err := DecodeMeta(b); err == nil {
			t.Fatalf("a flipped bit in byte %d went unnoticed", i)
		}
	}
}

// TestSlowClockRemembers: the request of a coordinator whose clock is behind is
// the newest all the same.
func TestSlowClockRemembers(t *testing.T) {
	s, id := open(1), dynamo.RequestID{1}
	var st Stored
	for i := range version.RecentRequests {
		st = must(t, s, st, Put{Request: dynamo.RequestID{2, byte(i)}, Context: st.Record.Context(), Now: 1000 * second}).Stored
	}
	slow := Put{Value: []byte("v"), Request: id, Context: st.Record.Context(), Now: 500 * second}
	st = must(t, s, st, slow).Stored
	st = must(t, s, st, Put{Tombstone: true, Context: st.Record.Context(), Now: 1001 * second}).Stored
	slow.Retry, slow.Age = true, time.Second
	if r := must(t, s, st, slow); !r.Known {
		t.Fatal("a request of a moment ago is forgotten")
	}
}

func TestSiblingLimit(t *testing.T) {
	s := open(1)
	var st Stored
	for i := range 3 {
		st = must(t, s, st, Put{Value: []byte{byte(i)}, MaxSiblings: 3, Now: second}).Stored
	}
	if _, err := s.Coordinate(st, Put{MaxSiblings: 3, Now: second}); !errors.Is(err, ErrSiblings) {
		t.Fatalf("want ErrSiblings, have %v", err)
	}
	r := must(t, s, st, Put{Value: []byte("merged"), Context: st.Record.Context(), MaxSiblings: 1, Now: second})
	if len(r.Stored.Record.Versions) != 1 {
		t.Fatal("a write that reduces the siblings is always taken")
	}
}

// TestSiblingBytes: a record has to fit into one message, or nobody could read
// and merge it any more.
func TestSiblingBytes(t *testing.T) {
	s := open(1)
	big := make([]byte, dynamo.MaxSiblingBytes/4)
	var st Stored
	for range 4 {
		st = must(t, s, st, Put{Value: big, Now: second}).Stored
	}
	if _, err := s.Coordinate(st, Put{Value: []byte{1}, Now: second}); !errors.Is(err, ErrSiblings) {
		t.Fatalf("want ErrSiblings, have %v", err)
	}
	must(t, s, st, Put{Tombstone: true, Now: second})
	must(t, s, st, Put{Value: make([]byte, 2*dynamo.MaxSiblingBytes), Context: st.Record.Context(), Now: second})

	// Replication may leave more than the limit; what reduces it is taken.
	other := must(t, open(2), Stored{}, Put{Value: big, Now: second}).Stored
	more, _, err := s.Accept(st, other.Record)
	if err != nil || len(more.Record.Versions) != 5 {
		t.Fatalf("%d versions, %v", len(more.Record.Versions), err)
	}
	must(t, s, more, Put{Value: big[1:], Context: other.Record.Context(), Now: second})
}

func TestClockAhead(t *testing.T) {
	s := open(1)
	st := must(t, s, Stored{}, Put{Value: []byte("a"), Now: 3600 * second}).Stored
	if _, err := s.Coordinate(st, Put{Conflicts: dynamo.LastWriteWins, Now: second}); !errors.Is(err, ErrClockAhead) {
		t.Fatalf("want ErrClockAhead, have %v", err)
	}
	r := must(t, s, st, Put{Conflicts: dynamo.LastWriteWins, Value: []byte("b"), Now: 3599 * second})
	if latest, ok := r.Stored.Record.Latest(3600 * second); !ok || string(latest.Value) != "b" {
		t.Fatalf("a later write wins although its clock is behind: %q", latest.Value)
	}
	// A time from the far future in a client's context does not stay.
	forged := version.Context{Clock: clock.Of(clock.Entry{Actor: clock.Actor{Epoch: 1}, Counter: 1, Time: 1 << 62})}
	r = must(t, s, st, Put{Conflicts: dynamo.LastWriteWins, Context: forged, Value: []byte("c"), Now: 3600 * second})
	must(t, s, r.Stored, Put{Conflicts: dynamo.LastWriteWins, Value: []byte("d"), Now: 3601 * second})
}

func TestTruncationOnlyWithFullContext(t *testing.T) {
	s := open(1)
	var entries []clock.Entry
	for i := range 60 {
		entries = append(entries, clock.Entry{Actor: clock.Actor{Incarnation: inc(byte(i + 2)), Epoch: 1}, Counter: 1, Time: dynamo.Timestamp(i)})
	}
	st := Stored{Record: version.Record{Clock: clock.Of(entries...)}}
	if r := must(t, s, st, Put{Now: second}); r.Truncated != 0 {
		t.Fatal("a blind write truncated the clock")
	}
	r := must(t, s, st, Put{Context: st.Record.Context(), Now: second})
	if r.Truncated != 61-DefaultPrune || r.Stored.Record.Clock.Len() != DefaultPrune {
		t.Fatalf("truncated %d, %d left", r.Truncated, r.Stored.Record.Clock.Len())
	}
	if r.Stored.Record.Clock.Covers(clock.Dot{Actor: entries[0].Actor, Counter: 1}) || !r.Stored.Record.Clock.Covers(r.Dot) {
		t.Fatal("the oldest entries go, the new write's stays")
	}
	if r := must(t, s, st, Put{Context: st.Record.Context(), Prune: -1, Now: second}); r.Truncated != 0 {
		t.Fatal("a negative limit never truncates")
	}
}

func TestAcceptReportsBrokenDots(t *testing.T) {
	s := open(1)
	d := clock.Dot{Actor: clock.Actor{Incarnation: inc(2), Epoch: 1}, Counter: 1}
	rec := func(v string) version.Record {
		return version.Record{
			Clock:    clock.Of(clock.Entry{Actor: d.Actor, Counter: 1}),
			Versions: []version.Version{{Dot: d, Value: []byte(v)}},
		}
	}
	if _, _, err := s.Accept(Stored{Record: rec("a")}, rec("b")); !errors.Is(err, ErrBroken) {
		t.Fatalf("want ErrBroken, have %v", err)
	}
	if _, changed, err := s.Accept(Stored{Record: rec("a")}, rec("a")); err != nil || changed {
		t.Fatalf("the same record changes nothing: %v %v", changed, err)
	}
}

func TestStoredCodec(t *testing.T) {
	s := open(1)
	key := []byte("storage key")
	st := must(t, s, Stored{}, Put{Value: []byte("value"), Request: dynamo.RequestID{1}, TTL: time.Hour, Now: second}).Stored
	st.Barred = 300
	b := AppendStored(nil, key, st)
	got, err := DecodeStored(key, b)
	if err != nil || got.Barred != 300 || !got.Record.Equal(st.Record) || values(got) != "value" {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			if _, err := DecodeStored(key, bad); !errors.Is(err, ErrChecksum) {
				t.Fatalf("bit %d of byte %d flipped: %v, want that the checksum fails", bit, i, err)
			}
		}
	}
	newer := append([]byte{storedFormat + 1}, b[1:]...)
	binary.BigEndian.PutUint32(newer[1:], storedSum(key, newer[:1], newer[5:]))
	if _, err := DecodeStored(key, newer); !errors.Is(err, ErrFormat) {
		t.Errorf("a value of a newer program: %v", err)
	}
	first := append([]byte{firstFormat}, b[1:]...)
	binary.BigEndian.PutUint32(first[1:], storedSum(key, nil, first[5:]))
	if got, err := DecodeStored(key, first); err != nil || !got.Record.Equal(st.Record) {
		t.Errorf("a value of the first format: %+v, %v", got, err)
	}
	if _, err := DecodeStored([]byte("another key"), b); !errors.Is(err, ErrChecksum) {
		t.Fatalf("a value under another key must fail its checksum, have %v", err)
	}
	whole, err := StoredRecord(key, b, 0)
	if err != nil || !bytes.Equal(whole, version.Append(nil, st.Record)) {
		t.Fatalf("StoredRecord: %v", err)
	}
	digest, err := StoredRecord(key, b, 3)
	if err != nil {
		t.Fatal(err)
	}
	if rec, err := version.Decode(digest); err != nil || len(rec.Missing()) != 1 {
		t.Fatalf("digest: %+v, %v", rec, err)
	}
}

func TestKeysSortByPartitionAndPosition(t *testing.T) {
	low := AppendObjectKey(nil, 3, 3, [16]byte{1}, dynamo.Key{Bucket: "b", Name: "z"})
	high := AppendObjectKey(nil, 3, 3, [16]byte{2}, dynamo.Key{Bucket: "a", Name: "a"})
	lower, upper := ObjectRange(3)
	if bytes.Compare(low, high) >= 0 || bytes.Compare(lower, low) > 0 || bytes.Compare(high, upper) >= 0 {
		t.Fatal("keys are not ordered by position within their partition's range")
	}
	p, k, ok := ParseObjectKey(low)
	if !ok || p != 3 || k != (dynamo.Key{Bucket: "b", Name: "z"}) {
		t.Fatalf("%v %v %v", p, k, ok)
	}
	for _, bad := range [][]byte{nil, []byte("m"), low[:10], MetaKey(3)} {
		if _, _, ok := ParseObjectKey(bad); ok {
			t.Fatalf("%q was taken for an object key", bad)
		}
	}
}

// TestTreeKeys: positions are ranges of objects, and checkpoints and marks of one n lie
// apart from those of another, and from all objects.
func TestTreeKeys(t *testing.T) {
	last := [16]byte(bytes.Repeat([]byte{0xff}, 16))
	key := dynamo.Key{Bucket: "b", Name: "k"}
	for _, tc := range []struct {
		first, last, position [16]byte
		in                    bool
	}{
		{[16]byte{}, last, [16]byte{}, true},
		{[16]byte{}, last, last, true},
		{[16]byte{4}, [16]byte{5}, [16]byte{5}, true},
		{[16]byte{4}, [16]byte{5}, [16]byte{5, 1}, false},
		{[16]byte{4}, [16]byte{5}, [16]byte{3, 0xff}, false},
	} {
		lower, upper := PositionRange(7, 3, tc.first, tc.last)
		object := AppendObjectKey(nil, 7, 3, tc.position, key)
		if in := bytes.Compare(lower, object) <= 0 && bytes.Compare(object, upper) < 0; in != tc.in {
			t.Errorf("%x in %x to %x: %v", tc.position, tc.first, tc.last, in)
		}
		for _, other := range [][]byte{AppendObjectKey(nil, 7, 4, tc.position, key), AppendObjectKey(nil, 8, 3, tc.position, key)} {
			if bytes.Compare(lower, other) <= 0 && bytes.Compare(other, upper) < 0 {
				t.Errorf("%x is in the range of another n or partition", other)
			}
		}
	}
	lower, upper := MarkRange(7, 3)
	for _, mark := range []uint32{0, 1, 255, 256, 1023} {
		k := MarkKey(7, 3, mark)
		if got, ok := ParseMark(k); !ok || got != mark {
			t.Errorf("mark %d is read as %d, %v", mark, got, ok)
		}
		if bytes.Compare(k, lower) < 0 || bytes.Compare(k, upper) >= 0 {
			t.Errorf("mark %d is not in its range", mark)
		}
	}
	for _, other := range [][]byte{MarkKey(7, 2, 1023), MarkKey(7, 4, 0), MarkKey(6, 3, 0), MarkKey(8, 3, 0), TreeKey(7, 3, 4, 15), MetaKey(7)} {
		if bytes.Compare(lower, other) <= 0 && bytes.Compare(other, upper) < 0 {
			t.Errorf("%x is among the marks", other)
		}
		if _, _, ok := ParseObjectKey(other); ok {
			t.Errorf("%x is an object's", other)
		}
	}
	between := func(lower, upper, key []byte) bool {
		return bytes.Compare(lower, key) <= 0 && bytes.Compare(key, upper) < 0
	}
	for mark, in := range map[uint32]bool{4: false, 5: true, 300: true, 301: false} {
		if lower, upper := MarkSpan(7, 3, 5, 300); between(lower, upper, MarkKey(7, 3, mark)) != in {
			t.Errorf("mark %d in the span from 5 to 300: %v", mark, !in)
		}
	}
	lower, upper = TreeRange(7, 3)
	first, after := TreeParts(7, 3, 4)
	for _, tc := range []struct {
		key        []byte
		of, parted bool
	}{
		{TreeKey(7, 3, 4, 0), true, true}, {TreeKey(7, 3, 4, 1023), true, true}, {TreeKey(7, 3, 3, 7), true, false}, {TreeKey(7, 3, 5, 0), true, false},
		{lower, true, false}, {TreeKey(7, 4, 4, 0), false, false}, {TreeKey(8, 3, 4, 0), false, false}, {MarkKey(7, 3, 0), false, false},
	} {
		if of, parted := between(lower, upper, tc.key), between(first, after, tc.key); of != tc.of || parted != tc.parted {
			t.Errorf("%x is of the tree: %v, of its parts of that width: %v", tc.key, of, parted)
		}
		if _, ok := ParseMark(tc.key); ok != (tc.key[1] == 'k') {
			t.Errorf("%x is a mark: %v", tc.key, ok)
		}
	}
}

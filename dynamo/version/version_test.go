package version

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
)

func actorOf(b byte, epoch uint64) clock.Actor {
	return clock.Actor{Incarnation: clock.Incarnation{b}, Epoch: epoch}
}

// history draws a set of records that replicas could hold: writes to a few
// replicas, each on what that replica held or less, merged at random.
func history(t *rapid.T) []Record {
	const replicas = 3
	held := make([]Record, replicas)
	counters := map[clock.Actor]uint64{}
	var out []Record
	steps := rapid.IntRange(1, 12).Draw(t, "steps")
	for i := range steps {
		at := rapid.IntRange(0, replicas-1).Draw(t, "at")
		if from := rapid.IntRange(0, replicas).Draw(t, "from"); from < replicas {
			held[at] = Merge(held[at], held[from])
		}
		a := actorOf(byte(at+1), uint64(rapid.IntRange(1, 2).Draw(t, "epoch")))
		counters[a] = max(counters[a], held[at].Clock.Counter(a)) + 1
		held[at] = write(t, held[at], clock.Entry{Actor: a, Counter: counters[a], Time: dynamo.Timestamp(i + 1)})
		out = append(out, held[at])
	}
	return out
}

func write(t *rapid.T, r Record, e clock.Entry) Record {
	v := Version{Dot: clock.Dot{Actor: e.Actor, Counter: e.Counter}, Time: e.Time}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		v.Tombstone = true
	case 1:
		v.Expires = e.Time + 5
		fallthrough
	default:
		v.Value = []byte{byte(e.Time), byte(e.Counter)}
	}
	if rapid.Bool().Draw(t, "id") {
		v.Request = dynamo.RequestID{byte(e.Time)}
	}
	kept := r.Versions
	if rapid.Bool().Draw(t, "context") {
		kept = nil
	}
	out := Record{Clock: r.Clock.With(e), Versions: Insert(slices.Clone(kept), v), Recent: r.Recent, Forgotten: r.Forgotten}
	return out.Remember(Applied{Request: v.Request, Dot: v.Dot, Time: e.Time, Retried: rapid.Bool().Draw(t, "retried")}, e.Time-8)
}

func pick(t *rapid.T, h []Record, label string) Record { return rapid.SampledFrom(h).Draw(t, label) }

func TestMergeIsASemilattice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := history(t)
		a, b, c := pick(t, h, "a"), pick(t, h, "b"), pick(t, h, "c")
		if !Merge(a, a).Equal(a) {
			t.Fatal("not idempotent")
		}
		ab := Merge(a, b)
		if !ab.Equal(Merge(b, a)) {
			t.Fatal("not commutative")
		}
		if left, right := Merge(ab, c), Merge(a, Merge(b, c)); !left.Equal(right) {
			t.Fatalf("not associative:\n%+v\n%+v", left, right)
		}
		if !ab.Descends(a) || !ab.Descends(b) {
			t.Fatal("a merge descends from both")
		}
		if a.Descends(b) != Merge(a, b).SameCausal(a) {
			t.Fatal("descends must mean that merging adds nothing")
		}
		if (a.CausalHash() == b.CausalHash()) != a.SameCausal(b) {
			t.Fatal("the hash must tell the same as the comparison")
		}
	})
}

func TestMergeLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := history(t)
		a, b := pick(t, h, "a"), pick(t, h, "b")
		m := Merge(a, b)
		for _, v := range a.Versions {
			if !m.Has(v.Dot) && (!b.Clock.Covers(v.Dot) || b.Has(v.Dot)) {
				t.Fatalf("%v is gone though the other side had not superseded it", v.Dot)
			}
		}
		for _, v := range m.Versions {
			if !a.Has(v.Dot) && !b.Has(v.Dot) {
				t.Fatalf("%v came from nowhere", v.Dot)
			}
		}
	})
}

func TestTwinsOfOneRequestBecomeOne(t *testing.T) {
	twin := func(b byte) Record {
		a := actorOf(b, 1)
		return Record{
			Clock:    clock.Of(clock.Entry{Actor: a, Counter: 1}),
			Versions: []Version{{Dot: clock.Dot{Actor: a, Counter: 1}, Request: dynamo.RequestID{7}, Value: []byte("once")}},
		}
	}
	m := Merge(twin(2), twin(1))
	if len(m.Versions) != 1 || m.Versions[0].Dot.Actor != actorOf(1, 1) {
		t.Fatalf("a write coordinated twice shows as %d versions", len(m.Versions))
	}
	if !m.Clock.Covers(clock.Dot{Actor: actorOf(2, 1), Counter: 1}) {
		t.Fatal("the twin's dot is not covered")
	}
}

func TestLiveAndLatest(t *testing.T) {
	v := func(n uint64, at, expires dynamo.Timestamp, dead bool) Version {
		return Version{Dot: clock.Dot{Actor: actorOf(1, n), Counter: 1}, Time: at, Expires: expires, Tombstone: dead}
	}
	for _, tc := range []struct {
		name     string
		versions []Version
		now      dynamo.Timestamp
		live     int
		latest   uint64 // epoch of the expected version, 0 for none
	}{
		{name: "nothing", now: 1},
		{name: "later wins", versions: []Version{v(1, 5, 0, false), v(2, 4, 0, false)}, now: 9, live: 2, latest: 1},
		{name: "ties go to the higher dot", versions: []Version{v(1, 5, 0, false), v(2, 5, 0, false)}, now: 9, live: 2, latest: 2},
		{name: "a later tombstone hides", versions: []Version{v(1, 4, 0, false), v(2, 5, 0, true)}, now: 9, live: 1},
		{name: "an earlier tombstone does not", versions: []Version{v(1, 6, 0, false), v(2, 5, 0, true)}, now: 9, live: 1, latest: 1},
		{name: "not yet expired", versions: []Version{v(1, 5, 10, false)}, now: 9, live: 1, latest: 1},
		{name: "expires on the instant", versions: []Version{v(1, 5, 9, false)}, now: 9},
		{name: "an expired later write does not bring back an older", versions: []Version{v(1, 4, 0, false), v(2, 5, 9, false)}, now: 9, live: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := Record{Versions: tc.versions}
			if got := len(r.Live(tc.now)); got != tc.live {
				t.Errorf("%d live, want %d", got, tc.live)
			}
			best, ok := r.Latest(tc.now)
			if ok != (tc.latest != 0) || ok && best.Dot.Actor.Epoch != tc.latest {
				t.Errorf("latest is %v %v, want epoch %d", best.Dot, ok, tc.latest)
			}
		})
	}
}

func TestOmitAndMergeBringValuesBack(t *testing.T) {
	a := actorOf(1, 1)
	full := Record{
		Clock:    clock.Of(clock.Entry{Actor: a, Counter: 1}),
		Versions: []Version{{Dot: clock.Dot{Actor: a, Counter: 1}, Value: []byte("long value")}},
	}
	head, omitted := full.Omit(4)
	if !omitted || len(head.Missing()) != 1 || head.Versions[0].Value != nil || string(full.Versions[0].Value) != "long value" {
		t.Fatalf("%+v", head)
	}
	if same, omitted := full.Omit(10); omitted || !same.Equal(full) {
		t.Fatal("a value at the limit was left out")
	}
	for _, m := range []Record{Merge(head, full), Merge(full, head)} {
		if len(m.Missing()) != 0 || string(m.Versions[0].Value) != "long value" {
			t.Fatalf("the value is missing after a merge: %+v", m)
		}
	}
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := history(t)
		r := Merge(pick(t, h, "a"), pick(t, h, "b"))
		if rapid.Bool().Draw(t, "omit") {
			r, _ = r.Omit(1)
		}
		b := Append([]byte("prefix"), r)[len("prefix"):]
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		if !got.Equal(r) || !bytes.Equal(Append(nil, got), b) {
			t.Fatal("a record changed on its way through its encoding")
		}
		for i, v := range got.Versions {
			w := r.Versions[i]
			if !bytes.Equal(v.Value, w.Value) || v.Time != w.Time || v.Expires != w.Expires || v.Tombstone != w.Tombstone ||
				v.Omitted != w.Omitted || v.Request != w.Request {
				t.Fatalf("version %d: %+v, want %+v", i, v, w)
			}
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, err := Decode(b[:cut]); err == nil {
			t.Fatalf("a record cut to %d of %d bytes decodes", cut, len(b))
		}
		if _, err := Decode(append(bytes.Clone(b), 0)); err == nil {
			t.Fatal("a trailing byte went unnoticed")
		}
	})
}

func TestContext(t *testing.T) {
	key := dynamo.Key{Bucket: "b", Name: "k"}
	c := Context{
		Clock:       clock.Of(clock.Entry{Actor: actorOf(1, 2), Counter: 3, Time: 4}, clock.Entry{Actor: actorOf(1, 3), Counter: 1}),
		Coordinator: "n1",
	}
	b := c.Encode(key)
	got, err := DecodeContext(key, b)
	if err != nil || !got.Clock.Equal(c.Clock) || got.Coordinator != "n1" {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := DecodeContext(key, nil); err != nil || !got.IsZero() {
		t.Fatalf("no bytes are the zero context: %v, %v", got, err)
	}
	if b := (Context{Coordinator: "n1"}).Encode(key); b != nil {
		t.Fatalf("the zero context has bytes: %x", b)
	}
	for _, other := range []dynamo.Key{{Bucket: "b", Name: "k2"}, {Bucket: "bk", Name: ""}, {Bucket: "", Name: "bk"}} {
		if _, err := DecodeContext(other, b); !errors.Is(err, ErrContext) {
			t.Errorf("the context of %v was taken for one of %v: %v", key, other, err)
		}
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		if _, err := DecodeContext(key, bad); err == nil {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
		if _, err := DecodeContext(key, b[:i]); err == nil && i > 0 {
			t.Errorf("a context cut to %d bytes was taken", i)
		}
	}
	if _, err := DecodeContext(key, make([]byte, dynamo.MaxContext+1)); !errors.Is(err, ErrContextSize) {
		t.Errorf("want ErrContextSize, have %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	a := actorOf(1, 1)
	f.Add(Append(nil, Record{}))
	f.Add(Append(nil, Record{
		Clock:    clock.Of(clock.Entry{Actor: a, Counter: 2, Time: 5}, clock.Entry{Actor: actorOf(1, 2), Counter: 1}),
		Versions: []Version{{Dot: clock.Dot{Actor: a, Counter: 2}, Request: dynamo.RequestID{1}, Expires: 9, Value: []byte("v")}},
		Recent:   []Applied{{Request: dynamo.RequestID{1}, Dot: clock.Dot{Actor: a, Counter: 2}, Time: 5, Retried: true}},
	}))
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again := Append(nil, r)
		if b[0] < format { // read, never written
			old := b
			if b = again; len(b) != len(old)+1 {
				t.Fatalf("%x became %x", old, b)
			}
			if r, err = Decode(b); err != nil {
				t.Fatal(err)
			}
			again = Append(nil, r)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("not canonical:\n%x\n%x", b, again)
		}
	})
}

func FuzzDecodeContext(f *testing.F) {
	key := dynamo.Key{Bucket: "b", Name: "k"}
	f.Add(Context{Clock: clock.Of(clock.Entry{Actor: actorOf(1, 1), Counter: 2, Time: 5}), Coordinator: "n1"}.Encode(key))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Give the body a right checksum, so that what lies behind it is reached.
		if len(b) > 4 && len(b) <= dynamo.MaxContext {
			sum := contextSum(key, b[:len(b)-4])
			b = append(bytes.Clone(b[:len(b)-4]), byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
		}
		c, err := DecodeContext(key, b)
		if err != nil || len(b) == 0 {
			return
		}
		if again := c.Encode(key); !bytes.Equal(again, b) {
			t.Fatalf("not canonical:\n%x\n%x", b, again)
		}
	})
}

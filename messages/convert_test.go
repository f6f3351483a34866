package messages

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/version"
)

var key = dynamo.Key{Bucket: "b", Name: "k"}

// someRecord has a value, a tombstone and a clock.
func someRecord() version.Record {
	at := func(id byte, n uint64) clock.Dot {
		return clock.Dot{Actor: clock.Actor{Incarnation: clock.Incarnation{id}, Epoch: 1}, Counter: n}
	}
	return version.Record{
		Clock: clock.Of(clock.Entry{Actor: at(1, 2).Actor, Counter: 2, Time: 5}, clock.Entry{Actor: at(2, 1).Actor, Counter: 1, Time: 6}),
		Versions: []version.Version{
			{Dot: at(1, 2), Time: 5, Expires: 50, Value: []byte("value")}, {Dot: at(2, 1), Time: 6, Tombstone: true},
		},
	}
}

func TestToPut(t *testing.T) {
	context := someRecord().Context().Encode(key)
	good := func() *PutRequest {
		return &PutRequest{
			Bucket: []byte("b"), Key: []byte("k"), Value: []byte("value"), Context: context, RequestId: []byte("0123456789abcdef"),
			Retry: true, AgeMs: 1500,
		}
	}
	p, err := ToPut(good(), 5)
	if err != nil || p.Key != key || string(p.Value) != "value" || p.Request != dynamo.RequestID([]byte("0123456789abcdef")) ||
		!p.Retry || p.Age != 1500*time.Millisecond || p.Delete || !p.Context.Clock.Equal(someRecord().Clock) {
		t.Fatalf("%+v, %v", p, err)
	}
	if p, err := ToPut(&PutRequest{Bucket: []byte("b"), Key: []byte("k"), Delete: true}, 5); err != nil || !p.Request.IsZero() || !p.Context.IsZero() || !p.Delete {
		t.Errorf("a put without options: %+v, %v", p, err)
	}
	for name, c := range map[string]struct {
		change func(*PutRequest)
		want   error
	}{
		"no bucket":       {func(m *PutRequest) { m.Bucket = nil }, dynamo.ErrEmptyBucket},
		"long bucket":     {func(m *PutRequest) { m.Bucket = make([]byte, 256) }, dynamo.ErrBucketTooLong},
		"no key":          {func(m *PutRequest) { m.Key = nil }, dynamo.ErrEmptyKey},
		"long key":        {func(m *PutRequest) { m.Key = make([]byte, 1025) }, dynamo.ErrKeyTooLong},
		"large value":     {func(m *PutRequest) { m.Value = []byte("values") }, ErrValueTooLarge},
		"short id":        {func(m *PutRequest) { m.RequestId = []byte("0123456789abcde") }, ErrRequestID},
		"long id":         {func(m *PutRequest) { m.RequestId = make([]byte, 17) }, ErrRequestID},
		"foreign context": {func(m *PutRequest) { m.Key = []byte("other") }, version.ErrContext},
		"cut context":     {func(m *PutRequest) { m.Context = context[:len(context)-1] }, version.ErrContext},
		"altered context": {func(m *PutRequest) { m.Context = append([]byte{context[0] ^ 1}, context[1:]...) }, version.ErrContext},
		"huge context":    {func(m *PutRequest) { m.Context = make([]byte, dynamo.MaxContext+1) }, version.ErrContextSize},
	} {
		m := good()
		c.change(m)
		if _, err := ToPut(m, 5); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestToReadAndToReplicate(t *testing.T) {
	record := version.Append(nil, someRecord())
	half, _ := someRecord().Omit(0)
	replicate := func() *ReplicateRequest {
		return &ReplicateRequest{Bucket: []byte("b"), Key: []byte("k"), N: 3, Record: record}
	}
	if r, err := ToReplicate(replicate()); err != nil || r.Key != key || r.N != 3 || !r.Record.Equal(someRecord()) {
		t.Errorf("replicate: %+v, %v", r, err)
	}
	if r, err := ToRead(&ReadRequest{Bucket: []byte("b"), Key: []byte("k"), N: 7, DigestAbove: 9}); err != nil || r != (Read{Key: key, N: 7, DigestAbove: 9}) {
		t.Errorf("read: %+v, %v", r, err)
	}
	for name, c := range map[string]struct {
		change func(*ReplicateRequest)
		want   error
	}{
		"no key":         {func(m *ReplicateRequest) { m.Key = nil }, dynamo.ErrEmptyKey},
		"n of 0":         {func(m *ReplicateRequest) { m.N = 0 }, ErrBounds},
		"n over the max": {func(m *ReplicateRequest) { m.N = quorum.MaxN + 1 }, ErrBounds},
		"n that wraps":   {func(m *ReplicateRequest) { m.N = 256 + 3 }, ErrBounds},
		"no record":      {func(m *ReplicateRequest) { m.Record = nil }, version.ErrCorrupt},
		"cut record":     {func(m *ReplicateRequest) { m.Record = record[:len(record)-1] }, version.ErrCorrupt},
		"half a record":  {func(m *ReplicateRequest) { m.Record = version.Append(nil, half) }, ErrOmitted},
	} {
		m := replicate()
		c.change(m)
		if _, err := ToReplicate(m); !errors.Is(err, c.want) {
			t.Errorf("replicate, %s: %v, want %v", name, err, c.want)
		}
		if m.Record = nil; errors.Is(c.want, version.ErrCorrupt) || errors.Is(c.want, ErrOmitted) {
			continue // a read has none
		}
		if _, err := ToRead(&ReadRequest{Bucket: m.Bucket, Key: m.Key, N: m.N}); !errors.Is(err, c.want) {
			t.Errorf("read, %s: %v, want %v", name, err, c.want)
		}
	}
}

// TestToRecord: no record is not an error, and an unreadable one is not "none".
func TestToRecord(t *testing.T) {
	if _, found, err := ToRecord(&ReadReply{}); found || err != nil {
		t.Errorf("none: %v, %v", found, err)
	}
	if rec, found, err := ToRecord(&ReadReply{Record: version.Append(nil, someRecord())}); !found || err != nil || !rec.Equal(someRecord()) {
		t.Errorf("one: %v, %v", found, err)
	}
	if _, found, err := ToRecord(&ReadReply{Record: []byte("garbage")}); found || err == nil {
		t.Errorf("garbage: %v, %v", found, err)
	}
}

func TestFromLive(t *testing.T) {
	rec := someRecord()
	m := FromLive(key, rec.Live(10), rec.Context())
	v := m.GetValues()
	if len(v) != 1 || string(v[0].GetValue()) != "value" || v[0].GetTimeNs() != 5 || v[0].GetExpiresNs() != 50 || v[0].GetDot() != rec.Versions[0].Dot.String() {
		t.Errorf("values %v", v)
	}
	if c, err := version.DecodeContext(key, m.GetContext()); err != nil || !c.Clock.Equal(rec.Clock) {
		t.Errorf("context %v, %v", c, err)
	}
	if m := FromLive(key, nil, version.Context{}); len(m.GetValues()) != 0 || len(m.GetContext()) != 0 {
		t.Errorf("nothing: %v", m)
	}
}

func TestToTimeout(t *testing.T) {
	for ms, want := range map[uint32]time.Duration{0: time.Minute, 1: time.Millisecond, uint32(MaxTimeout.Milliseconds()): MaxTimeout} {
		if got, err := ToTimeout(ms, time.Minute); err != nil || got != want {
			t.Errorf("%d ms: %v, %v", ms, got, err)
		}
	}
	for _, ms := range []uint32{uint32(MaxTimeout.Milliseconds()) + 1, 1<<32 - 1} {
		if _, err := ToTimeout(ms, time.Minute); !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), MaxTimeout.String()) {
			t.Errorf("%d ms: %v", ms, err)
		}
	}
}

// TestToOverride: every number that is out of range stays so.
func TestToOverride(t *testing.T) {
	if o := ToOverride(nil); o != (quorum.Override{}) {
		t.Errorf("none: %+v", o)
	}
	if o := ToOverride(&Quorum{R: 1, W: 2, Pr: 3, Pw: 4}); o != (quorum.Override{R: 1, W: 2, PR: 3, PW: 4}) {
		t.Errorf("%+v", o)
	}
	for _, x := range []uint32{8, 256, 1 << 16, 1 << 31, 1<<32 - 1} {
		for name, q := range map[string]*Quorum{"r": {R: x}, "w": {W: x}, "pr": {Pr: x}, "pw": {Pw: x}} {
			if p, err := quorum.Default().Override(ToOverride(q)); err == nil {
				t.Errorf("%s = %d gives %v", name, x, p)
			}
		}
	}
}

// TestFillLimits: what a fill asks for and is answered is bounded, and a hash has
// its length.
func TestFillLimits(t *testing.T) {
	wanted := func(n int) (out []*FillKey) {
		for range n {
			out = append(out, &FillKey{Bucket: []byte("b"), Key: []byte("k")})
		}
		return out
	}
	for what, m := range map[string]*FillRequest{
		"n is 0": {}, "n is too large": {N: quorum.MaxN + 1}, "too many": {N: 1, Wanted: wanted(MaxWanted + 1)}, "no key": {N: 1, Wanted: []*FillKey{nil}},
	} {
		if _, err := ToFill(m); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if b, err := ToFill(&FillRequest{N: 3, Wanted: wanted(MaxWanted), Digests: true}); err != nil || len(b.Wanted) != MaxWanted || b.N != 3 || !b.Digests {
		t.Errorf("%+v, %v", b, err)
	}
	digest := func(size int) *FillDigest {
		return &FillDigest{Bucket: []byte("b"), Key: []byte("k"), Hash: make([]byte, size)}
	}
	for what, m := range map[string]*FillReply{
		"short":    {Digests: []*FillDigest{digest(version.HashSize - 1)}},
		"long":     {Digests: []*FillDigest{digest(version.HashSize + 1)}},
		"no key":   {Digests: []*FillDigest{{Hash: make([]byte, version.HashSize)}}},
		"too many": {Digests: slices.Repeat([]*FillDigest{digest(version.HashSize)}, MaxWanted+1)},
	} {
		if _, err := ToDigests(m); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if all, err := ToDigests(&FillReply{Digests: []*FillDigest{digest(version.HashSize)}}); err != nil || len(all) != 1 || all[0].Key.Name != "k" {
		t.Errorf("%+v, %v", all, err)
	}
}

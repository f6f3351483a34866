package messages

import (
	"crypto/sha256"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
)

func someLookup() Lookup {
	r := someRecord()
	bare, values := Bare(r)
	return Lookup{Partition: 7, N: 3, Version: 9, Role: "replica", Problem: "opening", Incarnation: clock.Incarnation{1, 2}, Copies: []Copy{
		{Record: bare, Values: values}, {For: "n2", Mark: true}, {For: "n3", Damaged: true},
	}}
}

// TestLookup: what is sent is what arrives, and no value is in it.
func TestLookup(t *testing.T) {
	want := someLookup()
	wire := FromLookup(want)
	got, err := ToLookup(sent(t, wire))
	if again := FromLookup(got); err != nil || !proto.Equal(again, wire) || again.GetCopies()[0].GetSizes()[0] != 5 {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	b, err := proto.Marshal(wire)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range someRecord().Versions {
		if len(v.Value) > 0 && strings.Contains(string(b), string(v.Value)) {
			t.Errorf("value %d travels", i)
		}
		sum := sha256.Sum256(v.Value)
		if info := got.Copies[0].Values[i]; !v.Tombstone && (info.Size != uint64(len(v.Value)) || string(info.Hash) != string(sum[:hashBytes])) {
			t.Errorf("of value %d is told %+v", i, info)
		}
	}
}

// TestLookupBounds: what is not as it must be is refused whole.
func TestLookupBounds(t *testing.T) {
	for name, spoil := range map[string]func(*LookupReply){
		"a value in a record": func(m *LookupReply) { m.Copies[0].Outline = version.Append(nil, someRecord()) },
		"no record":           func(m *LookupReply) { m.Copies[0].Outline = nil },
		"a size too few":      func(m *LookupReply) { m.Copies[0].Sizes = m.Copies[0].Sizes[1:] },
		"a hash too many":     func(m *LookupReply) { m.Copies[0].Hashes = append(m.Copies[0].Hashes, nil) },
		"a long hash":         func(m *LookupReply) { m.Copies[0].Hashes[0] = make([]byte, hashBytes+1) },
		"a bad node":          func(m *LookupReply) { m.Copies[1].HintFor = "no name\x1b" },
		"a short incarnation": func(m *LookupReply) { m.Incarnation = m.Incarnation[1:] },
		"many copies":         func(m *LookupReply) { m.Copies = make([]*KeyCopy, MaxCopies+1) },
		"a long role":         func(m *LookupReply) { m.Role = strings.Repeat("x", MaxFieldText+1) },
	} {
		m := FromLookup(someLookup())
		spoil(m)
		if got, err := ToLookup(sent(t, m)); err == nil {
			t.Errorf("%s: taken as %+v", name, got)
		}
	}
}

func TestBusiest(t *testing.T) {
	want := []Busy{{Actor: someActor("vnode/17"), Rate: 12.5}, {Actor: someActor("a")}}
	got, all, err := ToBusy(sent(t, FromBusiest(want, 99)))
	want[0].Panic = &ActorFault{Reason: "boom", Message: "*x.Y", Ago: time.Minute}
	want[1].Panic = want[0].Panic
	if err != nil || all != 99 || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %d, %v\nwant %+v", got, all, err, want)
	}
	for _, rate := range []float64{-1, math.NaN(), math.Inf(1)} {
		if _, _, err := ToBusy(&BusiestReply{Actors: []*BusyActor{{Actor: FromActor(someActor("a")), Rate: rate}}}); !errors.Is(err, ErrBounds) {
			t.Errorf("a rate of %v: %v", rate, err)
		}
	}
	if _, _, err := ToBusy(&BusiestReply{Actors: make([]*BusyActor, MaxBusiest+1)}); !errors.Is(err, ErrBounds) {
		t.Errorf("many: %v", err)
	}
	if out := FromBusiest(make([]Busy, MaxBusiest+1), 0); len(out.Actors) != MaxBusiest {
		t.Errorf("%d are sent", len(out.Actors))
	}
	if _, _, err := ToBusiest(&BusiestRequest{By: uint32(EndOfBy)}); !errors.Is(err, ErrBounds) {
		t.Errorf("an unknown order: %v", err)
	}
	if by, limit, err := ToBusiest(&BusiestRequest{By: 2, Limit: 1 << 30}); by != ByOldest || limit != MaxBusiest || err != nil {
		t.Errorf("by %d, %d at most, %v", by, limit, err)
	}
}

func TestLines(t *testing.T) {
	want := []Line{{Number: 5, At: time.UnixMilli(1_700_000_000_123).UTC(), Level: "INFO", Text: "msg=hello"}}
	m := sent(t, FromLines(want, 77, 4))
	got, err := ToLines(m)
	if err != nil || !reflect.DeepEqual(got, want) || m.GetRun() != 77 || m.GetLost() != 4 {
		t.Errorf("got %+v, %v of %v", got, err, m)
	}
	long := FromLines([]Line{{At: want[0].At, Level: strings.Repeat("l", MaxSetting+1), Text: strings.Repeat("\xff", MaxLogText)}}, 0, 0)
	if _, err := ToLines(sent(t, long)); err != nil {
		t.Errorf("a long line: %v", err)
	}
	for name, m := range map[string]*LogReply{
		"many": {Lines: make([]*LogLine, MaxLogLines+1)}, "long": {Lines: []*LogLine{{Text: strings.Repeat("x", MaxLogText+1)}}},
		"before 1970": {Lines: []*LogLine{{TimeMs: -1}}},
	} {
		if _, err := ToLines(m); !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSettings(t *testing.T) {
	want := []NodeSetting{{"log-level", "info", "what is logged"}}
	if got, err := ToSettings(sent(t, FromSettings(want))); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, m := range []*SettingsReply{{Settings: make([]*Setting, MaxSettings+1)}, {Settings: []*Setting{{Value: strings.Repeat("x", MaxSetting+1)}}}} {
		if _, err := ToSettings(m); !errors.Is(err, ErrBounds) {
			t.Errorf("taken: %v", err)
		}
	}
}

func FuzzToLookup(f *testing.F) {
	fuzz(f, []*LookupReply{FromLookup(someLookup())}, func(t testing.TB, m *LookupReply) {
		l, err := ToLookup(m)
		if err != nil {
			return
		}
		for _, c := range l.Copies {
			if !c.Mark && !c.Damaged && len(c.Values) != len(c.Record.Versions) {
				t.Errorf("%d values of %d versions", len(c.Values), len(c.Record.Versions))
			}
		}
	})
}

package messages

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/reap"
)

// TestReapKeys: what is sent is what arrives, and what cannot be is refused.
func TestReapKeys(t *testing.T) {
	want := []ReapKeyOf{{dynamo.Key{Bucket: "b", Name: "k"}, [16]byte{1, 2}, 0}, {dynamo.Key{Bucket: "b", Name: "l"}, [16]byte{}, 1 << 60}}
	n, got, err := ToReapKeys(&ReapDropRequest{N: 3, Keys: FromReapKeys(want)})
	if err != nil || n != 3 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d %v %v", n, got, err)
	}
	good := func() *ReapKey { return FromReapKeys(want)[0] }
	many := &ReapRequest{N: 3}
	for range reap.MaxKeys {
		many.Keys = append(many.Keys, good())
	}
	if _, _, err := ToReapKeys(many); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
	many.Keys = append(many.Keys, good())
	for name, m := range map[string]*ReapRequest{
		"no n":            {Keys: []*ReapKey{good()}},
		"half a hash":     {N: 3, Keys: []*ReapKey{{Bucket: []byte("b"), Key: []byte("k"), Hash: make([]byte, 15)}}},
		"before all time": {N: 3, Keys: []*ReapKey{{Bucket: []byte("b"), Key: []byte("k"), Hash: make([]byte, 16), DueNs: -1}}},
		"no key":          {N: 3, Keys: []*ReapKey{{Bucket: []byte("b"), Hash: make([]byte, 16)}}},
		"too many":        many,
	} {
		if _, keys, err := ToReapKeys(m); err == nil {
			t.Errorf("%s: %v", name, keys)
		}
	}
}

// TestReapAnswer: keys are named by their places in the question.
func TestReapAnswer(t *testing.T) {
	m := func(change func(*ReapReply)) *ReapReply {
		out := &ReapReply{Round: 2, Version: 7, Clear: true, Run: 8, Changes: 9, LifeMs: 1500, Incarnation: []byte(strings.Repeat("i", 16)), Held: []uint32{0, 2}}
		change(out)
		return out
	}
	want := reap.Answer{Version: 7, Clear: true, Mark: [2]uint64{8, 9}, Life: 1500 * time.Millisecond, Held: []int{4, 9}}
	copy(want.Incarnation[:], "iiiiiiiiiiiiiiii")
	if got, err := ToReapAnswer(m(func(*ReapReply) {}), []int{4, 6, 9}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := ToReapAnswer(m(func(r *ReapReply) { r.Incarnation, r.Held = nil, nil }), nil); err != nil {
		t.Errorf("of one that has no vnode: %v", err)
	}
	for name, change := range map[string]func(*ReapReply){
		"a key that was not asked for": func(r *ReapReply) { r.Held = []uint32{3} },
		"a huge one":                   func(r *ReapReply) { r.Held = []uint32{1 << 31} },
		"not ascending":                func(r *ReapReply) { r.Held = []uint32{2, 1} },
		"half an incarnation":          func(r *ReapReply) { r.Incarnation = make([]byte, 8) },
	} {
		if got, err := ToReapAnswer(m(change), []int{4, 6, 9}); !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if a, err := ToReapAnswer(&ReapReply{LifeMs: 1 << 63}, nil); err != nil || a.Life <= 0 {
		t.Errorf("a life without end: %+v, %v", a, err)
	}
}

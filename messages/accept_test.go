package messages

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

// TestFillsRoundTrip: what was accepted, and what was empty, come back; a document of before there
// was that reads as one in which nothing was accepted.
func TestFillsRoundTrip(t *testing.T) {
	m := member.Movement{Filling: []member.Fill{
		{Partition: 1, Node: "a", Whole: true, Since: 7, Emptied: true, Accepted: 1<<3 | 1<<1}, {Partition: 2, Node: "b", Whole: true},
	}}
	b, err := proto.Marshal(fromMovement(m))
	if err != nil {
		t.Fatal(err)
	}
	wire := &Movement{}
	if err := proto.Unmarshal(b, wire); err != nil {
		t.Fatal(err)
	}
	if got, err := toMovement(wire); err != nil || !slices.Equal(got.Filling, m.Filling) {
		t.Errorf("%+v, %v", got, err)
	}
	old, err := toMovement(&Movement{Filling: []*Fill{{Partition: 1, Node: "a", Whole: true, Since: 7}}})
	if want := (member.Fill{Partition: 1, Node: "a", Whole: true, Since: 7}); err != nil || !slices.Equal(old.Filling, []member.Fill{want}) {
		t.Errorf("%+v, %v", old, err)
	}
}

func TestToPartitions(t *testing.T) {
	if got, err := ToPartitions([]uint32{3, 0}); err != nil || !slices.Equal(got, []dynamo.Partition{3, 0}) {
		t.Errorf("%v, %v", got, err)
	}
	for name, bad := range map[string][]uint32{"one too high": {1 << 31}, "too many": make([]uint32, 1<<20)} {
		if _, err := ToPartitions(bad); !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

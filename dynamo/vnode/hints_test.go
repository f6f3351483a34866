package vnode

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

// TestHintKeys: keys come back whole, lie in the range of their node and
// partition, and in no other.
func TestHintKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		node := func(label string) dynamo.NodeID {
			return dynamo.NodeID(rapid.StringMatching(`[a-z0-9]{1,64}`).Draw(t, label))
		}
		partition := rapid.SampledFrom([]dynamo.Partition{0, 1, 255, 256, 1<<32 - 1})
		intended, p := node("intended"), partition.Draw(t, "partition")
		key := dynamo.Key{Bucket: rapid.StringN(1, 20, 255).Draw(t, "bucket"), Name: rapid.StringN(1, 20, 100).Draw(t, "name")}
		object := AppendObjectKey(nil, p, 3, [16]byte{7}, key)
		hint := AppendHintKey([]byte("x"), intended, object)[1:]
		gotNode, gotObject, ok := ParseHintKey(hint)
		if !ok || gotNode != intended || !bytes.Equal(gotObject, object) || HintPartition(hint) != p {
			t.Fatalf("came back as %q, %x, %v", gotNode, gotObject, ok)
		}
		if ObjectN(object) != 3 || ObjectPosition(object) != [16]byte{7} {
			t.Fatalf("n %d, position %x", ObjectN(object), ObjectPosition(object))
		}
		for _, other := range []struct {
			node dynamo.NodeID
			p    dynamo.Partition
		}{{intended, p}, {intended, p ^ 1}, {node("other"), p}, {intended + "a", p}} {
			lower, upper := HintRange(other.node, other.p)
			inside := bytes.Compare(lower, hint) <= 0 && bytes.Compare(hint, upper) < 0
			if inside != (other.node == intended && other.p == p) {
				t.Fatalf("%x in the range of %s, %d: %v", hint, other.node, other.p, inside)
			}
		}
		for _, other := range []struct {
			p dynamo.Partition
			n int
		}{{p, 3}, {p, 2}, {p, 4}, {p ^ 1, 3}} {
			lower, upper := ReplicaRange(other.p, other.n)
			inside := bytes.Compare(lower, object) <= 0 && bytes.Compare(object, upper) < 0
			if inside != (other.n == 3 && other.p == p) {
				t.Fatalf("%x in the range of %d with n = %d: %v", object, other.p, other.n, inside)
			}
		}
		if lower, upper := Objects(); bytes.Compare(lower, object) > 0 || bytes.Compare(object, upper) >= 0 {
			t.Fatalf("%x is not among the objects", object)
		}
		lower, upper := Hints()
		if bytes.Compare(lower, hint) > 0 || bytes.Compare(hint, upper) >= 0 {
			t.Fatalf("%x is not among the hints", hint)
		}
	})
}

func TestNoHintKeys(t *testing.T) {
	object := AppendObjectKey(nil, 1, 3, [16]byte{7}, dynamo.Key{Bucket: "b", Name: "k"})
	for _, b := range [][]byte{nil, {kindHint}, {kindHint, 5, 'a'}, object, AppendHintKey(nil, "a", object)[:10]} {
		if node, _, ok := ParseHintKey(b); ok {
			t.Errorf("%x is a hint for %q", b, node)
		}
	}
}

// A zero Stored, which a replica keeps as its hint, survives the store.
func TestEmptyHint(t *testing.T) {
	key := []byte("hint")
	s, err := DecodeStored(key, AppendStored(nil, key, Stored{}))
	if err != nil || !s.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
}

package vnode

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
)

func reapRecord(t *testing.T) version.Record {
	t.Helper()
	res, err := Open([16]byte{7}, 1, 10, true, 0).Coordinate(Stored{}, Put{Value: []byte("seven b"), Now: 1})
	if err != nil {
		t.Fatal(err)
	}
	return res.Stored.Record
}

// TestReapIndex: an entry says what was put into it, and lies in the range of its
// partition and n from the instant on at which it is due.
func TestReapIndex(t *testing.T) {
	record := reapRecord(t)
	value := AppendReapValue(nil, record)
	for i, key := range []dynamo.Key{{Bucket: "b", Name: "k"}, {Bucket: "", Name: "\xff"}, {Bucket: "b", Name: ""}} {
		for _, p := range []dynamo.Partition{0, 5, math.MaxUint32} {
			object := AppendObjectKey(nil, p, 3, [16]byte{0xff, byte(i)}, key)
			for _, due := range []dynamo.Timestamp{0, 1, 1 << 40, math.MaxInt64} {
				entry := AppendReapKey(nil, due, object)
				got, r, ok := ParseReap(entry, value)
				if !ok || !bytes.Equal(got, object) || r != (Reapable{Due: due, Hash: record.CausalHash(), Size: 7}) {
					t.Fatalf("%q, %d: %x %+v %v", key, due, got, r, ok)
				}
				for _, at := range []dynamo.Timestamp{0, 1, 1<<40 - 1, 1 << 40, math.MaxInt64} {
					lower, upper := ReapRange(p, 3, at)
					in := bytes.Compare(lower, entry) <= 0 && bytes.Compare(entry, upper) < 0
					if in != (due <= at) {
						t.Errorf("due at %d, at %d: %v", due, at, in)
					}
				}
				for _, other := range [][2]int{{int(p) ^ 1, 3}, {int(p), 2}, {int(p), 4}} {
					lower, upper := ReapRange(dynamo.Partition(other[0]), other[1], math.MaxInt64)
					if bytes.Compare(lower, entry) <= 0 && bytes.Compare(entry, upper) < 0 {
						t.Errorf("an entry of partition %d lies in that of %v", p, other)
					}
				}
			}
		}
	}
}

// TestReapIndexOrder: what is due first comes first, whatever its key.
func TestReapIndexOrder(t *testing.T) {
	var keys [][]byte
	for i, due := range []dynamo.Timestamp{0, 0, 1, 255, 256, 1 << 33} {
		object := AppendObjectKey(nil, 1, 3, [16]byte{byte(i % 2), byte(9 - i)}, dynamo.Key{Bucket: "b", Name: fmt.Sprint(i)})
		keys = append(keys, AppendReapKey(nil, due, object))
	}
	if !slices.IsSortedFunc(keys, bytes.Compare) {
		t.Error("not in their order")
	}
}

// TestParseReapRefuses what is no entry.
func TestParseReapRefuses(t *testing.T) {
	object := AppendObjectKey(nil, 1, 3, [16]byte{1}, dynamo.Key{Bucket: "bucket", Name: "k"})
	key, value := AppendReapKey(nil, 5, object), AppendReapValue(nil, reapRecord(t))
	if _, _, ok := ParseReap(key, value); !ok {
		t.Fatal("an entry is none")
	}
	for i := range reapHead + 17 + len("bucket") { // shorter than the bucket is long
		if _, _, ok := ParseReap(key[:i], value); ok {
			t.Errorf("%d bytes of a key are one", i)
		}
	}
	for i := range value {
		if _, _, ok := ParseReap(key, value[:i]); ok {
			t.Errorf("%d bytes of a value are one", i)
		}
	}
	if _, _, ok := ParseReap(object, value); ok {
		t.Error("an object is one")
	}
}

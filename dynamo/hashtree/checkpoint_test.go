package hashtree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
)

// saved are the parts of a checkpoint of a whole tree.
func saved(tree *Tree) (out [][]byte) {
	for p, ok := tree.Unsaved(0); ok; p, ok = tree.Unsaved(0) {
		out = append(out, tree.Encode(p))
		tree.Saved(p)
	}
	return out
}

// TestCheckpoint: what was encoded comes back, in one form only, from parts in any
// order, in as many as keep them small.
func TestCheckpoint(t *testing.T) {
	store := data{}
	for i := range 3000 {
		store[spread(i)] = hashed(spread(i), 1)
	}
	for bits, want := range map[uint8]int{6: 1, 8: 4, 16: 1024, 22: 1024} {
		tree := store.built(bits)
		stored := saved(tree)
		if len(stored) != want || len(stored[0]) > 82_000 || bits <= 16 && len(stored[0]) > 1300 {
			t.Fatalf("%d parts of %d bytes of a tree with %d bits, want %d", len(stored), len(stored[0]), bits, want)
		}
		backwards := slices.Clone(stored)
		slices.Reverse(backwards)
		back, err := Load(testPartitions, testPartition, append(backwards, stored[0]))
		if err != nil || !back.Settled() {
			t.Fatalf("settled=%v %v", back.Settled(), err)
		}
		if _, ok := back.Unsaved(0); ok {
			t.Error("what was loaded is taken for not saved")
		}
		same(t, "loaded", tree, back)
		sound(t, "loaded", back.serving)
		for i, b := range stored {
			if again := back.Encode(Prefix{Bits: parts(bits), Index: uint32(i)}); !bytes.Equal(again, b) {
				t.Errorf("part %d is encoded in another way", i)
			}
		}
	}
}

// TestCheckpointLeavesOut: what is missing, damaged or of another tree is in doubt, and
// nothing else.
func TestCheckpointLeavesOut(t *testing.T) {
	store := data{}
	for i := range 3000 {
		store[spread(i)] = hashed(spread(i), 1)
	}
	stored := saved(store.built(8))
	all := []Prefix{{MinBits, 0}}
	for i := range uint32(1<<MinBits - 1) {
		all = append(all, Prefix{MinBits, i + 1})
	}
	cut, old := stored[2][:len(stored[2])-1], saved(store.built(MinBits))[0]
	for name, tc := range map[string]struct {
		parts [][]byte
		bits  uint8
		doubt []Prefix
		bad   bool
	}{
		"nothing":          {nil, MinBits, all, false},
		"one left out":     {[][]byte{stored[0], stored[1], stored[3]}, 8, all[32:48], false},
		"one cut":          {[][]byte{stored[0], stored[1], cut, stored[3]}, 8, all[32:48], true},
		"one empty":        {[][]byte{stored[0], stored[1], {}, stored[3]}, 8, all[32:48], true},
		"of a larger tree": {[][]byte{old, stored[1]}, MinBits, nil, false},
		"another's":        {[][]byte{saved(New(testPartitions, 1))[0]}, MinBits, all, true},
		"of other rings":   {[][]byte{saved(New(16, testPartition))[0]}, MinBits, all, true},
	} {
		tree, err := Load(testPartitions, testPartition, tc.parts)
		if bad := errors.Is(err, ErrCheckpoint); bad != tc.bad || err != nil && !bad || tree.Bits() != tc.bits || !slices.Equal(tree.doubts, tc.doubt) {
			t.Errorf("%s: a tree of %d bits in doubt of %v, %v", name, tree.Bits(), tree.doubts, err)
		}
		store.settle(t, tree)
		same(t, name, tree, store.built(tree.Bits()))
	}
	for i := range old {
		old[i] ^= 1
		if tree, err := Load(testPartitions, testPartition, [][]byte{old}); err == nil || tree.Settled() {
			t.Fatalf("a change of byte %d was not seen", i)
		}
		old[i] ^= 1
	}
}

// TestMarks: each range is marked once between two checkpoints of its part, and a part
// with a mark is saved again.
func TestMarks(t *testing.T) {
	tree := data{}.built(8)
	saved(tree)
	for round := range 2 {
		p, needed := tree.Mark(at(1 << 63))
		if !needed || p != (Prefix{MarkBits, 512}) {
			t.Fatalf("round %d: %v %v", round, p, needed)
		}
		tree.Update(at(1<<63), Hash{}, Hash{1})
		if _, again := tree.Mark(at(1<<63 + 5)); again {
			t.Fatal("marked twice")
		}
		if _, other := tree.Mark(at(1<<63 + 1<<54)); !other {
			t.Fatal("another range is not marked")
		}
		part, ok := tree.Unsaved(0)
		if first, last := Marks(part); !ok || part != (Prefix{2, 2}) || first != 512 || last != 767 {
			t.Fatalf("%v is not saved, with the marks %d to %d", part, first, last)
		}
		if _, ok := tree.Unsaved(3); ok {
			t.Fatal("a part is not saved to which nothing was written")
		}
		tree.Saved(part)
	}
}

// TestUnsavedWaits: a tree in doubt is not saved, one that has grown is saved anew.
func TestUnsavedWaits(t *testing.T) {
	store := data{}
	for i := range 3000 {
		store[spread(i)] = hashed(spread(i), 1)
	}
	tree := store.built(MinBits)
	saved(tree)
	tree.Doubt(Prefix{MinBits, 3})
	tree.Update(at(1<<63), Hash{}, Hash{}) // in no part that keeps its number
	if p, ok := tree.Unsaved(0); ok {
		t.Fatalf("%v may be saved while a range is in doubt", p)
	}
	store.settle(t, tree)
	if tree.Bits() == MinBits {
		t.Fatal("it has not grown")
	}
	if n := len(saved(tree)); n != 1<<parts(tree.Bits()) {
		t.Errorf("%d parts of the grown tree were not saved", n)
	}
}

// TestUnsavedIsWhatWasWrong: a part of which some was found wrong is saved again, also when
// its marks could not be written; one that was found right is not.
func TestUnsavedIsWhatWasWrong(t *testing.T) {
	store := data{}
	for i := range 3000 {
		store[spread(i)] = hashed(spread(i), 1)
	}
	for name, tc := range map[string]struct {
		bits  uint8
		found Prefix
		want  []Prefix
	}{
		"narrower than a part": {8, Prefix{8, 70}, []Prefix{{2, 1}}},
		"wider than parts":     {12, Prefix{4, 3}, []Prefix{{6, 12}, {6, 13}, {6, 14}, {6, 15}}},
	} {
		tree := store.built(tc.bits)
		saved(tree)
		unsaved := func() (out []Prefix) {
			for p, ok := tree.Unsaved(0); ok; p, ok = tree.Unsaved(p.Index + 1) {
				out = append(out, p)
			}
			return out
		}
		first, last := tree.Range(tc.found)
		if _, err := tree.Mend(tree.Check(tc.found), store.between(first, last)); err != nil || len(unsaved()) != 0 {
			t.Fatalf("%s: found right, and %v is not saved; %v", name, unsaved(), err)
		}
		if did, err := tree.Mend(tree.Check(tc.found), nil); err != nil || did.Wrong == 0 || !slices.Equal(unsaved(), tc.want) {
			t.Errorf("%s: found wrong %+v, and %v is not saved, want %v; %v", name, did, unsaved(), tc.want, err)
		}
	}
}

// TestCheckpointOfTwoSizes: a crash may come while the parts of a tree take the place of those
// of a smaller one that was cut as it is. Old parts have their marks still.
func TestCheckpointOfTwoSizes(t *testing.T) {
	before, after, marks := data{}, data{}, map[Prefix]bool{}
	for i := range 3000 {
		before[spread(i)], after[spread(i)] = hashed(spread(i), 1), hashed(spread(i), 1)
		if i < 300 {
			after[spread(i)] = hashed(spread(i), 2)
			marks[New(testPartitions, testPartition).Prefix(spread(i), MarkBits)] = true
		}
	}
	small, large := saved(before.built(16)), saved(after.built(18))
	for _, n := range []int{1, 511, 513, 1023} {
		tree, err := Load(testPartitions, testPartition, slices.Concat(large[:n], small[n:]))
		if err != nil {
			t.Fatal(err)
		}
		for mark := range marks {
			if int(mark.Index) >= n {
				tree.Doubt(mark)
			}
		}
		want := after.built(tree.Bits())
		for i := range uint32(1) << tree.Bits() {
			p := Prefix{tree.Bits(), i}
			if tree.Node(p) != want.Node(p) && !slices.ContainsFunc(tree.doubts, func(d Prefix) bool { return d.Contains(p) }) {
				t.Fatalf("%d parts of 2^18 leaves, the rest of 2^16: %v is wrong and not in doubt", n, p)
			}
		}
		after.settle(t, tree)
		same(t, "of two sizes", tree, after.built(tree.Bits()))
	}
}

// FuzzLoad gives each input the right checksum, or nothing would get past it.
func FuzzLoad(f *testing.F) {
	f.Add(saved(New(testPartitions, testPartition))[0])
	f.Add(saved(data{}.built(8))[3])
	f.Add([]byte{2, 3, 0, 0, 0, 5, 22, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(b) - sumSize; n >= 0 {
			binary.BigEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli))
		}
		tree, err := Load(testPartitions, testPartition, [][]byte{b})
		if err != nil {
			return
		}
		tree.doubts = nil // the rest is not there
		p := Prefix{Bits: parts(tree.Bits()), Index: uint32(binary.BigEndian.Uint16(b[7:]))}
		if again := tree.Encode(p); !bytes.Equal(again, b) {
			t.Errorf("%x is encoded as %x", b, again)
		}
	})
}

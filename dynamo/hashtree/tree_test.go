package hashtree

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

func TestPositions(t *testing.T) {
	for _, tc := range []struct {
		partitions  int
		partition   dynamo.Partition
		prefix      Prefix
		first, last string
	}{
		{1, 0, Prefix{}, "00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff"},
		{1, 0, Prefix{6, 63}, "fc000000000000000000000000000000", "ffffffffffffffffffffffffffffffff"},
		{64, 17, Prefix{}, "44000000000000000000000000000000", "47ffffffffffffffffffffffffffffff"},
		{64, 63, Prefix{}, "fc000000000000000000000000000000", "ffffffffffffffffffffffffffffffff"},
		{64, 17, Prefix{2, 1}, "45000000000000000000000000000000", "45ffffffffffffffffffffffffffffff"},
		{64, 17, Prefix{10, 1023}, "47ff0000000000000000000000000000", "47ffffffffffffffffffffffffffffff"},
	} {
		tree := New(tc.partitions, tc.partition)
		first, last := tree.Range(tc.prefix)
		if got := fmt.Sprintf("%x", first); got != tc.first {
			t.Errorf("%d of %d, %v: begins at %s, want %s", tc.partition, tc.partitions, tc.prefix, got, tc.first)
		}
		if got := fmt.Sprintf("%x", last); got != tc.last {
			t.Errorf("%d of %d, %v: ends at %s, want %s", tc.partition, tc.partitions, tc.prefix, got, tc.last)
		}
		for _, p := range [][16]byte{first, last} {
			if got := tree.Prefix(p, tc.prefix.Bits); got != tc.prefix {
				t.Errorf("%x lies under %v, want %v", p, got, tc.prefix)
			}
		}
	}
}

func TestForeignPositionPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a position of another partition was taken")
		}
	}()
	New(8, 4).Update(at(0), Hash{}, Hash{1})
}

// TestEntryHash: it is part of the storage format and of the protocol, so it never
// changes, and it keeps apart what differs.
func TestEntryHash(t *testing.T) {
	causal := [16]byte{1, 2, 3}
	if got, want := fmt.Sprintf("%x", EntryHash(dynamo.Key{Bucket: "b", Name: "k"}, causal)), "8f8413e9b48da225f2b905b8efe381c4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	seen := map[Hash]bool{}
	for _, k := range []dynamo.Key{{Bucket: "ab", Name: "c"}, {Bucket: "a", Name: "bc"}, {Bucket: "a", Name: "b"}} {
		for _, c := range [][16]byte{{}, {1}, {15: 1}} {
			seen[EntryHash(k, c)] = true
		}
	}
	if len(seen) != 9 {
		t.Errorf("%d different hashes, want 9", len(seen))
	}
}

func TestDigestsLookAtAllBytes(t *testing.T) {
	for i := range 16 {
		var h Hash
		h[i] = 1
		found := 0
		for round := range uint64(4) {
			if h.Digest(round) != (Hash{}).Digest(round) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("a difference in byte %d is seen in %d of four rounds", i, found)
		}
	}
}

// TestEveryOrder runs a check of one range through all orders of its steps, each of
// them a read of one key at its own instant, with all short histories of writes to
// its keys: the tree is the tree of the data in the end, whatever it was before.
func TestEveryOrder(t *testing.T) {
	keys := [][16]byte{at(0), at(1 << 40), at(1 << 59)} // the last in another leaf
	whole, leaf := Prefix{}, Prefix{Bits: MinBits}
	runs := 0
	var write func(history []int, w int)
	write = func(history []int, w int) {
		if w < 3 {
			for op := range len(keys) * 3 {
				write(append(history, op), w+1)
			}
			return
		}
		for mask := range 1 << 8 { // which of the steps are writes
			if ones(mask) == 3 {
				for _, p := range []Prefix{whole, leaf} {
					order(t, keys, p, history, mask, runs%2 == 0)
					runs++
				}
			}
		}
	}
	write(nil, 0)
	if runs == 0 {
		t.Fatal("nothing ran")
	}
}

func ones(x int) (n int) {
	for ; x > 0; x >>= 1 {
		n += x & 1
	}
	return n
}

func order(t *testing.T, keys [][16]byte, p Prefix, history []int, mask int, growing bool) {
	store := data{keys[0]: hashed(keys[0], 1), keys[2]: hashed(keys[2], 1)}
	tree := store.built(MinBits)
	tree.serving.add(0, Node{Hash{1, 2, 3}, 77}) // nonsense, in the range
	if growing {
		tree.growing, tree.rangeBits = newLevels(8), 0
	}
	var c *Check
	var read []Entry
	first, last := tree.Range(p)
	next := 0
	for step := range 8 {
		if mask&(1<<step) != 0 {
			k := keys[history[0]/3]
			h := hashed(k, history[0]%3)
			tree.Update(k, store[k], h)
			store.set(k, h)
			history = history[1:]
			continue
		}
		switch next {
		case 0:
			c = tree.Check(p)
		case 4:
			if _, err := tree.Mend(c, read); err != nil {
				t.Fatal(err)
			}
		default:
			k := keys[next-1]
			read = append(read, data{k: store[k]}.between(first, last)...)
			if len(read) > 0 && read[len(read)-1].Hash.IsZero() {
				read = read[:len(read)-1]
			}
		}
		next++
	}
	what := fmt.Sprintf("%v mask %b", history, mask)
	same(t, what, tree, store.built(MinBits))
	if growing && p.Bits == 0 && (tree.growing != nil || tree.Bits() != 8) {
		t.Fatalf("%s: did not grow", what)
	}
}

func TestMendRefuses(t *testing.T) {
	store := data{}
	for i := range 100 {
		store[spread(i)] = hashed(spread(i), 1)
	}
	tree := store.built(MinBits)
	before := tree.Root()
	all := store.between(tree.Range(Prefix{}))
	for name, entries := range map[string][]Entry{
		"another range": all, "twice": {all[0], all[0]}, "out of order": {all[1], all[0]},
	} {
		if _, err := tree.Mend(tree.Check(Prefix{Bits: 1}), entries); !errors.Is(err, ErrEntries) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := tree.Check(Prefix{})
	if _, err := tree.Mend(c, all); err != nil {
		t.Error(err)
	}
	if _, err := tree.Mend(c, nil); !errors.Is(err, ErrOver) {
		t.Errorf("a second time: %v", err)
	}
	c = tree.Check(Prefix{})
	tree.Doubt(Prefix{})
	for i := range maxNoted + 1 {
		tree.Update(at(uint64(i)<<40), Hash{}, Hash{})
	}
	if _, err := tree.Mend(c, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("too many writes: %v", err)
	}
	if tree.Settled() {
		t.Error("a check that failed ended the doubt")
	}
	if tree.Root() != before {
		t.Error("a refused list changed the tree")
	}
	if len(tree.checks) != 0 {
		t.Errorf("%d checks still note writes", len(tree.checks))
	}
}

// TestTwoKeysOfOnePosition: they are told apart by nothing, and nothing is lost.
func TestTwoKeysOfOnePosition(t *testing.T) {
	tree := New(testPartitions, testPartition)
	p := at(99)
	tree.Update(p, Hash{}, Hash{1})
	tree.Update(p, Hash{}, Hash{2})
	if m, err := tree.Mend(tree.Check(Prefix{}), []Entry{{p, Hash{1}}, {p, Hash{2}}}); err != nil || m.Wrong != 0 || m.Entries != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestGrows: a tree follows the number of its entries, its leaves stay small, and all
// that time it serves.
func TestGrows(t *testing.T) {
	store := data{}
	tree := New(testPartitions, testPartition)
	for i := range 60_000 {
		p := spread(i)
		tree.Update(p, Hash{}, hashed(p, 1))
		store[p] = hashed(p, 1)
		if i%10_000 == 5 {
			store.settle(t, tree)
			same(t, fmt.Sprint(i), tree, store.built(MinBits))
		}
	}
	store.settle(t, tree)
	sound(t, "grown", tree.serving)
	if n := tree.Root().Count; n != 60_000 || tree.Bits() != 14 {
		t.Errorf("%d entries in 2^%d leaves", n, tree.Bits())
	}
	if got := store.built(8); got.Root() != tree.Root() {
		t.Error("the roots of equal data differ")
	}
}

// TestBuildsFromNothing: without a checkpoint all is read once to count it, and once
// more to cut it.
func TestBuildsFromNothing(t *testing.T) {
	store := data{}
	for i := range 5000 {
		store[spread(i)] = hashed(spread(i), 1)
	}
	tree := New(testPartitions, testPartition)
	tree.DoubtAll()
	if tree.Settled() {
		t.Fatal("a tree that read nothing is settled")
	}
	store.settle(t, tree)
	same(t, "built", tree, store.built(tree.Bits()))
	if tree.Bits() != 10 {
		t.Errorf("2^%d leaves", tree.Bits())
	}
}

func TestDoubts(t *testing.T) {
	tree := New(testPartitions, testPartition)
	tree.Doubt(Prefix{10, 1023}) // narrower than a leaf
	tree.Doubt(Prefix{MinBits, 63})
	tree.Doubt(Prefix{MinBits, 2})
	if p, ok := tree.Work(); !ok || p != (Prefix{MinBits, 63}) || len(tree.doubts) != 2 {
		t.Errorf("%v %v of %v", p, ok, tree.doubts)
	}
	c := tree.Check(Prefix{1, 1})
	if _, err := tree.Mend(c, nil); err != nil || tree.Settled() {
		t.Errorf("%v, doubts %v", err, tree.doubts)
	}
	c = tree.Check(Prefix{3, 0})
	if _, err := tree.Mend(c, nil); err != nil || !tree.Settled() || len(tree.doubtful) != 0 {
		t.Errorf("%v, doubts %v", err, tree.doubts)
	}
	tree.serving = newLevels(16)
	for i := range uint32(1 << 16) {
		tree.Doubt(Prefix{16, i})
	}
	if len(tree.doubts) > maxDoubts+1<<10 {
		t.Errorf("%d ranges in doubt", len(tree.doubts))
	}
	data{}.settle(t, tree)
}

// TestDifferentDataDiffers: one entry more, less or other shows at the root and at
// every prefix of it, and nowhere else.
func TestDifferentDataDiffers(t *testing.T) {
	store := data{}
	for i := range 2000 {
		store[spread(i)] = hashed(spread(i), 1)
	}
	a, b := store.built(10), store.built(8)
	for _, change := range []struct {
		i       int
		version int
	}{{7, 2}, {8, 0}, {5000, 1}} {
		p := spread(change.i)
		h := hashed(p, change.version)
		b.Update(p, store[p], h)
		for bits := range uint8(9) {
			for i := range uint32(1) << bits {
				x := Prefix{bits, i}
				if differs := a.Node(x).Hash != b.Node(x).Hash; differs != (b.Prefix(p, bits) == x) {
					t.Fatalf("%+v: at %v differs=%v", change, x, differs)
				}
			}
		}
		b.Update(p, h, store[p])
		same(t, "put back", a, b)
	}
}

func BenchmarkUpdate(b *testing.B) {
	store := data{}
	for i := range 60_000 {
		store[spread(i)] = hashed(spread(i), 1)
	}
	tree := store.built(14)
	r := rand.New(rand.NewPCG(1, 2))
	positions := make([][16]byte, 4096)
	for i := range positions {
		positions[i] = at(r.Uint64())
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tree.Update(positions[i%4096], Hash{1, 2, 3}, Hash{4, 5, 6})
	}
}

func BenchmarkEntryHash(b *testing.B) {
	key := dynamo.Key{Bucket: "carts", Name: "customer-000000017"}
	b.ReportAllocs()
	for b.Loop() {
		EntryHash(key, [16]byte{1, 2, 3})
	}
}

// TestUnreadableComesLast: a range in doubt that the store cannot read keeps no other from
// being read, and stays in doubt.
func TestUnreadableComesLast(t *testing.T) {
	tree := data{}.built(MinBits)
	for i := range uint32(3) {
		tree.Doubt(Prefix{MinBits, i})
	}
	bad := Prefix{MinBits, 0}
	for range 5 {
		p, _ := tree.Work()
		c := tree.Check(p)
		if p == bad {
			tree.Abandon(c)
			continue
		}
		if _, err := tree.Mend(c, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(tree.doubts, []Prefix{bad}) {
		t.Errorf("in doubt: %v", tree.doubts)
	}
}

// TestWideDoubtIsCut: a doubt as wide as the partition is not read as one range.
func TestWideDoubtIsCut(t *testing.T) {
	for bits := range uint8(MinBits) {
		tree := data{}.built(18)
		tree.Doubt(Prefix{bits, 1<<bits - 1})
		if n := 1 << (MinBits - bits); len(tree.doubts) != n || tree.doubts[n-1] != (Prefix{MinBits, 1<<MinBits - 1}) {
			t.Errorf("%d bits: in doubt are %v", bits, tree.doubts)
		}
	}
}

// TestGrowsInSmallRanges: a tree of many entries that was built from nothing has few leaves,
// which are full. No range that it names to grow is wider than one of them.
func TestGrowsInSmallRanges(t *testing.T) {
	const entries = 1 << 16
	store := make([]Entry, entries)
	for i := range store {
		p := at(rand.New(rand.NewPCG(uint64(i), 7)).Uint64())
		store[i] = Entry{p, hashed(p, 1)}
	}
	slices.SortFunc(store, func(a, b Entry) int { return bytes.Compare(a.Position[:], b.Position[:]) })
	from := func(p [16]byte) int {
		i, _ := slices.BinarySearchFunc(store, p, func(e Entry, p [16]byte) int { return bytes.Compare(e.Position[:], p[:]) })
		return i
	}
	tree, worst := New(testPartitions, testPartition), 0
	tree.DoubtAll()
	for p, ok := tree.Work(); ok; p, ok = tree.Work() {
		c := tree.Check(p)
		first, last := tree.Range(p)
		read := store[from(first):from(last)]
		if _, err := tree.Mend(c, read); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, len(read))
	}
	if tree.Bits() != 14 || tree.Root().Count != entries {
		t.Errorf("%d entries in 2^%d leaves", tree.Root().Count, tree.Bits())
	}
	if worst > 2*entries>>MinBits {
		t.Errorf("a range of %d entries is read at once", worst)
	}
}

// TestUnmarked: the marks of a range are those of all ranges of marks that it overlaps.
func TestUnmarked(t *testing.T) {
	for p, want := range map[Prefix][2]uint32{
		{MinBits, 63}: {63 << 4, 64<<4 - 1}, {MarkBits, 5}: {5, 5}, {MarkBits + 4, 5<<4 | 3}: {5, 5}, {}: {0, 1<<MarkBits - 1},
	} {
		tree := data{}.built(16)
		marks := tree.Unmarked(p)
		if n := int(want[1] - want[0] + 1); len(marks) != n || marks[0] != (Prefix{MarkBits, want[0]}) || marks[n-1] != (Prefix{MarkBits, want[1]}) {
			t.Errorf("%v: %v", p, marks)
		}
		tree.Marked(marks[:1])
		if again := tree.Unmarked(p); !slices.Equal(again, marks[1:]) {
			t.Errorf("%v: one is marked, and left are %v", p, again)
		}
		first, _ := tree.Range(marks[0])
		if _, needed := tree.Mark(first); needed {
			t.Errorf("%v: a write marks again", p)
		}
		saved(tree)
		if again := tree.Unmarked(p); len(again) != len(marks) {
			t.Errorf("%v: after a checkpoint %v", p, again)
		}
	}
}

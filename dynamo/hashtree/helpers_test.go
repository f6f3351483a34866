package hashtree

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

const (
	testPartitions = 8
	testPartition  = 5
)

// at is a position of the test's partition with the given bits behind those of the
// partition.
func at(bits uint64) (p [16]byte) {
	binary.BigEndian.PutUint64(p[:], uint64(testPartition)<<61|bits>>3)
	binary.BigEndian.PutUint64(p[8:], bits<<61)
	return p
}

// spread is the i-th of many positions that are spread evenly.
func spread(i int) [16]byte { return at(rand.New(rand.NewPCG(uint64(i), 1)).Uint64()) }

// hashed is the hash of one of the versions of an entry; version 0 is none.
func hashed(position [16]byte, version int) (h Hash) {
	if version == 0 {
		return h
	}
	r := rand.New(rand.NewPCG(binary.BigEndian.Uint64(position[:]), uint64(version)))
	binary.BigEndian.PutUint64(h[:], r.Uint64())
	binary.BigEndian.PutUint64(h[8:], r.Uint64())
	return h
}

// tester is a test, or rapid's.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// data is what a store holds.
type data map[[16]byte]Hash

// between lists the entries from first to last, in order.
func (d data) between(first, last [16]byte) []Entry {
	var out []Entry
	for p, h := range d {
		if bytes.Compare(p[:], first[:]) >= 0 && bytes.Compare(p[:], last[:]) <= 0 {
			out = append(out, Entry{p, h})
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return bytes.Compare(a.Position[:], b.Position[:]) })
	return out
}

func (d data) set(p [16]byte, h Hash) {
	if h.IsZero() {
		delete(d, p)
		return
	}
	d[p] = h
}

// built is the tree of the data, made from nothing with so many bits.
func (d data) built(bits uint8) *Tree {
	t := New(testPartitions, testPartition)
	t.serving = newLevels(bits)
	for p, h := range d {
		t.Update(p, Hash{}, h)
	}
	return t
}

// settle does all the work that a tree has.
func (d data) settle(t tester, tree *Tree) {
	for {
		p, ok := tree.Work()
		if !ok {
			return
		}
		c := tree.Check(p)
		if _, err := tree.Mend(c, d.between(tree.Range(c.Prefix()))); err != nil {
			t.Fatal(err)
		}
	}
}

// same compares every node of the leaves that both trees have, and of all above.
func same(t tester, what string, a, b *Tree) {
	t.Helper()
	for bits := uint8(0); bits <= min(a.Bits(), b.Bits()); bits++ {
		for i := range uint32(1) << bits {
			p := Prefix{bits, i}
			if x, y := a.Node(p), b.Node(p); x != y {
				t.Fatalf("%s: at %v %v and %v", what, p, x, y)
			}
		}
	}
	if a.Root() != a.Node(Prefix{}) {
		t.Fatalf("%s: the root is not the sum of all", what)
	}
}

// sound says that every node is the sum of those below it.
func sound(t tester, what string, l *levels) {
	t.Helper()
	for level := range len(l.levels) - 1 {
		for i, n := range l.levels[level] {
			below := l.width(level+1) - l.width(level)
			var sum Node
			for _, c := range l.levels[level+1][i<<below : (i+1)<<below] {
				sum.add(c)
			}
			if sum != n {
				t.Fatalf("%s: node %d of level %d is not the sum of those below it", what, i, level)
			}
		}
	}
}

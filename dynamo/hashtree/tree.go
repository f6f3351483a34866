// Package hashtree is the hash tree of one vnode and one n (paper § 4.7: two
// replicas compare the roots of their trees, then the children, and so find the
// keys they differ in without sending the rest).
//
// Two replicas of a partition hold the same keys, so their trees compare directly.
// A tree cuts the partition's slice of the hash space into 2^bits leaves of equal
// width. Every node carries the XOR of the hashes of the entries in its range, and
// their number; an entry is one key with what is causally known of it. XOR, and not
// a hash over the children, for three reasons:
//
//   - a write costs the same few XORs whatever else is in the range, and no read;
//   - a range has one value however the tree below it is cut, so trees with
//     different numbers of leaves compare at every prefix that both have;
//   - the order of writes does not matter, so a tree can be built, checked and
//     mended range by range while writes go on.
//
// # Reading a range again
//
// There is one way to set a leaf right, and the first build, growing, what a crash
// has left, and a leaf that is in doubt all take it: Check(range) begins to note
// the writes to the range, somebody reads the entries of the range from the store,
// and Mend sets its leaves to what was read, except that for a position that was
// written since Check the last write counts. A position that was not written had
// one value all the time, so it does not matter when it was read, nor whether all
// of them were read at one instant. Mend is therefore right in every interleaving,
// as long as a write and its Update are one step to whoever calls Check and Mend.
//
// Work names the range to read next; when it names none, the tree is settled: each
// leaf is what the store holds.
//
// # After a crash
//
// The tree lives in memory. What is stored of it is a checkpoint, and marks: before
// the first write since the checkpoint to one of 1,024 ranges, a mark of that range
// is put into the batch that holds the record. The checkpoint is stored in parts, each with
// the removal of its marks, so its owner may write a few at a time. After a crash it is right
// but for the marked ranges, and those are read again while the vnode serves. A busy
// partition writes at most 1,024 marks between two checkpoints, an idle one reads
// little again. Ranges that were found wrong are marked too, for the checkpoint is.
//
// # Figures
//
// A node takes 20 bytes. The tree grows to four times its leaves when they hold 12
// entries on average, so a key costs 2 to 9 bytes of memory; a million keys have 2^18
// leaves, which with all above them take 6.6 MB. Growing reads the whole partition
// once, range by range: a third of a read per key over the partition's life. A write
// costs two hashes of the key and one XOR per level.
//
// Hashes are xxh3: they tell accidents apart, and are no defence against keys that
// were made to collide. Such keys can hide only their own differences.
package hashtree

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

const (
	// MinBits is the size of an empty tree: 64 leaves.
	MinBits = 6
	// MaxBits is the size of the largest: 4,194,304 leaves. Beyond, they fill up.
	MaxBits = 22
	// MarkBits is the width of a mark: the partition has 1,024 ranges that are
	// marked apart.
	MarkBits = 10

	// crowded is how many entries the leaves hold on average before the tree grows.
	crowded = 12
	// rangeLeaves is by how many bits a range that is read for growing is wider than
	// a leaf of the tree that is grown: it holds some hundred entries.
	rangeLeaves = 4
	// maxDoubts is how many ranges are in doubt apart; further ones are widened.
	maxDoubts = 4096
	// maxSkip is the longest prefix that all positions of a partition share.
	maxSkip = 32
)

// Tree is the hash tree of one vnode and n. It belongs to one goroutine, the one that
// writes the vnode's records.
type Tree struct {
	skip      uint8
	partition dynamo.Partition
	serving   *levels
	// growing is the tree with more leaves that is being filled, nil if none; its
	// ranges before grown, of width rangeBits, are right.
	growing   *levels
	grown     uint32
	rangeBits uint8
	doubts    []Prefix
	doubtful  map[Prefix]bool // the same as a set
	checks    []*Check
	// marked are the ranges whose marks are durable, stored the parts of the checkpoint that were
	// saved of this serving tree, by number.
	marked, stored ranges
}

// New makes the tree of a vnode that has no records, of one of so many partitions.
// DoubtAll makes it the tree of one that has.
func New(partitions int, p dynamo.Partition) *Tree {
	skip := bits.Len(uint(partitions)) - 1
	if partitions < 1 || partitions != 1<<skip || skip > maxSkip || uint64(p) >= uint64(partitions) {
		panic(fmt.Sprintf("hashtree: no tree for partition %d of %d", p, partitions))
	}
	return &Tree{skip: uint8(skip), partition: p, serving: newLevels(MinBits), doubtful: map[Prefix]bool{}}
}

// Bits says that the tree has 2^Bits leaves.
func (t *Tree) Bits() uint8 { return t.serving.bits }

// Node is what the tree has under a prefix, which is not longer than Bits.
func (t *Tree) Node(p Prefix) Node {
	if p.Bits > t.serving.bits || p.Index >= 1<<p.Bits {
		panic(fmt.Sprintf("hashtree: no node %v in a tree of %d bits", p, t.serving.bits))
	}
	return t.serving.node(p)
}

// Root is the sum of all entries.
func (t *Tree) Root() Node { return t.serving.levels[0][0] }

// Range is the first and the last position under a prefix.
func (t *Tree) Range(p Prefix) (first, last [16]byte) {
	fixed := t.skip + p.Bits
	hi := (uint64(t.partition)<<p.Bits | uint64(p.Index)) << (64 - fixed) // a shift by 64 gives 0
	binary.BigEndian.PutUint64(first[:], hi)
	binary.BigEndian.PutUint64(last[:], hi|^uint64(0)>>fixed)
	binary.BigEndian.PutUint64(last[8:], ^uint64(0))
	return first, last
}

// Leaf is the prefix of the leaf that a position belongs to.
func (t *Tree) Leaf(position [16]byte) Prefix { return t.Prefix(position, t.serving.bits) }

// Prefix is the first n bits of a position behind those of the partition.
func (t *Tree) Prefix(position [16]byte, n uint8) Prefix {
	hi := binary.BigEndian.Uint64(position[:])
	if p := hi >> (64 - t.skip); p != uint64(t.partition) {
		panic(fmt.Sprintf("hashtree: position %x is of partition %d, not of %d", position, p, t.partition))
	}
	return Prefix{Bits: n, Index: uint32(hi << t.skip >> (64 - n))}
}

// Update takes a write: the entry at a position was old and is new; the zero Hash is
// none. It must be called for each write, in order, in the step in which reads begin
// to see it. When old is not known, because the stored value is damaged, any will do
// if Doubt is called too.
func (t *Tree) Update(position [16]byte, old, new Hash) {
	mark := t.Prefix(position, MarkBits)
	put(&t.marked, mark.Index)
	for _, c := range t.checks {
		c.note(position, new)
	}
	change := single(old)
	change.Count = -change.Count
	change.add(single(new))
	t.serving.add(t.Prefix(position, t.serving.bits).Index, change)
	if t.growing != nil {
		t.growing.add(t.Prefix(position, t.growing.bits).Index, change)
	}
}

// Mark is the range whose mark must be made durable together with a write to the
// position; false if that was done since the last checkpoint. It is asked before the
// write, and Update takes note of it.
func (t *Tree) Mark(position [16]byte) (Prefix, bool) {
	p := t.Prefix(position, MarkBits)
	return p, !has(&t.marked, p.Index)
}

// Unmarked are the ranges that a range overlaps and whose marks are not durable. When Mend
// finds the checkpoint's entries wrong, they must be, or a crash brings those back; Marked
// takes note of it.
func (t *Tree) Unmarked(p Prefix) []Prefix {
	first, count := p.Parent(min(p.Bits, MarkBits)).Index, uint32(1)
	if p.Bits < MarkBits {
		first, count = first<<(MarkBits-p.Bits), 1<<(MarkBits-p.Bits)
	}
	var out []Prefix
	for i := first; i < first+count; i++ {
		if !has(&t.marked, i) {
			out = append(out, Prefix{Bits: MarkBits, Index: i})
		}
	}
	return out
}

// Marked takes note that the marks of ranges that Unmarked named are durable.
func (t *Tree) Marked(marks []Prefix) {
	for _, m := range marks {
		put(&t.marked, m.Index)
	}
}

// Doubt says that a range may not be what the store holds; Work will name it. A
// mark that a crash has left and a leaf that differs from another replica's though
// all its keys agree are such ranges. Wide ranges are read in parts.
func (t *Tree) Doubt(p Prefix) {
	if p.Bits < MinBits {
		for i := range uint32(1) << (MinBits - p.Bits) {
			t.Doubt(Prefix{Bits: MinBits, Index: p.Index<<(MinBits-p.Bits) | i})
		}
		return
	}
	p = p.Parent(min(p.Bits, t.serving.bits))
	if len(t.doubts) >= maxDoubts {
		p = p.Parent(min(p.Bits, MarkBits))
	}
	for n := uint8(0); n <= p.Bits; n++ {
		if t.doubtful[p.Parent(n)] {
			return
		}
	}
	t.doubts = append(t.doubts, p)
	t.doubtful[p] = true
}

// DoubtAll doubts the whole tree: there was no checkpoint, or it was damaged.
func (t *Tree) DoubtAll() {
	t.Doubt(Prefix{})
}

// wide is the width of the ranges that are read to grow to so many bits: a range is as
// small as the leaves of the larger tree ask for, but not smaller than a leaf of this one.
func (t *Tree) wide(bits uint8) uint8 { return min(t.serving.bits, bits-rangeLeaves) }

// Settled reports whether every leaf is what the store holds, as far as is known.
// Until then the tree is not worth comparing, and Encode must wait.
func (t *Tree) Settled() bool { return len(t.doubts) == 0 }

// Work names the range to check next: one in doubt, or one for growing. It names the
// same one until that is mended, or its check abandoned; false if there is nothing to do.
func (t *Tree) Work() (Prefix, bool) {
	if !t.Settled() {
		return t.doubts[0], true
	}
	if n := t.Root().Count; t.growing == nil && t.serving.bits < MaxBits && n>>t.serving.bits >= crowded {
		bits := bitsFor(n)
		t.growing, t.grown, t.rangeBits = newLevels(bits), 0, t.wide(bits)
	}
	return Prefix{Bits: t.rangeBits, Index: t.grown}, t.growing != nil
}

// bitsFor is how many bits a tree of so many entries should have.
func bitsFor(entries uint32) uint8 {
	b := uint8(MinBits)
	for b < MaxBits && entries>>b >= crowded {
		b += 2
	}
	return b
}

// mended takes note that the leaves under a prefix are right.
func (t *Tree) mended(p Prefix) {
	t.doubts = slices.DeleteFunc(t.doubts, func(d Prefix) bool {
		in := p.Contains(d)
		if in {
			delete(t.doubtful, d)
		}
		return in
	})
	if t.growing == nil {
		return
	}
	for t.grown < 1<<t.rangeBits && p.Contains(Prefix{Bits: t.rangeBits, Index: t.grown}) {
		t.grown++
	}
	if t.grown == 1<<t.rangeBits {
		t.serving, t.growing = t.growing, nil
		clear(t.stored[:])
	}
}

package hashtree

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/dynactor/dynactor/dynamo"
)

// Hash is the hash of an entry, or the XOR of many. The zero Hash is no entry.
type Hash [16]byte

// EntryHash is the hash of a key with what is causally known of it, the CausalHash
// of its record. It is part of the storage format and of the protocol and must never
// change. A record that knows of no write is no entry: its hash is the zero Hash.
func EntryHash(key dynamo.Key, causal [16]byte) Hash {
	var array [binary.MaxVarintLen16 + dynamo.MaxBucket + dynamo.MaxKey + 16]byte
	buf := binary.AppendUvarint(array[:0], uint64(len(key.Bucket)))
	buf = append(buf, key.Bucket...)
	buf = append(buf, key.Name...)
	buf = append(buf, causal[:]...)
	h := Hash(xxh3.Hash128(buf).Bytes())
	if h.IsZero() {
		h[0] = 1
	}
	return h
}

// IsZero reports whether there is no entry.
func (h Hash) IsZero() bool { return h == Hash{} }

// Short is the part of an entry's hash that names it among the few entries of a leaf.
func (h Hash) Short() uint64 { return binary.BigEndian.Uint64(h[:]) }

// Digest is a part of a node's hash that is enough to find differences with. Of 2^32
// that differ one looks equal, so what it did not find differing is not proven equal;
// another round looks at other bytes, and finds it.
func (h Hash) Digest(round uint64) uint32 { return binary.BigEndian.Uint32(h[round%4*4:]) }

func (h *Hash) xor(o *Hash) {
	a, b := h[:], o[:]
	binary.LittleEndian.PutUint64(a, binary.LittleEndian.Uint64(a)^binary.LittleEndian.Uint64(b))
	binary.LittleEndian.PutUint64(a[8:], binary.LittleEndian.Uint64(a[8:])^binary.LittleEndian.Uint64(b[8:]))
}

// Node is the sum of the entries in a range.
type Node struct {
	Hash Hash
	// Count wraps, so that sums may pass through nonsense and come out right.
	Count uint32
}

func (n *Node) add(o Node) {
	n.Hash.xor(&o.Hash)
	n.Count += o.Count
}

// single is the sum of one entry, or of none.
func single(h Hash) Node {
	if h.IsZero() {
		return Node{}
	}
	return Node{Hash: h, Count: 1}
}

// Prefix names a range of a partition: the positions that begin with these bits,
// those of the partition left out.
type Prefix struct {
	Bits  uint8
	Index uint32
}

// String is the prefix as index/bits.
func (p Prefix) String() string { return fmt.Sprintf("%d/%d", p.Index, p.Bits) }

// Parent is the prefix of so many bits, not more than p has, that contains p.
func (p Prefix) Parent(bits uint8) Prefix {
	return Prefix{Bits: bits, Index: p.Index >> (p.Bits - bits)}
}

// Contains reports whether all of o lies under p.
func (p Prefix) Contains(o Prefix) bool { return p.Bits <= o.Bits && o.Parent(p.Bits) == p }

// step is how many bits one level of nodes has more than the one above it.
const step = 4

// levels are the nodes of a tree with 2^bits leaves: the root, its 16 children, and
// so on; the last level, the leaves, may have fewer than 16 for one above it.
type levels struct {
	bits   uint8
	levels [][]Node
}

func newLevels(bits uint8) *levels {
	l := &levels{bits: bits}
	for b := uint8(0); b < bits; b += step {
		l.levels = append(l.levels, make([]Node, 1<<b))
	}
	l.levels = append(l.levels, make([]Node, 1<<bits))
	return l
}

// width is how many bits the nodes of a level have.
func (l *levels) width(level int) uint8 { return min(uint8(level)*step, l.bits) }

// add adds to a leaf and to all nodes above it.
func (l *levels) add(leaf uint32, change Node) {
	for i := range l.levels {
		l.levels[i][leaf>>(l.bits-l.width(i))].add(change)
	}
}

// node sums what is under a prefix: one node, or a few of the next level.
func (l *levels) node(p Prefix) Node {
	level := min((int(p.Bits)+step-1)/step, len(l.levels)-1)
	below := l.width(level) - p.Bits
	var sum Node
	for _, n := range l.levels[level][p.Index<<below : (p.Index+1)<<below] {
		sum.add(n)
	}
	return sum
}

// under are the leaves under a prefix, which is not longer than bits.
func (l *levels) under(p Prefix) []Node {
	below := l.bits - p.Bits
	return l.levels[len(l.levels)-1][p.Index<<below : (p.Index+1)<<below]
}

// set makes the leaves under a prefix what sums says, and returns how many were
// something else.
func (l *levels) set(p Prefix, sums []Node) (wrong int) {
	first := p.Index << (l.bits - p.Bits)
	for i, have := range l.under(p) {
		if want := sums[i]; have != want {
			wrong++
			have.Count = -have.Count
			have.add(want)
			l.add(first+uint32(i), have)
		}
	}
	return wrong
}

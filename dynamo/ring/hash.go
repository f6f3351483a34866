package ring

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/dynactor/dynactor/dynamo"
)

// Position is a key's place in the hash space: a 128-bit number. The paper
// takes MD5 (§ 4.2); xxh3 spreads as well and costs a tenth. It is no defence
// against keys chosen to collide, and none is needed: a key is stored under its
// name, not under its position.
type Position struct {
	// Hi holds the high 64 bits, Lo the low ones.
	Hi, Lo uint64
}

// Hash returns the key's position: the 128-bit xxh3 of the bucket's length, the
// bucket and the name. The length keeps ("ab", "c") and ("a", "bc") apart. The
// function is part of the storage format and must never change.
//
// Keys within the limits of package dynamo are hashed without allocation.
func Hash(k dynamo.Key) Position {
	var array [binary.MaxVarintLen16 + dynamo.MaxBucket + dynamo.MaxKey]byte
	buf := binary.AppendUvarint(array[:0], uint64(len(k.Bucket)))
	buf = append(buf, k.Bucket...)
	buf = append(buf, k.Name...)
	h := xxh3.Hash128(buf)
	return Position{Hi: h.Hi, Lo: h.Lo}
}

// PartitionOf returns which of q partitions holds the position: the top
// log2(q) bits. q must be a power of two, at least 1.
func PartitionOf(pos Position, q int) dynamo.Partition {
	// A shift by 64, for q = 1, gives 0.
	return dynamo.Partition(pos.Hi >> (64 - bits.Len(uint(q)-1)))
}

// PartitionOf returns the partition of a key in this ring, which must not be
// empty.
func (r Ring) PartitionOf(k dynamo.Key) dynamo.Partition {
	return PartitionOf(Hash(k), r.Partitions())
}

// Bytes is the position in big-endian order, so that bytes sort as positions
// do.
func (p Position) Bytes() [16]byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], p.Hi)
	binary.BigEndian.PutUint64(b[8:], p.Lo)
	return b
}

// PositionFrom is the inverse of Bytes.
func PositionFrom(b [16]byte) Position {
	return Position{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

// Compare orders positions as numbers.
func (p Position) Compare(other Position) int {
	return cmp.Or(cmp.Compare(p.Hi, other.Hi), cmp.Compare(p.Lo, other.Lo))
}

// String is the position in hexadecimal.
func (p Position) String() string {
	b := p.Bytes()
	return hex.EncodeToString(b[:])
}

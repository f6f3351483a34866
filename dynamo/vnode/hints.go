package vnode

import (
	"encoding/binary"

	"github.com/dynactor/dynactor/dynamo"
)

// A hint is kept for a node that could not be reached (paper § 4.6): under the
// node's name, the record that a fallback took in its place. A node that is a
// replica of the key itself keeps only the knowledge that another one lacks
// something: a Stored that is zero, which stands for its own record.

// kindHint is the first byte of a hint's storage key.
const kindHint = 'h'

// AppendHintKey encodes behind dst the storage key of a hint: kind,
// length-prefixed name of the node that it is for, and the object's storage key
// without its kind. So what a node and a partition are owed is one range.
func AppendHintKey(dst []byte, intended dynamo.NodeID, object []byte) []byte {
	dst = append(dst, kindHint, byte(len(intended)))
	dst = append(dst, intended...)
	return append(dst, object[1:]...)
}

// ParseHintKey splits a hint's storage key into the node that it is for and the
// object's storage key; ok is false when it is not one.
func ParseHintKey(b []byte) (intended dynamo.NodeID, object []byte, ok bool) {
	if len(b) < 2 || b[0] != kindHint || len(b) < 2+int(b[1]) {
		return "", nil, false
	}
	n := 2 + int(b[1])
	object = append([]byte{kindObject}, b[n:]...)
	if _, _, ok := ParseObjectKey(object); !ok {
		return "", nil, false
	}
	return dynamo.NodeID(b[2:n]), object, true
}

// HintRange is the range of storage keys that holds what one partition keeps
// for a node.
func HintRange(intended dynamo.NodeID, p dynamo.Partition) (lower, upper []byte) {
	lower, upper = ObjectRange(p)
	head := append([]byte{kindHint, byte(len(intended))}, intended...)
	low := append(append([]byte(nil), head...), lower[1:]...)
	if upper[0] != kindObject { // the last partition
		upper = append([]byte(nil), head...)
		return low, increment(upper)
	}
	return low, append(append([]byte(nil), head...), upper[1:]...)
}

// Hints is the range of all hints of a node's store.
func Hints() (lower, upper []byte) { return []byte{kindHint}, []byte{kindHint + 1} }

// increment is the first key behind all that begin with b, which is not all
// 0xff.
func increment(b []byte) []byte {
	for i := len(b) - 1; ; i-- {
		if b[i]++; b[i] != 0 {
			return b[:i+1]
		}
	}
}

// ObjectN is the n of an object's storage key.
func ObjectN(object []byte) int { return int(object[5]) }

// ObjectPosition is the position in an object's storage key.
func ObjectPosition(object []byte) (position [16]byte) {
	copy(position[:], object[6:])
	return position
}

// HintPartition is the partition in a hint's storage key.
func HintPartition(b []byte) dynamo.Partition {
	return dynamo.Partition(binary.BigEndian.Uint32(b[2+int(b[1]):]))
}

package vnode

import (
	"encoding/binary"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
)

// The index of what can be reaped: an entry for each object of which nothing is seen any
// more, or from some instant on. So it is found without reading the objects, and in time
// that does not grow with their number. An entry is written in the batch that writes its
// object.

// reapHead is the length of an entry's key before the position: kind, partition, n, due.
const reapHead = 1 + 4 + 1 + 8

// Reapable is what an entry says of its object.
type Reapable struct {
	// Due is reap.Due of its record.
	Due dynamo.Timestamp
	// Hash is the CausalHash of its record.
	Hash [version.HashSize]byte
	// Size is how many bytes of values it has.
	Size int
}

// AppendReapKey encodes behind dst the storage key of an entry: kind, partition and n of
// the object, when it is due, the rest of the object's storage key. So what is due of one
// n is one range.
func AppendReapKey(dst []byte, due dynamo.Timestamp, object []byte) []byte {
	dst = append(dst, kindReap)
	dst = append(dst, object[1:6]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(max(0, due)))
	return append(dst, object[6:]...)
}

// AppendReapValue encodes behind dst the value of an entry: hash, size.
func AppendReapValue(dst []byte, r version.Record) []byte {
	hash := r.CausalHash()
	return binary.AppendUvarint(append(dst, hash[:]...), uint64(size(r.Versions)))
}

// ParseReap reads an entry, and the storage key of the object that it is of; ok is false
// when it is none.
func ParseReap(key, value []byte) (object []byte, r Reapable, ok bool) {
	if len(key) < reapHead || key[0] != kindReap || len(value) < version.HashSize {
		return nil, r, false
	}
	size, n := binary.Uvarint(value[version.HashSize:])
	if n <= 0 {
		return nil, r, false
	}
	object = append([]byte{kindObject}, key[1:6]...)
	object = append(object, key[reapHead:]...)
	if _, _, ok := ParseObjectKey(object); !ok {
		return nil, r, false
	}
	r.Due = dynamo.Timestamp(binary.BigEndian.Uint64(key[6:]))
	r.Hash, r.Size = [version.HashSize]byte(value), int(min(size, 1<<40))
	return object, r, true
}

// ReapRange is the range of the entries of one n, below 256, that are due at an instant.
func ReapRange(p dynamo.Partition, n int, at dynamo.Timestamp) (lower, upper []byte) {
	lower = binary.BigEndian.AppendUint32([]byte{kindReap}, uint32(p))
	lower = append(lower, byte(n))
	return lower, binary.BigEndian.AppendUint64(append([]byte(nil), lower...), uint64(max(0, at))+1)
}

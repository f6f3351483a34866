package vnode

import (
	"encoding/binary"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// Kinds of storage keys: the first byte of each.
const (
	kindMeta    = 'm'
	kindObject  = 'o'
	kindCorrupt = 'x'
)

// objectHead is the length of an object key before the bucket: kind, partition,
// n, position, length of the bucket's name.
const objectHead = 1 + 4 + 1 + 16 + 1

// AppendObjectKey encodes behind dst the storage key of an object: kind,
// partition, n of its bucket, position, length-prefixed bucket, name. So one
// partition, and in it one range of positions, is one range of the store.
func AppendObjectKey(dst []byte, p dynamo.Partition, n int, position [16]byte, key dynamo.Key) []byte {
	dst = append(dst, kindObject)
	dst = binary.BigEndian.AppendUint32(dst, uint32(p))
	dst = append(dst, byte(n))
	dst = append(dst, position[:]...)
	dst = append(dst, byte(len(key.Bucket)))
	dst = append(dst, key.Bucket...)
	return append(dst, key.Name...)
}

// ParseObjectKey reads the partition and the key out of an object's storage
// key; ok is false when it is not one.
func ParseObjectKey(b []byte) (p dynamo.Partition, key dynamo.Key, ok bool) {
	if len(b) < objectHead || b[0] != kindObject {
		return 0, dynamo.Key{}, false
	}
	bucket := int(b[objectHead-1])
	if len(b) < objectHead+bucket {
		return 0, dynamo.Key{}, false
	}
	p = dynamo.Partition(binary.BigEndian.Uint32(b[1:]))
	rest := b[objectHead:]
	return p, dynamo.Key{Bucket: string(rest[:bucket]), Name: string(rest[bucket:])}, true
}

// ObjectRange is the range of storage keys that holds a partition's objects.
func ObjectRange(p dynamo.Partition) (lower, upper []byte) {
	lower = binary.BigEndian.AppendUint32([]byte{kindObject}, uint32(p))
	if p == ^dynamo.Partition(0) {
		return lower, []byte{kindObject + 1}
	}
	return lower, binary.BigEndian.AppendUint32([]byte{kindObject}, uint32(p)+1)
}

// Objects is the range of all objects of a node's store.
func Objects() (lower, upper []byte) { return []byte{kindObject}, []byte{kindObject + 1} }

// ReplicaRange is the range of storage keys that holds a partition's objects of one
// n, below 256.
func ReplicaRange(p dynamo.Partition, n int) (lower, upper []byte) {
	lower, _ = ObjectRange(p)
	lower = append(lower, byte(n))
	return lower, increment(slices.Clone(lower))
}

// CorruptKey is where the bytes of an unreadable value are set aside.
func CorruptKey(key []byte) []byte { return append([]byte{kindCorrupt}, key...) }

// MetaKey is the storage key of a vnode's own state.
func MetaKey(p dynamo.Partition) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindMeta, 'v', '/'}, uint32(p))
}

// NodeKey is the storage key of a named fact about the node itself.
func NodeKey(name string) []byte { return append([]byte{kindMeta, 'n', '/'}, name...) }

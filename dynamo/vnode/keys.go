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
	kindReap    = 'r'
	kindSalvage = 's'
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

// PositionRange is the range of storage keys that holds the objects of one n between two
// positions, both included.
func PositionRange(p dynamo.Partition, n int, first, last [16]byte) (lower, upper []byte) {
	head, _ := ReplicaRange(p, n)
	return append(slices.Clone(head), first[:]...), increment(append(head, last[:]...))
}

// TreeRange is the range of storage keys that holds the checkpoint of a vnode's hash tree of
// one n.
func TreeRange(p dynamo.Partition, n int) (lower, upper []byte) {
	return treeHead(p, n), increment(treeHead(p, n))
}

// TreeKey is the storage key of a part of such a checkpoint: one of 2^width, with a number
// below 65,536. Those of one width lie together (TreeParts).
func TreeKey(p dynamo.Partition, n int, width uint8, part uint32) []byte {
	return binary.BigEndian.AppendUint16(append(treeHead(p, n), width), uint16(part))
}

// TreeParts is the range of storage keys of the parts of one width.
func TreeParts(p dynamo.Partition, n int, width uint8) (lower, upper []byte) {
	return append(treeHead(p, n), width), append(treeHead(p, n), width+1)
}

func treeHead(p dynamo.Partition, n int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kindMeta, 't', '/'}, uint32(p)), byte(n))
}

// MarkKey is the storage key of a mark: of one n, a range of the hash tree with a number
// below 65,536 was written to since the checkpoint.
func MarkKey(p dynamo.Partition, n int, mark uint32) []byte {
	return binary.BigEndian.AppendUint16(markHead(p, n), uint16(mark))
}

// MarkRange is the range of storage keys that holds the marks of one n.
func MarkRange(p dynamo.Partition, n int) (lower, upper []byte) {
	return markHead(p, n), increment(markHead(p, n))
}

// MarkSpan is the part of MarkRange that holds the marks from first to last.
func MarkSpan(p dynamo.Partition, n int, first, last uint32) (lower, upper []byte) {
	return MarkKey(p, n, first), append(MarkKey(p, n, last), 0)
}

// ParseMark is the number in a mark's storage key.
func ParseMark(b []byte) (mark uint32, ok bool) {
	if len(b) != len(markHead(0, 0))+2 {
		return 0, false
	}
	return uint32(binary.BigEndian.Uint16(b[len(b)-2:])), true
}

func markHead(p dynamo.Partition, n int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kindMeta, 'k', '/'}, uint32(p)), byte(n))
}

// CorruptKey is where the bytes of an unreadable value are set aside.
func CorruptKey(key []byte) []byte { return append([]byte{kindCorrupt}, key...) }

// MetaKey is the storage key of a vnode's own state.
func MetaKey(p dynamo.Partition) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindMeta, 'v', '/'}, uint32(p))
}

// NodeKey is the storage key of a named fact about the node itself.
func NodeKey(name string) []byte { return append([]byte{kindMeta, 'n', '/'}, name...) }

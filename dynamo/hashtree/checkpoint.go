package hashtree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/dynactor/dynactor/dynamo"
)

// ErrCheckpoint: the bytes are no checkpoint of this partition's tree. The tree is
// then built anew from the records.
var ErrCheckpoint = errors.New("hashtree: not a checkpoint of this tree")

const (
	checkpointVersion = 1
	headSize          = 1 + 1 + 4 + 1 // version, bits of a partition, partition, bits of the tree
	nodeSize          = 16 + 4
	sumSize           = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode is the tree as a checkpoint, 20 bytes a leaf: version, partition, leaves,
// checksum. It must be stored in the step in which it is made, in one batch with the
// removal of all marks, and Saved called when that batch is applied. The tree must be
// settled. What it has grown so far is not kept.
func (t *Tree) Encode() []byte {
	if !t.Settled() {
		panic(fmt.Sprintf("hashtree: a checkpoint of a tree with %d ranges in doubt", len(t.doubts)))
	}
	leaves := t.serving.levels[len(t.serving.levels)-1]
	b := make([]byte, 0, headSize+nodeSize*len(leaves)+sumSize)
	b = append(b, checkpointVersion, t.skip)
	b = binary.BigEndian.AppendUint32(b, uint32(t.partition))
	b = append(b, t.serving.bits)
	for i := range leaves {
		b = append(b, leaves[i].Hash[:]...)
		b = binary.BigEndian.AppendUint32(b, leaves[i].Count)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Saved takes note that the last checkpoint is applied and that no marks are left.
func (t *Tree) Saved() { clear(t.marked[:]) }

// Decode makes the tree of a checkpoint. The ranges whose marks are in the store must
// then be doubted.
func Decode(b []byte, partitions int, p dynamo.Partition) (*Tree, error) {
	t := New(partitions, p)
	if len(b) < headSize+sumSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrCheckpoint, len(b))
	}
	body, sum := b[:len(b)-sumSize], binary.BigEndian.Uint32(b[len(b)-sumSize:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, fmt.Errorf("%w: checksum", ErrCheckpoint)
	}
	skip, partition, bits := body[1], binary.BigEndian.Uint32(body[2:]), body[6]
	switch {
	case body[0] != checkpointVersion:
		return nil, fmt.Errorf("%w: version %d", ErrCheckpoint, body[0])
	case skip != t.skip || dynamo.Partition(partition) != p:
		return nil, fmt.Errorf("%w: it is of partition %d of 2^%d", ErrCheckpoint, partition, skip)
	case bits < MinBits || bits > MaxBits || len(body) != headSize+nodeSize<<bits:
		return nil, fmt.Errorf("%w: %d bytes for 2^%d leaves", ErrCheckpoint, len(b), bits)
	}
	t.serving = newLevels(bits)
	for i, rest := uint32(0), body[headSize:]; len(rest) > 0; i, rest = i+1, rest[nodeSize:] {
		t.serving.add(i, Node{Hash: Hash(rest[:16]), Count: binary.BigEndian.Uint32(rest[16:])})
	}
	return t, nil
}

package hashtree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/dynactor/dynactor/dynamo"
)

// ErrCheckpoint: the bytes are no part of a checkpoint of this partition's tree. Its
// range is then read again from the records.
var ErrCheckpoint = errors.New("hashtree: not a checkpoint of this tree")

const (
	checkpointVersion = 2
	headSize          = 1 + 1 + 4 + 1 + 2 // version, bits of a partition, partition, bits of the tree, number of the part
	nodeSize          = 16 + 4
	sumSize           = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parts is the width of the parts of a tree with so many bits, in bits: each has 64 leaves,
// which take 1.3 KiB, and only those of a tree of more than 65,536 leaves have more, up to
// 80 KiB. A part is not narrower than a mark.
func parts(bits uint8) uint8 { return min(MarkBits, bits-MinBits) }

// Unsaved is the first part, from that with this number on, that is not stored as the
// tree has it; false if there is none, or if the tree is not settled and must wait. All
// parts of a tree have the same width; when the tree grows, the width changes.
func (t *Tree) Unsaved(from uint32) (Prefix, bool) {
	width := parts(t.serving.bits)
	for i := from; t.Settled() && i < 1<<width; i++ {
		if p := (Prefix{Bits: width, Index: i}); !has(&t.stored, i) || len(t.Unmarked(p)) < 1<<(MarkBits-width) {
			return p, true
		}
	}
	return Prefix{}, false
}

// Marks are the first and the last mark in a range as wide as a mark or wider.
func Marks(p Prefix) (first, last uint32) {
	wide := MarkBits - p.Bits
	return p.Index << wide, (p.Index+1)<<wide - 1
}

// Encode is a part of the tree, 20 bytes a leaf: version, partition, number, leaves,
// checksum. It must be stored in the step in which it is made, in one batch with the
// removal of the part's marks and of all parts of another width, and Saved called when
// that batch is applied. The part must be one that Unsaved named. What the tree has grown
// so far is not kept.
func (t *Tree) Encode(p Prefix) []byte {
	if !t.Settled() {
		panic(fmt.Sprintf("hashtree: a checkpoint of a tree with %d ranges in doubt", len(t.doubts)))
	}
	leaves := t.serving.under(p)
	b := make([]byte, 0, headSize+nodeSize*len(leaves)+sumSize)
	b = append(b, checkpointVersion, t.skip)
	b = binary.BigEndian.AppendUint32(b, uint32(t.partition))
	b = append(b, t.serving.bits)
	b = binary.BigEndian.AppendUint16(b, uint16(p.Index))
	for i := range leaves {
		b = append(b, leaves[i].Hash[:]...)
		b = binary.BigEndian.AppendUint32(b, leaves[i].Count)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Saved takes note that a part is applied and that no marks of it are left.
func (t *Tree) Saved(p Prefix) {
	put(&t.stored, p.Index)
	first, last := Marks(p)
	for i := first; i <= last; i++ {
		t.marked[i/64] &^= 1 << (i % 64)
	}
}

// unsave takes note that what is stored of a range is not what the tree has, whether it can be
// marked or not.
func (t *Tree) unsave(p Prefix) {
	width := parts(t.serving.bits)
	first, count := p.Parent(min(p.Bits, width)).Index, uint32(1)
	if p.Bits < width {
		first, count = first<<(width-p.Bits), 1<<(width-p.Bits)
	}
	for i := first; i < first+count; i++ {
		t.stored[i/64] &^= 1 << (i % 64)
	}
}

// Load makes the tree of the parts that are stored of it. What they leave out is in
// doubt; the ranges whose marks are in the store must be doubted besides. The error names
// the parts that are damaged or of another tree, which count as left out; the tree is
// good all the same.
func Load(partitions int, p dynamo.Partition, stored [][]byte) (*Tree, error) {
	t := New(partitions, p)
	var errs error
	var good [][]byte
	found := [MaxBits + 1]int{} // parts by the bits of their tree
	for _, b := range stored {
		body, err := t.open(b)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		good = append(good, body)
		found[body[6]]++
	}
	bits := uint8(MinBits) // of which the most is there
	for b := range found {
		if found[b]<<(MarkBits-parts(uint8(b))) > found[bits]<<(MarkBits-parts(bits)) {
			bits = uint8(b)
		}
	}
	t.serving = newLevels(bits)
	for _, body := range good {
		if body[6] == bits {
			t.take(body)
		}
	}
	for i := range uint32(1) << parts(bits) {
		if !has(&t.stored, i) {
			t.Doubt(Prefix{Bits: parts(bits), Index: i})
		}
	}
	return t, errs
}

// open checks a part and returns it without its checksum.
func (t *Tree) open(b []byte) ([]byte, error) {
	if len(b) < headSize+sumSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrCheckpoint, len(b))
	}
	body, sum := b[:len(b)-sumSize], binary.BigEndian.Uint32(b[len(b)-sumSize:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, fmt.Errorf("%w: checksum", ErrCheckpoint)
	}
	skip, partition, bits, number := body[1], binary.BigEndian.Uint32(body[2:]), body[6], binary.BigEndian.Uint16(body[7:])
	switch {
	case body[0] != checkpointVersion:
		return nil, fmt.Errorf("%w: version %d", ErrCheckpoint, body[0])
	case skip != t.skip || dynamo.Partition(partition) != t.partition:
		return nil, fmt.Errorf("%w: it is of partition %d of 2^%d", ErrCheckpoint, partition, skip)
	case bits < MinBits || bits > MaxBits || number>>parts(bits) != 0 || len(body) != headSize+nodeSize<<(bits-parts(bits)):
		return nil, fmt.Errorf("%w: %d bytes for part %d of 2^%d leaves", ErrCheckpoint, len(b), number, bits)
	}
	return body, nil
}

// take sets the leaves of a part that was checked, once.
func (t *Tree) take(body []byte) {
	number := uint32(binary.BigEndian.Uint16(body[7:]))
	if has(&t.stored, number) {
		return
	}
	put(&t.stored, number)
	leaf := number << (t.serving.bits - parts(t.serving.bits))
	for rest := body[headSize:]; len(rest) > 0; rest = rest[nodeSize:] {
		t.serving.add(leaf, Node{Hash: Hash(rest[:16]), Count: binary.BigEndian.Uint32(rest[16:])})
		leaf++
	}
}

// ranges is a set of numbers below 2^MarkBits.
type ranges [1 << MarkBits / 64]uint64

func has(r *ranges, i uint32) bool { return r[i/64]&(1<<(i%64)) != 0 }
func put(r *ranges, i uint32)      { r[i/64] |= 1 << (i % 64) }

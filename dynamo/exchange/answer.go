package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo/hashtree"
)

// ErrRequest: a peer asked for what it may not ask for, or for what this tree cannot
// tell.
var ErrRequest = errors.New("exchange: bad request")

// Meet compares a root and the size of a peer's tree with the own tree, as both sides
// do: what equal says is the answer, and if it is false, bits and the digests of the
// root's children.
func Meet(t *hashtree.Tree, root hashtree.Hash, bits uint8, round uint64) (equal bool, common uint8, digests []uint32, err error) {
	if t.Root().Hash == root {
		return true, 0, nil, nil
	}
	common = min(bits, t.Bits())
	digests, err = Digests(t, Compare{Round: round, Index: []uint32{0}, To: deeper(0, common)})
	return false, common, digests, err
}

// Digests are those of the children that are asked for, in order.
func Digests(t *hashtree.Tree, c Compare) ([]uint32, error) {
	if c.To <= c.Bits || c.To > t.Bits() || c.To-c.Bits > LevelBits || len(c.Index)<<(c.To-c.Bits) > MaxNodes {
		return nil, fmt.Errorf("%w: children of %d bits of %d nodes of %d bits, in a tree of %d", ErrRequest, c.To, len(c.Index), c.Bits, t.Bits())
	}
	if err := checkIndex(c.Bits, c.Index); err != nil {
		return nil, err
	}
	below := c.To - c.Bits
	out := make([]uint32, 0, len(c.Index)<<below)
	for _, node := range c.Index {
		for i := range uint32(1) << below {
			out = append(out, t.Node(hashtree.Prefix{Bits: c.To, Index: node<<below | i}).Hash.Digest(c.Round))
		}
	}
	return out, nil
}

// Check says whether a peer may ask for this list.
func (l List) Check() error {
	if l.Bits > hashtree.MaxBits || len(l.Index) > MaxLeaves {
		return fmt.Errorf("%w: %d leaves of %d bits", ErrRequest, len(l.Index), l.Bits)
	}
	return checkIndex(l.Bits, l.Index)
}

// checkIndex wants at least one node, each once, in order.
func checkIndex(width uint8, index []uint32) error {
	for i, n := range index {
		if n >= 1<<width || i > 0 && n <= index[i-1] {
			return fmt.Errorf("%w: nodes %d of %d bits", ErrRequest, index, width)
		}
	}
	if len(index) == 0 {
		return fmt.Errorf("%w: no nodes", ErrRequest)
	}
	return nil
}

// Holding collects what one side holds in the leaves of a List, in order. Whoever
// begins lists its own side first, asks the peer for the same leaves From there to
// Next, and cuts its own to what the peer's answer covers, so that both lists are of
// one range.
type Holding struct {
	// Lists are the hashes in each leaf so far.
	Lists [][]uint64
	// Next is the storage key of the first entry that had no room; nil if all had. The
	// last list then ends before it.
	Next []byte
	// Damaged is how many leaves could not be read to their end.
	Damaged int
	keys    [][]byte
	bytes   int
}

// Leaf begins the next leaf; false when there is no room for more.
func (l *Holding) Leaf() bool {
	if l.Next == nil && !l.full() {
		l.Lists = append(l.Lists, nil)
		return true
	}
	return false
}

// full says that there is no room for more, or that enough was read.
func (l *Holding) full() bool { return len(l.keys) == MaxKeys || l.bytes >= MaxReadBytes }

// Add takes the next entry of the leaf, for which size bytes were read, and returns false
// when there was no room.
func (l *Holding) Add(key []byte, hash uint64, size int) bool {
	if l.full() {
		l.Next = bytes.Clone(key)
		return false
	}
	last := len(l.Lists) - 1
	l.Lists[last] = append(l.Lists[last], hash)
	l.keys = append(l.keys, bytes.Clone(key))
	l.bytes += size
	return true
}

// Cut leaves what an answer about so many leaves covers, the last of which it lists
// before next if that is not nil.
func (l *Holding) Cut(leaves int, next []byte) {
	if leaves < len(l.Lists) {
		l.Lists, l.Next = l.Lists[:leaves], nil
	}
	if len(l.Lists) == 0 || next == nil {
		return
	}
	l.Next = next
	before := 0
	for _, list := range l.Lists[:len(l.Lists)-1] {
		before += len(list)
	}
	last := &l.Lists[len(l.Lists)-1]
	end, _ := slices.BinarySearchFunc(l.keys[before:before+len(*last)], next, bytes.Compare)
	*last = (*last)[:end]
}

// Batch says which of the records that were found for a list of items go into one
// message. sizes has for each item how many bytes its record takes, 0 if it is not
// there any more, and -1 if it cannot be read.
func Batch(sizes []int) (handled, records, damaged, total int) {
	for _, n := range sizes {
		switch {
		case n < 0:
			damaged++
		case n == 0:
		case records > 0 && total+n > MaxRecordBytes:
			return handled, records, damaged, total
		default:
			records++
			total += n
		}
		handled++
	}
	return handled, records, damaged, total
}

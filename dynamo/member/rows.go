package member

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// Row is what one node says of itself, spread by gossip (§ 4.8.1). Only the node
// makes new ones; others pass them on.
type Row struct {
	Node dynamo.NodeID
	// Start is the number of the node's start, Counter grows with each change since:
	// together they order the rows of a node.
	Start, Counter uint64
	// Address is where the node is now.
	Address string
	Facts
	// Bytes is how much the node's store holds, roughly.
	Bytes uint64
}

// newer reports whether r replaces o.
func (r Row) newer(o Row) bool {
	return cmp.Or(cmp.Compare(r.Start, o.Start), cmp.Compare(r.Counter, o.Counter)) > 0
}

// Rows are the newest row of each node that was heard of. They belong to one
// goroutine.
type Rows map[dynamo.NodeID]Row

// Merge takes a row in if it is newer than what is known, and reports whether.
func (rows Rows) Merge(r Row) bool {
	if have, known := rows[r.Node]; known && !r.newer(have) {
		return false
	}
	rows[r.Node] = r
	return true
}

// Sorted are the rows by name.
func (rows Rows) Sorted() []Row {
	out := make([]Row, 0, len(rows))
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		out = append(out, rows[id])
	}
	return out
}

// Facts are what all nodes say, as Document.Advance takes it.
func (rows Rows) Facts() map[dynamo.NodeID]Facts {
	out := make(map[dynamo.NodeID]Facts, len(rows))
	for id, r := range rows {
		out[id] = r.Facts
	}
	return out
}

// Digest is a number that two nodes share when they know the same rows; that they
// share it by chance does not happen, and would only delay news until the next
// change.
func (rows Rows) Digest() uint64 {
	h := fnv.New64a()
	var b []byte
	for _, r := range rows.Sorted() {
		b = append(append(b[:0], r.Node...), 0)
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, r.Start), r.Counter)
		_, _ = h.Write(b) // never fails
	}
	return h.Sum64()
}

// Retain forgets all rows that are not Of a member.
func (rows Rows) Retain(d *Document) {
	maps.DeleteFunc(rows, func(_ dynamo.NodeID, r Row) bool { return !r.Of(d) })
}

// Of reports whether the row is of a member that is not gone, and of its store:
// another store counts its starts anew, so their rows have no order.
func (r Row) Of(d *Document) bool {
	m, ok := d.Member(r.Node)
	return ok && m.Status != Gone && m.Store == r.Store
}

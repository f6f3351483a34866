package member

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
)

// ErrOnlyCopy: a replica cannot be given up, as nobody else has the data.
var ErrOnlyCopy = errors.New("no other replica has the data")

// LoseReplica gives up a member's replica of a partition, because it cannot read some of it:
// once this is in force there the member drops what it cannot read, keeps what it can, and is
// filled by the others as one that has lost its disk. known is the version of the document by
// which the member found that out: if the replica was given up since, nothing changes.
//
// Nothing readable goes, so several replicas may be given up at a time, even all: each takes from
// the others what they can read. If one had to wait for another one to be filled, that might wait for
// what this one cannot read. The errors are ErrOnlyCopy and those of changes.
func (d Document) LoseReplica(p dynamo.Partition, node dynamo.NodeID, store StoreID, known uint64) (Document, error) {
	m, ok := d.Member(node)
	switch {
	case !ok || m.Out() || m.Removed:
		return d, fmt.Errorf("%w: %s", ErrUnknownMember, node)
	case m.Store != store:
		return d, fmt.Errorf("%w: %s has another store by now", ErrPlanChanged, node)
	}
	f := Fill{Partition: p, Node: node, Whole: true, Since: d.Version + 1}
	from, to := d.FillRange(f)
	if from > to {
		return d, fmt.Errorf("%w: %s is no replica of partition %d", ErrPlanChanged, node, p)
	}
	before, lacks := d.Filling(p, node)
	f.Emptied = before.empty()
	if lacks && before.Since > known {
		return d, nil
	}
	for _, n := range d.sizes() {
		if n < from || n > to {
			continue
		}
		if len(d.Sources(f, n)) == 0 {
			return d, fmt.Errorf("%w of partition %d with n = %d", ErrOnlyCopy, p, n)
		}
	}
	out := d.successor()
	i, _ := slices.BinarySearchFunc(out.Movement.Filling, f, compareFills)
	if !lacks {
		out.Movement.Filling = slices.Insert(out.Movement.Filling, i, f)
	}
	out.Movement.Filling[i] = f
	return out, out.Validate()
}

// MaybeLost reports whether what a node has lost of a partition may be nowhere else: so many of the
// replicas lack data, by the document, that some bucket's writes may have been confirmed by those alone.
func (d *Document) MaybeLost(p dynamo.Partition, node dynamo.NodeID) bool {
	from, to := d.FillRange(Fill{Partition: p, Node: node, Whole: true})
	maybe := func(properties bucket.Properties) bool {
		n, lacking := properties.Quorum.N, 0
		for _, replica := range d.Reading(p).Primaries(p, n) {
			if m, ok := d.Member(replica); !ok || m.Removed || !d.Authoritative(p, n, replica) {
				lacking++
			}
		}
		return from <= n && n <= to && lacking >= properties.Quorum.W
	}
	return maybe(bucket.Default()) || slices.ContainsFunc(d.Buckets, func(b Bucket) bool { return maybe(b.Properties) })
}

// sizes are the numbers of replicas that buckets have.
func (d *Document) sizes() []int {
	out := []int{bucket.Default().Quorum.N}
	for _, b := range d.Buckets {
		out = append(out, b.Properties.Quorum.N)
	}
	return out
}

package member

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
)

// Why a replica cannot be given up.
var (
	// ErrOnlyCopy: nobody else has the data that would be lost.
	ErrOnlyCopy = errors.New("no other replica has the data")
	// ErrOtherFirst: another replica is being filled. This one may have what it lacks.
	ErrOtherFirst = errors.New("another replica is being filled")
)

// LoseReplica gives up what a member keeps of a partition, all of it, because it cannot read
// some of it: the member drops it once this is in force there, and is filled by the others
// as one that has lost its disk. known is the version of the document by which the member
// found that out: if the replica was given up since, nothing changes. Whatever a member drops
// another one must have: the errors are ErrOnlyCopy, ErrOtherFirst and those of changes.
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
	if lacks && before.Since > known {
		return d, nil
	}
	for _, n := range d.sizes() {
		if n < from || n > to {
			continue
		}
		sources := d.Sources(f, n)
		if len(sources) == 0 {
			return d, fmt.Errorf("%w of partition %d with n = %d", ErrOnlyCopy, p, n)
		}
		for _, s := range sources {
			if x, filling := d.Filling(p, s); filling && x.Whole {
				return d, fmt.Errorf("%w: %s, partition %d", ErrOtherFirst, s, p)
			}
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

// sizes are the numbers of replicas that buckets have.
func (d *Document) sizes() []int {
	out := []int{bucket.Default().Quorum.N}
	for _, b := range d.Buckets {
		out = append(out, b.Properties.Quorum.N)
	}
	return out
}

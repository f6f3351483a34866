package member

import (
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// TakeOver gives a member a new store in the place of the one that was lost: the node
// has to be filled wherever it is a replica. lost is the store that the member had when
// this was asked for. If it has another one by now, the asker may be gone as well, and
// is to ask again: ErrPlanChanged. The other errors are those of changes.
func (d Document) TakeOver(node dynamo.NodeID, lost, store StoreID, start uint64, address string) (Document, error) {
	out := d.successor()
	i, ok := out.index(node)
	switch {
	case !ok || out.Members[i].Status == Gone:
		return d, fmt.Errorf("%w: %s; let it join as a new one", ErrUnknownMember, node)
	case out.Members[i].Store != lost:
		return d, fmt.Errorf("%w: the store of %s was taken over meanwhile", ErrPlanChanged, node)
	case out.Members[i].Removed:
		return d, fmt.Errorf("%w: %s; wait until it is gone, then let it join as a new one", ErrRemovedStore, node)
	}
	for _, m := range out.Members {
		if m.Store == store {
			return d, fmt.Errorf("%w: the store of %s is the one that %s has; start it with an empty data directory", ErrAlreadyMember, node, m.ID)
		}
	}
	m := &out.Members[i]
	m.Store, m.Start, m.Address = store, start, address
	for _, p := range out.Vnodes(node) {
		f := Fill{Partition: p, Node: node, Whole: true}
		at, lacks := slices.BinarySearchFunc(out.Movement.Filling, f, compareFills)
		if from, to := out.FillRange(f); from > to {
			continue
		}
		if !lacks {
			out.Movement.Filling = slices.Insert(out.Movement.Filling, at, f)
		}
		out.Movement.Filling[at] = f
	}
	return out, out.Validate()
}

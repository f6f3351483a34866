package member

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// ErrNotLost: a loss is accepted of a partition that nobody has lost.
var ErrNotLost = errors.New("not lost")

// Loss is what replicas of a partition cannot be filled with any more: no replica is left that
// has it. They take writes, and go on waiting until an operator accepts the loss.
type Loss struct {
	Partition dynamo.Partition
	// N are the numbers of replicas, of those that buckets have, of which the data is lost, ascending.
	N []int
	// Waiting are the replicas that are not filled because of it, ascending.
	Waiting []dynamo.NodeID
}

// bit marks the keys with n replicas in Fill.Accepted.
func bit(n int) uint32 { return 1 << n }

// Losses are all that was lost and not accepted yet, by partition.
func (d *Document) Losses() []Loss {
	var out []Loss
	for _, f := range d.Movement.Filling {
		lost := d.Lost(f)
		if len(lost) == 0 {
			continue
		}
		if len(out) == 0 || out[len(out)-1].Partition != f.Partition {
			out = append(out, Loss{Partition: f.Partition})
		}
		l := &out[len(out)-1]
		l.Waiting = append(l.Waiting, f.Node)
		l.N = append(l.N, lost...)
		slices.Sort(l.N)
		l.N = slices.Compact(l.N)
	}
	return out
}

// Lost are the n for which a fill waits in vain: some bucket has that n, no replica has the
// data, and nobody has accepted that.
func (d *Document) Lost(f Fill) (lost []int) {
	gone := d.unsourced(f) &^ f.Accepted
	if gone == 0 {
		return nil
	}
	for _, n := range d.sizes() {
		if gone&bit(n) != 0 && !slices.Contains(lost, n) {
			lost = append(lost, n)
		}
	}
	slices.Sort(lost)
	return lost
}

// unsourced marks the n of a fill of which nobody has the data: there is no source, or all have
// lost their disks, too, and have nothing but what was written since. A replica that could not read some of its
// data has the rest: it fills others, and is itself content with sources that have lost their disks.
func (d *Document) unsourced(f Fill) (out uint32) {
	from, to := d.FillRange(f)
	for n := from; n <= to; n++ {
		sources := d.Sources(f, n)
		has := func(node dynamo.NodeID) bool {
			lack, _ := d.Filling(f.Partition, node)
			return !lack.empty()
		}
		if !slices.ContainsFunc(sources, has) && (len(sources) == 0 || !f.Whole || f.empty()) {
			out |= bit(n)
		}
	}
	return out
}

// empty reports whether a replica began with nothing: its disk was lost.
func (f Fill) empty() bool { return f.Whole && (f.Since == 0 || f.Emptied) }

// AcceptLoss gives up what was lost of partitions, of all if none is named: their replicas are
// filled with what is left. version is that of the document that the losses were looked at in. Errors are ErrPlanChanged,
// ErrValue and ErrNotLost.
func (d Document) AcceptLoss(partitions []dynamo.Partition, version uint64) (Document, error) {
	if version != d.Version {
		return d, fmt.Errorf("%w: looked at in version %d, now it is %d; look at what is lost again", ErrPlanChanged, version, d.Version)
	}
	losses := d.Losses()
	for _, p := range partitions {
		if q := d.Settled.Partitions(); int(p) >= q {
			return d, fmt.Errorf("%w: partition %d; there are 0 to %d", ErrValue, p, q-1)
		}
		if !slices.ContainsFunc(losses, func(l Loss) bool { return l.Partition == p }) {
			return d, fmt.Errorf("%w: partition %d; the cluster's status names those that are", ErrNotLost, p)
		}
	}
	if len(losses) == 0 {
		return d, fmt.Errorf("%w: any partition; there is nothing to accept", ErrNotLost)
	}
	out := d.successor()
	for i, f := range d.Movement.Filling {
		if len(d.Lost(f)) > 0 && (len(partitions) == 0 || slices.Contains(partitions, f.Partition)) {
			out.Movement.Filling[i].Accepted |= d.unsourced(f)
		}
	}
	return out, out.Validate()
}

// unaccept takes the marks off fills for which there is a source again: should that be lost, too,
// then that is another loss. It reports whether there were any.
func (d *Document) unaccept() (changed bool) {
	for i := range d.Movement.Filling {
		f := &d.Movement.Filling[i]
		if f.Accepted == 0 {
			continue
		}
		left := f.Accepted & d.unsourced(*f)
		changed = changed || left != f.Accepted
		f.Accepted = left
	}
	return changed
}

// allSizes marks every n that a bucket may have.
const allSizes uint32 = 1<<(quorum.MaxN+1) - 2

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
	sizes := d.sizeBits()
	for _, f := range d.Movement.Filling {
		lost := d.unsourced(f, sizes&^f.Accepted)
		if lost == 0 {
			continue
		}
		if len(out) == 0 || out[len(out)-1].Partition != f.Partition {
			out = append(out, Loss{Partition: f.Partition})
		}
		l := &out[len(out)-1]
		l.Waiting = append(l.Waiting, f.Node)
		for n := range quorum.MaxN + 1 {
			if i, has := slices.BinarySearch(l.N, n); !has && lost&bit(n) != 0 {
				l.N = slices.Insert(l.N, i, n)
			}
		}
	}
	return out
}

// Lost reports whether a fill waits in vain: some bucket has an n of which no replica has the data, and
// nobody has accepted that.
func (d *Document) Lost(f Fill) bool { return d.unsourced(f, d.sizeBits()&^f.Accepted) != 0 }

// LostFor reports whether the data of the partition's keys with n replicas is lost, and nobody has accepted
// that.
func (d *Document) LostFor(p dynamo.Partition, n int) bool {
	return slices.ContainsFunc(d.Movement.Filling, func(f Fill) bool {
		return f.Partition == p && d.unsourced(f, bit(n)&^f.Accepted) != 0
	})
}

// sizeBits marks the n that buckets have.
func (d *Document) sizeBits() (out uint32) {
	for _, n := range d.sizes() {
		out |= bit(n)
	}
	return out
}

// unsourced marks those of the given n of a fill of which nobody has the data: there is no source, or all have
// lost their disks, too, and have nothing but what was written since. A replica that reads ask and that could
// not read some of its data has the rest: it fills others, and is itself content with sources that have lost their disks.
func (d *Document) unsourced(f Fill, of uint32) (out uint32) {
	from, to := d.FillRange(f)
	for n := from; n <= to; n++ {
		if of&bit(n) == 0 {
			continue
		}
		sources := d.Sources(f, n)
		has := func(node dynamo.NodeID) bool {
			lack, _ := d.Filling(f.Partition, node)
			return !lack.empty()
		}
		rest := f.Whole && !f.empty() && d.Reading(f.Partition).IsPrimary(f.Partition, n, f.Node)
		if !slices.ContainsFunc(sources, has) && (len(sources) == 0 || !rest) {
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
	out, sizes := d.successor(), d.sizeBits()
	for i, f := range d.Movement.Filling {
		if d.unsourced(f, sizes&^f.Accepted) != 0 && (len(partitions) == 0 || slices.Contains(partitions, f.Partition)) {
			out.Movement.Filling[i].Accepted |= d.unsourced(f, allSizes)
		}
	}
	return out, out.Validate()
}

// unaccept takes the marks off fills for which there is a source again: should that be lost, too,
// then that is another loss.
func (d *Document) unaccept() {
	for i := range d.Movement.Filling {
		if f := &d.Movement.Filling[i]; f.Accepted != 0 {
			f.Accepted = d.unsourced(*f, f.Accepted)
		}
	}
}

// neverLost has no fill wait for keys with n replicas, if no bucket had that n until now: there
// are none.
func (d *Document) neverLost(n int) {
	if d.sizeBits()&bit(n) != 0 {
		return
	}
	for i := range d.Movement.Filling {
		f := &d.Movement.Filling[i]
		f.Accepted |= d.unsourced(*f, bit(n))
	}
}

// allSizes marks every n that a bucket may have.
const allSizes uint32 = 1<<(quorum.MaxN+1) - 2

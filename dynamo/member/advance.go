package member

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// Facts are what a member says of itself: nobody else can know it. They spread by
// gossip and only ever grow while the document's target stays the same.
type Facts struct {
	// Store tells whether the facts are of the store that the document knows.
	Store StoreID
	// Known is the version of the document that the node has made durable and goes
	// by.
	Known uint64
	// Target is the version of the ring that Filled is for (Document.Target).
	Target uint64
	// Filled are the partitions that the node has filled, ascending.
	Filled []dynamo.Partition
	// Idle: the node keeps nothing that is for others, nor any data that it is not
	// a replica of.
	Idle bool
}

// Advance takes the movement as far as the facts allow: all members know that Next
// was announced; new replicas have their data; all know that a partition is
// switched. It reports whether that changed anything; then the result is the next
// version, to be proposed by anybody. The same document and facts always give the
// same result.
func (d Document) Advance(facts map[dynamo.NodeID]Facts) (Document, bool) {
	out := d.successor()
	changed := out.filled(facts)
	if out.Next != nil {
		changed = out.advance(facts) || changed
	}
	if out.Next == nil && out.Movement.Queued {
		if p, err := out.claim(nil); err == nil {
			out, changed = p.Document, true
		}
	}
	changed = out.depart(&d, facts) || changed
	if !changed {
		return d, false
	}
	return out, true
}

// filled takes away the fills that are complete, and those of removed members, who
// get nothing any more. One that lacks what nobody has any more is not complete, whatever
// its node says, unless an operator has accepted that.
func (d *Document) filled(facts map[dynamo.NodeID]Facts) bool {
	before, target, sizes := *d, d.Target(), d.sizeBits()
	d.Movement.Filling = slices.DeleteFunc(slices.Clone(d.Movement.Filling), func(f Fill) bool {
		m, ok := d.Member(f.Node)
		if !ok || m.Removed || m.Status == Gone {
			return true
		}
		fact := facts[f.Node]
		_, done := slices.BinarySearch(fact.Filled, f.Partition)
		return done && fact.Target == target && fact.Store == m.Store && fact.Known >= f.Since && d.due(f) && before.unsourced(f, sizes&^f.Accepted) == 0
	})
	return len(d.Movement.Filling) < len(before.Movement.Filling)
}

// waive drops the fills of removed members.
func (d *Document) waive() { d.filled(nil) }

// advance moves partitions on.
func (d *Document) advance(facts map[dynamo.NodeID]Facts) bool {
	mv := &d.Movement
	if mv.Joint == 0 {
		if !d.allKnow(facts, d.Voters(), mv.Announced) {
			return false
		}
		mv.Joint = d.Version
		return true
	}
	changed, done := false, 0
	for q := range d.Next.Partitions() {
		p := dynamo.Partition(q)
		i, switched := d.switched(p)
		switch {
		case switched && mv.Switched[i].Done:
			done++
		case switched && !d.refilling(p) && d.allKnow(facts, d.listed(p), mv.Switched[i].At):
			mv.Switched[i].Done, changed = true, true
			done++
		case switched:
		case slices.Equal(d.Settled.Replicas(p), d.Next.Replicas(p)):
			mv.Switched = slices.Insert(mv.Switched, i, Switch{Partition: p, At: d.Version, Done: true})
			changed = true
			done++
		case !d.filling(p):
			mv.Switched = slices.Insert(mv.Switched, i, Switch{Partition: p, At: d.Version})
			changed = true
		}
	}
	if done == d.Next.Partitions() {
		d.settle()
	}
	return changed
}

// filling reports whether a replica that is new by the partition's next list lacks
// data.
func (d *Document) filling(p dynamo.Partition) bool {
	return slices.ContainsFunc(d.Movement.Filling, func(f Fill) bool { return f.Partition == p && d.isNew(p, f.Node) })
}

// refilling reports whether a replica by the partition's next list, which is in use, has lost data that others
// have. Those of the settled list may be the only ones, and drop what they have once the partition is done.
// A fill that waits for an operator to accept a loss holds nothing up.
func (d *Document) refilling(p dynamo.Partition) bool {
	sizes := d.sizeBits()
	return slices.ContainsFunc(d.Movement.Filling, func(f Fill) bool {
		return f.Partition == p && position(*d.Next, p, f.Node) < quorum.MaxN && d.unsourced(f, sizes&^f.Accepted) == 0
	})
}

// settle ends the movement.
func (d *Document) settle() {
	d.Settled = *d.Next
	d.Next = nil
	d.Movement = Movement{Filling: d.Movement.Filling, Queued: d.Movement.Queued}
	d.promote()
}

// promote makes those that have joined full members once nothing moves.
func (d *Document) promote() {
	if d.Next != nil {
		return
	}
	for i := range d.Members {
		if m := &d.Members[i]; m.Status == Joining && !d.Movement.Queued {
			m.Status = Up
		}
	}
}

// depart lets those go that were leaving and keep nothing any more. What a member said
// while it had a place in a ring counts for nothing: what it kept was its own then. So
// it must have said so by the document in force, which now is, and no ring moves in it.
func (d *Document) depart(now *Document, facts map[dynamo.NodeID]Facts) bool {
	if d.Next != nil || d.Movement.Queued {
		return false
	}
	changed := false
	for i := range d.Members {
		m := &d.Members[i]
		if m.Status != Leaving || d.Settled.Has(m.ID) {
			continue
		}
		f := facts[m.ID]
		if m.Removed || now.Next == nil && f.Idle && f.Store == m.Store && f.Known >= now.Version {
			m.Status, changed = Gone, true
		}
	}
	return changed
}

// allKnow reports whether each of the nodes that is waited for knows the version.
func (d *Document) allKnow(facts map[dynamo.NodeID]Facts, nodes []dynamo.NodeID, version uint64) bool {
	return !slices.ContainsFunc(nodes, func(n dynamo.NodeID) bool {
		m, ok := d.Member(n)
		if !ok || m.Removed || m.Status == Gone {
			return false
		}
		f := facts[n]
		return f.Store != m.Store || f.Known < version
	})
}

// listed are the nodes of a partition's settled and next list.
func (d *Document) listed(p dynamo.Partition) []dynamo.NodeID {
	return append(d.Settled.Replicas(p), d.Next.Replicas(p)...)
}

// Unfinished reports whether Advance may have something to do one day.
func (d *Document) Unfinished() bool {
	return d.Next != nil || d.Movement.Queued || len(d.Movement.Filling) > 0 ||
		slices.ContainsFunc(d.Members, func(m Member) bool { return m.Status == Leaving })
}

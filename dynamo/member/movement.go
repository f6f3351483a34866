package member

import (
	"cmp"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// Movement is how a cluster gets from the settled ring to the next one without
// losing sight of a write (paper § 4.9, § 6.2). Every partition goes through
//
//	announced  Next is known; writes and reads use the settled list.
//	joint      Writes need their quorum in the settled list and in the next one,
//	           reads use the settled list. The new replicas are filled.
//	switched   Reads use the next list, writes still need both.
//	done       Only the next list counts.
//
// A partition becomes joint when all members know of Next, so that the new
// replicas expect writes. It is switched when its new replicas have everything
// that lay in the settled list at or after the time at which each of the settled
// replicas knew that it is joint and refused requests that were planned before.
// It is done when all replicas of both lists know that it is switched, so that
// nobody reads the settled list any more. When all are done, Next is the settled
// ring.
type Movement struct {
	// Announced is the version of the document that announced Next, Joint the one
	// from which writes go to both lists; 0: not yet.
	Announced, Joint uint64
	// Switched are the partitions that are switched or done, ascending.
	Switched []Switch
	// Filling are the replicas that lack data, ascending by partition and node.
	Filling []Fill
	// Queued: members have changed since Next was claimed. Another ring is claimed
	// when this movement is over.
	Queued bool
}

// Switch says that reads of a partition use the next list.
type Switch struct {
	Partition dynamo.Partition
	// At is the document's version that switched it.
	At uint64
	// Done: writes use the next list alone, too.
	Done bool
}

// Fill is a replica that lacks data, so that what it does not find is no proof.
type Fill struct {
	Partition dynamo.Partition
	Node      dynamo.NodeID
	// Whole: the node's disk was lost, so that it lacks everything, also where it is
	// new by the next list. Otherwise it lacks only what it is new for.
	Whole bool
	// Since is the version of the document in which the node said that it has lost the
	// replica (LoseReplica): what it or others know by an older one is of before. 0: never.
	Since uint64
	// Emptied: the node's disk had been lost before Since, too, and what it had to take from
	// others was not complete.
	Emptied bool
	// Accepted has the bit n set when an operator has accepted that no replica is left that has the
	// data of keys with n replicas (AcceptLoss).
	Accepted uint32
}

func (m Movement) equal(o Movement) bool {
	return m.Announced == o.Announced && m.Joint == o.Joint && m.Queued == o.Queued &&
		slices.Equal(m.Switched, o.Switched) && slices.Equal(m.Filling, o.Filling)
}

// Phase is how far a partition is on its way to the next ring.
type Phase uint8

const (
	// PhaseSettled: the partition does not move.
	PhaseSettled Phase = iota
	// PhaseAnnounced: reads and writes use the settled list.
	PhaseAnnounced
	// PhaseJoint: writes need both lists, reads use the settled one.
	PhaseJoint
	// PhaseSwitched: writes need both lists, reads use the next one.
	PhaseSwitched
	// PhaseDone: the next list alone counts.
	PhaseDone
)

var phaseNames = [...]string{"settled", "announced", "joint", "switched", "done"}

// String is the phase's word in the console.
func (p Phase) String() string { return phaseNames[p] }

// Phase says how far a partition is.
func (d *Document) Phase(p dynamo.Partition) Phase {
	if d.Next == nil {
		return PhaseSettled
	}
	if i, ok := d.switched(p); ok {
		if d.Movement.Switched[i].Done {
			return PhaseDone
		}
		return PhaseSwitched
	}
	if d.Movement.Joint == 0 {
		return PhaseAnnounced
	}
	return PhaseJoint
}

func (d *Document) switched(p dynamo.Partition) (int, bool) {
	return slices.BinarySearchFunc(d.Movement.Switched, p, func(s Switch, p dynamo.Partition) int { return cmp.Compare(s.Partition, p) })
}

// Reading is the ring that reads of a partition use. Writes need a quorum in it,
// too.
func (d *Document) Reading(p dynamo.Partition) ring.Ring {
	if ph := d.Phase(p); ph == PhaseSwitched || ph == PhaseDone {
		return *d.Next
	}
	return d.Settled
}

// AlsoWriting is the ring in which writes of keys with n replicas need a quorum
// besides that of Reading; false when there is none: the partition does not move, or
// its first n nodes stay the same.
func (d *Document) AlsoWriting(p dynamo.Partition, n int) (ring.Ring, bool) {
	also := d.both(p)
	if also == nil || sameNodes(d.Settled.Primaries(p, n), d.Next.Primaries(p, n)) {
		return ring.Ring{}, false
	}
	return *also, true
}

// sameNodes reports whether both lists name the same nodes, in any order.
func sameNodes(a, b []dynamo.NodeID) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(n dynamo.NodeID) bool { return !slices.Contains(b, n) })
}

// Holders are the nodes that keep keys of the partition with n replicas as their
// own: the replicas in the settled list and, while it is not done, also those in the
// next one; each once, those that reads use first.
func (d *Document) Holders(p dynamo.Partition, n int) []dynamo.NodeID {
	out := d.Reading(p).Primaries(p, n)
	other := d.Settled
	switch d.Phase(p) {
	case PhaseSettled, PhaseDone:
		return out
	case PhaseAnnounced, PhaseJoint:
		other = *d.Next
	}
	for _, node := range other.Primaries(p, n) {
		if !slices.Contains(out, node) {
			out = append(out, node)
		}
	}
	return out
}

// Holds reports whether node is one of Holders.
func (d *Document) Holds(p dynamo.Partition, n int, node dynamo.NodeID) bool {
	switch d.Phase(p) {
	case PhaseSettled:
		return d.Settled.IsPrimary(p, n, node)
	case PhaseDone:
		return d.Next.IsPrimary(p, n, node)
	}
	return d.Settled.IsPrimary(p, n, node) || d.Next.IsPrimary(p, n, node)
}

// Authoritative reports whether the node's "nothing found" is a proof for a key of
// the partition with n replicas: it is one of the replicas that reads use and
// lacks nothing.
func (d *Document) Authoritative(p dynamo.Partition, n int, node dynamo.NodeID) bool {
	if !d.Reading(p).IsPrimary(p, n, node) {
		return false
	}
	f, filling := d.Filling(p, node)
	return !filling || !f.Whole && d.Settled.IsPrimary(p, n, node)
}

// Vnodes are the partitions that node has a vnode for: it is somewhere on their
// list, in the settled ring or in the next one. Ascending.
func (d *Document) Vnodes(node dynamo.NodeID) []dynamo.Partition {
	out := d.Settled.PartitionsOf(node, d.Settled.Depth())
	if d.Next != nil {
		out = append(out, d.Next.PartitionsOf(node, d.Next.Depth())...)
		slices.Sort(out)
		out = slices.Compact(out)
	}
	return out
}

// Filling returns what a node lacks of a partition; false when it lacks nothing.
func (d *Document) Filling(p dynamo.Partition, node dynamo.NodeID) (Fill, bool) {
	i, ok := slices.BinarySearchFunc(d.Movement.Filling, Fill{Partition: p, Node: node}, compareFills)
	if !ok {
		return Fill{}, false
	}
	return d.Movement.Filling[i], true
}

func compareFills(a, b Fill) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Node, b.Node))
}

// FillsOf are the fills that a node has to do now: all once the movement is joint,
// before that only those of lost disks in places that are not new.
func (d *Document) FillsOf(node dynamo.NodeID) []Fill {
	var out []Fill
	for _, f := range d.Movement.Filling {
		if f.Node == node && d.due(f) {
			out = append(out, f)
		}
	}
	return out
}

// due reports whether a fill can be done: what is new waits until the movement is joint.
func (d *Document) due(f Fill) bool { return d.Movement.Joint != 0 || !d.isNew(f.Partition, f.Node) }

// isNew reports whether a node is a replica by the next list for some n for which it
// is none by the settled one.
func (d *Document) isNew(p dynamo.Partition, node dynamo.NodeID) bool {
	return d.Next != nil && position(*d.Next, p, node) < position(d.Settled, p, node)
}

// FillRange is for which numbers of replicas n a fill lacks data: from to to, both
// included; none when from is larger.
func (d *Document) FillRange(f Fill) (from, to int) {
	settled, next := position(d.Settled, f.Partition, f.Node), quorum.MaxN
	if d.Next != nil {
		next = position(*d.Next, f.Partition, f.Node)
	}
	if f.Whole {
		return min(settled, next) + 1, quorum.MaxN
	}
	return next + 1, settled
}

// position is a node's place in a partition's list, from 0; quorum.MaxN when it is
// behind all that count.
func position(r ring.Ring, p dynamo.Partition, node dynamo.NodeID) int {
	if i := slices.Index(r.Replicas(p), node); i >= 0 {
		return min(i, quorum.MaxN)
	}
	return quorum.MaxN
}

// Sources are the replicas that a fill takes keys with n replicas from, all of
// them: only together they are sure to have every write that met its quorum. While the partition is switched,
// those by the settled list are among them: each has what it had, and takes every write, until it is done. A
// source that is being filled itself has what was written since it took its place.
// Removed members are not among them.
func (d *Document) Sources(f Fill, n int) []dynamo.NodeID {
	from := d.Reading(f.Partition).Primaries(f.Partition, n)
	if d.Phase(f.Partition) == PhaseSwitched {
		from = d.Holders(f.Partition, n)
	}
	return slices.DeleteFunc(from, func(node dynamo.NodeID) bool {
		m, ok := d.Member(node)
		return node == f.Node || !ok || m.Removed
	})
}

// Gives reports whether a source that goes by this document may serve a fill of the
// receiver, whose store is named, for the target. It must refuse writes that were
// planned before the receiver had to have them: what it took later would be
// missed. So it knows that the movement is joint, the receiver's new store, and that it
// has lost the replica.
func (d *Document) Gives(f Fill, store StoreID, target uint64) bool {
	m, ok := d.Member(f.Node)
	known, _ := d.Filling(f.Partition, f.Node)
	return ok && m.Store == store && known.Since == f.Since && d.Target() == target && d.due(f)
}

// Target is the version of the ring that fills are for: a fact that was found for
// another one says nothing.
func (d *Document) Target() uint64 {
	if d.Next != nil {
		return d.Next.Version()
	}
	return d.Settled.Version()
}

// Moved reports whether requests for the partition that were planned with the older
// document must not be served with this one: they would use other replicas, or
// others of them would have to answer; or a replica has lost its disk since, or its data of
// the partition, so that what it has confirmed counts no more.
func (d *Document) Moved(older *Document, p dynamo.Partition) bool {
	return d.lost(p) > older.Version || d.otherReplicas(older, p, d.Reading(p), older.Reading(p)) || d.otherBoth(older, p)
}

// lost is the version in which a replica of a partition was lost last, as far as it is being
// filled still: who gives it data knows of it, and who does not need not.
func (d *Document) lost(p dynamo.Partition) (version uint64) {
	for _, f := range d.Movement.Filling {
		if f.Partition == p {
			version = max(version, f.Since)
		}
	}
	return version
}

func (d *Document) otherBoth(older *Document, p dynamo.Partition) bool {
	also, before := d.both(p), older.both(p)
	if also == nil || before == nil {
		return also != before
	}
	return d.otherReplicas(older, p, *also, *before)
}

// otherReplicas reports whether the lists of a partition differ, or a node on them has
// another store.
func (d *Document) otherReplicas(older *Document, p dynamo.Partition, r, was ring.Ring) bool {
	list := r.Replicas(p)
	return !slices.Equal(list, was.Replicas(p)) || slices.ContainsFunc(list, func(node dynamo.NodeID) bool {
		now, _ := d.Member(node)
		then, _ := older.Member(node)
		return now.Store != then.Store
	})
}

// both is the ring that writes of the partition use besides that of Reading; nil if
// none.
func (d *Document) both(p dynamo.Partition) *ring.Ring {
	switch d.Phase(p) {
	case PhaseJoint:
		return d.Next
	case PhaseSwitched:
		return &d.Settled
	}
	return nil
}

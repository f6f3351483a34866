package member

import (
	"errors"
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// Validate reports every problem at once, joined; nil when there is none. A
// document from the disk or from another node is checked before it is believed.
func (d Document) Validate() error {
	var problems []error
	add := func(sentinel error, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: %w", sentinel, fmt.Errorf(format, args...)))
	}
	if d.ClusterID.IsZero() {
		add(ErrCluster, "the id is missing")
	}
	if err := CheckClusterName(d.ClusterName); err != nil {
		problems = append(problems, err)
	}
	if d.Version == 0 {
		add(ErrVersion, "0")
	}
	if d.Depth < quorum.MaxN || d.Depth > ring.MaxDepth {
		add(ErrDepth, "%d, allowed are %d to %d", d.Depth, quorum.MaxN, ring.MaxDepth)
	}
	d.checkMembers(add)
	d.checkRings(add)
	d.checkMovement(add)
	d.checkStaged(add)
	d.checkBuckets(add)
	d.checkForced(add)
	return errors.Join(problems...)
}

// CheckClusterName reports whether a cluster may have the name: 1 to
// MaxClusterName of a-z A-Z 0-9 . _ -
func CheckClusterName(name string) error {
	if len(name) > MaxClusterName {
		return fmt.Errorf("%w: the name has %d bytes, at most %d", ErrCluster, len(name), MaxClusterName)
	}
	// The same letters as in a node's name, for both stand in paths and flags.
	if err := dynamo.NodeID(name).Validate(); err != nil {
		return fmt.Errorf("%w: the name %q must be 1 to %d letters, digits and . _ -", ErrCluster, name, MaxClusterName)
	}
	return nil
}

type addFunc func(sentinel error, format string, args ...any)

func (d Document) checkMembers(add addFunc) {
	if n := len(d.Members); n == 0 || n > MaxMembers {
		add(ErrMember, "%d members, allowed are 1 to %d", n, MaxMembers)
	}
	stores := make(map[StoreID]dynamo.NodeID, len(d.Members))
	for i, m := range d.Members {
		if err := m.ID.Validate(); err != nil {
			add(ErrMember, "%w", err)
		}
		if i > 0 && d.Members[i-1].ID >= m.ID {
			add(ErrMember, "%q follows %q, ids must ascend", m.ID, d.Members[i-1].ID)
		}
		if m.Capacity < 1 || m.Capacity > ring.MaxCapacity {
			add(ErrMember, "%q has capacity %d, allowed are 1 to %d", m.ID, m.Capacity, ring.MaxCapacity)
		}
		if m.Status > Gone {
			add(ErrMember, "%q has status %v", m.ID, m.Status)
		}
		if len(m.Zone) > dynamo.MaxNodeName || len(m.Address) > MaxAddress {
			add(ErrMember, "%q has a zone or an address that is too long", m.ID)
		}
		if m.Lost && !m.Removed {
			add(ErrMember, "%q is lost and not removed", m.ID)
		}
		if m.Store.IsZero() {
			add(ErrMember, "%q has no store id", m.ID)
		} else if other, taken := stores[m.Store]; taken {
			add(ErrMember, "%q and %q have one store id", other, m.ID)
		}
		stores[m.Store] = m.ID
	}
}

func (d Document) checkRings(add addFunc) {
	if d.Settled.Empty() {
		add(ErrRing, "there is no settled ring")
		return
	}
	d.checkRing("settled", d.Settled, add)
	if d.Next == nil {
		return
	}
	d.checkRing("next", *d.Next, add)
	if d.Next.Partitions() != d.Settled.Partitions() || d.Next.Version() <= d.Settled.Version() {
		add(ErrRing, "next has %d partitions and version %d, settled %d and %d",
			d.Next.Partitions(), d.Next.Version(), d.Settled.Partitions(), d.Settled.Version())
	}
}

func (d Document) checkRing(which string, r ring.Ring, add addFunc) {
	if r.Depth() > d.Depth {
		add(ErrRing, "%s has lists of %d, the depth is %d", which, r.Depth(), d.Depth)
	}
	for _, n := range r.Nodes() {
		if m, ok := d.Member(n); !ok || m.Status == Gone {
			add(ErrRing, "%s names %q, which is no member", which, n)
		}
	}
}

func (d Document) checkMovement(add addFunc) {
	m := d.Movement
	if d.Next == nil && (m.Announced != 0 || m.Joint != 0 || len(m.Switched) > 0) {
		add(ErrMovement, "there is no next ring")
	}
	if d.Next != nil && (m.Announced == 0 || m.Joint != 0 && m.Joint <= m.Announced || m.Joint == 0 && len(m.Switched) > 0) ||
		max(m.Announced, m.Joint) > d.Version {
		add(ErrMovement, "announced at %d, joint at %d, %d partitions switched at version %d", m.Announced, m.Joint, len(m.Switched), d.Version)
	}
	q := dynamo.Partition(d.Settled.Partitions())
	for i, s := range m.Switched {
		if s.Partition >= q || s.At <= m.Joint || s.At > d.Version || i > 0 && m.Switched[i-1].Partition >= s.Partition {
			add(ErrMovement, "partition %d of %d switched at %d", s.Partition, q, s.At)
		}
	}
	for i, f := range m.Filling {
		_, known := d.Member(f.Node)
		if f.Partition >= q || !known || i > 0 && compareFills(m.Filling[i-1], f) >= 0 || !f.Whole && !d.lacksNew(f) || f.Since > d.Version || f.Emptied && f.Since == 0 || f.Accepted&^allSizes != 0 {
			add(ErrMovement, "partition %d of %d is filled on %q", f.Partition, q, f.Node)
		}
	}
}

// lacksNew reports whether a fill can be one of a replica that is new: its partition
// is switched only after it.
func (d Document) lacksNew(f Fill) bool {
	_, switched := d.switched(f.Partition)
	return !switched && d.Next != nil && d.Next.Partitions() == d.Settled.Partitions() && d.isNew(f.Partition, f.Node)
}

func (d Document) checkStaged(add addFunc) {
	if len(d.Staged) > MaxMembers {
		add(ErrStaged, "%d changes, at most %d", len(d.Staged), MaxMembers)
	}
	for _, c := range d.Staged {
		if err := c.check(); err != nil {
			add(ErrStaged, "%v of %q: %w", c.Kind, c.Node, err)
		}
	}
}

func (d Document) checkBuckets(add addFunc) {
	if len(d.Buckets) > MaxBuckets {
		add(ErrBucket, "%d buckets, at most %d", len(d.Buckets), MaxBuckets)
	}
	for i, b := range d.Buckets {
		if i > 0 && d.Buckets[i-1].Name >= b.Name {
			add(ErrBucket, "%q follows %q, names must ascend", b.Name, d.Buckets[i-1].Name)
		}
		if err := b.Validate(); err != nil {
			add(ErrBucket, "%w", err)
		}
	}
}

func (d Document) checkForced(add addFunc) {
	if len(d.Forced) > MaxForced {
		add(ErrForcedRecord, "%d forced versions, at most %d", len(d.Forced), MaxForced)
	}
	for i, f := range d.Forced {
		if f.At >= f.Version || f.Version > d.Version || i > 0 && d.Forced[i-1].Version > f.At {
			add(ErrForcedRecord, "forced at version %d to %d, now it is %d", f.At, f.Version, d.Version)
		}
		if len(f.Lost) == 0 || len(f.Lost) > MaxMembers {
			add(ErrForcedRecord, "version %d names %d members", f.Version, len(f.Lost))
		}
		for _, n := range f.Lost {
			if err := n.Validate(); err != nil {
				add(ErrForcedRecord, "%w", err)
			}
		}
	}
}

// Validate reports what is wrong with a bucket's name and properties.
func (b Bucket) Validate() error {
	if n := len(b.Name); n == 0 || n > dynamo.MaxBucket {
		return fmt.Errorf("a name of %d bytes, allowed are 1 to %d", n, dynamo.MaxBucket)
	}
	if err := b.Properties.Validate(); err != nil {
		return fmt.Errorf("%q: %w", b.Name, err)
	}
	return nil
}

package ring

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// Focus is the number of replicas for which a claim moves as little data as
// possible: the usual N (paper § 6). Shorter and longer prefixes of the lists
// are balanced afterwards, inside and around that choice.
const Focus = 3

// Member is what a claim needs to know of a member.
type Member struct {
	ID dynamo.NodeID
	// Zone is what fails together, a rack or a data centre. A member without
	// one counts as a zone of its own.
	Zone string
	// Capacity is the member's weight, 1 to MaxCapacity: a member of capacity 2
	// gets twice as many partitions as one of capacity 1 (§ 4.2,
	// heterogeneity).
	Capacity int
}

// Claim computes the ring for the members: a pure function, so any node can
// compute it and all get the same, whatever the order of members.
//
// It gives lists of min(len(members), depth) distinct nodes. For every n up to
// that, counting the first n of each list, each member holds its share of the
// places, rounded up or down, where a share is proportional to capacity but at
// most one place in each partition; and the first n lie in distinct zones, or,
// with fewer zones than n, in as few of one zone as possible. Zones come before
// shares: a small zone carries more than its capacity when it must. Where exact
// balance cannot be had for every n at once, the Report says how far it is off.
//
// settled is where the data is: an empty ring when there is none yet. The
// result has its version plus one, and changes the first Focus places of its
// lists as little as possible.
func Claim(settled Ring, members []Member, q, depth int) (Ring, Report, error) {
	members, err := checkClaim(settled, members, q, depth)
	if err != nil {
		return Ring{}, Report{}, err
	}
	c := newClaim(settled, members, q, min(depth, len(members)))
	focus := min(Focus, c.depth)
	first := c.place(focus, nil, 0, nil)
	whole := first
	if c.depth > focus {
		whole = c.place(c.depth, first, focus, nil)
	}
	ordered := c.order(whole, first)
	named := make([][]dynamo.NodeID, q)
	for p, list := range ordered {
		for _, u := range list {
			named[p] = append(named[p], members[u].ID)
		}
	}
	ring, err := New(settled.Version()+1, named)
	if err != nil {
		return Ring{}, Report{}, fmt.Errorf("ring: claim broke an invariant: %w", err)
	}
	return ring, c.report(ordered, min(Focus, depth)), nil
}

// checkClaim reports every problem of the input and returns the members in
// order of id.
func checkClaim(settled Ring, members []Member, q, depth int) ([]Member, error) {
	var errs []error
	if !validPartitions(q) {
		errs = append(errs, fmt.Errorf("%w: %d, allowed are powers of two up to %d", ErrPartitions, q, MaxPartitions))
	} else if !settled.Empty() && settled.Partitions() != q {
		errs = append(errs, fmt.Errorf("%w: %d, the cluster was founded with %d", ErrPartitions, q, settled.Partitions()))
	}
	if depth < 1 || depth > MaxDepth {
		errs = append(errs, fmt.Errorf("%w: %d, allowed are 1 to %d", ErrDepth, depth, MaxDepth))
	}
	if len(members) == 0 {
		errs = append(errs, ErrNoMembers)
	}
	sorted := slices.SortedFunc(slices.Values(members), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	for i, m := range sorted {
		if err := m.ID.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%w: %w", ErrMember, err))
		}
		if i > 0 && sorted[i-1].ID == m.ID {
			errs = append(errs, fmt.Errorf("%w: %q appears twice", ErrMember, m.ID))
		}
		if m.Capacity < 1 || m.Capacity > MaxCapacity {
			errs = append(errs, fmt.Errorf("%w: %d of %q, allowed are 1 to %d", ErrCapacity, m.Capacity, m.ID, MaxCapacity))
		}
	}
	return sorted, errors.Join(errs...)
}

// claim is the working state of one call of Claim. Members are known by their
// index in order of id.
type claim struct {
	members  []Member
	q, depth int
	capacity []int64
	// zone is each member's zone, zones each zone's members.
	zone  []int
	zones [][]int
	// settled are the lists that hold data now, with -1 for nodes that are gone;
	// empty lists when there are none.
	settled [][]int32
	founded bool
	// placed is, for each n, how many partitions each member has in the first n
	// places; nil where that is not decided yet.
	placed [][]int
}

func newClaim(settled Ring, members []Member, q, depth int) *claim {
	c := &claim{
		members:  members,
		q:        q,
		depth:    depth,
		capacity: make([]int64, len(members)),
		zone:     make([]int, len(members)),
		settled:  make([][]int32, q),
		founded:  !settled.Empty(),
		placed:   make([][]int, depth+1),
	}
	index := make(map[dynamo.NodeID]int32, len(members))
	named := make(map[string]int)
	for i, m := range members {
		index[m.ID] = int32(i)
		c.capacity[i] = int64(m.Capacity)
		z, ok := named[m.Zone]
		if !ok || m.Zone == "" {
			z = len(c.zones)
			named[m.Zone] = z
			c.zones = append(c.zones, nil)
		}
		c.zone[i] = z
		c.zones[z] = append(c.zones[z], i)
	}
	if !c.founded {
		return c
	}
	for p := range c.settled {
		for _, n := range settled.Replicas(dynamo.Partition(p)) {
			if i, ok := index[n]; ok {
				c.settled[p] = append(c.settled[p], i)
			} else {
				c.settled[p] = append(c.settled[p], -1)
			}
		}
	}
	return c
}

// now returns the members that hold data of each partition for n replicas, and
// how many partitions each member has so.
func (c *claim) now(n int) (lists [][]int32, count []int) {
	lists, count = make([][]int32, c.q), make([]int, len(c.members))
	for p, list := range c.settled {
		lists[p] = list[:min(n, len(list))]
		for _, u := range lists[p] {
			if u >= 0 {
				count[u]++
			}
		}
	}
	return lists, count
}

// place chooses k distinct nodes per partition. The first fixed nodes of base
// stay; within limits the choice. It starts from the settled ring.
func (c *claim) place(k int, base [][]int32, fixed int, within [][]int32) [][]int32 {
	limit := zoneLimit(k, c.zones)
	shares := fairShares(c.capacity, c.zones, c.q, k, limit)
	now, count := c.now(k)
	s := &spread{
		k: k, limit: limit, zone: c.zone, target: c.targets(k, shares, count),
		lists: make([][]int32, c.q), fixed: fixed, within: within,
	}
	for _, sh := range shares {
		s.floor, s.ceil = append(s.floor, sh.floor()), append(s.ceil, sh.ceil())
	}
	for p := range s.lists {
		s.lists[p] = make([]int32, 0, k)
		if base != nil {
			s.lists[p] = append(s.lists[p], base[p]...)
		}
	}
	if fixed > 0 {
		now = c.settled // whoever was on the list may stay on it
	}
	s.start(now)
	s.fill(c.settled)
	s.settle()
	c.placed[k] = s.count
	return s.lists
}

// targets rounds the shares for the first k places. Prefixes nest, so a member
// has at least as many partitions in more places.
func (c *claim) targets(k int, shares []share, count []int) []int {
	lo, hi := make([]int, len(shares)), make([]int, len(shares))
	for i := range hi {
		hi[i] = c.q
	}
	for n, known := range c.placed {
		for i, t := range known {
			if n < k {
				lo[i] = max(lo[i], t)
			} else {
				hi[i] = min(hi[i], t)
			}
		}
	}
	return targets(shares, c.zones, lo, hi, count, c.q*k)
}

// order sorts each list so that its other prefixes are balanced too: of the
// nodes of whole it chooses one to come last, of the rest one to come before
// it, and so on. The nodes of first come first, and are then sorted the same
// way.
func (c *claim) order(whole, first [][]int32) [][]int32 {
	ordered := make([][]int32, c.q)
	focus := len(first[0])
	for k := c.depth - 1; k > 0; k-- {
		rest := first
		switch {
		case k > focus:
			rest = c.place(k, first, focus, whole)
		case k < focus:
			rest = c.place(k, nil, 0, whole)
		}
		for p, list := range whole {
			for _, u := range list {
				if !slices.Contains(rest[p], u) {
					ordered[p] = append(ordered[p], u)
				}
			}
		}
		whole = rest
	}
	for p, list := range whole {
		ordered[p] = append(ordered[p], list...)
		slices.Reverse(ordered[p])
	}
	return ordered
}

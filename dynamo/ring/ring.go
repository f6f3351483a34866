// Package ring says which nodes hold which keys (paper § 4.2, § 4.3 and
// strategy 3 of § 6.2).
//
// The hash space is cut into Q equal partitions. A Ring holds, for each
// partition, an explicit list of distinct nodes in order of choice; the first N
// of them are the primaries of a bucket with N replicas. Explicit lists replace
// "the next N owners clockwise": that needs care at the end of the circle so
// that no node appears twice, and cannot be balanced for each N at once.
//
//   - hash.go: key → position → partition
//   - claim.go: members → ring (with shares.go and spread.go)
//   - preference.go: partition → the places to ask, given who is reachable
//
// Invariants of every Ring: Q is a power of two; all lists have the same
// length; the nodes of one list are distinct; a Ring never changes.
package ring

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// Limits on rings.
const (
	// MaxPartitions is the largest Q.
	MaxPartitions = 1 << 16
	// DefaultPartitions is the Q of a cluster that was founded without one.
	DefaultPartitions = 64
	// MaxDepth is the longest replica list. It leaves room beyond the largest
	// N for the first fallbacks.
	MaxDepth = 16
	// MaxCapacity is the largest capacity of one member.
	MaxCapacity = 10_000
)

// Errors of building rings.
var (
	// ErrPartitions: Q is not a power of two from 1 to MaxPartitions, or it
	// differs from the settled ring's; Q is fixed when a cluster is founded.
	ErrPartitions = errors.New("bad number of partitions")
	// ErrDepth: the length of the replica lists is not in 1 to MaxDepth, or
	// lists differ in length.
	ErrDepth = errors.New("bad depth of replica lists")
	// ErrNoMembers: a ring needs at least one member.
	ErrNoMembers = errors.New("no members")
	// ErrMember: a member's id is malformed or appears twice.
	ErrMember = errors.New("bad member")
	// ErrCapacity: a capacity is not in 1 to MaxCapacity.
	ErrCapacity = errors.New("bad capacity")
	// ErrRepeated: a replica list names a node twice.
	ErrRepeated = errors.New("node appears twice in a replica list")
)

// Ring maps partitions to replica lists. The zero Ring is empty: it has no
// partitions. A Ring is immutable, so copies may be shared freely.
type Ring struct {
	version uint64
	depth   int
	// nodes are the nodes that appear in lists, ascending.
	nodes []dynamo.NodeID
	// lists holds indexes into nodes: those of partition p are
	// lists[p*depth : (p+1)*depth].
	lists []uint32
}

// New makes a ring from one replica list per partition. It checks the
// invariants of the package and copies what it keeps.
func New(version uint64, lists [][]dynamo.NodeID) (Ring, error) {
	q := len(lists)
	if !validPartitions(q) {
		return Ring{}, fmt.Errorf("%w: %d, allowed are powers of two up to %d", ErrPartitions, q, MaxPartitions)
	}
	depth := len(lists[0])
	if depth < 1 || depth > MaxDepth {
		return Ring{}, fmt.Errorf("%w: %d, allowed are 1 to %d", ErrDepth, depth, MaxDepth)
	}
	r := Ring{version: version, depth: depth, nodes: distinct(lists), lists: make([]uint32, 0, q*depth)}
	for _, n := range r.nodes {
		if err := n.Validate(); err != nil {
			return Ring{}, fmt.Errorf("%w: %w", ErrMember, err)
		}
	}
	for p, list := range lists {
		if len(list) != depth {
			return Ring{}, fmt.Errorf("%w: partition %d has %d replicas, partition 0 has %d", ErrDepth, p, len(list), depth)
		}
		for i, n := range list {
			if slices.Contains(list[:i], n) {
				return Ring{}, fmt.Errorf("%w: %q in partition %d", ErrRepeated, n, p)
			}
			index, _ := slices.BinarySearch(r.nodes, n)
			r.lists = append(r.lists, uint32(index))
		}
	}
	return r, nil
}

// distinct returns the nodes of all lists, ascending, each once.
func distinct(lists [][]dynamo.NodeID) []dynamo.NodeID {
	seen := make(map[dynamo.NodeID]struct{})
	var nodes []dynamo.NodeID
	for _, list := range lists {
		for _, n := range list {
			if _, ok := seen[n]; !ok {
				seen[n] = struct{}{}
				nodes = append(nodes, n)
			}
		}
	}
	slices.Sort(nodes)
	return nodes
}

func validPartitions(q int) bool { return q >= 1 && q <= MaxPartitions && q&(q-1) == 0 }

// Version orders the rings of one cluster; a claim raises it by one.
func (r Ring) Version() uint64 { return r.version }

// Empty reports whether this is the zero Ring.
func (r Ring) Empty() bool { return r.depth == 0 }

// Partitions is Q, or 0 for an empty ring.
func (r Ring) Partitions() int {
	if r.depth == 0 {
		return 0
	}
	return len(r.lists) / r.depth
}

// Depth is the length of every replica list: the smaller of the number of
// members and the depth that was asked for.
func (r Ring) Depth() int { return r.depth }

// Nodes returns the nodes that hold at least one partition, ascending. The
// caller must not change the slice.
func (r Ring) Nodes() []dynamo.NodeID { return r.nodes }

// Has reports whether node is on some replica list.
func (r Ring) Has(node dynamo.NodeID) bool {
	_, ok := slices.BinarySearch(r.nodes, node)
	return ok
}

// Indexes returns partition p's replica list as indexes into Nodes, for
// encoding. The caller must not change the slice.
func (r Ring) Indexes(p dynamo.Partition) []uint32 {
	return r.lists[int(p)*r.depth : (int(p)+1)*r.depth]
}

// Replicas returns partition p's replica list as a new slice. It panics when p
// is not below Q, as all methods that take a partition do.
func (r Ring) Replicas(p dynamo.Partition) []dynamo.NodeID {
	list := make([]dynamo.NodeID, r.depth)
	for i, n := range r.Indexes(p) {
		list[i] = r.nodes[n]
	}
	return list
}

// Primaries returns the first n nodes of partition p's list, fewer when the
// list is shorter, as a new slice.
func (r Ring) Primaries(p dynamo.Partition, n int) []dynamo.NodeID {
	return r.Replicas(p)[:min(n, r.depth)]
}

// IsPrimary reports whether node is among the first n of partition p's list.
func (r Ring) IsPrimary(p dynamo.Partition, n int, node dynamo.NodeID) bool {
	for _, i := range r.Indexes(p)[:min(n, r.depth)] {
		if r.nodes[i] == node {
			return true
		}
	}
	return false
}

// PartitionsOf returns the partitions that have node among their first n, in
// ascending order.
func (r Ring) PartitionsOf(node dynamo.NodeID, n int) []dynamo.Partition {
	index, ok := slices.BinarySearch(r.nodes, node)
	if !ok {
		return nil
	}
	var found []dynamo.Partition
	for p := range r.Partitions() {
		if slices.Contains(r.Indexes(dynamo.Partition(p))[:min(n, r.depth)], uint32(index)) {
			found = append(found, dynamo.Partition(p))
		}
	}
	return found
}

// Equal reports whether both rings have the same version and lists.
func (r Ring) Equal(other Ring) bool { return r.version == other.version && r.SameLists(other) }

// SameLists reports whether both rings place every partition alike, whatever
// their versions.
func (r Ring) SameLists(other Ring) bool {
	return r.depth == other.depth && slices.Equal(r.nodes, other.nodes) && slices.Equal(r.lists, other.lists)
}

// WithVersion is the same ring under another version.
func (r Ring) WithVersion(version uint64) Ring {
	r.version = version
	return r
}

// Renamed is the ring in which other nodes take the places of some. A node that is
// new must not be in the ring already.
func (r Ring) Renamed(names map[dynamo.NodeID]dynamo.NodeID) Ring {
	if len(names) == 0 || r.Empty() {
		return r
	}
	lists := make([][]dynamo.NodeID, r.Partitions())
	for p := range lists {
		lists[p] = r.Replicas(dynamo.Partition(p))
		for i, node := range lists[p] {
			if name, ok := names[node]; ok {
				lists[p][i] = name
			}
		}
	}
	out, err := New(r.version, lists)
	if err != nil {
		panic(fmt.Sprintf("ring: renamed %v: %v", names, err)) // the caller's promise was broken
	}
	return out
}

// Moves counts the pairs of partition and node that to has among the first n places
// and this ring has not: each is one transfer of a partition's data.
func (r Ring) Moves(to Ring, n int) int {
	count := 0
	for q := range to.Partitions() {
		p := dynamo.Partition(q)
		for _, i := range to.Indexes(p)[:min(n, to.depth)] {
			if !r.IsPrimary(p, n, to.nodes[i]) {
				count++
			}
		}
	}
	return count
}

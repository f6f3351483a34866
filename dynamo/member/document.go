// Package member holds the cluster document: who belongs to the cluster, which
// ring they share and what buckets there are, as one value with one version
// (paper § 4.8.1: membership is explicit, durable and spread by gossip; the
// history of the cluster is the sequence of its documents).
//
// Reading the document needs nobody. A Document is never changed: each change
// makes a new one with the next version.
package member

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// Limits on documents.
const (
	// MaxMembers is the largest number of members, those that are gone
	// included.
	MaxMembers = 10_000
	// MaxBuckets is the largest number of buckets with properties of their own.
	MaxBuckets = 10_000
	// MaxClusterName is the longest cluster name in bytes; the shortest is 1.
	MaxClusterName = 64
	// MaxAddress is the longest address in bytes.
	MaxAddress = 256
	// DefaultDepth is the length of the replica lists of a cluster that was
	// founded without one: the largest N.
	DefaultDepth = quorum.MaxN
)

// Problems that Validate reports, each wrapped with the facts.
var (
	// ErrCluster: the cluster has no id, or its name is malformed.
	ErrCluster = errors.New("bad cluster identity")
	// ErrVersion: versions begin with 1.
	ErrVersion = errors.New("bad document version")
	// ErrMember: a member is malformed, appears twice or out of order.
	ErrMember = errors.New("bad member")
	// ErrRing: a ring does not fit the members, the depth or the other ring.
	ErrRing = errors.New("bad ring")
	// ErrMovement: the movement does not fit the rings.
	ErrMovement = errors.New("bad movement")
	// ErrStaged: a staged change is malformed.
	ErrStaged = errors.New("bad staged change")
	// ErrBucket: a bucket is malformed, appears twice or out of order.
	ErrBucket = errors.New("bad bucket")
	// ErrForcedRecord: what is said of a forced version makes no sense.
	ErrForcedRecord = errors.New("bad forced version")
	// ErrDepth: the depth is not in quorum.MaxN to ring.MaxDepth.
	ErrDepth = errors.New("bad depth")
)

// ClusterID is the random name of a cluster; zero is none.
type ClusterID [16]byte

// StoreID is the random name of a node's store, kept in it, so that both vanish
// together; zero is none.
type StoreID [16]byte

// Status is a member's place in its life.
type Status uint8

const (
	// Joining: a member that gets partitions by the next ring.
	Joining Status = iota
	// Up: a full member. A member that is unreachable is still up: a dead node
	// is not a departed one (§ 4.8.1).
	Up
	// Leaving: a member that gives its partitions away.
	Leaving
	// Gone: no longer a member; kept so that its name and store are known.
	Gone
)

var statusNames = [...]string{"joining", "up", "leaving", "gone"}

// String is the status's word in the console.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("unknown(%d)", uint8(s))
}

// Member is one node that belongs to the cluster.
type Member struct {
	ID dynamo.NodeID
	// Zone and Capacity are what ring.Claim goes by.
	Zone     string
	Capacity int
	Status   Status
	// Store is the store that the member came with, Start the number of its
	// start then; a node that shows another store or a lower start is not it.
	Store StoreID
	Start uint64
	// Address is where the member was when this version was made, host:port. It
	// is a hint: identity is apart from the address, and a node may move.
	Address string
	// Removed: an operator said that the member is dead for good. Nobody waits for
	// it, and nothing is taken from it or given to it any more.
	Removed bool
	// Lost: it was removed by force. It decides on nothing any more and is refused like
	// one that is gone, also while rings name it still: what it has done since may be
	// of another history (Document.Force).
	Lost bool
}

// Out reports whether the member counts for nothing any more: its store is refused.
func (m Member) Out() bool { return m.Status == Gone || m.Lost }

// Bucket is a bucket with properties of its own.
type Bucket struct {
	Name       string
	Properties bucket.Properties
}

// Document is the state of the cluster at one version.
type Document struct {
	ClusterID   ClusterID
	ClusterName string
	// Version is 1 for the founding and grows by one with each change.
	Version uint64
	// Members are ascending by id.
	Members []Member
	// Settled is the ring of where data is, Next of where it should be; Next is
	// nil when nothing moves.
	Settled ring.Ring
	Next    *ring.Ring
	// Movement is how far it is from Settled to Next.
	Movement Movement
	// Staged are the changes that operators have asked for and not committed, in
	// that order.
	Staged []Change
	// Buckets are ascending by name; others have bucket.Default.
	Buckets []Bucket
	// AutoJoin: nodes that ask to join are committed at once.
	AutoJoin bool
	// Depth is how long the replica lists should be: at least quorum.MaxN, so
	// that any bucket finds its replicas. Lists are shorter while there are
	// fewer members.
	Depth int
	// Forced are the last versions that were made by force, ascending.
	Forced []Forced
}

// Founding is what a cluster is founded with.
type Founding struct {
	ClusterID   ClusterID
	ClusterName string
	// Members are the founders; their status is ignored and becomes Up.
	Members []Member
	// Partitions is Q, fixed from now on; 0 means ring.DefaultPartitions.
	Partitions int
	// Depth is the length of the replica lists; 0 means DefaultDepth.
	Depth int
	// Buckets are created with the cluster, in any order.
	Buckets []Bucket
	// AutoJoin is as in Document.
	AutoJoin bool
}

// Found makes the first version of a cluster's document: it claims the ring for
// the founders. The report says what is wrong with the ring, for example fewer
// members than replicas. The same founding always gives the same document.
func Found(f Founding) (Document, ring.Report, error) {
	d := Document{
		ClusterID:   f.ClusterID,
		ClusterName: f.ClusterName,
		Version:     1,
		Members:     slices.SortedFunc(slices.Values(f.Members), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) }),
		Depth:       cmp.Or(f.Depth, DefaultDepth),
		AutoJoin:    f.AutoJoin,
		Buckets:     slices.SortedFunc(slices.Values(f.Buckets), func(a, b Bucket) int { return cmp.Compare(a.Name, b.Name) }),
	}
	for i := range d.Members {
		d.Members[i].Status = Up
	}
	settled, report, err := ring.Claim(ring.Ring{}, d.Claimants(), cmp.Or(f.Partitions, ring.DefaultPartitions), d.Depth)
	if err != nil {
		return Document{}, ring.Report{}, err
	}
	d.Settled = settled
	if err := d.Validate(); err != nil {
		return Document{}, ring.Report{}, err
	}
	return d, report, nil
}

// Claimants returns the members that should hold data, as ring.Claim takes
// them: those that are joining or up.
func (d Document) Claimants() []ring.Member {
	var out []ring.Member
	for _, m := range d.Members {
		if m.Status == Joining || m.Status == Up {
			out = append(out, ring.Member{ID: m.ID, Zone: m.Zone, Capacity: m.Capacity})
		}
	}
	return out
}

// Member returns the member with the id.
func (d Document) Member(id dynamo.NodeID) (Member, bool) {
	i, ok := slices.BinarySearchFunc(d.Members, id, func(m Member, id dynamo.NodeID) int { return cmp.Compare(m.ID, id) })
	if !ok {
		return Member{}, false
	}
	return d.Members[i], true
}

// Bucket returns the properties in force for a bucket, and whether it was
// created; one that was not has the defaults.
func (d Document) Bucket(name string) (bucket.Properties, bool) {
	i, ok := slices.BinarySearchFunc(d.Buckets, name, func(b Bucket, name string) int { return cmp.Compare(b.Name, name) })
	if !ok {
		return bucket.Default(), false
	}
	return d.Buckets[i].Properties, true
}

// Equal reports whether both documents say the same.
func (d Document) Equal(other Document) bool {
	next := d.Next == nil && other.Next == nil || d.Next != nil && other.Next != nil && d.Next.Equal(*other.Next)
	return next && d.ClusterID == other.ClusterID && d.ClusterName == other.ClusterName &&
		d.Version == other.Version && d.Depth == other.Depth && d.AutoJoin == other.AutoJoin && d.Movement.equal(other.Movement) &&
		slices.Equal(d.Staged, other.Staged) &&
		slices.Equal(d.Members, other.Members) && slices.Equal(d.Buckets, other.Buckets) &&
		d.Settled.Equal(other.Settled) && slices.EqualFunc(d.Forced, other.Forced, Forced.equal)
}

// String is a one-line summary.
func (d Document) String() string {
	return fmt.Sprintf("%s version %d: %d members, %d partitions, %d buckets",
		d.ClusterName, d.Version, len(d.Members), d.Settled.Partitions(), len(d.Buckets))
}

// String is the id in hexadecimal.
func (c ClusterID) String() string { return fmt.Sprintf("%x", c[:]) }

// IsZero reports whether there is no id.
func (c ClusterID) IsZero() bool { return c == ClusterID{} }

// String is the id in hexadecimal.
func (s StoreID) String() string { return fmt.Sprintf("%x", s[:]) }

// IsZero reports whether there is no id.
func (s StoreID) IsZero() bool { return s == StoreID{} }

// Compare orders ids as numbers.
func (s StoreID) Compare(other StoreID) int { return bytes.Compare(s[:], other[:]) }

package messages

import (
	"fmt"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// FromDocument converts the cluster document for the wire and the store.
func FromDocument(d member.Document) *Document {
	out := &Document{
		ClusterId: d.ClusterID[:], ClusterName: d.ClusterName, Version: d.Version, Depth: uint32(d.Depth),
		Settled: fromRing(d.Settled), AutoJoin: d.AutoJoin,
	}
	if d.Next != nil {
		out.Next = fromRing(*d.Next)
	}
	for _, m := range d.Members {
		out.Members = append(out.Members, fromMember(m))
	}
	out.Movement, out.Staged = fromMovement(d.Movement), fromStaged(d.Staged)
	for _, f := range d.Forced {
		out.Forced = append(out.Forced, &Forced{At: f.At, Version: f.Version, Lost: fromNames(f.Lost)})
	}
	for _, b := range d.Buckets {
		out.Buckets = append(out.Buckets, FromBucket(b))
	}
	return out
}

// FromBucket converts a bucket.
func FromBucket(b member.Bucket) *Bucket {
	q := b.Properties.Quorum
	return &Bucket{
		Name: []byte(b.Name), N: uint32(q.N), R: uint32(q.R), W: uint32(q.W), Pr: uint32(q.PR), Pw: uint32(q.PW),
		Durability: uint32(b.Properties.Durability), Conflicts: uint32(b.Properties.Conflicts),
		TtlMs: uint64(b.Properties.TTL.Milliseconds()),
	}
}

func fromMember(m member.Member) *Member {
	return &Member{
		Id: string(m.ID), Zone: m.Zone, Capacity: uint32(m.Capacity), Status: uint32(m.Status),
		Store: m.Store[:], Start: m.Start, Address: m.Address, Removed: m.Removed, Lost: m.Lost,
	}
}

func fromRing(r ring.Ring) *Ring {
	out := &Ring{Version: r.Version()}
	for _, n := range r.Nodes() {
		out.Nodes = append(out.Nodes, string(n))
	}
	for p := range r.Partitions() {
		out.Lists = append(out.Lists, &ReplicaList{Nodes: r.Indexes(dynamo.Partition(p))})
	}
	return out
}

// ToDocument checks and converts a cluster document. The result is valid as
// member.Document.Validate understands it.
func ToDocument(m *Document) (member.Document, error) {
	d := member.Document{ClusterName: m.GetClusterName(), Version: m.GetVersion(), Depth: int(m.GetDepth()), AutoJoin: m.GetAutoJoin()}
	if !toID(d.ClusterID[:], m.GetClusterId()) {
		return d, fmt.Errorf("%w: cluster id of %d bytes", ErrBounds, len(m.GetClusterId()))
	}
	if len(m.GetMembers()) > member.MaxMembers || len(m.GetBuckets()) > member.MaxBuckets {
		return d, fmt.Errorf("%w: %d members, %d buckets", ErrBounds, len(m.GetMembers()), len(m.GetBuckets()))
	}
	for _, x := range m.GetMembers() {
		out, err := toMember(x)
		if err != nil {
			return d, err
		}
		d.Members = append(d.Members, out)
	}
	for _, x := range m.GetBuckets() {
		out, err := ToBucket(x)
		if err != nil {
			return d, err
		}
		d.Buckets = append(d.Buckets, out)
	}
	var err error
	if d.Settled, err = toRing(m.GetSettled()); err != nil {
		return d, err
	}
	if m.GetNext() != nil {
		next, err := toRing(m.GetNext())
		if err != nil {
			return d, err
		}
		d.Next = &next
	}
	if d.Movement, err = toMovement(m.GetMovement()); err != nil {
		return d, err
	}
	if d.Staged, err = toStaged(m.GetStaged()); err != nil {
		return d, err
	}
	if len(m.GetForced()) > member.MaxForced {
		return d, fmt.Errorf("%w: %d forced versions", ErrBounds, len(m.GetForced()))
	}
	for _, f := range m.GetForced() {
		lost, err := ToNames(f.GetLost())
		if err != nil {
			return d, err
		}
		d.Forced = append(d.Forced, member.Forced{At: f.GetAt(), Version: f.GetVersion(), Lost: lost})
	}
	return d, d.Validate()
}

// fromNames converts the names of nodes.
func fromNames(nodes []dynamo.NodeID) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, string(n))
	}
	return out
}

// ToNames checks and converts the names of nodes.
func ToNames(names []string) ([]dynamo.NodeID, error) {
	if len(names) > member.MaxMembers {
		return nil, fmt.Errorf("%w: %d names", ErrBounds, len(names))
	}
	var out []dynamo.NodeID
	for _, n := range names {
		if err := dynamo.NodeID(n).Validate(); err != nil {
			return nil, err
		}
		out = append(out, dynamo.NodeID(n))
	}
	return out, nil
}

// ToPartitions checks and converts numbers of partitions.
func ToPartitions(numbers []uint32) ([]dynamo.Partition, error) {
	if len(numbers) > ring.MaxPartitions {
		return nil, fmt.Errorf("%w: %d partitions", ErrBounds, len(numbers))
	}
	var out []dynamo.Partition
	for _, p := range numbers {
		if p >= ring.MaxPartitions {
			return nil, fmt.Errorf("%w: partition %d; there are at most %d", ErrBounds, p, ring.MaxPartitions)
		}
		out = append(out, dynamo.Partition(p))
	}
	return out, nil
}

// toID copies an id of exactly the right length.
func toID(dst, src []byte) bool { return len(src) == len(dst) && copy(dst, src) == len(dst) }

func toMember(m *Member) (member.Member, error) {
	if m.GetCapacity() > ring.MaxCapacity || m.GetStatus() > uint32(member.Gone) {
		return member.Member{}, fmt.Errorf("%w: member %q", ErrBounds, m.GetId())
	}
	out := member.Member{
		ID: dynamo.NodeID(m.GetId()), Zone: m.GetZone(), Capacity: int(m.GetCapacity()), Status: member.Status(m.GetStatus()),
		Start: m.GetStart(), Address: m.GetAddress(), Removed: m.GetRemoved(), Lost: m.GetLost(),
	}
	if !toID(out.Store[:], m.GetStore()) {
		return out, fmt.Errorf("%w: store id of member %q", ErrBounds, m.GetId())
	}
	return out, nil
}

// ToBucket checks and converts a bucket. Whether its properties go together is for
// member.Bucket.Validate to say.
func ToBucket(m *Bucket) (member.Bucket, error) {
	const most = quorum.MaxN
	if m.GetN() > most || m.GetR() > most || m.GetW() > most || m.GetPr() > most || m.GetPw() > most ||
		m.GetDurability() > uint32(dynamo.DurabilityNone) || m.GetConflicts() > uint32(dynamo.LastWriteWins) ||
		m.GetTtlMs() > uint64(1<<62/time.Millisecond) {
		return member.Bucket{}, fmt.Errorf("%w: bucket %q", ErrBounds, m.GetName())
	}
	return member.Bucket{
		Name: string(m.GetName()),
		Properties: bucket.Properties{
			Quorum: quorum.Params{
				N: int(m.GetN()), R: int(m.GetR()), W: int(m.GetW()), PR: int(m.GetPr()), PW: int(m.GetPw()),
			},
			Durability: dynamo.Durability(m.GetDurability()), Conflicts: dynamo.Conflicts(m.GetConflicts()),
			TTL: time.Duration(m.GetTtlMs()) * time.Millisecond,
		},
	}, nil
}

func toRing(m *Ring) (ring.Ring, error) {
	if len(m.GetLists()) > ring.MaxPartitions || len(m.GetNodes()) > member.MaxMembers {
		return ring.Ring{}, fmt.Errorf("%w: ring of %d partitions", ErrBounds, len(m.GetLists()))
	}
	if len(m.GetLists()) == 0 {
		return ring.Ring{}, fmt.Errorf("%w: empty ring", ErrBounds)
	}
	lists := make([][]dynamo.NodeID, len(m.GetLists()))
	for p, l := range m.GetLists() {
		if len(l.GetNodes()) > ring.MaxDepth {
			return ring.Ring{}, fmt.Errorf("%w: partition %d has %d replicas", ErrBounds, p, len(l.GetNodes()))
		}
		for _, i := range l.GetNodes() {
			if int(i) >= len(m.GetNodes()) {
				return ring.Ring{}, fmt.Errorf("%w: partition %d names node %d of %d", ErrBounds, p, i, len(m.GetNodes()))
			}
			lists[p] = append(lists[p], dynamo.NodeID(m.GetNodes()[i]))
		}
	}
	return ring.New(m.GetVersion(), lists)
}

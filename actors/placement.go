package actors

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

// inForce is the cluster document in force, and for each partition since which
// version of it requests must have been planned: where its replicas are has changed
// then (member.Document.Moved).
type inForce struct {
	document member.Document
	since    []uint64
}

// Document returns the cluster document in force, nil before there is one.
func (s *Services) Document() *member.Document {
	if f := s.inForce.Load(); f != nil {
		return &f.document
	}
	return nil
}

// enforce brings a document into force. What changed before this node started it
// does not know, so the first one counts as a change of everything. It is called by
// one goroutine at a time.
func (s *Services) enforce(doc member.Document) {
	before := s.inForce.Load()
	after := &inForce{document: doc, since: make([]uint64, doc.Settled.Partitions())}
	for p := range after.since {
		after.since[p] = doc.Version
		if before != nil && !doc.Moved(&before.document, dynamo.Partition(p)) {
			after.since[p] = before.since[p]
		}
	}
	s.requests.know(&doc)
	s.inForce.Store(after)
	s.displace(&doc)
}

// stale reports whether a request for the partition that was planned with a version
// of the document must not be served any more, and the version in force.
func (s *Services) stale(p dynamo.Partition, plan uint64) (version uint64, stale bool) {
	f := s.inForce.Load()
	if f == nil {
		return 0, false
	}
	return f.document.Version, plan < f.since[p]
}

// holds reports whether this node keeps keys of the partition with n replicas as its
// own.
func (s *Services) holds(p dynamo.Partition, n int) bool {
	doc := s.Document()
	return doc == nil || doc.Holds(p, n, s.Self)
}

// readable reports whether reads of keys with n replicas use this node as a replica.
func (v *vnodeActor) readable(n int) bool {
	doc := v.s.Document()
	return doc == nil || doc.Reading(v.partition).IsPrimary(v.partition, n, v.s.Self)
}

// authoritative reports whether it is a proof that this node has nothing of a key of
// the partition with n replicas.
func (s *Services) authoritative(p dynamo.Partition, n int) bool {
	doc := s.Document()
	return doc != nil && doc.Authoritative(p, n, s.Self) && !s.losses.doubted(p)
}

// tellBehind tells the membership that a node knows a newer document.
func (s *Services) tellBehind(node dynamo.NodeID, version uint64) {
	if node != s.Self {
		s.System.Root.Send(on(s.Self, nameMembership), &behind{node: node, version: version})
	}
}

// unfilled are those replicas that reads use of which "nothing found" is no proof.
func unfilled(doc *member.Document, p dynamo.Partition, n int) []dynamo.NodeID {
	if len(doc.Movement.Filling) == 0 {
		return nil
	}
	return slices.DeleteFunc(doc.Reading(p).Primaries(p, n), func(node dynamo.NodeID) bool { return doc.Authoritative(p, n, node) })
}

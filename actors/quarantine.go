package actors

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

// refusedFor is how long a node counts as refused by a peer after it last heard so.
// It calls again sooner, unless the peer is down: then nobody knows.
const refusedFor = 10 * time.Second

// quarantine is why this node must not serve: its store is not the member's any more.
// What lies there may be outdated, and dots that it made would be made twice.
type quarantine struct {
	// document is what the cluster document says; nil: the store is the member's.
	document atomic.Pointer[string]
	// refusal is what a peer said last; nil: nothing, or it has changed its mind.
	refusal atomic.Pointer[peerRefusal]
}

type peerRefusal struct {
	by    dynamo.NodeID
	why   string
	until time.Time
}

// quarantined says why this node must not serve; empty if it may.
func (s *Services) quarantined() string {
	if why := s.quarantine.document.Load(); why != nil {
		return *why
	}
	if r := s.quarantine.refusal.Load(); r != nil && time.Now().Before(r.until) {
		return r.why
	}
	return ""
}

// displace looks whether the document in force still knows this node's store.
func (s *Services) displace(doc *member.Document) {
	var why string
	m, known := doc.Member(s.Self)
	switch {
	case !known || m.Status == member.Gone:
		why = fmt.Sprintf("%s is no member of %s any more; stop it, or empty its data directory to let it join as a new node", s.Self, doc.ClusterName)
	case m.Store != member.StoreID(s.Founding.Config.Self.Store):
		why = fmt.Sprintf("another data directory has taken the place of this one in %s; stop this process of %s", doc.ClusterName, s.Self)
	default:
		s.quarantine.document.Store(nil)
		return
	}
	if s.quarantine.document.Swap(&why) == nil {
		s.Log.Error("this node does not serve any more", slog.String("why", why))
	}
}

// refusedBy notes that a peer refuses this process.
func (s *Services) refusedBy(by dynamo.NodeID, why string) {
	was := s.quarantined()
	s.quarantine.refusal.Store(&peerRefusal{by: by, why: fmt.Sprintf("refused by %s: %s", by, why), until: time.Now().Add(refusedFor)})
	if was == "" {
		s.Log.Error("this node does not serve while it is refused", slog.String("by", string(by)), slog.String("why", why))
	}
	s.vnodes.notify()
}

// welcomed notes that a peer takes this process.
func (s *Services) welcomed(by dynamo.NodeID) {
	if r := s.quarantine.refusal.Load(); r != nil && r.by == by && s.quarantine.refusal.CompareAndSwap(r, nil) {
		s.vnodes.notify()
	}
}

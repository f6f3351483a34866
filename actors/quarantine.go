package actors

import (
	"fmt"
	"log/slog"
	"maps"
	"sync"
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
	// refusals are what peers said last; those that have changed their minds have
	// none. It is never changed but replaced, under mu.
	refusals atomic.Pointer[map[dynamo.NodeID]peerRefusal]
	mu       sync.Mutex
}

type peerRefusal struct {
	why   string
	until time.Time
}

// refuse replaces what a peer said; nil: it takes this node. It reports whether that
// is news.
func (q *quarantine) refuse(by dynamo.NodeID, r *peerRefusal) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	next := map[dynamo.NodeID]peerRefusal{}
	if all := q.refusals.Load(); all != nil {
		maps.Copy(next, *all)
	}
	_, had := next[by]
	delete(next, by)
	if r != nil {
		next[by] = *r
	}
	q.refusals.Store(&next)
	return had || r != nil
}

// quarantined says why this node must not serve; empty if it may.
func (s *Services) quarantined() string {
	if why := s.quarantine.document.Load(); why != nil {
		return *why
	}
	if all := s.quarantine.refusals.Load(); all != nil && len(*all) > 0 {
		now := time.Now()
		for _, r := range *all {
			if now.Before(r.until) {
				return r.why
			}
		}
	}
	return ""
}

// displace looks whether the document in force still knows this node's store.
func (s *Services) displace(doc *member.Document) {
	var why string
	m, known := doc.Member(s.Self)
	switch {
	case !known || m.Out():
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
	s.quarantine.refuse(by, &peerRefusal{why: fmt.Sprintf("refused by %s: %s", by, why), until: time.Now().Add(refusedFor)})
	if was == "" {
		s.Log.Error("this node does not serve while it is refused", slog.String("by", string(by)), slog.String("why", why))
	}
	s.vnodes.notify()
}

// welcomed notes that a peer takes this process.
func (s *Services) welcomed(by dynamo.NodeID) {
	if all := s.quarantine.refusals.Load(); all == nil || len(*all) == 0 {
		return // it is called for each answer to a heartbeat
	}
	if s.quarantine.refuse(by, nil) {
		s.vnodes.notify()
	}
}

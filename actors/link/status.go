package link

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/messages"
)

// counters are one peer's, over all its connections since it became known.
type counters struct {
	gone                             atomic.Bool // the peer was removed
	sent, sentBytes, frames          atomic.Uint64
	received, receivedBytes, inFrame atomic.Uint64
	dropped                          [reasons]atomic.Uint64
	connects                         atomic.Uint64
	rtt                              atomic.Int64 // smoothed, nanoseconds
	snapshot                         atomic.Pointer[snapshot]
	lastRefusal                      atomic.Pointer[Refusal]
}

// snapshot is what the peer's actor publishes on each change of state.
type snapshot struct {
	role      messages.Role
	start     uint64
	address   string
	states    [lanes]State
	since     time.Time
	lastError string
	dialled   bool
	encrypted bool
	limited   bool
	operator  bool
}

// PeerStatus is one link for the console. It is read without the link actor's
// cooperation.
type PeerStatus struct {
	// ID is empty while an address is being asked for its node.
	ID   string
	Role messages.Role
	// Address is where the peer is dialled, or what it advertises.
	Address string
	// Start is the peer's start number on the current connection.
	Start uint64
	// State is the request lane's, Bulk the bulk lane's.
	State, Bulk State
	// Since is when State was entered.
	Since time.Time
	// Dialled: this end made the request connection.
	Dialled bool
	// Encrypted: it runs over TLS.
	Encrypted bool
	// Operator: its verified certificate names an operator (IsOperator).
	Operator bool
	// FoundingOnly: one end has no cluster id yet.
	FoundingOnly bool
	// QueuedMessages and QueuedBytes wait to be written, over both lanes.
	QueuedMessages, QueuedBytes int
	// RTT is the smoothed heartbeat round trip; 0 if unknown.
	RTT time.Duration
	// LastError is why the last connection or attempt ended.
	LastError string
	// Connects counts request connections that came up.
	Connects uint64
	// Sent and Received count messages, and bytes and frames that held them.
	Sent, SentBytes, SentFrames             uint64
	Received, ReceivedBytes, ReceivedFrames uint64
	// Dropped counts messages that did not get through, by reason; reasons
	// that never happened are left out.
	Dropped map[Reason]uint64
}

// Up reports whether requests can be sent.
func (s PeerStatus) Up() bool { return s.State == Up }

// Peers lists the links and the addresses that are still being asked, by id,
// then address.
func (l *Links) Peers() []PeerStatus {
	var all []PeerStatus
	l.outlets.Range(func(_, v any) bool {
		all = append(all, v.(*outlet).status())
		return true
	})
	l.mu.Lock()
	for _, p := range l.prospects {
		if s := p.snapshot.Load(); s != nil && p.known() == "" {
			all = append(all, PeerStatus{Address: p.address, State: s.states[0], Since: s.since, LastError: s.lastError})
		}
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b PeerStatus) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	return all
}

// Peer returns one peer's status.
func (l *Links) Peer(id string) (PeerStatus, bool) {
	if o := l.outlet(id); o != nil {
		return o.status(), true
	}
	return PeerStatus{}, false
}

func (o *outlet) status() PeerStatus {
	s := PeerStatus{
		ID: o.id, RTT: time.Duration(o.rtt.Load()), Connects: o.connects.Load(),
		Sent: o.sent.Load(), SentBytes: o.sentBytes.Load(), SentFrames: o.frames.Load(),
		Received: o.received.Load(), ReceivedBytes: o.receivedBytes.Load(), ReceivedFrames: o.inFrame.Load(),
		Dropped: nonZero(&o.dropped),
	}
	for i := range o.lanes {
		if q := o.lanes[i].Load(); q != nil {
			s.QueuedMessages += int(q.messages.Load())
			s.QueuedBytes += int(q.bytes.Load())
		}
	}
	if snap := o.snapshot.Load(); snap != nil {
		s.Role, s.Start, s.Address = snap.role, snap.start, snap.address
		s.State, s.Bulk = snap.states[LaneRequest], snap.states[LaneBulk]
		s.Since, s.LastError = snap.since, snap.lastError
		s.Dialled, s.Encrypted, s.FoundingOnly, s.Operator = snap.dialled, snap.encrypted, snap.limited, snap.operator
	}
	if r := o.lastRefusal.Load(); r != nil && s.LastError == "" {
		s.LastError = r.Error()
	}
	return s
}

func nonZero(all *[reasons]atomic.Uint64) map[Reason]uint64 {
	m := make(map[Reason]uint64)
	for r := range all {
		if n := all[r].Load(); n > 0 {
			m[Reason(r)] = n
		}
	}
	return m
}

// Totals are counters over all peers, also those that have gone.
type Totals struct {
	// Connections are accepted and dialled ones that are open, Greeting those
	// accepted that have not said hello.
	Connections, Greeting int
	// Refused counts hellos refused by this end, Rejected connections closed
	// at once because of a limit.
	Refused, Rejected uint64
	// Dropped counts messages by reason.
	Dropped map[Reason]uint64
}

// Totals returns the counters of this end.
func (l *Links) Totals() Totals {
	t := Totals{Refused: l.refusals.Load(), Rejected: l.rejected.Load(), Dropped: nonZero(&l.drops)}
	l.mu.Lock()
	t.Connections, t.Greeting = len(l.open), l.greeting
	l.mu.Unlock()
	return t
}

// log tells of nodes that come and go; clients do so all the time.
func (p *peer) log(what string, args ...any) {
	level := slog.LevelInfo
	if p.hello.Role == messages.RoleClient {
		level = slog.LevelDebug
	}
	p.links.logger.Log(context.Background(), level, what, args...)
}

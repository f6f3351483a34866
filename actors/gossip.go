package actors

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

const (
	// gossipTick is how often this node looks whether a movement can go on.
	gossipTick = 250 * time.Millisecond
	// gossipRound is the time between two rounds of gossip (§ 4.8.1: "each node
	// contacts a peer chosen at random every second").
	gossipRound = time.Second
	// takeOver is how long the members before this one in order have to take a
	// movement on, each, before this one does.
	takeOver = 2 * time.Second
)

// gossip is the membership actor's part in spreading what nodes know: digests
// first, so that an idle round costs a few bytes, then what differs.
type gossip struct {
	rows member.Rows
	// renewed is when a member was last heard of by a new row.
	renewed map[dynamo.NodeID]time.Time
	// contacted are members whose answer is awaited to what this node knows. What
	// they lack is sent after that once: one that cannot use it would lack it for ever.
	contacted map[dynamo.NodeID]bool
	// sought is the newest version that was asked for because a request showed that
	// there is one, asking when.
	sought uint64
	asking time.Time
	timer  *rt.Timer
	began  time.Time // before it the node had heard of nobody
	last   time.Time // of the rounds
	// due is when this node takes the movement on from the version, if nobody does
	// before.
	due     time.Time
	version uint64
}

// gossipTime is the tick of gossip. factsChanged says that what this node says of
// itself has changed (filledFacts, idle).
type (
	gossipTime   struct{ by *membershipActor }
	factsChanged struct{}
)

// gossips handles what belongs to gossip.
func (m *membershipActor) gossips(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *gossipTime:
		if msg.by == m {
			m.armGossip()
			m.commitAgain(ctx)
			if m.s.quarantined() == "" {
				m.round1(ctx)
				m.lead(ctx)
			}
		}
	case *messages.GossipRequest:
		if m.inCluster(ctx) {
			m.s.answer(ctx.Sender(), m.self, m.compare(ctx, msg))
		}
	case *messages.GossipReply:
		m.answerGossip(ctx, msg)
	case *behind:
		m.fallenBehind(ctx, msg)
	case *factsChanged:
		if m.voter != nil {
			m.factsChanged(ctx)
		}
	case *messages.JoinReply:
	case *messages.Failure:
		m.failure(ctx, msg)
	}
}

// failure is a member's answer to a request of this actor. Votes that are refused
// are asked for again; gossip comes round again.
func (m *membershipActor) failure(ctx actor.Context, f *messages.Failure) {
	if m.voter == nil {
		m.refusedToJoin(f)
		return
	}
	m.s.Log.Debug("refused", slog.String("by", string(from(ctx))), slog.String("reason", f.Error()))
}

func (m *membershipActor) startGossip() {
	m.rows, m.renewed, m.contacted = member.Rows{}, map[dynamo.NodeID]time.Time{}, map[dynamo.NodeID]bool{}
	m.began = time.Now()
	m.armGossip()
}

func (m *membershipActor) armGossip() {
	m.timer.Stop()
	m.timer = m.s.Wheel.Send(m.self, &gossipTime{by: m}, gossipTick)
}

// round1 begins a round with a random member.
func (m *membershipActor) round1(ctx actor.Context) {
	if time.Since(m.last) < gossipRound {
		return
	}
	m.last = time.Now()
	m.factsChanged(ctx)
	var peers []dynamo.NodeID
	for _, node := range m.voter.Document.Voters() {
		if node != m.s.Self && m.s.reachable(node) {
			peers = append(peers, node)
		}
	}
	if len(peers) > 0 {
		m.contact(ctx, peers[rand.N(len(peers))])
	}
}

// fallenBehind asks a node for the newer document that it knows. Every request that was
// planned with an old one tells of it, and one question is enough for all; should it be
// lost, the next request asks again.
func (m *membershipActor) fallenBehind(ctx actor.Context, b *behind) {
	switch {
	case m.voter == nil || b.version <= m.voter.Document.Version:
	case b.version <= m.sought && time.Since(m.asking) < gossipTick:
	default:
		m.sought, m.asking = b.version, time.Now()
		m.contact(ctx, b.node)
	}
}

// contact compares what this node knows with what another does.
func (m *membershipActor) contact(ctx actor.Context, node dynamo.NodeID) {
	m.contacted[node] = true
	ctx.Request(on(node, nameMembership), &messages.GossipRequest{
		Version: m.s.Document().Version, Digest: m.rows.Digest(), TimeoutMs: uint32(gossipRound.Milliseconds()),
	})
}

// compare takes in what another node sent, and answers with what it lacks.
func (m *membershipActor) compare(ctx actor.Context, r *messages.GossipRequest) *messages.GossipReply {
	m.merge(ctx, r.GetRows())
	m.news(ctx, r.GetDocument())
	now := *m.s.Document() // what the disk has: the rest is told to nobody
	out := &messages.GossipReply{Version: now.Version, Digest: m.rows.Digest()}
	if r.GetVersion() < now.Version {
		out.Document = messages.FromDocument(now)
	}
	if len(r.GetRows()) == 0 && r.GetDigest() != out.Digest {
		out.Rows = m.allRows()
	}
	return out
}

// answerGossip takes in what another node answered, and sends it what it lacks.
func (m *membershipActor) answerGossip(ctx actor.Context, r *messages.GossipReply) {
	if m.voter == nil {
		return
	}
	m.merge(ctx, r.GetRows())
	m.news(ctx, r.GetDocument())
	if !m.contacted[from(ctx)] {
		return
	}
	delete(m.contacted, from(ctx))
	now := *m.s.Document()
	push := &messages.GossipRequest{Version: now.Version, Digest: m.rows.Digest(), TimeoutMs: uint32(gossipRound.Milliseconds())}
	if len(r.GetRows()) > 0 && r.GetDigest() != push.Digest {
		push.Rows = m.allRows()
	}
	if r.GetVersion() < now.Version {
		push.Document = messages.FromDocument(now)
	}
	if push.Rows != nil || push.Document != nil {
		ctx.Request(on(from(ctx), nameMembership), push)
	}
}

func (m *membershipActor) allRows() []*messages.NodeRow {
	var out []*messages.NodeRow
	for _, r := range m.rows.Sorted() {
		out = append(out, messages.FromRow(r))
	}
	return out
}

// merge takes in rows. Of itself a node believes nobody else.
func (m *membershipActor) merge(ctx actor.Context, rows []*messages.NodeRow) {
	for _, raw := range rows {
		row, err := messages.ToRow(raw)
		if err != nil {
			m.s.Log.Warn("unusable row", slog.String("from", string(from(ctx))), slog.Any("error", err))
			continue
		}
		if row.Node != m.s.Self && row.Of(&m.voter.Document) && m.rows.Merge(row) {
			m.renewed[row.Node] = time.Now()
			m.s.Founding.Moved(row.Node, row.Address)
		}
	}
}

// factsChanged makes a new row of this node if what it says has changed, and sends
// it to the member that takes the movement on; the others hear of it by gossip.
func (m *membershipActor) factsChanged(ctx actor.Context) {
	doc := m.s.Document()
	if doc == nil || m.s.quarantined() != "" {
		return
	}
	self := m.s.Founding.Config.Self
	row := m.rows[m.s.Self]
	facts := member.Facts{Store: member.StoreID(self.Store), Known: doc.Version, Idle: m.s.idle()}
	facts.Target, facts.Filled = m.s.filledFacts()
	bytes := m.s.Engine.Stats().DiskBytes >> 20 << 20 // in steps, so that an idle cluster has nothing to say
	if row.Counter > 0 && row.Known == facts.Known && row.Idle == facts.Idle && row.Target == facts.Target &&
		slices.Equal(row.Filled, facts.Filled) && row.Bytes == bytes {
		return
	}
	next := member.Row{Node: m.s.Self, Start: self.Start, Counter: row.Counter + 1, Address: self.Address, Facts: facts, Bytes: bytes}
	m.rows[m.s.Self] = next
	if leader := m.leader(); leader != m.s.Self {
		ctx.Request(on(leader, nameMembership), &messages.GossipRequest{
			Version: doc.Version, Digest: m.rows.Digest(), Rows: []*messages.NodeRow{messages.FromRow(next)}, TimeoutMs: uint32(gossipRound.Milliseconds()),
		})
	}
}

// leader is the first member that this node can reach: it takes movements on. It
// needs no election, for two that do so at once are decided between like any two
// changes.
func (m *membershipActor) leader() dynamo.NodeID {
	for _, node := range m.voter.Document.Voters() {
		if m.s.reachable(node) {
			return node
		}
	}
	return m.s.Self
}

// lead takes the movement on when the facts allow it and no member before this one
// does so.
func (m *membershipActor) lead(ctx actor.Context) {
	doc := m.voter.Document
	if m.running != nil || len(m.changes) > 0 || !doc.Unfinished() {
		m.version = 0
		return
	}
	if _, changes := doc.Advance(m.rows.Facts()); !changes {
		m.version = 0
		return
	}
	if m.version != doc.Version {
		m.version, m.due = doc.Version, time.Now().Add(time.Duration(m.rank())*takeOver)
	}
	if time.Now().Before(m.due) {
		return
	}
	m.propose(ctx, &change{
		what: "movement", until: time.Now().Add(changeTimeout),
		make: func(d member.Document) (member.Document, error) {
			next, _ := d.Advance(m.rows.Facts())
			return next, nil
		},
		done: func(member.Document, error) {},
	})
}

// rank is how many members that can be reached come before this one.
func (m *membershipActor) rank() int {
	n := 0
	for _, node := range m.voter.Document.Voters() {
		if node < m.s.Self && m.s.reachable(node) {
			n++
		}
	}
	return n
}

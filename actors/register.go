package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

const (
	// changeTimeout is how long a change of the document is tried.
	changeTimeout = 10 * time.Second
	// askAgainAfter is when voters that have not answered are asked again.
	askAgainAfter = 500 * time.Millisecond
	// ballotPause is the mean pause before another ballot, times the attempts.
	ballotPause = 50 * time.Millisecond
	// maxChanges is how many changes may wait for their turn.
	maxChanges = 64
)

// register is the membership actor's part in deciding on documents: its vote, and
// the changes that this node was asked for, one after the other (ADR 0008).
type register struct {
	voter   *member.Voter
	changes []*change
	// commits wait for those that they make members.
	commits []*commit
	running *member.Proposal
	again   *rt.Timer
	// waiting are told once a version is in force here.
	waiting []waiting
	// spreads is the latest version that a proposal of this node decided on: the node
	// tells all when the disk has it.
	spreads uint64
}

// change is one change of the document that somebody asks for. make computes the
// next document from the one in force, again for each attempt; the same document
// means that there is nothing to do. done is called once.
type change struct {
	what  string
	until time.Time
	make  func(member.Document) (member.Document, error)
	// lost are given up by force; nil: it is a change like others.
	lost []dynamo.NodeID
	done func(member.Document, error)
}

type waiting struct {
	version uint64
	tell    func()
}

// proposeAgain is the end of a pause, or the time to ask again; voted is the answer of
// the node's own voter, durable by now.
type (
	proposeAgain struct{ to *member.Proposal }
	voted        struct {
		to    *member.Proposal
		reply member.Reply
	}
	// voteStored is the end of a write of the voter.
	voteStored struct {
		by  *membershipActor
		err error
	}
)

var errNotBegun = errors.New("the change was not begun")

// errQuarantined says so of what waited when this node was put into quarantine: others may begin it.
var errQuarantined = errors.New("the change was not begun")

// decides handles what belongs to decisions, and reports whether that was it.
func (m *membershipActor) decides(ctx actor.Context) bool {
	switch msg := ctx.Message().(type) {
	case *messages.RegisterRequest:
		m.vote(ctx, msg)
	case *messages.RegisterReply:
		if reply, err := messages.ToReply(msg); err == nil {
			m.step(ctx, member.Replied{From: from(ctx), Reply: reply})
		} else {
			m.s.Log.Warn("unusable vote", slog.String("from", string(from(ctx))), slog.Any("error", err))
		}
	case *link.Undelivered:
		if _, ok := msg.Message.(*messages.RegisterRequest); ok {
			m.step(ctx, member.Unreachable{Node: target(msg)})
		}
	case *voted:
		if msg.to == m.running && msg.to != nil {
			m.step(ctx, member.Replied{From: m.s.Self, Reply: msg.reply})
		}
	case *voteStored:
		if msg.by == m && msg.err != nil {
			panic(msg.err) // the store failed; the supervisor starts over
		}
	case *proposeAgain:
		if msg.to == m.running && msg.to != nil {
			m.proposeAgain(ctx)
		}
	case *messages.DocumentNews:
		m.news(ctx, msg.GetDocument())
	case *messages.JoinRequest:
		if m.inCluster(ctx) {
			m.stage(ctx, msg)
		}
	case *messages.ClusterRequest:
		m.operate(ctx, msg)
	case *replicaLost:
		m.lose(ctx, msg)
	default:
		return false
	}
	return true
}

// inCluster answers who asks a node that has no document.
func (m *membershipActor) inCluster(ctx actor.Context) bool {
	if m.voter == nil {
		m.s.answer(ctx.Sender(), m.self, messages.Fail(messages.CodeNotReady, "%s is not in a cluster yet", m.s.Self))
		return false
	}
	return true
}

// vote answers another node's question; what it says is durable before.
func (m *membershipActor) vote(ctx actor.Context, r *messages.RegisterRequest) {
	if !m.inCluster(ctx) {
		return
	}
	asker := ctx.Sender()
	prepare, accept, err := messages.ToRegister(r)
	var reply member.Reply
	switch {
	case err != nil:
	case prepare != nil:
		if reply = m.oppose(prepare); reply == nil {
			reply, _, err = m.voter.Prepare(*prepare)
		}
	default:
		reply, _, err = m.voter.Accept(*accept)
	}
	if err != nil {
		m.s.answer(asker, m.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	if newer, ok := reply.(member.Newer); ok && !m.durable(newer.Document.Version) {
		return // the asker repeats itself
	}
	m.afterVote(reply, func() { m.s.answer(asker, m.self, messages.FromReply(reply)) })
}

// durable reports whether the disk has a version. One that it may yet forget is told
// to nobody: who hears of it might go on from it alone.
func (m *membershipActor) durable(version uint64) bool {
	doc := m.s.Document()
	return doc != nil && doc.Version >= version
}

// afterVote calls then once what a reply promises is durable. A promise that is
// repeated is written again: the first may still be on its way to the disk.
func (m *membershipActor) afterVote(reply member.Reply, then func()) {
	switch reply.(type) {
	case member.Promised, member.Accepted:
	default:
		then()
		return
	}
	self, root := m.self, m.s.System.Root
	m.s.Founding.StoreVote(*m.voter, func(err error) {
		if err == nil {
			then()
		}
		root.Send(self, &voteStored{by: m, err: err})
	})
}

// propose queues a change.
func (m *membershipActor) propose(ctx actor.Context, c *change) {
	if len(m.changes) >= maxChanges {
		c.done(m.voter.Document, fmt.Errorf("%w: %d others wait", errNotBegun, maxChanges))
		return
	}
	m.changes = append(m.changes, c)
	m.next(ctx)
}

// next begins the first change that waits, if none is under way.
func (m *membershipActor) next(ctx actor.Context) {
	for m.running == nil && len(m.changes) > 0 {
		c, now := m.changes[0], m.voter.Document
		next, err := now, error(errNotBegun) // whoever asked has given up
		switch why := m.s.quarantined(); {
		case why != "":
			err = fmt.Errorf("%w: %s", errQuarantined, why)
		case time.Now().Before(c.until):
			next, err = c.make(now)
		}
		if err == nil && next.Version == now.Version {
			m.changes = m.changes[1:]
			m.whenInForce(now.Version, func() { c.done(now, nil) })
			continue
		}
		var p *member.Proposal
		switch start, round := m.s.Founding.Config.Self.Start, m.s.round.Load(); {
		case err != nil:
		case c.lost != nil:
			p, err = member.ProposeForced(m.s.Self, start, round, now, c.lost)
		default:
			p, err = member.Propose(m.s.Self, start, round, now, next)
		}
		if err != nil {
			m.changes = m.changes[1:]
			c.done(now, err)
			continue
		}
		m.running = p
		m.armProposal(askAgainAfter)
		m.carryOut(ctx, p, p.Start())
	}
}

func (m *membershipActor) step(ctx actor.Context, e member.ProposalEvent) {
	if p := m.running; p != nil {
		m.carryOut(ctx, p, p.Step(e))
	}
}

func (m *membershipActor) proposeAgain(ctx actor.Context) {
	if !time.Now().Before(m.changes[0].until) {
		m.step(ctx, member.Over{})
		return
	}
	m.armProposal(askAgainAfter)
	m.step(ctx, member.Again{})
}

func (m *membershipActor) armProposal(d time.Duration) {
	m.again.Stop()
	m.again = m.s.Wheel.Send(m.self, &proposeAgain{to: m.running}, d)
}

// end answers all who wait, for nobody will when the actor has ended. Others may
// finish the change that is under way; those behind it are not begun.
func (m *membershipActor) end() {
	m.again.Stop()
	for i, c := range m.changes {
		err := fmt.Errorf("%w: %s stops or starts over", errNotBegun, m.s.Self)
		if i == 0 && m.running != nil {
			err = fmt.Errorf("%w: %s stops or starts over", member.ErrUndecided, m.s.Self)
		}
		c.done(m.voter.Document, err)
	}
	for _, c := range m.commits {
		c.change.done(m.voter.Document, fmt.Errorf("%w: %s stops or starts over", errNotBegun, m.s.Self))
	}
	m.tellWaiting(math.MaxUint64) // what was decided stays so
	for _, pid := range m.askers {
		m.s.answer(pid, m.self, messages.Fail(messages.CodeNotReady, "%s stops or starts over", m.s.Self))
	}
	m.changes, m.commits, m.askers, m.running = nil, nil, nil, nil
}

// carryOut does what a proposal asks for, in order. The round comes first: no ballot
// may be used again, also not by the actor that takes over when this one fails.
func (m *membershipActor) carryOut(ctx actor.Context, p *member.Proposal, effects []member.ProposalEffect) {
	m.s.round.Store(p.Round())
	var unused error // why what was decided is not used here
	for _, e := range effects {
		switch e := e.(type) {
		case member.SendPrepare:
			if e.To == m.s.Self {
				reply, _, err := m.voter.Prepare(e.Prepare)
				m.ownVote(p, reply, err)
				continue
			}
			m.question(ctx, e.To, messages.FromPrepare(e.Prepare))
		case member.SendAccept:
			if e.To == m.s.Self {
				reply, _, err := m.voter.Accept(e.Accept)
				m.ownVote(p, reply, err)
				continue
			}
			m.question(ctx, e.To, messages.FromAccept(e.Accept))
		case member.Teach:
			if m.durable(e.Document.Version) { // else it is asked again
				ctx.Send(on(e.To, nameMembership), &messages.DocumentNews{Document: messages.FromDocument(e.Document)})
			}
		case member.Pause:
			m.armProposal(ballotPause/2 + rand.N(time.Duration(e.Attempt)*ballotPause))
		case member.ChosenNow:
			unused = m.learn(e.By, e.Document)
			m.spreads = max(m.spreads, e.Document.Version)
		case member.Done:
			if unused != nil {
				e.Err = fmt.Errorf("%w: %w", member.ErrUndecided, unused)
			}
			m.decided(ctx, p, e.Err)
		}
	}
}

func (m *membershipActor) question(ctx actor.Context, to dynamo.NodeID, r *messages.RegisterRequest) {
	r.TimeoutMs = uint32(changeTimeout.Milliseconds())
	ctx.Request(on(to, nameMembership), r)
}

// ownVote hands the proposal this node's own answer when it is durable.
func (m *membershipActor) ownVote(p *member.Proposal, reply member.Reply, err error) {
	if err != nil {
		panic(err) // the proposal made the document itself, and has checked it
	}
	self, root := m.self, m.s.System.Root
	m.afterVote(reply, func() { root.Send(self, &voted{to: p, reply: reply}) })
}

// decided ends a proposal. One that was overtaken is made anew from what is in force
// now: then it is another change, or none, or refused.
func (m *membershipActor) decided(ctx actor.Context, p *member.Proposal, err error) {
	c := m.changes[0]
	m.running = nil
	m.again.Stop()
	if errors.Is(err, member.ErrOvertaken) && time.Now().Before(c.until) {
		m.next(ctx)
		return
	}
	m.changes = m.changes[1:]
	doc := m.voter.Document
	if err != nil {
		m.s.Log.Warn("change of the cluster failed", slog.String("change", c.what), slog.Any("error", err))
		c.done(doc, err)
	} else {
		m.s.Log.Info("cluster changed", slog.String("change", c.what), slog.Uint64("version", doc.Version))
		m.whenInForce(doc.Version, func() { c.done(doc, nil) })
	}
	m.next(ctx)
}

// news takes in a document that another node sent.
func (m *membershipActor) news(ctx actor.Context, raw *messages.Document) {
	if raw == nil || m.voter == nil || raw.GetVersion() <= m.voter.Document.Version {
		return
	}
	doc, err := messages.ToDocument(raw)
	if err != nil {
		m.s.Log.Warn("unusable cluster document", slog.String("from", string(from(ctx))), slog.Any("error", err))
		return
	}
	_ = m.learn(from(ctx), doc) // it was logged
}

// learn makes a document durable that was decided, as another node knows; then it comes
// into force.
func (m *membershipActor) learn(by dynamo.NodeID, doc member.Document) error {
	changed, err := m.voter.Hear(by, doc)
	if err != nil {
		m.s.Log.Error("a decided document cannot be used", slog.Any("error", err))
		return err
	}
	if changed {
		self, root := m.self, m.s.System.Root
		m.s.Founding.StoreDocument(doc, func(err error) { root.Send(self, &stored{by: m, doc: &doc, err: err}) })
	}
	return nil
}

// spread sends a decided document to all members; who misses it hears of it by
// gossip, or is refused by its peers.
func (m *membershipActor) spread(ctx actor.Context, doc member.Document) {
	news := link.Share(&messages.DocumentNews{Document: messages.FromDocument(doc)})
	before := m.s.Document()
	for _, x := range doc.Members {
		was, _ := before.Member(x.ID)
		// One that goes should hear of it while it is still connected.
		if x.ID != m.s.Self && (x.Status != member.Gone || was.Status != member.Gone) {
			to := on(x.ID, nameMembership)
			ctx.Send(to, news.For(m.s.System, to))
		}
	}
}

// whenInForce calls tell once the version, or a later one, is in force here.
func (m *membershipActor) whenInForce(version uint64, tell func()) {
	if doc := m.s.Document(); doc != nil && doc.Version >= version {
		tell()
		return
	}
	m.waiting = append(m.waiting, waiting{version, tell})
}

func (m *membershipActor) tellWaiting(version uint64) {
	all := m.waiting
	m.waiting = nil
	for _, w := range all {
		if w.version > version {
			m.waiting = append(m.waiting, w)
			continue
		}
		w.tell()
	}
}

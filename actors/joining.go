package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// joining is how a node that is in no cluster asks one to take it: it is staged,
// and an operator commits (§ 4.8.1). Once it was staged it does not ask again by
// itself, so that what an operator has cleared stays cleared.
type joining struct {
	staged bool
	asked  time.Time
	// refusal is why a member gave this node no place.
	refusal string
	// askers wait for the node to be staged.
	askers []*actor.PID
}

// joinPause is the time between two requests to be staged.
const joinPause = time.Second

// ask has a member stage this node, unless it is staged.
func (m *membershipActor) ask(ctx actor.Context, peer dynamo.NodeID, doc member.Document) {
	if slices.ContainsFunc(doc.Staged, m.isUs) {
		if !m.staged {
			m.s.Log.Info("staged to join; an operator has to commit it", slog.String("cluster", doc.String()))
		}
		m.staged = true
		for _, pid := range m.askers {
			m.s.answer(pid, m.self, &messages.ClusterReply{Document: messages.FromDocument(doc)})
		}
		m.askers = nil
		return
	}
	if !m.staged {
		m.request(ctx, peer, nil)
	}
}

func (m *membershipActor) isUs(c member.Change) bool {
	self := m.s.Founding.Config.Self
	return c.Kind == member.Join && c.Node == self.ID && c.Member.Store == member.StoreID(self.Store)
}

// askAgain is an operator's word to a node that is in no cluster.
func (m *membershipActor) askAgain(pid *actor.PID) {
	m.staged, m.asked = false, time.Time{}
	m.askers = append(m.askers, pid)
}

// refusedToJoin tells whoever waits why a member did not stage this node.
func (m *membershipActor) refusedToJoin(f *messages.Failure) {
	m.refused(f.GetText())
	for _, pid := range m.askers {
		m.s.answer(pid, m.self, f)
	}
	m.askers = nil
}

// place gives a node that asks for it a place in the document: that of the member of
// its name, whose disk with the store lost is gone, or it is staged to join as a new one.
func (m *membershipActor) place(d member.Document, c member.Change, lost member.StoreID) (member.Document, error) {
	x, known := d.Member(c.Node)
	switch {
	case !known || x.Status == member.Gone:
		return d.StageJoin(c)
	case x.Store == c.Member.Store:
		return d, nil // it has it, and will hear of it
	case m.s.reachable(c.Node) || time.Since(m.renewed[c.Node]) < renewedLately:
		return d, fmt.Errorf("%w: another process runs as %s at %s; stop one of them", errTwin, c.Node, x.Address)
	}
	return d.TakeOver(c.Node, lost, c.Member.Store, c.Member.Start, c.Member.Address)
}

// errTwin: a member's place is asked for while the member lives.
var errTwin = errors.New("the name is in use")

// renewedLately is how long a member counts as alive after it said something new of
// itself, although it cannot be reached from here.
const renewedLately = 3 * time.Second

// reclaim asks a member for the place of this node's name, which another store had:
// this node's disk was lost, or it is a second process of that name. A member lets
// only one process of a name connect. So this node asks once a majority of them is
// connected, which cannot be while a majority is connected with another process.
func (m *membershipActor) reclaim(ctx actor.Context, peer dynamo.NodeID, doc member.Document) {
	voters, peers := doc.Voters(), m.s.Founding.Peers()
	linked := 0
	for _, node := range voters {
		if slices.Contains(peers, node) {
			linked++
		}
		if x, ok := doc.Member(node); ok && node != m.s.Self {
			m.s.Founding.Moved(node, x.Address)
		}
	}
	if linked < member.Majority(len(voters)) {
		m.refused(fmt.Sprintf("%d of %d members are connected, %d are needed to take the place of the disk that %s had",
			linked, len(voters), member.Majority(len(voters)), m.s.Self))
		return
	}
	x, _ := doc.Member(m.s.Self)
	m.request(ctx, peer, x.Store[:])
}

// request asks a member for a place, from time to time.
func (m *membershipActor) request(ctx actor.Context, peer dynamo.NodeID, lost []byte) {
	if time.Since(m.asked) < joinPause {
		return
	}
	m.asked = time.Now()
	ctx.Request(on(peer, nameMembership), &messages.JoinRequest{
		Candidate: m.identity(), TimeoutMs: uint32(changeTimeout.Milliseconds()), Lost: lost,
	})
}

// refused notes why this node has no place yet, for health and, once, the log.
func (m *membershipActor) refused(why string) {
	if m.refusal != why {
		m.refusal = why
		m.s.Log.Warn("no place in the cluster yet", slog.String("why", why))
	}
	m.tellNote()
}

// stage takes another node's request for a place.
func (m *membershipActor) stage(ctx actor.Context, r *messages.JoinRequest) {
	asker := ctx.Sender()
	who, _, err := messages.ToIdentity(r.GetCandidate())
	if err != nil || who.ID != from(ctx) {
		m.s.answer(asker, m.self, messages.Fail(messages.CodeInvalid, "unusable identity of %s: %v", from(ctx), err))
		return
	}
	c := member.Change{Kind: member.Join, Node: who.ID, Member: member.Member{
		ID: who.ID, Zone: who.Zone, Capacity: who.Capacity, Store: member.StoreID(who.Store), Start: who.Start, Address: who.Address,
	}}
	var lost member.StoreID
	copy(lost[:], r.GetLost()) // of another length it is none that a member has
	m.propose(ctx, &change{
		what: c.String(), until: time.Now().Add(changeTimeout),
		make: func(d member.Document) (member.Document, error) { return m.place(d, c, lost) },
		done: func(d member.Document, err error) {
			if err != nil {
				m.s.answer(asker, m.self, changeFailure(err))
				return
			}
			m.s.answer(asker, m.self, &messages.JoinReply{Version: d.Version})
		},
	})
}

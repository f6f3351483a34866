package actors

import (
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
	if m.staged || time.Since(m.asked) < joinPause {
		return
	}
	m.asked = time.Now()
	ctx.Request(on(peer, nameMembership), &messages.JoinRequest{Candidate: m.identity(), TimeoutMs: uint32(changeTimeout.Milliseconds())})
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
	m.s.Log.Warn("not staged to join", slog.String("reason", f.GetText()))
	for _, pid := range m.askers {
		m.s.answer(pid, m.self, f)
	}
	m.askers = nil
}

// stage takes another node's request to be staged.
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
	m.propose(ctx, &change{
		what: c.String(), until: time.Now().Add(changeTimeout),
		make: func(d member.Document) (member.Document, error) { return d.StageJoin(c) },
		done: func(d member.Document, err error) {
			if err != nil {
				m.s.answer(asker, m.self, changeFailure(err))
				return
			}
			m.s.answer(asker, m.self, &messages.JoinReply{Version: d.Version})
		},
	})
}

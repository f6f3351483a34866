package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo/detector"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// operate carries out an operator's request: it looks, or it changes the document.
func (m *membershipActor) operate(ctx actor.Context, r *messages.ClusterRequest) {
	asker := ctx.Sender()
	if r.GetOperation() == messages.OperationJoin {
		m.operatorJoins(asker)
		return
	}
	if !m.inCluster(ctx) {
		return
	}
	if r.GetOperation() == messages.OperationStatus {
		m.s.answer(asker, m.self, m.status(m.voter.Document))
		return
	}
	if why := m.s.quarantined(); why != "" {
		m.s.answer(asker, m.self, messages.Fail(messages.CodeNotReady, "%s", why))
		return
	}
	c, err := m.operation(r)
	if err != nil {
		m.s.answer(asker, m.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	c.until = time.Now().Add(min(changeTimeout, max(time.Second, messageTTL(r)*9/10)))
	c.done = func(d member.Document, err error) {
		if err != nil {
			m.s.answer(asker, m.self, changeFailure(err))
			return
		}
		m.s.Log.Info("operator", slog.String("asked", c.what), slog.Uint64("version", d.Version))
		m.s.answer(asker, m.self, m.status(d))
	}
	if r.GetOperation() == messages.OperationCommit {
		m.commit(ctx, &commit{change: c, version: r.GetVersion(), until: time.Now().Add(min(reachTime, time.Until(c.until)/2))})
		return
	}
	m.propose(ctx, c)
}

// operatorJoins has a node that is in no cluster ask to be staged once more.
func (m *membershipActor) operatorJoins(asker *actor.PID) {
	if m.voter != nil {
		m.s.answer(asker, m.self, messages.Fail(messages.CodeInvalid,
			"%s is in the cluster %s already; ask the node that is to join", m.s.Self, m.voter.Document.ClusterName))
		return
	}
	if len(m.askers) >= maxChanges {
		// The first has waited longest, and may have gone.
		m.s.answer(m.askers[0], m.self, messages.Fail(messages.CodeOverloaded, "too many wait for %s to be staged", m.s.Self))
		m.askers = m.askers[1:]
	}
	m.askAgain(asker)
}

// operation is the change of the document that a request asks for.
func (m *membershipActor) operation(r *messages.ClusterRequest) (*change, error) {
	switch r.GetOperation() {
	case messages.OperationStage:
		c, err := messages.ToChange(r.GetChange())
		if err == nil && c.Kind == member.Join {
			err = errors.New("a node joins by itself: start it with a seed, or ask it with node cluster join --node ITS-ADDRESS")
		}
		return &change{what: "stage " + c.String(), make: func(d member.Document) (member.Document, error) { return d.Stage(c) }}, err
	case messages.OperationForce:
		return m.forcing(r)
	case messages.OperationAcceptLoss:
		return m.accepting(r)
	case messages.OperationClear:
		return &change{what: "clear", make: member.Document.Clear}, nil
	case messages.OperationCommit:
		v := r.GetVersion()
		return &change{what: "commit", make: func(d member.Document) (member.Document, error) { return d.Commit(v) }}, nil
	case messages.OperationCreateBucket, messages.OperationSetBucket:
		b, err := messages.ToBucket(r.GetBucket())
		set, v := r.GetOperation() == messages.OperationSetBucket, r.GetVersion()
		return &change{what: "bucket " + b.Name, make: func(d member.Document) (member.Document, error) {
			if set && v != d.Version { // all properties are written, also those that were only read
				return d, fmt.Errorf("%w: the properties were read at version %d, now it is %d", member.ErrPlanChanged, v, d.Version)
			}
			return d.CreateBucket(b, set)
		}}, err
	}
	return nil, errors.New("unknown operation; is the node older than the command?")
}

// status is the document, and what this node knows of the others.
func (m *membershipActor) status(d member.Document) *messages.ClusterReply {
	out := &messages.ClusterReply{Document: messages.FromDocument(d)}
	for _, x := range d.Members {
		if x.Status == member.Gone {
			continue
		}
		state := &messages.NodeState{Reachable: m.s.reachable(x.ID), Slow: m.s.opinion(x.ID).opinion == detector.Up && m.s.opinion(x.ID).slow}
		row, known := m.rows[x.ID]
		if !known {
			row = member.Row{Node: x.ID}
		}
		state.Row = messages.FromRow(row)
		out.Nodes = append(out.Nodes, state)
	}
	return out
}

// changeFailure translates why a change was not made.
func changeFailure(err error) *messages.Failure {
	code := messages.CodeInvalid
	switch {
	case errors.Is(err, member.ErrUndecided):
		code = messages.CodeUnknown
	case errors.Is(err, member.ErrNoMajority), errors.Is(err, member.ErrNotAll), errors.Is(err, errUnreached):
		code = messages.CodeUnavailable
	case errors.Is(err, member.ErrOvertaken), errors.Is(err, member.ErrPlanChanged), errors.Is(err, errTwin):
		code = messages.CodeConflict
	case errors.Is(err, errQuarantined):
		code = messages.CodeNotReady
	case errors.Is(err, errNotBegun):
		code = messages.CodeOverloaded
	}
	return messages.Fail(code, "%v", err)
}

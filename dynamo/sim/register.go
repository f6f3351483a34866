package sim

import (
	"errors"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

const (
	// changeTimeout is how long a change of the document is tried, voteAgain when
	// voters that have not answered are asked again.
	changeTimeout = 2 * time.Second
	voteAgain     = 120 * time.Millisecond
	ballotPause   = 30 * time.Millisecond
	maxChanges    = 8
)

// register is a node's part in deciding on documents: the changes that it was asked
// for, one after the other.
type register struct {
	round   uint64
	changes []change
	running *member.Proposal
	// asked is the document that voters were last asked to accept.
	asked member.Document
	timer uint64
}

// change computes the next document from the one in force, again for each attempt; the
// same version means that there is nothing to do.
type change struct {
	what  string
	until time.Duration
	make  func(member.Document) (member.Document, error)
}

// propose queues a change, unless the same waits already.
func (m *membership) propose(what string, make func(member.Document) (member.Document, error)) {
	if m.voter == nil || len(m.changes) >= maxChanges {
		return
	}
	for _, c := range m.changes {
		if c.what == what {
			return
		}
	}
	m.changes = append(m.changes, change{what: what, until: m.n.c.now + changeTimeout, make: make})
	m.nextChange()
}

// nextChange begins the first change that waits, if none is under way.
func (m *membership) nextChange() {
	for m.running == nil && len(m.changes) > 0 {
		c, now := m.changes[0], m.voter.Document
		next, err := c.make(now)
		var p *member.Proposal
		if err == nil && next.Version != now.Version {
			p, err = member.Propose(m.n.id, m.n.life, m.round, now, next)
		}
		if p == nil {
			if err != nil {
				m.n.c.tracef("%s: %s: %v", m.n.id, c.what, err)
			}
			m.changes = m.changes[1:]
			continue
		}
		m.n.c.tracef("%s proposes version %d: %s", m.n.id, next.Version, c.what)
		m.running = p
		m.arm(voteAgain)
		m.carryOut(p, p.Start())
	}
}

func (m *membership) arm(d time.Duration) {
	m.timer++
	timer, p := m.timer, m.running
	m.n.after(d, func() {
		if m.timer != timer || m.running != p || p == nil {
			return
		}
		if m.n.c.now >= m.changes[0].until {
			m.step(p, member.Over{})
			return
		}
		m.arm(voteAgain)
		m.step(p, member.Again{})
	})
}

func (m *membership) step(p *member.Proposal, e member.ProposalEvent) {
	if p == m.running {
		m.carryOut(p, p.Step(e))
	}
}

func (m *membership) carryOut(p *member.Proposal, effects []member.ProposalEffect) {
	for _, e := range effects {
		switch e := e.(type) {
		case member.SendPrepare:
			m.question(p, e.To, func(v *member.Voter) (member.Reply, bool, error) { return v.Prepare(e.Prepare) })
		case member.SendAccept:
			m.asked = e.Accept.Document
			m.question(p, e.To, func(v *member.Voter) (member.Reply, bool, error) { return v.Accept(e.Accept) })
		case member.Teach:
			m.send(e.To, func(o *membership) { o.news(e.Document) }, nil)
		case member.Pause:
			m.arm(ballotPause/2 + scale(m.n.c.random.move.Float64()*float64(e.Attempt), ballotPause))
		case member.ChosenNow:
			m.n.c.decided(m.n, e.Document)
			m.learn(e.Document)
			m.spread(e.Document)
		case member.Done:
			m.decided(p, e.Err)
		}
	}
}

// question asks a voter, this node included; what it says is durable before it is
// heard.
func (m *membership) question(p *member.Proposal, to dynamo.NodeID, ask func(*member.Voter) (member.Reply, bool, error)) {
	voters := m.voter.Document.Voters()
	answer := func(r member.Reply) {
		m.step(p, member.Replied{From: to, Reply: r})
		if m.n.c.mutation == voteTwice {
			m.step(p, member.Replied{From: voters[len(voters)-1], Reply: r})
		}
	}
	if to == m.n.id {
		life := m.n.life
		m.vote(ask, func(r member.Reply) { m.n.after(0, func() { m.n.run(life, func() { answer(r) }) }) })
		return
	}
	life, from := m.n.life, m.n.id
	m.send(to, func(o *membership) {
		if o.voter == nil {
			return
		}
		o.vote(ask, func(r member.Reply) {
			o.send(from, func(back *membership) {
				if back == m {
					m.n.run(life, func() { answer(r) })
				}
			}, nil)
		})
	}, func() { m.step(p, member.Unreachable{Node: to}) })
}

// vote answers a question.
func (m *membership) vote(ask func(*member.Voter) (member.Reply, bool, error), then func(member.Reply)) {
	r, _, err := ask(m.voter)
	if err != nil {
		m.n.c.fail("M1", "%s cannot vote: %v", m.n.id, err)
		return
	}
	version := m.voter.Document.Version + 1
	if pr, ok := r.(member.Promised); ok && m.n.c.mutation == hideVote {
		pr.Vote = nil
		r = pr
	}
	switch r.(type) {
	case member.Promised, member.Accepted:
	default:
		then(r)
		return
	}
	m.n.c.check.votes(m.n, version, r)
	heard := func() {
		m.n.c.check.says(m.n, version, r)
		then(r)
	}
	if m.n.c.mutation == voteEarly {
		heard()
		m.save(func() {})
		return
	}
	m.save(heard)
}

// decided ends a proposal. One that was overtaken is made anew.
func (m *membership) decided(p *member.Proposal, err error) {
	m.round, m.running = p.Round(), nil
	if err != nil {
		m.n.c.tracef("%s: %s: %v", m.n.id, m.changes[0].what, err)
	}
	if !errors.Is(err, member.ErrOvertaken) || m.n.c.now >= m.changes[0].until {
		m.changes = m.changes[1:]
	}
	m.nextChange()
}

// news takes in a decided document.
func (m *membership) news(d member.Document) {
	if m.voter != nil {
		m.learn(d)
	}
}

// spread sends a decided document to all members.
func (m *membership) spread(d member.Document) {
	for _, id := range d.Voters() {
		if id != m.n.id {
			m.send(id, func(o *membership) { o.news(d) }, nil)
		}
	}
}

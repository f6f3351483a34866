package member

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dynactor/dynactor/dynamo"
)

// What a proposal can end with, apart from success.
var (
	// ErrOvertaken: another change was made first. The caller looks at the
	// document in force and decides anew.
	ErrOvertaken = errors.New("another change of the cluster was made first")
	// ErrNoMajority: too few voters can be reached. Nothing was changed.
	ErrNoMajority = errors.New("no majority of the members can be reached")
	// ErrUndecided: too few voters answered after some were asked to accept: the
	// change may still come into force.
	ErrUndecided = errors.New("the change may still come into force")
)

// ProposalEvent is what happened to a proposal: Replied, Unreachable or Over.
type ProposalEvent interface{ proposalEvent() }

type (
	// Replied is a voter's answer.
	Replied struct {
		From  dynamo.NodeID
		Reply Reply
	}
	// Unreachable: the voter did not get the question, or its link broke.
	Unreachable struct{ Node dynamo.NodeID }
	// Again: the pause is over; or a while has passed, and who has not answered is
	// asked again.
	Again struct{}
	// Over: the time is over.
	Over struct{}
)

func (Replied) proposalEvent()     {}
func (Unreachable) proposalEvent() {}
func (Again) proposalEvent()       {}
func (Over) proposalEvent()        {}

// ProposalEffect is what to do: SendPrepare, SendAccept, Teach, Pause, Chosen or
// Failed.
type ProposalEffect interface{ proposalEffect() }

type (
	// SendPrepare asks a voter, this node included, to take part.
	SendPrepare struct {
		To      dynamo.NodeID
		Prepare Prepare
	}
	// SendAccept asks a voter to accept.
	SendAccept struct {
		To     dynamo.NodeID
		Accept Accept
	}
	// Teach sends a voter the document that it does not know; what is sent to it
	// next must arrive after it.
	Teach struct {
		To       dynamo.NodeID
		Document Document
	}
	// Pause asks for Again after a random while, longer with each attempt, so that
	// of two proposals one gets through.
	Pause struct{ Attempt int }
	// ChosenNow: the document is in force, and is to be learned by all. By is the node
	// that said so, or this one.
	ChosenNow struct {
		By       dynamo.NodeID
		Document Document
	}
	// Done ends the proposal: with nil when the change that was asked for is
	// in force, else with one of the errors above.
	Done struct{ Err error }
)

func (SendPrepare) proposalEffect() {}
func (SendAccept) proposalEffect()  {}
func (Teach) proposalEffect()       {}
func (Pause) proposalEffect()       {}
func (ChosenNow) proposalEffect()   {}
func (Done) proposalEffect()        {}

type proposalState uint8

const (
	proposalReady proposalState = iota
	preparing
	accepting
	pausing
	proposalDone
)

// Proposal tries to make one document the next version. It belongs to one
// goroutine.
type Proposal struct {
	self    dynamo.NodeID
	life    uint64
	current Document
	want    Document
	voters  []dynamo.NodeID
	// need is how many of them have to agree.
	need int
	// lost are given up by force; nil: it is not forced.
	lost []dynamo.NodeID
	// staying are the voters that want leaves, and stay how many of them have to take
	// part, so that there is a majority for the version after it.
	staying []dynamo.NodeID
	stay    int
	state   proposalState
	ballot  Ballot
	// highest is the latest round that was heard of, attempts how many ballots
	// were begun.
	highest  uint64
	attempts int
	// value is what this ballot is for: want, or what an earlier ballot may have
	// chosen.
	value Document
	best  *Vote
	votes map[dynamo.NodeID]*Vote
	// yes and no are the voters that answered this ballot's question.
	yes, no map[dynamo.NodeID]bool
	// taught are those that were sent the version before since they were last asked anew.
	taught map[dynamo.NodeID]bool
	// asked: voters were asked to accept want, so that it may be chosen whatever
	// becomes of this proposal.
	asked   bool
	effects []ProposalEffect
}

// Propose plans to make next the successor of current, which is in force at this
// node; life is the number of the node's start, and after the highest round that it
// has used since. One proposal of a node runs at a time. Errors are ErrForeign and
// those of Document.Validate.
func Propose(self dynamo.NodeID, life, after uint64, current, next Document) (*Proposal, error) {
	if next.ClusterID != current.ClusterID || next.Version != current.Version+1 {
		return nil, fmt.Errorf("%w: version %d after %d", ErrForeign, next.Version, current.Version)
	}
	if err := next.Validate(); err != nil {
		return nil, err
	}
	voters := current.Voters()
	p := &Proposal{self: self, life: life, current: current, want: next, voters: voters, need: Majority(len(voters)), highest: after}
	then := next.Voters()
	p.stay = Majority(len(then))
	for _, v := range then {
		before, _ := current.Member(v)
		if after, _ := next.Member(v); before.Store == after.Store && slices.Contains(p.voters, v) {
			p.staying = append(p.staying, v)
		} else {
			p.stay-- // it lives: it has just asked for its place
		}
	}
	return p, nil
}

// Round is the highest round that was used or heard of.
func (p *Proposal) Round() uint64 { return p.highest }

// Start begins. The effects are valid until the next call of Step.
func (p *Proposal) Start() []ProposalEffect {
	if p.state != proposalReady {
		return nil
	}
	p.reset()
	p.begin()
	return p.effects
}

// Step takes one event and returns what to do; the slice is valid until the next
// call.
func (p *Proposal) Step(e ProposalEvent) []ProposalEffect {
	p.reset()
	if p.state == proposalReady || p.state == proposalDone {
		return nil
	}
	switch e := e.(type) {
	case Replied:
		if slices.Contains(p.voters, e.From) {
			p.replied(e.From, e.Reply)
		}
	case Unreachable:
		p.against(e.Node)
	case Again:
		p.again()
	case Over:
		p.fail()
	}
	return p.effects
}

func (p *Proposal) reset() {
	clear(p.effects)
	p.effects = p.effects[:0]
}

// begin starts the next ballot.
func (p *Proposal) begin() {
	p.attempts++
	p.highest++
	p.taught, p.votes = map[dynamo.NodeID]bool{}, map[dynamo.NodeID]*Vote{}
	p.state, p.ballot, p.best = preparing, Ballot{Round: p.highest, Node: p.self, Start: p.life}, nil
	p.ask()
}

// again begins a later ballot after a pause, or repeats a question that may have
// been lost.
func (p *Proposal) again() {
	if p.state == pausing {
		p.begin()
		return
	}
	clear(p.taught)
	for _, to := range p.voters {
		if !p.yes[to] {
			delete(p.no, to)
			p.send(to)
		}
	}
}

// ask puts the question of the state to all voters.
func (p *Proposal) ask() {
	p.yes, p.no = map[dynamo.NodeID]bool{}, map[dynamo.NodeID]bool{}
	for _, to := range p.voters {
		p.send(to)
	}
}

func (p *Proposal) send(to dynamo.NodeID) {
	if p.state == preparing {
		m := Prepare{Cluster: p.current.ClusterID, Version: p.want.Version, Ballot: p.ballot}
		if p.lost != nil {
			m.Base, m.Lost = p.current.Version, p.lost
		}
		p.emit(SendPrepare{to, m})
		return
	}
	p.emit(SendAccept{to, Accept{Ballot: p.ballot, Document: p.value}})
}

func (p *Proposal) replied(from dynamo.NodeID, r Reply) {
	switch r := r.(type) {
	case Promised:
		if p.state == preparing && r.Ballot == p.ballot {
			p.promised(from, r.Vote)
		}
	case Accepted:
		if p.state == accepting && r.Ballot == p.ballot {
			p.accepted(from)
		}
	case Refused:
		if r.Later.Round < MaxRound {
			p.highest = max(p.highest, r.Later.Round)
		}
		if r.Ballot == p.ballot {
			p.against(from)
		}
	case Ineligible:
		p.against(from)
	case Opposed:
		if p.state == preparing && p.lost != nil && !p.asked {
			p.done(fmt.Errorf("%w: %s says that %s", ErrOpposed, from, r.Why))
		}
	case Newer:
		p.newer(from, r.Document)
	case Behind:
		// Once: one that cannot use the document stays behind.
		if (p.state == preparing || p.state == accepting) && r.Version < p.current.Version && !p.taught[from] {
			p.taught[from] = true
			p.emit(Teach{from, p.current})
			p.send(from)
		}
	}
}

// promised counts a voter that takes part. A majority includes somebody of every
// majority that may have chosen something before, so the latest vote among them is
// what has to be proposed, if there is one.
func (p *Proposal) promised(from dynamo.NodeID, v *Vote) {
	p.yes[from], p.votes[from] = true, v
	if v != nil && (p.best == nil || v.Ballot.Compare(p.best.Ballot) > 0) {
		p.best = v
	}
	// What may have been chosen is finished by whoever is there.
	if len(p.yes) < p.need || p.best == nil && among(p.yes, p.staying) < p.stay {
		return
	}
	if p.lost != nil {
		p.force()
		return
	}
	p.state, p.value = accepting, p.want
	if p.best != nil {
		p.value = p.best.Document
	}
	p.asked = p.asked || p.value.Equal(p.want)
	p.ask()
}

// force goes on when all who are left have promised.
func (p *Proposal) force() {
	chosen, err := p.forcedVote()
	switch {
	case err != nil:
		p.done(err)
	case chosen != nil:
		p.value = *chosen
		p.chosen()
	default:
		p.state, p.value, p.asked = accepting, p.want, true
		p.ask()
	}
}

func (p *Proposal) accepted(from dynamo.NodeID) {
	p.yes[from] = true
	if len(p.yes) >= p.need {
		p.chosen()
	}
}

func (p *Proposal) chosen() {
	p.emit(ChosenNow{p.self, p.value})
	if p.value.Equal(p.want) {
		p.done(nil)
		return
	}
	p.done(fmt.Errorf("%w: version %d", ErrOvertaken, p.value.Version))
}

// newer ends the proposal: the version exists. It may be the one that was wanted,
// finished by somebody else.
func (p *Proposal) newer(by dynamo.NodeID, d Document) {
	if d.ClusterID != p.current.ClusterID || d.Version < p.want.Version && (p.lost == nil || d.Version <= p.current.Version) {
		return
	}
	p.emit(ChosenNow{by, d})
	switch {
	case d.Equal(p.want):
		p.done(nil)
	case d.Version > p.want.Version && p.asked:
		p.done(fmt.Errorf("%w: the cluster is at version %d already", ErrUndecided, d.Version))
	default:
		p.done(fmt.Errorf("%w: version %d", ErrOvertaken, d.Version))
	}
}

// against counts a voter that does not take part in this ballot; when a majority
// is out of reach a later ballot is tried after a pause.
func (p *Proposal) against(node dynamo.NodeID) {
	if (p.state != preparing && p.state != accepting) || p.yes[node] || !slices.Contains(p.voters, node) {
		return
	}
	p.no[node] = true
	lasts := p.state == accepting || p.best != nil || len(p.staying)-among(p.no, p.staying) >= p.stay
	if len(p.voters)-len(p.no) >= p.need && lasts {
		return
	}
	p.state = pausing
	p.emit(Pause{p.attempts})
}

// fail ends the proposal when its time is over.
func (p *Proposal) fail() {
	if p.asked {
		p.done(fmt.Errorf("%w: %s", ErrUndecided, p.missing()))
		return
	}
	why := ErrNoMajority
	if p.lost != nil {
		why = ErrNotAll
	}
	p.done(fmt.Errorf("%w: %s", why, p.missing()))
}

// among is how many of nodes are in a set.
func among(set map[dynamo.NodeID]bool, nodes []dynamo.NodeID) int {
	n := 0
	for _, x := range nodes {
		if set[x] {
			n++
		}
	}
	return n
}

// missing says who took part and who did not.
func (p *Proposal) missing() string {
	var out []string
	for _, v := range p.voters {
		if !p.yes[v] {
			out = append(out, string(v))
		}
	}
	why := fmt.Sprintf("%d of %d members took part, %d are needed; without %s",
		len(p.yes), len(p.voters), p.need, strings.Join(out, ", "))
	if len(p.yes) >= p.need && p.state != accepting {
		why += fmt.Sprintf("; %d of the %d that stay are needed, or the cluster could never be changed again", p.stay, len(p.staying))
	}
	return why
}

func (p *Proposal) done(err error) {
	p.state = proposalDone
	p.emit(Done{err})
}

func (p *Proposal) emit(e ProposalEffect) { p.effects = append(p.effects, e) }

package messages

import (
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// Operations of a ClusterRequest.
const (
	// OperationStatus asks for the document and what is known of the nodes. Every
	// other operation is answered with the document that it has made, too.
	OperationStatus uint32 = iota
	// OperationStage stages the change.
	OperationStage
	// OperationClear drops what is staged.
	OperationClear
	// OperationCommit makes the staged changes, if the document still has the version.
	OperationCommit
	// OperationCreateBucket and OperationSetBucket create a bucket and change one.
	OperationCreateBucket
	// OperationSetBucket changes a bucket.
	OperationSetBucket
	// OperationJoin has a node that is in no cluster ask to be staged.
	OperationJoin
	// OperationForce removes members by force.
	OperationForce
	// OperationAcceptLoss accepts that the data of partitions is lost, if the document still has the
	// version.
	OperationAcceptLoss
)

// Kinds of a RegisterReply.
const (
	replyPromised uint32 = iota + 1
	replyAccepted
	replyRefused
	replyNewer
	replyBehind
	replyIneligible
	replyOpposed
)

// FromBallot converts a ballot.
func FromBallot(b member.Ballot) *Ballot {
	return &Ballot{Round: b.Round, Node: string(b.Node), Start: b.Start}
}

// ToBallot converts a ballot. Whether it may be voted on is for member.Voter to say.
func ToBallot(m *Ballot) (member.Ballot, error) {
	b := member.Ballot{Round: m.GetRound(), Node: dynamo.NodeID(m.GetNode()), Start: m.GetStart()}
	if len(b.Node) > dynamo.MaxNodeName {
		return member.Ballot{}, fmt.Errorf("%w: ballot of a node with a name of %d bytes", ErrBounds, len(b.Node))
	}
	return b, nil
}

func fromVote(v *member.Vote) *Vote {
	if v == nil {
		return nil
	}
	return &Vote{Ballot: FromBallot(v.Ballot), Document: FromDocument(v.Document)}
}

func toVote(m *Vote) (*member.Vote, error) {
	if m == nil {
		return nil, nil
	}
	b, err := ToBallot(m.GetBallot())
	if err != nil {
		return nil, err
	}
	d, err := ToDocument(m.GetDocument())
	if err != nil {
		return nil, err
	}
	return &member.Vote{Ballot: b, Document: d}, nil
}

// FromPrepare converts the first question of a ballot.
func FromPrepare(p member.Prepare) *RegisterRequest {
	return &RegisterRequest{
		ClusterId: p.Cluster[:], Version: p.Version, Ballot: FromBallot(p.Ballot), Base: p.Base, Lost: fromNames(p.Lost),
	}
}

// FromAccept converts the second question.
func FromAccept(a member.Accept) *RegisterRequest {
	d := a.Document
	return &RegisterRequest{ClusterId: d.ClusterID[:], Version: d.Version, Ballot: FromBallot(a.Ballot), Document: FromDocument(d)}
}

// ToRegister checks and converts a question: one of the results is not nil.
func ToRegister(m *RegisterRequest) (*member.Prepare, *member.Accept, error) {
	b, err := ToBallot(m.GetBallot())
	if err != nil {
		return nil, nil, err
	}
	if m.GetDocument() != nil {
		d, err := ToDocument(m.GetDocument())
		return nil, &member.Accept{Ballot: b, Document: d}, err
	}
	p := &member.Prepare{Version: m.GetVersion(), Ballot: b, Base: m.GetBase()}
	if p.Lost, err = ToNames(m.GetLost()); err != nil {
		return nil, nil, err
	}
	if !toID(p.Cluster[:], m.GetClusterId()) {
		return nil, nil, fmt.Errorf("%w: cluster id of %d bytes", ErrBounds, len(m.GetClusterId()))
	}
	return p, nil, nil
}

// FromReply converts a voter's answer.
func FromReply(r member.Reply) *RegisterReply {
	switch r := r.(type) {
	case member.Promised:
		return &RegisterReply{Kind: replyPromised, Ballot: FromBallot(r.Ballot), Vote: fromVote(r.Vote)}
	case member.Accepted:
		return &RegisterReply{Kind: replyAccepted, Ballot: FromBallot(r.Ballot)}
	case member.Refused:
		return &RegisterReply{Kind: replyRefused, Ballot: FromBallot(r.Ballot), Later: FromBallot(r.Later)}
	case member.Newer:
		return &RegisterReply{Kind: replyNewer, Document: FromDocument(r.Document)}
	case member.Behind:
		return &RegisterReply{Kind: replyBehind, Version: r.Version}
	case member.Ineligible:
		return &RegisterReply{Kind: replyIneligible}
	case member.Opposed:
		return &RegisterReply{Kind: replyOpposed, Why: r.Why}
	}
	panic(fmt.Sprintf("messages: reply %T", r)) // there are no others
}

// ToReply checks and converts a voter's answer.
func ToReply(m *RegisterReply) (member.Reply, error) {
	b, err := ToBallot(m.GetBallot())
	if err != nil {
		return nil, err
	}
	switch m.GetKind() {
	case replyPromised:
		v, err := toVote(m.GetVote())
		return member.Promised{Ballot: b, Vote: v}, err
	case replyAccepted:
		return member.Accepted{Ballot: b}, nil
	case replyRefused:
		later, err := ToBallot(m.GetLater())
		return member.Refused{Ballot: b, Later: later}, err
	case replyNewer:
		d, err := ToDocument(m.GetDocument())
		return member.Newer{Document: d}, err
	case replyBehind:
		return member.Behind{Version: m.GetVersion()}, nil
	case replyIneligible:
		return member.Ineligible{}, nil
	case replyOpposed:
		return member.Opposed{Why: m.GetWhy()}, nil
	}
	return nil, fmt.Errorf("%w: reply of kind %d", ErrBounds, m.GetKind())
}

// FromRegister converts what a voter must not forget, besides its document.
func FromRegister(v *member.Voter) *RegisterState {
	return &RegisterState{Version: v.Document.Version + 1, Promised: FromBallot(v.Promised), Vote: fromVote(v.Vote)}
}

// ToRegisterState puts what was kept into a voter whose document was read. What is
// about another version than its next one is over.
func ToRegisterState(m *RegisterState, v *member.Voter) error {
	if m.GetVersion() != v.Document.Version+1 {
		return nil
	}
	promised, err := ToBallot(m.GetPromised())
	if err != nil {
		return err
	}
	vote, err := toVote(m.GetVote())
	if err != nil {
		return err
	}
	v.Promised, v.Vote = promised, vote
	return nil
}

// FromRow converts what a node says of itself.
func FromRow(r member.Row) *NodeRow {
	out := &NodeRow{
		Node: string(r.Node), Start: r.Start, Counter: r.Counter, Address: r.Address, Store: r.Store[:],
		Known: r.Known, Target: r.Target, Idle: r.Idle, Bytes: r.Bytes,
	}
	for _, p := range r.Filled {
		out.Filled = append(out.Filled, uint32(p))
	}
	return out
}

// ToRow checks and converts what a node says of itself.
func ToRow(m *NodeRow) (member.Row, error) {
	r := member.Row{
		Node: dynamo.NodeID(m.GetNode()), Start: m.GetStart(), Counter: m.GetCounter(), Address: m.GetAddress(), Bytes: m.GetBytes(),
		Facts: member.Facts{Known: m.GetKnown(), Target: m.GetTarget(), Idle: m.GetIdle()},
	}
	if err := r.Node.Validate(); err != nil {
		return r, err
	}
	if !toID(r.Store[:], m.GetStore()) || len(r.Address) > member.MaxAddress || len(m.GetFilled()) > ring.MaxPartitions {
		return r, fmt.Errorf("%w: row of %s", ErrBounds, r.Node)
	}
	for i, p := range m.GetFilled() {
		if p >= ring.MaxPartitions || i > 0 && m.GetFilled()[i-1] >= p {
			return r, fmt.Errorf("%w: row of %s: partition %d", ErrBounds, r.Node, p)
		}
		r.Filled = append(r.Filled, dynamo.Partition(p))
	}
	return r, nil
}

package member

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
)

// The next version of the cluster document is decided by a majority of the
// members of the one before it (but see Document.Force): one instance of Paxos for each version, in which
// the voters of version v + 1 are fixed by version v. So versions form one
// sequence, whoever proposes them and however messages travel, also when a version
// changes the members.
//
// A Voter is a member's part in it, and what it has said must be durable before
// anybody hears it. A Proposal is the part of the node where a change was asked
// for.

var (
	// ErrForeign: the message is of another cluster, or of a document that cannot
	// follow the one in force.
	ErrForeign = errors.New("not a successor of the cluster document in force")
	// ErrBallot: the ballot's round is not in 1 to MaxRound.
	ErrBallot = errors.New("bad ballot")
)

// MaxRound is the highest round of a ballot: rounds grow by one, so that it is
// never reached but by forgery.
const MaxRound = 1 << 62

// Ballot orders the attempts to make one version; the zero ballot is none. No two
// attempts have the same: a node counts rounds up for as long as it runs, and Start,
// the number of its start, tells its lives apart.
type Ballot struct {
	Round uint64
	Node  dynamo.NodeID
	Start uint64
}

// Compare orders ballots by round, then by node and start.
func (b Ballot) Compare(o Ballot) int {
	return cmp.Or(cmp.Compare(b.Round, o.Round), cmp.Compare(b.Node, o.Node), cmp.Compare(b.Start, o.Start))
}

// String is round, node and start.
func (b Ballot) String() string { return fmt.Sprintf("%d/%s/%d", b.Round, b.Node, b.Start) }

// check refuses ballots that nobody can have made.
func (b Ballot) check() error {
	if b.Round < 1 || b.Round > MaxRound {
		return fmt.Errorf("%w: round %d, allowed are 1 to %d", ErrBallot, b.Round, uint64(MaxRound))
	}
	return b.Node.Validate()
}

// Vote is a document that a voter accepted in a ballot. It may be chosen.
type Vote struct {
	Ballot   Ballot
	Document Document
}

// Prepare asks a voter to take part in a ballot for a version, and in no earlier
// one any more.
type Prepare struct {
	Cluster ClusterID
	Version uint64
	Ballot  Ballot
	// Base is the version before, when this one is forced, else 0; Lost are those who
	// are given up.
	Base uint64
	Lost []dynamo.NodeID
}

// Accept asks a voter to accept the document in a ballot.
type Accept struct {
	Ballot   Ballot
	Document Document
}

// Reply is a voter's answer: Promised, Accepted, Refused, Newer, Behind, Ineligible
// or Opposed.
type Reply interface{ reply() }

type (
	// Promised: the voter takes part. Vote is what it accepted last, if anything.
	Promised struct {
		Ballot Ballot
		Vote   *Vote
	}
	// Accepted: the voter accepted the document.
	Accepted struct{ Ballot Ballot }
	// Refused: the voter takes part in a later ballot.
	Refused struct{ Ballot, Later Ballot }
	// Newer: the version exists already; this is the one in force.
	Newer struct{ Document Document }
	// Behind: the voter does not know the version before; it can vote once it has
	// learned it.
	Behind struct{ Version uint64 }
	// Ineligible: the document in force does not know this node's store. A store that
	// was lost has forgotten its promises, so the one that takes its place decides
	// nothing until the others have put it into the document.
	Ineligible struct{}
	// Opposed: the version must not be forced, for example because somebody who was
	// named as lost is there.
	Opposed struct{ Why string }
)

func (Promised) reply() {}
func (Accepted) reply() {}
func (Refused) reply()  {}
func (Newer) reply()    {}
func (Behind) reply()   {}

func (Ineligible) reply() {}
func (Opposed) reply()    {}

// Voter is one member's state: all of it must survive the process. It belongs to
// one goroutine.
type Voter struct {
	// Self and Store are the node's name and its store.
	Self  dynamo.NodeID
	Store StoreID
	// Document is the one in force.
	Document Document
	// Promised is the ballot that the voter takes part in, for the next version.
	Promised Ballot
	// Vote is what it accepted for the next version, nil if nothing.
	Vote *Vote
}

// Prepare answers the first question of a ballot. When changed is true the voter
// must be made durable before the answer is sent. Errors are ErrForeign and
// ErrBallot.
func (v *Voter) Prepare(m Prepare) (r Reply, changed bool, err error) {
	if m.Cluster != v.Document.ClusterID {
		return nil, false, fmt.Errorf("%w: of the cluster %v, not %v", ErrForeign, m.Cluster, v.Document.ClusterID)
	}
	if err := m.Ballot.check(); err != nil {
		return nil, false, err
	}
	if r := v.place(m.Version, m.Base); r != nil {
		return r, false, nil
	}
	if m.Ballot.Compare(v.Promised) < 0 {
		return Refused{Ballot: m.Ballot, Later: v.Promised}, false, nil
	}
	changed = m.Ballot != v.Promised
	v.Promised = m.Ballot
	return Promised{Ballot: m.Ballot, Vote: v.Vote}, changed, nil
}

// Accept answers the second question of a ballot. When changed is true the voter
// must be made durable before the answer is sent. Errors are ErrForeign, ErrBallot and
// those of Document.Validate.
func (v *Voter) Accept(m Accept) (r Reply, changed bool, err error) {
	if m.Document.ClusterID != v.Document.ClusterID {
		return nil, false, fmt.Errorf("%w: of the cluster %v, not %v", ErrForeign, m.Document.ClusterID, v.Document.ClusterID)
	}
	if err := m.Ballot.check(); err != nil {
		return nil, false, err
	}
	if r := v.place(m.Document.Version, m.Document.forcedAt()); r != nil {
		return r, false, nil
	}
	if err := m.Document.Validate(); err != nil {
		return nil, false, err
	}
	if m.Ballot.Compare(v.Promised) < 0 {
		return Refused{Ballot: m.Ballot, Later: v.Promised}, false, nil
	}
	v.Promised, v.Vote = m.Ballot, &Vote{Ballot: m.Ballot, Document: m.Document}
	return Accepted{Ballot: m.Ballot}, true, nil
}

// place answers questions about versions other than the next; base is the one before a
// version that is forced. Who has accepted a forced version may have forgotten another
// vote for it, and takes no part in decisions that are not forced.
func (v *Voter) place(version, base uint64) Reply {
	forced := base != 0 && v.Document.forces(version)
	switch now := v.Document.Version; {
	case version <= now, forced && base < now:
		return Newer{Document: v.Document}
	case forced && base > now, !forced && version > now+1:
		return Behind{Version: now}
	}
	if m, ok := v.Document.Member(v.Self); !ok || m.Out() || m.Store != v.Store || v.forced() && !forced {
		return Ineligible{}
	}
	return nil
}

// Learn takes a chosen document into force, and reports whether it is news: then
// the voter must be made durable before the document is used or passed on.
// Errors are ErrForeign, ErrForced and those of Document.Validate.
func (v *Voter) Learn(d Document) (changed bool, err error) {
	if d.ClusterID != v.Document.ClusterID {
		return false, fmt.Errorf("%w: of the cluster %v, not %v", ErrForeign, d.ClusterID, v.Document.ClusterID)
	}
	if d.Version <= v.Document.Version {
		return false, nil
	}
	if v.forced() && d.Version < v.Vote.Document.Version {
		return false, fmt.Errorf("%w: version %d is older", ErrForced, d.Version)
	}
	if err := d.Validate(); err != nil {
		return false, err
	}
	v.Document, v.Promised, v.Vote = d, Ballot{}, nil
	return true, nil
}

// Voters are the members that decide on the version after this one: all that are
// not gone, nor given up by force.
func (d Document) Voters() []dynamo.NodeID {
	var out []dynamo.NodeID
	for _, m := range d.Members {
		if !m.Out() {
			out = append(out, m.ID)
		}
	}
	return out
}

// Majority is how many of n voters decide.
func Majority(n int) int { return n/2 + 1 }

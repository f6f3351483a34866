package quorum

import (
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
)

// State is what a tally amounts to.
type State uint8

const (
	// Pending: more answers may still decide.
	Pending State = iota
	// Met: enough nodes answered.
	Met
	// Lost: the nodes that could still answer are too few.
	Lost
)

// String is the state's name.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Met:
		return "met"
	case Lost:
		return "lost"
	}
	return fmt.Sprintf("unknown(%d)", uint8(s))
}

// vote is what is known of one candidate.
type vote uint8

const (
	open      vote = iota // may still answer
	counted               // answered, and the answer counts
	abstained             // stands in for another and has nothing, which proves nothing
	failed                // will not answer
)

type candidate struct {
	node    dynamo.NodeID
	primary bool
	vote    vote
}

// Tally counts the answers to one request. Candidates are all nodes that may
// be asked, including those that are asked only when another one fails.
//
// Invariants: a node counts at most once, the first thing heard of it stands
// except that an abstention or a failure may turn into an answer, and Met and
// Lost exclude each other. Met is final; Lost is final as long as no failed
// node answers after all.
type Tally struct {
	needed, primaries int
	candidates        []candidate
}

// NewTally starts a tally that is met by needed nodes of which at least
// primaries are primaries. When primaries is larger, that many are needed.
func NewTally(needed, primaries int) Tally {
	return Tally{needed: max(needed, primaries), primaries: primaries}
}

// Add names a candidate and reports whether the node is new; a node that was
// added before stays as it was.
func (t *Tally) Add(node dynamo.NodeID, primary bool) bool {
	if t.find(node) != nil {
		return false
	}
	t.candidates = append(t.candidates, candidate{node: node, primary: primary})
	return true
}

// Answer counts node's answer and reports whether that changed the tally.
// Nodes that are no candidates and repeated answers change nothing.
func (t *Tally) Answer(node dynamo.NodeID) bool {
	c := t.find(node)
	if c == nil || c.vote == counted {
		return false
	}
	c.vote = counted
	return true
}

// Abstain records that a stand-in has nothing, which alone proves nothing: it
// counts in Lenient only. It reports whether that changed the tally.
func (t *Tally) Abstain(node dynamo.NodeID) bool { return t.close(node, abstained) }

// Fail records that no answer will come from node, and reports whether that
// changed the tally.
func (t *Tally) Fail(node dynamo.NodeID) bool { return t.close(node, failed) }

func (t *Tally) close(node dynamo.NodeID, v vote) bool {
	c := t.find(node)
	if c == nil || c.vote != open {
		return false
	}
	c.vote = v
	return true
}

func (t *Tally) find(node dynamo.NodeID) *candidate {
	for i := range t.candidates {
		if t.candidates[i].node == node {
			return &t.candidates[i]
		}
	}
	return nil
}

// count returns how many candidates have vote v, and how many of them are
// primaries.
func (t *Tally) count(v vote) (all, primaries int) {
	for i := range t.candidates {
		if c := &t.candidates[i]; c.vote == v {
			all++
			if c.primary {
				primaries++
			}
		}
	}
	return all, primaries
}

// State judges by the answers that count.
func (t *Tally) State() State {
	all, primaries := t.count(counted)
	return t.judge(all, primaries)
}

// Lenient judges as State does, but lets abstentions count towards the nodes
// needed; never towards the primaries needed.
func (t *Tally) Lenient() State {
	all, primaries := t.count(counted)
	more, _ := t.count(abstained)
	return t.judge(all+more, primaries)
}

func (t *Tally) judge(all, primaries int) State {
	openAll, openPrimaries := t.count(open)
	switch {
	case all >= t.needed && primaries >= t.primaries:
		return Met
	case all+openAll < t.needed || primaries+openPrimaries < t.primaries:
		return Lost
	}
	return Pending
}

// Answered is how many nodes answered in a way that counts.
func (t *Tally) Answered() int { n, _ := t.count(counted); return n }

// Abstained is how many nodes answered in a way that alone proves nothing.
func (t *Tally) Abstained() int { n, _ := t.count(abstained); return n }

// Primaries is how many of the counted nodes are primaries.
func (t *Tally) Primaries() int { _, n := t.count(counted); return n }

// Open is how many candidates may still answer, asked or not.
func (t *Tally) Open() int { n, _ := t.count(open); return n }

// OpenPrimaries is how many primaries may still answer.
func (t *Tally) OpenPrimaries() int { _, n := t.count(open); return n }

// Needed is how many nodes must answer.
func (t *Tally) Needed() int { return t.needed }

// NeededPrimaries is how many of them must be primaries.
func (t *Tally) NeededPrimaries() int { return t.primaries }

// String prints what came and what is needed, for the console.
func (t *Tally) String() string {
	s := fmt.Sprintf("%d of %d", t.Answered(), t.needed)
	if t.primaries > 0 {
		s += fmt.Sprintf(", primaries %d of %d", t.Primaries(), t.primaries)
	}
	return s + ", " + t.State().String()
}

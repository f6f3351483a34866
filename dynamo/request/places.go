package request

import (
	"errors"
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/version"
)

var (
	// ErrParams: the quorum numbers are impossible.
	ErrParams = errors.New("request: bad quorum")
	// ErrNotOnList: a put must be coordinated by one of the first N candidates.
	ErrNotOnList = errors.New("request: coordinator is not on the preference list")
	// ErrTwoTasks: a node that is on both lists of a put is to do one thing.
	ErrTwoTasks = errors.New("request: a node has different tasks on the two lists")
)

// stage is how far one candidate is.
type stage uint8

const (
	spare    stage = iota // not asked
	asked                 // asked, no word yet
	answered              // answered, and the answer counts
	hollow                // answered that it has nothing, which proves nothing
	failed                // failed
)

var stageNames = [...]string{"not asked", "asked", "answered", "answered with nothing", "failed"}

// place is what is known of one candidate.
type place struct {
	replica dynamo.Replica
	stage   stage
	reason  Reason
	// lists are those in which its answer counts.
	lists lists

	// Of a get: what the replica answered, whether all values were asked for,
	// and how far a Fetch is (spare, asked, answered or failed).
	record version.Record
	full   bool
	fetch  stage
	// Of a put: whether the answer means that the disk has it.
	sync bool
}

// places are the candidates of a request and the tally of their answers. A write
// to a partition that moves has a second list with a tally of its own.
type places struct {
	list  []place
	tally quorum.Tally
	// also is the tally of the second list; nil when there is none.
	also *quorum.Tally
	// once is how many are asked at once: they come first.
	once int
	// closed: nobody else is asked.
	closed bool
}

// newPlaces makes the places of candidates, of which the first n are to be asked
// at once.
func newPlaces(candidates []dynamo.Replica, n, needed, primaries int) places {
	p := places{list: make([]place, 0, len(candidates)), tally: quorum.NewTally(needed, primaries)}
	for _, c := range candidates {
		// A node that is named twice would still be one disk.
		if p.tally.Add(c.Node, c.Role == dynamo.Primary) {
			p.list = append(p.list, place{replica: c, lists: inFirst})
		}
	}
	p.once = min(n, len(p.list))
	return p
}

func (p *places) find(node dynamo.NodeID) *place {
	for i := range p.list {
		if p.list[i].replica.Node == node {
			return &p.list[i]
		}
	}
	return nil
}

// take returns the next spare, now asked, or nil when there is none: of those
// whose answer counts where that of instead would have. A fallback that has nobody
// to stand in for stands in for instead, or for whom instead stood in, and counts
// where that one does.
func (p *places) take(instead *place) *place {
	for i := range p.list {
		x := &p.list[i]
		if p.closed || x.stage != spare || instead != nil && x.lists&instead.lists == 0 {
			continue
		}
		x.stage = asked
		if instead != nil && x.replica.Role == dynamo.Fallback && x.replica.For == "" {
			x.replica.For = owner(instead.replica)
			p.narrow(x, instead.lists)
		}
		return x
	}
	return nil
}

// owner is the primary whose copy a replica keeps.
func owner(r dynamo.Replica) dynamo.NodeID {
	if r.Role == dynamo.Fallback {
		return r.For
	}
	return r.Node
}

// fail records that a place that was asked failed, and reports whether that is
// news.
func (p *places) fail(x *place, reason Reason) bool {
	if x == nil || x.stage != asked {
		return false
	}
	x.stage, x.reason = failed, reason
	p.count(x, (*quorum.Tally).Fail)
	return true
}

// giveUp takes all that have not answered for failed: the time is over.
func (p *places) giveUp() {
	p.closed = true
	for i := range p.list {
		x := &p.list[i]
		p.fail(x, TimedOut)
		if x.stage == spare {
			p.count(x, (*quorum.Tally).Fail)
		}
	}
}

// pending is how many places were asked and gave no word yet.
func (p *places) pending() int {
	n := 0
	for i := range p.list {
		if p.list[i].stage == asked {
			n++
		}
	}
	return n
}

// shortfall describes why the quorum was not met.
func (p *places) shortfall(attempted bool) Unavailable {
	list, tally, where := p.short()
	u := Unavailable{
		Answered: tally.Answered(), Needed: tally.Needed(),
		PrimariesAnswered: tally.Primaries(), PrimariesNeeded: tally.NeededPrimaries(),
		Where: where, Attempted: attempted,
	}
	for i := range p.list {
		x := &p.list[i]
		if owner := x.replica.For; owner != "" && x.lists&list != 0 && p.find(owner) == nil {
			u.Failures = append(u.Failures, Failure{owner, Unreachable}) // was so before the request began
		}
	}
	for i := range p.list {
		x := &p.list[i]
		if x.lists&list == 0 {
			continue
		}
		switch x.stage {
		case failed:
			u.Failures = append(u.Failures, Failure{x.replica.Node, x.reason})
		case hollow:
			u.Failures = append(u.Failures, Failure{x.replica.Node, NotAuthoritative})
		case answered:
			if x.fetch == failed {
				u.Failures = append(u.Failures, Failure{x.replica.Node, x.reason})
			}
		}
	}
	return u
}

// Description is what a machine shows in the console.
type Description struct {
	State State
	Key   dynamo.Key
	// Quorum says how many answered and how many are needed.
	Quorum string
	// Replicas has a line for each candidate, in order.
	Replicas []ReplicaDescription
}

// ReplicaDescription is one candidate of a request.
type ReplicaDescription struct {
	Replica dynamo.Replica
	// Stage says how far the replica is.
	Stage string
	// Reason is why it failed, else NoReason.
	Reason Reason
}

func (p *places) describe(state State, key dynamo.Key) Description {
	d := Description{State: state, Key: key, Quorum: p.tally.String()}
	if p.also != nil {
		d.Quorum += "; of the other list " + p.also.String()
	}
	for _, x := range p.list {
		stage := stageNames[x.stage]
		if x.fetch == asked {
			stage = "asked for values"
		}
		d.Replicas = append(d.Replicas, ReplicaDescription{x.replica, stage, x.reason})
	}
	return d
}

// checkParams wraps what is wrong with the numbers.
func checkParams(p quorum.Params) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrParams, err)
	}
	return nil
}

// silent lists the nodes that were asked and said nothing.
func (p *places) silent() []dynamo.NodeID {
	var out []dynamo.NodeID
	for i := range p.list {
		if x := &p.list[i]; x.stage == asked || x.stage == failed && x.reason == TimedOut {
			out = append(out, x.replica.Node)
		}
	}
	return out
}

package member

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// When so many members are lost for good that the others are no majority, no version
// can be decided any more. Then an operator names the lost, and all of the others
// together make the next version without them (ADR 0010). Its number is higher than
// any that the lost can have reached, so that they are overruled should they still
// live:
//
//	18 bits  how often the cluster was forced
//	14 bits  of the store id of the first member that is left: of two sides of a cut
//	         that both force, no member is on both, so that but for an accident of
//	         random ids, one in 16,384, one overrules the other
//	32 bits  the count of changes, as before
const (
	countBits = 32
	firstBits = 14
)

// MaxForced is how many of the last forced versions a document names.
const MaxForced = 64

var (
	// ErrMajority: those who are left can decide like always.
	ErrMajority = errors.New("the members that are not named are a majority")
	// ErrForced: a forced version is accepted here, and may be decided.
	ErrForced = errors.New("a forced version of the cluster document is being decided")
	// ErrOpposed: somebody knows better than the operator.
	ErrOpposed = errors.New("the cluster cannot be forced")
	// ErrNotAll: a forced version needs all who are not named.
	ErrNotAll = errors.New("not all members that are left answer; wait for them, or name them as lost, too. Nothing was changed")
)

// Forced says that a version was made without members that an operator gave up.
type Forced struct {
	// At is the version that it was made from, Version the one that was made.
	At, Version uint64
	// Lost are those who were named, ascending.
	Lost []dynamo.NodeID
}

func (f Forced) equal(o Forced) bool {
	return f.At == o.At && f.Version == o.Version && slices.Equal(f.Lost, o.Lost)
}

// Forces is how often the cluster was forced, up to the version.
func Forces(version uint64) uint64 { return version >> (countBits + firstBits) }

// Overrules reports whether one of the versions comes of a forced one that the other
// does not come of, and is the one that counts.
func Overrules(version, other uint64) bool { return version>>countBits > other>>countBits }

// forces reports whether the version is a forced one, if it is to follow this
// document.
func (d *Document) forces(version uint64) bool { return Overrules(version, d.Version) }

// forcedAt is the version that a document was made from which was forced; 0: none.
func (d *Document) forcedAt() uint64 {
	if n := len(d.Forced); n > 0 && d.Forced[n-1].Version == d.Version {
		return d.Forced[n-1].At
	}
	return 0
}

// Force gives up members without whom no majority is left. They are removed, decide on
// nothing any more, and their stores are refused. The version overrules the one that
// is given, too. When all were given up by force already the document is the same.
// Errors are ErrValue, ErrUnknownMember, ErrLastMember and ErrMajority.
func (d Document) Force(lost []dynamo.NodeID, above uint64) (Document, error) {
	if len(lost) == 0 {
		return d, fmt.Errorf("%w: name the members that are lost", ErrValue)
	}
	out, changed := d.successor(), false
	for _, id := range lost {
		i, ok := out.index(id)
		if !ok || out.Members[i].Status == Gone && !out.Members[i].Lost {
			return d, fmt.Errorf("%w: %s", ErrUnknownMember, id)
		}
		m := &out.Members[i]
		changed = changed || !m.Lost
		if m.Status != Gone {
			m.Status = Leaving
		}
		m.Removed, m.Lost = true, true
	}
	if !changed {
		return d, nil
	}
	left, all := out.Voters(), d.Voters()
	if len(out.Claimants()) == 0 {
		return d, fmt.Errorf("%w: nobody would hold its data", ErrLastMember)
	}
	if len(left) >= Majority(len(all)) {
		return d, fmt.Errorf("%w: %d of %d; remove without --force, or name all that are lost", ErrMajority, len(left), len(all))
	}
	first, _ := out.Member(left[0])
	count := (Forces(max(d.Version, above))+1)<<firstBits | uint64(binary.BigEndian.Uint16(first.Store[:])&(1<<firstBits-1))
	out.Version = count<<countBits | uint64(uint32(d.Version)+1)
	named := slices.Clone(lost)
	slices.Sort(named)
	out.Forced = append(slices.Clone(d.Forced), Forced{At: d.Version, Version: out.Version, Lost: slices.Compact(named)})
	out.Forced = out.Forced[max(0, len(out.Forced)-MaxForced):]
	out.Staged = slices.DeleteFunc(out.Staged, func(c Change) bool {
		return slices.Contains(lost, c.Node) || slices.Contains(lost, c.With)
	})
	if out.Next != nil {
		out.Movement.Queued = true
		out.waive()
		return out, out.Validate()
	}
	p, err := out.claim(nil)
	if err != nil {
		return d, err
	}
	return p.Document, p.Document.Validate()
}

// ProposeForced plans to make the successor of current, which is in force at this
// node, without the lost. All others must take part. The rest is as with Propose.
func ProposeForced(self dynamo.NodeID, life, after uint64, current Document, lost []dynamo.NodeID) (*Proposal, error) {
	next, err := current.Force(lost, 0)
	if err != nil {
		return nil, err
	}
	if next.Version == current.Version {
		return nil, fmt.Errorf("%w: they are given up already", ErrValue)
	}
	voters := next.Voters()
	return &Proposal{
		self: self, life: life, current: current, want: next, voters: voters, need: len(voters), lost: lost, highest: after,
	}, nil
}

// forcedVote looks at what voters have accepted by force before. It may be chosen, then
// all whom it needed say so: chosen. Otherwise it never will be, or somebody knows of it
// who is given up now: then what is wanted must overrule it.
func (p *Proposal) forcedVote() (chosen *Document, err error) {
	var highest uint64
	for _, v := range p.votes {
		if v == nil || !p.current.forces(v.Document.Version) {
			continue // what only the lost can have heard of is overruled
		}
		if !v.Document.Equal(p.want) {
			highest = max(highest, v.Document.Version)
		}
		all := !slices.ContainsFunc(v.Document.Voters(), func(n dynamo.NodeID) bool {
			o := p.votes[n]
			return o == nil || !o.Document.Equal(v.Document)
		})
		if all && (chosen == nil || chosen.Version < v.Document.Version) {
			chosen = &v.Document
		}
	}
	if chosen == nil && highest >= p.want.Version {
		p.want, err = p.current.Force(p.lost, highest)
	}
	return chosen, err
}

// Hear is Learn of a document that another node goes by. If a forced version that this
// voter has accepted needs that node, too, it will never be: the node has another
// version.
func (v *Voter) Hear(by dynamo.NodeID, d Document) (changed bool, err error) {
	kept := v.Vote
	if v.forced() && by != v.Self && slices.Contains(kept.Document.Voters(), by) {
		v.Vote = nil
	}
	if changed, err = v.Learn(d); !changed {
		v.Vote = kept
	}
	return changed, err
}

// forced reports whether the voter has accepted a forced version.
func (v *Voter) forced() bool { return v.Vote != nil && v.Document.forces(v.Vote.Document.Version) }

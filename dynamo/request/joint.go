package request

import (
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// lists are the lists of a request in which an answer counts. There are two when
// a write goes to a partition that moves.
type lists uint8

const (
	inFirst lists = 1 << iota
	inAlso
)

// join adds the second list of candidates, of which the first n are asked at once,
// too.
func (p *places) join(also []dynamo.Replica, n, needed, primaries int) error {
	tally := quorum.NewTally(needed, primaries)
	p.also = &tally
	for i, c := range also {
		if !tally.Add(c.Node, c.Role == dynamo.Primary) {
			continue
		}
		x := place{replica: c}
		at := slices.IndexFunc(p.list, func(y place) bool { return y.replica.Node == c.Node })
		if at >= 0 {
			x = p.list[at]
		}
		if x.replica != c {
			return fmt.Errorf("%w: %s", ErrTwoTasks, c.Node)
		}
		x.lists |= inAlso
		switch {
		case at >= 0 && (at < p.once || i >= n):
			p.list[at] = x
			continue
		case at >= 0:
			p.list = slices.Delete(p.list, at, at+1)
		case i >= n:
			p.list = append(p.list, x)
			continue
		}
		p.list = slices.Insert(p.list, p.once, x)
		p.once++
	}
	return nil
}

// count tells the tallies of the lists that a place counts in.
func (p *places) count(x *place, tell func(*quorum.Tally, dynamo.NodeID) bool) {
	if x.lists&inFirst != 0 {
		tell(&p.tally, x.replica.Node)
	}
	if x.lists&inAlso != 0 {
		tell(p.also, x.replica.Node)
	}
}

// narrow has a place count in some lists only. In the others nothing is to be
// expected of it.
func (p *places) narrow(x *place, to lists) {
	kept := x.lists & to
	x.lists &^= to
	p.count(x, (*quorum.Tally).Fail)
	x.lists = kept
}

// state is what the tallies amount to: a write needs its quorum in each list.
func (p *places) state() quorum.State {
	first := p.tally.State()
	if p.also == nil {
		return first
	}
	switch also := p.also.State(); {
	case first == also:
		return first
	case first == quorum.Lost || also == quorum.Lost:
		return quorum.Lost
	}
	return quorum.Pending
}

// short is the list whose quorum was not met, its tally and how to name it: the
// first list, unless only the other one is short.
func (p *places) short() (lists, *quorum.Tally, Where) {
	switch {
	case p.also == nil:
		return inFirst, &p.tally, Everywhere
	case p.tally.State() == quorum.Met, p.tally.State() == quorum.Pending && p.also.State() == quorum.Lost:
		return inAlso, p.also, Elsewhere
	}
	return inFirst, &p.tally, WhereRead
}

// answered is how many nodes answered in a way that counts.
func (p *places) answered() int {
	n := 0
	for i := range p.list {
		if p.list[i].stage == answered {
			n++
		}
	}
	return n
}

package exchange

import (
	"cmp"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
)

const (
	// DefaultInterval is how often two replicas are compared, at least.
	DefaultInterval = 10 * time.Minute
	// DefaultLimit is how many exchanges a node begins at once, at most.
	DefaultLimit = 2
	// soon is which part of the interval passes before a pair is compared again that
	// differed, or whose exchange failed for the first time.
	soon = 10
	// hurriedTries is how often an exchange is begun that Hurry asked for, hurriedPause
	// the time between.
	hurriedTries, hurriedPause = 5, time.Second
	// Never is the interval of a schedule that names only what Hurry told it to.
	Never time.Duration = -1
)

// Pair is two replicas of a partition and one n: this node's and the peer's.
type Pair struct {
	Partition dynamo.Partition
	N         int
	Peer      dynamo.NodeID
}

// Begins says which of the two nodes begins the exchanges of a partition, so that
// one does, and each of them in half of the partitions.
func Begins(p dynamo.Partition, self, peer dynamo.NodeID) bool {
	return (self < peer) == (p%2 == 0)
}

// turn is what is known of a pair.
type turn struct {
	due      dynamo.Timestamp
	running  bool
	differed bool
	// tries is how often it is still begun before all others, until an exchange is
	// complete; again: one runs that was begun before Hurry.
	tries    int
	again    bool
	failures int
	// gone: the pair is kept only for its running exchange.
	gone bool
	// equal is when the two were last found to hold the same; 0 never.
	equal dynamo.Timestamp
}

// Schedule says which exchange a node begins next: those that differed last time
// first, then those that have waited longest; every pair once per interval, if the
// limit allows. What fails is tried again at doubling distances up to the interval.
// It belongs to one goroutine.
type Schedule struct {
	interval time.Duration
	limit    int
	pairs    map[Pair]*turn
	running  int
}

// NewSchedule makes a schedule without pairs. An interval or a limit of 0 takes the
// default.
func NewSchedule(interval time.Duration, limit int) *Schedule {
	return &Schedule{interval: cmp.Or(interval, DefaultInterval), limit: cmp.Or(limit, DefaultLimit), pairs: map[Pair]*turn{}}
}

// Set says which pairs there are. New ones are due at once. An exchange of a pair that
// is no more counts as running until Done.
func (s *Schedule) Set(now dynamo.Timestamp, pairs []Pair) {
	old := s.pairs
	s.pairs = make(map[Pair]*turn, len(pairs))
	for _, p := range pairs {
		if s.pairs[p] = old[p]; old[p] == nil {
			s.pairs[p] = &turn{due: now}
		}
		s.pairs[p].gone = false
	}
	for p, x := range old {
		if x.running && s.pairs[p] == nil {
			s.pairs[p], x.gone = x, true
		}
	}
}

// Next names the exchanges to begin now.
func (s *Schedule) Next(now dynamo.Timestamp) []Pair {
	var due []Pair
	for p, x := range s.pairs {
		if !x.running && x.due <= now && (x.tries > 0 || s.interval > 0) {
			due = append(due, p)
		}
	}
	slices.SortFunc(due, func(a, b Pair) int { return s.compare(now, a, b) })
	due = due[:min(len(due), max(0, s.limit-s.running))]
	for _, p := range due {
		s.pairs[p].running = true
		s.running++
	}
	return due
}

// Hurry makes an exchange of a pair due before all others, that begins from now on. If
// it fails it is tried again soon, a few times.
func (s *Schedule) Hurry(now dynamo.Timestamp, p Pair) {
	if x := s.pairs[p]; x != nil {
		x.tries, x.again, x.due = hurriedTries, x.running, now
	}
}

// Hurried reports whether an exchange that Hurry asked for is still to be made, or made
// again.
func (s *Schedule) Hurried(p Pair) bool {
	x := s.pairs[p]
	return x != nil && x.tries > 0
}

// compare puts first what was hurried, then what is late by an interval, so that pairs which always differ
// keep nobody else from being compared; then what differed; then what has waited
// longest.
func (s *Schedule) compare(now dynamo.Timestamp, a, b Pair) int {
	rank := func(p Pair) int {
		switch x := s.pairs[p]; {
		case x.tries > 0:
			return -1
		case now.Sub(x.due) >= s.interval:
			return 0
		case x.differed:
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(s.pairs[a].due, s.pairs[b].due),
		cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.N, b.N), cmp.Compare(a.Peer, b.Peer))
}

// Done takes the outcome of an exchange that Next named.
func (s *Schedule) Done(now dynamo.Timestamp, p Pair, o Outcome) {
	x := s.pairs[p]
	if x == nil || !x.running {
		return
	}
	x.running = false
	s.running--
	if x.gone {
		delete(s.pairs, p)
		return
	}
	wait := s.interval
	switch {
	case !o.Complete:
		x.failures++
		wait = min(wait, s.interval/soon<<min(x.failures-1, soon))
	case o.Equal:
		x.failures, x.differed, x.equal = 0, false, now
	default:
		x.failures, x.differed = 0, true
		wait /= soon
	}
	x.due = now.Add(wait)
	x.hurry(now, o.Complete)
}

// hurry goes on with what Hurry asked for.
func (x *turn) hurry(now dynamo.Timestamp, complete bool) {
	switch {
	case x.again:
		x.again, x.due = false, now
	case complete:
		x.tries = 0
	case x.tries > 0:
		if x.tries--; x.tries > 0 {
			x.due = now.Add(hurriedPause)
		}
	}
}

// Wake is when Next may name something; false if only Done or Set can change that.
func (s *Schedule) Wake() (at dynamo.Timestamp, ok bool) {
	if s.running >= s.limit {
		return 0, false
	}
	for _, x := range s.pairs {
		if !x.running && (x.tries > 0 || s.interval > 0) && (!ok || x.due < at) {
			at, ok = x.due, true
		}
	}
	return at, ok
}

// Equal is when a pair was last found to hold the same; false if never since it is
// known.
func (s *Schedule) Equal(p Pair) (at dynamo.Timestamp, ok bool) {
	x := s.pairs[p]
	if x == nil || x.equal == 0 {
		return 0, false
	}
	return x.equal, true
}

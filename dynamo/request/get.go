package request

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/version"
)

// GetConfig is the plan of one get.
type GetConfig struct {
	Key       dynamo.Key
	Partition dynamo.Partition
	// Params are the bucket's numbers with the request's own; N, R and PR count.
	Params quorum.Params
	// Candidates are where to read, best first, on distinct nodes: the first N
	// are asked at once, each further one when one of them fails
	// (ring.Candidates).
	Candidates []dynamo.Replica
	// Filling are the primaries that are still being filled, as far as the
	// coordinator knows; their "nothing found" proves nothing.
	Filling []dynamo.NodeID
	// Near is the node to ask for all values, usually the local one; when it is
	// not among the first N, the first candidate is.
	Near dynamo.NodeID
	// DigestAbove: the others leave out values longer than so many bytes; 0
	// leaves none out.
	DigestAbove int
}

// Get coordinates one read. It is made by NewGet, and belongs to one goroutine.
type Get struct {
	cfg    GetConfig
	state  State
	places places
	// merged is all that was answered, reconciled.
	merged version.Record
	// over: the request's time has passed; nothing more is asked before the
	// reply.
	over    bool
	effects []Effect
}

// NewGet plans a read. It fails with ErrParams on impossible numbers.
func NewGet(cfg GetConfig) (*Get, error) {
	if err := checkParams(cfg.Params); err != nil {
		return nil, err
	}
	return &Get{cfg: cfg, places: newPlaces(cfg.Candidates, cfg.Params.N, cfg.Params.R, cfg.Params.PR)}, nil
}

// State says what the read awaits.
func (g *Get) State() State { return g.state }

// Describe is the read's state for the console.
func (g *Get) Describe() Description { return g.places.describe(g.state, g.cfg.Key) }

// Answered is how many replicas' answers count so far.
func (g *Get) Answered() int { return g.places.tally.Answered() }

// Silent lists the nodes that were asked and have said nothing so far.
func (g *Get) Silent() []dynamo.NodeID { return g.places.silent() }

// Start begins the read (§ 5, step 1): it asks the first N candidates. The
// effects are valid until the next call of Step.
func (g *Get) Start() []Effect {
	if g.state != Ready {
		return nil
	}
	g.state = AwaitingQuorum
	if g.places.tally.State() == quorum.Lost {
		return g.fail() // there are too few candidates to begin with
	}
	whole := g.wholeFrom()
	for i := range g.places.once {
		x := g.places.take(nil)
		x.full = i == whole
		g.ask(x)
	}
	g.emit(Arm{AwaitingQuorum, UntilRequestEnds})
	return g.effects
}

// wholeFrom is the index of the candidate that is asked for all values.
func (g *Get) wholeFrom() int {
	return max(0, slices.IndexFunc(g.places.list[:g.places.once], func(x place) bool { return x.replica.Node == g.cfg.Near }))
}

// Step advances the read by one event and returns what to do, in order. now is
// the coordinator's clock: what has expired by then is not returned. The
// effects are valid until the next call of Step.
func (g *Get) Step(now dynamo.Timestamp, e Event) []Effect {
	clear(g.effects)
	g.effects = g.effects[:0]
	switch g.state {
	case AwaitingQuorum:
		return g.awaitQuorum(now, e)
	case AwaitingValues:
		return g.awaitValues(now, e)
	case AwaitingStragglers:
		return g.awaitStragglers(e)
	}
	return nil // Done: late answers change nothing
}

// awaitQuorum is § 5, step 2: wait for enough answers, and ask the next
// candidate when one fails.
func (g *Get) awaitQuorum(now dynamo.Timestamp, e Event) []Effect {
	switch e := e.(type) {
	case Answer:
		if !g.accept(e) {
			return nil
		}
	case Fail:
		x := g.places.find(e.From)
		if e.Fetched || !g.places.fail(x, e.Reason) {
			return nil
		}
		if e.Reason == Stale {
			return g.outdated(e.From)
		}
		g.replace(x)
	case Deadline:
		if e.For != AwaitingQuorum {
			return nil
		}
		g.over = true
		g.places.giveUp()
	default:
		return nil
	}
	return g.decide(now)
}

// awaitValues waits for values that were left out of the answers, or for an
// answer that makes them unnecessary.
func (g *Get) awaitValues(now dynamo.Timestamp, e Event) []Effect {
	switch e := e.(type) {
	case Answer:
		if e.Fetched && !g.acceptFetched(e) || !e.Fetched && !g.accept(e) {
			return nil
		}
	case Fail:
		x := g.places.find(e.From)
		if e.Fetched && !failFetch(x, e.Reason) || !e.Fetched && !g.places.fail(x, e.Reason) {
			return nil
		}
		if e.Reason == Stale {
			return g.outdated(e.From)
		}
	case Deadline:
		if e.For != AwaitingValues {
			return nil
		}
		g.over = true
		g.places.giveUp()
		for i := range g.places.list {
			failFetch(&g.places.list[i], TimedOut)
		}
	default:
		return nil
	}
	return g.decide(now)
}

// awaitStragglers is § 5, step 5: wait for late answers, then repair.
func (g *Get) awaitStragglers(e Event) []Effect {
	switch e := e.(type) {
	case Answer:
		if e.Fetched && !g.acceptFetched(e) || !e.Fetched && !g.accept(e) {
			return nil
		}
	case Fail:
		x := g.places.find(e.From)
		if e.Fetched && !failFetch(x, e.Reason) || !e.Fetched && !g.places.fail(x, e.Reason) {
			return nil
		}
	case Deadline:
		if e.For != AwaitingStragglers {
			return nil
		}
		return g.repair()
	default:
		return nil
	}
	return g.linger()
}

// accept takes one replica's answer into account, and reports whether it is
// news: the first answer of a node that was asked, even if it comes after the
// node was given up.
//
// An answer counts when it comes from a primary that lacks nothing, or when it is
// a fallback's and carries a record. That a fallback has nothing proves nothing. A
// primary that is being filled, or whose copy is damaged, may have lost what it
// once confirmed: its record is taken, for it may be the newest, but stands for an
// answer no more than one that failed. Two such records could else outvote the write
// that both have lost.
func (g *Get) accept(a Answer) bool {
	x := g.places.find(a.From)
	if a.Fetched || x == nil || x.stage != asked && x.stage != failed {
		return false
	}
	has, primary := a.Found && !a.Record.IsZero(), x.replica.Role == dynamo.Primary
	if has {
		x.record = a.Record
		g.merged = version.Merge(g.merged, a.Record)
	}
	lacks := !a.Authoritative || slices.Contains(g.cfg.Filling, a.From)
	switch {
	case primary && lacks:
		x.stage = hollow
		g.places.tally.Fail(a.From)
	case !primary && !has:
		x.stage = hollow
		g.places.tally.Abstain(a.From)
	default:
		x.stage, x.reason = answered, NoReason
		g.places.tally.Answer(a.From)
	}
	return true
}

// acceptFetched takes the answer to a Fetch into account, and reports whether
// one was awaited. A replica that meanwhile has nothing keeps counting with
// what it answered first.
func (g *Get) acceptFetched(a Answer) bool {
	x := g.places.find(a.From)
	if x == nil || x.fetch != asked {
		return false
	}
	x.fetch = answered
	if a.Found {
		x.record = version.Merge(x.record, a.Record)
		g.merged = version.Merge(g.merged, a.Record)
	}
	return true
}

// failFetch records that a Fetch failed and reports whether one was awaited.
func failFetch(x *place, reason Reason) bool {
	if x == nil || x.fetch != asked {
		return false
	}
	x.fetch, x.reason = failed, reason
	return true
}

// decide is § 5, steps 3 and 4: reply if the answers suffice, fail if they no
// longer can, and ask more nodes if those that were asked cannot suffice.
func (g *Get) decide(now dynamo.Timestamp) []Effect {
	live := g.merged.Live(now)
	switch {
	case g.met(len(live) > 0):
		if missing := omitted(live); len(missing) > 0 {
			return g.complete(missing)
		}
		if len(live) > 0 {
			return g.reply(Found{g.merged})
		}
		return g.reply(NotFound{g.merged})
	case g.places.tally.Lenient() == quorum.Lost || g.places.tally.Open() == 0:
		return g.fail()
	}
	g.enter(AwaitingQuorum)
	// A node that has nothing and proves nothing leaves a gap like one that
	// failed: a record may lie with the next one.
	for g.places.tally.Answered()+g.places.pending() < g.places.tally.Needed() {
		x := g.places.take(nil)
		if x == nil {
			break
		}
		g.ask(x)
	}
	return g.effects
}

// met reports whether the answers are enough. That something was found may be
// said on the word of fallbacks that have nothing once no primary is awaited any
// more; that nothing is there, never.
func (g *Get) met(found bool) bool {
	tally := &g.places.tally
	if found && tally.OpenPrimaries() == 0 {
		return tally.Lenient() == quorum.Met
	}
	return tally.State() == quorum.Met
}

// omitted lists the dots of versions whose values were left out.
func omitted(versions []version.Version) []clock.Dot {
	var dots []clock.Dot
	for _, v := range versions {
		if v.Omitted {
			dots = append(dots, v.Dot)
		}
	}
	return dots
}

// complete asks for the values of dots from replicas that have them, and fails
// when there is nobody left who could bring one of them, or no time.
func (g *Get) complete(dots []clock.Dot) []Effect {
	if g.over {
		return g.fail()
	}
	for _, d := range dots {
		if !g.fetch(d) && g.places.pending() == 0 {
			return g.fail()
		}
	}
	g.enter(AwaitingValues)
	return g.effects
}

// fetch has one replica that holds the dot under way, and reports whether there
// is one.
func (g *Get) fetch(d clock.Dot) bool {
	var best *place
	for i := range g.places.list {
		x := &g.places.list[i]
		holds := (x.stage == answered || x.stage == hollow) && slices.ContainsFunc(x.record.Versions, func(v version.Version) bool { return v.Dot == d })
		switch {
		case !holds:
		case x.fetch == asked:
			return true
		case x.fetch == spare && best == nil:
			best = x
		}
	}
	if best == nil {
		return false
	}
	best.fetch = asked
	g.emit(Fetch{best.replica})
	return true
}

// linger waits for stragglers if any are left, and ends the read if not. Values
// that a repair will need are fetched meanwhile.
func (g *Get) linger() []Effect {
	waiting := g.places.pending() > 0
	if len(g.stale()) > 0 {
		for _, d := range g.merged.Missing() {
			g.fetch(d)
		}
	}
	for i := range g.places.list {
		waiting = waiting || g.places.list[i].fetch == asked
	}
	if waiting {
		return g.effects
	}
	return g.repair()
}

// stale lists the primaries whose answer lacks something that others have seen.
// Fallbacks are left alone: what they keep is on its way elsewhere. A primary
// that lost its copy is given one only when the answers are enough, or when no
// primary is left that could know more: with less in its hands it would pass for
// one that knows all, and a write that it once confirmed would be overlooked.
func (g *Get) stale() []*place {
	whole := g.places.tally.State() == quorum.Met || g.allSpoke()
	var list []*place
	for i := range g.places.list {
		x := &g.places.list[i]
		ready := x.stage == answered || x.stage == hollow && whole
		if x.replica.Role == dynamo.Primary && ready && !x.record.SameCausal(g.merged) {
			list = append(list, x)
		}
	}
	return list
}

// allSpoke reports whether every primary has answered, be it with nothing.
func (g *Get) allSpoke() bool {
	return !slices.ContainsFunc(g.places.list, func(x place) bool {
		return x.replica.Role == dynamo.Primary && x.stage != answered && x.stage != hollow
	})
}

// repair is the last step: it sends stale primaries the merged record, unless
// a value of it could not be had, for half a record must never be stored.
func (g *Get) repair() []Effect {
	if len(g.merged.Missing()) == 0 {
		for _, x := range g.stale() {
			cause := OutOfDate
			if x.record.IsZero() {
				cause = NothingFound
			}
			g.emit(Repair{x.replica, g.merged, cause})
		}
	}
	return g.stop()
}

// replace asks the next candidate in the place of one that failed.
func (g *Get) replace(x *place) {
	if y := g.places.take(x); y != nil {
		y.full = x.full
		g.ask(y)
	}
}

func (g *Get) ask(x *place) {
	above := g.cfg.DigestAbove
	if x.full {
		above = 0
	}
	g.emit(Ask{x.replica, above})
}

// enter changes to a state before the reply and arms its deadline.
func (g *Get) enter(s State) {
	if g.state != s {
		g.state = s
		g.emit(Arm{s, UntilRequestEnds})
	}
}

// reply answers the client and begins to linger.
func (g *Get) reply(r Result) []Effect {
	g.emit(Reply{r})
	g.state = AwaitingStragglers
	if g.linger(); g.state == AwaitingStragglers {
		g.emit(Arm{AwaitingStragglers, Linger})
	}
	return g.effects
}

// fail is § 5, step 3: too few answered. Stragglers are awaited all the same,
// and what came is good for repairs: else a key that only a repair could make
// readable would stay unreadable.
func (g *Get) fail() []Effect {
	for i := range g.places.list {
		if x := &g.places.list[i]; x.fetch == answered && len(x.record.Missing()) > 0 {
			x.fetch, x.reason = failed, ValuesMissing
		}
	}
	return g.reply(g.places.shortfall(false))
}

func (g *Get) outdated(node dynamo.NodeID) []Effect {
	g.emit(Reply{Outdated{Node: node}})
	return g.stop()
}

func (g *Get) stop() []Effect {
	g.state = Done
	g.emit(Stop{})
	return g.effects
}

func (g *Get) emit(e Effect) { g.effects = append(g.effects, e) }

// Package reap decides when tombstones may be forgotten. The paper leaves it open; a
// store that guesses, by age, brings deleted data back (HAZARDS H3, H14, H15).
//
// A tombstone holds back the versions that its clock covers. It may go once none of
// them is left anywhere: in no store, and in no message that may still arrive. A
// record comes from a store and travels for at most MessageLife after it was read
// there; whoever receives an older one refuses it. So a Reap of some keys of one
// partition and one n asks twice:
//
//  1. Every primary says which of the records it holds exactly as they are here, by
//     their causal hash. Every member, primaries included, says that it keeps no hint
//     for the partition, no copy where it is no replica, and moves nothing.
//  2. MessageLife after the last of these answers it asks again. A record whose hash is
//     the same was the same all the time, for records only grow. A member whose Mark
//     is the same has kept nothing meanwhile.
//
// What was read before the first answers has now expired, and nothing that was read
// since is older than the tombstone. A hint that came in between and was handed over
// before the second question might still be under way: that is what Mark is for. So
// the covered versions are gone for good, and from now on it does not matter when, or
// whether, a primary drops its tombstone, as long as it drops exactly that record.
// Where one does not, an exchange brings the tombstone back to the others, and a later
// Reap begins again. A key that was written meanwhile has another hash and stays.
//
// With a record goes what it remembers of the requests that were carried out. That is
// safe because nothing was: all requests that it knows of had begun before the first
// question, and a retry that is older than vnode.Remember is refused by its age alone.
//
// All of it holds for one version of the cluster document that neither moves the
// partition nor fills a replica of it. A member that cannot be reached, or knows
// another version, puts the reaping off. What keeps copies apart from all this, such
// as a backup that is restored, must not be let in unasked; see member.StoreID.
package reap

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
)

const (
	// MessageLife is how old a record in a message may be, counted from the read of the
	// store that it came from. Receivers refuse older ones.
	MessageLife = 10 * time.Minute
	// Pause is between the last answer of the first round and the second one: clocks
	// of different machines run at slightly different speeds.
	Pause = MessageLife + MessageLife/10
	// Skew is how far the clocks of nodes may be apart without a value seeming expired
	// to one node and not yet to another when it is reaped.
	Skew = time.Minute
	// MaxKeys is how many keys one Reap is about, at most.
	MaxKeys = 512
)

// PauseOf is the pause for another life of messages.
func PauseOf(life time.Duration) time.Duration { return life + life/10 }

// Due is the instant from which on nobody sees anything in a record any more, for those to
// whom it was Skew ago: when its last value expires; and at least its newest time, less Skew,
// for one of the future, of a clock that was ahead, stays: where the last write wins, the next
// one must know its time to be later. False: something in it is seen until somebody writes.
func Due(r version.Record) (at dynamo.Timestamp, ok bool) {
	at = max(0, r.Newest().Add(-Skew))
	for _, v := range r.Versions {
		if v.Tombstone {
			continue
		}
		if v.Expires == 0 {
			return 0, false
		}
		at = max(at, v.Expires)
	}
	return at, len(r.Versions) > 0
}

// Reapable reports whether nobody sees anything in a record any more, by any clock that
// is off by no more than Skew.
func Reapable(r version.Record, now dynamo.Timestamp) bool {
	at, ok := Due(r)
	return ok && at <= now.Add(-Skew)
}

// State is what a reaping awaits.
type State uint8

const (
	// Ready: Start was not called yet.
	Ready State = iota
	// Asking: all are asked for the first time.
	Asking
	// Waiting: what was read before must expire.
	Waiting
	// Confirming: all are asked again.
	Confirming
	// Dropping: the primaries drop.
	Dropping
	// Done: nothing is awaited; every event is ignored.
	Done
)

var stateNames = [...]string{"ready", "asking", "waiting", "confirming", "dropping", "done"}

// String is the state's word in the console.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("unknown(%d)", uint8(s))
}

// Plan is what is to be reaped, by one version of the cluster document, in which the
// partition is settled: not moved, and no replica of it filled.
type Plan struct {
	// Version is the document's.
	Version uint64
	// Primaries are the first n replicas of the partition, Members all that are not
	// gone.
	Primaries, Members []dynamo.NodeID
	// Keys is how many keys it is about. The machine names them by their place.
	Keys int
	// Life is how old a record in a message may be: the same on all nodes, for one that
	// takes older ones could still be sent what the tombstones cover.
	Life time.Duration
}

// Answer is what a node says of the partition.
type Answer struct {
	// Version of the document that is in force there.
	Version uint64
	// Clear: it has no hint for the partition and no copy of it as no replica, and
	// neither sends nor fills any part of it.
	Clear bool
	// Mark changes whenever it keeps or drops such a hint or copy, and when the process
	// starts.
	Mark [2]uint64
	// Life is how old a record in a message may be there.
	Life time.Duration
	// Incarnation of its vnode, if it is a primary.
	Incarnation clock.Incarnation
	// Held are the keys asked for of which it holds exactly that record, ascending; if
	// it is a primary.
	Held []int
}

// Event is what happened: Answered, Failed, Waited, Dropped, Broken.
type Event interface{ event() }

type (
	// Answered is a node's answer to the round.
	Answered struct {
		Round  uint64
		Node   dynamo.NodeID
		Answer Answer
	}
	// Failed: there was no answer to the round, or to the drop.
	Failed struct {
		Round  uint64
		Node   dynamo.NodeID
		Reason string
	}
	// Waited: the Pause is over.
	Waited struct{ Round uint64 }
	// Dropped: a primary has dropped so many records, durably.
	Dropped struct {
		Round uint64
		Node  dynamo.NodeID
		Count int
	}
	// Broken: the document changed, or the time is over.
	Broken struct{ Reason string }
)

func (Answered) event() {}
func (Failed) event()   {}
func (Waited) event()   {}
func (Dropped) event()  {}
func (Broken) event()   {}

// Effect is what to do: Ask, Wait, Drop, Finish.
type Effect interface{ effect() }

type (
	// Ask asks a node for an Answer; a primary also for the keys.
	Ask struct {
		Round uint64
		Node  dynamo.NodeID
		Keys  []int
	}
	// Wait lets Pause pass.
	Wait struct{ Round uint64 }
	// Drop tells a primary to drop the records of these keys, each only if it still has
	// the hash that was asked for.
	Drop struct {
		Round uint64
		Node  dynamo.NodeID
		Keys  []int
	}
	// Finish ends the reaping.
	Finish struct{ Outcome Outcome }
)

func (Ask) effect()    {}
func (Wait) effect()   {}
func (Drop) effect()   {}
func (Finish) effect() {}

// Outcome is how a reaping ended.
type Outcome struct {
	// Complete: all primaries were told to drop, and said that they did.
	Complete bool
	// Keys is how many keys all of them held in both rounds; Dropped how many records
	// are dropped on all of them together.
	Keys, Dropped int
	// Reason says why it is not complete.
	Reason string
}

// Reap is one reaping, on the node that decides. It belongs to one goroutine. Nothing
// is lost with it: another one begins from the start.
type Reap struct {
	plan    Plan
	state   State
	round   uint64
	keys    []int
	first   map[dynamo.NodeID]Answer
	answers map[dynamo.NodeID]Answer
	waiting map[dynamo.NodeID]bool // primaries that have not dropped yet
	outcome Outcome
	out     []Effect
}

// New plans a reaping, whose rounds are numbered from number + 1 on, so that late
// answers to an earlier one are not taken for answers to this one.
func New(p Plan, number uint64) *Reap { return &Reap{plan: p, round: number} }

// State says what is awaited.
func (r *Reap) State() State { return r.state }

// Round is the number that is used last.
func (r *Reap) Round() uint64 { return r.round }

// Start begins. The effects are valid until the next call of Step.
func (r *Reap) Start() []Effect {
	r.reset()
	if r.state != Ready {
		return nil
	}
	if r.plan.Keys < 1 || r.plan.Keys > MaxKeys || len(r.plan.Primaries) == 0 {
		return r.finish(fmt.Sprintf("%d keys on %d primaries", r.plan.Keys, len(r.plan.Primaries)))
	}
	for i := range r.plan.Keys {
		r.keys = append(r.keys, i)
	}
	return r.ask(Asking)
}

// Step takes one event and returns what to do; the slice is valid until the next
// call.
func (r *Reap) Step(e Event) []Effect {
	r.reset()
	if r.state == Done || r.state == Ready {
		return nil
	}
	switch e := e.(type) {
	case Broken:
		return r.finish(e.Reason)
	case Failed:
		if e.Round == r.round && (r.state == Dropping || r.asking()) {
			return r.finish(fmt.Sprintf("%s: %s", e.Node, e.Reason))
		}
	case Answered:
		if e.Round == r.round && r.asking() {
			return r.answered(e.Node, e.Answer)
		}
	case Waited:
		if e.Round == r.round && r.state == Waiting {
			return r.ask(Confirming)
		}
	case Dropped:
		if e.Round == r.round && r.state == Dropping && r.waiting[e.Node] {
			return r.dropped(e)
		}
	}
	return nil
}

func (r *Reap) reset() {
	clear(r.out)
	r.out = r.out[:0]
}

func (r *Reap) asking() bool { return r.state == Asking || r.state == Confirming }

// asked are all members and primaries, each once.
func (r *Reap) asked() []dynamo.NodeID {
	all := slices.Concat(r.plan.Members, r.plan.Primaries)
	slices.Sort(all)
	return slices.Compact(all)
}

func (r *Reap) ask(s State) []Effect {
	r.state, r.first, r.answers = s, r.answers, map[dynamo.NodeID]Answer{}
	r.round++
	for _, node := range r.asked() {
		a := Ask{Round: r.round, Node: node}
		if slices.Contains(r.plan.Primaries, node) {
			a.Keys = r.keys
		}
		r.emit(a)
	}
	return r.out
}

// answered takes the first answer of each node, and goes on when all have answered.
func (r *Reap) answered(node dynamo.NodeID, a Answer) []Effect {
	if _, again := r.answers[node]; again || !slices.Contains(r.asked(), node) {
		return nil
	}
	if why := r.objection(node, a); why != "" {
		return r.finish(fmt.Sprintf("%s: %s", node, why))
	}
	r.answers[node] = a
	if slices.Contains(r.plan.Primaries, node) {
		// Keys of an Ask that is under way must not change.
		r.keys = slices.DeleteFunc(slices.Clone(r.keys), func(k int) bool { return !slices.Contains(a.Held, k) })
	}
	switch {
	case len(r.keys) == 0:
		return r.finish("not all primaries hold the records")
	case len(r.answers) < len(r.asked()):
		return nil
	case r.state == Asking:
		r.state = Waiting
		return r.emit(Wait{r.round})
	}
	return r.drop()
}

// objection says what keeps an answer from being a proof.
func (r *Reap) objection(node dynamo.NodeID, a Answer) string {
	first := r.first[node]
	switch {
	case a.Version != r.plan.Version:
		return fmt.Sprintf("knows version %d of the cluster document, not %d", a.Version, r.plan.Version)
	case a.Life != r.plan.Life:
		return fmt.Sprintf("takes messages that are up to %v old, not %v", a.Life, r.plan.Life)
	case !a.Clear:
		return "has copies of the partition apart, or moves it"
	case r.state == Asking:
		return ""
	case a.Mark != first.Mark:
		return "had copies of the partition apart meanwhile, or was started anew"
	case a.Incarnation != first.Incarnation:
		return "has lost its store"
	}
	return ""
}

func (r *Reap) drop() []Effect {
	r.state, r.waiting = Dropping, map[dynamo.NodeID]bool{}
	r.outcome.Keys = len(r.keys)
	r.round++
	for _, node := range r.plan.Primaries {
		r.waiting[node] = true
		r.emit(Drop{Round: r.round, Node: node, Keys: r.keys})
	}
	return r.out
}

func (r *Reap) dropped(e Dropped) []Effect {
	delete(r.waiting, e.Node)
	r.outcome.Dropped += e.Count
	if len(r.waiting) > 0 {
		return nil
	}
	r.outcome.Complete = true
	return r.finish("")
}

func (r *Reap) finish(reason string) []Effect {
	r.state, r.outcome.Reason = Done, reason
	return r.emit(Finish{r.outcome})
}

func (r *Reap) emit(e Effect) []Effect {
	r.out = append(r.out, e)
	return r.out
}

// Package transfer hands the records that lie on a node in the place of another
// one to the replicas they belong to, and drops only what is safe elsewhere
// (paper § 4.6: the fallback delivers its hinted replica once the intended node
// has recovered, and may then delete it).
//
// A Transfer is one partition's hints for one node, or its objects that this node
// is no replica of. It reads a batch, offers it to the replicas, and drops it when
//
//   - the intended node confirmed that its disk has every record of the batch,
//     unless it is no replica any more, or there is none,
//   - and so did every other replica that could be reached, and at least as many
//     as make a write of the bucket durable, and a majority: what lies here may be
//     the only copy that is left. While the partition moves that holds for the old
//     list and for the new one, since writes are read in either.
//
// A replica that keeps a hint for another one has the record itself, so there it
// is enough that the intended node has it too.
//
// What is dropped is gone from the store, so a transfer that was interrupted at
// any point is simply begun again: records that were confirmed and not yet
// dropped are offered once more, which changes nothing at the receivers.
//
// A Fill is the other direction: a replica that lacks data takes it from those that
// have it.
package transfer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dynactor/dynactor/dynamo"
)

// State is what a transfer awaits.
type State uint8

const (
	// Ready: Start was not called yet.
	Ready State = iota
	// Reading: the next batch is being read from the store.
	Reading
	// Confirming: replicas have the batch and are to confirm it.
	Confirming
	// Dropping: the batch is being dropped.
	Dropping
	// Done: nothing is awaited; every event is ignored.
	Done
)

var stateNames = [...]string{"ready", "reading", "confirming", "dropping", "done"}

// String is the state's word in the console.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("unknown(%d)", uint8(s))
}

// Batch is what was read: records of one partition and one n.
type Batch struct {
	// Size is how many records it holds; 0 means that there are no more.
	Size int
	// Own: this node has the records as a replica itself, and what it keeps is the
	// knowledge that the intended node lacks them.
	Own bool
	// Replicas are the nodes that hold the records in the rings in force.
	Replicas []dynamo.NodeID
	// Lists are those in each of which a write of the records needs its quorum; nil:
	// Replicas are the one.
	Lists [][]dynamo.NodeID
	// Needed is how many of a list must confirm, or all of a shorter one: for a
	// bucket of n replicas whose writes wait for w, the larger of w and the majority
	// of n.
	Needed int
}

// Event is what happened: Read, Confirmed, Failed, Dropped, Broken.
type Event interface{ event() }

type (
	// Read is the next batch.
	Read struct{ Batch Batch }
	// Confirmed: the node's disk has the whole batch with this number.
	Confirmed struct {
		Node  dynamo.NodeID
		Batch uint64
	}
	// Failed: the node did not take the whole batch with this number.
	// Unreachable says that there is no connection to it.
	Failed struct {
		Node        dynamo.NodeID
		Batch       uint64
		Unreachable bool
		Reason      string
	}
	// Dropped: the batch is gone from the store, but for Kept records that have
	// changed since they were read. They come again in a later transfer.
	Dropped struct{ Kept int }
	// Broken: the store could not be read or written, or the time is over.
	Broken struct{ Reason string }
)

func (Read) event()      {}
func (Confirmed) event() {}
func (Failed) event()    {}
func (Dropped) event()   {}
func (Broken) event()    {}

// Effect is what to do: ReadNext, Offer, Drop, Finish.
type Effect interface{ effect() }

type (
	// ReadNext reads the batch behind the last one.
	ReadNext struct{}
	// Offer sends the batch with this number to a node.
	Offer struct {
		Node  dynamo.NodeID
		Batch uint64
	}
	// Drop removes the records of the batch as they were read.
	Drop struct{}
	// Finish ends the transfer.
	Finish struct{ Outcome Outcome }
)

func (ReadNext) effect() {}
func (Offer) effect()    {}
func (Drop) effect()     {}
func (Finish) effect()   {}

// Outcome is how a transfer ended.
type Outcome struct {
	// Complete: nothing was left when it ended.
	Complete bool
	// Dropped is how many records were handed over and dropped; Kept how many
	// changed meanwhile.
	Dropped, Kept int
	// Given: the intended node has everything, but too few others have.
	Given bool
	// Reason says why it is not complete.
	Reason string
}

// Transfer hands over one partition's hints for one node, or its objects that this
// node is no replica of. It belongs to one goroutine.
type Transfer struct {
	intended dynamo.NodeID
	given    bool
	held     string // why a batch that the intended node has was not dropped
	state    State
	number   uint64
	batch    Batch
	answers  map[dynamo.NodeID]answer
	outcome  Outcome
	out      []Effect
}

// answer is what a node said of the batch.
type answer struct {
	confirmed, unreachable bool
	reason                 string
}

// New plans a transfer of what is kept for intended; of what is kept for nobody
// alone, when that is empty. The batches are numbered from number + 1 on. Two
// transfers whose answers may be mixed up, such as one that was given up and the
// next one of the same partition and node, need numbers of their own: a late answer
// to the first must confirm nothing here.
//
// given says that an earlier transfer gave the intended node everything, and could
// not drop it (Outcome.Given): then this one goes no further than the first batch of
// which that is still so.
func New(intended dynamo.NodeID, number uint64, given bool) *Transfer {
	return &Transfer{intended: intended, number: number, given: given}
}

// State says what is awaited.
func (t *Transfer) State() State { return t.state }

// Number is that of the batch that was read last.
func (t *Transfer) Number() uint64 { return t.number }

// Progress is what was done so far.
func (t *Transfer) Progress() Outcome { return t.outcome }

// Start begins. The effects are valid until the next call of Step.
func (t *Transfer) Start() []Effect {
	if t.state != Ready {
		return nil
	}
	t.reset()
	return t.next()
}

// Step takes one event and returns what to do; the slice is valid until the next
// call.
func (t *Transfer) Step(e Event) []Effect {
	t.reset()
	if t.state == Done || t.state == Ready {
		return nil
	}
	switch e := e.(type) {
	case Broken:
		return t.finish(e.Reason)
	case Read:
		if t.state == Reading {
			return t.offer(e.Batch)
		}
	case Confirmed:
		return t.heard(e.Node, e.Batch, answer{confirmed: true})
	case Failed:
		return t.heard(e.Node, e.Batch, answer{unreachable: e.Unreachable, reason: e.Reason})
	case Dropped:
		if t.state == Dropping {
			t.outcome.Dropped += t.batch.Size - e.Kept
			t.outcome.Kept += e.Kept
			return t.next()
		}
	}
	return nil
}

func (t *Transfer) reset() {
	clear(t.out)
	t.out = t.out[:0]
}

func (t *Transfer) next() []Effect {
	t.state = Reading
	return t.emit(ReadNext{})
}

// offer sends the batch to all who should have it.
func (t *Transfer) offer(b Batch) []Effect {
	t.batch = b
	if b.Size == 0 {
		t.outcome.Complete = t.outcome.Kept == 0 && t.held == ""
		if t.outcome.Kept > 0 {
			return t.finish("records changed while they were handed over")
		}
		return t.finish(t.held)
	}
	t.number++
	t.answers, t.state = map[dynamo.NodeID]answer{}, Confirming
	for _, node := range t.receivers() {
		t.emit(Offer{Node: node, Batch: t.number})
	}
	switch {
	case len(t.out) > 0:
		return t.out
	case b.Own: // nobody is to know any more that the intended node lacked something
		return t.drop()
	}
	return t.finish("the records have no replicas")
}

// receivers are the replicas that get the batch: all; from one of them, the
// intended node alone.
func (t *Transfer) receivers() []dynamo.NodeID {
	switch {
	case !t.batch.Own:
		return t.batch.Replicas
	case slices.Contains(t.batch.Replicas, t.intended):
		return []dynamo.NodeID{t.intended}
	}
	return nil
}

// heard takes the first answer of each receiver, and decides when all have
// answered.
func (t *Transfer) heard(node dynamo.NodeID, number uint64, a answer) []Effect {
	if t.state != Confirming || number != t.number || !slices.Contains(t.receivers(), node) {
		return nil
	}
	if _, again := t.answers[node]; again {
		return nil
	}
	t.answers[node] = a
	if len(t.answers) < len(t.receivers()) {
		return nil
	}
	if refused := t.refused(); refused != "" {
		return t.hold(refused)
	}
	missing := t.missing()
	switch {
	case missing == "":
		return t.drop()
	case t.answers[t.intended].confirmed && !t.given:
		t.outcome.Given = true
		return t.hold(missing)
	}
	return t.finish(missing)
}

// hold leaves a batch that cannot be dropped yet, and goes on if somebody can make
// use of what follows: the intended node, or, if it is none, whoever took this one.
func (t *Transfer) hold(why string) []Effect {
	last := t.intended
	if !slices.Contains(t.receivers(), last) {
		for node, a := range t.answers {
			if a.confirmed {
				last = node
			}
		}
	}
	if !t.answers[last].confirmed {
		return t.finish(why)
	}
	t.held = why
	return t.next()
}

func (t *Transfer) drop() []Effect {
	t.state = Dropping
	return t.emit(Drop{})
}

// refused says which nodes would not take the batch; that one other than the
// intended node could not be reached is no refusal.
func (t *Transfer) refused() string {
	var refused []string
	for node, a := range t.answers {
		if !a.confirmed && (node == t.intended || !a.unreachable) {
			refused = append(refused, fmt.Sprintf("%s: %s", node, a.reason))
		}
	}
	slices.SortFunc(refused, cmp.Compare)
	return strings.Join(refused, "; ")
}

// missing says what keeps a batch that nobody refused from being dropped; empty if
// nothing does.
func (t *Transfer) missing() string {
	lists := t.batch.Lists
	switch {
	case t.batch.Own:
		return ""
	case lists == nil:
		lists = [][]dynamo.NodeID{t.batch.Replicas}
	}
	for _, list := range lists {
		confirmed, needed := 0, min(t.batch.Needed, len(list))
		for _, node := range list {
			if t.answers[node].confirmed {
				confirmed++
			}
		}
		if confirmed < needed {
			return fmt.Sprintf("%d of %d replicas confirmed", confirmed, needed)
		}
	}
	return ""
}

func (t *Transfer) finish(reason string) []Effect {
	t.outcome.Given = t.outcome.Given && t.batch.Size == 0 // else it has not come to the end
	t.state, t.outcome.Reason = Done, reason
	return t.emit(Finish{t.outcome})
}

func (t *Transfer) emit(e Effect) []Effect {
	t.out = append(t.out, e)
	return t.out
}

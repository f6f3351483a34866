// Package exchange is anti-entropy between two replicas of a partition and one n
// (paper § 4.7).
//
// An Exchange is the machine of the replica that begins. It
//
//  1. greets: compares the roots of the two hash trees; equal, it is done;
//  2. compares the children of nodes that differ, level by level, down to the leaves
//     that both trees have, depth first, so that little is held at a time;
//  3. lists the hashes of the keys in the leaves that differ, and so knows which
//     records the one has and the other has not;
//  4. pulls the peer's, merges them, and pushes its own that the peer lacks: what
//     came out of a merge only if it is more than the peer has. So a record travels
//     at most once in each direction, and one that is missing on a side only to it.
//
// Keys are not named until a record travels: a leaf and a part of the entry's hash
// find it on either side.
//
// Whoever receives a record merges it with what it has then, so an exchange undoes no
// write, whatever happens meanwhile and in whatever order its messages come; and
// nothing is remembered, so one that fails at any point is simply begun again. A
// record that cannot be read, or changed since it was listed, is counted and left
// to the next exchange. When the ring or the incarnation of either vnode changes, the
// exchange is Broken: the two might not hold the same keys any more.
//
// A leaf that differs though all its keys agree is no proof of a wrong tree, for a
// write may have reached one side first; but it may be one, and then every exchange
// would list that leaf again. So both sides are told to Recheck it.
//
// The replica that answers keeps no state: see Meet, Digests, Holding and Batch.
package exchange

import (
	"bytes"
	"fmt"

	"github.com/dynactor/dynactor/dynamo/hashtree"
)

// Limits of one message. What does not fit is asked for by further ones.
const (
	// MaxNodes is how many nodes' digests are in an answer.
	MaxNodes = 256
	// MaxLeaves is how many leaves are listed by one request.
	MaxLeaves = 64
	// MaxKeys is how many hashes of keys are in a message.
	MaxKeys = 512
	// MaxRecordBytes is how many bytes of records are in a message, unless it has
	// only one.
	MaxRecordBytes = 1 << 20
	// MaxReadBytes is how many bytes of values are read for one list, but for the last one.
	MaxReadBytes = 8 << 20
)

// LevelBits is how many bits the nodes of one comparison are deeper than those of the
// one before it: a node has 16 children.
const LevelBits = 4

// State is what an exchange awaits.
type State uint8

const (
	// Ready: Start was not called yet.
	Ready State = iota
	// Greeting: the roots are compared.
	Greeting
	// Comparing: children of nodes that differ are compared.
	Comparing
	// Listing: keys of leaves that differ are compared.
	Listing
	// Pulling: the peer's records are on their way.
	Pulling
	// Merging: they are merged into those here.
	Merging
	// Pushing: records from here are on their way to the peer.
	Pushing
	// Done: nothing is awaited; every event is ignored.
	Done
)

var stateNames = [...]string{"ready", "greeting", "comparing", "listing", "pulling", "merging", "pushing", "done"}

// String is the state's word in the console.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("unknown(%d)", uint8(s))
}

// Outcome is what an exchange did.
type Outcome struct {
	// Complete: it came to its end. Equal: the roots were the same, so that the two
	// replicas held the same.
	Complete, Equal bool
	// In is how many records here learned something, Out how many went to the peer.
	In, Out int
	// Changed is how many records had changed when they were asked for, Damaged how
	// many, or leaves of them, could not be read or merged. Rechecked is how many leaves differed though
	// their keys agreed.
	Changed, Damaged, Rechecked int
	// Bytes went over the wire, RecordBytes of them in records.
	Bytes, RecordBytes int
	// Reason says why it is not complete.
	Reason string
}

// Exchange is one exchange, on the side that begins it. It belongs to one goroutine.
type Exchange struct {
	state  State
	number uint64
	round  uint64
	bits   uint8 // of the leaves that both trees have
	// todo are the nodes that differ, the next one last.
	todo []hashtree.Prefix
	// nodes are those that were asked about last, and the cursor is how far the first
	// of them was listed, the last time from from on; agreed: without a difference.
	nodes  []uint32
	width  uint8 // their bits
	cursor []byte
	from   []byte
	agreed bool
	// pull and push are the records of the leaves listed last that are still to move.
	pull, push []Item
	handled    int // of pull, in the page that is merged
	outcome    Outcome
	out        []Effect
}

// New plans an exchange. Its batches are numbered from number + 1 on, so that late
// answers to an earlier exchange of the same two are not taken for answers to this
// one. Successive exchanges of the same two should have successive rounds: each looks
// at other bytes of the hashes, see hashtree.Hash.Digest.
func New(number, round uint64) *Exchange { return &Exchange{number: number, round: round} }

// State says what is awaited.
func (x *Exchange) State() State { return x.state }

// Number is that of the batch that is under way.
func (x *Exchange) Number() uint64 { return x.number }

// Progress is what was done so far.
func (x *Exchange) Progress() Outcome { return x.outcome }

// Left is how many ranges that differ are still to be compared or listed, besides those that
// are asked about now, and how many records of those listed are still to be moved.
func (x *Exchange) Left() (ranges, records int) { return len(x.todo), len(x.pull) + len(x.push) }

// Start begins. The effects are valid until the next call of Step.
func (x *Exchange) Start() []Effect {
	x.reset()
	if x.state != Ready {
		return nil
	}
	return x.ask(Greeting, Greet{Batch: x.number + 1, Round: x.round})
}

// Step takes one event and returns what to do; the slice is valid until the next
// call.
func (x *Exchange) Step(e Event) []Effect {
	x.reset()
	if x.state == Done || x.state == Ready {
		return nil
	}
	if e, ok := e.(Broken); ok {
		return x.finish(e.Reason)
	}
	if e.batch() != x.number {
		return nil
	}
	switch e := e.(type) {
	case Failed:
		return x.finish(e.Reason)
	case Met:
		if x.state == Greeting {
			return x.met(e)
		}
	case Compared:
		if x.state == Comparing {
			return x.compared(e)
		}
	case Listed:
		if x.state == Listing {
			return x.listed(e)
		}
	case Page:
		if x.state == Pulling {
			return x.pulled(e)
		}
	case Merged:
		if x.state == Merging {
			return x.merged(e)
		}
	case Pushed:
		if x.state == Pushing {
			return x.pushed(e)
		}
	}
	return nil
}

func (x *Exchange) reset() {
	clear(x.out)
	x.out = x.out[:0]
}

// met begins with the root's children, unless the roots are the same.
func (x *Exchange) met(e Met) []Effect {
	x.outcome.Bytes += e.Bytes
	if e.Equal {
		x.outcome.Equal = true
		return x.complete()
	}
	if e.Bits < hashtree.MinBits || e.Bits > hashtree.MaxBits {
		return x.finish(fmt.Sprintf("trees of %d bits are not compared", e.Bits))
	}
	x.bits, x.nodes, x.width = e.Bits, []uint32{0}, 0
	return x.differing(e.Own, e.Peer)
}

func (x *Exchange) compared(e Compared) []Effect {
	x.outcome.Bytes += e.Bytes
	return x.differing(e.Own, e.Peer)
}

// differing goes on with the children that differ of the nodes asked about last.
func (x *Exchange) differing(own, peer []uint32) []Effect {
	below := deeper(x.width, x.bits) - x.width
	if len(own) != len(x.nodes)<<below || len(peer) != len(own) {
		return x.finish("the answer is not about the nodes asked for")
	}
	for i := len(own) - 1; i >= 0; i-- {
		if own[i] != peer[i] {
			child := x.nodes[i>>below]<<below | uint32(i)&(1<<below-1)
			x.todo = append(x.todo, hashtree.Prefix{Bits: x.width + below, Index: child})
		}
	}
	return x.next()
}

// deeper is how many bits the children have that are compared below nodes of so many
// bits.
func deeper(width, leaves uint8) uint8 { return min(width+LevelBits, leaves) }

// next asks about the next nodes: their children, or their keys if they are leaves.
func (x *Exchange) next() []Effect {
	if len(x.todo) == 0 {
		return x.complete()
	}
	x.width = x.todo[len(x.todo)-1].Bits
	limit := MaxLeaves
	if x.width < x.bits {
		limit = MaxNodes >> (deeper(x.width, x.bits) - x.width)
	}
	x.nodes = nil
	for n := len(x.todo); n > 0 && len(x.nodes) < limit && x.todo[n-1].Bits == x.width; n-- {
		x.nodes = append(x.nodes, x.todo[n-1].Index)
	}
	if x.width < x.bits {
		x.todo = x.todo[:len(x.todo)-len(x.nodes)]
		return x.ask(Comparing, Compare{Batch: x.number + 1, Round: x.round, Bits: x.width, Index: x.nodes, To: deeper(x.width, x.bits)})
	}
	x.from = x.cursor
	return x.ask(Listing, List{Batch: x.number + 1, Bits: x.bits, Index: x.nodes, From: x.cursor})
}

// listed finds the records that one side has and the other has not.
func (x *Exchange) listed(e Listed) []Effect {
	x.outcome.Bytes += e.Bytes
	x.outcome.Damaged += e.Damaged
	leaves := len(e.Own)
	switch {
	case leaves != len(e.Peer) || leaves > len(x.nodes) || tooMany(e.Own) || tooMany(e.Peer):
		return x.finish("the answer is not about the leaves asked for")
	case leaves == 0, leaves == 1 && e.Next != nil && bytes.Compare(e.Next, x.cursor) <= 0:
		return x.finish("the answer does not go on") // it would be asked for ever
	}
	for i, leaf := range x.nodes[:leaves] {
		if x.cursor == nil {
			x.agreed = true
		}
		mine, theirs := difference(e.Own[i], e.Peer[i])
		x.push, x.pull = appendItems(x.push, leaf, mine), appendItems(x.pull, leaf, theirs)
		// Nor would a tree be better for reading again what cannot be read.
		x.agreed = x.agreed && len(mine)+len(theirs)+e.Damaged == 0
		x.cursor = nil
		if i == leaves-1 && e.Next != nil {
			x.cursor = e.Next // the rest of this leaf comes next
			continue
		}
		x.todo = x.todo[:len(x.todo)-1]
		if x.agreed {
			x.outcome.Rechecked++
			x.emit(Recheck{hashtree.Prefix{Bits: x.bits, Index: leaf}})
		}
	}
	return x.move()
}

// move moves the records that were found, and goes on.
func (x *Exchange) move() []Effect {
	switch {
	case len(x.pull) > 0:
		return x.ask(Pulling, Pull{Batch: x.number + 1, Bits: x.bits, Items: x.pull, From: x.from, Until: x.cursor})
	case len(x.push) > 0:
		return x.ask(Pushing, Push{Batch: x.number + 1, Bits: x.bits, Items: x.push[:min(len(x.push), MaxKeys)], From: x.from, Until: x.cursor})
	}
	return x.next()
}

func (x *Exchange) pulled(e Page) []Effect {
	x.count(e.Bytes, e.RecordBytes)
	if e.Handled < 1 || e.Handled > len(x.pull) || e.Records+e.Damaged > e.Handled {
		return x.finish("the answer does not go on")
	}
	x.outcome.Damaged += e.Damaged
	x.outcome.Changed += e.Handled - e.Records - e.Damaged
	if x.handled = e.Handled; e.Records > 0 {
		x.state = Merging
		return x.emit(Merge{x.number})
	}
	x.pull = x.pull[x.handled:]
	return x.move()
}

// merged decides what of the merged records the peer still lacks.
func (x *Exchange) merged(e Merged) []Effect {
	x.outcome.Damaged += e.Damaged
	x.pull = x.pull[x.handled:]
	for _, r := range e.Records {
		if r.Before != r.After {
			x.outcome.In++
		}
		x.push = without(x.push, Item{r.Leaf, r.Before})
		if r.After != r.Peer {
			x.push = append(without(x.push, Item{r.Leaf, r.After}), Item{r.Leaf, r.After})
		}
	}
	return x.move()
}

func (x *Exchange) pushed(e Pushed) []Effect {
	x.count(e.Bytes, e.RecordBytes)
	if e.Handled < 1 || e.Handled > min(len(x.push), MaxKeys) || e.Records+e.Damaged > e.Handled {
		return x.finish("the answer does not go on")
	}
	x.outcome.Out += e.Records
	x.outcome.Damaged += e.Damaged
	x.outcome.Changed += e.Handled - e.Records - e.Damaged
	x.push = x.push[e.Handled:]
	return x.move()
}

func (x *Exchange) count(all, records int) {
	x.outcome.Bytes += all
	x.outcome.RecordBytes += records
}

func (x *Exchange) ask(s State, e Effect) []Effect {
	x.state = s
	x.number++
	return x.emit(e)
}

func (x *Exchange) complete() []Effect {
	x.outcome.Complete = true
	return x.finish("")
}

func (x *Exchange) finish(reason string) []Effect {
	x.state, x.outcome.Reason = Done, reason
	return x.emit(Finish{x.outcome})
}

func (x *Exchange) emit(e Effect) []Effect {
	x.out = append(x.out, e)
	return x.out
}

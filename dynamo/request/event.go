package request

import (
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
)

// State says what a machine awaits.
type State uint8

const (
	// Ready: Start was not called yet.
	Ready State = iota
	// AwaitingDot: the local vnode is making the dot (put only).
	AwaitingDot
	// AwaitingQuorum: answers are still too few.
	AwaitingQuorum
	// AwaitingValues: answers are enough, but values that were left out of them
	// are still missing (get only).
	AwaitingValues
	// AwaitingStragglers: the reply is out, answers may still come.
	AwaitingStragglers
	// Done: nothing is awaited; every event is ignored.
	Done
)

var stateNames = [...]string{"Ready", "AwaitingDot", "AwaitingQuorum", "AwaitingValues", "AwaitingStragglers", "Done"}

// String is the state's name in the console.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("unknown(%d)", uint8(s))
}

// Reason says why a replica did not do what it was asked.
type Reason uint8

const (
	// NoReason: the replica did not fail.
	NoReason Reason = iota
	// Unreachable: there is no connection to the node.
	Unreachable
	// TimedOut: the node did not answer in time.
	TimedOut
	// Overloaded: the node refused because it has too much to do.
	Overloaded
	// StorageFailed: the node could not read or write its store.
	StorageFailed
	// Stale: the request was planned with an older cluster document than the
	// replica knows for the partition.
	Stale
	// Crashed: the vnode stopped while it had the request.
	Crashed
	// Unsupported: the node does not know the message.
	Unsupported
	// Declined: the node refused for another reason.
	Declined
	// NotAuthoritative: the node answered that it has nothing, which proves
	// nothing, because it is a fallback, is still being filled, or has a damaged
	// copy.
	NotAuthoritative
	// ValuesMissing: the node answered without values that are needed.
	ValuesMissing
)

var reasonNames = [...]string{
	"none", "unreachable", "timeout", "overloaded", "storage", "stale", "crashed", "unsupported", "declined",
	"not authoritative", "values missing",
}

// String is the reason's word in errors and in the console.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("unknown(%d)", uint8(r))
}

// Event is something that happened to a request: Answer, Fail, Prepared,
// Durable, Refused or Deadline.
type Event interface{ event() }

// Answer is a replica's answer to Ask or to Fetch.
type Answer struct {
	From dynamo.NodeID
	// Fetched: the answer is to a Fetch.
	Fetched bool
	// Found: the replica has a record of the key, maybe only a tombstone.
	Found  bool
	Record version.Record
	// Authoritative is false while the replica is being filled, and when its copy
	// of the key is damaged.
	Authoritative bool
}

// Fail says that a replica did not and will not do what it was asked.
type Fail struct {
	From dynamo.NodeID
	// Fetched: what failed is a Fetch.
	Fetched bool
	Reason  Reason
}

// Prepared says that the local vnode made the dot and wrote the record; making
// it durable is under way and ends with Durable or Fail from the local node.
type Prepared struct {
	// Record is the whole merged record of the key, for the other replicas.
	Record version.Record
	Dot    clock.Dot
	// Known: an earlier attempt of the same request had made the dot; nothing
	// was written now.
	Known bool
}

// Durable says that a node, the local one included, holds the record as durably
// as it was asked.
type Durable struct{ From dynamo.NodeID }

// Refused says that the local vnode made no dot and wrote nothing.
type Refused struct {
	Err error
	// Unknown: Err says that the outcome of an earlier attempt of the request is
	// no longer known, so that this refusal proves nothing of that.
	Unknown bool
}

// Deadline says that the time armed for a state has passed.
type Deadline struct{ For State }

func (Answer) event()   {}
func (Fail) event()     {}
func (Prepared) event() {}
func (Durable) event()  {}
func (Refused) event()  {}
func (Deadline) event() {}

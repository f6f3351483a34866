package request

import (
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
)

// Effect is something to be done for a request: Ask, Fetch, Coordinate,
// Replicate, KeepHint, Repair, Reply, Arm or Stop.
type Effect interface{ effect() }

// Ask asks a replica for its record; expect Answer or Fail.
type Ask struct {
	Replica dynamo.Replica
	// DigestAbove: values longer than so many bytes are left out of the answer;
	// 0 leaves none out.
	DigestAbove int
}

// Fetch asks a replica that answered for its record with all values; expect
// Answer or Fail with Fetched set.
type Fetch struct{ Replica dynamo.Replica }

// Coordinate has the local vnode make the dot and write; expect Prepared or
// Refused, and Durable or Fail after Prepared.
type Coordinate struct {
	Replica dynamo.Replica
	// Sync: Durable means that the disk has it, else that reads see it.
	Sync bool
}

// Replicate hands a replica the record; expect Durable or Fail. A fallback
// keeps it with a hint for Replica.For.
type Replicate struct {
	Replica dynamo.Replica
	Record  version.Record
	// Sync is as in Coordinate.
	Sync bool
}

// KeepHint has the local vnode, which holds the record, remember that a primary
// lacks it: neither it nor one that stands in for it confirmed. No answer is
// expected.
type KeepHint struct{ For dynamo.NodeID }

// Repair hands a replica that turned out stale the merged record; no answer is
// expected. It comes only after the reply. No value of Record is omitted.
type Repair struct {
	Replica dynamo.Replica
	Record  version.Record
	Cause   Cause
}

// Cause says in what way a replica is stale.
type Cause uint8

const (
	// NothingFound: the replica has no record of the key.
	NothingFound Cause = iota
	// OutOfDate: its record lacks writes that others have seen.
	OutOfDate
)

// String is the cause's word in counters and logs.
func (c Cause) String() string {
	if c == NothingFound {
		return "notfound"
	}
	return "outofdate"
}

// Reply answers the client.
type Reply struct{ Result Result }

// Arm asks for Deadline{For} after the timeout.
type Arm struct {
	For     State
	Timeout Timeout
}

// Timeout says which time is meant.
type Timeout uint8

const (
	// UntilRequestEnds: what is left of the request's own time.
	UntilRequestEnds Timeout = iota
	// Linger: how long late answers are awaited after the reply.
	Linger
)

// String is the timeout's name.
func (t Timeout) String() string {
	if t == Linger {
		return "linger"
	}
	return "request"
}

// Stop says that the machine is Done: no event changes anything any more.
type Stop struct{}

func (Ask) effect()        {}
func (Fetch) effect()      {}
func (Coordinate) effect() {}
func (Replicate) effect()  {}
func (KeepHint) effect()   {}
func (Repair) effect()     {}
func (Reply) effect()      {}
func (Arm) effect()        {}
func (Stop) effect()       {}

// Result is the outcome of a request: Found, NotFound, Written, Unattempted,
// Unavailable, Unknown or Outdated.
type Result interface {
	// Certainty says what is known of a write. For a get it says whether the
	// answer is final.
	Certainty() Certainty
}

// Certainty tells the three outcomes of a write apart.
type Certainty uint8

const (
	// Certain: it was done.
	Certain Certainty = iota
	// NotAttempted: nothing was written; trying again is safe.
	NotAttempted
	// Uncertain: it may have been written, or may still appear. Trying again is
	// safe only under the same request id.
	Uncertain
)

// String is the certainty's word.
func (c Certainty) String() string {
	return [...]string{"done", "not attempted", "unknown"}[c]
}

// Found: at least one version is live. The record holds all values of its live
// versions; values of tombstones and of expired versions may be omitted.
type Found struct{ Record version.Record }

// NotFound: enough authoritative replicas say that no version is live. The
// record is zero, or holds what was deleted or has expired, for the context.
type NotFound struct{ Record version.Record }

// Written: W nodes hold the write.
type Written struct {
	Record version.Record
	Dot    clock.Dot
	// Replicas is how many nodes confirmed before the reply.
	Replicas int
	// Known: this was a retry of a write that had been made before.
	Known bool
}

// Unattempted: the local vnode refused, and nothing was written.
type Unattempted struct {
	Err error
	// Earlier: an earlier attempt of the same request may have been written.
	Earlier bool
}

// Unavailable: too few nodes answered.
type Unavailable struct {
	// Answered and Needed count nodes whose answer counts.
	Answered, Needed int
	// PrimariesAnswered and PrimariesNeeded count the primaries among them.
	PrimariesAnswered, PrimariesNeeded int
	// Failures says why the others do not count, in the order they were asked.
	Failures []Failure
	// Where says which replicas were too few.
	Where Where
	// Attempted: a write was made and may still appear. False for a get, and
	// for a put that was given up before it began.
	Attempted bool
}

// Where tells the two lists of a write to a partition that moves apart.
type Where uint8

const (
	// Everywhere: there is one list only.
	Everywhere Where = iota
	// WhereRead: the list that reads use.
	WhereRead
	// Elsewhere: the other one.
	Elsewhere
)

// String says so in an error, before the numbers.
func (w Where) String() string {
	return [...]string{
		"", "the partition moves: of the replicas that reads use ", "the partition moves: of the replicas that reads do not use ",
	}[w]
}

// Failure is why one node's answer is missing or does not count.
type Failure struct {
	Node   dynamo.NodeID
	Reason Reason
}

// Unknown: the local vnode did not say in time whether it wrote.
type Unknown struct{}

// Outdated: a replica knows a newer cluster document. The request is to be
// planned anew with it; a put under the same request id, by which the local
// vnode recognises what it has written already.
type Outdated struct {
	Node dynamo.NodeID
	// Attempted is as in Unavailable.
	Attempted bool
}

// Certainty implements Result.
func (Found) Certainty() Certainty { return Certain }

// Certainty implements Result.
func (NotFound) Certainty() Certainty { return Certain }

// Certainty implements Result.
func (Written) Certainty() Certainty { return Certain }

// Certainty implements Result.
func (u Unattempted) Certainty() Certainty { return certainty(u.Earlier) }

// Certainty implements Result.
func (u Unavailable) Certainty() Certainty { return certainty(u.Attempted) }

// Certainty implements Result.
func (Unknown) Certainty() Certainty { return Uncertain }

// Certainty implements Result.
func (o Outdated) Certainty() Certainty { return certainty(o.Attempted) }

func certainty(attempted bool) Certainty {
	if attempted {
		return Uncertain
	}
	return NotAttempted
}

// String says how many answered and what kept the others.
func (u Unavailable) String() string {
	s := fmt.Sprintf("%v%d of %d answered", u.Where, u.Answered, u.Needed)
	if u.PrimariesNeeded > 0 {
		s += fmt.Sprintf(", %d of %d primaries", u.PrimariesAnswered, u.PrimariesNeeded)
	}
	for _, f := range u.Failures {
		s += fmt.Sprintf("; %s: %v", f.Node, f.Reason)
	}
	return s
}

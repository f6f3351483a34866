// Package sim is a whole cluster in one goroutine: seeded, with a virtual
// clock, a network that delays, loses, doubles, reorders and cuts, disks that
// forget what was not made durable, and clients that retry. It runs the very
// machines of the paper that real nodes run (packages ring, request, quorum,
// version, vnode, member, transfer) behind a model of the shells around them, and checks
// after each step what must never happen.
//
// Everything is drawn from the seed, so a failure replays from its number and
// the same seed gives the same trace. Each seed draws a cluster, a subset of
// the fault kinds and their rates ("swarm"): all faults at once would hide each
// other.
//
// What is checked, by the id that a failure names:
//
//	I1   a dot names one write for all time
//	I2   a vnode's own epochs and counters never go down, also over crashes
//	I3   a version leaves a record only because a context that some client's
//	     write carried covered it, and then stays away; the twins of one
//	     request count as one
//	I4   an acknowledged write is on W distinct nodes, as durably as asked
//	I5   a hint is dropped only when the intended node has its record on the disk
//	I8   encoded records are canonical
//	I11  a preference list names distinct nodes, primaries first
//	I12  a request has no effect after its end, its deadline, or from an
//	     earlier life of its node
//	I13  a record remembers a bounded number of requests
//	I14  versions that a record holds side by side are concurrent
//	I15  one request id makes one dot at one coordinator, and at any that knew of
//	     the first, unless messages and clocks are off by more than the slack; and
//	     one live version
//	R1   a get that met its quorum has seen every write acknowledged before it,
//	     if R+W>N and no fault destroyed the copies it relies on
//	F1   a write that failed for certain never appears
//	L1   each request ends, and the cluster comes to rest
//	L3   when all is at rest no hint is left
//	L2   after the last fault every key can be read and written
//	A1   after healing each acknowledged write is there, or covered by a context
//	C1   after healing all replicas of a key are equal
//
// In some runs operators stage and commit joins, leaves, removals of dead members,
// replacements and capacities, two at once, and disks are lost and come back empty.
// Each node has its own document, vote and rows then, on its disk:
//
//	M1   there is one document of each version
//	M2   the document that a node goes by is on its disk, and never an older one
//	M3   a voter is heard when its vote is on the disk, and never goes back on it
//	M4   without faults the movement ends: all go by one document, no fill, no hint
//	     and no data of others is left, the ring is the one claimed for the members
//	     and balanced
//	M5   a fill is given all that its source had taken before
//	M6   what lies on a node that is gone, or at rest, is its own
//	M7   no request is served that was planned before its partition moved
//	M8   a replica of which nobody has the data is filled only when an operator has accepted
//	     that, and only what copies were destroyed of is ever to be accepted
//
// In some of those, all replicas of a partition lose their disks, one as soon as the one before is taken
// over: nobody has the data then, and operators accept that.
//
// In some of the others, blocks of stored objects become unreadable, of several replicas at a time: a
// replica that meets one is suspect, given up by the document, renewed with what can be read, and filled
// by the others. What nobody else has is never hit, so that the checks above hold as they are.
//
// In some runs replicas are compared in the background, and tombstones and what has
// expired are reaped; then values rot, disks are put back from backups, messages are
// late, and nothing but exchanges makes the replicas equal in the end:
//
//	T1   a hash tree that is compared is what the store holds
//	C2   exchanges make all replicas equal within a few rounds
//	D1   what a reaped record had covered is not back
//	D2   only what nobody sees is reaped, and only what was decided on is dropped
//	D3   nothing is reaped while a member is out of reach all the time
//	D4   after two rounds without faults nothing is left to reap
//	D5   nothing is reaped of which a member keeps something for others between its two
//	     answers, or is another process in the second
//	D6   a value that was told to have expired is not shown again
//
// The promise of I4, A1 and R1 is conditional: it holds while fewer copies are
// destroyed than were acknowledged. So the faults that destroy durable copies
// keep to a budget, and the checks know what was destroyed.
package sim

import (
	"fmt"
	"time"
)

// Violation is the first invariant that a run broke.
type Violation struct {
	// Invariant is its id, as in the package comment.
	Invariant string
	// At is the virtual time since the start.
	At time.Duration
	// Facts say what was found.
	Facts string
}

// String is one line.
func (v Violation) String() string { return fmt.Sprintf("%s at %v: %s", v.Invariant, v.At, v.Facts) }

// Result is what came of one seed.
type Result struct {
	Seed uint64
	// Plan is a line with what was drawn from the seed.
	Plan string
	// Acked is how many writes were acknowledged to clients, Requests how many
	// gets and puts they made in all.
	Acked, Requests int
	// Moving: members and ring changed in the run; Moved says what happened.
	Moving bool
	Moved  Moved
	// Healing: replicas were compared in the run; Healed says what came of it.
	Healing bool
	Healed  Healed
	// Steps is the number of events that were run.
	Steps uint64
	// Hash is of all that happened, in order: equal for equal seeds.
	Hash uint64
	// Violation is nil when all invariants held. The run ends at the first.
	Violation *Violation
}

// Run simulates the cluster of one seed. trace, when not nil, receives a line
// for each thing that happens; it changes nothing.
func Run(seed uint64, trace func(string)) Result {
	return run(drawPlan(seed), sound, trace)
}

// run simulates a plan with a mutation.
func run(p plan, m mutation, trace func(string)) Result {
	c := newCluster(p, m, trace)
	c.simulate()
	return Result{
		Seed: p.seed, Plan: p.String(), Acked: c.acked, Requests: c.requests, Steps: c.steps, Hash: c.hash, Violation: c.violation,
		Moving: p.moves(), Moved: c.move.Moved, Healing: p.heals(), Healed: c.healed,
	}
}

// mutation is a bug planted on purpose: tests show with it that the checks can
// fail.
type mutation uint8

const (
	// sound plants none.
	sound mutation = iota
	// ackEarly answers for the disk before the disk has it.
	ackEarly
	// ackBelowW replies when one confirmation is still missing.
	ackBelowW
	// countTwice counts one node's confirmation for another node too.
	countTwice
	// keepEpoch continues an old epoch for a key that was forgotten.
	keepEpoch
	// keepFloor does not raise the epoch floor after an unclean stop.
	keepFloor
	// keepCommit does not raise the epoch floor after a failed commit.
	keepCommit
	// forgetBar drops the mark that an epoch is barred.
	forgetBar
	// leaseLate uses a lease of epochs before it is durable.
	leaseLate
	// contextIgnored takes every write for a blind one.
	contextIgnored
	// contextEverything lets every write supersede all that is stored.
	contextEverything
	// dedupeOff does not recognise retries.
	dedupeOff
	// noSlack takes a retry for as young as it seems.
	noSlack
	// sendDelta replicates only the new version, with the whole clock.
	sendDelta
	// corruptAsNothing answers "not found" for a value that cannot be read.
	corruptAsNothing
	// repairHalf repairs with records whose long values were left out.
	repairHalf
	// failForCertain calls a failed sync a write that was not attempted.
	failForCertain
	// reuseNumbers starts request numbers at 1 in each life of a node.
	reuseNumbers
	// serveExpired carries out messages whose time is over.
	serveExpired
	// mergeByTime keeps the latest version only, at every merge.
	mergeByTime
	// dropUnconfirmed drops hints without waiting for those they were offered to.
	dropUnconfirmed
	// dropChanged drops a hint that has changed since it was handed over.
	dropChanged
	// dropDamaged drops a hint that could not be read, also when a new record has
	// taken its place.
	dropDamaged
	// confirmEarly confirms what was handed over before the disk has it.
	confirmEarly
	// keepIncarnation gives the vnodes of a new disk the names of the old one's.
	keepIncarnation
	// writeOnce writes to one list only of a partition that moves.
	writeOnce
	// readNext reads a partition's next list before it is filled.
	readNext
	// unfilledCount takes "nothing found" of a replica that lacks data for a proof.
	unfilledCount
	// fillOne takes a fill from one source for complete, fillNothing one from none.
	fillOne
	fillNothing
	// fillEarly reads what a fill is given before the turn's writes are applied.
	fillEarly
	// giveUnaware serves a fill that the source does not know of.
	giveUnaware
	// doneUnknown makes a partition done before all know that it is switched.
	doneUnknown
	// serveStale serves requests that were planned with an old document.
	serveStale
	// lostNotFilled takes a new disk in without filling it.
	lostNotFilled
	// dropMisplaced drops what belongs elsewhere before it was confirmed there.
	dropMisplaced
	// dropHomeless drops what is kept for a node that is no replica any more.
	dropHomeless
	// forgetPromise forgets votes at a crash, voteEarly tells of them before they are
	// durable, hideVote does not tell of what was accepted.
	forgetPromise
	voteEarly
	hideVote
	// voteTwice counts one voter's answer for another one too.
	voteTwice
	// useEarly goes by a document that is not durable.
	useEarly
	// takeOld merges records however long ago they were read, dateSent dates those that a
	// request goes on with when it sends them.
	takeOld
	dateSent
	// oneRound reaps without asking again, noPause asks again at once.
	oneRound
	noPause
	// absentIsClear takes it that members who do not answer keep nothing.
	absentIsClear
	// hintsUnseen, misplacedUnseen: an answer does not look at hints, at copies of what
	// belongs elsewhere; restartUnseen: it does not tell that the process is another one.
	hintsUnseen
	misplacedUnseen
	restartUnseen
	// heldEarly says that a record is held before the disk has it.
	heldEarly
	// reapMoving reaps of a partition that moves, or while a replica is filled.
	reapMoving
	// dropUnchecked drops also a record that has changed.
	dropUnchecked
	// noSkew takes a value for expired by one clock alone; expireAlone has each replica
	// drop what has expired by its own.
	noSkew
	expireAlone
	// expiryRenewed counts a value's time to live anew where a replica gets it.
	expiryRenewed
	// exchangeOverwrites puts the peer's record in the place of the own one.
	exchangeOverwrites
	// treeKeepsDropped does not tell the tree what was dropped.
	treeKeepsDropped
	// equalIsFilled takes a replica for filled that was compared with one other.
	equalIsFilled
	// serveRestored lets a store in that was put back from a backup.
	serveRestored
	// dropAlone drops what cannot be read without a document that says so; salvageNothing keeps
	// nothing of the rest.
	dropAlone
	salvageNothing
	// dropKeepsName goes on under the old incarnation after a drop.
	dropKeepsName
	// lostCounts takes "nothing found" of a replica that was given up for a proof.
	lostCounts
	// filledBefore takes a fill of before a loss for one of after it.
	filledBefore
	// fillUnaccepted takes a fill for complete of which nobody has the data, and no operator has accepted
	// that; acceptSourced has an acceptance count also for an n of which somebody has the data.
	fillUnaccepted
	acceptSourced
	mutations
)

var mutationNames = [...]string{
	"sound", "ackEarly", "ackBelowW", "countTwice", "keepEpoch", "keepFloor", "keepCommit", "forgetBar", "leaseLate",
	"contextIgnored", "contextEverything", "dedupeOff", "noSlack", "sendDelta", "corruptAsNothing", "repairHalf", "failForCertain",
	"reuseNumbers", "serveExpired", "mergeByTime", "dropUnconfirmed", "dropChanged", "dropDamaged", "confirmEarly",
	"keepIncarnation", "writeOnce", "readNext", "unfilledCount", "fillOne", "fillNothing", "fillEarly", "giveUnaware", "doneUnknown", "serveStale", "lostNotFilled", "dropMisplaced", "dropHomeless", "forgetPromise", "voteEarly", "hideVote", "voteTwice",
	"useEarly", "takeOld", "dateSent", "oneRound", "noPause", "absentIsClear", "hintsUnseen", "misplacedUnseen", "restartUnseen", "heldEarly",
	"reapMoving", "dropUnchecked", "noSkew", "expireAlone", "expiryRenewed", "exchangeOverwrites", "treeKeepsDropped", "equalIsFilled", "serveRestored",
	"dropAlone", "salvageNothing", "dropKeepsName", "lostCounts", "filledBefore", "fillUnaccepted", "acceptSourced",
}

// String is the mutation's name in test output.
func (m mutation) String() string { return mutationNames[m] }

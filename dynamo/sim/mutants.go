package sim

import (
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo/quorum"
)

// mutant is a planted bug: within so many seeds a check must find it, as a breach of
// one of the invariants. shape turns the plans towards what the bug needs, where it is
// rare; moves has members and ring change in all of them, heals has tombstones reaped, loses
// has stored objects become unreadable.
type mutant struct {
	mutation mutation
	seeds    uint64
	breaks   []string
	shape    func(*plan)
	moves    bool
	heals    bool
	loses    bool
}

// hunt runs seeds until one finds the mutant; nil if none does.
func (m mutant) hunt() (uint64, *Violation) {
	for seed := uint64(1); seed <= m.seeds; seed++ {
		if v := run(m.plan(seed), m.mutation, nil).Violation; v != nil {
			return seed, v
		}
	}
	return m.seeds, nil
}

// plan is that of a seed, turned towards the mutant.
func (m mutant) plan(seed uint64) plan {
	p := drawStill(seed)
	if m.moves {
		drawMove(&p, stream(seed, streamMovePlan))
	}
	if m.heals {
		r := stream(seed, streamHealPlan)
		drawCompare(&p, r)
		drawReap(&p, r)
	}
	if m.shape != nil {
		m.shape(&p)
	}
	if m.loses {
		drawLoss(&p, stream(seed, streamLossPlan))
	}
	return p
}

// mutants are all planted bugs.
func mutants() []mutant {
	return slices.Concat(stillMutants(), movingMutants(), healingMutants(), losingMutants())
}

func stillMutants() []mutant {
	return []mutant{
		{mutation: ackEarly, seeds: 10, breaks: []string{"I4"}},
		{mutation: ackBelowW, seeds: 10, breaks: []string{"I4"}},
		{mutation: countTwice, seeds: 10, breaks: []string{"I4"}},
		{mutation: keepEpoch, seeds: 20, breaks: []string{"I1"}},
		{mutation: keepFloor, seeds: 50, breaks: []string{"I1"}, shape: only(faultCrash, faultCrashAll)},
		{mutation: keepCommit, seeds: 50, breaks: []string{"I1"}, shape: only(faultFull)},
		{mutation: forgetBar, seeds: 200, breaks: []string{"I1", "I2"}, shape: only(faultForget, faultClog, faultHalves, faultHeal)},
		{mutation: leaseLate, seeds: 50, breaks: []string{"I1", "I2"}, shape: func(p *plan) {
			only(faultCrash)(p)
			p.disk.sync, p.lease = 100*time.Millisecond, 4
		}},
		{mutation: contextIgnored, seeds: 10, breaks: []string{"I3", "I14"}},
		{mutation: contextEverything, seeds: 10, breaks: []string{"I3"}},
		{mutation: dedupeOff, seeds: 50, breaks: []string{"I15"}, shape: only(faultCut, faultHeal)},
		{mutation: noSlack, seeds: 200, breaks: []string{"I15"}, shape: func(p *plan) {
			only(faultCut, faultHeal)(p)
			p.fault.skew, p.slack, p.load.keys, p.load.clients = 500*time.Millisecond, time.Second, 1, 7
		}},
		{mutation: sendDelta, seeds: 10, breaks: []string{"I3"}},
		{mutation: corruptAsNothing, seeds: 100, breaks: []string{"R1"}, shape: only(faultCorrupt, faultCut, faultHeal)},
		{mutation: repairHalf, seeds: 50, breaks: []string{"I1"}},
		{mutation: failForCertain, seeds: 100, breaks: []string{"F1"}, shape: func(p *plan) {
			only(faultSyncFails)(p)
			p.disk.sync = 2 * time.Microsecond
		}},
		{mutation: reuseNumbers, seeds: 200, breaks: []string{"I1", "I4"}, shape: only(faultCrash, faultClog)},
		{mutation: serveExpired, seeds: 100, breaks: []string{"I12"}, shape: func(p *plan) {
			only(faultPause)(p)
			p.load.timeout = 200 * time.Millisecond
		}},
		{mutation: mergeByTime, seeds: 10, breaks: []string{"I3"}},
		{mutation: dropUnconfirmed, seeds: 200, breaks: []string{"I5"}, shape: sloppy},
		{mutation: dropChanged, seeds: 200, breaks: []string{"I5"}, shape: sloppy},
		{mutation: dropDamaged, seeds: 1000, breaks: []string{"I5"}, shape: func(p *plan) {
			only(faultCorrupt, faultCut, faultIsolate, faultHeal)(p)
			p.nodes, p.spares, p.load.keys = 4, 0, 1
		}},
		{mutation: confirmEarly, seeds: 200, breaks: []string{"I5"}, shape: sloppy},
	}
}

// movingMutants are those that show only when members or ring change.
func movingMutants() []mutant {
	return []mutant{
		{mutation: keepIncarnation, seeds: 20, breaks: []string{"I1", "I2"}, moves: true, shape: wipes},
		{mutation: writeOnce, seeds: 20, breaks: []string{"I4", "R1"}, moves: true, shape: strict},
		{mutation: readNext, seeds: 200, breaks: []string{"R1"}, moves: true, shape: tight},
		{mutation: unfilledCount, seeds: 20, breaks: []string{"R1"}, moves: true, shape: tightWipes},
		{mutation: fillOne, seeds: 1500, breaks: []string{"R1", "A1"}, moves: true, shape: lossy},
		{mutation: fillNothing, seeds: 100, breaks: []string{"R1", "A1"}, moves: true, shape: strict},
		{mutation: fillEarly, seeds: 100, breaks: []string{"M5"}, moves: true, shape: strict},
		{mutation: giveUnaware, seeds: 400, breaks: []string{"R1", "A1"}, moves: true, shape: thin},
		{mutation: doneUnknown, seeds: 400, breaks: []string{"R1", "A1"}, moves: true, shape: deaf},
		{mutation: serveStale, seeds: 20, breaks: []string{"M7"}, moves: true, shape: strict},
		{mutation: lostNotFilled, seeds: 100, breaks: []string{"R1", "A1"}, moves: true, shape: wipes},
		{mutation: dropMisplaced, seeds: 100, breaks: []string{"I5"}, moves: true, shape: strict},
		{mutation: dropHomeless, seeds: 200, breaks: []string{"I5"}, moves: true, shape: strict},
		{mutation: forgetPromise, seeds: 50, breaks: []string{"M1", "M3"}, moves: true, shape: strict},
		{mutation: voteEarly, seeds: 20, breaks: []string{"M3"}, moves: true, shape: strict},
		{mutation: hideVote, seeds: 20, breaks: []string{"M1", "M3"}, moves: true, shape: strict},
		{mutation: voteTwice, seeds: 100, breaks: []string{"M1", "M3"}, moves: true, shape: strict},
		{mutation: useEarly, seeds: 20, breaks: []string{"M2"}, moves: true, shape: strict},
		{mutation: fillUnaccepted, seeds: 20, breaks: []string{"M8"}, moves: true, shape: ruins},
		{mutation: acceptSourced, seeds: 100, breaks: []string{"R1", "A1"}, moves: true, shape: func(p *plan) {
			ruins(p)
			only(faultWipe, faultCrash, faultIsolate, faultHeal)(p)
			p.properties.Quorum, p.move.every = quorum.Params{N: 4, R: 1, W: 4}, 50*time.Millisecond
		}},
	}
}

// sloppy makes hints likely: fallbacks, and nodes that are gone for a while.
func sloppy(p *plan) {
	only(faultCrash, faultCut, faultIsolate, faultHeal)(p)
	p.nodes, p.spares = 5, 2
	p.properties.Quorum = quorum.Params{N: 3, R: 2, W: 2}
	p.disk.sync = 5 * time.Millisecond
}

// strict makes the quorums overlap, without fallbacks, so that what a read has missed
// shows; members come and go often, and messages are late.
func strict(p *plan) {
	only(faultCut, faultOneWay, faultClog, faultCrash, faultPause, faultHeal)(p)
	p.nodes, p.spares, p.load.keys = 4, 0, min(p.load.keys, 2)
	p.properties.Quorum = quorum.Params{N: 3, R: 2, W: 2}
	p.move.every = min(p.move.every, 300*time.Millisecond)
	p.move.join, p.move.leave, p.move.replace, p.move.capacity, p.move.remove, p.move.ruins = 1, 0.6, 0.6, 0.6, 0, 0
	p.load.think = 15 * time.Millisecond
}

// wipes has disks get lost often.
func wipes(p *plan) {
	strict(p)
	only(faultCrash, faultOneWay, faultWipe, faultHeal)(p)
	p.fault.weights[faultWipe] = 2
}

// tight has reads ask for one answer of those that writes have had from all, and
// messages take long, so that a reader or a writer that is late with the ring shows.
func tight(p *plan) {
	strict(p)
	p.properties.Quorum = quorum.Params{N: 3, R: 1, W: 3}
	p.partitions, p.load.clients, p.load.think = 2, 5, 2*time.Millisecond
	p.net.mean, p.net.inOrder = 25*time.Millisecond, false
}

// deaf is tight with a node that hears late of the ring.
func deaf(p *plan) {
	tight(p)
	only()(p)
	p.net = netPlan{least: 20 * time.Microsecond, mean: time.Millisecond, detect: 100 * time.Millisecond}
	p.disk.sync, p.disk.readError = 50*time.Microsecond, 0
	p.nodes, p.partitions, p.load.clients, p.load.operations = 5, 4, 6, 1500
	p.load.attempt, p.load.think, p.load.puts, p.load.updates = 40*time.Millisecond, 5*time.Millisecond, 0.4, 0
	p.move.every, p.move.deaf = 150*time.Millisecond, time.Second
}

// thin is deaf with writes acknowledged by one node alone.
func thin(p *plan) {
	deaf(p)
	p.properties.Quorum = quorum.Params{N: 3, R: 3, W: 1}
}

// tightWipes is tight with lost disks.
func tightWipes(p *plan) {
	tight(p)
	only(faultWipe)(p)
}

// ruins is tight with partitions that lose the disks of all replicas.
func ruins(p *plan) {
	tightWipes(p)
	p.move.ruins, p.nodes = 3, 6
}

// lossy has replicas miss writes.
func lossy(p *plan) {
	strict(p)
	p.net.loss, p.load.keys, p.load.puts, p.load.updates = 0.3, 6, 0.6, 0
	p.partitions = 4
}

// only leaves a plan no faults but the given ones, and those often.
func only(kinds ...faultKind) func(*plan) {
	return func(p *plan) {
		p.fault.weights = [faultKinds]float64{}
		for _, k := range kinds {
			p.fault.weights[k] = 1
		}
		p.fault.every = min(p.fault.every, 150*time.Millisecond)
	}
}

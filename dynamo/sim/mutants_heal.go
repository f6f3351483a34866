package sim

import (
	"time"

	"github.com/dynactor/dynactor/dynamo/quorum"
)

// healingMutants are those that show only when replicas are compared and tombstones
// reaped.
func healingMutants() []mutant {
	return []mutant{
		{mutation: takeOld, seeds: 600, breaks: []string{"D1"}, heals: true, shape: late},
		{mutation: dateSent, seeds: 1500, breaks: []string{"D1"}, heals: true, shape: frozen},
		{mutation: oneRound, seeds: 300, breaks: []string{"D1"}, heals: true, shape: late},
		{mutation: noPause, seeds: 300, breaks: []string{"D1"}, heals: true, shape: late},
		{mutation: absentIsClear, seeds: 100, breaks: []string{"D1", "D3"}, heals: true, shape: sloppyReaps},
		{mutation: hintsUnseen, seeds: 100, breaks: []string{"D1", "D5"}, heals: true, shape: sloppyReaps},
		{mutation: misplacedUnseen, seeds: 300, breaks: []string{"D1", "D5"}, heals: true, moves: true, shape: movingReaps},
		{mutation: restartUnseen, seeds: 100, breaks: []string{"D5"}, heals: true, shape: sloppyReaps},
		{mutation: heldEarly, seeds: 100, breaks: []string{"D1"}, heals: true, shape: slowDisks},
		{mutation: reapMoving, seeds: 1000, breaks: []string{"D1", "D5"}, heals: true, moves: true, shape: movingReaps},
		{mutation: dropUnchecked, seeds: 50, breaks: []string{"D2"}, heals: true, shape: late},
		{mutation: noSkew, seeds: 50, breaks: []string{"D2"}, heals: true, shape: func(p *plan) {
			p.fault.skew, p.heal.skew, p.heal.ttl = 50*time.Millisecond, 200*time.Millisecond, 0.6
		}},
		{mutation: expireAlone, seeds: 20, breaks: []string{"D2"}, heals: true, shape: func(p *plan) { p.heal.ttl = 0.6 }},
		{mutation: expiryRenewed, seeds: 20, breaks: []string{"I1"}, heals: true, shape: func(p *plan) { p.heal.ttl = 0.6 }},
		{mutation: exchangeOverwrites, seeds: 20, breaks: []string{"I3"}, heals: true},
		{mutation: treeKeepsDropped, seeds: 50, breaks: []string{"T1", "C2"}, heals: true},
		{mutation: equalIsFilled, seeds: 500, breaks: []string{"R1", "A1"}, heals: true, moves: true, shape: func(p *plan) {
			tightWipes(p)
			p.heal, p.load.timeout, p.net.late = healPlan{interval: 100 * time.Millisecond}, time.Second, 0
		}},
		{mutation: serveRestored, seeds: 200, breaks: []string{"D1", "I1", "I2", "I4", "R1"}, heals: true, moves: true, shape: func(p *plan) {
			movingReaps(p)
			p.heal.restores = 300 * time.Millisecond
		}},
	}
}

// late has messages come late, twice or not at all, and a message's life be short.
func late(p *plan) {
	only(faultClog, faultPause, faultCut, faultHeal)(p)
	p.net.loss, p.net.twice, p.net.inOrder, p.net.late = 0.02, 0.3, false, 0.1
	shortLived(p, 300*time.Millisecond)
}

// frozen is late with processes that stand still often, and many reads.
func frozen(p *plan) {
	late(p)
	only(faultPause, faultClog)(p)
	p.load.puts, p.load.deletes, p.load.updates = 0.15, 0.25, 0.1
}

// shortLived scales the life of a message.
func shortLived(p *plan, life time.Duration) {
	p.heal.life, p.heal.pause, p.heal.turn = life, life*11/10, life*5/2
	p.load.timeout = (life * 2 / 7).Truncate(time.Millisecond)
	p.net.mean, p.disk.sync = min(p.net.mean, 3*time.Millisecond), min(p.disk.sync, 3*time.Millisecond)
}

// sloppyReaps makes hints likely where tombstones are reaped.
func sloppyReaps(p *plan) {
	sloppy(p)
	only(faultCrash, faultCut, faultIsolate, faultHeal)(p)
	p.net.loss, p.net.inOrder, p.net.late = 0.05, false, 0.05
	shortLived(p, 300*time.Millisecond)
}

// movingReaps has tombstones reaped while members come and go.
func movingReaps(p *plan) {
	strict(p)
	p.partitions, p.load.keys, p.load.operations, p.net.loss = 1, 10, 600, 0.05
	shortLived(p, 100*time.Millisecond)
}

// slowDisks has disks take longer for a sync than a reaping takes.
func slowDisks(p *plan) {
	shortLived(p, 300*time.Millisecond)
	p.properties.Quorum = quorum.Params{N: min(3, p.nodes), R: 1, W: 1}
	p.disk.sync, p.disk.flush = 400*time.Millisecond, 300*time.Millisecond
}

package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// plan is all that a seed decides before the run: the cluster, the speed of its
// parts, the load, and which faults happen how often.
type plan struct {
	seed       uint64
	nodes      int
	partitions int
	properties bucket.Properties
	// spares is how many fallbacks a request may turn to; above 0 the quorum is
	// sloppy, and unreachable primaries are replaced from the start.
	spares int
	// lease is how many epochs a vnode leases at a time.
	lease uint64
	// batch and queue bound a vnode's turn and its mailbox; inFlight bounds a
	// node's requests.
	batch, queue, inFlight int
	digestAbove            int
	// slack is how much younger than it is a retry may seem.
	slack time.Duration

	load  loadPlan
	net   netPlan
	disk  diskPlan
	fault faultPlan
	move  movePlan
	heal  healPlan
	loss  lossPlan
}

// loadPlan is what the clients do.
type loadPlan struct {
	clients, keys, operations int
	think                     time.Duration
	// timeout is a request's own limit; attempt, if shorter, makes clients try
	// again before that.
	timeout, attempt time.Duration
	// Shares of operations, the rest are gets; blind is the share of writes
	// without context, old of those with a context that is not the latest.
	puts, deletes, updates float64
	blind, old             float64
	// undo is the share of updates that delete what they have read.
	undo     float64
	maxValue int
}

// netPlan is how messages travel.
type netPlan struct {
	least, mean time.Duration
	loss, twice float64
	// late is how many messages are held up, for up to two lives of one.
	late    float64
	inOrder bool
	// detect is how long a link takes to notice that it is cut.
	detect time.Duration
}

// diskPlan is how disks work.
type diskPlan struct {
	sync time.Duration
	// flush is how long an applied batch may wait for a sync of its own.
	flush     time.Duration
	read      time.Duration
	readError float64
}

// faultKind is one thing that can go wrong.
type faultKind uint8

const (
	faultCut faultKind = iota
	faultOneWay
	faultIsolate
	faultHalves
	faultClog
	faultCrash
	faultCrashAll
	faultStop
	faultPause
	faultClock
	faultSyncFails
	faultFull
	faultCorrupt
	faultForget
	faultWipe
	faultHeal
	faultKinds
)

var faultNames = [...]string{
	"cut", "one-way", "isolate", "halves", "clog", "crash", "crash-all", "stop", "pause", "clock", "sync-fails", "full",
	"corrupt", "forget", "wipe", "heal",
}

// String is the kind's word in traces.
func (k faultKind) String() string { return faultNames[k] }

// faultPlan is which faults happen, one every mean on average, in proportion to
// their weights; 0 never.
type faultPlan struct {
	every   time.Duration
	weights [faultKinds]float64
	skew    time.Duration
}

// Streams of randomness, one per purpose, so that one draw more in one of them
// does not move the others.
const (
	streamPlan = iota + 1
	streamNet
	streamDisk
	streamLoad
	streamFault
	streamID
	streamMove
	streamMovePlan
	streamHeal
	streamHealPlan
	streamLoss
	streamLossPlan
)

func stream(seed, purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed*0x9e3779b97f4a7c15+purpose, purpose))
}

// drawPlan draws a seed's plan: in two of five members and ring change, and in two of five of
// those stored objects become unreadable; in two of five replicas are compared.
func drawPlan(seed uint64) plan {
	p, r := drawStill(seed), stream(seed, streamMovePlan)
	if chance(r, 0.4) {
		drawMove(&p, r)
	}
	if r = stream(seed, streamHealPlan); chance(r, 0.4) {
		drawHeal(&p, r)
	}
	if r = stream(seed, streamLossPlan); p.moves() && chance(r, 0.4) {
		drawLoss(&p, r)
	}
	return p
}

// drawStill draws a plan in which members and ring stay as they are.
func drawStill(seed uint64) plan {
	r := stream(seed, streamPlan)
	p := plan{seed: seed, nodes: 3 + r.IntN(5), partitions: 1 << r.IntN(4)}
	n := 1 + r.IntN(p.nodes)
	if chance(r, 0.7) {
		n = 3
	}
	q := quorum.Params{N: n, R: 1 + r.IntN(n), W: 1 + r.IntN(n)}
	if chance(r, 0.5) {
		q.R, q.W = n/2+1, n/2+1
	}
	if chance(r, 0.15) {
		q.PR, q.PW = r.IntN(n+1), r.IntN(n+1)
	}
	p.properties = bucket.Properties{Quorum: q}
	if chance(r, 0.3) {
		p.properties.Durability = dynamo.Durability(r.IntN(3))
	}
	if chance(r, 0.1) {
		p.properties.Conflicts = dynamo.LastWriteWins
	}
	if chance(r, 0.05) {
		p.properties.TTL = between(r, time.Second, 10*time.Second).Truncate(time.Millisecond)
	}
	if chance(r, 0.25) {
		p.spares = 1 + r.IntN(3)
	}
	p.lease = 4 + r.Uint64N(60)
	p.batch, p.queue, p.inFlight = 1+r.IntN(32), 64, 64
	if chance(r, 0.1) {
		p.queue, p.inFlight = 2+r.IntN(6), 1+r.IntN(6)
	}
	if chance(r, 0.4) {
		p.digestAbove = 1 + r.IntN(40)
	}
	p.load = drawLoad(r)
	p.net = drawNet(r)
	p.disk = diskPlan{
		sync: between(r, 2*time.Microsecond, 8*time.Millisecond), flush: between(r, 5*time.Millisecond, 300*time.Millisecond),
		read: between(r, 5*time.Microsecond, time.Millisecond),
	}
	if chance(r, 0.2) {
		p.disk.readError = 0.02 * r.Float64()
	}
	p.fault = drawFaults(r)
	p.slack = between(r, time.Millisecond, time.Second)
	return p
}

func drawLoad(r *rand.Rand) loadPlan {
	l := loadPlan{
		clients: 2 + r.IntN(6), keys: 1 + r.IntN(6), operations: 150 + r.IntN(150), think: between(r, 0, 40*time.Millisecond),
		timeout: between(r, 500*time.Millisecond, 3*time.Second).Truncate(time.Millisecond),
		puts:    0.2 + 0.3*r.Float64(), deletes: 0.1 * r.Float64(), updates: 0.1 + 0.2*r.Float64(),
		undo: 0.1, blind: 0.1 + 0.1*r.Float64(), old: 0.2 * r.Float64(), maxValue: 24 + r.IntN(60),
	}
	if chance(r, 0.6) {
		l.attempt = between(r, 20*time.Millisecond, 300*time.Millisecond)
	}
	return l
}

func drawNet(r *rand.Rand) netPlan {
	n := netPlan{
		least: between(r, 20*time.Microsecond, 2*time.Millisecond), mean: between(r, 100*time.Microsecond, 15*time.Millisecond),
		inOrder: chance(r, 0.4), detect: between(r, time.Millisecond, 400*time.Millisecond),
	}
	if chance(r, 0.5) {
		n.loss = 0.15 * r.Float64()
	}
	if chance(r, 0.5) {
		n.twice = 0.3 * r.Float64()
	}
	return n
}

// drawFaults draws the subset of faults of a seed. One seed in ten has none.
func drawFaults(r *rand.Rand) faultPlan {
	f := faultPlan{every: between(r, 40*time.Millisecond, 600*time.Millisecond), skew: between(r, 0, 100*time.Millisecond)}
	if chance(r, 0.1) {
		f.skew = between(r, 0, 90*time.Second)
	}
	calm := chance(r, 0.1)
	for k := range f.weights {
		if chance(r, 0.35) && !calm {
			f.weights[k] = 0.1 + r.Float64()
		}
	}
	if !calm {
		f.weights[faultHeal] = 0.5 + r.Float64()
	}
	return f
}

// chance is true with probability p.
func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

// between draws a duration, the short ones as likely as the long ones.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	x := r.Float64()
	return least + time.Duration(x*x*float64(most-least))
}

// String is the plan in one line.
func (p plan) String() string {
	var faults []string
	for k, w := range p.fault.weights {
		if w > 0 {
			faults = append(faults, faultKind(k).String())
		}
	}
	moves := "stays"
	if p.moves() {
		moves = fmt.Sprintf("moves, %+v", p.move)
	}
	if p.heals() {
		moves += fmt.Sprintf(" heals, %+v", p.heal)
	}
	if p.loses() {
		moves += fmt.Sprintf(" loses, %+v", p.loss)
	}
	return fmt.Sprintf("nodes=%d partitions=%d %v durability=%v conflicts=%v spares=%d clients=%d keys=%d operations=%d loss=%.2f twice=%.2f faults=%s every %v ring %s",
		p.nodes, p.partitions, p.properties.Quorum, p.properties.Durability, p.properties.Conflicts, p.spares, p.load.clients,
		p.load.keys, p.load.operations, p.net.loss, p.net.twice, strings.Join(faults, ","), p.fault.every.Round(time.Millisecond), moves)
}

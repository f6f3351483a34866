package sim

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo/quorum"
)

var seeds = flag.Uint64("sim.seeds", 150, "seeds that TestSeeds runs")

// TestSeeds runs a few hundred clusters; `make sim` runs many more.
func TestSeeds(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = 30
	}
	acked := 0
	for seed := uint64(1); seed <= n; seed++ {
		r := Run(seed, nil)
		acked += r.Acked
		if r.Violation != nil {
			t.Errorf("seed %d: %v\n%s\nreplay: make sim SEED=%d", seed, r.Violation, r.Plan, seed)
		}
	}
	if acked < int(n)*50 {
		t.Errorf("only %d writes were acknowledged in %d seeds: the faults leave nothing to check", acked, n)
	}
}

// TestSameSeedSameTrace is the gate of determinism: without it no failure could
// be replayed. Keeping a trace must change nothing either.
func TestSameSeedSameTrace(t *testing.T) {
	hashes := map[uint64]uint64{}
	for seed := uint64(1); seed <= 50; seed++ {
		var lines [2][]string
		a := Run(seed, func(s string) { lines[0] = append(lines[0], s) })
		b := Run(seed, func(s string) { lines[1] = append(lines[1], s) })
		if a.Hash != b.Hash || a.Steps != b.Steps || !slices.Equal(lines[0], lines[1]) {
			t.Fatalf("seed %d differs from itself: %d steps with hash %x, then %d with %x", seed, a.Steps, a.Hash, b.Steps, b.Hash)
		}
		if seed%10 == 0 {
			if c := Run(seed, nil); c.Hash != a.Hash {
				t.Fatalf("seed %d: the trace changes the run", seed)
			}
		}
		if other, ok := hashes[a.Hash]; ok {
			t.Fatalf("seeds %d and %d are the same run", seed, other)
		}
		hashes[a.Hash] = seed
	}
}

// TestPlansVary makes sure that the seeds cover the space that they should.
func TestPlansVary(t *testing.T) {
	nodes, durability, faults := map[int]int{}, map[string]int{}, map[faultKind]int{}
	sloppy, calm := 0, 0
	for seed := uint64(1); seed <= 500; seed++ {
		p := drawPlan(seed)
		if err := p.properties.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		nodes[p.nodes]++
		durability[p.properties.Durability.String()]++
		if p.spares > 0 {
			sloppy++
		}
		none := true
		for k, w := range p.fault.weights {
			if w > 0 {
				faults[faultKind(k)]++
				none = false
			}
		}
		if none {
			calm++
		}
	}
	if len(nodes) != 5 || len(durability) != 3 || len(faults) != int(faultKinds) || sloppy < 50 || calm < 20 {
		t.Fatalf("nodes %v, durability %v, faults %v, sloppy %d, calm %d", nodes, durability, faults, sloppy, calm)
	}
}

// sloppy makes hints likely: fallbacks, and nodes that are gone for a while.
func sloppy(p *plan) {
	only(faultCrash, faultCut, faultIsolate, faultHeal)(p)
	p.nodes, p.spares = 5, 2
	p.properties.Quorum = quorum.Params{N: 3, R: 2, W: 2}
	p.disk.sync = 5 * time.Millisecond
}

// TestMutations plants bugs and requires that the checks find each of them
// within its number of seeds, as a breach of an invariant that it breaks. shape
// turns the plans towards what the bug needs, where it is rare.
func TestMutations(t *testing.T) {
	for _, tc := range []struct {
		mutation mutation
		seeds    uint64
		breaks   []string
		shape    func(*plan)
	}{
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
	} {
		t.Run(tc.mutation.String(), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= tc.seeds; seed++ {
				p := drawPlan(seed)
				if tc.shape != nil {
					tc.shape(&p)
				}
				v := run(p, tc.mutation, nil).Violation
				if v == nil {
					continue
				}
				if !slices.Contains(tc.breaks, v.Invariant) {
					t.Fatalf("seed %d: it breaks %v, want one of %v", seed, v, tc.breaks)
				}
				t.Logf("caught by seed %d: %v", seed, v)
				return
			}
			t.Fatalf("not caught in %d seeds", tc.seeds)
		})
	}
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

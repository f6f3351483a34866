package sim

import (
	"flag"
	"slices"
	"testing"
)

var seeds = flag.Uint64("sim.seeds", 150, "seeds that TestSeeds runs")

// TestSeeds runs a few hundred clusters; `make sim` runs many more.
func TestSeeds(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = 30
	}
	acked, moved, healed := 0, Moved{}, Healed{}
	for seed := uint64(1); seed <= n; seed++ {
		r := Run(seed, nil)
		acked += r.Acked
		moved.Add(r.Moved)
		healed.Add(r.Healed)
		if r.Violation != nil {
			t.Errorf("seed %d: %v\n%s\nreplay: make sim SEED=%d", seed, r.Violation, r.Plan, seed)
		}
	}
	if acked < int(n)*50 {
		t.Errorf("only %d writes were acknowledged in %d seeds: the faults leave nothing to check", acked, n)
	}
	if moved.Rings < int(n) || moved.TakeOvers < int(n)/10 || moved.Removals < int(n)/20 || moved.Replans < int(n) {
		t.Errorf("in %d seeds only %+v happened to members and rings", n, moved)
	}
	if moved.Ruins < int(n)/10 || moved.Accepted < int(n)/50 {
		t.Errorf("in %d seeds only %d disks were lost with others and %d losses accepted", n, moved.Ruins, moved.Accepted)
	}
	if h := healed; h.Exchanges < 20*int(n) || h.Mended < int(n)/2 || h.Amid < int(n)/5 || h.Reaped < int(n) || h.Refused < int(n) {
		t.Errorf("in %d seeds only %+v was compared and reaped", n, h)
	}
	if h := healed; h.Lost < int(n)/10 || h.Renewed < h.Lost/2 {
		t.Errorf("in %d seeds only %d replicas were given up, and %d of them renewed", n, h.Lost, h.Renewed)
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
	sloppy, calm, reaps := 0, 0, 0
	for seed := uint64(1); seed <= 500; seed++ {
		p := drawStill(seed)
		if err := p.properties.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		nodes[p.nodes]++
		durability[p.properties.Durability.String()]++
		if p.spares > 0 {
			sloppy++
		}
		if p := drawPlan(seed); p.reaps() {
			reaps++
			if err := p.properties.Validate(); err != nil || !p.heals() {
				t.Fatalf("seed %d: %v, heals %v", seed, err, p.heals())
			}
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
	if len(nodes) != 5 || len(durability) != 3 || len(faults) != int(faultKinds) || sloppy < 50 || calm < 20 || reaps < 100 {
		t.Fatalf("nodes %v, durability %v, faults %v, sloppy %d, calm %d, reaps %d", nodes, durability, faults, sloppy, calm, reaps)
	}
}

// TestMutations plants bugs and requires that the checks find each of them within its
// number of seeds, as a breach of an invariant that it breaks. Those that take long are
// left to `make mutants`.
func TestMutations(t *testing.T) {
	for _, m := range mutants() {
		if m.seeds > 50 && (m.moves || m.heals) {
			continue
		}
		t.Run(m.mutation.String(), func(t *testing.T) {
			t.Parallel()
			seed, v := m.hunt()
			switch {
			case v == nil:
				t.Fatalf("not caught in %d seeds", m.seeds)
			case !slices.Contains(m.breaks, v.Invariant):
				t.Fatalf("seed %d: it breaks %v, want one of %v", seed, v, m.breaks)
			}
			t.Logf("caught by seed %d: %v", seed, v)
		})
	}
	if n := len(mutants()); n != int(mutations)-1 {
		t.Fatalf("%d mutants of %d", n, mutations-1)
	}
}

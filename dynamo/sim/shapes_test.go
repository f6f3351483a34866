package sim

import (
	"flag"
	"slices"
	"testing"
)

var shapeSeeds = flag.Uint64("sim.shapes", 5, "seeds that TestShapes runs of each plan")

// TestShapes: the plans that mutants are hunted with are ones that a sound cluster gets
// through.
func TestShapes(t *testing.T) {
	for _, m := range slices.Concat(healingMutants(), losingMutants()) {
		t.Run(m.mutation.String(), func(t *testing.T) {
			t.Parallel()
			m.mutation, m.seeds = sound, *shapeSeeds
			if seed, v := m.hunt(); v != nil {
				t.Errorf("seed %d: %v", seed, v)
			}
		})
	}
}

package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestZipfIsSkewedAndCoversTheKeys(t *testing.T) {
	const n, draws = 1000, 200_000
	z := NewZipf(n, 0.99)
	r := rand.New(rand.NewPCG(1, 2))
	counts := make([]int, n)
	for range draws {
		counts[z.Draw(r)]++
	}
	slices.Sort(counts)
	// For theta 0.99 and n = 1000 the first rank has 1/H = 13 % of the draws.
	if top := counts[n-1]; top < draws/10 || top > draws/5 {
		t.Errorf("the hottest key has %d of %d draws", top, draws)
	}
	if counts[n/2] == 0 {
		t.Error("half of the keys are never drawn")
	}
}

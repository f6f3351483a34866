package bench

import (
	"math"
	"math/rand/v2"
)

// Zipf draws ranks 0 to n-1 with probability proportional to 1/(rank+1)^theta,
// theta below 1 (Gray et al., "Quickly generating billion-record synthetic
// databases", SIGMOD 1994), scattered over the keys so that hot keys do not
// lie side by side.
type Zipf struct {
	n                 uint64
	theta, alpha, eta float64
	zetan, half       float64
}

// NewZipf prepares to draw from n keys; it takes time proportional to n.
func NewZipf(n uint64, theta float64) *Zipf {
	z := &Zipf{n: n, theta: theta, alpha: 1 / (1 - theta), half: 1 + math.Pow(0.5, theta)}
	for i := uint64(1); i <= n; i++ {
		z.zetan += 1 / math.Pow(float64(i), theta)
	}
	z.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - z.half/z.zetan)
	return z
}

// Draw returns the index of a key.
func (z *Zipf) Draw(r *rand.Rand) uint64 {
	u := r.Float64()
	uz := u * z.zetan
	var rank uint64
	switch {
	case uz < 1:
	case uz < z.half:
		rank = 1
	default:
		rank = uint64(float64(z.n) * math.Pow(z.eta*u-z.eta+1, z.alpha))
	}
	return scatter(min(rank, z.n-1)) % z.n
}

// scatter is the finalizer of splitmix64.
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

package admission

import (
	"math/bits"
	"time"
)

// Buckets is how many a histogram has.
const Buckets = 160

// finest is the upper bound of the first bucket.
const finest = 16 * time.Microsecond

// Histogram counts durations in buckets, eight for each power of two, from 16 µs to
// 16 s, so that a percentile is off by at most an eighth.
type Histogram [Buckets]float64

// Bucket is the index of the bucket that a duration belongs to.
func Bucket(d time.Duration) int {
	units := uint64(max(d, 0) / (finest / 8)) // of 2 µs
	if units < 8 {
		return 0
	}
	shift := bits.Len64(units) - 4 // units>>shift is 8 to 15
	return min(shift*8+int(units>>shift)-8+1, Buckets-1)
}

// bound is the upper bound of a bucket.
func bound(i int) time.Duration {
	if i == 0 {
		return finest
	}
	shift, part := (i-1)/8, (i-1)%8
	return time.Duration(part+9) << shift * (finest / 8)
}

// Count is how many durations there are.
func (h *Histogram) Count() float64 {
	n := 0.0
	for _, x := range h {
		n += x
	}
	return n
}

// Percentile is the duration that so great a share of all lies at or below, rounded
// up to the bound of a bucket; 0 if there are none.
func (h *Histogram) Percentile(share float64) time.Duration {
	left := share * h.Count()
	if left == 0 {
		return 0
	}
	last := 0
	for i, x := range h {
		if x > 0 {
			last = i
		}
		if left -= x; left <= 0 && x > 0 {
			return bound(i)
		}
	}
	return bound(last)
}

// add counts what another histogram has.
func (h *Histogram) add(o *Histogram) {
	for i, x := range o {
		h[i] += x
	}
}

// fade multiplies all by a factor.
func (h *Histogram) fade(by float64) {
	for i := range h {
		h[i] *= by
	}
}

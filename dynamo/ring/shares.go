package ring

import (
	"math/bits"
	"slices"
)

// share is how many replica places a member deserves: num/den, an exact
// fraction, so that every node computes the same ring.
type share struct{ num, den int64 }

func (s share) floor() int { return int(s.num / s.den) }
func (s share) ceil() int  { return int((s.num + s.den - 1) / s.den) }

// fracLess compares the fractional parts.
func (s share) fracLess(o share) bool {
	// a/b < c/d with fractions below one; the products of a remainder and a
	// divisor exceed 64 bits for extreme capacities.
	aHi, aLo := bits.Mul64(uint64(s.num%s.den), uint64(o.den))
	bHi, bLo := bits.Mul64(uint64(o.num%o.den), uint64(s.den))
	return aHi < bHi || aHi == bHi && aLo < bLo
}

// zoneLimit is the smallest number of replicas of one partition that a zone
// must be allowed to hold so that k distinct nodes can be found at all. It is 1
// when there are k zones or more.
func zoneLimit(k int, zones [][]int) int {
	for limit := 1; ; limit++ {
		room := 0
		for _, z := range zones {
			room += min(limit, len(z))
		}
		if room >= k {
			return limit
		}
	}
}

// fairShares splits the k places of each of q partitions over the members in
// proportion to capacity, as far as two limits allow: a member holds a
// partition once, a zone at most limit times. What a limited member or zone can
// not take goes to the others in proportion. zones lists the members of each
// zone by index; capacity is per member.
func fairShares(capacity []int64, zones [][]int, q, k, limit int) []share {
	shares := make([]share, len(capacity))
	fixed := make([]bool, len(zones))
	total := int64(q) * int64(k)
	for {
		var open []int
		left := total
		for z, members := range zones {
			if fixed[z] {
				left -= int64(q) * int64(min(limit, len(members)))
			} else {
				open = append(open, members...)
			}
		}
		fill(shares, capacity, open, left, int64(q))
		again := false
		for z, members := range zones {
			most := int64(min(limit, len(members)))
			if sum := sumShares(shares, members); !fixed[z] && sum.num > most*int64(q)*sum.den {
				fixed[z], again = true, true
				fill(shares, capacity, members, most*int64(q), int64(q))
			}
		}
		if !again {
			return shares
		}
	}
}

// fill gives the members total places in proportion to capacity, none more
// than most, by raising a common level until everything is placed.
func fill(shares []share, capacity []int64, members []int, total, most int64) {
	full := make(map[int]bool, len(members))
	for {
		weight, left := int64(0), total
		for _, m := range members {
			if full[m] {
				left -= most
			} else {
				weight += capacity[m]
			}
		}
		again := false
		for _, m := range members {
			if full[m] {
				continue
			}
			shares[m] = share{num: left * capacity[m], den: weight}
			if left*capacity[m] >= most*weight {
				shares[m] = share{num: most, den: 1}
				full[m], again = true, true
			}
		}
		if !again {
			return
		}
	}
}

// apportion rounds shares to whole numbers that add up to total, each between
// lo and hi and, when that leaves a solution, at the floor or the ceiling of
// its share. Of those that could go either way, the ones that hold more than
// their floor now are rounded up first, so that they need not give anything
// away; then larger remainders; then lower indexes.
func apportion(shares []share, lo, hi, now []int, total int) []int {
	result := make([]int, len(shares))
	order := make([]int, len(shares))
	sum := 0
	for i, s := range shares {
		order[i] = i
		result[i] = min(max(s.floor(), lo[i]), hi[i])
		sum += result[i]
	}
	slices.SortStableFunc(order, func(a, b int) int {
		holdsA, holdsB := now[a] > shares[a].floor(), now[b] > shares[b].floor()
		switch {
		case holdsA != holdsB && holdsA, holdsA == holdsB && shares[b].fracLess(shares[a]):
			return -1
		case holdsA != holdsB, shares[a].fracLess(shares[b]):
			return 1
		}
		return 0
	})
	for _, i := range order {
		if sum < total && result[i] < min(shares[i].ceil(), hi[i]) {
			result[i]++
			sum++
		}
	}
	// The limits lo and hi leave no exact solution: deviate by as little as
	// they allow.
	for changed := true; sum != total && changed; {
		changed = false
		for _, i := range order {
			if sum < total && result[i] < hi[i] {
				result[i], sum, changed = result[i]+1, sum+1, true
			} else if sum > total && result[i] > lo[i] {
				result[i], sum, changed = result[i]-1, sum-1, true
			}
		}
	}
	return result
}

// targets apportions in two steps, first to zones and then within each zone, so
// that rounding never gives a zone more than its limit.
func targets(shares []share, zones [][]int, lo, hi, now []int, total int) []int {
	zoneShares := make([]share, len(zones))
	pick := func(values []int, members []int) (picked []int, sum int) {
		for _, m := range members {
			picked = append(picked, values[m])
			sum += values[m]
		}
		return picked, sum
	}
	zlo, zhi, znow := make([]int, len(zones)), make([]int, len(zones)), make([]int, len(zones))
	for z, members := range zones {
		zoneShares[z] = sumShares(shares, members)
		_, zlo[z] = pick(lo, members)
		_, zhi[z] = pick(hi, members)
		_, znow[z] = pick(now, members)
	}
	result := make([]int, len(shares))
	for z, t := range apportion(zoneShares, zlo, zhi, znow, total) {
		members := zones[z]
		var own []share
		for _, m := range members {
			own = append(own, shares[m])
		}
		mlo, _ := pick(lo, members)
		mhi, _ := pick(hi, members)
		mnow, _ := pick(now, members)
		for i, n := range apportion(own, mlo, mhi, mnow, t) {
			result[members[i]] = n
		}
	}
	return result
}

// sumShares adds the shares of one zone, which have one denominator or are
// whole.
func sumShares(shares []share, members []int) share {
	sum := share{den: 1}
	for _, m := range members {
		if s := shares[m]; s.den == sum.den {
			sum.num += s.num
		} else if s.den == 1 {
			sum.num += s.num * sum.den
		} else {
			sum = share{num: sum.num*s.den + s.num, den: s.den}
		}
	}
	return sum
}

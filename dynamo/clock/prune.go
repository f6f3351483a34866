package clock

import (
	"cmp"
	"slices"
)

// Prune drops the entries that were updated longest ago until at most limit are
// left, and returns how many it dropped (§ 4.4, clock truncation). Entries for
// which keep returns true stay. A limit below 1 means no limit.
//
// Truncation loses ancestry: a replica that still holds a version under a
// dropped entry may bring it back as a sibling. So it is done only where the
// paper does it, in a client's write.
func (c Clock) Prune(limit int, keep func(Actor) bool) (Clock, int) {
	excess := len(c.entries) - limit
	if limit < 1 || excess <= 0 {
		return c, 0
	}
	oldest := slices.DeleteFunc(slices.Clone(c.entries), func(e Entry) bool { return keep(e.Actor) })
	slices.SortFunc(oldest, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), a.Actor.Compare(b.Actor))
	})
	oldest = oldest[:min(excess, len(oldest))]
	gone := make(map[Actor]bool, len(oldest))
	for _, e := range oldest {
		gone[e.Actor] = true
	}
	out := slices.DeleteFunc(slices.Clone(c.entries), func(e Entry) bool { return gone[e.Actor] })
	return Clock{entries: out}, len(oldest)
}

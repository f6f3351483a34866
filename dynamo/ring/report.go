package ring

import (
	"fmt"
	"slices"
)

// Report says what a claim costs and where it falls short.
type Report struct {
	// Moves is how many (partition, node) pairs the new ring has among the
	// first Focus places that the settled ring does not: each is one transfer
	// of a partition's data. It is 0 when there was no settled ring.
	Moves int
	// LeastMoves is a number of moves that no balanced ring can do with less.
	LeastMoves int
	// Prefixes has one entry per n, from 1 to the length of the lists.
	Prefixes []Prefix
	// Warnings are what an operator should know before accepting the ring.
	Warnings []Warning
}

// Prefix is what a claim means for buckets of n replicas.
type Prefix struct {
	// N is the number of places counted from the front of each list.
	N int
	// Moves and LeastMoves are as in Report, for this n.
	Moves, LeastMoves int
	// Off is the largest number of partitions by which a member has more than
	// its share rounded up or less than its share rounded down: 0 when the
	// prefix is balanced exactly.
	Off int
	// Shared is in how many partitions the first N places have more nodes of
	// one zone than the number of zones forces.
	Shared int
}

// WarningKind tells warnings apart.
type WarningKind uint8

const (
	// FewNodes: there are fewer members than the usual number of replicas.
	FewNodes WarningKind = iota
	// FewZones: replicas share a zone because there are too few zones.
	FewZones
	// SharedZone: replicas share a zone although there are enough zones.
	SharedZone
	// UnevenZones: some members carry more than their capacity says, because
	// the replicas must lie in distinct zones.
	UnevenZones
	// Unbalanced: some prefix is not balanced exactly.
	Unbalanced
	// IdleMembers: there are more members than places, so some hold nothing.
	IdleMembers
)

// Warning is one thing an operator should know.
type Warning struct {
	Kind WarningKind
	// Text says it in one sentence.
	Text string
}

// report compares the new lists with the settled ones. wanted is how many
// replicas there should be.
func (c *claim) report(lists [][]int32, wanted int) Report {
	var r Report
	for n := 1; n <= c.depth; n++ {
		r.Prefixes = append(r.Prefixes, c.prefix(lists, n))
	}
	focus := r.Prefixes[min(Focus, c.depth)-1]
	r.Moves, r.LeastMoves = focus.Moves, focus.LeastMoves
	warn := func(kind WarningKind, format string, args ...any) {
		r.Warnings = append(r.Warnings, Warning{kind, fmt.Sprintf(format, args...)})
	}
	if len(c.members) < wanted {
		warn(FewNodes, "%d members hold at most %d replicas; %d need as many members", len(c.members), len(c.members), wanted)
	}
	if limit := zoneLimit(focus.N, c.zones); limit > 1 {
		warn(FewZones, "%d zones for %d replicas: up to %d of them share a zone", len(c.zones), focus.N, limit)
	}
	for _, p := range r.Prefixes {
		if p.Shared > 0 {
			warn(SharedZone, "in %d partitions more than needed of the first %d replicas share a zone", p.Shared, p.N)
		}
		if p.Off > 0 {
			warn(Unbalanced, "with %d replicas some member is %d partitions off its share", p.N, p.Off)
		}
	}
	c.warnMembers(lists, focus.N, warn)
	return r
}

// prefix counts moves and balance of the first n places.
func (c *claim) prefix(lists [][]int32, n int) Prefix {
	limit := zoneLimit(n, c.zones)
	shares := fairShares(c.capacity, c.zones, c.q, n, limit)
	now, held := c.now(n)
	count := make([]int, len(c.members))
	result := Prefix{N: n}
	perZone := make([]int, len(c.zones))
	for p, list := range lists {
		shared := false
		clear(perZone)
		for _, u := range list[:n] {
			count[u]++
			if c.founded && !slices.Contains(now[p], u) {
				result.Moves++
			}
			perZone[c.zone[u]]++
			shared = shared || perZone[c.zone[u]] > limit
		}
		if shared {
			result.Shared++
		}
	}
	missing, kept := 0, 0
	for i, s := range shares {
		result.Off = max(result.Off, count[i]-s.ceil(), s.floor()-count[i])
		missing += max(0, s.floor()-held[i])
		kept += min(held[i], s.ceil())
	}
	if c.founded {
		result.LeastMoves = max(missing, c.q*n-kept)
	}
	return result
}

// warnMembers warns of members that hold nothing, and of members that hold at
// least a quarter more than their part of all capacity because of zones.
func (c *claim) warnMembers(lists [][]int32, n int, warn func(WarningKind, string, ...any)) {
	alone := make([][]int, len(c.members))
	for i := range alone {
		alone[i] = []int{i}
	}
	free := fairShares(c.capacity, alone, c.q, n, 1)
	count := make([]int, len(c.members))
	for _, list := range lists {
		for _, u := range list[:n] {
			count[u]++
		}
	}
	idle, most := 0, -1
	for i, held := range count {
		if held == 0 {
			idle++
		}
		if 4*held > 5*free[i].ceil() && (most < 0 || held*free[most].ceil() > count[most]*free[i].ceil()) {
			most = i
		}
	}
	if idle > 0 {
		warn(IdleMembers, "%d members hold no data of %d replicas: there are too few partitions", idle, n)
	}
	if most >= 0 {
		warn(UnevenZones, "member %q carries %d partitions where its capacity says %d, because its zone is small",
			c.members[most].ID, count[most], free[most].ceil())
	}
}

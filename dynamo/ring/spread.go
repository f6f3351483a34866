package ring

import "slices"

// spread places nodes on partitions, k to each: the working state of one claim
// step. It starts from what is there, fills what is empty, and then moves as
// little as needed to bring every node to its target.
type spread struct {
	// k is how many nodes each partition gets, limit how many of one zone.
	k, limit int
	// zone is each node's zone.
	zone []int
	// target is how many partitions each node should get, floor and ceil what
	// would still be balanced, count what it has.
	target, floor, ceil, count []int
	// lists are the nodes of each partition; the first fixed of them stay.
	lists [][]int32
	fixed int
	// within, when not nil, names the only nodes that each partition may get;
	// of says the reverse.
	within [][]int32
	of     [][]int32
	// left is how many partitions still lack nodes.
	left       int
	candidates []int32 // buffer of pick and nodes
	// State of balance: what nodes should have, their rank in this round, the
	// next of their places to try, the rank of those that give, and the
	// partitions of the chain under way.
	goal, ranks, next []int
	far               int
	chain             []int
}

// start puts the nodes that are there now onto the partition lists, as far as
// the partition may keep them. now lists the nodes of each partition in order
// of preference; nodes that are gone are negative.
func (s *spread) start(now [][]int32) {
	s.count = make([]int, len(s.zone))
	s.ranks = make([]int, len(s.zone))
	s.next = make([]int, len(s.zone))
	if s.within != nil {
		s.of = make([][]int32, len(s.zone))
		for p, nodes := range s.within {
			for _, u := range nodes {
				s.of[u] = append(s.of[u], int32(p))
			}
		}
	}
	for p, list := range s.lists {
		for _, u := range list {
			s.count[u]++
		}
		for _, u := range now[p] {
			if len(s.lists[p]) < s.k && u >= 0 && s.fits(p, u) {
				s.add(p, u)
			}
		}
		if len(s.lists[p]) < s.k {
			s.left++
		}
	}
}

func (s *spread) add(p int, u int32) {
	s.lists[p] = append(s.lists[p], u)
	s.count[u]++
}

// fits reports whether partition p may take u beside what it has.
func (s *spread) fits(p int, u int32) bool {
	if s.within != nil && !slices.Contains(s.within[p], u) {
		return false
	}
	return !slices.Contains(s.lists[p], u) && s.inZone(p, s.zone[u]) < s.limit
}

func (s *spread) inZone(p, zone int) int {
	n := 0
	for _, v := range s.lists[p] {
		if s.zone[v] == zone {
			n++
		}
	}
	return n
}

// fill gives every partition that lacks nodes some that are below their
// target. prefer lists nodes to take first if they are.
func (s *spread) fill(prefer [][]int32) {
	short := make([]int, slices.Max(s.zone)+1)
	for u := range s.zone {
		short[s.zone[u]] += max(0, s.target[u]-s.count[u])
	}
	for p := range s.lists {
		if len(s.lists[p]) >= s.k {
			continue
		}
		for _, u := range prefer[p] {
			if len(s.lists[p]) < s.k && u >= 0 && s.count[u] < s.target[u] && s.fits(p, u) {
				s.add(p, u)
				short[s.zone[u]]--
			}
		}
		for len(s.lists[p]) < s.k {
			u, ok := s.pick(p, short)
			if !ok {
				break
			}
			s.add(p, u)
			short[s.zone[u]]--
		}
		s.left--
	}
}

// pick chooses a node below its target for partition p. A node, or a zone, that
// needs a place in every partition left is taken first; otherwise the choice
// is spread by a hash, in proportion to what nodes still need, so that the
// partitions of one node share many other nodes and its load is spread over
// all of them when it fails.
func (s *spread) pick(p int, short []int) (int32, bool) {
	best, weight := 0, 0
	s.candidates = s.candidates[:0]
	consider := func(u int32) {
		need := s.target[u] - s.count[u]
		if need <= 0 || !s.fits(p, u) {
			return
		}
		class := 1
		if need >= s.left {
			class = 3
		} else if short[s.zone[u]] >= s.limit*s.left {
			class = 2
		}
		if class > best {
			best, weight, s.candidates = class, 0, s.candidates[:0]
		}
		if class == best {
			weight += need
			s.candidates = append(s.candidates, u)
		}
	}
	if s.within != nil {
		for _, u := range s.within[p] {
			consider(u)
		}
	} else {
		for u := range s.zone {
			consider(int32(u))
		}
	}
	if weight == 0 {
		return 0, false
	}
	r := int(scramble(uint64(p), uint64(len(s.lists[p]))) % uint64(weight))
	for _, u := range s.candidates {
		if r -= s.target[u] - s.count[u]; r < 0 {
			return u, true
		}
	}
	panic("ring: weights of candidates do not add up")
}

// scramble mixes two numbers into one that looks random (splitmix64).
func scramble(a, b uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 + b*0xd1b54a32d192ed03 + 0x8cb92ba72f3d8dd7
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// settle brings every node to its target by the fewest exchanges it can find,
// then to balance where the target cannot be reached, and leaves no partition
// with an empty place.
func (s *spread) settle() {
	if s.balanced() {
		return // do not move data for another rounding of the same shares
	}
	for range 2 {
		s.balance(s.target)
		s.balance(s.floor)
		s.balance(s.ceil)
		if !s.force() {
			return
		}
		// An exchange may involve a partition once; now that its empty place
		// is taken, what could not be done in one step may be done in two.
	}
}

// balanced reports whether no place is empty and every node has its share,
// rounded up or down.
func (s *spread) balanced() bool {
	for u, n := range s.count {
		if n < s.floor[u] || n > s.ceil[u] {
			return false
		}
	}
	return !slices.ContainsFunc(s.lists, func(list []int32) bool { return len(list) < s.k })
}

// balance moves places from nodes above level to nodes below it, in rounds as
// Dinic's maximum flow does: each round uses only the shortest chains of
// exchanges there are.
func (s *spread) balance(level []int) {
	s.goal = level
	for s.rank() {
		progress := false
		for u := range s.zone {
			for s.count[u] < level[u] && s.take(int32(u)) {
				s.count[u]++
				progress = true
			}
		}
		if !progress {
			return
		}
	}
}

// gives reports whether v has more than the goal of this balance.
func (s *spread) gives(v int32) bool { return s.count[v] > s.goal[v] }

// unranked is the rank of a node that no chain of this round uses.
const unranked = -1

// rank finds for every node how many exchanges it is away from one below the
// goal, as far as the nearest place to take from, and reports whether there is
// such a place.
func (s *spread) rank() bool {
	var layer []int32
	for u := range s.zone {
		s.ranks[u], s.next[u] = unranked, 0
		if s.count[u] < s.goal[u] {
			s.ranks[u] = 0
			layer = append(layer, int32(u))
		}
	}
	for depth := 1; len(layer) > 0; depth++ {
		var further []int32
		found := false
		for _, x := range layer {
			for i := range s.places(x) {
				end := s.options(x, s.place(x, i), func(_ int, v int32) bool {
					if s.ranks[v] == unranked {
						s.ranks[v] = depth
						further = append(further, v)
					}
					return s.gives(v)
				})
				found = found || end
				if found && depth == 1 {
					break // what more could be ranked is never used
				}
			}
		}
		if found {
			s.far = depth
			return true
		}
		layer = further
	}
	return false
}

// places is how many partitions a node may be placed on, place the i-th.
func (s *spread) places(x int32) int {
	if s.of != nil {
		return len(s.of[x])
	}
	return len(s.lists)
}

func (s *spread) place(x int32, i int) int {
	// Each node begins elsewhere, so that what one takes is spread.
	i = (i + int(scramble(uint64(x), 0)%uint64(s.places(x)))) % s.places(x)
	if s.of != nil {
		return int(s.of[x][i])
	}
	return i
}

// options calls visit with each node, and its index in the list, that x could
// replace in partition p, until visit returns true; -1 stands for an empty
// place, which always ends it. It reports whether it was ended.
func (s *spread) options(x int32, p int, visit func(i int, v int32) bool) bool {
	list := s.lists[p]
	if slices.Contains(list, x) {
		return false
	}
	crowded := s.inZone(p, s.zone[x]) >= s.limit
	if len(list) < s.k && !crowded {
		visit(-1, x)
		return true
	}
	for i := s.fixed; i < len(list); i++ {
		if crowded && s.zone[list[i]] != s.zone[x] {
			continue
		}
		if visit(i, list[i]) {
			return true
		}
	}
	return false
}

// take gives x one more place by a chain along the ranks: x replaces a node
// that gives, or one that can itself take another place. It does not count x's
// gain. Partitions on the chain so far are left alone, for what x sees there is
// about to change.
func (s *spread) take(x int32) bool {
	for ; s.next[x] < s.places(x); s.next[x]++ {
		p := s.place(x, s.next[x])
		if slices.Contains(s.chain, p) {
			continue
		}
		s.chain = append(s.chain, p)
		done := s.options(x, p, func(i int, v int32) bool {
			switch {
			case i < 0:
				s.lists[p] = append(s.lists[p], x)
				return true
			case s.gives(v):
				s.count[v]--
			case s.ranks[v] != s.ranks[x]+1 || s.ranks[v] == s.far || !s.take(v):
				return false
			}
			s.lists[p][i] = x
			return true
		})
		s.chain = s.chain[:len(s.chain)-1]
		if done {
			return true
		}
	}
	return false
}

// nodes lists all nodes by index.
func (s *spread) nodes() []int32 {
	if cap(s.candidates) < len(s.zone) {
		s.candidates = make([]int32, len(s.zone))
	}
	s.candidates = s.candidates[:len(s.zone)]
	for i := range s.candidates {
		s.candidates[i] = int32(i)
	}
	return s.candidates
}

// force fills the places that no rule could fill: with the node furthest below
// its target among those of a zone with room, else among all. It reports
// whether there were any.
func (s *spread) force() bool {
	forced := false
	for p := range s.lists {
		for len(s.lists[p]) < s.k {
			best, roomy := int32(-1), false
			for _, u := range s.nodes() {
				if slices.Contains(s.lists[p], u) || s.within != nil && !slices.Contains(s.within[p], u) {
					continue
				}
				room := s.inZone(p, s.zone[u]) < s.limit
				if best < 0 || room && !roomy || room == roomy && s.count[u]-s.target[u] < s.count[best]-s.target[best] {
					best, roomy = u, room
				}
			}
			s.add(p, best)
			forced = true
		}
	}
	return forced
}

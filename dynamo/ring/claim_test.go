package ring

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

// cluster returns n members of capacity 1 spread over zones zones; 0 zones
// leaves them unset.
func cluster(n, zones int) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: dynamo.NodeID(fmt.Sprintf("n%04d", i)), Capacity: 1}
		if zones > 0 {
			members[i].Zone = fmt.Sprintf("z%d", i%zones)
		}
	}
	return members
}

func mustClaim(t testing.TB, settled Ring, members []Member, q, depth int) (Ring, Report) {
	t.Helper()
	r, report, err := Claim(settled, members, q, depth)
	if err != nil {
		t.Fatalf("claim of %d members, q=%d, depth=%d: %v", len(members), q, depth, err)
	}
	return r, report
}

// TestPaper_4_3_DistinctNodesAndBalance founds rings of many shapes. Members are
// equal here, so the promises hold exactly: for every prefix without zones, for
// the usual N and the whole list with them.
func TestPaper_4_3_DistinctNodesAndBalance(t *testing.T) {
	for _, q := range []int{1, 2, 8, 64, 256} {
		for _, n := range []int{1, 2, 3, 4, 5, 7, 10, 24, 70} {
			for _, zones := range []int{0, 1, 2, 3, 5} {
				if zones > n {
					continue
				}
				r, report := mustClaim(t, Ring{}, cluster(n, zones), q, 5)
				checkRing(t, r, cluster(n, zones), q, 5)
				for _, p := range report.Prefixes {
					exact := zones == 0 || p.N == Focus || p.N == r.Depth()
					if exact && p.Off != 0 || p.Shared != 0 {
						t.Errorf("q=%d members=%d zones=%d: prefix %+v", q, n, zones, p)
					}
				}
				if r.Version() != 1 || report.Moves != 0 || report.LeastMoves != 0 {
					t.Errorf("founding: version %d, %d moves, %d least", r.Version(), report.Moves, report.LeastMoves)
				}
			}
		}
	}
}

// checkRing judges a ring with code that shares nothing with Claim's.
func checkRing(t testing.TB, r Ring, members []Member, q, depth int) {
	if r.Partitions() != q || r.Depth() != min(depth, len(members)) {
		t.Fatalf("ring has %d partitions of depth %d, want %d of %d", r.Partitions(), r.Depth(), q, min(depth, len(members)))
	}
	known := make(map[dynamo.NodeID]bool)
	for _, m := range members {
		known[m.ID] = true
	}
	for p := range q {
		seen := make(map[dynamo.NodeID]bool)
		for _, n := range r.Replicas(dynamo.Partition(p)) {
			if seen[n] || !known[n] {
				t.Fatalf("partition %d: %v has a repeated or unknown node", p, r.Replicas(dynamo.Partition(p)))
			}
			seen[n] = true
		}
	}
}

// moves counts (partition, node) pairs of the first n places that are new.
func moves(from, to Ring, n int) int {
	count := 0
	for p := range to.Partitions() {
		old := from.Primaries(dynamo.Partition(p), n)
		for _, node := range to.Primaries(dynamo.Partition(p), n) {
			if !slices.Contains(old, node) {
				count++
			}
		}
	}
	return count
}

// TestClaimSequences claims along random joins, leaves and changes of capacity
// and zone, each upon the ring before.
func TestClaimSequences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := 1 << rapid.IntRange(3, 6).Draw(t, "log q")
		depth := rapid.IntRange(1, 6).Draw(t, "depth")
		zones := rapid.IntRange(0, 5).Draw(t, "zones")
		weighted := rapid.Bool().Draw(t, "weighted")
		var members []Member
		draw := func(i int) Member {
			m := Member{ID: dynamo.NodeID(fmt.Sprintf("n%d", i)), Capacity: 1}
			if weighted {
				m.Capacity = rapid.IntRange(1, 8).Draw(t, "capacity")
			}
			if zones > 0 {
				m.Zone = fmt.Sprintf("z%d", rapid.IntRange(0, zones-1).Draw(t, "zone"))
			}
			return m
		}
		next := rapid.IntRange(1, 9).Draw(t, "founders")
		for i := range next {
			members = append(members, draw(i))
		}
		var ring Ring
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			after, report, err := Claim(ring, members, q, depth)
			if err != nil {
				t.Fatalf("claim: %v", err)
			}
			checkStep(t, ring, after, members, report, q, depth)
			ring = after
			switch i := rapid.IntRange(0, len(members)-1).Draw(t, "whom"); rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				if len(members) > 1 {
					members = slices.Delete(slices.Clone(members), i, i+1)
				}
			case 1:
				members = slices.Clone(members)
				id := members[i].ID
				members[i] = draw(0)
				members[i].ID = id
			default:
				members = append(slices.Clone(members), draw(next))
				next++
			}
		}
	})
}

func checkStep(t *rapid.T, before, after Ring, members []Member, report Report, q, depth int) {
	shuffled := slices.Clone(members)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	again, _, err := Claim(before, shuffled, q, depth)
	if err != nil || !again.Equal(after) {
		t.Fatalf("the order of members matters: %v", err)
	}
	if after.Partitions() != q || after.Depth() != min(depth, len(members)) || after.Version() != before.Version()+1 {
		t.Fatalf("shape: %d partitions, depth %d, version %d", after.Partitions(), after.Depth(), after.Version())
	}
	for p := range q {
		list := after.Replicas(dynamo.Partition(p))
		slices.Sort(list)
		if len(slices.Compact(list)) != after.Depth() {
			t.Fatalf("partition %d: %v repeats a node", p, after.Replicas(dynamo.Partition(p)))
		}
	}
	focus := min(Focus, after.Depth())
	plain := !slices.ContainsFunc(members, func(m Member) bool { return m.Zone != "" || m.Capacity != 1 })
	for _, p := range report.Prefixes {
		if p.Shared > 0 && (p.N <= focus || p.N == after.Depth()) {
			t.Fatalf("prefix %+v: zones shared without need; %v", p, members)
		}
		if p.Off > 0 && (p.N == focus || plain && p.Off > 1) {
			t.Fatalf("prefix %+v is out of balance; q=%d %v", p, q, members)
		}
		if !before.Empty() && p.Moves != moves(before, after, p.N) {
			t.Fatalf("prefix %+v: counted %d moves", p, moves(before, after, p.N))
		}
		if p.Off == 0 && p.Moves < p.LeastMoves {
			t.Fatalf("prefix %+v does with less than the least", p)
		}
	}
	same, report2, err := Claim(after, members, q, depth)
	if err != nil || report2.Moves != 0 || plain && !same.SameLists(after) {
		t.Fatalf("claiming again with the same members moved %d (%v)", report2.Moves, err)
	}
}

// TestClaimMoves states how much is moved by single changes of plain clusters:
// by a join no more than must be, by a leave at most one or two more.
func TestClaimMoves(t *testing.T) {
	for _, zones := range []int{0, 3} {
		for n := 4; n <= 30; n += 2 {
			all := cluster(n, zones)
			small, _ := mustClaim(t, Ring{}, all[:n-1], 256, 5)
			grown, report := mustClaim(t, small, all, 256, 5)
			if zones == 0 && report.Moves != report.LeastMoves {
				t.Errorf("join of member %d moves %d, least %d", n, report.Moves, report.LeastMoves)
			}
			if zones > 0 && report.Moves > 2*report.LeastMoves {
				t.Errorf("join of member %d of 3 zones moves %d, least %d", n, report.Moves, report.LeastMoves)
			}
			_, report = mustClaim(t, grown, slices.Delete(slices.Clone(all), n/2, n/2+1), 256, 5)
			if zones == 0 && report.Moves > report.LeastMoves+1+report.LeastMoves/64 {
				t.Errorf("leave of one of %d moves %d, least %d", n, report.Moves, report.LeastMoves)
			}
		}
	}
}

// TestClaimSpreadsLoadOfFailedNode: a node shares partitions with all others,
// so that its load does not fall on two neighbours when it fails.
func TestClaimSpreadsLoadOfFailedNode(t *testing.T) {
	r, _ := mustClaim(t, Ring{}, cluster(10, 0), 256, 5)
	for _, n := range r.Nodes() {
		with := make(map[dynamo.NodeID]int)
		for _, p := range r.PartitionsOf(n, 3) {
			for _, other := range r.Primaries(p, 3) {
				with[other]++
			}
		}
		delete(with, n)
		if len(with) != 9 {
			t.Errorf("%s shares partitions with %d of 9 nodes", n, len(with))
		}
		for other, shared := range with {
			if shared > 45 { // 17 is the mean
				t.Errorf("%s shares %d partitions with %s", n, shared, other)
			}
		}
	}
}

func TestClaimCapacity(t *testing.T) {
	members := cluster(6, 0)
	members[0].Capacity = 3 // 3 of 8: more than a third, so on every list of three
	members[1].Capacity = 1
	r, report := mustClaim(t, Ring{}, members, 64, 3)
	want := []int{64, 26, 26, 26, 25, 25}
	got := make([]int, 6)
	for i, m := range members {
		got[i] = len(r.PartitionsOf(m.ID, 3))
	}
	slices.SortFunc(got, func(a, b int) int { return b - a })
	if !slices.Equal(got, want) {
		t.Errorf("partitions per member %v, want %v", got, want)
	}
	if got := len(r.PartitionsOf("n0000", 1)); got != 24 {
		t.Errorf("the heavy member comes first in %d partitions, want 24 = 3/8 of 64", got)
	}
	if len(report.Warnings) != 0 {
		t.Errorf("warnings: %v", report.Warnings)
	}
}

func TestClaimWarnings(t *testing.T) {
	uneven := cluster(4, 0)
	for i, z := range []string{"a", "a", "b", "c"} {
		uneven[i].Zone = z
	}
	cases := []struct {
		name    string
		members []Member
		q       int
		want    []WarningKind
	}{
		{"three plain", cluster(3, 0), 64, nil},
		{"three zones", cluster(6, 3), 64, nil},
		{"two members", cluster(2, 0), 64, []WarningKind{FewNodes}},
		{"two zones", cluster(6, 2), 64, []WarningKind{FewZones}},
		{"uneven zones", uneven, 64, []WarningKind{UnevenZones}},
		{"idle", cluster(7, 0), 2, []WarningKind{IdleMembers}},
	}
	for _, c := range cases {
		_, report := mustClaim(t, Ring{}, c.members, c.q, 3)
		var got []WarningKind
		for _, w := range report.Warnings {
			got = append(got, w.Kind)
			if w.Text == "" {
				t.Errorf("%s: a warning says nothing", c.name)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want kinds %v", c.name, report.Warnings, c.want)
		}
	}
}

func TestClaimRefuses(t *testing.T) {
	good := cluster(3, 0)
	settled, _ := mustClaim(t, Ring{}, good, 8, 3)
	bad := func(change func(*Member)) []Member {
		m := slices.Clone(good)
		change(&m[1])
		return m
	}
	cases := []struct {
		name     string
		settled  Ring
		members  []Member
		q, depth int
		want     []error
	}{
		{"q of three", Ring{}, good, 3, 3, []error{ErrPartitions}},
		{"q of zero", Ring{}, good, 0, 3, []error{ErrPartitions}},
		{"q too large", Ring{}, good, 2 * MaxPartitions, 3, []error{ErrPartitions}},
		{"q changed", settled, good, 16, 3, []error{ErrPartitions}},
		{"no depth", Ring{}, good, 8, 0, []error{ErrDepth}},
		{"too deep", Ring{}, good, 8, MaxDepth + 1, []error{ErrDepth}},
		{"nobody", Ring{}, nil, 8, 3, []error{ErrNoMembers}},
		{"twice", Ring{}, bad(func(m *Member) { m.ID = "n0000" }), 8, 3, []error{ErrMember}},
		{"no name", Ring{}, bad(func(m *Member) { m.ID = "" }), 8, 3, []error{ErrMember, dynamo.ErrNodeName}},
		{"no capacity", Ring{}, bad(func(m *Member) { m.Capacity = 0 }), 8, 3, []error{ErrCapacity}},
		{"all at once", Ring{}, bad(func(m *Member) { m.ID, m.Capacity = "a b", MaxCapacity+1 }), 7, 99,
			[]error{ErrPartitions, ErrDepth, ErrMember, ErrCapacity}},
	}
	for _, c := range cases {
		r, _, err := Claim(c.settled, c.members, c.q, c.depth)
		if !r.Empty() || err == nil {
			t.Errorf("%s: was claimed", c.name)
		}
		for _, want := range c.want {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v does not report %v", c.name, err, want)
			}
		}
	}
}

func BenchmarkClaim(b *testing.B) {
	for _, c := range []struct{ n, zones, q int }{{10, 0, 64}, {100, 3, 1024}, {1000, 0, 4096}, {1000, 5, 4096}, {5, 3, 65536}} {
		members := cluster(c.n, c.zones)
		name := fmt.Sprintf("nodes=%d/zones=%d/q=%d/", c.n, c.zones, c.q)
		b.Run(name+"found", func(b *testing.B) {
			for b.Loop() {
				mustClaim(b, Ring{}, members, c.q, 5)
			}
		})
		b.Run(name+"join", func(b *testing.B) {
			settled, _ := mustClaim(b, Ring{}, members[1:], c.q, 5)
			for b.Loop() {
				_, report := mustClaim(b, settled, members, c.q, 5)
				b.ReportMetric(float64(report.Moves), "moves")
				b.ReportMetric(float64(report.LeastMoves), "least")
			}
		})
	}
}

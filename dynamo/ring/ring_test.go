package ring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

// lists parses "abc bca": one list per partition, one letter per node.
func lists(s string) [][]dynamo.NodeID {
	var out [][]dynamo.NodeID
	for word := range strings.FieldsSeq(s) {
		var list []dynamo.NodeID
		for _, c := range word {
			list = append(list, dynamo.NodeID(c))
		}
		out = append(out, list)
	}
	return out
}

func mustNew(t testing.TB, s string) Ring {
	t.Helper()
	r, err := New(7, lists(s))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func letters(nodes []dynamo.NodeID) string {
	var b strings.Builder
	for _, n := range nodes {
		b.WriteString(string(n))
	}
	return b.String()
}

func TestNewRefuses(t *testing.T) {
	for s, want := range map[string]error{
		"":         ErrPartitions,
		"a b c":    ErrPartitions,
		"ab a":     ErrDepth,
		"aba bca":  ErrRepeated,
		"ab b/":    ErrMember,
		"a bc":     ErrDepth,
		"aa bb":    ErrRepeated,
		"ab ba a*": ErrPartitions,
	} {
		if r, err := New(1, lists(s)); !errors.Is(err, want) || !r.Empty() {
			t.Errorf("%q: got %v, want %v", s, err, want)
		}
	}
	if _, err := New(1, [][]dynamo.NodeID{make([]dynamo.NodeID, MaxDepth+1)}); !errors.Is(err, ErrDepth) {
		t.Errorf("too deep: got %v", err)
	}
	if _, err := New(1, [][]dynamo.NodeID{nil}); !errors.Is(err, ErrDepth) {
		t.Errorf("no replica: got %v", err)
	}
}

func TestRingReads(t *testing.T) {
	r := mustNew(t, "cab abd bcd dac")
	if r.Version() != 7 || r.Partitions() != 4 || r.Depth() != 3 || letters(r.Nodes()) != "abcd" {
		t.Errorf("version %d, %d partitions, depth %d, nodes %v", r.Version(), r.Partitions(), r.Depth(), r.Nodes())
	}
	if got := letters(r.Replicas(2)); got != "bcd" {
		t.Errorf("replicas of 2: %s", got)
	}
	if got := letters(r.Primaries(0, 2)) + letters(r.Primaries(0, 9)); got != "ca"+"cab" {
		t.Errorf("primaries of 0: %s", got)
	}
	if !r.IsPrimary(0, 2, "a") || r.IsPrimary(0, 2, "b") || r.IsPrimary(0, 3, "x") {
		t.Error("a and c are the first two of partition 0")
	}
	if got := fmt.Sprint(r.PartitionsOf("d", 3), r.PartitionsOf("d", 2), r.PartitionsOf("x", 3)); got != "[1 2 3] [3] []" {
		t.Errorf("partitions of d: %s", got)
	}
	if !r.Has("d") || r.Has("x") {
		t.Error("d is on the ring and x is not")
	}
	other, err := New(8, lists("cab abd bcd dac"))
	if err != nil || r.Equal(other) || !r.SameLists(other) || r.SameLists(mustNew(t, "cab abd bcd dca")) {
		t.Error("rings compare wrongly")
	}
	if empty := (Ring{}); !empty.Empty() || empty.Partitions() != 0 || empty.Has("a") {
		t.Error("the zero ring is not empty")
	}
}

func TestPreference(t *testing.T) {
	r := mustNew(t, "abc bcd cde dea")
	cases := []struct {
		p         dynamo.Partition
		n, spares int
		down      string
		want      string
	}{
		{0, 3, 0, "", "a b c"},
		{0, 2, 0, "", "a b"},
		{0, 9, 0, "", "a b c"},
		{0, 3, 1, "", "a b c d>"},
		{0, 3, 9, "", "a b c d> e>"},
		{0, 3, 0, "a", "b c d>a"},
		{0, 3, 0, "ac", "b d>a e>c"},
		{0, 3, 0, "ad", "b c e>a"},
		{0, 3, 1, "a", "b c d>a e>"},
		{0, 3, 0, "abd", "c e>a"},
		{0, 3, 0, "abcde", ""},
		{0, 1, 0, "a", "b>a"},
		{0, 1, 1, "a", "b>a c>"},
		{3, 3, 1, "e", "d a b>e c>"},
		{2, 3, 0, "ce", "d a>c b>e"},
	}
	for _, c := range cases {
		up := func(n dynamo.NodeID) bool { return !strings.Contains(c.down, string(n)) }
		var got []string
		for _, x := range r.Candidates(c.p, c.n, c.spares, up) {
			if x.Partition != c.p {
				t.Errorf("%+v: a replica of partition %d", c, x.Partition)
			}
			s := string(x.Node)
			if x.Role == dynamo.Fallback {
				s += ">" + string(x.For)
			}
			got = append(got, s)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("partition %d n=%d spares=%d down %q: got %v, want %v", c.p, c.n, c.spares, c.down, got, c.want)
		}
	}
	if got := letters(r.Order(3)) + " " + letters(r.Order(1)); got != "deabc bcdea" {
		t.Errorf("order: %s", got)
	}
}

// TestPreferenceNever states what no preference list may be, for any ring and
// any set of reachable nodes.
func TestPreferenceNever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := cluster(rapid.IntRange(1, 12).Draw(t, "members"), rapid.IntRange(0, 3).Draw(t, "zones"))
		r, _, err := Claim(Ring{}, members, 16, rapid.IntRange(1, 5).Draw(t, "depth"))
		if err != nil {
			t.Fatal(err)
		}
		down := rapid.SliceOfDistinct(rapid.SampledFrom(members), func(m Member) dynamo.NodeID { return m.ID }).Draw(t, "down")
		up := func(n dynamo.NodeID) bool {
			return !slices.ContainsFunc(down, func(m Member) bool { return m.ID == n })
		}
		p := dynamo.Partition(rapid.IntRange(0, 15).Draw(t, "partition"))
		n, spares := rapid.IntRange(1, 5).Draw(t, "n"), rapid.IntRange(0, 4).Draw(t, "spares")
		list := r.Candidates(p, n, spares, up)
		reachable := 0
		for _, node := range r.Nodes() {
			if up(node) {
				reachable++
			}
		}
		if want := min(reachable, min(n, r.Depth())+spares); len(list) != want {
			t.Fatalf("%d candidates, want %d: %v", len(list), want, list)
		}
		seen, stoodFor := map[dynamo.NodeID]bool{}, map[dynamo.NodeID]bool{}
		for i, x := range list {
			if seen[x.Node] || !up(x.Node) {
				t.Fatalf("%v repeats a node or names an unreachable one", list)
			}
			seen[x.Node] = true
			if primary := r.IsPrimary(p, n, x.Node); primary != (x.Role == dynamo.Primary) {
				t.Fatalf("%v: wrong role of %v", list, x.Node)
			}
			if x.Role == dynamo.Primary && i > 0 && list[i-1].Role == dynamo.Fallback {
				t.Fatalf("%v: a fallback before a primary", list)
			}
			if x.For != "" {
				if x.Role == dynamo.Primary || up(x.For) || stoodFor[x.For] || !r.IsPrimary(p, n, x.For) {
					t.Fatalf("%v: %v stands in wrongly", list, x)
				}
				stoodFor[x.For] = true
			}
		}
		if order := r.Order(p); len(order) != len(r.Nodes()) || !slices.Equal(order[:r.Depth()], r.Replicas(p)) {
			t.Fatalf("order %v", order)
		}
	})
}

// TestHashIsFixed pins the hash: stored data depends on it.
func TestHashIsFixed(t *testing.T) {
	for k, want := range map[dynamo.Key]string{
		{Bucket: "carts", Name: "alice"}:                           "70bf04cf10993abe6850d97e04c99290",
		{Bucket: "b", Name: "k"}:                                   "350acd78bc04cc427fa3560a9447b9e5",
		{Bucket: strings.Repeat("b", 255), Name: "k"}:              "02cab58d9580a45fff08f03a3c23f02d",
		{Bucket: "b", Name: strings.Repeat("\x00", dynamo.MaxKey)}: "f68787d47e97fdf913db6ab344bbf06b",
	} {
		if got := Hash(k).String(); got != want {
			t.Errorf("%.40v hashes to %s, want %s", k, got, want)
		}
	}
	if Hash(dynamo.Key{Bucket: "ab", Name: "c"}) == Hash(dynamo.Key{Bucket: "a", Name: "bc"}) {
		t.Error("the border between bucket and name is not hashed")
	}
}

func TestHashDoesNotAllocate(t *testing.T) {
	k := dynamo.Key{Bucket: strings.Repeat("b", dynamo.MaxBucket), Name: strings.Repeat("k", dynamo.MaxKey)}
	if n := testing.AllocsPerRun(100, func() { Hash(k) }); n != 0 {
		t.Errorf("hashing allocates %v times", n)
	}
}

func TestPartitionOf(t *testing.T) {
	for _, c := range []struct {
		hi   uint64
		q    int
		want dynamo.Partition
	}{
		{0, 1, 0}, {1<<64 - 1, 1, 0}, {1<<63 - 1, 2, 0}, {1 << 63, 2, 1},
		{1<<64 - 1, 64, 63}, {1 << 58, 64, 1}, {1<<64 - 1, 1 << 16, 1<<16 - 1},
	} {
		if got := PartitionOf(Position{Hi: c.hi}, c.q); got != c.want {
			t.Errorf("%x of %d: partition %d, want %d", c.hi, c.q, got, c.want)
		}
	}
}

// TestPaper_6_2_KeysSpreadEvenly: the hash gives each partition its part of
// plain, similar keys.
func TestPaper_6_2_KeysSpreadEvenly(t *testing.T) {
	const q, keys = 64, 64_000
	r, _ := mustClaim(t, Ring{}, cluster(5, 0), q, 3)
	var count [q]int
	for i := range keys {
		count[r.PartitionOf(dynamo.Key{Bucket: "b", Name: fmt.Sprintf("key-%d", i)})]++
	}
	for p, n := range count {
		if n < 850 || n > 1150 { // five standard deviations
			t.Errorf("partition %d has %d of %d keys", p, n, keys)
		}
	}
}

func TestPositionOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(s string) Position {
			return Position{Hi: rapid.Uint64().Draw(t, s), Lo: rapid.Uint64().Draw(t, s)}
		}
		a, b := draw("a"), draw("b")
		ab, bb := a.Bytes(), b.Bytes()
		if a.Compare(b) != slices.Compare(ab[:], bb[:]) || PositionFrom(ab) != a {
			t.Fatalf("%v and %v: bytes order differently", a, b)
		}
	})
}

func BenchmarkPreference(b *testing.B) {
	r, _ := mustClaim(b, Ring{}, cluster(9, 3), 64, 5)
	up := func(n dynamo.NodeID) bool { return n != "n0003" }
	for _, c := range []struct {
		name   string
		spares int
		up     Reachable
	}{{"all", 0, Everyone}, {"spares", 2, Everyone}, {"one down", 2, up}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r.Candidates(dynamo.Partition(i%64), 3, c.spares, c.up)
			}
		})
	}
}

func BenchmarkHash(b *testing.B) {
	k := dynamo.Key{Bucket: "carts", Name: "customer-000001"}
	for b.Loop() {
		Hash(k)
	}
}

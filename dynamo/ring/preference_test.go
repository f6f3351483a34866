package ring

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

// TestSloppy: fallbacks are of the partition's own list, a primary that nobody
// can stand in for is still there, and each node once.
func TestSloppy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, depth := rapid.IntRange(1, 9).Draw(t, "nodes"), rapid.IntRange(1, 5).Draw(t, "depth")
		r, _, err := Claim(Ring{}, cluster(nodes, 0), 8, depth)
		if err != nil {
			t.Fatal(err)
		}
		down := map[dynamo.NodeID]bool{}
		for _, node := range r.Nodes() {
			down[node] = rapid.Bool().Draw(t, string(node))
		}
		p := dynamo.Partition(rapid.IntRange(0, 7).Draw(t, "partition"))
		n, spares := rapid.IntRange(1, 5).Draw(t, "n"), rapid.IntRange(0, 3).Draw(t, "spares")
		list := r.Replicas(p)
		n = min(n, len(list))
		got := r.Sloppy(p, n, spares, func(node dynamo.NodeID) bool { return !down[node] })
		covered, seen := map[dynamo.NodeID]bool{}, map[dynamo.NodeID]bool{}
		for i, x := range got {
			at := slices.Index(list, x.Node)
			if at < 0 || seen[x.Node] || (x.Role == dynamo.Primary) != (at < n) {
				t.Fatalf("%v of %v, n %d", got, list, n)
			}
			if x.Role == dynamo.Fallback && down[x.Node] || i < n && x.Role == dynamo.Fallback && x.For == "" {
				t.Fatalf("%v with %v down", got, down)
			}
			seen[x.Node] = true
			covered[x.Node], covered[x.For] = true, true
		}
		for _, node := range list[:n] {
			if !covered[node] {
				t.Fatalf("nobody for %s: %v with %v down", node, got, down)
			}
		}
		if len(got) < n || len(got) > n+spares {
			t.Fatalf("%d candidates for n %d and %d spares: %v", len(got), n, spares, got)
		}
	})
}

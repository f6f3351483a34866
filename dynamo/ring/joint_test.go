package ring

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

// TestJoint: no primary of either ring stands in for anybody, no node has two
// tasks, only reachable nodes of the two lists stand in, and among the first n of
// each list every primary is there or has its own stand-in.
func TestJoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, depth := rapid.IntRange(1, 9).Draw(t, "nodes"), rapid.IntRange(1, 5).Draw(t, "depth")
		a := claimed(t, Ring{}, nodes, depth)
		b := claimed(t, a, rapid.IntRange(1, 9).Draw(t, "nodes after"), depth)
		down := map[dynamo.NodeID]bool{}
		for _, node := range append(a.Nodes(), b.Nodes()...) {
			down[node] = rapid.Bool().Draw(t, string(node))
		}
		p := dynamo.Partition(rapid.IntRange(0, 7).Draw(t, "partition"))
		n, spares := rapid.IntRange(1, 5).Draw(t, "n"), rapid.IntRange(0, 3).Draw(t, "spares")
		forA, forB := Joint(a, b, p, n, spares, func(node dynamo.NodeID) bool { return !down[node] })
		tasks := map[dynamo.NodeID]dynamo.Replica{}
		for i, got := range [][]dynamo.Replica{forA, forB} {
			own := [...]Ring{a, b}[i].Primaries(p, n)
			covered, fallbacks := map[dynamo.NodeID]bool{}, 0
			for j, x := range got {
				if slices.ContainsFunc(got[:j], func(y dynamo.Replica) bool { return y.Node == x.Node }) {
					t.Fatalf("%s twice: %v", x.Node, got)
				}
				if task, known := tasks[x.Node]; known && task != x {
					t.Fatalf("%s has two tasks: %v and %v", x.Node, task, x)
				}
				tasks[x.Node] = x
				primary := slices.Contains(a.Primaries(p, n), x.Node) || slices.Contains(b.Primaries(p, n), x.Node)
				listed := slices.Contains(a.Replicas(p), x.Node) || slices.Contains(b.Replicas(p), x.Node)
				if (x.Role == dynamo.Primary) != primary || !listed || x.Role == dynamo.Fallback && down[x.Node] {
					t.Fatalf("%v with %v down: %v", x, down, got)
				}
				if x.Role == dynamo.Primary && !slices.Contains(own, x.Node) || x.For != "" && !slices.Contains(own, x.For) {
					t.Fatalf("%v is for the other list: %v", x, got)
				}
				if x.For == "" && x.Role == dynamo.Fallback {
					fallbacks++
				} else if j < n {
					covered[x.Node], covered[x.For] = true, true
				}
			}
			for _, node := range own {
				if !covered[node] {
					t.Fatalf("nobody for %s among the first %d: %v with %v down", node, n, got, down)
				}
			}
			if fallbacks > spares {
				t.Fatalf("%d spares, wanted %d: %v", fallbacks, spares, got)
			}
		}
	})
}

// TestJointOfOneRing: with the same ring twice both lists are those of Sloppy.
func TestJointOfOneRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := claimed(t, Ring{}, rapid.IntRange(1, 9).Draw(t, "nodes"), 5)
		down := map[dynamo.NodeID]bool{}
		for _, node := range r.Nodes() {
			down[node] = rapid.Bool().Draw(t, string(node))
		}
		up := func(node dynamo.NodeID) bool { return !down[node] }
		n, spares := rapid.IntRange(1, 5).Draw(t, "n"), rapid.IntRange(0, 3).Draw(t, "spares")
		a, b := Joint(r, r, 3, n, spares, up)
		if want := r.Sloppy(3, n, spares, up); !slices.Equal(a, want) || !slices.Equal(b, want) {
			t.Fatalf("%v and %v, want %v with %v down", a, b, want, down)
		}
	})
}

func claimed(t *rapid.T, from Ring, nodes, depth int) Ring {
	r, _, err := Claim(from, cluster(nodes, 0), 8, depth)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

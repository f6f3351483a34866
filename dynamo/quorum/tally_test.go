package quorum

import (
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

var nodes = []dynamo.NodeID{"a", "b", "c", "d"}

// step is one thing heard of a candidate.
type step struct {
	node int
	vote vote
}

// TestTallyEveryOrder feeds every sequence of three or four votes (so repeated and
// contradicting ones are among them) to tallies of every size up to four nodes
// and compares with a count made from scratch.
func TestTallyEveryOrder(t *testing.T) {
	orders := 0
	for n := 1; n <= 4; n++ {
		length := []int{0, 4, 4, 3, 3}[n]
		for primaries := 0; primaries <= n; primaries++ {
			for needed := 1; needed <= n; needed++ {
				for pr := 0; pr <= 2; pr++ {
					walk(n, length, nil, func(steps []step) {
						orders++
						checkTally(t, n, primaries, needed, pr, steps)
					})
				}
			}
		}
	}
	if orders < 100_000 {
		t.Errorf("only %d sequences were tried", orders)
	}
}

// walk calls visit for every sequence of exactly length steps over n nodes.
func walk(n, length int, prefix []step, visit func([]step)) {
	if len(prefix) == length {
		visit(prefix)
		return
	}
	for node := range n {
		for _, v := range []vote{counted, abstained, failed} {
			walk(n, length, append(prefix, step{node, v}), visit)
		}
	}
}

func checkTally(t *testing.T, n, primaries, needed, pr int, steps []step) {
	t.Helper()
	tally := NewTally(needed, pr)
	for i := range n {
		tally.Add(nodes[i], i < primaries)
	}
	votes := make([]vote, n)
	met := false
	for _, s := range steps {
		var changed bool
		want := votes[s.node] == open
		switch s.vote {
		case counted:
			changed, want = tally.Answer(nodes[s.node]), votes[s.node] != counted
		case abstained:
			changed = tally.Abstain(nodes[s.node])
		case failed:
			changed = tally.Fail(nodes[s.node])
		}
		if changed != want {
			t.Fatalf("%v: changed %v, want %v", steps, changed, want)
		}
		if want {
			votes[s.node] = s.vote
		}
		for _, lenient := range []bool{false, true} {
			got := tally.State()
			if lenient {
				got = tally.Lenient()
			}
			if want := oracle(votes, primaries, needed, pr, lenient); got != want {
				t.Fatalf("n=%d primaries=%d needed=%d pr=%d %v lenient=%v: got %v, want %v",
					n, primaries, needed, pr, steps, lenient, got, want)
			}
		}
		if met && tally.State() != Met {
			t.Fatalf("%v: met was taken back", steps)
		}
		met = tally.State() == Met
	}
}

// oracle judges by asking whether some future could meet the quorum: it tries
// to let every open node answer.
func oracle(votes []vote, primaries, needed, pr int, lenient bool) State {
	count := func(future bool) bool {
		all, prim := 0, 0
		for i, v := range votes {
			full := v == counted || future && v == open
			if full || lenient && v == abstained {
				all++
			}
			if full && i < primaries {
				prim++
			}
		}
		return all >= needed && all >= pr && prim >= pr
	}
	switch {
	case count(false):
		return Met
	case count(true):
		return Pending
	}
	return Lost
}

// TestTallyCountsNodesOnce: one node with two vnodes, or one that answers
// twice, is one disk.
func TestTallyCountsNodesOnce(t *testing.T) {
	tally := NewTally(2, 0)
	if !tally.Add("a", true) || tally.Add("a", false) {
		t.Fatal("a node was added twice")
	}
	tally.Add("b", true)
	if !tally.Answer("a") || tally.Answer("a") {
		t.Fatal("a repeated answer changed the tally")
	}
	if tally.Answer("stranger") || tally.Fail("stranger") || tally.Abstain("stranger") {
		t.Fatal("a node that is no candidate changed the tally")
	}
	if got := tally.State(); got != Pending || tally.Answered() != 1 {
		t.Fatalf("got %v with %d answers, want pending with 1", got, tally.Answered())
	}
	tally.Answer("b")
	if got := tally.State(); got != Met || tally.Primaries() != 2 {
		t.Fatalf("got %v with %d primaries, want met with 2", got, tally.Primaries())
	}
}

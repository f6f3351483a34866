package transfer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

// show writes effects as words.
func show(effects []Effect) string {
	var out []string
	for _, e := range effects {
		switch e := e.(type) {
		case ReadNext:
			out = append(out, "read")
		case Offer:
			out = append(out, fmt.Sprintf("offer %s %d", e.Node, e.Batch))
		case Drop:
			out = append(out, "drop")
		case Finish:
			o := e.Outcome
			if o.Given {
				o.Reason = "given " + o.Reason
			}
			out = append(out, fmt.Sprintf("finish complete=%v dropped=%d kept=%d %s", o.Complete, o.Dropped, o.Kept, o.Reason))
		}
	}
	return strings.TrimSpace(strings.Join(out, ", "))
}

// own is what a replica knows that another one lacks.
func own(size int) Read {
	r := abc(size)
	r.Batch.Own = true
	return r
}

// moving is a batch of a partition that goes from a, b, c to b, c, d.
var moving = Read{Batch{
	Size: 1, Replicas: []dynamo.NodeID{"a", "b", "c", "d"}, Needed: 2, Lists: [][]dynamo.NodeID{{"a", "b", "c"}, {"b", "c", "d"}},
}}

type step struct {
	event Event
	want  string
}

func abc(size int) Read {
	return Read{Batch{Size: size, Replicas: []dynamo.NodeID{"a", "b", "c"}, Needed: 2}}
}

func TestPaper_4_6_HintedHandoff(t *testing.T) {
	offers := "offer a 1, offer b 1, offer c 1"
	yes := func(n dynamo.NodeID) Event { return Confirmed{n, 1} }
	gone := func(n dynamo.NodeID) Event { return Failed{n, 1, true, "unreachable"} }
	full := func(n dynamo.NodeID) Event { return Failed{n, 1, false, "overloaded"} }
	for name, c := range map[string]struct {
		intended dynamo.NodeID
		given    bool
		steps    []step
	}{
		"all confirm": {"c", false, []step{
			{abc(2), offers}, {yes("a"), ""}, {yes("b"), ""}, {yes("c"), "drop"}, {Dropped{}, "read"},
			{abc(1), "offer a 2, offer b 2, offer c 2"}, {yes("c"), ""}, // of the first batch
			{Confirmed{"a", 2}, ""}, {Confirmed{"a", 2}, ""}, {Confirmed{"c", 2}, ""}, {Confirmed{"b", 2}, "drop"},
			{Dropped{Kept: 1}, "read"},
			{Read{}, "finish complete=false dropped=2 kept=1 records changed while they were handed over"},
			{Read{}, ""},
		}},
		"nothing there":     {"c", false, []step{{Read{}, "finish complete=true dropped=0 kept=0"}}},
		"one other is dead": {"c", false, []step{{abc(1), offers}, {yes("a"), ""}, {gone("b"), ""}, {yes("c"), "drop"}}},
		"both others are dead": {"c", false, []step{{abc(1), offers}, {gone("a"), ""}, {gone("b"), ""}, {yes("c"), "read"},
			{abc(1), "offer a 2, offer b 2, offer c 2"}, {Failed{"a", 2, true, ""}, ""}, {Failed{"b", 2, true, ""}, ""}, {Confirmed{"c", 2}, "read"},
			{Read{}, "finish complete=false dropped=0 kept=0 given 1 of 2 replicas confirmed"}}},
		"both others are still dead":         {"c", true, []step{{abc(1), offers}, {gone("a"), ""}, {gone("b"), ""}, {yes("c"), "finish complete=false dropped=0 kept=0 1 of 2 replicas confirmed"}}},
		"given, but not all":                 {"c", false, []step{{abc(1), offers}, {gone("a"), ""}, {gone("b"), ""}, {yes("c"), "read"}, {Broken{"disk"}, "finish complete=false dropped=0 kept=0 disk"}}},
		"the intended node is dead":          {"c", false, []step{{abc(1), offers}, {yes("a"), ""}, {yes("b"), ""}, {gone("c"), "finish complete=false dropped=0 kept=0 c: unreachable"}}},
		"another one has it not":             {"c", false, []step{{abc(1), offers}, {yes("a"), ""}, {full("b"), ""}, {yes("c"), "read"}, {Read{}, "finish complete=false dropped=0 kept=0 b: overloaded"}}},
		"a no is not taken back":             {"c", false, []step{{abc(1), offers}, {full("b"), ""}, {yes("b"), ""}, {yes("a"), ""}, {yes("c"), "read"}, {Read{}, "finish complete=false dropped=0 kept=0 b: overloaded"}}},
		"strangers do not count":             {"c", false, []step{{abc(1), offers}, {yes("d"), ""}, {yes("e"), ""}, {yes("a"), ""}, {yes("b"), ""}, {yes("c"), "drop"}}},
		"from a replica":                     {"c", false, []step{{own(1), "offer c 1"}, {yes("b"), ""}, {yes("c"), "drop"}}},
		"from a replica, refused":            {"c", false, []step{{own(1), "offer c 1"}, {full("c"), "finish complete=false dropped=0 kept=0 c: overloaded"}}},
		"for a former replica":               {"x", false, []step{{abc(1), offers}, {yes("a"), ""}, {yes("b"), ""}, {gone("c"), "drop"}}},
		"for a former replica, refused":      {"x", false, []step{{abc(1), offers}, {yes("a"), ""}, {yes("b"), ""}, {full("c"), "read"}, {Read{}, "finish complete=false dropped=0 kept=0 c: overloaded"}}},
		"for a former replica, too few":      {"x", false, []step{{abc(1), offers}, {yes("a"), ""}, {gone("b"), ""}, {gone("c"), "finish complete=false dropped=0 kept=0 1 of 2 replicas confirmed"}}},
		"from a replica for a former one":    {"x", false, []step{{own(1), "drop"}, {Dropped{}, "read"}, {Read{}, "finish complete=true dropped=1 kept=0"}}},
		"for nobody alone":                   {"", false, []step{{abc(1), offers}, {gone("a"), ""}, {yes("b"), ""}, {yes("c"), "drop"}}},
		"nobody takes it":                    {"", false, []step{{abc(1), offers}, {full("a"), ""}, {full("b"), ""}, {full("c"), "finish complete=false dropped=0 kept=0 a: overloaded; b: overloaded; c: overloaded"}}},
		"a list shorter than what is needed": {"", false, []step{{Read{Batch{Size: 1, Replicas: []dynamo.NodeID{"a"}, Needed: 2}}, "offer a 1"}, {yes("a"), "drop"}}},
		"no replicas":                        {"", false, []step{{Read{Batch{Size: 1, Needed: 2}}, "finish complete=false dropped=0 kept=0 the records have no replicas"}}},
		"between two lists":                  {"", false, []step{{moving, "offer a 1, offer b 1, offer c 1, offer d 1"}, {yes("a"), ""}, {yes("d"), ""}, {gone("c"), ""}, {yes("b"), "drop"}}},
		"between two lists, one has too few": {"", false, []step{{moving, "offer a 1, offer b 1, offer c 1, offer d 1"}, {yes("a"), ""}, {gone("d"), ""}, {gone("c"), ""}, {yes("b"), "finish complete=false dropped=0 kept=0 1 of 2 replicas confirmed"}}},
		"the store breaks":                   {"c", false, []step{{abc(1), offers}, {Broken{"disk"}, "finish complete=false dropped=0 kept=0 disk"}, {yes("a"), ""}}},
		"out of turn": {"c", false, []step{
			{Dropped{}, ""}, {yes("a"), ""}, {abc(1), offers}, {abc(1), ""}, {Dropped{}, ""},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(c.intended, 0, c.given)
			if got := m.Step(abc(1)); len(got) != 0 || m.State() != Ready {
				t.Errorf("before the start: %s", show(got))
			}
			if got := show(m.Start()); got != "read" {
				t.Fatalf("start: %q", got)
			}
			for i, s := range c.steps {
				if got := show(m.Step(s.event)); got != s.want {
					t.Fatalf("step %d, %+v: %q, want %q", i, s.event, got, s.want)
				}
			}
			if got := m.Start(); len(got) != 0 {
				t.Errorf("started twice: %s", show(got))
			}
		})
	}
}

// TestDropsOnlyWhatIsSafe: whatever comes in whatever order, a batch is dropped
// only after its own confirmations suffice.
func TestDropsOnlyWhatIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := []dynamo.NodeID{"a", "b", "c", "d", "e"}
		intended := rapid.SampledFrom(append(nodes, "")).Draw(t, "intended")
		m := New(intended, 0, rapid.Bool().Draw(t, "given"))
		var batch Batch
		var number uint64
		answers := map[dynamo.NodeID]Event{}
		dropped, reading := 0, true
		take := func(effects []Effect) {
			for _, e := range effects {
				switch e := e.(type) {
				case Offer:
					if e.Batch != number {
						number = e.Batch
						clear(answers)
					}
					if !slices.Contains(batch.Replicas, e.Node) || batch.Own && e.Node != intended {
						t.Fatalf("%+v of %+v", e, batch)
					}
				case Drop:
					if _, ok := answers[intended].(Confirmed); !ok && slices.Contains(batch.Replicas, intended) {
						t.Fatalf("dropped, and %s has it not: %v", intended, answers)
					}
					if !batch.Own {
						checkShared(t, batch, answers)
					}
				case ReadNext:
					reading = true
				case Finish:
					if e.Outcome.Dropped != dropped || m.State() != Done {
						t.Fatalf("%+v, dropped %d", e, dropped)
					}
				}
			}
		}
		take(m.Start())
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			node := rapid.SampledFrom(nodes).Draw(t, "node")
			of := number - uint64(rapid.IntRange(0, 1).Draw(t, "old"))
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0, 1:
				replicas := rapid.Permutation(nodes).Draw(t, "replicas")[:rapid.IntRange(1, 4).Draw(t, "n")]
				b := Batch{Size: rapid.IntRange(0, 3).Draw(t, "size"), Replicas: replicas, Needed: len(replicas)/2 + 1, Own: rapid.Bool().Draw(t, "own")}
				if rapid.Bool().Draw(t, "moving") {
					b.Lists = [][]dynamo.NodeID{replicas[:len(replicas)/2+1], replicas[len(replicas)/3:]}
				}
				if reading {
					batch, reading = b, false
				}
				take(m.Step(Read{b}))
			case 2, 3:
				e := Confirmed{node, of}
				if _, again := answers[node]; !again && of == number && m.State() == Confirming {
					answers[node] = e
				}
				take(m.Step(e))
			case 4:
				e := Failed{node, of, rapid.Bool().Draw(t, "unreachable"), "no"}
				if _, again := answers[node]; !again && of == number && m.State() == Confirming {
					answers[node] = e
				}
				take(m.Step(e))
			case 5:
				was := m.State()
				kept := rapid.IntRange(0, batch.Size).Draw(t, "kept")
				if was == Dropping {
					dropped += batch.Size - kept
				}
				take(m.Step(Dropped{kept}))
			}
		}
	})
}

// checkShared: nobody refused a batch that is dropped, and enough of each list have
// it.
func checkShared(t *rapid.T, b Batch, answers map[dynamo.NodeID]Event) {
	for _, node := range b.Replicas {
		if f, failed := answers[node].(Failed); failed && !f.Unreachable || answers[node] == nil {
			t.Fatalf("dropped after %s said %v", node, answers[node])
		}
	}
	lists := b.Lists
	if lists == nil {
		lists = [][]dynamo.NodeID{b.Replicas}
	}
	for _, list := range lists {
		confirmed := 0
		for _, node := range list {
			if _, ok := answers[node].(Confirmed); ok {
				confirmed++
			}
		}
		if confirmed < min(b.Needed, len(list)) {
			t.Fatalf("dropped with %d of %v: %v", confirmed, list, answers)
		}
	}
}

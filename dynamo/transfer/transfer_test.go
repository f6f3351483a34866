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
			out = append(out, fmt.Sprintf("finish complete=%v dropped=%d kept=%d %s", o.Complete, o.Dropped, o.Kept, o.Reason))
		}
	}
	return strings.TrimSpace(strings.Join(out, ", "))
}

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
		self  dynamo.NodeID
		steps []step
	}{
		"all confirm": {"d", []step{
			{abc(2), offers}, {yes("a"), ""}, {yes("b"), ""}, {yes("c"), "drop"}, {Dropped{}, "read"},
			{abc(1), "offer a 2, offer b 2, offer c 2"}, {yes("c"), ""}, // of the first batch
			{Confirmed{"a", 2}, ""}, {Confirmed{"a", 2}, ""}, {Confirmed{"c", 2}, ""}, {Confirmed{"b", 2}, "drop"},
			{Dropped{Kept: 1}, "read"},
			{Read{}, "finish complete=false dropped=2 kept=1 records changed while they were handed over"},
			{Read{}, ""},
		}},
		"nothing there":             {"d", []step{{Read{}, "finish complete=true dropped=0 kept=0"}}},
		"one other is dead":         {"d", []step{{abc(1), offers}, {yes("a"), ""}, {gone("b"), ""}, {yes("c"), "drop"}}},
		"both others are dead":      {"d", []step{{abc(1), offers}, {gone("a"), ""}, {gone("b"), ""}, {yes("c"), "finish complete=false dropped=0 kept=0 1 of 2 replicas confirmed"}}},
		"the intended node is dead": {"d", []step{{abc(1), offers}, {yes("a"), ""}, {yes("b"), ""}, {gone("c"), "finish complete=false dropped=0 kept=0 c: unreachable"}}},
		"another one has it not":    {"d", []step{{abc(1), offers}, {yes("a"), ""}, {full("b"), ""}, {yes("c"), "finish complete=false dropped=0 kept=0 b: overloaded"}}},
		"a no is not taken back":    {"d", []step{{abc(1), offers}, {full("b"), ""}, {yes("b"), ""}, {yes("a"), ""}, {yes("c"), "finish complete=false dropped=0 kept=0 b: overloaded"}}},
		"strangers do not count":    {"d", []step{{abc(1), offers}, {yes("d"), ""}, {yes("e"), ""}, {yes("a"), ""}, {yes("b"), ""}, {yes("c"), "drop"}}},
		"from a replica":            {"a", []step{{abc(1), "offer c 1"}, {yes("b"), ""}, {yes("c"), "drop"}}},
		"from a replica, refused":   {"a", []step{{abc(1), "offer c 1"}, {full("c"), "finish complete=false dropped=0 kept=0 c: overloaded"}}},
		"for a former replica": {"d", []step{{
			Read{Batch{Size: 1, Replicas: []dynamo.NodeID{"a", "b"}, Needed: 2}}, "finish complete=false dropped=0 kept=0 c is no replica any more",
		}}},
		"the store breaks": {"d", []step{{abc(1), offers}, {Broken{"disk"}, "finish complete=false dropped=0 kept=0 disk"}, {yes("a"), ""}}},
		"out of turn": {"d", []step{
			{Dropped{}, ""}, {yes("a"), ""}, {abc(1), offers}, {abc(1), ""}, {Dropped{}, ""},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(c.self, "c", 0)
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
		self := rapid.SampledFrom(nodes).Draw(t, "self")
		intended := rapid.SampledFrom(slices.DeleteFunc(slices.Clone(nodes), func(n dynamo.NodeID) bool { return n == self })).Draw(t, "intended")
		m := New(self, intended, 0)
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
					if !slices.Contains(batch.Replicas, e.Node) || e.Node == self {
						t.Fatalf("%+v of %+v", e, batch)
					}
				case Drop:
					confirmed := 0
					for n, a := range answers {
						if !slices.Contains(batch.Replicas, n) {
							continue // was not asked
						}
						if f, failed := a.(Failed); failed && !f.Unreachable && !slices.Contains(batch.Replicas, self) {
							t.Fatalf("dropped although %s refused", n)
						} else if !failed {
							confirmed++
						}
					}
					if _, ok := answers[intended].(Confirmed); !ok || confirmed < batch.Needed && !slices.Contains(batch.Replicas, self) {
						t.Fatalf("dropped after %v", answers)
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
				b := Batch{Size: rapid.IntRange(0, 3).Draw(t, "size"), Replicas: replicas, Needed: len(replicas)/2 + 1}
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

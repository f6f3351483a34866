package request

import (
	"errors"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

func newGet(t testing.TB, cfg GetConfig) *Get {
	t.Helper()
	g, err := NewGet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// plainGet reads from a, b, c with a spare d, R = 2.
func plainGet(t testing.TB) *Get {
	return newGet(t, GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c d>")})
}

func start(m machine) { m.Start() }

// TestPaper_5_ReadRepair: "the state machine waits for a small period of time to
// receive any outstanding responses. If stale versions were returned in any of
// the responses, the coordinator updates those nodes with the latest version."
func TestPaper_5_ReadRepair(t *testing.T) {
	g := plainGet(t)
	expect(t, g, nil, "ask a", "ask b", "ask c", "arm request for AwaitingQuorum")
	expect(t, g, answer("a", "a1 | a1=old"))
	expect(t, g, answer("b", "a2 | a2=new"), "reply found: a2 | a2=new", "arm linger for AwaitingStragglers")
	expect(t, g, answer("c", ""),
		"repair a outofdate: a2 | a2=new", "repair c notfound: a2 | a2=new", "stop")
}

// TestPaper_5_StragglerBringsNewer: a late answer may itself be the newest.
func TestPaper_5_StragglerBringsNewer(t *testing.T) {
	g := plainGet(t)
	start(g)
	g.Step(now, answer("a", "a1 | a1=old"))
	expect(t, g, answer("b", "a1 | a1=old"), "reply found: a1 | a1=old", "arm linger for AwaitingStragglers")
	expect(t, g, answer("c", "a2 | a2=new"),
		"repair a outofdate: a2 | a2=new", "repair b outofdate: a2 | a2=new", "stop")
}

// TestPaper_4_4_SyntacticReconciliation: ancestors are dropped, concurrent
// versions are all returned.
func TestPaper_4_4_SyntacticReconciliation(t *testing.T) {
	g := newGet(t, GetConfig{Params: params(3, 3, 2, 0, 0), Candidates: replicas("a b c")})
	start(g)
	g.Step(now, answer("a", "a1 b1 | b1=left"))
	g.Step(now, answer("b", "a1 c1 | c1=right"))
	expect(t, g, answer("c", "a1 | a1=ancestor"),
		"reply found: a1 b1 c1 | b1=left c1=right",
		"repair a outofdate: a1 b1 c1 | b1=left c1=right",
		"repair b outofdate: a1 b1 c1 | b1=left c1=right",
		"repair c outofdate: a1 b1 c1 | b1=left c1=right",
		"stop")
}

// TestPaper_4_5_FirstNHealthyNodes: reads go on while a node fails, over the
// first N healthy nodes of the list; only they are asked.
func TestPaper_4_5_FirstNHealthyNodes(t *testing.T) {
	g := plainGet(t)
	start(g)
	expect(t, g, Fail{From: "b", Reason: Unreachable}, "ask d>b")
	expect(t, g, answer("d", "a1 | a1=v"))
	expect(t, g, answer("c", "a1 | a1=v"), "reply found: a1 | a1=v", "arm linger for AwaitingStragglers")
	expect(t, g, answer("a", "a1 | a1=v"), "stop")
}

// TestConvergedReadsWriteNothing: a read of what all replicas agree on causes
// no repair, with and without a value, however values were left out.
func TestConvergedReadsWriteNothing(t *testing.T) {
	for _, rec := range []string{"", "a1 | a1=v", "a1 b1 | a1=v b1=w", "a2 | a2=-", "a1 | a1=!"} {
		g := newGet(t, GetConfig{Params: params(3, 1, 1, 0, 0), Candidates: replicas("a b c"), DigestAbove: 1})
		start(g)
		for i, node := range []string{"a", "b", "c"} {
			said := rec
			if i > 0 {
				said = strings.ReplaceAll(strings.ReplaceAll(rec, "=v", "=?"), "=!", "=!?")
			}
			for _, e := range g.Step(now, answer(node, said)) {
				switch e.(type) {
				case Repair, Fetch:
					t.Errorf("%q: %s", rec, describe(e))
				}
			}
		}
		if g.State() != Done {
			t.Errorf("%q: ended in %v", rec, g.State())
		}
	}
}

// TestNeverBelievesAFallbacksNothing: two of three primaries died right after a
// write that the third missed; the fallbacks have nothing. That the key does not
// exist must not be said; if one more node has the record, it is found.
func TestNeverBelievesAFallbacksNothing(t *testing.T) {
	layout := replicas("a d>b e>c f>")
	g := newGet(t, GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: layout})
	start(g)
	g.Step(now, answer("d", ""))
	expect(t, g, answer("e", ""), "ask f>")
	g.Step(now, answer("a", ""))
	expect(t, g, answer("f", ""),
		"reply unavailable, not attempted: 1 of 2 answered; b: unreachable; c: unreachable; d: not authoritative; e: not authoritative; f: not authoritative", "stop")

	g = newGet(t, GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: layout})
	start(g)
	g.Step(now, answer("d", ""))
	g.Step(now, answer("e", ""))
	g.Step(now, answer("a", ""))
	expect(t, g, answer("f", "b1 | b1=v"), "reply found: b1 | b1=v", "repair a notfound: b1 | b1=v", "stop")
}

// TestFillingPrimary: a primary that is being filled proves nothing by having
// nothing, whoever knows that it is being filled; its record is taken and does not
// count: it may have confirmed a later write before it lost its disk.
func TestFillingPrimary(t *testing.T) {
	unsure := answer("a", "")
	unsure.Authoritative = false
	for name, c := range map[string]struct {
		filling []dynamo.NodeID
		first   Answer
	}{
		"it says so":            {nil, unsure},
		"the coordinator knows": {[]dynamo.NodeID{"a"}, answer("a", "")},
	} {
		g := newGet(t, GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c"), Filling: c.filling})
		start(g)
		g.Step(now, c.first)
		if got := g.Step(now, answer("b", "")); len(got) != 0 {
			t.Errorf("%s: believed with one authoritative answer: %s", name, describeAll(got))
		}
		expect(t, g, answer("c", ""), "reply not found: |", "stop")
	}
	g := newGet(t, GetConfig{Params: params(3, 2, 2, 2, 0), Candidates: replicas("a b c"), Filling: []dynamo.NodeID{"a"}})
	start(g)
	g.Step(now, answer("a", "a1 | a1=v"))
	if got := g.Step(now, answer("b", "a1 | a1=v")); len(got) != 0 {
		t.Errorf("believed with one authoritative answer: %s", describeAll(got))
	}
	expect(t, g, answer("c", ""), "reply found: a1 | a1=v", "repair c notfound: a1 | a1=v", "stop")
}

// TestDamagedReplicaIsNoAnswer: with R + W > N a read must meet every
// acknowledged write. A write was confirmed by a and b; a's copy is damaged and b
// cannot be reached: c alone, which missed it, must not decide, nor a's copy be
// made again from c's. When b is back all is well.
func TestDamagedReplicaIsNoAnswer(t *testing.T) {
	g := newGet(t, GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c")})
	start(g)
	g.Step(now, Answer{From: "a"})
	g.Step(now, answer("c", "b1 | b1=old"))
	expect(t, g, Fail{From: "b", Reason: Unreachable},
		"reply unavailable, not attempted: 1 of 2 answered; a: not authoritative; b: unreachable", "stop")

	g = newGet(t, GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c")})
	start(g)
	g.Step(now, Answer{From: "a"})
	g.Step(now, answer("c", "b1 | b1=old"))
	expect(t, g, answer("b", "b2 | b2=new"), "reply found: b2 | b2=new",
		"repair a notfound: b2 | b2=new", "repair c outofdate: b2 | b2=new", "stop")

	// All copies but one are damaged: that one is all there is to learn.
	g = newGet(t, GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c")})
	start(g)
	g.Step(now, Answer{From: "a"})
	expect(t, g, Answer{From: "b"},
		"reply unavailable, not attempted: 0 of 2 answered; a: not authoritative; b: not authoritative",
		"arm linger for AwaitingStragglers")
	expect(t, g, answer("c", "b1 | b1=old"), "repair a notfound: b1 | b1=old", "repair b notfound: b1 | b1=old", "stop")

	// A read that asks for one answer takes it.
	g = newGet(t, GetConfig{Params: params(3, 1, 2, 0, 0), Candidates: replicas("a b c")})
	start(g)
	g.Step(now, Answer{From: "a"})
	expect(t, g, answer("c", "b1 | b1=old"), "reply found: b1 | b1=old", "arm linger for AwaitingStragglers")
}

// TestTombstoneGivesContext: not found still says what was deleted, so that the
// next put supersedes it.
func TestTombstoneGivesContext(t *testing.T) {
	g := plainGet(t)
	start(g)
	g.Step(now, answer("a", "a2 | a2=-"))
	expect(t, g, answer("b", "a1 | a1=v"), "reply not found: a2 | a2=-", "arm linger for AwaitingStragglers")
	expect(t, g, Deadline{AwaitingStragglers}, "repair b outofdate: a2 | a2=-", "stop")
}

// TestExpiryIsJudgedHere: an expired version is not found, one nanosecond
// before it is.
func TestExpiryIsJudgedHere(t *testing.T) {
	for at, want := range map[dynamo.Timestamp]string{now - 1: "found: a1 | a1=!", now: "not found: a1 | a1=!"} {
		g := newGet(t, GetConfig{Params: params(1, 1, 1, 0, 0), Candidates: replicas("a")})
		start(g)
		if got := describeAll(g.Step(at, answer("a", "a1 | a1=!"))); got != "reply "+want+"\nstop" {
			t.Errorf("at %d: %s", at, got)
		}
	}
}

func TestPrimariesNeeded(t *testing.T) {
	g := newGet(t, GetConfig{Params: params(3, 1, 1, 2, 0), Candidates: replicas("a b d>c e>")})
	start(g)
	g.Step(now, answer("d", "a1 | a1=v"))
	g.Step(now, answer("a", "a1 | a1=v"))
	expect(t, g, Fail{From: "b", Reason: TimedOut},
		"ask e>b", "reply unavailable, not attempted: 2 of 2 answered, 1 of 2 primaries; c: unreachable; b: timeout",
		"arm linger for AwaitingStragglers")
	expect(t, g, answer("e", "a1 | a1=v"), "stop")

	// The read failed, but what it found repairs a primary that had nothing; a
	// value that was left out is fetched for that.
	g = newGet(t, GetConfig{Params: params(3, 1, 1, 3, 0), Candidates: replicas("a b c"), Near: "a", DigestAbove: 100})
	start(g)
	expect(t, g, Answer{From: "a"},
		"reply unavailable, not attempted: 0 of 3 answered, 0 of 3 primaries; a: not authoritative",
		"arm linger for AwaitingStragglers")
	expect(t, g, answer("b", "a1 | a1=?"))
	expect(t, g, answer("c", "a1 | a1=?"), "fetch b")
	expect(t, g, fetched("b", "a1 | a1=v"), "repair a notfound: a1 | a1=v", "stop")

	g = newGet(t, GetConfig{Params: params(3, 1, 1, 3, 0), Candidates: replicas("a b d>c")})
	expect(t, g, nil, "reply unavailable, not attempted: 0 of 3 answered, 0 of 3 primaries; c: unreachable", "stop")
	g = newGet(t, GetConfig{Params: params(3, 1, 1, 0, 0)})
	expect(t, g, nil, "reply unavailable, not attempted: 0 of 1 answered", "stop")
}

// TestOmittedValues: one replica sends everything, the others leave out large
// values; what is then missing is fetched from one that has it.
func TestOmittedValues(t *testing.T) {
	cfg := GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c d>"), Near: "b", DigestAbove: 100}
	g := newGet(t, cfg)
	expect(t, g, nil, "ask a digest-above=100", "ask b", "ask c digest-above=100", "arm request for AwaitingQuorum")
	g.Step(now, answer("a", "a2 | a2=?"))
	expect(t, g, answer("c", "a2 | a2=?"), "fetch a", "arm request for AwaitingValues")
	expect(t, g, answer("b", "a2 | a2=v"), "reply found: a2 | a2=v", "arm linger for AwaitingStragglers")
	expect(t, g, fetched("a", "a2 | a2=v"), "stop")

	// The one that was to send everything fails: its successor is asked to.
	g = newGet(t, cfg)
	start(g)
	expect(t, g, Fail{From: "b", Reason: Overloaded}, "ask d>b")
	g.Step(now, answer("a", "a2 | a2=?"))
	expect(t, g, answer("c", "a2 | a2=?"), "fetch a", "arm request for AwaitingValues")
	expect(t, g, Fail{From: "a", Fetched: true, Reason: StorageFailed}, "fetch c")
	expect(t, g, Deadline{AwaitingQuorum})
	expect(t, g, fetched("c", "a2 | a2=v"), "reply found: a2 | a2=v", "arm linger for AwaitingStragglers")
}

func TestOmittedValuesCannotBeHad(t *testing.T) {
	cfg := GetConfig{Params: params(2, 2, 2, 0, 0), Candidates: replicas("a b"), Near: "a", DigestAbove: 1}
	g := newGet(t, cfg)
	start(g)
	g.Step(now, answer("a", "a1 | a1=old"))
	expect(t, g, answer("b", "a2 | a2=?"), "fetch b", "arm request for AwaitingValues")
	expect(t, g, Fail{From: "b", Fetched: true, Reason: Unreachable},
		"reply unavailable, not attempted: 2 of 2 answered; b: unreachable", "stop")

	// The replica meanwhile took a delete: nothing is missing any more.
	g = newGet(t, cfg)
	start(g)
	g.Step(now, answer("a", "a1 | a1=old"))
	g.Step(now, answer("b", "a2 | a2=?"))
	expect(t, g, fetched("b", "a3 | a3=-"), "reply not found: a3 | a3=-", "repair a outofdate: a3 | a3=-", "stop")

	// It answers without the value once more.
	g = newGet(t, cfg)
	start(g)
	g.Step(now, answer("a", "a1 | a1=old"))
	g.Step(now, answer("b", "a2 | a2=?"))
	expect(t, g, fetched("b", "a2 | a2=?"), "reply unavailable, not attempted: 2 of 2 answered; b: values missing", "stop")

	g = newGet(t, cfg)
	start(g)
	g.Step(now, answer("a", "a1 | a1=old"))
	g.Step(now, answer("b", "a2 | a2=?"))
	expect(t, g, Deadline{AwaitingValues}, "reply unavailable, not attempted: 2 of 2 answered; b: timeout", "stop")
}

// TestRepairNeedsEveryValue: a straggler brings a version whose value was left
// out. It is fetched before others are repaired, or they are not repaired.
func TestRepairNeedsEveryValue(t *testing.T) {
	lingering := func() *Get {
		g := newGet(t, GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c"), DigestAbove: 1})
		start(g)
		g.Step(now, answer("a", "a1 | a1=old"))
		g.Step(now, answer("b", "a1 | a1=?"))
		expect(t, g, answer("c", "a2 | a2=?"), "fetch c")
		return g
	}
	expect(t, lingering(), fetched("c", "a2 | a2=new"),
		"repair a outofdate: a2 | a2=new", "repair b outofdate: a2 | a2=new", "stop")
	expect(t, lingering(), Fail{From: "c", Fetched: true, Reason: Unreachable}, "stop")
	expect(t, lingering(), Deadline{AwaitingStragglers}, "stop")
}

// TestValuesFromElsewhere: when no replica can be asked for a value, one that
// was asked before may still bring it; one fetch serves all that a replica has.
func TestValuesFromElsewhere(t *testing.T) {
	g := newGet(t, GetConfig{Params: params(3, 1, 2, 0, 0), Candidates: replicas("a b c"), Near: "c", DigestAbove: 1})
	start(g)
	expect(t, g, answer("a", "a2 b1 | a2=? b1=?"), "fetch a", "arm request for AwaitingValues")
	expect(t, g, Fail{From: "a", Fetched: true, Reason: Unreachable})
	expect(t, g, Fail{From: "b", Reason: Unreachable})
	expect(t, g, answer("c", "a2 b1 | a2=v b1=w"), "reply found: a2 b1 | a2=v b1=w", "stop")
}

// TestLateAnswers: an answer counts although its node was given up, and an old
// deadline says nothing about a later state.
func TestLateAnswers(t *testing.T) {
	g := plainGet(t)
	start(g)
	g.Step(now, Fail{From: "a", Reason: TimedOut})
	g.Step(now, answer("a", "a1 | a1=v"))
	expect(t, g, answer("b", "a1 | a1=v"), "reply found: a1 | a1=v", "arm linger for AwaitingStragglers")
	expect(t, g, Deadline{AwaitingQuorum})
	expect(t, g, answer("c", "a1 | a1=v"))
	expect(t, g, Deadline{AwaitingStragglers}, "stop")
}

// TestStalePlan: a replica that knows a newer cluster document ends the read;
// nothing may be concluded from a plan that is out of date.
func TestStalePlan(t *testing.T) {
	g := plainGet(t)
	start(g)
	g.Step(now, answer("a", "a1 | a1=v"))
	expect(t, g, Fail{From: "b", Reason: Stale}, "reply outdated by b, not attempted", "stop")
	g = plainGet(t)
	start(g)
	g.Step(now, answer("a", "a1 | a1=v"))
	g.Step(now, answer("b", "a1 | a1=v"))
	expect(t, g, Fail{From: "c", Reason: Stale}, "stop")
}

// TestGetIgnoresTheImpossible: events that cannot happen, or that say nothing
// in a state, change nothing.
func TestGetIgnoresTheImpossible(t *testing.T) {
	g := plainGet(t)
	if got := g.Step(now, answer("a", "a1 | a1=v")); len(got) != 0 || g.State() != Ready {
		t.Errorf("before Start: %s", describeAll(got))
	}
	start(g)
	if again := g.Start(); len(again) != 0 {
		t.Errorf("a second Start: %s", describeAll(again))
	}
	for _, e := range []Event{
		answer("d", "a1 | a1=v"), answer("x", "a1 | a1=v"), fetched("a", "a1 | a1=v"), Fail{From: "d"}, Fail{From: "x"},
		Fail{From: "a", Fetched: true}, Deadline{AwaitingStragglers}, Deadline{AwaitingValues}, Deadline{AwaitingDot},
		Prepared{}, Durable{"a"}, Refused{}, nil,
	} {
		if got := g.Step(now, e); len(got) != 0 || g.State() != AwaitingQuorum {
			t.Errorf("%+v caused %s", e, describeAll(got))
		}
	}
	d := g.Describe()
	if d.State != AwaitingQuorum || d.Quorum != "0 of 2, pending" || len(d.Replicas) != 4 ||
		d.Replicas[0].Stage != "asked" || d.Replicas[3].Stage != "not asked" {
		t.Errorf("described as %+v", d)
	}
}

func TestNewGetRefuses(t *testing.T) {
	if _, err := NewGet(GetConfig{Params: params(3, 4, 1, 0, 0)}); !errors.Is(err, ErrParams) || !errors.Is(err, quorum.ErrR) {
		t.Errorf("R = 4 of 3: %v", err)
	}
}

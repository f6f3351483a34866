package request

import (
	"errors"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

func newPut(t testing.TB, cfg PutConfig) *Put {
	t.Helper()
	p, err := NewPut(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// plainPut writes to a (local), b, c with a spare d, W = 2.
func plainPut(t testing.TB) *Put {
	return newPut(t, PutConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c d>"), Local: "a"})
}

func prepared() Prepared { return Prepared{Record: record("a1 | a1=v"), Dot: dot('a', 1)} }

// TestPaper_4_5_Put: the coordinator makes the new version's clock and writes
// locally, sends it to the N highest-ranked nodes, and is done at W - 1 others.
func TestPaper_4_5_Put(t *testing.T) {
	p := plainPut(t)
	expect(t, p, nil, "coordinate a sync", "arm request for AwaitingDot")
	expect(t, p, prepared(),
		"replicate b sync: a1 | a1=v", "replicate c sync: a1 | a1=v", "arm request for AwaitingQuorum")
	expect(t, p, Durable{"c"})
	expect(t, p, Durable{"a"}, "reply written by 2: a1 | a1=v", "arm linger for AwaitingStragglers")
	expect(t, p, Durable{"b"}, "stop")
}

// TestPaper_4_6_SloppyQuorum: a replica that fails is replaced by the next
// node, which keeps the write under a hint; so does that one's replacement.
func TestPaper_4_6_SloppyQuorum(t *testing.T) {
	p := newPut(t, PutConfig{Params: params(3, 2, 3, 0, 0), Candidates: replicas("a b c d> e>"), Local: "a"})
	start(p)
	p.Step(now, prepared())
	expect(t, p, Fail{From: "c", Reason: Unreachable}, "replicate d>c sync: a1 | a1=v")
	expect(t, p, Fail{From: "d", Reason: Overloaded}, "replicate e>c sync: a1 | a1=v")
	p.Step(now, Durable{"e"})
	p.Step(now, Durable{"b"})
	expect(t, p, Durable{"a"}, "reply written by 3: a1 | a1=v", "stop")
}

// TestPaper_6_1_Durability: all syncs everywhere, one only at the coordinator,
// none nowhere; when the one disk fails, its replacement syncs.
func TestPaper_6_1_Durability(t *testing.T) {
	for d, want := range map[dynamo.Durability][3]string{
		dynamo.DurabilityAll:  {"coordinate a sync", "replicate b sync: a1 | a1=v", "replicate c>a sync: a1 | a1=v"},
		dynamo.DurabilityOne:  {"coordinate a sync", "replicate b: a1 | a1=v", "replicate c>a sync: a1 | a1=v"},
		dynamo.DurabilityNone: {"coordinate a", "replicate b: a1 | a1=v", "replicate c>a: a1 | a1=v"},
	} {
		p := newPut(t, PutConfig{Params: params(2, 1, 2, 0, 0), Durability: d, Candidates: replicas("a b c>"), Local: "a"})
		expect(t, p, nil, want[0], "arm request for AwaitingDot")
		expect(t, p, prepared(), want[1], "arm request for AwaitingQuorum")
		expect(t, p, Fail{From: "a", Reason: StorageFailed}, want[2])
	}
}

// TestThreeOutcomes: done, not attempted, and unknown are never confused.
func TestThreeOutcomes(t *testing.T) {
	boom := errors.New("boom")
	cases := []struct {
		name   string
		events []Event
		want   Certainty
		text   string
	}{
		{"done", []Event{prepared(), Durable{"a"}, Durable{"b"}}, Certain, "written by 2: a1 | a1=v"},
		{"refused", []Event{Refused{Err: boom}}, NotAttempted, "not attempted: boom"},
		{"refused, earlier attempt forgotten", []Event{Refused{Err: boom, Unknown: true}}, Uncertain, "unknown: boom"},
		{"overloaded", []Event{Fail{From: "a", Reason: Overloaded}}, NotAttempted, "unavailable, not attempted: 0 of 2 answered; a: overloaded"},
		{"crashed", []Event{Fail{From: "a", Reason: Crashed}}, Uncertain, "unknown"},
		{"planned anew before", []Event{Fail{From: "a", Reason: Stale}}, NotAttempted, "outdated by a, not attempted"},
		{"planned anew after", []Event{prepared(), Fail{From: "b", Reason: Stale}}, Uncertain, "outdated by b, unknown"},
		{"silent vnode", []Event{Deadline{AwaitingDot}}, Uncertain, "unknown"},
		{"silent replicas", []Event{prepared(), Durable{"a"}, Deadline{AwaitingQuorum}}, Uncertain,
			"unavailable, unknown: 1 of 2 answered; b: timeout; c: timeout"},
		{"failed replicas", []Event{prepared(), Durable{"a"}, Fail{From: "b", Reason: Unreachable},
			Fail{From: "c", Reason: Unreachable}, Fail{From: "d", Reason: Unreachable}}, Uncertain,
			"unavailable, unknown: 1 of 2 answered; b: unreachable; c: unreachable; d: unreachable"},
	}
	for _, c := range cases {
		p := plainPut(t)
		start(p)
		var reply Result
		for _, e := range c.events {
			for _, effect := range p.Step(now, e) {
				if r, ok := effect.(Reply); ok {
					reply = r.Result
				}
			}
		}
		if reply == nil || reply.Certainty() != c.want || showResult(reply) != c.text {
			t.Errorf("%s: replied %v, want %q", c.name, reply, c.text)
		}
	}
}

// TestPrimariesOfPut: PW counts primaries that confirmed, not those that seem up.
func TestPrimariesOfPut(t *testing.T) {
	cfg := PutConfig{Params: params(3, 2, 2, 0, 2), Candidates: replicas("a b d>c e>"), Local: "a"}
	p := newPut(t, cfg)
	start(p)
	p.Step(now, prepared())
	p.Step(now, Durable{"a"})
	if got := p.Step(now, Durable{"d"}); len(got) != 0 {
		t.Fatalf("one primary and a fallback: %s", describeAll(got))
	}
	expect(t, p, Durable{"b"}, "reply written by 3: a1 | a1=v", "stop")
	cfg.Params.PW = 3
	expect(t, newPut(t, cfg), nil, "reply unavailable, not attempted: 0 of 3 answered, 0 of 3 primaries; c: unreachable", "stop")
}

// TestWriteWhilePartitionMoves: a node on both lists is asked once and counts in
// both; a primary of either that lacks the write gets a hint; an error says of which
// list too few answered.
func TestWriteWhilePartitionMoves(t *testing.T) {
	cfg := PutConfig{
		Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c"), Also: replicas("b d e"), Local: "a",
	}
	p := newPut(t, cfg)
	start(p)
	expect(t, p, prepared(), "replicate b sync: a1 | a1=v", "replicate c sync: a1 | a1=v",
		"replicate d sync: a1 | a1=v", "replicate e sync: a1 | a1=v", "arm request for AwaitingQuorum")
	expect(t, p, Durable{"a"})
	expect(t, p, Durable{"c"}) // two of the first list, none of the other
	expect(t, p, Durable{"b"})
	expect(t, p, Durable{"d"}, "reply written by 4: a1 | a1=v", "arm linger for AwaitingStragglers")
	expect(t, p, Deadline{AwaitingStragglers}, "keep hint for e", "stop")

	const moves = "reply unavailable, unknown: the partition moves: of the replicas that reads "
	p = newPut(t, cfg)
	start(p)
	p.Step(now, prepared())
	p.Step(now, Durable{"a"})
	p.Step(now, Durable{"c"})
	expect(t, p, Deadline{AwaitingQuorum}, moves+"do not use 0 of 2 answered; b: timeout; d: timeout; e: timeout",
		"keep hint for b", "keep hint for d", "keep hint for e", "stop")
	p = newPut(t, cfg)
	start(p)
	p.Step(now, prepared())
	p.Step(now, Durable{"d"})
	p.Step(now, Durable{"e"})
	expect(t, p, Deadline{AwaitingQuorum}, moves+"use 0 of 2 answered; a: timeout; b: timeout; c: timeout",
		"keep hint for b", "keep hint for c", "stop")
	cfg.Local = "d" // a primary of the other list may coordinate, too
	newPut(t, cfg)
}

// TestFallbackThatDoesNotConfirm: when the quorum is met without one that stands
// in for a primary which was down from the start, the coordinator remembers that
// this one lacks the write.
func TestFallbackThatDoesNotConfirm(t *testing.T) {
	p := newPut(t, PutConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b d>c e>"), Local: "a"})
	start(p)
	p.Step(now, prepared())
	p.Step(now, Durable{"a"})
	p.Step(now, Durable{"b"})
	expect(t, p, Fail{From: "d", Reason: Overloaded}, "keep hint for c", "stop")
}

// TestKnownRetry: a retry that the vnode recognises is replicated again, for the
// first attempt may have reached nobody else.
func TestKnownRetry(t *testing.T) {
	p := plainPut(t)
	start(p)
	e := prepared()
	e.Known = true
	expect(t, p, e, "replicate b sync: a1 | a1=v", "replicate c sync: a1 | a1=v", "arm request for AwaitingQuorum")
	p.Step(now, Durable{"a"})
	expect(t, p, Durable{"b"}, "reply written by 2: a1 | a1=v (known)", "arm linger for AwaitingStragglers")
	expect(t, p, Deadline{AwaitingQuorum})
	expect(t, p, Deadline{AwaitingStragglers}, "keep hint for c", "stop")
}

// TestLateConfirmationOfFailedNode: the write is there after all.
func TestLateConfirmationOfFailedNode(t *testing.T) {
	p := plainPut(t)
	start(p)
	p.Step(now, prepared())
	p.Step(now, Fail{From: "b", Reason: TimedOut})
	p.Step(now, Durable{"a"})
	expect(t, p, Durable{"b"}, "reply written by 2: a1 | a1=v", "arm linger for AwaitingStragglers")
	expect(t, p, Durable{"b"})
	expect(t, p, Durable{"c"})
	expect(t, p, Fail{From: "d", Reason: TimedOut}, "stop")
}

func TestPutIgnoresTheImpossible(t *testing.T) {
	p := plainPut(t)
	if got := p.Step(now, prepared()); len(got) != 0 || p.State() != Ready {
		t.Errorf("before Start: %s", describeAll(got))
	}
	start(p)
	if again := p.Start(); len(again) != 0 {
		t.Errorf("a second Start: %s", describeAll(again))
	}
	for _, e := range []Event{Durable{"b"}, Durable{"x"}, Fail{From: "b", Reason: Unreachable}, Deadline{AwaitingQuorum}, answer("a", ""), nil} {
		if got := p.Step(now, e); len(got) != 0 || p.State() != AwaitingDot {
			t.Errorf("%+v in AwaitingDot caused %s", e, describeAll(got))
		}
	}
	p.Step(now, prepared())
	for _, e := range []Event{
		prepared(), Refused{Err: errRefused}, Durable{"d"}, Durable{"x"}, Fail{From: "d"}, Fail{From: "x"},
		Deadline{AwaitingDot}, Deadline{AwaitingStragglers}, answer("b", ""), nil,
	} {
		if got := p.Step(now, e); len(got) != 0 || p.State() != AwaitingQuorum {
			t.Errorf("%+v in AwaitingQuorum caused %s", e, describeAll(got))
		}
	}
	p.Step(now, Durable{"a"})
	p.Step(now, Durable{"b"})
	for _, e := range []Event{prepared(), Durable{"a"}, Durable{"x"}, answer("b", ""), Deadline{AwaitingQuorum}} {
		if got := p.Step(now, e); len(got) != 0 || p.State() != AwaitingStragglers {
			t.Errorf("%+v in AwaitingStragglers caused %s", e, describeAll(got))
		}
	}
	if d := p.Describe(); d.Quorum != "2 of 2, met" || d.Replicas[2].Stage != "asked" {
		t.Errorf("described as %+v", d)
	}
}

func TestNewPutRefuses(t *testing.T) {
	if _, err := NewPut(PutConfig{Params: params(3, 1, 4, 0, 0)}); !errors.Is(err, ErrParams) || !errors.Is(err, quorum.ErrW) {
		t.Errorf("W = 4 of 3: %v", err)
	}
	two := PutConfig{Params: params(2, 1, 2, 0, 0), Candidates: replicas("a b e> f>"), Also: replicas("c e>x f>"), Local: "a"}
	if _, err := NewPut(two); !errors.Is(err, ErrTwoTasks) {
		t.Errorf("a node with two tasks: %v", err)
	}
	for _, local := range []dynamo.NodeID{"d", "x", ""} {
		cfg := PutConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c d>"), Local: local}
		if _, err := NewPut(cfg); !errors.Is(err, ErrNotOnList) {
			t.Errorf("coordinated by %q: %v", local, err)
		}
	}
}

// TestOneNodeCountsOnce: a node that is named twice among the candidates is one
// disk, and so are two confirmations from it.
func TestOneNodeCountsOnce(t *testing.T) {
	p := newPut(t, PutConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b b"), Local: "a"})
	start(p)
	expect(t, p, prepared(), "replicate b sync: a1 | a1=v", "arm request for AwaitingQuorum")
	expect(t, p, Durable{"a"})
	expect(t, p, Durable{"a"})
	expect(t, p, Durable{"b"}, "reply written by 2: a1 | a1=v", "stop")
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		AwaitingDot.String(): "AwaitingDot", Done.String(): "Done", State(99).String(): "unknown(99)",
		Overloaded.String(): "overloaded", Reason(99).String(): "unknown(99)", Certain.String(): "done",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	cfg := PutConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c d> e>"), Local: "a"}
	e := []Event{prepared(), Durable{"a"}, Durable{"b"}, Durable{"c"}}
	b.ReportAllocs()
	for b.Loop() {
		p := newPut(b, cfg)
		p.Start()
		for _, e := range e {
			p.Step(now, e)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	cfg := GetConfig{Params: params(3, 2, 2, 0, 0), Candidates: replicas("a b c d> e>"), Near: "a", DigestAbove: 4096}
	e := []Event{answer("a", "a1 | a1=v"), answer("b", "a1 | a1=v"), answer("c", "a1 | a1=v")}
	b.ReportAllocs()
	for b.Loop() {
		g := newGet(b, cfg)
		g.Start()
		for _, e := range e {
			g.Step(now, e)
		}
	}
}

// TestResume: a write that was made by an earlier plan goes on with its record. No dot is
// made, the node that runs it is a replica like the others, or none, and nobody is asked
// to remember who lacks what.
func TestResume(t *testing.T) {
	made := prepared()
	for d, want := range map[dynamo.Durability][2]string{
		dynamo.DurabilityAll:  {"replicate a sync: a1 | a1=v", "replicate b sync: a1 | a1=v"},
		dynamo.DurabilityOne:  {"replicate a sync: a1 | a1=v", "replicate b: a1 | a1=v"},
		dynamo.DurabilityNone: {"replicate a: a1 | a1=v", "replicate b: a1 | a1=v"},
	} {
		p := newPut(t, PutConfig{Params: params(2, 1, 2, 0, 0), Durability: d, Candidates: replicas("a b"), Local: "z", Resume: &made})
		expect(t, p, nil, want[0], want[1], "arm request for AwaitingQuorum")
		expect(t, p, Durable{"b"})
		expect(t, p, Durable{"a"}, "reply written by 2: a1 | a1=v", "stop")
	}
	p := newPut(t, PutConfig{Params: params(2, 1, 2, 0, 0), Candidates: replicas("a b"), Local: "a", Resume: &made})
	start(p)
	expect(t, p, Fail{From: "b", Reason: Stale}, "reply outdated by b, unknown", "stop")

	p = newPut(t, PutConfig{Params: params(2, 1, 2, 0, 0), Candidates: replicas("a"), Local: "a", Resume: &made})
	expect(t, p, nil, "reply unavailable, unknown: 0 of 2 answered", "stop")
}

package request

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
)

// What a replica may have to say. The records are chosen so that the oracle can
// reconcile by a table: new and gone each supersede old, and are concurrent.
const (
	sayOld     = iota // a1
	sayNew            // a2, superseding a1
	sayGone           // b1, a tombstone superseding a1
	sayNothing        // nothing, said by a filled replica
	sayFilling        // nothing, said by one that is being filled
	sayFail           // a failure
	sayings
)

var said = [sayings]Event{
	sayOld:     answer("", "a1 | a1=old"),
	sayNew:     answer("", "a2 | a2=new"),
	sayGone:    answer("", "a1 b1 | b1=-"),
	sayNothing: answer("", ""),
	sayFilling: Answer{},
	sayFail:    Fail{Reason: Unreachable},
}

// by returns what a node says as an event.
func by(node dynamo.NodeID, say int) Event {
	switch e := said[say].(type) {
	case Answer:
		e.From = node
		return e
	case Fail:
		e.From = node
		return e
	}
	panic("no such saying")
}

// TestGetEveryOrder reads from three places and a spare. It tries, for
// different sets of answers, every order in which they and the deadlines can
// come, and holds each step against an oracle that knows only what came in.
func TestGetEveryOrder(t *testing.T) {
	layouts := []string{"a b c d>", "a b d>c e>", "a d>b e>c f>"}
	orders := 0
	for _, layout := range layouts {
		for r := 1; r <= 3; r++ {
			for _, pr := range []int{0, 2} {
				for set := range sayings * sayings * sayings {
					// The spare's saying varies along with the others'.
					says := []int{set % sayings, set / sayings % sayings, set / sayings / sayings, (set + r) % sayings}
					orders += permute(func(choose func(int) int) {
						newGetRun(t, layout, r, pr, says, set%2 == 0).run(choose)
					})
				}
			}
		}
	}
	t.Logf("%d orders", orders)
	if orders < 50_000 {
		t.Errorf("only %d orders were tried", orders)
	}
}

// getRun is one order: the machine, and what the oracle knows.
type getRun struct {
	t     *testing.T
	get   *Get
	cfg   GetConfig
	says  []int
	twice bool // every event comes twice
	// heard is what has come in of each candidate, -1 nothing; asked is who
	// was asked. late is set once the deadline passed.
	heard    []int
	asked    []bool
	late     bool
	armed    State
	replied  Result
	stopped  bool
	repaired map[dynamo.NodeID]int
	trace    []Event
}

func newGetRun(t *testing.T, layout string, r, pr int, says []int, twice bool) *getRun {
	cfg := GetConfig{Params: params(3, r, 1, pr, 0), Candidates: replicas(layout)}
	g, err := NewGet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &getRun{
		t: t, get: g, cfg: cfg, says: says, twice: twice,
		heard: []int{-1, -1, -1, -1}, asked: make([]bool, 4), repaired: map[dynamo.NodeID]int{},
	}
}

func (x *getRun) fatalf(format string, args ...any) {
	x.t.Helper()
	x.t.Fatalf("r=%d pr=%d %v: %s\nafter %+v", x.cfg.Params.R, x.cfg.Params.PR, x.cfg.Candidates,
		fmt.Sprintf(format, args...), x.trace)
}

// run lets events happen until nothing more can.
func (x *getRun) run(choose func(int) int) {
	x.absorb(x.get.Start())
	for !x.stopped {
		var open []int
		for i := range x.asked {
			if x.asked[i] && x.heard[i] < 0 {
				open = append(open, i)
			}
		}
		// The last choice is the deadline, once in each phase.
		pick := choose(len(open) + 1)
		var e Event = Deadline{For: x.armed}
		if pick < len(open) {
			i := open[pick]
			x.heard[i] = x.says[i]
			e = by(x.cfg.Candidates[i].Node, x.says[i])
		} else {
			x.late = true
		}
		x.step(e)
		if x.replied == nil && x.late {
			x.fatalf("the deadline brought no reply")
		}
	}
	x.finish()
}

func (x *getRun) step(e Event) {
	x.trace = append(x.trace, e)
	repliedBefore := x.replied != nil
	x.absorb(x.get.Step(now, e))
	if !repliedBefore {
		x.checkReply()
	}
	if x.twice && !x.stopped {
		if again := x.get.Step(now, e); len(again) != 0 {
			x.fatalf("the same event again caused %s", describeAll(again))
		}
	}
}

// absorb carries out effects as far as the oracle needs to know them.
func (x *getRun) absorb(effects []Effect) {
	for _, e := range effects {
		if x.stopped {
			x.fatalf("%s after stop", describe(e))
		}
		switch e := e.(type) {
		case Ask:
			i := slices.IndexFunc(x.cfg.Candidates, func(c dynamo.Replica) bool { return c.Node == e.Replica.Node })
			if x.asked[i] || x.replied != nil {
				x.fatalf("%s asked again, or after the reply", e.Replica.Node)
			}
			x.asked[i] = true
		case Reply:
			if x.replied != nil {
				x.fatalf("second reply %s", showResult(e.Result))
			}
			x.replied = e.Result
		case Repair:
			if x.replied == nil {
				x.fatalf("repair before the reply")
			}
			x.repaired[e.Replica.Node]++
			if want := x.merged(); !e.Record.SameCausal(want) || len(e.Record.Missing()) > 0 {
				x.fatalf("repair with %s, want %s", show(e.Record), show(want))
			}
		case Arm:
			x.armed = e.For
		case Stop:
			x.stopped = true
		default:
			x.fatalf("unexpected effect %T", e)
		}
	}
}

// merged reconciles what was heard, by the table of superseding.
func (x *getRun) merged() version.Record {
	has := func(say int) bool { return slices.Contains(x.heard, say) }
	switch {
	case has(sayNew) && has(sayGone):
		return record("a2 b1 | a2=new b1=-")
	case has(sayNew):
		return record("a2 | a2=new")
	case has(sayGone):
		return record("a1 b1 | b1=-")
	case has(sayOld):
		return record("a1 | a1=old")
	}
	return version.Record{}
}

// counts is the oracle's tally: nodes that count, fallbacks that say nothing
// that proves anything, nodes that may still speak, and the primaries among them.
func (x *getRun) counts() (counted, primaries, hollow, open, openPrimaries int) {
	for i, c := range x.cfg.Candidates {
		primary := c.Role == dynamo.Primary
		switch h := x.heard[i]; {
		case h == sayOld || h == sayNew || h == sayGone || h == sayNothing && primary:
			counted++
			if primary {
				primaries++
			}
		case (h == sayNothing || h == sayFilling) && !primary:
			hollow++
		case h < 0 && !x.late:
			open++
			if primary {
				openPrimaries++
			}
		}
	}
	return counted, primaries, hollow, open, openPrimaries
}

// checkReply holds the reply, or its absence, against what was heard so far.
func (x *getRun) checkReply() {
	counted, primaries, hollow, open, openPrimaries := x.counts()
	pr := x.cfg.Params.PR
	needed := max(x.cfg.Params.R, pr)
	merged := x.merged()
	live := slices.Contains(x.heard, sayNew) || slices.Contains(x.heard, sayOld) && !slices.Contains(x.heard, sayGone)
	enough := counted >= needed || live && openPrimaries == 0 && counted+hollow >= needed
	enough = enough && primaries >= pr
	hopeless := open == 0 || counted+hollow+open < needed || primaries+openPrimaries < pr
	var want string
	switch {
	case enough && live:
		want = "found: " + show(merged)
	case enough:
		want = "not found: " + show(merged)
	case hopeless:
		u, ok := x.replied.(Unavailable)
		if !ok || u.Answered != counted || u.Needed != needed || u.PrimariesAnswered != primaries || u.Attempted {
			x.fatalf("replied %v, want unavailable with %d of %d", x.replied, counted, needed)
		}
		return
	default:
		if x.replied != nil {
			x.fatalf("replied %s too early", showResult(x.replied))
		}
		x.checkAsked()
		return
	}
	if x.replied == nil || showResult(x.replied) != want {
		x.fatalf("replied %v, want %s", x.replied, want)
	}
}

// checkAsked: while the reply is out, every failure is made up for by the next
// candidate, as long as there is one.
func (x *getRun) checkAsked() {
	failures, asked := 0, 0
	for i := range x.asked {
		if x.heard[i] == sayFail {
			failures++
		}
		if x.asked[i] {
			asked++
		}
	}
	if asked < min(len(x.asked), 3+failures) {
		x.fatalf("%d candidates asked after %d failures", asked, failures)
	}
}

// finish checks the repairs, and that nothing happens after the end.
func (x *getRun) finish() {
	merged := x.merged()
	counted, primaries, _, _, _ := x.counts()
	whole := counted >= max(x.cfg.Params.R, x.cfg.Params.PR) && primaries >= x.cfg.Params.PR
	silent := false
	for i, c := range x.cfg.Candidates {
		silent = silent || c.Role == dynamo.Primary && (x.heard[i] < 0 || x.heard[i] == sayFail)
	}
	for i, c := range x.cfg.Candidates {
		stale := c.Role == dynamo.Primary && x.heard[i] >= 0 && x.heard[i] != sayFail
		if stale {
			e := by(c.Node, x.heard[i]).(Answer)
			stale = !e.Record.SameCausal(merged) && (x.heard[i] != sayFilling || whole || !silent)
		}
		if want := map[bool]int{true: 1}[stale]; x.repaired[c.Node] != want {
			x.fatalf("%s was repaired %d times, want %d", c.Node, x.repaired[c.Node], want)
		}
	}
	if x.get.State() != Done {
		x.fatalf("stopped in state %v", x.get.State())
	}
	for i, c := range x.cfg.Candidates {
		for _, e := range []Event{by(c.Node, x.says[i]), by(c.Node, sayNew), Deadline{AwaitingQuorum}, Deadline{AwaitingStragglers}} {
			if late := x.get.Step(now, e); len(late) != 0 {
				x.fatalf("%+v after the end caused %s", e, describeAll(late))
			}
		}
	}
}

package request

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

var errRefused = errors.New("refused")

// What the local vnode does with a write.
const (
	vnodeWrites    = iota // prepares, then the commit ends
	vnodeOvertakes        // the word of the commit's end overtakes the other
	vnodeFails            // prepares, then the commit fails
	vnodeRefuses          // writes nothing
	vnodeForgets          // does not know what became of an earlier attempt
	vnodeCrashes          // falls over before it said anything
	vnodeOverloaded
	vnodeWays
)

// script returns the local events in the order in which they come.
func script(way int, local dynamo.NodeID) []Event {
	prepared := Prepared{Record: record("a1 | a1=v"), Dot: dot('a', 1)}
	switch way {
	case vnodeWrites:
		return []Event{prepared, Durable{local}}
	case vnodeOvertakes:
		return []Event{Durable{local}, prepared}
	case vnodeFails:
		return []Event{prepared, Fail{From: local, Reason: StorageFailed}}
	case vnodeRefuses:
		return []Event{Refused{Err: errRefused}}
	case vnodeForgets:
		return []Event{Refused{Err: errRefused, Unknown: true}}
	case vnodeCrashes:
		return []Event{Fail{From: local, Reason: Crashed}}
	}
	return []Event{Fail{From: local, Reason: Overloaded}}
}

// TestPutEveryOrder writes to three places and two spares, and holds every
// order of what can happen against an oracle, as TestGetEveryOrder does.
func TestPutEveryOrder(t *testing.T) {
	orders := 0
	for _, layout := range []string{"a b c d> e>", "a b d>c e> f>"} {
		for w := 1; w <= 3; w++ {
			for _, pw := range []int{0, 1, 3} {
				for way := range vnodeWays {
					for fails := range 16 {
						d := dynamo.Durability((fails + w) % 3)
						local := replicas(layout)[(way+fails)%3].Node
						cfg := PutConfig{Params: params(3, 1, w, 0, pw), Durability: d, Candidates: replicas(layout), Local: local}
						orders += permute(func(choose func(int) int) {
							newPutRun(t, cfg, way, fails, fails%2 == 0).run(choose)
						})
					}
				}
			}
		}
	}
	t.Logf("%d orders", orders)
	if orders < 25_000 {
		t.Errorf("only %d orders were tried", orders)
	}
}

// TestPutEveryOrderJoint does the same with a partition that moves: a write needs
// its quorum in both lists. A node of both is asked once.
func TestPutEveryOrderJoint(t *testing.T) {
	orders := 0
	for _, layout := range []struct{ read, also string }{
		{"a b e>", "a c e>"},     // one node is new
		{"a b e>", "c d e>"},     // both are
		{"a b e>", "c d"},        // who may stand in for one list may not for the other
		{"a b", "b c"},           // nobody may stand in
		{"a e>x f>", "a e>x f>"}, // a primary of both is down
		{"a e>x f>", "b c f>"},   // one of the first list only
	} {
		cfg := PutConfig{Candidates: replicas(layout.read), Also: replicas(layout.also)}
		nodes := len(union(cfg))
		for w := 1; w <= 2; w++ {
			for _, pw := range []int{0, w} {
				for way := range vnodeWays {
					for fails := range 1 << nodes {
						if way >= vnodeRefuses && fails > 1 {
							continue // nobody else is asked
						}
						cfg.Params, cfg.Durability = params(2, 1, w, 0, pw), dynamo.Durability((fails+w)%3)
						cfg.Local = cfg.Candidates[0].Node
						if fails%2 == 1 {
							cfg.Local = cfg.Also[0].Node
						}
						orders += permute(func(choose func(int) int) {
							newPutRun(t, cfg, way, fails, fails%2 == 0).run(choose)
						})
					}
				}
			}
		}
	}
	t.Logf("%d orders", orders)
	if orders < 25_000 {
		t.Errorf("only %d orders were tried", orders)
	}
}

// putRun is one order: the machine, and what the oracle knows.
type putRun struct {
	t     *testing.T
	put   *Put
	cfg   PutConfig
	all   []dynamo.Replica // both lists, each node once
	local []Event          // still to come from the local vnode
	fails int              // bit i: candidate i fails
	twice bool
	// sent is who was sent the record, heard whose answer came, durable and
	// failed what it was.
	// synced is who was told to sync, hints who stands in for whom.
	sent, heard, durable, failed, synced map[dynamo.NodeID]bool
	hints                                map[dynamo.NodeID]dynamo.NodeID
	prepared, late                       bool
	armed                                State
	replied                              Result
	stopped                              bool
	trace                                []Event
}

func newPutRun(t *testing.T, cfg PutConfig, way, fails int, twice bool) *putRun {
	p, err := NewPut(cfg)
	if err != nil {
		t.Fatal(err)
	}
	set := func() map[dynamo.NodeID]bool { return make(map[dynamo.NodeID]bool, 5) }
	return &putRun{
		t: t, put: p, cfg: cfg, all: union(cfg), local: script(way, cfg.Local), fails: fails, twice: twice,
		sent: set(), heard: set(), durable: set(), failed: set(), synced: set(), hints: make(map[dynamo.NodeID]dynamo.NodeID, 5),
	}
}

// union are the candidates of both lists, each once.
func union(cfg PutConfig) []dynamo.Replica {
	all := slices.Clone(cfg.Candidates)
	for _, c := range cfg.Also {
		if !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

func (x *putRun) fatalf(format string, args ...any) {
	x.t.Helper()
	x.t.Fatalf("%v %v local %s %v %v: %s\nafter %+v", x.cfg.Params, x.cfg.Durability, x.cfg.Local, x.cfg.Candidates, x.cfg.Also,
		fmt.Sprintf(format, args...), x.trace)
}

func (x *putRun) run(choose func(int) int) {
	x.absorb(x.put.Start())
	for !x.stopped {
		var open []Event
		if len(x.local) > 0 {
			open = append(open, x.local[0])
		}
		for i, c := range x.all {
			switch {
			case !x.sent[c.Node] || x.heard[c.Node]:
			case x.fails&(1<<i) != 0:
				open = append(open, Fail{From: c.Node, Reason: Overloaded})
			default:
				open = append(open, Durable{c.Node})
			}
		}
		e := Event(Deadline{For: x.armed})
		if i := choose(len(open) + 1); i < len(open) {
			e = open[i]
			if i == 0 && len(x.local) > 0 {
				x.local = x.local[1:]
			}
		}
		x.step(e)
	}
	for _, e := range []Event{Durable{"a"}, Fail{From: "b"}, Deadline{AwaitingQuorum}, Deadline{AwaitingDot}, Prepared{}, Refused{}} {
		if late := x.put.Step(now, e); len(late) != 0 || x.put.State() != Done {
			x.fatalf("%+v after the end caused %s", e, describeAll(late))
		}
	}
}

func (x *putRun) step(e Event) {
	x.trace = append(x.trace, e)
	switch e := e.(type) {
	case Prepared:
		x.prepared = true
	case Durable:
		x.heard[e.From], x.durable[e.From] = true, true
	case Fail:
		x.heard[e.From], x.failed[e.From] = true, true
	case Deadline:
		x.late = true
	}
	before := x.replied != nil
	effects := x.put.Step(now, e)
	x.absorb(effects)
	if !before {
		x.checkReply(e)
		x.checkReplaced(e, effects)
	}
	if x.twice && !x.stopped {
		if again := x.put.Step(now, e); len(again) != 0 {
			x.fatalf("the same event again caused %s", describeAll(again))
		}
	}
}

func (x *putRun) absorb(effects []Effect) {
	hinted := map[dynamo.NodeID]bool{}
	for _, e := range effects {
		if x.stopped {
			x.fatalf("%s after stop", describe(e))
		}
		switch e := e.(type) {
		case Coordinate:
			if want := x.cfg.Durability != dynamo.DurabilityNone; e.Replica.Node != x.cfg.Local || e.Sync != want {
				x.fatalf("%s", describe(e))
			}
			x.synced[e.Replica.Node] = e.Sync
		case Replicate:
			if !x.prepared || x.sent[e.Replica.Node] || e.Replica.Node == x.cfg.Local || x.replied != nil {
				x.fatalf("%s must not be sent now", describe(e))
			}
			x.sent[e.Replica.Node], x.hints[e.Replica.Node] = true, e.Replica.For
			x.synced[e.Replica.Node] = e.Sync
			if x.cfg.Durability == dynamo.DurabilityAll && !e.Sync || x.cfg.Durability == dynamo.DurabilityNone && e.Sync {
				x.fatalf("%s with durability %v", describe(e), x.cfg.Durability)
			}
		case Reply:
			if x.replied != nil {
				x.fatalf("second reply %s", showResult(e.Result))
			}
			x.replied = e.Result
		case Arm:
			x.armed = e.For
			x.late = false
		case KeepHint:
			hinted[e.For] = true
		case Stop:
			x.stopped = true
			x.checkHints(hinted)
		default:
			x.fatalf("unexpected effect %T", e)
		}
	}
}

// checkHints: at the end every primary that was to get the write, itself or by a
// fallback, has a hint here unless one of them confirmed; nobody else has one.
func (x *putRun) checkHints(hinted map[dynamo.NodeID]bool) {
	asked, kept := map[dynamo.NodeID]bool{}, map[dynamo.NodeID]bool{}
	for _, c := range x.all {
		owner := x.owner(c)
		asked[owner] = asked[owner] || x.sent[c.Node]
		kept[owner] = kept[owner] || x.durable[c.Node]
	}
	for owner := range asked {
		if want := owner != "" && asked[owner] && !kept[owner]; hinted[owner] != want {
			x.fatalf("hint for %s: %v, want %v", owner, hinted[owner], want)
		}
	}
}

// owner is the primary whose copy a candidate keeps, as far as it was asked.
func (x *putRun) owner(c dynamo.Replica) dynamo.NodeID {
	switch {
	case c.Role == dynamo.Primary:
		return c.Node
	case x.hints[c.Node] != "":
		return x.hints[c.Node]
	}
	return c.For
}

// standing is what came of one list, and what may still come.
type standing struct{ confirmed, primaries, open, openPrimaries int }

// standing counts the nodes of a list: its primaries, and those that keep the copy
// of one of them. One that stands in for nobody yet may still count.
func (x *putRun) standing(list []dynamo.Replica) standing {
	var s standing
	owners := map[dynamo.NodeID]bool{}
	for _, c := range list {
		if c.Role == dynamo.Primary {
			owners[c.Node] = true
		}
		owners[c.For] = true // spares have none, and may stand in for anybody
	}
	for _, c := range x.all {
		primary := map[bool]int{true: 1}[c.Role == dynamo.Primary && slices.Contains(list, c)]
		switch counts := owners[x.owner(c)] && (x.owner(c) != "" || slices.Contains(list, c)); {
		case !counts:
		case x.durable[c.Node]:
			s.confirmed, s.primaries = s.confirmed+1, s.primaries+primary
		case !x.failed[c.Node] && !x.late:
			s.open, s.openPrimaries = s.open+1, s.openPrimaries+primary
		}
	}
	return s
}

// checkReply holds the reply, or its absence, against what was heard so far.
func (x *putRun) checkReply(e Event) {
	needed, pw := max(x.cfg.Params.W, x.cfg.Params.PW), x.cfg.Params.PW
	met, short := true, []standing(nil)
	for _, list := range [][]dynamo.Replica{x.cfg.Candidates, x.cfg.Also} {
		if len(list) == 0 {
			continue
		}
		s := x.standing(list)
		met = met && s.confirmed >= needed && s.primaries >= pw
		if s.confirmed+s.open < needed || s.primaries+s.openPrimaries < pw {
			short = append(short, s)
		}
	}
	confirmed, awaited := 0, 0
	for _, c := range x.all {
		if x.durable[c.Node] {
			confirmed++
		} else if _, asked := x.synced[c.Node]; asked && !x.failed[c.Node] && !x.late {
			awaited++
		}
	}
	want := ""
	switch _, crashed := e.(Fail); {
	case !x.prepared:
		want = x.wantUnprepared(e, crashed)
	case met:
		want = fmt.Sprintf("written by %d: a1 | a1=v", confirmed)
	case awaited > 0 && !x.late: // also when the quorum is lost: how far did the write go?
	case len(short) > 0:
		u, ok := x.replied.(Unavailable)
		named := slices.ContainsFunc(short, func(s standing) bool { return u.Answered == s.confirmed && u.PrimariesAnswered == s.primaries })
		if !ok || !u.Attempted || u.Certainty() != Uncertain || !named || (u.Where != Everywhere) != (len(x.cfg.Also) > 0) {
			x.fatalf("replied %v, want unavailable with one of %+v", x.replied, short)
		}
		return
	default:
		x.fatalf("nothing is awaited, and nothing was decided")
	}
	got := ""
	if x.replied != nil {
		got = showResult(x.replied)
	}
	if got != want {
		x.fatalf("replied %q, want %q", got, want)
	}
}

// wantUnprepared says what is to be replied before the vnode prepared.
func (x *putRun) wantUnprepared(e Event, failed bool) string {
	if x.late {
		return "unknown"
	}
	if r, ok := e.(Refused); ok {
		return map[bool]string{false: "not attempted: refused", true: "unknown: refused"}[r.Unknown]
	}
	if f, ok := e.(Fail); ok && f.Reason == Crashed {
		return "unknown"
	}
	if failed {
		if u, ok := x.replied.(Unavailable); ok && u.Certainty() == NotAttempted {
			return showResult(x.replied)
		}
		return "unavailable, not attempted"
	}
	return ""
}

// checkReplaced: as long as the quorum is open, a failed replica is made up for
// by the next candidate of a list of its own, which names it in its hint.
func (x *putRun) checkReplaced(e Event, effects []Effect) {
	f, ok := e.(Fail)
	if !ok || !x.prepared || x.replied != nil {
		return
	}
	at := func(list []dynamo.Replica) int {
		return slices.IndexFunc(list, func(c dynamo.Replica) bool { return c.Node == f.From })
	}
	i := slices.IndexFunc(effects, func(e Effect) bool { _, ok := e.(Replicate); return ok })
	if i < 0 {
		for _, c := range x.all {
			shared := slices.Contains(x.cfg.Candidates, c) && at(x.cfg.Candidates) >= 0 || slices.Contains(x.cfg.Also, c) && at(x.cfg.Also) >= 0
			// A stand-in counts only where its primary does, which the lists do not tell.
			if known := len(x.cfg.Also) == 0 || x.all[at(x.all)].Role == dynamo.Primary; known && shared && !x.sent[c.Node] && c.Node != x.cfg.Local {
				x.fatalf("%s was not replaced by %s", f.From, c.Node)
			}
		}
		return
	}
	want := x.owner(x.all[at(x.all)])
	sent := effects[i].(Replicate)
	if sent.Replica.For != want || sent.Replica.Role != dynamo.Fallback {
		x.fatalf("%s stands in for %q, want %q", sent.Replica.Node, sent.Replica.For, want)
	}
	if sent.Sync != x.synced[f.From] {
		x.fatalf("%s takes over from %s, which was to sync: %v", describe(sent), f.From, x.synced[f.From])
	}
}

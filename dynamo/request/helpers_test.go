package request

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/version"
)

// now is when all tests run.
const now dynamo.Timestamp = 1000

// replicas parses "a b c>x d>": primaries a and b, a fallback c for x, a
// fallback d for nobody yet.
func replicas(s string) []dynamo.Replica {
	var out []dynamo.Replica
	for word := range strings.FieldsSeq(s) {
		node, stoodFor, fallback := strings.Cut(word, ">")
		r := dynamo.Replica{Partition: 5, Node: dynamo.NodeID(node), For: dynamo.NodeID(stoodFor)}
		if fallback {
			r.Role = dynamo.Fallback
		}
		out = append(out, r)
	}
	return out
}

// dot is the n-th write of the vnode named by one letter.
func dot(vnode byte, n uint64) clock.Dot {
	return clock.Dot{Actor: clock.Actor{Incarnation: clock.Incarnation{vnode}, Epoch: 1}, Counter: n}
}

// record parses "a2 b1 | a2=value b1=+ ...": a clock, and the versions under
// it. A version is a dot with "=value", "=-" for a tombstone, "=!" for one that
// has expired, "=?" for one whose value was left out, or "!?" for both. An
// empty string is the zero record.
func record(s string) version.Record {
	past, present, _ := strings.Cut(s, "|")
	var entries []clock.Entry
	for word := range strings.FieldsSeq(past) {
		d := parseDot(word)
		entries = append(entries, clock.Entry{Actor: d.Actor, Counter: d.Counter})
	}
	var r version.Record
	r.Clock = clock.Of(entries...)
	for word := range strings.FieldsSeq(present) {
		name, value, _ := strings.Cut(word, "=")
		v := version.Version{Dot: parseDot(name)}
		switch value {
		case "-":
			v.Tombstone = true
		case "!":
			v.Expires, v.Value = now, []byte("expired")
		case "!?":
			v.Expires, v.Omitted = now, true
		case "?":
			v.Omitted = true
		default:
			v.Value = []byte(value)
		}
		r.Versions = version.Insert(r.Versions, v)
	}
	return r
}

func parseDot(s string) clock.Dot {
	var n uint64
	if _, err := fmt.Sscanf(s[1:], "%d", &n); err != nil {
		panic(fmt.Sprintf("%q is no dot", s))
	}
	return dot(s[0], n)
}

// show prints a record as record reads it.
func show(r version.Record) string {
	name := func(d clock.Dot) string { return fmt.Sprintf("%c%d", d.Actor.Incarnation[0], d.Counter) }
	var words []string
	for _, e := range r.Clock.Entries() {
		words = append(words, name(clock.Dot{Actor: e.Actor, Counter: e.Counter}))
	}
	words = append(words, "|")
	for _, v := range r.Versions {
		value := string(v.Value)
		switch {
		case v.Tombstone:
			value = "-"
		case v.Expires != 0 && v.Omitted:
			value = "!?"
		case v.Expires != 0:
			value = "!"
		case v.Omitted:
			value = "?"
		}
		words = append(words, name(v.Dot)+"="+value)
	}
	return strings.Join(words, " ")
}

func showReplica(r dynamo.Replica) string {
	if r.Role == dynamo.Fallback {
		return string(r.Node) + ">" + string(r.For)
	}
	return string(r.Node)
}

// describe prints one effect on a line.
func describe(e Effect) string {
	sync := map[bool]string{true: " sync"}
	switch e := e.(type) {
	case Ask:
		if e.DigestAbove > 0 {
			return fmt.Sprintf("ask %s digest-above=%d", showReplica(e.Replica), e.DigestAbove)
		}
		return "ask " + showReplica(e.Replica)
	case Fetch:
		return "fetch " + showReplica(e.Replica)
	case Coordinate:
		return "coordinate " + showReplica(e.Replica) + sync[e.Sync]
	case Replicate:
		return fmt.Sprintf("replicate %s%s: %s", showReplica(e.Replica), sync[e.Sync], show(e.Record))
	case KeepHint:
		return "keep hint for " + string(e.For)
	case Repair:
		return fmt.Sprintf("repair %s %v: %s", showReplica(e.Replica), e.Cause, show(e.Record))
	case Reply:
		return "reply " + showResult(e.Result)
	case Arm:
		return fmt.Sprintf("arm %v for %v", e.Timeout, e.For)
	case Stop:
		return "stop"
	}
	return fmt.Sprintf("unknown effect %T", e)
}

func showResult(r Result) string {
	switch r := r.(type) {
	case Found:
		return "found: " + show(r.Record)
	case NotFound:
		return "not found: " + show(r.Record)
	case Written:
		s := fmt.Sprintf("written by %d: %s", r.Replicas, show(r.Record))
		if r.Known {
			s += " (known)"
		}
		return s
	case Unattempted:
		return fmt.Sprintf("%v: %v", r.Certainty(), r.Err)
	case Unavailable:
		return fmt.Sprintf("unavailable, %v: %v", r.Certainty(), r)
	case Unknown:
		return r.Certainty().String()
	case Outdated:
		return fmt.Sprintf("outdated by %s, %v", r.Node, r.Certainty())
	}
	return fmt.Sprintf("unknown result %T", r)
}

func describeAll(effects []Effect) string {
	var lines []string
	for _, e := range effects {
		lines = append(lines, describe(e))
	}
	return strings.Join(lines, "\n")
}

func params(n, r, w, pr, pw int) quorum.Params {
	return quorum.Params{N: n, R: r, W: w, PR: pr, PW: pw}
}

// machine is what both machines have in common.
type machine interface {
	Start() []Effect
	Step(dynamo.Timestamp, Event) []Effect
	State() State
	Describe() Description
}

// expect runs one step and compares its effects, as lines.
func expect(t testing.TB, m machine, e Event, want ...string) {
	t.Helper()
	var got []Effect
	if e == nil {
		got = m.Start()
	} else {
		got = m.Step(now, e)
	}
	if g, w := describeAll(got), strings.Join(want, "\n"); g != w {
		t.Fatalf("after %+v in state %v got\n%s\nwant\n%s", e, m.State(), g, w)
	}
}

func answer(from, rec string) Answer {
	return Answer{From: dynamo.NodeID(from), Found: rec != "", Record: record(rec), Authoritative: true}
}

func fetched(from, rec string) Answer {
	a := answer(from, rec)
	a.Fetched = true
	return a
}

// permute calls visit with every order in which events can happen: at each
// point choose is asked how many can happen now, and each is tried. It reports
// how many orders there were.
func permute(visit func(choose func(n int) int)) int {
	type choice struct{ taken, of int }
	var path []choice
	for orders := 1; ; orders++ {
		depth := 0
		visit(func(n int) int {
			if depth == len(path) {
				path = append(path, choice{0, n})
			}
			c := path[depth]
			if c.of != n {
				panic("the same choices led elsewhere: the machine is not deterministic")
			}
			depth++
			return c.taken
		})
		// The next order differs in the last choice that has another branch.
		for len(path) > 0 && path[len(path)-1].taken+1 == path[len(path)-1].of {
			path = path[:len(path)-1]
		}
		if len(path) == 0 {
			return orders
		}
		path[len(path)-1].taken++
	}
}

package messages

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func someTimeline() Timeline {
	us := time.Microsecond
	return Timeline{Node: "n1", Kind: "put", LeftOut: 3, Steps: []Step{
		{At: us, What: StepAdmitted},
		{At: 5 * us, What: StepReplicated, Node: "n4", StandsFor: "n3"},
		{At: time.Second, What: StepDurable, Node: "n4", Spent: Spent{Waited: us, Turn: 2 * us, Reader: 3 * us, Store: 4 * us}},
		{At: time.Minute, What: StepFailed, Node: "n2", Text: "time\x1b[2J out", Inner: &Timeline{Node: "n2", Kind: "put", Steps: []Step{{What: StepEnded}}}},
	}}
}

// TestTimeline: what is sent is what arrives.
func TestTimeline(t *testing.T) {
	want := someTimeline()
	got, err := ToTimeline(sent(t, FromTimeline(want)))
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if none, err := ToTimeline(nil); none != nil || err != nil {
		t.Errorf("of no timeline came %v, %v", none, err)
	}
	slow := []SlowRequest{{ID: "get/1", Bucket: `"b"`, Key: `"k"`, Partition: 7, Client: "c", Took: time.Second, Ago: time.Minute, Outcome: "done", Timeline: want}, {}}
	if got, err := ToSlow(sent(t, FromSlow(slow))); err != nil || !reflect.DeepEqual(got, slow) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, slow)
	}
	if total := want.Steps[2].Spent.Total(); total != 10*time.Microsecond {
		t.Errorf("all of it is %v", total)
	}
	seen := map[string]bool{}
	for k := StepAdmitted; k <= StepEnded; k++ {
		if seen[k.String()] || k.String() == "unknown" {
			t.Errorf("step %d is %q", k, k)
		}
		seen[k.String()] = true
	}
	if k := StepKind(200); k.String() != "unknown" {
		t.Errorf("a step of a later program is %q", k)
	}
}

// TestLongTimelinesAreCut: whatever happens to a request can be sent, and is taken at the other end.
func TestLongTimelinesAreCut(t *testing.T) {
	long := strings.Repeat("ä", 5000)
	wide := Timeline{Node: long, Kind: long, LeftOut: -1}
	for range MaxSteps + 5 {
		wide.Steps = append(wide.Steps, Step{At: -1, What: 255, Node: long, StandsFor: long, Text: "\xff" + long, Spent: Spent{Waited: -1, Store: math.MaxInt64}})
	}
	for range 2 * MaxTimelineDepth {
		inner := wide
		inner.Steps = inner.Steps[:1:1]
		wide.Steps[0].Inner = &inner
		wide = Timeline{Steps: wide.Steps}
	}
	deep := Timeline{}
	for range 2 * MaxTimelineDepth {
		inner := deep
		deep = Timeline{Steps: []Step{{Inner: &inner}}}
	}
	slow := make([]SlowRequest, MaxSlow+1)
	slow[0] = SlowRequest{ID: long, Bucket: long, Key: long, Client: long, Outcome: long, Took: -1, Ago: math.MaxInt64, Timeline: wide}
	slow[1].Timeline = deep
	got, err := ToSlow(sent(t, FromSlow(slow)))
	if err != nil || len(got) != MaxSlow {
		t.Fatalf("%d came: %v", len(got), err)
	}
	if r := got[0]; len(r.Steps) != MaxSteps || r.LeftOut != 5 || len(r.Key) > MaxSlowKey || r.Took != 0 || r.Steps[0].At != 0 || r.Steps[1].Spent.Store != math.MaxUint32*time.Microsecond {
		t.Errorf("%d steps, %d left out, a key of %d, took %v: %+v", len(r.Steps), r.LeftOut, len(r.Key), r.Took, r.Steps[1])
	}
	depth := 1
	for at := got[1].Timeline; len(at.Steps) > 0 && at.Steps[0].Inner != nil; at = *at.Steps[0].Inner {
		depth++
	}
	if depth != MaxTimelineDepth {
		t.Errorf("timelines lie %d deep, want %d", depth, MaxTimelineDepth)
	}
}

// TestHostileTimelines: what is too long or too deep is refused.
func TestHostileTimelines(t *testing.T) {
	long := strings.Repeat("x", MaxActorName+1)
	deep := &TimelineRecord{}
	for range MaxTimelineDepth {
		deep = &TimelineRecord{Steps: []*TimelineStep{{Inner: deep}}}
	}
	for name, m := range map[string]*TimelineRecord{
		"too many steps": {Steps: make([]*TimelineStep, MaxSteps+1)}, "node": {Node: long}, "kind": {Kind: long}, "step's node": {Steps: []*TimelineStep{{Node: long}}},
		"stands for": {Steps: []*TimelineStep{{StandsFor: long}}}, "text": {Steps: []*TimelineStep{{Text: long}}}, "depth": deep,
	} {
		if got, err := ToTimeline(m); !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got, err := ToSlow(&SlowRequestsReply{Requests: []*SlowRequestRecord{{Timeline: m}}}); !errors.Is(err, ErrBounds) {
			t.Errorf("slow request, %s: %+v, %v", name, got, err)
		}
	}
	for name, m := range map[string]*SlowRequestRecord{"id": {Id: long}, "bucket": {Bucket: long}, "key": {Key: long}, "client": {Client: long}, "outcome": {Outcome: long}} {
		if got, err := ToSlow(&SlowRequestsReply{Requests: []*SlowRequestRecord{m}}); !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := ToSlow(&SlowRequestsReply{Requests: make([]*SlowRequestRecord, MaxSlow+1)}); !errors.Is(err, ErrBounds) {
		t.Errorf("too many: %d, %v", len(got), err)
	}
	if got, err := ToSlow(&SlowRequestsReply{Requests: []*SlowRequestRecord{nil}}); err != nil || len(got) != 1 {
		t.Errorf("of nothing in a list came %+v, %v", got, err)
	}
}

// TestTraceContext: what is no traceparent is none.
func TestTraceContext(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	c := ToTraceContext([]byte(good))
	if !c.Valid() || !c.Sampled || string(c.Header()) != good || c.Trace[0] != 0x4b || c.Span[7] != 0xb7 {
		t.Errorf("read %+v, written %s", c, c.Header())
	}
	child := c.Child()
	if child.Trace != c.Trace || child.Span == c.Span || !child.Sampled || ToTraceContext(child.Header()) != child {
		t.Errorf("the child of %+v is %+v", c, child)
	}
	if root := (TraceContext{}).Child(); !root.Valid() || root.Trace == c.Trace {
		t.Errorf("a trace begins with %+v", root)
	}
	if h := (TraceContext{}).Header(); h != nil {
		t.Errorf("no trace is written %q", h)
	}
	change := func(at int, to string) string { return good[:at] + to + good[at+len(to):] }
	for header, sampled := range map[string]bool{good: true, change(53, "00"): false, change(53, "03"): true, change(0, "cc") + "-more": true, change(0, "01"): true} {
		if c := ToTraceContext([]byte(header)); !c.Valid() || c.Sampled != sampled {
			t.Errorf("%s: %+v", header, c)
		}
	}
	for _, header := range []string{
		"", "00", good[:54], good + "0", good + "-more", change(0, "ff"), change(0, "0x"), change(2, "_"), change(35, "0"), change(52, " "), change(3, "G"), change(3, "B"),
		change(3, strings.Repeat("0", 32)), change(36, strings.Repeat("0", 16)), change(53, "zz"), change(0, "cc") + "more", strings.Repeat("-", 4096),
	} {
		if c := ToTraceContext([]byte(header)); c != (TraceContext{}) {
			t.Errorf("%q: %+v", header, c)
		}
	}
}

func FuzzToTraceContext(f *testing.F) {
	f.Add([]byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
	f.Fuzz(func(t *testing.T, header []byte) {
		c := ToTraceContext(header)
		if c != (TraceContext{}) && (!c.Valid() || ToTraceContext(c.Header()) != c) {
			t.Errorf("%q: %+v", header, c)
		}
	})
}

func FuzzToTimeline(f *testing.F) {
	fuzz(f, []*SlowRequestsReply{FromSlow([]SlowRequest{{Key: "k", Timeline: someTimeline()}})}, func(t testing.TB, m *SlowRequestsReply) {
		got, err := ToSlow(m)
		if err != nil {
			return
		}
		again, err := ToSlow(sent(t, FromSlow(got)))
		if err != nil || len(again) != len(got) {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
	})
}

package actors

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/messages"
)

// story is a timeline without its times, after checking that those only grow.
func story(t testing.TB, record *messages.TimelineRecord) string {
	t.Helper()
	tl, err := messages.ToTimeline(record)
	if err != nil || tl == nil {
		t.Fatalf("timeline %v, %v", record, err)
	}
	return storyOf(t, *tl)
}

func storyOf(t testing.TB, tl messages.Timeline) string {
	t.Helper()
	out := tl.Node + " " + tl.Kind
	var at time.Duration
	for _, s := range tl.Steps {
		if s.At < at {
			t.Errorf("%v at %v comes after %v", s.What, s.At, at)
		}
		at = s.At
		out += "; " + s.What.String()
		for _, word := range []string{s.Node, s.Text} {
			if word != "" {
				out += " " + word
			}
		}
		if s.StandsFor != "" {
			out += " for " + s.StandsFor
		}
		if s.Inner != nil {
			out += " (" + storyOf(t, *s.Inner) + ")"
		}
	}
	if tl.LeftOut > 0 {
		out += fmt.Sprintf("; %d more", tl.LeftOut)
	}
	return out
}

// traced asks for the timeline, too.
func traced[M any](m M) M {
	switch m := any(m).(type) {
	case *messages.GetRequest:
		m.Timeline = true
	case *messages.PutRequest:
		m.Timeline = true
	}
	return m
}

// parts are the steps of a story, in any order.
func parts(s string) []string {
	out := strings.Split(s, "; ")
	slices.Sort(out)
	return out
}

func sameParts(t testing.TB, what, got, want string) {
	t.Helper()
	if !slices.Equal(parts(got), parts(want)) {
		t.Errorf("%s:\n%s\nwant, in about this order\n%s", what, got, want)
	}
}

// TestTimelines: what happens to requests is told, in order, until all replicas have answered.
func TestTimelines(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := r.replicas("n2", "n3")
	put := r.ask(traced(putOf("k", "v", nil))).(*messages.PutReply)
	sameParts(t, "a put", story(t, put.GetTimeline()), "n1 put; admitted; asked to write n1; prepared n1; sent the record n2; sent the record n3; durable n1; durable n2; replied done; durable n3; ended")
	x["n3"].set("k", elsewhere(t, 9, "other"))
	all := traced(getOf("k"))
	all.Quorum = &messages.Quorum{R: 3}
	get := r.ask(all).(*messages.GetReply)
	sameParts(t, "a get", story(t, get.GetTimeline()),
		"n1 get; admitted; asked n1; asked n2; asked n3; answered n1; answered n2; answered n3; replied done; repaired n1; repaired n2; repaired n3; ended")
	deletion := traced(putOf("k", "", get.GetContext()))
	deletion.Delete = true
	if got := story(t, r.ask(deletion).(*messages.PutReply).GetTimeline()); !strings.HasPrefix(got, "n1 delete; admitted; ") {
		t.Errorf("a delete: %s", got)
	}
	if m := r.ask(getOf("k")).(*messages.GetReply); m.GetTimeline() != nil {
		t.Error("a timeline that nobody has asked for")
	}
	for _, n := range x {
		n.fail(messages.Fail(messages.CodeStorage, "no disk"))
	}
	failed := r.ask(all).(*messages.Failure)
	sameParts(t, "a get that fails", story(t, failed.GetTimeline()),
		"n1 get; admitted; asked n1; asked n2; asked n3; answered n1; failed n2 storage; replied unavailable; failed n3 storage; ended")
	if failed.GetNeeded() != 3 || !strings.Contains(failed.GetText(), "storage") {
		t.Errorf("the failure lost something: %v", failed)
	}
}

// TestTimelineOfFallback: who is asked in whose place is told.
func TestTimelineOfFallback(t *testing.T) {
	r := start(t, setup{nodes: 5, partitions: 64, change: func(c *Config) {
		c.Reachable = func(n dynamo.NodeID) bool { return n != "n2" }
	}})
	r.replicas("n3", "n4", "n5")
	for p := range dynamo.Partition(64) {
		if list := r.doc.Settled.Primaries(p, 3); slices.Contains(list, "n1") && slices.Contains(list, "n2") {
			got := story(t, r.ask(traced(putOf(inPartition(r, p), "v", nil))).(*messages.PutReply).GetTimeline())
			if strings.Count(got, " for n2") != 2 || strings.Contains(got, "record n2") {
				t.Errorf("n4 or n5 is to stand in for n2: %s", got)
			}
			return
		}
	}
	t.Fatal("n1 and n2 share nothing")
}

// TestTimelineOfSilence: a client that wants the timeline has it in its time, although a
// replica never answers.
func TestTimelineOfSilence(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := r.replicas("n2")
	r.peers.Handle("n3", func(actortest.Received) {})
	m := traced(putOf("k", "v", nil))
	m.TimeoutMs = 400
	began := time.Now()
	put := r.ask(m).(*messages.PutReply)
	if took := time.Since(began); took < 50*time.Millisecond || took >= linger || x["n2"].handed() != 0 {
		t.Errorf("it took %v", took)
	}
	sameParts(t, "a put", story(t, put.GetTimeline()),
		"n1 put; admitted; asked to write n1; prepared n1; sent the record n2; sent the record n3; durable n1; durable n2; replied done; time is over; kept a hint n3; ended")
}

// TestTimelineOfForward: a write that is passed on tells what happened at both nodes.
func TestTimelineOfForward(t *testing.T) {
	r := start(t, setup{nodes: 6, partitions: 64})
	name, primaries := r.outside()
	inner := messages.FromTimeline(messages.Timeline{Node: "far", Kind: "put", Steps: []messages.Step{{What: messages.StepEnded}}})
	r.peers.Handle(string(primaries[0]), func(m actortest.Received) {
		f := messages.Fail(messages.CodeOverloaded, "busy")
		f.Timeline = inner
		r.peers.Answer(m, f)
	})
	r.peers.Handle(string(primaries[1]), puts(func(m actortest.Received) {
		if !m.Message.(*messages.PutRequest).GetTimeline() {
			t.Error("who coordinates the write does not know that its timeline is wanted")
		}
		r.peers.Answer(m, &messages.PutReply{Context: []byte("c"), Replicas: 2, Timeline: inner})
	}))
	put := r.ask(traced(putOf(name, "v", nil))).(*messages.PutReply)
	want := fmt.Sprintf("n1 forward; admitted; passed on %s; failed %[1]s overloaded (far put; ended); passed on %s; answered %[2]s (far put; ended); replied done; ended", primaries[0], primaries[1])
	if got := story(t, put.GetTimeline()); got != want || string(put.GetContext()) != "c" || put.GetReplicas() != 2 {
		t.Errorf("%v, %v\nwant %s", got, put, want)
	}
}

// TestTimelineOfTwoRounds: what happened before a request was planned anew is told, too.
func TestTimelineOfTwoRounds(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := r.replicas("n2", "n3")
	next := r.doc
	next.Version++
	for _, n := range x {
		n.fail(staleAt(next.Version))
	}
	m := traced(getOf("k"))
	m.Quorum = &messages.Quorum{R: 3}
	r.probe.Ask(r.coordinator(), m)
	actortest.Eventually(t, "both have refused", func() bool { return x["n2"].refusals() > 0 && x["n3"].refusals() > 0 })
	for _, n := range x {
		n.fail(nil)
	}
	r.enforce(next)
	got := story(t, actortest.Next[*messages.GetReply](t, r.probe).GetTimeline())
	if strings.Count(got, "; admitted") != 2 || strings.Count(got, "; waits for the ring n") != 1 || strings.Count(got, "; replied done") != 1 || strings.Count(got, "; ended") != 1 {
		t.Errorf("%s", got)
	}
}

// TestMarksAreBounded: however much happens, a timeline has its size, and says that the client
// was answered.
func TestMarksAreBounded(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := exchange{s: r.s, plan: plan{order: order{request: getOf("k")}, candidates: []dynamo.Replica{{Node: "n1"}, {Node: "n4", For: "n2"}}, also: []dynamo.Replica{{Node: "n5", For: "n3"}}}}
	for i := range 100 {
		x.at = time.Duration(i) * time.Millisecond
		x.note(messages.StepAsked, []dynamo.NodeID{"n1", "n2", "n3", "n4", "n5", "stranger", ""}[i%7]).spent = [4]uint32{1, 2, 3, 4}
		if i == 50 {
			x.outcome = "done"
			x.note(messages.StepReplied, "")
			x.keepInner(&messages.TimelineRecord{Node: "far"})
		}
	}
	want := "n1 get; admitted; asked n1; asked n2; asked n3; asked n4 for n2; asked n5 for n3; asked; asked; " +
		"asked n1; asked n2; asked n3; asked n4 for n2; asked n5 for n3; asked; asked; replied done; 86 more"
	if got := storyOf(t, x.timeline()); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if s := x.timeline().Steps[2]; s.At != time.Millisecond || s.Spent != (messages.Spent{Waited: 1000, Turn: 2000, Reader: 3000, Store: 4000}) {
		t.Errorf("the second: %+v", s)
	}
	y := exchange{s: r.s, plan: x.plan}
	for _, want := range []int{0, 1, 0} { // of one that was not asked; that was; that has failed
		y.noteFailed("n1", request.TimedOut)
		if y.marks.kept != uint8(2*want) && want == 1 || y.marks.kept == 1 {
			t.Errorf("%d marks", y.marks.kept)
		}
		if y.marks.kept == 0 {
			y.note(messages.StepAsked, "n1")
		}
	}
	if got := storyOf(t, y.timeline()); got != "n1 get; admitted; asked n1; failed n1 timeout" {
		t.Errorf("%s", got)
	}
}

// TestVnodeSaysWhatTimeWentFor: waiting for the turn, for the store and for the disk are told
// apart.
func TestVnodeSaysWhatTimeWentFor(t *testing.T) {
	const while = 20 * time.Millisecond
	reads := newSlow()
	g := newGate(nil)
	r := start(t, setup{nodes: 3, change: func(c *Config) {
		g.Engine = c.Engine
		reads.Engine = g
		c.Engine = reads
	}})
	write := func(name string, sync bool) {
		m := replicateOf(0, name, elsewhere(t, 9, "v"), sync)
		m.TimeoutMs = 60_000
		r.probe.Ask(r.pid(), m)
	}
	long := func(what string, us uint32, is bool) {
		t.Helper()
		if d := time.Duration(us) * time.Microsecond; d >= while != is {
			t.Errorf("%s took %v", what, d)
		}
	}
	g.shut()
	write("first", false)
	<-g.waiting // the turn of the first
	write("second", false)
	pause(while)
	g.release()
	first, second := actortest.Next[*messages.ReplicateReply](t, r.probe), actortest.Next[*messages.ReplicateReply](t, r.probe)
	long("waiting of the first", first.GetWaitedUs(), false)
	long("applying the first", first.GetStoreUs(), true)
	long("waiting of the second", second.GetWaitedUs(), true)
	long("applying the second", second.GetStoreUs(), false)
	long("the turns", max(first.GetTurnUs(), second.GetTurnUs()), false)
	if first.GetTurnUs() == 0 {
		t.Error("a turn took no time")
	}
	r.engine.HoldSyncs()
	write("third", true)
	write("fourth", false) // which is answered when the third is on its way to the disk
	actortest.Next[*messages.ReplicateReply](t, r.probe)
	pause(while)
	r.engine.ReleaseSyncs()
	third := actortest.Next[*messages.ReplicateReply](t, r.probe)
	long("waiting of the third", third.GetWaitedUs(), false)
	long("the sync of the third", third.GetStoreUs(), true)

	reads.shut()
	r.probe.Ask(r.pid(), readOf(0, "nothing there", 0))
	<-reads.entered
	pause(while)
	reads.release()
	read := actortest.Next[*messages.ReadReply](t, r.probe)
	long("reading", read.GetStoreUs(), true)
	long("waiting for a reader", read.GetReaderUs(), false)
}

// pause lets time pass that is then found in an answer.
func pause(d time.Duration) { <-time.After(d) }

// TestSlowRequests: of each minute, the slowest are kept, and for five minutes.
func TestSlowRequests(t *testing.T) {
	now := time.Now()
	s := newSlowRequests(now)
	var want [10][]time.Duration
	for minute := range want {
		for range 500 {
			began := now.Add(time.Duration(minute)*time.Minute + time.Duration(rand.Int64N(int64(time.Minute))))
			took := time.Duration(1 + rand.Int64N(int64(time.Second)))
			want[minute] = append(want[minute], took)
			if s.takes(took, began) {
				s.add(began, messages.SlowRequest{Took: took, Key: fmt.Sprint(minute)})
			}
		}
		var kept []time.Duration
		for m := max(0, minute-slowMinutes); m <= minute; m++ {
			slices.Sort(want[m])
			kept = append(kept, want[m][max(0, len(want[m])-slowKept):]...)
		}
		slices.Sort(kept)
		slices.Reverse(kept)
		at := now.Add(time.Duration(minute+1)*time.Minute - 1)
		got := s.list(1000, at)
		if len(got) != len(kept) {
			t.Fatalf("minute %d: %d are kept, want %d", minute, len(got), len(kept))
		}
		for i := range got {
			if got[i].Took != kept[i] || got[i].Ago < 0 || got[i].Ago > (slowMinutes+1)*time.Minute {
				t.Fatalf("minute %d: the %d. took %v, %v ago, want %v", minute, i, got[i].Took, got[i].Ago, kept[i])
			}
		}
		if few := s.list(3, at); len(few) != 3 || few[0].Took != kept[0] {
			t.Errorf("of three came %d", len(few))
		}
	}
	if fast := time.Duration(1); s.takes(fast, now.Add(10*time.Minute-1)) || !s.takes(fast, now.Add(10*time.Minute)) {
		t.Error("a fast request counts in a minute that is full, or does not in a new one")
	}
	if late := s.list(1000, now.Add(time.Hour)); len(late) != 0 {
		t.Errorf("an hour later %d are kept", len(late))
	}
	s.add(now, messages.SlowRequest{Took: time.Hour}) // it began before all that is kept
	if got := s.list(1, now.Add(10*time.Minute-1)); got[0].Took == time.Hour {
		t.Error("a request of long ago took a place of the last minute")
	}
}

// TestSlowRequestsAreListed: the console tells of them, hostile keys in quotes.
func TestSlowRequestsAreListed(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.replicas("n2", "n3")
	hostile := "\x1b[2J\xff" + strings.Repeat("k", dynamo.MaxKey-5)
	r.put(putOf(hostile, "secret value", nil))
	r.ask(getOf("k"))
	r.quiet()
	r.probe.Ask(on("n1", nameConsole), &messages.SlowRequestsRequest{})
	reply := actortest.Next[*messages.SlowRequestsReply](t, r.probe)
	all, err := messages.ToSlow(reply)
	if err != nil || len(all) != 2 || all[0].Took < all[1].Took {
		t.Fatalf("%+v, %v", all, err)
	}
	put := all[slices.IndexFunc(all, func(s messages.SlowRequest) bool { return s.Kind == "put" })]
	if put.Outcome != "done" || put.Bucket != `"b"` || !strings.HasPrefix(put.Key, `"\x1b[2J\xff`) || len(put.Key) > messages.MaxSlowKey || put.Took <= 0 || put.Client == "" {
		t.Errorf("%+v", put)
	}
	if got := storyOf(t, put.Timeline); !strings.HasPrefix(got, "n1 put; admitted; ") || !strings.HasSuffix(got, "; ended") {
		t.Errorf("%s", got)
	}
	if bytes.Contains([]byte(reply.String()), []byte("secret")) {
		t.Error("a value is told")
	}
	r.probe.Ask(on("n1", nameConsole), &messages.SlowRequestsRequest{Limit: 1})
	if m := actortest.Next[*messages.SlowRequestsReply](t, r.probe); len(m.GetRequests()) != 1 {
		t.Errorf("of one came %d", len(m.GetRequests()))
	}
}

// TestNotesCostNoMemory: what every request does for its timeline allocates nothing, and
// neither does a trace that is off.
func TestNotesCostNoMemory(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := exchange{s: r.s, plan: plan{order: order{request: getOf("k")}, candidates: []dynamo.Replica{{Node: "n1"}, {Node: "n2"}, {Node: "n3"}}}}
	began, header := time.Now(), []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	slow := newSlowRequests(began)
	for range slowKept {
		slow.add(began, messages.SlowRequest{Took: time.Hour})
	}
	if n := testing.AllocsPerRun(100, func() {
		x.tick()
		x.note(messages.StepAsked, "n2")
		x.noteFailed("n2", request.TimedOut)
		if slow.takes(time.Second, began) || r.s.traced(header, false) != nil || r.s.replicaSpan(header, "read", 0, keyOf("k"), began) != nil || x.header() != nil {
			t.Error("it is slow, or traced")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

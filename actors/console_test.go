package actors

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage/memory"
)

func (r *rig) console() *actor.PID { return on(r.s.Self, nameConsole) }

// asks asks the console and returns its answer as it arrives elsewhere.
func asks[M any](r *rig, m any) M {
	r.t.Helper()
	p := actortest.NewProbe(r.system)
	p.Ask(r.console(), m)
	return actortest.Next[M](r.t, p)
}

// inspect asks an actor of the node how it is.
func (r *rig) inspect(name string) messages.Inspection {
	r.t.Helper()
	out, err := messages.ToInspection(asks[*messages.InspectReply](r, &messages.InspectRequest{Actor: name}))
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// actors lists those of the node that fit a pattern.
func (r *rig) actors(pattern string) []messages.Actor {
	r.t.Helper()
	all, _, err := messages.ToActors(asks[*messages.ActorsReply](r, &messages.ActorsRequest{Pattern: pattern}), "")
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *rig) errors() []messages.NodeFault {
	r.t.Helper()
	all, err := messages.ToFaults(asks[*messages.ErrorsReply](r, &messages.ErrorsRequest{}))
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// TestList: the tree of the node, in parts.
func TestList(t *testing.T) {
	r := start(t, setup{partitions: 4})
	tree := map[string]string{}
	for _, a := range r.actors("") {
		tree[a.Name] = a.Parent
	}
	for name, parent := range map[string]string{
		"node": "", "vnodes": "node", "vnode/0": "vnodes", "vnode/3": "vnodes", "coordinator": "node", "detector": "node", "membership": "node",
		"admission": "node", "transfers": "node", "exchanges": "node", "reaps": "node", "console": "node",
	} {
		if got, there := tree[name]; !there || got != parent {
			t.Errorf("%s is under %q, %v", name, got, there)
		}
	}
	var names []string
	for after, left := "", 1; left > 0; {
		reply := asks[*messages.ActorsReply](r, &messages.ActorsRequest{Pattern: "vnode/*", Limit: 3, After: after})
		some, more, err := messages.ToActors(reply, after)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range some {
			names = append(names, a.Name)
		}
		after, left = names[len(names)-1], more
	}
	if want := "vnode/0 vnode/1 vnode/2 vnode/3"; strings.Join(names, " ") != want {
		t.Errorf("listed %v, want %s", names, want)
	}
	if f := asks[*messages.Failure](r, &messages.ActorsRequest{Pattern: strings.Repeat("x", messages.MaxPattern+1)}); f.GetCode() != messages.CodeInvalid {
		t.Errorf("a long pattern: %v", f)
	}
}

func TestMatches(t *testing.T) {
	for pattern, want := range map[string]string{
		"": "vnode/1 vnode/12 get/1", "vnode": "vnode/1 vnode/12", "vnode/1": "vnode/1 vnode/12", "*": "vnode/1 vnode/12 get/1", "vnode/*": "vnode/1 vnode/12",
		"*/1": "vnode/1 get/1", "v*1": "vnode/1", "v*1*": "vnode/1 vnode/12", "*de*2": "vnode/12", "1*": "", "*e/1*": "vnode/1 vnode/12", "vnode/1*1": "", "**": "vnode/1 vnode/12 get/1",
		"v*d*o*": "",
	} {
		var got []string
		for _, name := range []string{"vnode/1", "vnode/12", "get/1"} {
			if matches(pattern, name) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q fits %v, want %s", pattern, got, want)
		}
	}
}

// TestStuckActor: a vnode that does not come back from its handler is listed as such, is
// described from outside when it is asked, and holds up nobody.
func TestStuckActor(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{partitions: 2, engine: g})
	g.shut()
	p := actortest.NewProbe(r.system)
	r.write(p, inPartition(r, 0), "v", emptyContext, true)
	<-g.waiting
	p.Ask(r.pid(), readOf(0, inPartition(r, 0), 0))
	asked := actortest.NewProbe(r.system)
	asked.Ask(r.console(), &messages.InspectRequest{Actor: "vnode/0"})
	if i := r.inspect("vnode/1"); i.NoAnswer != "" || len(i.Fields) == 0 {
		t.Errorf("another vnode: %+v", i)
	}
	a := r.actors("vnode/0")[0]
	if a.InHandler <= 0 || a.State() != "busy" || a.Queued != 1 || a.Control != 1 || a.Age < a.InHandler {
		t.Errorf("listed as %+v", a)
	}
	if len(asked.All()) != 0 {
		t.Errorf("answered for it: %v", asked.All())
	}
	i, err := messages.ToInspection(actortest.Next[*messages.InspectReply](t, asked))
	if err != nil || !strings.HasPrefix(i.NoAnswer, "in a handler for ") || len(i.Fields) != 0 || i.Name != "vnode/0" || i.InHandler < inspectWait {
		t.Errorf("described as %+v, %v", i, err)
	}
	g.release()
	actortest.Next[*messages.ReadReply](t, p)
	if i := r.inspect("vnode/0"); i.NoAnswer != "" || value(t, i, "state") != "serving" {
		t.Errorf("afterwards: %+v", i)
	}
}

// nosy is an actor that does not take it well to be asked.
type nosy struct{ panics bool }

func (nosy) Receive(actor.Context) {}

func (n nosy) Inspect() messages.Fields {
	if n.panics {
		panic("no comment")
	}
	return nil
}

// TestInspectBounds: who cannot answer is described; who is not there is told so; and the
// looks under way are bounded.
func TestInspectBounds(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{engine: g})
	for name, a := range map[string]actor.Actor{"nosy/1": nosy{true}, "nosy/2": nosy{}} {
		props := actor.PropsFromProducer(func() actor.Actor { return a }, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: r.s.Registry})))
		if _, err := r.system.Root.SpawnNamed(props, name); err != nil {
			t.Fatal(err)
		}
	}
	if i := r.inspect("nosy/1"); !strings.Contains(i.NoAnswer, "panicked: no comment") || i.Restarts != 0 || i.Panic != nil {
		t.Errorf("one that panics: %+v", i)
	}
	if i := r.inspect("nosy/2"); i.NoAnswer != "" || len(i.Fields) != 0 || i.Name != "nosy/2" {
		t.Errorf("one that says nothing: %+v", i)
	}
	if f := asks[*messages.Failure](r, &messages.InspectRequest{Actor: "vnode/77"}); f.GetCode() != messages.CodeUnreachable || !strings.Contains(f.GetText(), `"vnode/77"`) {
		t.Errorf("nobody: %v", f)
	}
	g.shut()
	r.write(actortest.NewProbe(r.system), "k", "v", emptyContext, true)
	<-g.waiting
	many := actortest.NewProbe(r.system)
	for range maxInspections {
		many.Ask(r.console(), &messages.InspectRequest{Actor: "vnode/0", TimeoutMs: 60_000})
	}
	if f := asks[*messages.Failure](r, &messages.InspectRequest{Actor: "vnode/0"}); f.GetCode() != messages.CodeOverloaded || f.GetRetryAfterMs() == 0 {
		t.Errorf("one too many: %v", f)
	}
	g.release()
	for range maxInspections {
		actortest.Next[*messages.InspectReply](t, many)
	}
	i := r.inspect("console")
	if value(t, i, "without an answer") == messages.Count(0) || value(t, i, "actors asked") != messages.Count(maxInspections+3) {
		t.Errorf("the console of itself: %+v", i)
	}
}

// TestConsoleStops: who waits is answered.
func TestConsoleStops(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{engine: g})
	g.shut()
	r.write(actortest.NewProbe(r.system), "k", "v", emptyContext, true)
	<-g.waiting
	p := actortest.NewProbe(r.system)
	p.Ask(r.console(), &messages.InspectRequest{Actor: "vnode/0"})
	actortest.Eventually(t, "it is asked", func() bool { return r.actors("vnode/0")[0].Control == 1 })
	r.system.Root.Stop(r.console())
	if f := actortest.Next[*messages.Failure](t, p); f.GetCode() != messages.CodeNotReady {
		t.Errorf("answered %v", f)
	}
	g.release()
}

// TestErrors: panics and logged errors are there, latest first, and a failed actor says why
// it has failed.
func TestErrors(t *testing.T) {
	r := start(t, setup{})
	if all := r.errors(); len(all) != 0 {
		t.Errorf("at first: %+v", all)
	}
	r.panicking.Store(true)
	r.ask(localGet("k"))
	r.panicking.Store(false)
	request := func(e messages.NodeFault) bool { return strings.HasPrefix(e.Actor, "get/") }
	actortest.Eventually(t, "the panic is noted", func() bool { return slices.ContainsFunc(r.errors(), request) })
	before := r.errors()
	if e := before[slices.IndexFunc(before, request)]; e.Text != "panicked: the test's clock; stops" || e.Times != 1 || time.Since(e.At) > actortest.Patience {
		t.Errorf("a request that panicked: %+v", e)
	}
	r.s.Log.Error("the disk is full", "partition", 7)
	if all := r.errors(); len(all) != len(before)+1 || all[0].Actor != "" || all[0].Text != `msg="the disk is full" partition=7` {
		t.Errorf("what was logged: %+v", all)
	}
	r.system.Root.Send(r.pid(), &commitFailed{}) // with no error to tell of, which panics
	actortest.Eventually(t, "the vnode has restarted", func() bool { a := r.actors("vnode/0")[0]; return a.Restarts == 1 })
	i := r.inspect("vnode/0")
	if i.Panic == nil || i.Panic.Message != "*actors.commitFailed" || !strings.Contains(i.Panic.Reason, "nil pointer") || !strings.Contains(i.Panic.Stack, "vnode.go") {
		t.Errorf("its last failure: %+v", i.Panic)
	}
	if a := r.actors("vnode/0")[0]; a.Panic == nil || a.Panic.Stack != "" {
		t.Errorf("in a list: %+v", a.Panic)
	}
	if !slices.ContainsFunc(r.errors(), func(e messages.NodeFault) bool {
		return e.Actor == "vnode/0" && strings.HasSuffix(e.Text, "; restarts")
	}) {
		t.Errorf("noted %+v", r.errors())
	}
}

// value is that of a field.
func value(t testing.TB, i messages.Inspection, names ...string) any {
	t.Helper()
	list := i.List
	for n, name := range names {
		at := slices.IndexFunc(list.Fields, func(f messages.Field) bool { return f.Name == name })
		if at < 0 {
			t.Errorf("%s says nothing of %v: %v", i.Name, names[:n+1], i.Fields)
			return nil
		}
		if n == len(names)-1 {
			return list.Fields[at].Value
		}
		list, _ = list.Fields[at].Value.(messages.List)
	}
	return nil
}

// says checks what an actor says of itself, as text.
func says(t testing.TB, i messages.Inspection, want map[string]string) {
	t.Helper()
	for name, w := range want {
		if got := fmt.Sprint(value(t, i, strings.Split(name, " > ")...)); got != w {
			t.Errorf("%s says of %s %q, want %q", i.Name, name, got, w)
		}
	}
}

package actors

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage/memory"
)

// mayControl lets operators change the node.
func mayControl(c *Config) {
	c.MayControl = func(string) error { return nil }
	c.LogLevel = new(slog.LevelVar)
	c.Log = slog.New(slog.NewTextHandler(discard{}, nil))
}

// lookup asks what the node has of a key.
func (r *rig) lookup(name string) messages.Lookup {
	r.t.Helper()
	out, err := messages.ToLookup(asks[*messages.LookupReply](r, &messages.LookupRequest{Bucket: []byte("b"), Key: []byte(name)}))
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// TestLookup: own record, hints, marks and what is damaged are told of, and values are not.
func TestLookup(t *testing.T) {
	r := start(t, setup{nodes: 3})
	if l := r.lookup("k"); len(l.Copies) != 0 || l.N != 3 || l.Role != "replica" || l.Problem != "" || l.Incarnation == [16]byte{} || l.Version != r.doc.Version {
		t.Errorf("of a key that is not there: %+v", l)
	}
	r.written("k", "secret value", emptyContext)
	position := ring.Hash(keyOf("k")).Bytes()
	r.system.Root.Send(r.pid(), &keepHint{key: keyOf("k"), n: 3, position: position, node: "n2"})
	actortest.Eventually(t, "the hint is kept", func() bool { return len(r.lookup("k").Copies) == 2 })
	l := r.lookup("k")
	own := l.Copies[0]
	if own.For != "" || len(own.Values) != 1 || own.Values[0].Size != 12 || len(own.Values[0].Hash) == 0 || !own.Record.Versions[0].Omitted || own.Record.Versions[0].Dot.Actor.Incarnation != l.Incarnation {
		t.Errorf("its own: %+v", own)
	}
	if hint := l.Copies[1]; hint.For != "n2" || !hint.Mark {
		t.Errorf("the hint: %+v", hint)
	}
	r.damage(vnode.AppendObjectKey(nil, 0, 3, position, keyOf("k")))
	if l := r.lookup("k"); len(l.Copies) != 2 || !l.Copies[0].Damaged {
		t.Errorf("damaged: %+v", l)
	}
	if f := asks[*messages.Failure](r, &messages.LookupRequest{Bucket: []byte("b")}); f.GetCode() != messages.CodeInvalid {
		t.Errorf("no key: %v", f)
	}
	r.engine.FailReads(errors.New("the disk is gone"))
	if f := asks[*messages.Failure](r, &messages.LookupRequest{Bucket: []byte("b"), Key: []byte("k")}); f.GetCode() != messages.CodeStorage {
		t.Errorf("from a bad disk: %v", f)
	}
	r.engine.Heal()
}

// TestBusiest: those that have most to do come first, and however many ask, the actors are
// listed twice a second at most.
func TestBusiest(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{partitions: 2, engine: g})
	g.shut()
	p := actortest.NewProbe(r.system)
	r.write(p, inPartition(r, 0), "v", emptyContext, true)
	<-g.waiting
	for range 5 {
		p.Ask(r.pid(), readOf(0, inPartition(r, 0), 0))
	}
	ask := func(by messages.By, limit uint32) (busy []messages.Busy, all int) {
		busy, all, err := messages.ToBusy(asks[*messages.BusiestReply](r, &messages.BusiestRequest{By: uint32(by), Limit: limit}))
		if err != nil {
			t.Fatal(err)
		}
		return busy, all
	}
	actortest.Eventually(t, "the stuck vnode comes first", func() bool {
		busy, _ := ask(messages.ByWaiting, 3)
		return busy[0].Name == "vnode/0" && busy[0].Queued == 5
	})
	actortest.Eventually(t, "it has waited longest", func() bool { // another one may still be busy with its start
		busy, all := ask(messages.ByOldest, 3)
		return busy[0].Name == "vnode/0" && len(busy) == 3 && all >= 10
	})
	if f := asks[*messages.Failure](r, &messages.BusiestRequest{By: 9}); f.GetCode() != messages.CodeInvalid {
		t.Errorf("an unknown order: %v", f)
	}
	g.release()

	var b busiest
	registry, began := r.s.Registry, time.Now()
	rates := func(at time.Time) map[string]float64 {
		b.look(registry, at)
		out := map[string]float64{}
		for _, x := range b.all {
			out[x.Name] = x.Rate
		}
		return out
	}
	rates(began)
	for range 30 {
		asks[*messages.ErrorsReply](r, &messages.ErrorsRequest{})
	}
	if got := rates(began.Add(2 * time.Second))["console"]; got < 15 || got > 17 {
		t.Errorf("30 messages in 2 s are %v a second", got)
	}
	if got := rates(began.Add(2*time.Second + 2*lookFar))["console"]; got != 0 {
		t.Errorf("a rate over too long a time: %v", got)
	}
}

// TestControlIsRefused: unless the node allows it, nothing is changed.
func TestControlIsRefused(t *testing.T) {
	requests := []any{&messages.SettingsRequest{Name: "max-requests", Value: "7"}, &messages.ControlRequest{Actor: "vnode/0"}, &messages.ControlRequest{Actor: "vnode/0", Kill: true}, &messages.ControlRequest{Actor: "vnode/0", Ask: true}}
	for name, change := range map[string]func(*Config){
		"not started so": nil, "not this client": func(c *Config) { c.MayControl = func(string) error { return errors.New("you are no operator") } },
	} {
		r := start(t, setup{change: change})
		for _, m := range requests {
			if f := asks[*messages.Failure](r, m); f.GetCode() != messages.CodeRefused {
				t.Errorf("%s: %v is answered %v", name, m, f)
			}
		}
		if a := r.actors("vnode/0")[0]; a.Restarts != 0 || r.s.maxRequests.Load() != 100 {
			t.Errorf("%s: changed all the same: %+v", name, a)
		}
		if all, err := messages.ToSettings(asks[*messages.SettingsReply](r, &messages.SettingsRequest{})); err != nil || len(all) < 2 {
			t.Errorf("%s: settings cannot be read: %v, %v", name, all, err)
		}
	}
}

// TestRestartAndKill: a restarted vnode has failed because an operator asked for it, a killed
// one is another one; both serve again, and both are in the log.
func TestRestartAndKill(t *testing.T) {
	r := start(t, setup{change: mayControl})
	r.written("k", "v", emptyContext)
	do := func(actor string, kill, ask bool) string {
		return asks[*messages.ControlReply](r, &messages.ControlRequest{Actor: actor, Kill: kill, Ask: ask}).GetConsequence()
	}
	if said := do("vnode/0", true, true); !strings.Contains(said, "starts another one") || r.actors("vnode/0")[0].Restarts != 0 {
		t.Errorf("asked only: %q", said)
	}
	do("vnode/0", false, false)
	actortest.Eventually(t, "restarted", func() bool { a := r.actors("vnode/0"); return len(a) == 1 && a[0].Restarts == 1 })
	told := func(restarts, times uint64, how string) {
		t.Helper()
		if !slices.ContainsFunc(r.errors(), func(e messages.NodeFault) bool { return e.Actor == "vnode/0" && e.Text == how && e.Times == times }) {
			t.Errorf("%d times %q is not in %+v", times, how, r.errors())
		}
		r.ready()
		i, err := messages.ToInspection(asks[*messages.InspectReply](r, &messages.InspectRequest{Actor: "vnode/0"}))
		if err != nil || i.NoAnswer != "" || i.Restarts != restarts || i.Age <= 0 || i.Panic == nil || i.Panic.Reason != how || i.Panic.Stack != "" || i.Panic.Message != "" {
			t.Errorf("inspected %+v, %v: %+v", i, err, i.Panic)
		}
		if k := r.kind("vnode"); k.Restarts != restarts || k.Panics != 0 {
			t.Errorf("counted %+v", k)
		}
	}
	told(1, 1, "restarted by an operator (n1)")
	for n := range uint64(2) {
		killed := time.Now()
		do("vnode/0", true, false)
		actortest.Eventually(t, "another one is there", func() bool {
			a := r.actors("vnode/0")
			return len(a) == 1 && a[0].Age < time.Since(killed) && a[0].Restarts == n+2
		})
		told(n+2, n+1, "killed by an operator (n1)")
	}
	if reply := r.read("k"); len(reply.GetRecord()) == 0 {
		t.Error("what was written is gone")
	}
	do("detector", false, false)
	actortest.Eventually(t, "the detector is restarted", func() bool { return r.actors("detector")[0].Restarts == 1 })
	for actor, code := range map[string]uint32{"node": messages.CodeInvalid, "vnode/9": messages.CodeUnreachable, "nonsense": messages.CodeUnreachable, "": messages.CodeUnreachable} {
		if f := asks[*messages.Failure](r, &messages.ControlRequest{Actor: actor}); f.GetCode() != code {
			t.Errorf("restart %q: %v", actor, f)
		}
	}
	for _, actor := range []string{"detector", "vnodes", "coordinator", "console"} {
		if f := asks[*messages.Failure](r, &messages.ControlRequest{Actor: actor, Kill: true}); f.GetCode() != messages.CodeInvalid {
			t.Errorf("kill %s: %v", actor, f)
		}
	}
	lines, err := messages.ToLines(asks[*messages.LogReply](r, &messages.LogRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"what=restart actor=vnode/0", "what=kill actor=vnode/0", "what=restart actor=detector"} {
		if !slices.ContainsFunc(lines, func(l messages.Line) bool { return strings.Contains(l.Text, what) }) {
			t.Errorf("no %q in the log", what)
		}
	}
}

// kind is what is counted of the actors of a kind.
func (r *rig) kind(name string) rt.KindStats {
	r.t.Helper()
	all := r.s.Registry.Kinds()
	i := slices.IndexFunc(all, func(k rt.KindStats) bool { return k.Kind == name })
	if i < 0 {
		r.t.Fatalf("no %s in %+v", name, all)
	}
	return all[i]
}

// TestEveryKindHasAFate: what can be restarted or killed is said of all kinds of actors, but
// for those that are not touched.
func TestEveryKindHasAFate(t *testing.T) {
	r := start(t, setup{})
	for _, a := range r.actors("") {
		if _, known := fates[a.Kind()]; !known && a.Name != "node" {
			t.Errorf("nothing is said of %s", a.Name)
		}
	}
}

// TestSet: limits and the log's level change while the node runs.
func TestSet(t *testing.T) {
	r := start(t, setup{change: mayControl})
	set := func(name, value string) any {
		p := actortest.NewProbe(r.system)
		p.Ask(r.console(), &messages.SettingsRequest{Name: name, Value: value})
		return actortest.Next[proto.Message](t, p)
	}
	for name, value := range map[string]string{"max-requests": "7", "hints-mb": "0", "log-level": "debug"} {
		reply, ok := set(name, value).(*messages.SettingsReply)
		if !ok || !slices.ContainsFunc(reply.GetSettings(), func(s *messages.Setting) bool { return s.GetName() == name && s.GetValue() == value }) {
			t.Errorf("%s: %v", name, reply)
		}
	}
	if r.s.maxRequests.Load() != 7 || r.s.hintBytes.Load() != 0 || r.s.LogLevel.Level() != slog.LevelDebug {
		t.Error("nothing has changed")
	}
	if limit := r.node.Figures().HintLimit; limit != 0 {
		t.Errorf("metrics say that %d bytes of hints are kept", limit)
	}
	for _, bad := range [][2]string{{"max-requests", "0"}, {"max-requests", "x"}, {"hints-mb", "-1"}, {"log-level", "loud"}, {"cache-mb", "1"}} {
		if f, ok := set(bad[0], bad[1]).(*messages.Failure); !ok || f.GetCode() != messages.CodeInvalid {
			t.Errorf("%v is taken", bad)
		}
	}
}

// TestAuditIsNotHidden by the log's level, which an operator may set.
func TestAuditIsNotHidden(t *testing.T) {
	r := start(t, setup{change: func(c *Config) {
		mayControl(c)
		c.Log = slog.New(slog.NewTextHandler(discard{}, &slog.HandlerOptions{Level: c.LogLevel}))
	}})
	for _, s := range [][2]string{{"log-level", "error"}, {"max-requests", "7"}} {
		asks[*messages.SettingsReply](r, &messages.SettingsRequest{Name: s[0], Value: s[1]})
		lines, err := messages.ToLines(asks[*messages.LogReply](r, &messages.LogRequest{}))
		if err != nil || !slices.ContainsFunc(lines, func(l messages.Line) bool { return strings.Contains(l.Text, "setting="+s[0]) }) {
			t.Errorf("%s is not in the log: %v, %v", s[0], lines, err)
		}
	}
}

// TestKilledWhileTheNodeStops: what is asked of a vnode that goes is not waited for, and none comes after it.
func TestKilledWhileTheNodeStops(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{engine: g, change: mayControl})
	g.shut()
	r.write(actortest.NewProbe(r.system), "k", "v", emptyContext, true)
	<-g.waiting
	before := r.actors("vnodes")[0].Processed
	asks[*messages.ControlReply](r, &messages.ControlRequest{Actor: "vnode/0", Kill: true})
	actortest.Eventually(t, "it is told to stop", func() bool { return r.actors("vnodes")[0].Processed > before })
	stopped := make(chan struct{})
	go func() { r.stop(); close(stopped) }()
	actortest.Eventually(t, "it is asked to mark its stop", func() bool { s, _ := r.s.Registry.Find("vnode/0"); return s.Control > 0 })
	g.release()
	<-stopped // in time: see rig.stop
	if r.s.vnodes.add(0) {
		t.Error("another one may start")
	}
}

// TestLog: a cursor of another run of the node begins anew.
func TestLog(t *testing.T) {
	r := start(t, setup{change: func(c *Config) {
		c.Lines = &rt.Lines{}
		c.Log = slog.New(c.Lines.Handler(slog.NewTextHandler(discard{}, nil)))
	}})
	r.s.Log.Info("one")
	r.s.Log.Info("two")
	first := asks[*messages.LogReply](r, &messages.LogRequest{})
	n := len(first.GetLines())
	last := first.GetLines()[n-1]
	if last.GetText() != "msg=two" {
		t.Fatalf("logged %v", first)
	}
	r.s.Log.Info("three")
	for run, want := range map[uint64]int{first.GetRun(): 1, first.GetRun() + 1: n + 1} {
		if got := asks[*messages.LogReply](r, &messages.LogRequest{After: last.GetNumber(), Run: run}); len(got.GetLines()) != want {
			t.Errorf("of run %d: %v", run, got)
		}
	}
}

type discard struct{}

// Write implements io.Writer.
func (discard) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkBusiest is what a console that watches the busiest costs a node for each look.
func BenchmarkBusiest(b *testing.B) {
	r := start(b, setup{partitions: 64})
	var x busiest
	for name, every := range map[string]time.Duration{"shared": 0, "alone": -lookEvery} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x.at = x.at.Add(every)
				if _, ok := x.answer(r.s.Registry, &messages.BusiestRequest{Limit: 40}).(*messages.BusiestReply); !ok {
					b.Fatal("no answer")
				}
			}
		})
	}
}

package rt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// visited is what a visit came to.
type visited struct {
	seen   actor.Actor
	missed any
}

func visit(registry *Registry, id string, look func(actor.Actor)) (Stats, bool, chan visited) {
	done := make(chan visited, 2)
	s, ok := registry.Visit(id, &Visit{
		Look: func(a actor.Actor) {
			if look != nil {
				look(a)
			}
			done <- visited{seen: a}
		},
		Missed: func(panicked any) { done <- visited{missed: panicked} },
	})
	return s, ok, done
}

// TestVisit: the actor is seen between two messages, before those that wait, and neither
// its messages nor its counters know of it.
func TestVisit(t *testing.T) {
	for _, batch := range []int{0, 8} {
		system, registry := newSystem(t), NewRegistry()
		pid, got := probe(t, system, MailboxOptions{Registry: registry, Batch: batch})
		hold := newBlock()
		system.Root.Send(pid, hold)
		receive(t, "handler entered", hold.entered)
		system.Root.Send(pid, number(1))
		handled, want := -1, batch/8 // the message that blocks is recorded as a batch alone
		before, ok, done := visit(registry, pid.Id, func(actor.Actor) { handled = len(users(got.list())) })
		if !ok || before.Queued != 1 || before.Control != 0 || before.InHandler == 0 {
			t.Errorf("before the visit it was %+v, %v", before, ok)
		}
		select {
		case v := <-done:
			t.Errorf("visited while it works: %v", v)
		default:
		}
		close(hold.release)
		if v := receive(t, "visit", done); v.seen == nil {
			t.Errorf("saw %v", v)
		}
		eventually(t, "all handled", func() bool { s, _ := registry.Find(pid.Id); return s.Processed >= 2 && s.InHandler == 0 })
		after, _ := registry.Find(pid.Id)
		if handled != want || after.Shed != 0 || len(users(got.list())) != want+1 {
			t.Errorf("batch %d: seen after %d messages; %+v, got %v", batch, handled, after, got.list())
		}
		stop(t, system, pid)
	}
}

// TestVisitHarmsNobody: what panics is the look, and not the actor.
func TestVisitHarmsNobody(t *testing.T) {
	system, registry := newSystem(t), NewRegistry()
	pid, got := probe(t, system, MailboxOptions{Registry: registry})
	_, _, done := visit(registry, pid.Id, func(actor.Actor) { panic("clumsy") })
	if v := receive(t, "visit", done); v.missed != "clumsy" {
		t.Errorf("the visitor hears %v", v)
	}
	system.Root.Send(pid, number(1))
	eventually(t, "handled", func() bool { return len(users(got.list())) == 1 })
	if s, _ := registry.Find(pid.Id); s.LastPanic != nil || s.Restarts != 0 || s.Suspended {
		t.Errorf("the actor has failed: %+v", s)
	}
	stop(t, system, pid)
}

// TestVisitMisses: one that has stopped, or has too much to do, says so at once.
func TestVisitMisses(t *testing.T) {
	system, registry := newSystem(t), NewRegistry()
	var shed recorder[any]
	pid, _ := probe(t, system, MailboxOptions{Registry: registry, MaxControl: 1, Shed: func(_ *actor.PID, m any) { shed.add(m) }})
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	_, _, first := visit(registry, pid.Id, nil)
	_, _, second := visit(registry, pid.Id, nil)
	if v := receive(t, "the second is refused", second); v != (visited{}) {
		t.Errorf("got %v", v)
	}
	system.Root.Stop(pid)
	close(hold.release)
	if v := receive(t, "the first is refused when the actor ends", first); v != (visited{}) {
		t.Errorf("got %v", v)
	}
	eventually(t, "gone", func() bool { return registry.Len() == 0 })
	if _, ok, _ := visit(registry, pid.Id, nil); ok || shed.len() != 0 {
		t.Errorf("one that is gone was visited: %v; visits that were shed as messages: %v", ok, shed.list())
	}
}

// TestBriefActors are listed like others while they live, and leave their places.
func TestBriefActors(t *testing.T) {
	system, registry := newSystem(t), NewRegistry()
	options := MailboxOptions{Registry: registry, Brief: true}
	var all []*actor.PID
	for range briefSlots + 100 {
		pid, _ := probe(t, system, options)
		all = append(all, pid)
	}
	if listed := registry.Len(); listed > briefSlots || listed < briefSlots*9/10 || listed+registry.Unlisted() != len(all) {
		t.Errorf("%d listed and %d not, of %d", listed, registry.Unlisted(), len(all))
	}
	for _, pid := range all {
		stop(t, system, pid)
	}
	eventually(t, "all gone", func() bool { return registry.Len() == 0 && registry.Unlisted() == 0 })
	pid, _ := probe(t, system, options)
	s, ok := registry.Find(pid.Id)
	if !ok || s.ID != pid.Id || s.Type != "actor.ReceiveFunc" || s.Age <= 0 {
		t.Errorf("listed as %+v, %v", s, ok)
	}
	if _, _, done := visit(registry, pid.Id, nil); receive(t, "visit", done).seen == nil {
		t.Error("not seen")
	}
	stop(t, system, pid)
}

// TestList: in order, those that match, and how many are left.
func TestList(t *testing.T) {
	system, registry := newSystem(t), NewRegistry()
	for i := range 5 {
		props := actor.PropsFromFunc(func(actor.Context) {}, actor.WithMailbox(NewMailbox(MailboxOptions{Registry: registry, Brief: i%2 == 0})))
		if _, err := system.Root.SpawnNamed(props, fmt.Sprintf("x/%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	ids := func(all []Stats, more int) string {
		var out []string
		for _, s := range all {
			out = append(out, s.ID)
		}
		return fmt.Sprint(strings.Join(out, " "), " +", more)
	}
	odd := func(id string) bool { return strings.ContainsAny(id, "13") }
	for want, got := range map[string]string{
		"x/0 x/1 x/2 x/3 x/4 +0": ids(registry.List(nil, 0)),
		"x/0 x/1 +3":             ids(registry.List(nil, 2)),
		"x/1 x/3 +0":             ids(registry.List(odd, 2)),
		"x/1 +1":                 ids(registry.List(odd, 1)),
		" +0":                    ids((*Registry)(nil).List(odd, 1)),
	} {
		if got != want {
			t.Errorf("listed %q, want %q", got, want)
		}
	}
	for i := range 5 {
		stop(t, system, actor.NewPID("n1", fmt.Sprintf("x/%d", i)))
	}
}

// BenchmarkSpawn is what it costs a request's actor to be listed.
func BenchmarkSpawn(b *testing.B) {
	for name, o := range map[string]MailboxOptions{
		"unlisted": {}, "brief": {Brief: true, Registry: NewRegistry()}, "listed": {Registry: NewRegistry()},
	} {
		b.Run(name, func(b *testing.B) {
			system := newSystem(b)
			props := actor.PropsFromFunc(func(actor.Context) {}, actor.WithMailbox(NewMailbox(o)), actor.WithDispatcher(Inline()))
			b.ReportAllocs()
			for b.Loop() {
				system.Root.Stop(system.Root.Spawn(props))
			}
		})
	}
}

func TestFailures(t *testing.T) {
	var f Failures
	system, registry := newSystem(t), NewRegistry()
	unwatch := f.Watch(system)
	defer unwatch()
	pid, _ := probe(t, system, MailboxOptions{Registry: registry}, actor.WithGuardian(RestartWithLimit(10, time.Minute, nil)))
	for i := range 2 {
		system.Root.Send(pid, explode{})
		eventually(t, "restarted", func() bool { s, _ := registry.Find(pid.Id); return s.Restarts == uint64(i+1) && !s.Suspended })
	}
	all, more := f.List(0)
	if len(all) != 1 || more != 0 || all[0].Actor != pid.Id || all[0].Text != "panicked: explode; restarts" || all[0].Times != 2 || time.Since(all[0].At) > patience {
		t.Errorf("noted %+v, %d more", all, more)
	}
	stop(t, system, pid)
	unwatch()
	for i := range MaxFailures + 10 {
		f.add("a", fmt.Sprint(i))
	}
	f.add("a", strings.Repeat("x", maxFailureText-1)+"ä")
	all, more = f.List(3)
	if len(all) != 3 || more != MaxFailures+9 || all[1].Text != fmt.Sprint(MaxFailures+9) || all[0].Text != strings.Repeat("x", maxFailureText-1) {
		t.Errorf("of many: %d more, %v", more, all)
	}
	if all, _ := f.List(0); len(all) != MaxFailures || !slices.IsSortedFunc(all, func(a, b Failure) int { return b.At.Compare(a.At) }) {
		t.Errorf("%d are kept", len(all))
	}
}

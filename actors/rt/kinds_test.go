package rt

import (
	"testing"

	"github.com/asynkron/protoactor-go/actor"
)

// kind is one kind of a registry.
func kind(t *testing.T, r *Registry, name string) KindStats {
	t.Helper()
	for _, k := range r.Kinds() {
		if k.Kind == name {
			return k
		}
	}
	t.Fatalf("no kind %q in %+v", name, r.Kinds())
	panic("unreachable")
}

func named(t *testing.T, system *actor.ActorSystem, name string, o MailboxOptions) *actor.PID {
	t.Helper()
	pid, err := system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case block:
			m.hold()
		case explode:
			panic("explode")
		}
	}, actor.WithMailbox(NewMailbox(o)), actor.WithGuardian(StopOnFailure())), name)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestKinds: what waits for the actors of a kind, and what was counted of all that there were.
func TestKinds(t *testing.T) {
	system, r := newSystem(t), NewRegistry()
	o := MailboxOptions{Registry: r, MaxMessages: 2}
	one, two := named(t, system, "worker/1", o), named(t, system, "worker/2", o)
	single := named(t, system, "single", o)
	hold := newBlock()
	system.Root.Send(one, hold)
	receive(t, "it is held", hold.entered)
	for i := range 5 { // two wait, three are too many
		system.Root.Send(one, number(i))
	}
	system.Root.Send(two, number(0))
	eventually(t, "the second has handled its own", func() bool { s, _ := r.Find("worker/2"); return s.Processed == 1 })
	k := kind(t, r, "worker")
	if k.Live != 2 || k.Queued != 2 || k.Shed != 3 || k.Oldest <= 0 || k.InHandler <= 0 || k.Processed != 2 || kind(t, r, "single").Live != 1 {
		t.Errorf("%+v", r.Kinds())
	}
	close(hold.release)
	eventually(t, "all is handled", func() bool { return kind(t, r, "worker").Queued == 0 })
	system.Root.Send(two, explode{})
	eventually(t, "one has failed and stopped", func() bool { return kind(t, r, "worker").Live == 1 })
	stop(t, system, one)
	stop(t, system, single)
	eventually(t, "they have left the list", func() bool { return r.Len() == 0 }) // after they are gone
	k = kind(t, r, "worker")
	if want := (KindStats{Kind: "worker", Processed: 5, Shed: 3, Panics: 1}); k != want {
		t.Errorf("of those that are gone: %+v, want %+v", k, want)
	}
}

// TestToldToStopTwice: an actor that two tell to stop while it is busy is counted once, and leaves one place.
func TestToldToStopTwice(t *testing.T) {
	system, r := newSystem(t), NewRegistry()
	taken := &mailbox{}
	for i := range r.brief { // the brief actor is not listed
		r.brief[i].Store(taken)
	}
	for name, o := range map[string]MailboxOptions{"worker/1": {Registry: r}, "brief/1": {Registry: r, Brief: true}} {
		var m *mailbox
		hold := newBlock()
		props := actor.PropsFromFunc(func(ctx actor.Context) {
			if b, ok := ctx.Message().(block); ok {
				b.hold()
			}
		}, actor.WithMailbox(func() actor.Mailbox { m = NewMailbox(o)().(*mailbox); return m }))
		pid, err := system.Root.SpawnNamed(props, name)
		if err != nil {
			t.Fatal(err)
		}
		system.Root.Send(pid, hold)
		receive(t, "it is held", hold.entered)
		system.Root.Stop(pid)
		system.Root.Stop(pid)
		close(hold.release)
		eventually(t, "both are heard", func() bool { return m.systems.Load() == 0 && m.state.Load() == idle })
	}
	for i := range r.brief {
		r.brief[i].Store(nil)
	}
	if k := kind(t, r, "worker"); k.Processed != 1 || r.Unlisted() != 0 {
		t.Errorf("%+v, %d not listed", k, r.Unlisted())
	}
}

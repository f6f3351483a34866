package rt

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"pgregory.net/rapid"
)

// probe spawns an actor that records what it is given. block and explode do
// what their names say.
func probe(t testing.TB, system *actor.ActorSystem, o MailboxOptions, more ...actor.PropsOption) (*actor.PID, *recorder[any]) {
	t.Helper()
	var got recorder[any]
	options := append([]actor.PropsOption{actor.WithMailbox(NewMailbox(o))}, more...)
	props := actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case block:
			m.hold()
		case explode:
			panic("explode")
		case *Batch:
			for _, e := range m.Envelopes {
				if b, ok := e.Message.(block); ok {
					b.hold()
				}
			}
			got.add(slices.Clone(m.Envelopes))
			for _, e := range m.Envelopes {
				if _, ok := e.Message.(explode); ok {
					panic("explode")
				}
			}
		default:
			got.add(m)
		}
	}, options...)
	return system.Root.Spawn(props), &got
}

func users(all []any) []any {
	return slices.DeleteFunc(all, func(m any) bool {
		switch m.(type) {
		case actor.SystemMessage, actor.AutoReceiveMessage:
			return true
		}
		return false
	})
}

type refusal struct {
	sender  *actor.PID
	message any
}

func TestMailboxShedsWhenFull(t *testing.T) {
	system := newSystem(t)
	var shed recorder[refusal]
	o := MailboxOptions{MaxMessages: 3, Shed: func(s *actor.PID, m any) { shed.add(refusal{s, m}) }}
	pid, got := probe(t, system, o)
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	sender := system.NewLocalPID("asker")
	for i := range 5 {
		system.Root.RequestWithCustomSender(pid, number(i), sender)
	}
	want := []refusal{{sender, number(3)}, {sender, number(4)}}
	if !slices.Equal(shed.list(), want) {
		t.Fatalf("shed %v, want %v", shed.list(), want)
	}
	close(hold.release)
	eventually(t, "three handled", func() bool { return len(users(got.list())) == 3 })
	stop(t, system, pid)
}

func TestMailboxBoundsBytes(t *testing.T) {
	system := newSystem(t)
	var shed recorder[any]
	o := MailboxOptions{
		MaxBytes: 100,
		Size: func(m any) int {
			if s, ok := m.(sized); ok {
				return int(s)
			}
			return 0
		},
		Shed: func(_ *actor.PID, m any) { shed.add(m) },
	}
	pid, got := probe(t, system, o)
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	// The first is above the bound and is taken, because nothing waits.
	for _, n := range []sized{150, 1, 0} {
		system.Root.Send(pid, n)
	}
	close(hold.release)
	eventually(t, "queue empty", func() bool { return len(users(got.list())) == 1 })
	if want := []any{sized(1), sized(0)}; !slices.Equal(shed.list(), want) {
		t.Fatalf("shed %v, want %v", shed.list(), want)
	}
	hold = newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	for _, n := range []sized{60, 40, 1} {
		system.Root.Send(pid, n)
	}
	close(hold.release)
	eventually(t, "weight freed", func() bool { return len(users(got.list())) == 3 })
	if n := shed.len(); n != 3 {
		t.Fatalf("shed %d, want 3: 60+40 fit in 100 and one more does not", n)
	}
	stop(t, system, pid)
}

func TestMailboxControlOvertakesAndHasItsOwnBound(t *testing.T) {
	system := newSystem(t)
	var shed recorder[any]
	o := MailboxOptions{MaxMessages: 2, MaxControl: 2, Shed: func(_ *actor.PID, m any) { shed.add(m) }}
	pid, got := probe(t, system, o)
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	for i := range 3 {
		system.Root.Send(pid, number(i))
	}
	for i := range 3 {
		system.Root.Send(pid, urgent(i))
	}
	close(hold.release)
	eventually(t, "all handled", func() bool { return len(users(got.list())) == 4 })
	if want := []any{urgent(0), urgent(1), number(0), number(1)}; !slices.Equal(users(got.list()), want) {
		t.Errorf("handled %v, want %v", users(got.list()), want)
	}
	if want := []any{number(2), urgent(2)}; !slices.Equal(shed.list(), want) {
		t.Errorf("shed %v, want %v", shed.list(), want)
	}
	stop(t, system, pid)
}

func TestMailboxDropsExpired(t *testing.T) {
	system := newSystem(t)
	var expired recorder[any]
	o := MailboxOptions{
		TTL: func(m any) time.Duration {
			if l, ok := m.(limited); ok {
				return time.Duration(l)
			}
			return 0
		},
		Expired: func(_ *actor.PID, m any) { expired.add(m) },
	}
	pid, got := probe(t, system, o)
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	now := time.Now()
	past, future := perish{now.Add(-time.Second)}, perish{now.Add(time.Hour)}
	for _, m := range []any{past, limited(1), future, limited(time.Hour), number(7)} {
		system.Root.Send(pid, m)
	}
	close(hold.release)
	eventually(t, "the living handled", func() bool { return len(users(got.list())) == 3 })
	if want := []any{future, limited(time.Hour), number(7)}; !slices.Equal(users(got.list()), want) {
		t.Errorf("handled %v, want %v", users(got.list()), want)
	}
	if want := []any{past, limited(1)}; !slices.Equal(expired.list(), want) {
		t.Errorf("expired %v, want %v", expired.list(), want)
	}
	stop(t, system, pid)
}

func TestMailboxShedsWhatIsLeftOnStop(t *testing.T) {
	system := newSystem(t)
	var shed recorder[any]
	registry := NewRegistry()
	o := MailboxOptions{Shed: func(_ *actor.PID, m any) { shed.add(m) }, Registry: registry}
	pid, got := probe(t, system, o)
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	system.Root.Send(pid, urgent(1))
	for i := range 10 {
		system.Root.Send(pid, number(i))
	}
	system.Root.Stop(pid)
	close(hold.release)
	eventually(t, "rest shed", func() bool { return shed.len() == 11 })
	if n := len(users(got.list())); n != 0 {
		t.Errorf("%d messages handled after Stop overtook them", n)
	}
	if registry.Len() != 0 {
		t.Errorf("a stopped actor is still listed")
	}
}

// A sender that holds the process of an actor that has just stopped must still
// get its message back.
func TestMailboxShedsAfterStop(t *testing.T) {
	system := newSystem(t)
	var shed recorder[any]
	pid, _ := probe(t, system, MailboxOptions{Shed: func(_ *actor.PID, m any) { shed.add(m) }})
	process, ok := system.ProcessRegistry.GetLocal(pid.Id)
	if !ok {
		t.Fatal("not registered")
	}
	stop(t, system, pid)
	process.SendUserMessage(pid, number(1))
	eventually(t, "late message shed", func() bool { return slices.Equal(shed.list(), []any{number(1)}) })
}

func TestMailboxPoisonPassesAFullQueue(t *testing.T) {
	for _, batch := range []int{0, 8} {
		system := newSystem(t)
		pid, got := probe(t, system, MailboxOptions{MaxMessages: 1, Batch: batch})
		hold := newBlock()
		system.Root.Send(pid, hold)
		receive(t, "handler entered", hold.entered)
		system.Root.Send(pid, number(1))
		system.Root.Poison(pid)
		close(hold.release)
		eventually(t, "stopped after what was queued", func() bool {
			all := got.list()
			_, last := all[len(all)-1].(*actor.Stopped)
			return last && len(users(all)) > 0
		})
	}
}

func TestMailboxBatch(t *testing.T) {
	system := newSystem(t)
	pid, got := probe(t, system, MailboxOptions{Batch: 4})
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	sender := system.NewLocalPID("asker")
	for i := range 6 {
		system.Root.RequestWithCustomSender(pid, number(i), sender)
	}
	system.Root.Send(pid, urgent(9))
	close(hold.release)
	eventually(t, "all handled", func() bool { return len(users(got.list())) == 4 })
	all := users(got.list())
	if all[1] != any(urgent(9)) {
		t.Fatalf("control message came %v", all)
	}
	of := func(n int) Envelope { return Envelope{Message: number(n), Sender: sender} }
	want := [][]Envelope{
		{of(0), of(1), of(2), of(3)},
		{of(4), of(5)},
	}
	for i, w := range want {
		if g, ok := all[i+2].([]Envelope); !ok || !slices.Equal(g, w) {
			t.Errorf("batch %d is %v, want %v", i, all[i+2], w)
		}
	}
	stop(t, system, pid)
}

func TestMailboxPanicGoesToTheSupervisor(t *testing.T) {
	for _, batch := range []int{0, 8} {
		system := newSystem(t)
		registry := NewRegistry()
		var failed recorder[any]
		o := MailboxOptions{Batch: batch, Registry: registry, Failed: func(_ *actor.PID, m any) { failed.add(m) }}
		props := actor.WithGuardian(RestartWithLimit(10, time.Minute, nil))
		pid, _ := probe(t, system, o, props)
		system.Root.Send(pid, explode{})
		eventually(t, "restarted", func() bool {
			s, ok := registry.Find(pid.Id)
			return ok && s.Restarts == 1 && !s.Suspended
		})
		system.Root.Send(pid, number(1))
		eventually(t, "went on", func() bool {
			s, _ := registry.Find(pid.Id)
			return s.Processed >= 2 && s.InHandler == 0
		})
		s, _ := registry.Find(pid.Id)
		if s.LastPanic == nil || s.LastPanic.Reason != "explode" || !strings.Contains(s.LastPanic.Stack, "mailbox_test.go") {
			t.Errorf("batch %d: last panic is %+v", batch, s.LastPanic)
		}
		if !slices.Contains(failed.list(), any(explode{})) {
			t.Errorf("batch %d: failed message not told: %v", batch, failed.list())
		}
		stop(t, system, pid)
	}
}

func TestStopOnFailureShedsTheQueue(t *testing.T) {
	system := newSystem(t)
	var shed recorder[any]
	o := MailboxOptions{Shed: func(_ *actor.PID, m any) { shed.add(m) }}
	pid, _ := probe(t, system, o, actor.WithGuardian(StopOnFailure()))
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	system.Root.Send(pid, explode{})
	system.Root.Send(pid, number(1))
	close(hold.release)
	eventually(t, "shed", func() bool { return slices.Equal(shed.list(), []any{number(1)}) })
}

func TestStatsSeeAStuckActor(t *testing.T) {
	system := newSystem(t)
	registry := NewRegistry()
	pid, _ := probe(t, system, MailboxOptions{Registry: registry})
	hold := newBlock()
	system.Root.Send(pid, hold)
	receive(t, "handler entered", hold.entered)
	system.Root.Send(pid, number(1))
	system.Root.Send(pid, urgent(1))
	eventually(t, "age grows", func() bool {
		s, _ := registry.Find(pid.Id)
		return s.OldestAge > time.Millisecond && s.InHandler > time.Millisecond
	})
	s, _ := registry.Find(pid.Id)
	if s.Queued != 1 || s.Control != 1 || s.ID != pid.Id || s.Type != "actor.ReceiveFunc" {
		t.Errorf("stats are %+v", s)
	}
	if all, _ := registry.List(nil, 1); len(all) != 1 || all[0].ID != pid.Id {
		t.Errorf("list is %+v", all)
	}
	close(hold.release)
	stop(t, system, pid)
}

// The library crashes the sender here: the process is in the registry before
// its mailbox knows whom to invoke.
func TestSpawnUnderFireLosesNothing(t *testing.T) {
	system := newSystem(t)
	var sent, handled, shed atomic.Int64
	name := "vnode-1"
	quit := make(chan struct{})
	var senders sync.WaitGroup
	for range 2 {
		senders.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				if p, ok := system.ProcessRegistry.GetLocal(name); ok {
					p.SendUserMessage(nil, number(1))
					sent.Add(1)
				}
			}
		})
	}
	props := actor.PropsFromFunc(func(ctx actor.Context) {
		if _, ok := ctx.Message().(number); ok {
			handled.Add(1)
		}
	}, actor.WithMailbox(NewMailbox(MailboxOptions{Shed: func(*actor.PID, any) { shed.Add(1) }})))
	for range 300 {
		pid, err := system.Root.SpawnNamed(props, name)
		if err != nil {
			t.Fatal(err)
		}
		stop(t, system, pid)
	}
	close(quit)
	senders.Wait()
	eventually(t, "each message handled or shed", func() bool { return handled.Load()+shed.Load() == sent.Load() })
}

// Nothing is handled before Started, however early it came.
func TestStartedComesFirst(t *testing.T) {
	m := NewMailbox(MailboxOptions{})()
	m.PostUserMessage(number(1))
	m.PostUserMessage(urgent(2))
	var order []any
	m.RegisterHandlers(orderInvoker{&order}, Inline())
	m.PostUserMessage(number(3))
	if len(order) != 0 {
		t.Fatalf("handled before Start: %v", order)
	}
	m.PostSystemMessage("started")
	m.Start()
	if want := []any{"started", urgent(2), number(1), number(3)}; !slices.Equal(order, want) {
		t.Fatalf("order %v, want %v", order, want)
	}
}

type orderInvoker struct{ order *[]any }

func (i orderInvoker) InvokeSystemMessage(m any) { *i.order = append(*i.order, m) }
func (i orderInvoker) InvokeUserMessage(m any)   { *i.order = append(*i.order, m) }
func (i orderInvoker) EscalateFailure(any, any)  {}

// Whatever is posted in whatever order: everything is handled once or shed,
// each kind in its own order, and the bounds hold.
func TestMailboxProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var order, shed []any
		limit := rapid.IntRange(1, 8).Draw(t, "limit")
		held := &heldDispatcher{}
		m := NewMailbox(MailboxOptions{
			MaxMessages: limit, MaxControl: limit,
			Shed: func(_ *actor.PID, x any) { shed = append(shed, x) },
		})()
		m.RegisterHandlers(orderInvoker{&order}, held)
		m.Start()
		posted := 0
		for _, op := range rapid.SliceOfN(rapid.IntRange(0, 3), 1, 60).Draw(t, "ops") {
			switch op {
			case 0, 1:
				m.PostUserMessage(number(posted))
				posted++
			case 2:
				m.PostUserMessage(urgent(posted))
				posted++
			default:
				held.release()
			}
			if n := m.UserMessageCount(); n > 2*limit {
				t.Fatalf("%d messages wait, limit %d of each kind", n, limit)
			}
		}
		held.release()
		if len(order)+len(shed) != posted {
			t.Fatalf("posted %d, handled %d, shed %d", posted, len(order), len(shed))
		}
		last := map[bool]int{true: -1, false: -1}
		for _, x := range order {
			n, isNumber := x.(number)
			value := int(n)
			if !isNumber {
				value = int(x.(urgent))
			}
			if value <= last[isNumber] {
				t.Fatalf("order broken: %v", order)
			}
			last[isNumber] = value
		}
	})
}

// heldDispatcher runs a mailbox when the test says so.
type heldDispatcher struct{ fn func() }

func (d *heldDispatcher) Schedule(fn func()) { d.fn = fn }
func (d *heldDispatcher) Throughput() int    { return 1000 }
func (d *heldDispatcher) release() {
	if fn := d.fn; fn != nil {
		d.fn = nil
		fn()
	}
}

package rt

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
)

// Two inline actors that answer each other a hundred thousand times neither
// deadlock nor grow the stack.
func TestInlineConversation(t *testing.T) {
	system := newSystem(t)
	const rounds = 100_000
	done := make(chan int, 1)
	player := func(ctx actor.Context) {
		if n, ok := ctx.Message().(number); ok {
			if n == rounds {
				var pcs [4096]uintptr
				done <- runtime.Callers(0, pcs[:])
				return
			}
			ctx.Request(ctx.Sender(), n+1)
		}
	}
	options := []actor.PropsOption{actor.WithMailbox(NewMailbox(MailboxOptions{})), actor.WithDispatcher(Inline())}
	a := system.Root.Spawn(actor.PropsFromFunc(player, options...))
	b := system.Root.Spawn(actor.PropsFromFunc(player, options...))
	system.Root.RequestWithCustomSender(a, number(0), b)
	if depth := receive(t, "last round", done); depth > 100 {
		t.Errorf("%d frames on the stack after %d rounds", depth, rounds)
	}
	stop(t, system, a)
	stop(t, system, b)
}

// A chain of different inline actors is bounded by maxInline.
func TestInlineChain(t *testing.T) {
	system := newSystem(t)
	const length = 20_000
	done := make(chan int, 1)
	dispatcher := Inline()
	var next []*actor.PID
	var gone sync.WaitGroup
	props := actor.PropsFromFunc(func(ctx actor.Context) {
		switch n := ctx.Message().(type) {
		case number:
			if n == length-1 {
				pcs := make([]uintptr, 1<<20)
				done <- runtime.Callers(0, pcs)
				return
			}
			ctx.Send(next[n+1], n+1)
		case *actor.Stopped:
			gone.Done()
		}
	}, actor.WithMailbox(NewMailbox(MailboxOptions{})), actor.WithDispatcher(dispatcher))
	for range length {
		next = append(next, system.Root.Spawn(props))
	}
	gone.Add(length)
	system.Root.Send(next[0], number(0))
	if depth := receive(t, "end of the chain", done); depth > 40*maxInline {
		t.Errorf("%d frames on the stack", depth)
	}
	for _, pid := range next {
		system.Root.Stop(pid)
	}
	gone.Wait()
}

func TestWorkers(t *testing.T) {
	var panics recorder[any]
	w := NewWorkers(1, 2, func(reason any) { panics.add(reason) })
	hold := newBlock()
	if !w.Submit(hold.hold) {
		t.Fatal("an idle worker refused")
	}
	receive(t, "worker busy", hold.entered)
	var ran atomic.Int32
	for i := range 2 {
		if !w.Submit(func() {
			ran.Add(1)
			if i == 0 {
				panic("read failed")
			}
		}) {
			t.Fatalf("function %d of a queue of 2 refused", i)
		}
	}
	if w.Waiting() != 2 || w.Submit(func() {}) {
		t.Fatal("a full queue took another function")
	}
	close(hold.release)
	w.Stop()
	if ran.Load() != 2 || panics.len() != 1 {
		t.Errorf("ran %d, panics %v: Stop finishes what is queued", ran.Load(), panics.list())
	}
	if w.Submit(func() {}) {
		t.Error("stopped workers took a function")
	}
	w.Stop()
}

package rt

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// BenchmarkTell sends to one actor as fast as it takes them, through this
// package's mailbox and through the library's. The sender pauses when a
// thousand are on their way, so that both do the same work.
func BenchmarkTell(b *testing.B) {
	for _, c := range []struct {
		name    string
		mailbox actor.MailboxProducer
	}{
		{"library", actor.Unbounded()},
		{"ours", NewMailbox(MailboxOptions{})},
		{"batch", NewMailbox(MailboxOptions{Batch: 128})},
	} {
		b.Run(c.name, func(b *testing.B) { benchTell(b, c.mailbox) })
	}
}

func benchTell(b *testing.B, mailbox actor.MailboxProducer) {
	system := newSystem(b)
	const window = 1000
	tokens := make(chan struct{}, 1)
	seen := 0
	count := func(n int) {
		before := seen / window
		seen += n
		if seen/window > before || seen == b.N {
			select {
			case tokens <- struct{}{}:
			default:
			}
		}
	}
	pid := system.Root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case number:
			count(1)
		case *Batch:
			count(len(m.Envelopes))
		}
	}, actor.WithMailbox(mailbox)))
	var message any = number(1)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		system.Root.Send(pid, message)
		if (i+1)%window == 0 || i+1 == b.N {
			<-tokens
		}
	}
	b.StopTimer()
	stop(b, system, pid)
}

// BenchmarkInline is the same without a goroutine: what a request actor pays.
func BenchmarkInline(b *testing.B) {
	system := newSystem(b)
	pid := system.Root.Spawn(actor.PropsFromFunc(func(actor.Context) {},
		actor.WithMailbox(NewMailbox(MailboxOptions{})), actor.WithDispatcher(Inline())))
	var message any = number(1)
	b.ReportAllocs()
	for b.Loop() {
		system.Root.Send(pid, message)
	}
	stop(b, system, pid)
}

// BenchmarkWheel arms and cancels a timer, as a request that is answered does.
func BenchmarkWheel(b *testing.B) {
	w := NewWheel(newSystem(b), 0)
	pid := actor.NewPID("n1", "x")
	b.ReportAllocs()
	for b.Loop() {
		w.Send(pid, nil, 5*time.Second).Stop()
	}
	b.StopTimer()
	w.Stop()
}

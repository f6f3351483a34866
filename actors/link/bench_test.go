package link

import (
	"fmt"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

// BenchmarkLink is request and reply between two systems over loopback: one
// actor keeps so many requests on their way, the other answers at once.
func BenchmarkLink(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, outstanding := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%dB/%d", size, outstanding), func(b *testing.B) { benchLink(b, size, outstanding) })
		}
	}
}

func benchLink(b *testing.B, size, outstanding int) {
	one, two := node(b, "a"), node(b, "b")
	vnode, _ := two.vnode("vnode/1")
	meet(b, one, two)
	done := make(chan struct{})
	key := make([]byte, size)
	left, answered := b.N, 0
	mailbox := actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{}))
	pid, err := one.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case *messages.ReadReply:
			answered++
			if left > 0 {
				left--
				ctx.Request(vnode, &messages.ReadRequest{Key: key, TimeoutMs: 10_000})
			}
			if answered == b.N {
				close(done)
			}
		case int:
			for range min(m, left) {
				left--
				ctx.Request(vnode, &messages.ReadRequest{Key: key, TimeoutMs: 10_000})
			}
		}
	}, mailbox), "get/1")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	one.system.Root.Send(pid, outstanding)
	<-done
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

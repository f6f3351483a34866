package actors

import (
	"fmt"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/messages"
)

// BenchmarkVnodeWrite is what a replicated write costs a vnode on a store in memory, with
// all that it does for its hash tree.
func BenchmarkVnodeWrite(b *testing.B) {
	r := start(b, setup{})
	const keys, window = 20_000, 64
	value := string(make([]byte, 100))
	all := make([]*messages.ReplicateRequest, keys)
	for i := range all {
		all[i] = replicateOf(0, fmt.Sprint("key-", i), elsewhere(b, byte(1+i%200), value), false)
	}
	b.ResetTimer()
	for i := 0; i < b.N; i += window {
		for j := range min(window, b.N-i) {
			m := all[(i+j)*7919%keys]
			r.s.System.Root.Send(r.pid(), m)
		}
		p := actortest.NewProbe(r.system)
		p.Ask(r.pid(), readOf(0, "none", 0))
		actortest.Next[*messages.ReadReply](b, p)
	}
}

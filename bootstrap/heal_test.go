package bootstrap

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

// objects are what a node's store holds.
func (n *testNode) objects() map[string]string {
	n.t.Helper()
	out := map[string]string{}
	lower, upper := vnode.Objects()
	if err := n.engine.Scan(lower, upper, func(key, value []byte) bool {
		out[string(key)] = string(value)
		return true
	}); err != nil {
		n.t.Fatal(err)
	}
	return out
}

// fill writes keys, each with its name as its value.
func fill(t *testing.T, n int, nodes ...*testNode) {
	t.Helper()
	c := newClient(t, nodes...)
	for i := range n {
		key := fmt.Sprintf("k%d", i)
		update(t, c, key, []byte(key), client.W(len(nodes)))
	}
}

// empty removes a node's disk.
func empty(t *testing.T, c Config) {
	t.Helper()
	if err := os.RemoveAll(c.DataDir); err != nil {
		t.Fatal(err)
	}
}

// filled waits until no replica lacks anything, by what the node knows.
func (n *testNode) filled(store [16]byte) {
	n.t.Helper()
	eventually(n.t, "everything filled", func() bool {
		m, ok := n.Document().Member("n3")
		return ok && m.Store == member.StoreID(store) && len(n.Document().Movement.Filling) == 0
	})
}

// TestLostDisk: a node that comes back with an empty disk has everything again, by
// itself and without anybody reading; who reads meanwhile, also through that node, finds
// what was acknowledged.
func TestLostDisk(t *testing.T) {
	const keys = 60
	for name, reads := range map[string]bool{"nobody reads": false, "somebody reads": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			configs := onDisk(t, seeded(t, 3))
			nodes := startAll(t, configs)
			nodes[2].stop() // so that the lost disk's start is later than that of the new one
			nodes[2] = start(t, configs[2])
			nodes[2].ready()
			fill(t, keys, nodes...)
			nodes[2].stop()
			want := nodes[0].objects()
			empty(t, configs[2])
			back := start(t, configs[2])
			if reads {
				read(t, keys, back, func() { back.filled(back.identity.StoreID()) })
			}
			for _, n := range []*testNode{nodes[0], nodes[1], back} {
				n.filled(back.identity.StoreID())
			}
			back.ready()
			if got := back.objects(); !maps.Equal(got, want) {
				t.Errorf("%d objects came back, want the %d of another replica, byte by byte", len(got), len(want))
			}
			serves(t, nodes[0], nodes[1], back)
		})
	}
}

// read reads all keys through a node, from when it serves and while during runs.
func read(t *testing.T, keys int, n *testNode, during func()) {
	t.Helper()
	n.ready()
	c := newClient(t, n)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for i := range keys {
				key := fmt.Sprintf("k%d", i)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				o, err := c.Bucket("b").Get(ctx, key)
				cancel()
				if err != nil {
					t.Errorf("get %s: %v", key, err)
					return
				}
				if got, err := o.One(); err != nil || !bytes.Equal(got, []byte(key)) {
					t.Errorf("%s is %q, %v", key, got, err)
				}
			}
			select {
			case <-over:
				return
			default:
			}
		}
	})
	during()
	close(over)
	wg.Wait()
}

// TestOldDiskIsFound: the store that another one has replaced does not serve any more,
// whoever is started on it, and the one that replaced it does.
func TestOldDiskIsFound(t *testing.T) {
	configs := onDisk(t, seeded(t, 3))
	nodes := startAll(t, configs)
	fill(t, 20, nodes...)
	nodes[2].stop()
	old := configs[2]
	configs[2].DataDir += "-new"
	back := start(t, configs[2])
	nodes[0].filled(back.identity.StoreID())
	back.stop()
	found := start(t, old)
	found.says("another disk has taken its place")
	refusesClients(t, found, "another disk has taken its place")
	found.stop()
	again := start(t, configs[2])
	again.ready()
	serves(t, nodes[0], nodes[1], again)
}

// refusesClients asks a node for something that it could answer by itself.
func refusesClients(t *testing.T, n *testNode, why string) {
	t.Helper()
	get := &messages.GetRequest{Bucket: []byte("b"), Key: []byte("k1"), Quorum: &messages.Quorum{R: 1}, TimeoutMs: 5000}
	answer, err := n.system.Root.RequestFuture(actor.NewPID(n.config.Name, messages.TargetCoordinator), get, patience).Result()
	if f, ok := answer.(*messages.Failure); !ok || f.GetCode() != messages.CodeNotReady || !strings.Contains(f.GetText(), why) {
		t.Errorf("a read of a node that must not serve: %v, %v, want %q", answer, err, why)
	}
}

// TestTwoProcesses: while a member runs, no other process takes its name, neither one
// with an empty directory nor one with a copy of the member's.
func TestTwoProcesses(t *testing.T) {
	configs := onDisk(t, seeded(t, 3))
	nodes := startAll(t, configs)
	fill(t, 20, nodes...)
	nodes[2].stop()
	copied := configs[2]
	copied.DataDir, copied.Listen = t.TempDir(), "127.0.0.1:0"
	if err := os.CopyFS(copied.DataDir, os.DirFS(configs[2].DataDir)); err != nil {
		t.Fatal(err)
	}
	nodes[2] = start(t, configs[2])
	nodes[2].ready()
	eventually(t, "all connected", func() bool { return len(nodes[0].Connected()) == 2 && len(nodes[1].Connected()) == 2 })
	version := nodes[0].Document().Version

	twin := start(t, copied)
	twin.says("another process with the id n3 is connected")
	refusesClients(t, twin, "another process with the id n3 is connected")
	fresh := copied
	fresh.DataDir = t.TempDir()
	second := start(t, fresh)
	eventually(t, "the second process being told", func() bool {
		return strings.Contains(second.log.String(), "another process with the id n3 is connected")
	})
	if second.Document() != nil {
		t.Error("a second process became a member")
	}
	serves(t, nodes...)
	if now := nodes[0].Document(); now.Version != version {
		t.Errorf("the cluster changed to version %d: %+v", now.Version, now.Members)
	}
	twin.stop()
	second.stop()
	serves(t, nodes...)
}

// TestRemovedMemberComesBack: it is refused until its directory is emptied; then it
// joins as a new node.
func TestRemovedMemberComesBack(t *testing.T) {
	configs := onDisk(t, seeded(t, 4))
	for i := range configs {
		configs[i].AutoJoin = true
	}
	nodes := startAll(t, configs)
	fill(t, 20, nodes[:3]...)
	gone, rest := nodes[3], nodes[:3]
	gone.stop()
	c := newClient(t, rest...).Cluster()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.Stage(ctx, member.Change{Kind: member.Remove, Node: "n4"})
	if err == nil {
		_, err = c.Commit(ctx, s.Document.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
	status := func() member.Status { m, _ := rest[0].Document().Member("n4"); return m.Status }
	eventually(t, "n4 gone", func() bool { return status() == member.Gone })

	gone = start(t, configs[3])
	gone.says("n4 is no member of test any more")
	refusesClients(t, gone, "n4 is no member of test any more")
	gone.stop()
	if status() != member.Gone {
		t.Error("it became a member again")
	}
	empty(t, configs[3])
	gone = start(t, configs[3])
	gone.ready()
	eventually(t, "n4 a member", func() bool { return status() == member.Up && rest[0].Document().Next == nil })
	serves(t, gone)
}

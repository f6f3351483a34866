package actors

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// connections are the nodes that n1 is linked with, and where it was told that others are.
type connections struct {
	mu    sync.Mutex
	nodes []dynamo.NodeID
	told  map[dynamo.NodeID]string
}

func (x *connections) peers() []dynamo.NodeID {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.nodes)
}

func (x *connections) moved(node dynamo.NodeID, address string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.told[node] = address
}

func (x *connections) is(node dynamo.NodeID, address string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.told[node] == address
}

// TestCommitReaches those that it makes members: it waits for a link to them, and changes
// nothing when there is none.
func TestCommitReaches(t *testing.T) {
	t.Parallel()
	x := &connections{told: map[dynamo.NodeID]string{}}
	r := start(t, setup{nodes: 3, change: func(c *Config) { c.Founding.Peers, c.Founding.Moved = x.peers, x.moved },
		document: func(d member.Document) member.Document {
			for _, id := range []dynamo.NodeID{"n4", "n5"} {
				var err error
				d, err = d.Stage(member.Change{Kind: member.Join, Node: id, Member: member.Member{
					ID: id, Capacity: 1, Store: member.StoreID{id[1] - '0'}, Address: "at-" + string(id),
				}})
				if err != nil {
					t.Fatal(err)
				}
			}
			return d
		}})
	r.electors()
	commit := &messages.ClusterRequest{Operation: messages.OperationCommit, Version: r.doc.Version, TimeoutMs: 2000}
	x.mu.Lock()
	x.nodes = []dynamo.NodeID{"n5"}
	x.mu.Unlock()
	_, f := r.operate(commit)
	if f.GetCode() != messages.CodeUnavailable || !strings.Contains(f.GetText(), "n4, which is staged to join, cannot be reached from n1 at at-n4") {
		t.Errorf("without n4: %v", f)
	}
	if now := r.s.Document(); !now.Equal(r.doc) || !x.is("n4", "at-n4") || x.is("n5", "at-n5") {
		t.Errorf("in force is %v; told of %v", now, x.told)
	}
	old := &messages.ClusterRequest{Operation: messages.OperationCommit, Version: r.doc.Version - 1}
	if _, f := r.operate(old); f.GetCode() != messages.CodeConflict {
		t.Errorf("another plan: %v", f)
	}
	// A link that comes up while the commit waits.
	probe := actortest.NewProbe(r.system)
	x.moved("n4", "")
	commit.TimeoutMs = 5000
	probe.Ask(on("n1", nameMembership), commit)
	actortest.Eventually(t, "n4 is sought", func() bool { return x.is("n4", "at-n4") })
	x.mu.Lock()
	x.nodes = append(x.nodes, "n4")
	x.mu.Unlock()
	actortest.Next[*messages.ClusterReply](t, probe)
	if m, ok := r.s.Document().Member("n4"); !ok || m.Status != member.Joining {
		t.Errorf("n4 is %v", m)
	}
}

// TestBehindAsksOnce: many requests may show that there is a newer document; one question
// is enough, and another one when there is an even newer document or no answer came.
func TestBehindAsksOnce(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 3, change: func(c *Config) { c.Reachable = func(n dynamo.NodeID) bool { return n == "n1" } }})
	asked := make(chan struct{}, 1000)
	r.peers.Handle("n2", func(m actortest.Received) {
		if _, ok := m.Message.(*messages.GossipRequest); ok {
			asked <- struct{}{}
		}
	})
	told := func(version uint64) {
		for range 100 {
			r.s.tellBehind("n2", version)
		}
		r.probe.Ask(on("n1", nameMembership), &messages.RingRequest{}) // when it answers, it has heard all
		actortest.Next[*messages.RingReply](t, r.probe)
	}
	began := time.Now()
	told(7)
	told(6)
	told(8)
	// On a machine that stands still some of the answers count as lost.
	if n, most := len(asked), 2+int(time.Since(began)/gossipTick); n < 2 || n > most {
		t.Errorf("asked %d times, want 2 to %d", n, most)
	}
	n := len(asked)
	actortest.Eventually(t, "it asks again", func() bool { told(8); return len(asked) > n })
}

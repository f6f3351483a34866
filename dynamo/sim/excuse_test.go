package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// idleCluster is a cluster of four whose ring may move, with one key on three of them, in which nothing happens.
func idleCluster(ruins int) *cluster {
	return newCluster(plan{
		seed: 1, nodes: 4, partitions: 1, properties: bucket.Properties{Quorum: quorum.Params{N: 3, R: 2, W: 2}},
		load: loadPlan{clients: 1, keys: 1, timeout: time.Second}, move: movePlan{operators: 1, spares: 2, ruins: ruins},
	}, sound, nil)
}

// TestAcknowledgedAfterRuin: reads may miss a write whose confirmations were under way when the disks were lost on which
// they had it, and no other; it is lost for good only if nobody has a copy.
func TestAcknowledgedAfterRuin(t *testing.T) {
	const first, second, third, other = 0, 1, 2, 3 // the replicas in order, and who is none
	for _, tt := range []struct {
		name          string
		ruins         int
		lost, holding []int
		unread        bool
		excused       bool
		fails         string
	}{
		{"none is lost", 3, nil, []int{first, second}, false, false, ""},
		{"another has a copy", 3, []int{first, second}, []int{other}, true, false, ""},
		{"a replica has a copy", 3, []int{first, second}, []int{third, other}, false, false, ""},
		{"one of two is lost", 3, []int{first}, []int{second, other}, false, false, ""},
		{"one is lost, and there were not two", 3, []int{first}, []int{other}, false, false, "I4"},
		{"one that is no replica is lost", 3, []int{first, other}, nil, false, true, "I4"},
		{"nobody has a copy", 3, []int{first, second}, nil, true, true, ""},
		{"no disks are to be lost", 0, []int{first, second}, []int{other}, false, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := idleCluster(tt.ruins)
			k := &c.keys[0]
			l := c.check.ledger(k)
			dot := clock.Dot{Actor: clock.Actor{Incarnation: clock.Incarnation{1}, Epoch: 1}, Counter: 1}
			w := &put{dot: dot, request: dynamo.RequestID{1}, at: c.nodes[0]}
			l.byActor[dot.Actor] = []*put{w}
			has := version.Record{Clock: clock.Of(clock.Entry{Actor: dot.Actor, Counter: dot.Counter}), Versions: []version.Version{{Dot: dot, Request: w.request}}}
			order := c.doc.Settled.Preference(k.partition, 4, ring.Everyone)
			for _, i := range slices.Concat(tt.lost, tt.holding) {
				n := c.node(order[i].Node)
				b := vnode.AppendStored(nil, k.stored, vnode.Stored{Record: has})
				n.disk.durable[string(k.stored)], n.disk.volatile[string(k.stored)] = b, b
				if slices.Contains(tt.lost, i) {
					c.check.destroy(n, k)
					n.empty()
				}
			}
			p := &putShell{exchange: exchange{n: c.nodes[0], key: k, plan: c.doc.Version}, message: &putRequest{id: w.request}}
			c.check.acked(p, dot)
			if fails := c.violation != nil; fails != (tt.fails != "") || fails && c.violation.Invariant != tt.fails {
				t.Fatalf("it breaks %v, want %q", c.violation, tt.fails)
			}
			if !w.acked || w.unread != tt.unread || w.excused != tt.excused {
				t.Fatalf("acknowledged %v, unread %v, excused %v; want unread %v, excused %v", w.acked, w.unread, w.excused, tt.unread, tt.excused)
			}
		})
	}
}

// TestSameAfterLoss: copies may differ in the requests that they remember only where a copy was lost, and never in clocks
// or versions.
func TestSameAfterLoss(t *testing.T) {
	dot := clock.Dot{Actor: clock.Actor{Incarnation: clock.Incarnation{1}, Epoch: 1}, Counter: 1}
	written := version.Record{
		Clock:    clock.Of(clock.Entry{Actor: dot.Actor, Counter: dot.Counter}),
		Versions: []version.Version{{Dot: dot, Request: dynamo.RequestID{1}}},
	}
	remembers := written
	remembers.Recent = []version.Applied{{Request: dynamo.RequestID{2}, Dot: dot}}
	later := written
	later.Clock = clock.Of(clock.Entry{Actor: dot.Actor, Counter: dot.Counter + 1})
	for _, tt := range []struct {
		name string
		lost []int // nodes whose durable copy was destroyed
		a, b version.Record
		same bool
	}{
		{"equal", nil, remembers, remembers, true},
		{"other requests, none lost a copy", nil, remembers, written, false},
		{"other requests, a third lost its copy", []int{2}, remembers, written, false},
		{"other requests, the first lost its copy", []int{0}, remembers, written, true},
		{"other requests, the second lost its copy", []int{1}, remembers, written, true},
		{"other clocks, both lost their copies", []int{0, 1}, later, written, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := idleCluster(0)
			l := c.check.ledger(&c.keys[0])
			for _, i := range tt.lost {
				l.durableDamage[i] = written.Clock
			}
			if same := c.check.same(l, c.nodes[0], tt.a, c.nodes[1], tt.b); same != tt.same {
				t.Fatalf("same %v, want %v", same, tt.same)
			}
		})
	}
}

// TestOutlived: a disk may be lost only if the others are a majority, also of the version that a crash takes
// them back to. b is dead, and a version in which it is gone was decided.
func TestOutlived(t *testing.T) {
	all := []dynamo.NodeID{"a", "c", "d"}
	for _, tt := range []struct {
		name string
		// behind have the version before on the disk, down do not run, voted have a vote on the disk for one with
		// two more members, who do not run yet.
		behind, down, voted []dynamo.NodeID
		want                bool
	}{
		{"all have the newest", nil, nil, nil, true},
		{"all have the newest and are down", nil, all, nil, true},
		{"all are down and have the one before", all, all, nil, false},
		{"one is down and has the one before", []dynamo.NodeID{"c"}, []dynamo.NodeID{"c"}, nil, false},
		{"one goes by the newest, and its disk has the one before", []dynamo.NodeID{"a"}, nil, nil, false},
		{"only the disk that is lost has the one before", []dynamo.NodeID{"d"}, []dynamo.NodeID{"d"}, nil, true},
		{"one is down and has voted", nil, []dynamo.NodeID{"c"}, []dynamo.NodeID{"c"}, false},
		{"only the one whose disk is lost has voted", nil, []dynamo.NodeID{"d"}, []dynamo.NodeID{"d"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := idleCluster(0)
			before, newest := c.doc, c.doc
			newest.Version, newest.Members = before.Version+1, slices.Clone(before.Members)
			newest.Members[1].Status, newest.Members[1].Removed = member.Gone, true
			next := newest
			next.Version, next.Members = newest.Version+1, slices.Clone(newest.Members)
			for _, id := range []dynamo.NodeID{"e", "f"} {
				next.Members = append(next.Members, member.Member{ID: id, Store: member.StoreID{9, id[0]}, Status: member.Joining})
			}
			c.move.dead = map[dynamo.NodeID]bool{"b": true}
			c.node("b").off = true
			c.doc = newest
			for _, id := range all {
				n, v := c.node(id), member.Voter{Self: id, Store: c.node(id).store, Document: newest}
				if !slices.Contains(tt.down, id) {
					running := v
					n.members = &membership{n: n, voter: &running}
				}
				if slices.Contains(tt.behind, id) {
					v.Document = before
				}
				if slices.Contains(tt.voted, id) {
					v.Vote = &member.Vote{Document: next}
				}
				n.keeps(v)
			}
			if got := c.outlived(c.node("d")); got != tt.want {
				t.Fatalf("the disk of d may be lost: %v, want %v", got, tt.want)
			}
		})
	}
}

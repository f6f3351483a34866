package actors

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// testLife is the life of messages in these tests.
const testLife = 200 * time.Millisecond

// trio is three real nodes with one partition and a bucket of two replicas: the first of
// them reaps, the third is where hints lie. Membership says nothing: documents are the
// test's.
type trio struct {
	t                    testing.TB
	first, second, third dynamo.NodeID
	disks                map[dynamo.NodeID]*memory.Engine
	opinions             opinions
	mu                   sync.Mutex
	nodes                map[dynamo.NodeID]*rig
	// lost reports whether a message does not get there, and may do something first.
	lost func(from, to dynamo.NodeID, m actortest.Received) bool
}

func startTrio(t testing.TB, change func(dynamo.NodeID, *Config)) *trio {
	t.Helper()
	x := &trio{t: t, disks: map[dynamo.NodeID]*memory.Engine{}, nodes: map[dynamo.NodeID]*rig{}}
	list := documentOf(t, x.setup()).Settled.Replicas(0)
	x.first, x.second, x.third = list[0], list[1], list[2]
	for _, node := range list {
		x.disks[node] = diskOf(t)
	}
	for _, node := range list {
		x.start(node, change)
	}
	return x
}

func (x *trio) setup() setup {
	return setup{nodes: 3, buckets: bucketOf(func(p *bucket.Properties) { p.Quorum.N, p.Quorum.R, p.Quorum.W = 2, 1, 1 })}
}

// start starts a node on what its disk has.
func (x *trio) start(node dynamo.NodeID, change func(dynamo.NodeID, *Config)) {
	x.t.Helper()
	o := x.setup()
	o.self, o.engine = string(node), keep{x.disks[node]}
	o.change = func(c *Config) {
		c.Reap, c.MessageLife, c.Reachable, c.pace = true, testLife, x.opinions.reachable, quietPace
		if change != nil {
			change(node, c)
		}
	}
	r := start(x.t, o)
	for peer := range x.disks {
		if peer != node {
			r.peers.Handle(string(peer), func(m actortest.Received) { x.carry(r, peer, m) })
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.nodes[node] = r
}

func (x *trio) restart(node dynamo.NodeID) {
	x.t.Helper()
	x.mu.Lock()
	r := x.nodes[node]
	delete(x.nodes, node)
	x.mu.Unlock()
	r.stop()
	x.start(node, nil)
}

func (x *trio) node(id dynamo.NodeID) *rig {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.nodes[id]
}

// lose sets what gets lost.
func (x *trio) lose(lost func(from, to dynamo.NodeID, m actortest.Received) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lost = lost
}

// carry brings a message to another node, as links do.
func (x *trio) carry(from *rig, to dynamo.NodeID, m actortest.Received) {
	if m.Target.GetId() == nameMembership {
		return
	}
	x.mu.Lock()
	lost := x.lost
	x.mu.Unlock()
	if lost != nil && lost(from.s.Self, to, m) {
		return
	}
	r := x.node(to)
	if r == nil {
		x.undelivered(from.s.Self, m)
		return
	}
	var sender *actor.PID
	if m.Sender != nil {
		sender = actor.NewPID(m.Sender.GetAddress(), m.Sender.GetId())
	}
	r.system.Root.RequestWithCustomSender(actor.NewPID(m.Target.GetAddress(), m.Target.GetId()), m.Message, sender)
}

// undelivered tells a sender, as links do.
func (x *trio) undelivered(from dynamo.NodeID, m actortest.Received) {
	if r := x.node(from); r != nil && m.Sender != nil {
		r.system.Root.Send(m.Sender, &link.Undelivered{Target: m.Target, Message: m.Message, Reason: link.NotConnected})
	}
}

// enforce brings a document into force at some nodes.
func (x *trio) enforce(change func(*member.Document), nodes ...dynamo.NodeID) {
	for _, node := range nodes {
		r := x.node(node)
		doc := r.doc
		change(&doc)
		r.s.enforce(doc)
	}
}

func (x *trio) all() []dynamo.NodeID { return []dynamo.NodeID{x.first, x.second, x.third} }

// deleted is the record of a key that was written and deleted elsewhere.
func deleted(t testing.TB, name string) version.Record {
	t.Helper()
	state := vnode.Open([16]byte{99}, 1, 100, true, 0)
	first, err := state.Coordinate(vnode.Stored{}, vnode.Put{Value: []byte(name), Now: 1})
	if err != nil {
		t.Fatal(err)
	}
	second, err := state.Coordinate(first.Stored, vnode.Put{Context: first.Stored.Record.Context(), Now: 2, Tombstone: true})
	if err != nil {
		t.Fatal(err)
	}
	return second.Stored.Record
}

// have has the vnode of a node take a record; for another node, if it is named.
func (x *trio) have(node dynamo.NodeID, name string, rec version.Record, hintFor dynamo.NodeID) {
	x.t.Helper()
	r := x.node(node)
	m := replicateOf(0, name, rec, true)
	m.N, m.HintFor, m.Plan = 2, string(hintFor), r.s.Document().Version
	p := actortest.NewProbe(r.system)
	p.Ask(r.pid(), m)
	actortest.Next[*messages.ReplicateReply](x.t, p)
}

// stored is what a node's disk has of a key.
func (x *trio) stored(node dynamo.NodeID, name string) version.Record {
	x.t.Helper()
	key := vnode.AppendObjectKey(nil, 0, 2, ring.Hash(keyOf(name)).Bytes(), keyOf(name))
	b, err := x.disks[node].Get(nil, key)
	if errors.Is(err, storage.ErrNotFound) {
		return version.Record{}
	}
	stored, err2 := vnode.DecodeStored(key, b)
	if err != nil || err2 != nil {
		x.t.Fatal(err, err2)
	}
	return stored.Record
}

func (x *trio) gone(name string) bool {
	return x.stored(x.first, name).IsZero() && x.stored(x.second, name).IsZero()
}

func (x *trio) state(node dynamo.NodeID) *messages.ReapsReply {
	r := x.node(node)
	p := actortest.NewProbe(r.system)
	p.Ask(on(node, nameReaps), &messages.ReapsRequest{})
	return actortest.Next[*messages.ReapsReply](x.t, p)
}

// putOff waits until reaping is put off for a reason.
func (x *trio) putOff(why string) {
	x.t.Helper()
	last := ""
	actortest.Eventually(x.t, "it is put off: "+why, func() bool {
		last = x.state(x.first).GetReason()
		return strings.Contains(last, why)
	})
}

// exchange compares all, and returns how many records were mended.
func (x *trio) exchange() (mended uint64) {
	x.t.Helper()
	for _, node := range x.all() {
		r := x.node(node)
		ask := func(number uint64) *messages.RepairReply {
			p := actortest.NewProbe(r.system)
			p.Ask(on(node, nameExchanges), &messages.RepairRequest{Number: number})
			return actortest.Next[*messages.RepairReply](x.t, p)
		}
		number := ask(0).GetNumber()
		actortest.Eventually(x.t, "the exchanges have ended", func() bool {
			reply := ask(number)
			if reply.GetComplete()+reply.GetFailed() < reply.GetPairs() {
				return false
			}
			mended += reply.GetMended()
			if reply.GetFailed() > 0 {
				number = ask(0).GetNumber()
			}
			return reply.GetFailed() == 0
		})
	}
	return mended
}

// indexed checks that the index of a store is what its objects say.
func indexed(t testing.TB, e storage.Engine) {
	t.Helper()
	want := map[string]string{}
	lower, upper := vnode.Objects()
	err := e.Scan(lower, upper, func(key, value []byte) bool {
		if stored, err := vnode.DecodeStored(key, value); err == nil {
			if due, ok := reap.Due(stored.Record); ok {
				want[string(vnode.AppendReapKey(nil, due, key))] = string(vnode.AppendReapValue(nil, stored.Record))
			}
		}
		return true
	})
	if err == nil {
		err = e.Scan([]byte("r"), []byte("s"), func(key, value []byte) bool {
			if want[string(key)] != string(value) {
				t.Errorf("the index has %q: %x, want %x", key, value, want[string(key)])
			}
			delete(want, string(key))
			return true
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	for key := range want {
		t.Errorf("the index lacks %q", key)
	}
}

// TestReap: thousands of deleted keys are gone from all replicas, in reapings that share a
// pause, and others stay. Exchanges have nothing to mend after it.
func TestReap(t *testing.T) {
	t.Parallel()
	const keys = 2*reap.MaxKeys + 100
	x := startTrio(t, func(_ dynamo.NodeID, c *Config) { c.MessageLife = 10 * testLife })
	x.opinions.set(x.third, true) // until all is there
	for _, node := range []dynamo.NodeID{x.first, x.second} {
		x.have(node, "stays", elsewhere(t, 9, "v"), "")
		x.have(node, "stays too", version.Merge(deleted(t, "v"), elsewhere(t, 9, "v")), "")
		p := actortest.NewProbe(x.node(node).system)
		for i := range keys {
			m := replicateOf(0, fmt.Sprint("k", i), deleted(t, "v"), true)
			m.N = 2
			p.Ask(x.node(node).pid(), m)
		}
		actortest.Eventually(t, "all is there", func() bool { return actortest.Count[*messages.ReplicateReply](p) == keys })
	}
	x.opinions.set(x.third, false)
	actortest.Eventually(t, "several run at once", func() bool { return x.state(x.first).GetRunning() >= 3 })
	for _, node := range []dynamo.NodeID{x.first, x.second} {
		actortest.Eventually(t, "all are gone", func() bool { return x.node(node).node.Counters().Reaped.Load() == keys })
		for i := range keys {
			if rec := x.stored(node, fmt.Sprint("k", i)); !rec.IsZero() {
				t.Fatalf("k%d is left on %s: %v", i, node, rec)
			}
		}
		if x.stored(node, "stays").IsZero() || x.stored(node, "stays too").IsZero() {
			t.Error("a value is gone")
		}
		indexed(t, x.disks[node])
	}
	if n := x.exchange(); n > 0 {
		t.Errorf("%d records mended", n)
	}
	actortest.Eventually(t, "nothing waits", func() bool {
		s := x.state(x.first)
		return s.GetOn() && s.GetWaiting() == 0 && s.GetUnderWay() == 0 && s.GetRunning() == 0 && s.GetReaped() == keys
	})
	if n := x.node(x.first).node.Counters().Reaps.Load(); n < 3 {
		t.Errorf("%d reapings of %d keys", n, keys)
	}
	if s := x.state(x.second); s.GetReaped() != keys || x.node(x.second).node.Counters().Reaps.Load() != 0 {
		t.Errorf("the second replica says %v", s)
	}
}

// TestReapIsPutOff while anything might bring back what the tombstone covers; and is done
// when that is over.
func TestReapIsPutOff(t *testing.T) {
	t.Parallel()
	both := func(x *trio) {
		x.have(x.first, "k", deleted(t, "v"), "")
		x.have(x.second, "k", deleted(t, "v"), "")
	}
	later := func(x *trio) { x.enforce(func(d *member.Document) { d.Version = 9 }, x.all()...) }
	hand := func(busyTo string) func(*trio) { return func(x *trio) { x.refuseHandoff(busyTo) } }
	misplaced := func(x *trio) []byte {
		return vnode.AppendObjectKey(nil, 0, 2, ring.Hash(keyOf("other")).Bytes(), keyOf("other"))
	}
	for what, c := range map[string]struct {
		before, lift func(*trio)
		why          string
	}{
		"a member is down": {
			func(x *trio) { x.opinions.set(x.third, true) }, func(x *trio) { x.opinions.set(x.third, false) }, "cannot be reached",
		},
		"a member cannot be reached, which nobody knows yet": {
			func(x *trio) { x.cut(x.third) }, func(x *trio) { x.lose(nil) }, "not connected",
		},
		"a hint": {func(x *trio) {
			hand(string(x.second))(x)
			x.have(x.third, "k", elsewhere(t, 7, "old"), x.second)
		}, func(x *trio) { // which brings a value, that has to go first
			x.lose(nil)
			actortest.Eventually(t, "the hint is handed over", func() bool { return !x.stored(x.first, "k").SameCausal(deleted(t, "v")) })
			rec := version.Merge(deleted(t, "v"), elsewhere(t, 7, "old"))
			dead, err := vnode.Open([16]byte{98}, 1, 9, true, 0).Coordinate(vnode.Stored{Record: rec}, vnode.Put{Context: rec.Context(), Now: 3, Tombstone: true})
			if err != nil {
				t.Error(err)
			}
			x.have(x.first, "k", dead.Stored.Record, "")
			x.have(x.second, "k", dead.Stored.Record, "")
		}, "copies of the partition apart"},
		"a hint of another key": {func(x *trio) {
			hand(string(x.second))(x)
			x.have(x.third, "other", elsewhere(t, 7, "old"), x.second)
		}, func(x *trio) { x.lose(nil) }, "copies of the partition apart"},
		"a misplaced copy": {func(x *trio) {
			b, key := x.disks[x.third].NewBatch(), misplaced(x)
			b.Set(key, vnode.AppendStored(nil, key, vnode.Stored{Record: elsewhere(t, 7, "old")}))
			if err := b.Commit(storage.Applied, nil); err != nil {
				t.Error(err)
			}
		}, func(x *trio) {
			b := x.disks[x.third].NewBatch()
			b.Delete(misplaced(x))
			if err := b.Commit(storage.Applied, nil); err != nil {
				t.Error(err)
			}
		}, "copies of the partition apart"},
		"a transfer runs": {func(x *trio) {
			moving := &x.node(x.third).s.moving
			actortest.Eventually(t, "all actors run", func() bool { return moving.Load() != nil })
			moving.Store(&map[dynamo.Partition]bool{0: true})
		}, func(x *trio) {
			x.node(x.third).s.moving.Store(&map[dynamo.Partition]bool{1: true})
		}, "or moves it"},
		"a primary lacks it": {
			func(x *trio) { x.have(x.first, "k", deleted(t, "v"), "") }, func(x *trio) { x.exchange() }, "not all primaries hold the records",
		},
		"a primary has more": {func(x *trio) {
			x.have(x.first, "k", deleted(t, "v"), "")
			x.have(x.second, "k", version.Merge(deleted(t, "v"), elsewhere(t, 7, "v")), "")
		}, func(x *trio) {
			rec := version.Merge(deleted(t, "v"), elsewhere(t, 7, "v"))
			dead, err := vnode.Open([16]byte{98}, 1, 9, true, 0).Coordinate(vnode.Stored{Record: rec}, vnode.Put{Context: rec.Context(), Now: 3, Tombstone: true})
			if err != nil {
				t.Error(err)
			}
			x.have(x.first, "k", dead.Stored.Record, "")
			x.have(x.second, "k", dead.Stored.Record, "")
		}, "not all primaries hold the records"},
		"the ring moves": {func(x *trio) {
			x.enforce(func(d *member.Document) {
				next := d.Settled.WithVersion(7)
				d.Version, d.Next, d.Movement.Announced = 2, &next, 2
			}, x.first)
		}, later, "the ring moves"},
		"a replica is being filled": {func(x *trio) {
			x.enforce(func(d *member.Document) {
				d.Version, d.Movement.Filling = 2, []member.Fill{{Node: x.second, Whole: true}}
			}, x.first)
		}, later, "is being filled"},
		"a member goes by another document": {
			func(x *trio) { x.enforce(func(d *member.Document) { d.Version = 2 }, x.first, x.second) }, later, "knows version 1 of the cluster document, not 2",
		},
		"a member is in quarantine": {
			func(x *trio) {
				x.node(x.third).s.quarantine.refuse(x.first, &peerRefusal{why: "refused", until: time.Now().Add(time.Hour)})
			},
			func(x *trio) { x.node(x.third).s.quarantine.refuse(x.first, nil) }, "refused",
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			x := startTrio(t, nil)
			c.before(x)
			if !strings.HasPrefix(what, "a primary") {
				both(x)
			}
			x.putOff(c.why)
			for _, node := range x.all() {
				if n := x.node(node).node.Counters().Reaped.Load(); n > 0 {
					t.Errorf("%d records are gone from %s", n, node)
				}
			}
			if x.gone("k") {
				t.Error("it is gone")
			}
			c.lift(x)
			actortest.Eventually(t, "it is gone", func() bool { return x.gone("k") })
			if n := x.exchange(); n > 0 {
				t.Errorf("%d records mended after it", n)
			}
		})
	}
}

// cut loses all that goes to a node, and tells the senders.
func (x *trio) cut(node dynamo.NodeID) {
	x.lose(func(from, to dynamo.NodeID, m actortest.Received) bool {
		if to == node {
			x.undelivered(from, m)
		}
		return to == node
	})
}

// refuseHandoff has a node take nothing that is handed over.
func (x *trio) refuseHandoff(node string) {
	x.lose(func(from, to dynamo.NodeID, m actortest.Received) bool {
		_, ok := m.Message.(*messages.HandoffRequest)
		if ok = ok && string(to) == node; ok {
			x.node(from).peers.Answer(m, busy())
		}
		return ok
	})
}

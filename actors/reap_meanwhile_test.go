package actors

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

// TestReapMeanwhile: what happens in the pause of a reaping has it end without a drop, and
// a later one does it.
func TestReapMeanwhile(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		meanwhile func(*trio)
		stays     bool
	}{
		"nothing": {func(*trio) {}, false},
		"a hint came and was handed over": {func(x *trio) {
			x.have(x.third, "other", elsewhere(t, 7, "v"), x.second)
			actortest.Eventually(t, "it is handed over", func() bool { return x.node(x.third).s.hints.count().Records == 0 })
		}, false},
		"a process was restarted":   {func(x *trio) { x.restart(x.third) }, false},
		"a primary was restarted":   {func(x *trio) { x.restart(x.second) }, false},
		"there is a newer document": {func(x *trio) { x.enforce(func(d *member.Document) { d.Version = 2 }, x.all()...) }, false},
		"a member has a newer document": {func(x *trio) {
			x.enforce(func(d *member.Document) { d.Version = 2 }, x.third)
			time.AfterFunc(testLife, func() { x.enforce(func(d *member.Document) { d.Version = 2 }, x.all()...) })
		}, false},
		"it was written again": {func(x *trio) { x.have(x.second, "k", version.Merge(deleted(t, "v"), elsewhere(t, 7, "new")), "") }, true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			x := startTrio(t, nil)
			watch := &meanwhile{trio: x, do: c.meanwhile, at: x.third, asked: map[string]time.Time{}}
			if what == "a primary was restarted" || c.stays {
				watch.at = x.second
			}
			x.lose(watch.lost)
			x.have(x.first, "k", deleted(t, "v"), "")
			x.have(x.second, "k", deleted(t, "v"), "")
			if c.stays {
				x.putOff("not all primaries hold the records")
				x.exchange()
				for _, node := range []dynamo.NodeID{x.first, x.second} {
					if rec := x.stored(node, "k"); len(rec.Versions) != 2 {
						t.Errorf("%s has %v", node, rec)
					}
				}
			} else {
				actortest.Eventually(t, "it is gone", func() bool { return x.gone("k") })
			}
			watch.mu.Lock()
			defer watch.mu.Unlock()
			if watch.reaping == "" || slices.Contains(watch.drops, watch.reaping) != (what == "nothing") {
				t.Errorf("%q was disturbed, and these dropped: %v", watch.reaping, watch.drops)
			}
		})
	}
}

// meanwhile does something when a node is asked for the second time, before it hears of it.
type meanwhile struct {
	*trio
	at      dynamo.NodeID
	do      func(*trio)
	mu      sync.Mutex
	asked   map[string]time.Time // when reapings asked first
	reaping string               // the one that is disturbed
	drops   []string             // those that have dropped something
}

func (w *meanwhile) lost(from, to dynamo.NodeID, m actortest.Received) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch r := m.Message.(type) {
	case *messages.ReapDropRequest:
		w.drops = append(w.drops, m.Sender.GetId())
	case *messages.ReapRequest:
		id := m.Sender.GetId()
		if r.GetRound() == 1 {
			w.asked[id] = time.Now()
		} else if d := time.Since(w.asked[id]); d < reap.PauseOf(testLife) {
			w.t.Errorf("asked again after %v", d)
		}
		if r.GetRound() != 2 || w.reaping != "" || to != w.at {
			return false
		}
		w.reaping = id
		sender := w.node(from)
		go func() {
			w.do(w.trio)
			w.carry(sender, to, m)
		}()
		return true
	}
	return false
}

// TestReapLosesADrop: a primary that stops between the drops keeps its tombstone. It comes
// back to the other one, and goes in the end.
func TestReapLosesADrop(t *testing.T) {
	t.Parallel()
	x := startTrio(t, nil)
	lost := make(chan struct{})
	var once sync.Once
	x.lose(func(from, _ dynamo.NodeID, m actortest.Received) (is bool) {
		if _, ok := m.Message.(*messages.ReapDropRequest); ok {
			once.Do(func() {
				is = true
				x.undelivered(from, m)
				close(lost)
			})
		}
		return is
	})
	x.have(x.first, "k", deleted(t, "v"), "")
	x.have(x.second, "k", deleted(t, "v"), "")
	<-lost
	x.restart(x.second)
	actortest.Eventually(t, "the first has dropped it", func() bool { return x.stored(x.first, "k").IsZero() })
	if n := x.exchange(); n != 1 {
		t.Errorf("%d records mended", n)
	}
	actortest.Eventually(t, "it is gone", func() bool { return x.gone("k") })
	if n := x.exchange(); n > 0 {
		t.Errorf("%d records mended after it", n)
	}
}

// TestReapRefusesAnotherLife: a node that takes older messages than the others could still
// be sent what a tombstone covers.
func TestReapRefusesAnotherLife(t *testing.T) {
	t.Parallel()
	x := startTrio(t, nil)
	x.node(x.third).stop()
	x.start(x.third, func(_ dynamo.NodeID, c *Config) { c.MessageLife = 2 * testLife })
	x.have(x.first, "k", deleted(t, "v"), "")
	x.have(x.second, "k", deleted(t, "v"), "")
	x.putOff("takes messages that are up to 400ms old, not 200ms")
	if x.gone("k") {
		t.Error("it is gone")
	}
}

// TestReapOff: a node that does not reap takes part in what others reap.
func TestReapOff(t *testing.T) {
	t.Parallel()
	x := startTrio(t, nil)
	x.node(x.second).stop()
	x.start(x.second, func(_ dynamo.NodeID, c *Config) { c.Reap = false })
	if s := x.state(x.second); s.GetOn() {
		t.Errorf("%v", s)
	}
	x.have(x.first, "k", deleted(t, "v"), "")
	x.have(x.second, "k", deleted(t, "v"), "")
	actortest.Eventually(t, "it is gone", func() bool { return x.gone("k") })
}

// TestReapExpired: a value whose time is over is not found, with a context, and is reaped
// when it is over by all clocks; a key that is written again begins anew.
func TestReapExpired(t *testing.T) {
	t.Parallel()
	x := startTrio(t, nil)
	expiring, err := vnode.Open([16]byte{99}, 1, 100, true, 0).Coordinate(vnode.Stored{}, vnode.Put{Value: []byte("v"), Now: dynamo.Timestamp(time.Hour), TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	x.have(x.first, "k", expiring.Stored.Record, "")
	x.have(x.second, "k", expiring.Stored.Record, "")
	one := x.node(x.first)
	if got, _ := one.shown("k"); !slices.Equal(got, []string{"v"}) {
		t.Fatalf("found %v", got)
	}
	end := int64(2 * time.Hour)
	one.clock.Store(end)
	got, reply := one.shown("k")
	if len(got) != 0 || len(reply.GetContext()) == 0 {
		t.Errorf("after its time: %v, context %x", got, reply.GetContext())
	}
	one.clock.Store(end + int64(reap.Skew)) // the second replica still sees it
	x.putOff("not all primaries hold the records")
	if x.stored(x.first, "k").IsZero() || x.stored(x.second, "k").IsZero() {
		t.Fatal("reaped while one clock is behind")
	}
	x.node(x.second).clock.Store(end + int64(reap.Skew))
	actortest.Eventually(t, "it is gone", func() bool { return x.gone("k") })
	if got, reply := one.shown("k"); len(got) != 0 || len(reply.GetContext()) != 0 {
		t.Errorf("after it was reaped: %v, context %x", got, reply.GetContext())
	}
	one.put(putOf("k", "new", reply.GetContext()))
	if n := x.exchange(); n > 1 {
		t.Errorf("%d records mended", n)
	}
	if got, _ := one.shown("k"); !slices.Equal(got, []string{"new"}) {
		t.Errorf("written again: %v", got)
	}
	indexed(t, x.disks[x.first])
}

// TestDeleteWhileAReplicaIsAway: it has the old value, and comes back with it. The deletion
// waits for it; what is written afterwards is all that is left.
func TestDeleteWhileAReplicaIsAway(t *testing.T) {
	t.Parallel()
	x := startTrio(t, nil)
	one := x.node(x.first)
	context := one.put(putOf("k", "old", nil))
	x.exchange()
	x.cut(x.second)
	x.opinions.set(x.second, true)
	gone := putOf("k", "", context)
	gone.Delete, gone.Value = true, nil
	one.put(gone)
	for _, node := range x.all() { // the deletion's time is after that of what it deletes
		x.node(node).clock.Add(int64(time.Second))
	}
	actortest.Eventually(t, "somebody keeps the deletion for it", func() bool {
		return x.node(x.third).s.hints.count().Records+one.s.hints.count().Records > 0
	})
	x.putOff(string(x.second) + " cannot be reached")
	if rec := x.stored(x.second, "k"); len(rec.Versions) != 1 || rec.Versions[0].Tombstone {
		t.Fatalf("the one that is away has %v", rec)
	}
	if x.stored(x.first, "k").IsZero() {
		t.Fatal("reaped without it")
	}
	x.lose(nil)
	x.opinions.set(x.second, false)
	actortest.Eventually(t, "it is gone", func() bool { return x.gone("k") })
	one.put(putOf("k", "new", nil))
	x.exchange()
	for _, node := range []dynamo.NodeID{x.first, x.second} {
		if got, _ := x.node(node).shown("k"); !slices.Equal(got, []string{"new"}) {
			t.Errorf("%s shows %v", node, got)
		}
	}
}

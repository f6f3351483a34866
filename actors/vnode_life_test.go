package actors

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// poison is a record with a dot of rec under another value, on which a vnode
// stops rather than choose.
func poison(rec version.Record) version.Record {
	out := rec
	out.Versions = slices.Clone(rec.Versions)
	out.Versions[0].Value = []byte("another value")
	return out
}

// TestVnodeRestartsFromStorage: a panic loses nothing that was acknowledged, and
// who was in the turn gets an answer.
func TestVnodeRestartsFromStorage(t *testing.T) {
	r := start(t, setup{})
	before := r.written("k", "one", none)
	r.probe.Ask(r.pid(), replicateOf(0, "k", poison(before.Stored.Record), true))
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeInternal {
		t.Errorf("answered %v", f)
	}
	if got := values(t, r.read("k").GetRecord()); !slices.Equal(got, []string{"one"}) {
		t.Errorf("after the restart: %v", got)
	}
	after := r.written("k", "two", before.Stored.Record.Context())
	if !after.NewEpoch || after.Dot.Actor.Incarnation != before.Dot.Actor.Incarnation || after.Dot.Actor.Epoch <= before.Dot.Actor.Epoch {
		t.Errorf("dot %v after %v: the same vnode begins a new epoch", after.Dot, before.Dot)
	}
	stats, ok := r.node.Registry().Find("vnode/0")
	if !ok || stats.Restarts != 1 || stats.LastPanic == nil || !strings.Contains(fmt.Sprint(stats.LastPanic.Reason), "one dot names two values") {
		t.Errorf("the console shows %+v", stats)
	}
}

// TestVnodePanicAnswersTheTurn: everybody whose write was in the turn with the
// poison hears of it, and none of those writes happened.
func TestVnodePanicAnswersTheTurn(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{engine: g})
	before := r.written("k", "one", none)
	g.shut()
	r.write(r.probe, "first", "x", none, true)
	<-g.waiting
	others := actortest.NewProbe(r.system)
	r.write(others, "innocent", "x", none, true)
	others.Ask(r.pid(), replicateOf(0, "k", poison(before.Stored.Record), true))
	r.write(others, "innocent too", "x", none, true)
	g.release()
	for range 3 {
		actortest.Next[*messages.Failure](t, others)
	}
	if n := len(others.All()); n != 3 {
		t.Errorf("%d answers to 3 requests: %v", n, others.All())
	}
	actortest.Next[*durable](t, r.probe)
	for name, want := range map[string]int{"first": 1, "innocent": 0, "innocent too": 0, "k": 1} {
		if got := values(t, r.read(name).GetRecord()); len(got) != want {
			t.Errorf("%s: read %v", name, got)
		}
	}
}

// TestVnodeGivenUp: a vnode that fails again and again stays down, health says
// so, and requests are still answered at once. The node still stops in order.
func TestVnodeGivenUp(t *testing.T) {
	r := start(t, setup{})
	before := r.written("k", "one", none)
	for range vnodeRestarts + 1 {
		r.probe.Ask(r.pid(), replicateOf(0, "k", poison(before.Stored.Record), true))
		actortest.Next[*messages.Failure](t, r.probe)
	}
	actortest.Eventually(t, "the partition is reported", func() bool {
		h := r.node.Health()
		return !h.Ready && strings.Contains(h.Reason, "failed more than 10 times in a minute")
	})
	actortest.Eventually(t, "the vnode is gone", func() bool {
		_, alive := r.system.ProcessRegistry.GetLocal("vnode/0")
		return !alive
	})
	r.probe.Ask(r.coordinator(), &messages.GetRequest{Bucket: bucketB, Key: []byte("k"), Quorum: &messages.Quorum{R: 1}})
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeUnavailable {
		t.Errorf("get: %v", f)
	}
	r.probe.Ask(r.coordinator(), &messages.PutRequest{Bucket: bucketB, Key: []byte("k"), Quorum: &messages.Quorum{W: 1}})
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeUnavailable {
		t.Errorf("put: %v", f)
	}
	r.stop()
}

// TestVnodeEpochsOverRestarts: after a clean stop a key's epoch goes on; after
// anything else no old one does.
func TestVnodeEpochsOverRestarts(t *testing.T) {
	disk := diskOf(t)
	open := func(e storage.Engine) *rig { return start(t, setup{engine: keep{e}}) }
	r := open(disk)
	first := r.written("k", "one", none)
	crashed := copied(t, disk)
	r.stop()

	r = open(disk)
	clean := r.written("k", "two", first.Stored.Record.Context())
	if clean.Dot.Actor != first.Dot.Actor || clean.Dot.Counter != 2 {
		t.Errorf("after a clean stop: %v, want the next of %v", clean.Dot, first.Dot)
	}

	r = open(crashed)
	if after := r.written("k", "other two", first.Stored.Record.Context()); !after.NewEpoch || after.Dot.Actor.Epoch <= first.Dot.Actor.Epoch {
		t.Errorf("after a crash: %v, want an epoch above that of %v", after.Dot, first.Dot)
	}
}

// diskOf makes a store that outlives nodes and ends with the test.
func diskOf(t testing.TB) *memory.Engine {
	e := memory.New()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// keep is an engine that a test opens more than once.
type keep struct{ storage.Engine }

func (keep) Close() error { return nil }

// TestVnodeStops: after the drain writes are refused, reads are served.
func TestVnodeStops(t *testing.T) {
	r := start(t, setup{})
	r.written("k", "one", none)
	drained := make(chan error, 2)
	r.system.Root.Send(r.pid(), &drain{done: func(err error) { drained <- err }})
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	r.write(r.probe, "k", "two", none, true)
	r.probe.Ask(r.pid(), replicateOf(0, "k", elsewhere(t, 9, "two"), true))
	for range 2 {
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeNotReady {
			t.Errorf("a write while stopping: %v", f)
		}
	}
	if got := values(t, r.read("k").GetRecord()); !slices.Equal(got, []string{"one"}) {
		t.Errorf("a read while stopping: %v", got)
	}
	r.engine.FailCommits(storage.ErrFull)
	r.system.Root.Send(r.pid(), &commitFailed{err: errors.New("late")})
	r.system.Root.Send(r.pid(), &drain{done: func(err error) { drained <- err }})
	if err := <-drained; err != nil {
		t.Errorf("a second drain: %v", err)
	}
}

// TestVnodeStopThatFails says so: without the mark it was not clean.
func TestVnodeStopThatFails(t *testing.T) {
	r := start(t, setup{})
	r.engine.FailCommits(storage.ErrFull)
	ctx, cancel := context.WithTimeout(context.Background(), actortest.Patience)
	defer cancel()
	r.stopped = true
	if err := r.node.Stop(ctx); !errors.Is(err, storage.ErrFull) {
		t.Errorf("stop: %v", err)
	}
}

// TestVnodeOpening: before the first lease is durable requests wait; a read is
// answered then, and a stop in between answers those who wait.
func TestVnodeOpening(t *testing.T) {
	t.Parallel()
	asked := func(r *rig) {
		actortest.Eventually(t, "the vnode is there", func() bool {
			_, ok := r.system.ProcessRegistry.GetLocal("vnode/0")
			return ok
		})
		r.write(r.probe, "k", "v", none, true)
		r.probe.Ask(r.pid(), readOf(0, "k", 0))
	}
	t.Run("opens", func(t *testing.T) {
		r := start(t, setup{hold: true})
		asked(r)
		if h := r.node.Health(); h.Ready || h.Partitions != 1 {
			t.Errorf("health %+v", h)
		}
		r.engine.ReleaseSyncs()
		actortest.Next[*durable](t, r.probe)
		actortest.Next[*messages.ReadReply](t, r.probe)
	})
	t.Run("stops", func(t *testing.T) {
		r := start(t, setup{hold: true})
		asked(r)
		drained := make(chan error, 1)
		r.system.Root.Send(r.pid(), &drain{done: func(err error) { drained <- err }})
		if err := <-drained; err != nil {
			t.Error(err)
		}
		// Control messages overtake: what still lay in the mailbox is refused, or
		// read, after the drain.
		actortest.Next[*messages.Failure](t, r.probe)
		actortest.Eventually(t, "two answers", func() bool { return len(r.probe.All()) == 2 })
	})
	t.Run("fails and recovers", func(t *testing.T) {
		r := start(t, setup{hold: true, change: func(c *Config) { c.Engine = &unreadable{Engine: c.Engine, bad: vnode.MetaKey(0)} }})
		actortest.Eventually(t, "the vnode has failed", func() bool { return strings.Contains(r.node.Health().Reason, "bad sector") })
		asked(r)
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeStorage {
			t.Errorf("a write before the vnode knows its state: %v", f)
		}
		r.engine.Heal()
		r.s.Engine.(*unreadable).heal()
		r.ready()
		r.written("k", "v", none)
	})
}

// TestVnodeDamagedState: a vnode whose own state is damaged starts under a new
// incarnation, so that it repeats no dot, and keeps its objects.
func TestVnodeDamagedState(t *testing.T) {
	disk := diskOf(t)
	r := start(t, setup{engine: keep{disk}})
	before := r.written("k", "one", none)
	r.stop()
	damaged := r.damage(vnode.MetaKey(0))
	r = start(t, setup{engine: keep{disk}})
	if got := values(t, r.read("k").GetRecord()); !slices.Equal(got, []string{"one"}) {
		t.Errorf("read %v", got)
	}
	after := r.written("k", "two", before.Stored.Record.Context())
	if after.Dot.Actor.Incarnation == before.Dot.Actor.Incarnation {
		t.Errorf("dot %v after %v", after.Dot, before.Dot)
	}
	if aside, err := r.engine.Get(nil, vnode.CorruptKey(vnode.MetaKey(0))); err != nil || !slices.Equal(aside, damaged) {
		t.Errorf("set aside: %x, %v", aside, err)
	}
}

// TestVnodeLeaseUsedUp: an epoch beyond the lease is refused as overload, leased,
// and then given.
func TestVnodeLeaseUsedUp(t *testing.T) {
	r := start(t, setup{})
	before := r.written("k", "one", none)
	far := clock.Actor{Incarnation: before.Dot.Actor.Incarnation, Epoch: before.Dot.Actor.Epoch + 3*epochLease}
	seen := version.Context{Clock: clock.Of(clock.Entry{Actor: far, Counter: 1})}
	r.write(r.probe, "k", "two", seen, true)
	if m := actortest.Next[*refused](t, r.probe); !errors.Is(m.err, vnode.ErrLease) || refusal(m.err).GetCode() != messages.CodeOverloaded {
		t.Errorf("refused with %v", m.err)
	}
	var after *prepared
	actortest.Eventually(t, "the lease reaches", func() bool {
		probe := actortest.NewProbe(r.system)
		r.write(probe, "k", "two", seen, true)
		actortest.Eventually(t, "an answer", func() bool { return len(probe.All()) > 0 })
		if actortest.Count[*refused](probe) > 0 {
			return false
		}
		after = actortest.Next[*prepared](t, probe)
		return true
	})
	if after.result.Dot.Actor.Epoch <= far.Epoch || after.result.Dot.Counter != 1 {
		t.Errorf("dot %v, want an epoch above %d", after.result.Dot, far.Epoch)
	}
}

// TestStaleLease: a lease of the instance before a restart opens nothing.
func TestStaleLease(t *testing.T) {
	r := start(t, setup{hold: true})
	actortest.Eventually(t, "the vnode is there", func() bool {
		_, ok := r.system.ProcessRegistry.GetLocal("vnode/0")
		return ok
	})
	r.system.Root.Send(r.pid(), &leased{by: &vnodeActor{}, to: math.MaxUint64})
	r.system.Root.Send(r.pid(), &retry{by: &vnodeActor{}})
	r.write(r.probe, "k", "v", none, false)
	drained := make(chan error, 1)
	r.system.Root.Send(r.pid(), &drain{done: func(err error) { drained <- err }})
	<-drained
	actortest.Next[*messages.Failure](t, r.probe)
	if actortest.Count[*prepared](r.probe) != 0 {
		t.Error("a dot was made before the vnode's own lease was durable")
	}
}

// TestVnodesRestart: when the supervisor of the vnodes fails it starts them
// anew, from the document in force.
func TestVnodesRestart(t *testing.T) {
	r := start(t, setup{partitions: 4})
	r.written(inPartition(r, 0), "v", none)
	restarted := func() uint64 {
		s, _ := r.node.Registry().Find(nameVnodes)
		return s.Restarts
	}
	// A document without a ring is one that nobody validated.
	r.system.Root.Send(on("n1", nameVnodes), (*document)(nil))
	actortest.Eventually(t, "the supervisor restarts", func() bool { return restarted() == 1 })
	var got any
	actortest.Eventually(t, "the vnodes serve", func() bool {
		p := actortest.NewProbe(r.system)
		p.Ask(r.pid(), readOf(0, inPartition(r, 0), 0))
		got = actortest.Next[any](t, p)
		_, served := got.(*messages.ReadReply)
		return served && r.node.Health().Ready
	})
	if got := values(t, got.(*messages.ReadReply).GetRecord()); !slices.Equal(got, []string{"v"}) {
		t.Errorf("read %v", got)
	}
}

// inPartition finds a key of a partition.
func inPartition(r *rig, p dynamo.Partition) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("key", i); r.doc.Settled.PartitionOf(keyOf(name)) == p {
			return name
		}
	}
}

// TestReadThatPanics: its sender is answered, and the reader goes on.
func TestReadThatPanics(t *testing.T) {
	r := start(t, setup{change: func(c *Config) { c.Engine = &unreadable{Engine: c.Engine, bad: objectKey("k"), panics: true} }})
	for range 5 { // more than there are readers
		r.probe.Ask(r.pid(), readOf(0, "k", 0))
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeInternal {
			t.Errorf("answered %v", f)
		}
	}
	r.read("another")
}

// TestShedControl: who waits for a vnode or a coordinator that has stopped is
// told, or a stop would wait for ever.
func TestShedControl(t *testing.T) {
	r := start(t, setup{})
	told := make(chan struct{}, 2)
	r.s.shed(nil, &drain{done: func(error) { told <- struct{}{} }})
	r.s.shed(nil, &finishRequests{done: func() { told <- struct{}{} }})
	<-told
	<-told
	r.s.shed(r.probe.PID, &messages.ReadRequest{})
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeOverloaded || f.GetRetryAfterMs() == 0 {
		t.Errorf("shed with %v", f)
	}
	r.s.shed(r.probe.PID, &messages.ReadReply{}) // an answer is never answered
	r.s.expired(r.probe.PID, &coordinate{})
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeExpired {
		t.Errorf("expired with %v", f)
	}
	if len(r.probe.All()) != 2 {
		t.Errorf("answers: %v", r.probe.All())
	}
}

// unreadable fails or panics when one key is read, until it is healed.
type unreadable struct {
	storage.Engine
	bad    []byte
	panics bool
	healed atomic.Bool
}

func (u *unreadable) heal() { u.healed.Store(true) }

func (u *unreadable) Get(dst, key []byte) ([]byte, error) {
	if !slices.Equal(key, u.bad) || u.healed.Load() {
		return u.Engine.Get(dst, key)
	}
	if u.panics {
		panic("bad sector")
	}
	return dst, errors.New("bad sector")
}

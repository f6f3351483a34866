package actors

import (
	"slices"
	"sync/atomic"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/detector"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// detecting is a rig with its own failure detector.
func detecting(t *testing.T, nodes int) *rig {
	return start(t, setup{nodes: nodes, change: func(c *Config) { c.Reachable = nil }})
}

func (r *rig) up(nodes ...string) {
	for _, n := range nodes {
		r.node.PeerUp(dynamo.NodeID(n))
		actortest.Eventually(r.t, n+" is up", func() bool { return r.s.reachable(dynamo.NodeID(n)) })
	}
}

// TestDetectorFollowsLinks: who is linked is worth asking; this node always is.
func TestDetectorFollowsLinks(t *testing.T) {
	r := detecting(t, 3)
	if !r.s.reachable("n1") || r.s.reachable("n2") {
		t.Error("before any link")
	}
	r.up("n2", "n3")
	r.node.PeerDown("n2")
	actortest.Eventually(t, "n2 is down", func() bool { return !r.s.reachable("n2") })
	if !r.s.reachable("n3") {
		t.Error("n3 went with it")
	}
}

// TestSuspectedNodeIsProbed: a node that leaves requests unanswered is not asked
// any more, but probed, until it answers.
func TestSuspectedNodeIsProbed(t *testing.T) {
	t.Parallel()
	r := detecting(t, 3)
	r.replicas("n3")
	probes := make(chan actortest.Received, 100)
	r.peers.Handle("n2", func(m actortest.Received) {
		if _, ok := m.Message.(*messages.ProbeRequest); ok {
			probes <- m
		}
	})
	r.up("n2", "n3")
	for range 3 {
		m := getOf("k")
		m.Quorum, m.TimeoutMs = &messages.Quorum{R: 3}, 150
		if f, ok := r.ask(m).(*messages.Failure); !ok || f.GetCode() != messages.CodeUnavailable {
			t.Fatalf("get: %v", f)
		}
	}
	actortest.Eventually(t, "n2 is suspected", func() bool { return r.s.opinion("n2").opinion == detector.Suspected })
	m := <-probes
	r.peers.Answer(m, &messages.ProbeReply{Number: m.Message.(*messages.ProbeRequest).GetNumber()})
	actortest.Eventually(t, "n2 is up again", func() bool { return r.s.reachable("n2") })
}

// TestReadsDoNotExcuseWrites: a node that answers reads, from memory, but no writes
// is suspected.
func TestReadsDoNotExcuseWrites(t *testing.T) {
	t.Parallel()
	r := detecting(t, 3)
	r.replicas("n3")
	r.peers.Handle("n2", func(m actortest.Received) {
		if _, ok := m.Message.(*messages.ReadRequest); ok {
			r.peers.Answer(m, &messages.ReadReply{Authoritative: true})
		}
	})
	r.up("n2", "n3")
	for range 3 {
		r.put(putOf("k", "v", nil))
	}
	actortest.Eventually(t, "n2 is suspected", func() bool {
		r.shown("k")
		return r.s.opinion("n2").opinion == detector.Suspected
	})
}

// TestSilentCoordinatorIsSuspected: one that writes are passed on to, and that
// does not answer, is noticed too.
func TestSilentCoordinatorIsSuspected(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 5, partitions: 16, change: func(c *Config) { c.Reachable = nil }})
	x := sloppy{rig: r}
	name, _, primaries := x.key(false, 0)
	for _, node := range primaries {
		r.peers.Handle(string(node), func(actortest.Received) {})
		r.up(string(node))
	}
	for range 3 {
		m := putOf(name, "v", nil)
		m.TimeoutMs = 150
		if f, ok := r.ask(m).(*messages.Failure); !ok || f.GetCode() != messages.CodeUnknown {
			t.Fatalf("put: %v", f)
		}
	}
	actortest.Eventually(t, "one is suspected", func() bool {
		return slices.ContainsFunc(primaries, func(n dynamo.NodeID) bool { return r.s.opinion(n).opinion == detector.Suspected })
	})
}

// panicky is an engine that panics when it is to write.
type panicky struct {
	storage.Engine
	on atomic.Bool
}

func (e *panicky) NewBatch() storage.Batch {
	if e.on.CompareAndSwap(true, false) {
		panic("the test's engine")
	}
	return e.Engine.NewBatch()
}

// TestDetectorRestarts: a node whose link broke while the detector fell over is
// not taken for one that is up.
func TestDetectorRestarts(t *testing.T) {
	engine := &panicky{Engine: memory.New()}
	r := start(t, setup{nodes: 2, engine: engine, change: func(c *Config) { c.Reachable = nil }})
	r.up("n2")
	engine.on.Store(true)
	r.probe.Ask(on("n1", nameDetector), &messages.ProbeRequest{Number: 1})
	actortest.Next[*messages.Failure](t, r.probe)
	r.node.PeerDown("n2")
	actortest.Eventually(t, "n2 is down", func() bool { return !r.s.reachable("n2") })
}

// TestProbeShowsTheDisk: a probe is answered once a write is durable, and all that
// came meanwhile by one more write.
func TestProbeShowsTheDisk(t *testing.T) {
	r := detecting(t, 1)
	r.engine.HoldSyncs()
	for i := range 5 {
		r.probe.Ask(on("n1", nameDetector), &messages.ProbeRequest{Number: uint64(i + 1)})
	}
	actortest.Eventually(t, "one write is under way", func() bool { return r.engine.Stats().Pending == 1 })
	if n := actortest.Count[*messages.ProbeReply](r.probe); n != 0 {
		t.Errorf("%d answers before the disk has it", n)
	}
	before := r.engine.Stats().Commits
	r.engine.ReleaseSyncs()
	for i := range 5 {
		if m := actortest.Next[*messages.ProbeReply](t, r.probe); m.GetNumber() != uint64(i+1) {
			t.Errorf("answer %d is to %d", i+1, m.GetNumber())
		}
	}
	if n := r.engine.Stats().Commits - before; n > 1 {
		t.Errorf("%d further writes for four probes", n)
	}
	r.engine.FailSyncs(errTest)
	r.probe.Ask(on("n1", nameDetector), &messages.ProbeRequest{Number: 9})
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeStorage {
		t.Errorf("a broken disk: %v", f)
	}
}

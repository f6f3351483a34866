package actors

import (
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/detector"
	"github.com/dynactor/dynactor/messages"
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
		m.Quorum, m.TimeoutMs = &messages.Quorum{R: 3}, 20
		if f, ok := r.ask(m).(*messages.Failure); !ok || f.GetCode() != messages.CodeUnavailable {
			t.Fatalf("get: %v", f)
		}
	}
	actortest.Eventually(t, "n2 is suspected", func() bool { return r.s.opinion("n2").opinion == detector.Suspected })
	m := <-probes
	r.peers.Answer(m, &messages.ProbeReply{Number: m.Message.(*messages.ProbeRequest).GetNumber()})
	actortest.Eventually(t, "n2 is up again", func() bool { return r.s.reachable("n2") })
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

package actors

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// outside finds a key that n1 is no replica of, and its primaries.
func (r *rig) outside() (name string, primaries []dynamo.NodeID) {
	for p := range dynamo.Partition(r.doc.Settled.Partitions()) {
		if list := r.doc.Settled.Primaries(p, 3); !slices.Contains(list, "n1") {
			return inPartition(r, p), list
		}
	}
	r.t.Fatal("n1 is a replica of everything")
	return "", nil
}

// TestForward: a node outside the preference list passes a write on, to the next
// primary when the first cannot, once only, and under the client's request id.
func TestForward(t *testing.T) {
	for _, first := range []string{"serves", "is down", "is overloaded"} {
		t.Run("first primary "+first, func(t *testing.T) {
			r := start(t, setup{nodes: 6, partitions: 64})
			name, primaries := r.outside()
			reached := make(chan *messages.PutRequest, 10)
			serve := puts(func(m actortest.Received) {
				reached <- m.Message.(*messages.PutRequest)
				r.peers.Answer(m, &messages.PutReply{Context: []byte("context"), Replicas: 2})
			})
			switch first {
			case "serves":
				r.peers.Handle(string(primaries[0]), serve)
			case "is overloaded":
				r.peers.Handle(string(primaries[0]), func(m actortest.Received) {
					r.peers.Answer(m, messages.Fail(messages.CodeOverloaded, "busy"))
				})
			}
			r.peers.Handle(string(primaries[1]), serve)
			m := putOf(name, "v", nil)
			m.RequestId, m.Retry, m.AgeMs = []byte("0123456789abcdef"), true, 7
			if c := r.put(m); string(c) != "context" {
				t.Errorf("context %q", c)
			}
			got := <-reached
			if got.GetHops() != 1 || string(got.GetRequestId()) != "0123456789abcdef" || !got.GetRetry() || got.GetAgeMs() != 7 || got.GetTimeoutMs() == 0 {
				t.Errorf("passed on: %v", got)
			}
			r.quiet()
			if len(reached) != 0 {
				t.Error("passed on twice")
			}
		})
	}
}

func TestForwardFails(t *testing.T) {
	r := start(t, setup{nodes: 6, partitions: 64})
	name, primaries := r.outside()
	if answer := r.ask(putOf(name, "v", nil)); code(answer) != messages.CodeUnavailable ||
		!strings.Contains(answer.(*messages.Failure).GetText(), string(primaries[2])+": unreachable") {
		t.Errorf("all primaries down: %v", answer)
	}
	again := putOf(name, "v", nil)
	again.Hops, again.Plan = 1, r.doc.Version
	if answer := r.ask(again); code(answer) != messages.CodeUnavailable {
		t.Errorf("passed on a second time: %v", answer)
	}
	r.peers.Handle(string(primaries[0]), func(actortest.Received) {})
	silent := putOf(name, "v", nil)
	silent.TimeoutMs = 30
	if answer := r.ask(silent); code(answer) != messages.CodeUnknown {
		t.Errorf("the first primary is silent: %v", answer)
	}
	r.peers.Handle(string(primaries[0]), func(m actortest.Received) {
		r.peers.Answer(m, messages.Fail(messages.CodeSiblings, "crowded"))
	})
	if answer := r.ask(putOf(name, "v", nil)); code(answer) != messages.CodeSiblings {
		t.Errorf("a refusal is passed back: %v", answer)
	}
	// A read is coordinated by any node.
	for _, p := range primaries {
		r.replicas(string(p))
	}
	r.shown(name)
}

// puts hands on only writes that are passed on: gossip comes, too, when its time is.
func puts(to func(actortest.Received)) func(actortest.Received) {
	return func(m actortest.Received) {
		if _, ok := m.Message.(*messages.PutRequest); ok {
			to(m)
		}
	}
}

// TestForwardHearsWhoWasAsked: what comes from a node that was asked before, or
// never, neither ends the request nor passes it on once more.
func TestForwardHearsWhoWasAsked(t *testing.T) {
	r := start(t, setup{nodes: 6, partitions: 64})
	name, primaries := r.outside()
	busy := messages.Fail(messages.CodeOverloaded, "busy")
	asked := make(chan actortest.Received, 10)
	for _, n := range primaries {
		r.peers.Handle(string(n), puts(func(m actortest.Received) { asked <- m }))
	}
	r.probe.Ask(r.coordinator(), putOf(name, "v", nil))
	first := <-asked
	r.peers.Answer(first, busy)
	second := <-asked
	stranger := actortest.Received{Target: on("n9", nameCoordinator), Sender: second.Sender}
	for _, late := range []actortest.Received{first, stranger} {
		r.peers.Answer(late, busy)
		r.peers.Answer(late, messages.Fail(messages.CodeUnknown, "late"))
		r.peers.Answer(late, &messages.PutReply{Context: []byte("late")})
		r.system.Root.Send(on("n1", second.Sender.GetId()), &link.Undelivered{Target: late.Target, Reason: link.Broken})
	}
	r.peers.Answer(second, &messages.PutReply{Context: []byte("context"), Replicas: 2})
	if m := actortest.Next[*messages.PutReply](t, r.probe); string(m.GetContext()) != "context" {
		t.Errorf("answered %v", m)
	}
	r.quiet()
	if len(asked) != 0 || len(r.probe.All()) != 1 {
		t.Errorf("passed on %d times more, answers %v", len(asked), r.probe.All())
	}
}

func TestPeerDownWhileForwarding(t *testing.T) {
	r := start(t, setup{nodes: 6, partitions: 64})
	name, primaries := r.outside()
	asked := make(chan struct{}, 1)
	r.peers.Handle(string(primaries[0]), puts(func(actortest.Received) { asked <- struct{}{} }))
	r.probe.Ask(r.coordinator(), putOf(name, "v", nil))
	<-asked
	r.node.PeerDown(primaries[1]) // was not asked
	r.node.PeerDown(primaries[0])
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeUnknown {
		t.Errorf("answered %v", f)
	}
}

// movingAway starts n1 with a document by which n2 hands a partition of which n1 is no
// replica to another node, and returns the document when that is done, who has the
// partition then only, and a key in it.
func movingAway(t *testing.T) (r *rig, done member.Document, was []dynamo.NodeID, comes, name string) {
	t.Helper()
	m := move{t: t}
	r = start(t, setup{nodes: 6, partitions: 64, document: func(doc member.Document) member.Document {
		doc = announce(t, doc)
		for p := range dynamo.Partition(64) {
			before, after := doc.Settled.Primaries(p, 3), doc.Next.Primaries(p, 3)
			if slices.Contains(before, "n2") && !slices.Contains(before, "n1") && !slices.Contains(after, "n1") {
				m.partition, was = p, before
				comes = string(after[slices.IndexFunc(after, func(n dynamo.NodeID) bool { return !slices.Contains(before, n) })])
			}
		}
		if comes == "" {
			t.Fatal("no partition moves as the test needs it")
		}
		return doc
	}})
	return r, m.to(r.doc, member.PhaseDone), was, comes, inPartition(r, m.partition)
}

// TestForwardIsPlannedAnew: a write that nobody takes by a plan that has become old goes
// on with the next one, whether those that refuse it say so or this node knows by then.
func TestForwardIsPlannedAnew(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprint("known here ", known), func(t *testing.T) {
			r, done, was, comes, name := movingAway(t)
			refused, taken := make(chan *messages.PutRequest, 10), make(chan *messages.PutRequest, 10)
			for _, n := range was {
				r.peers.Handle(string(n), puts(func(m actortest.Received) {
					refused <- m.Message.(*messages.PutRequest)
					if !known {
						r.peers.Answer(m, staleAt(done.Version))
						return
					}
					if r.s.Document().Version < done.Version {
						r.enforce(done)
					}
					r.peers.Answer(m, busy())
				}))
			}
			r.peers.Handle(comes, puts(func(m actortest.Received) {
				taken <- m.Message.(*messages.PutRequest)
				r.peers.Answer(m, &messages.PutReply{Context: []byte("context"), Replicas: 2})
			}))
			m := putOf(name, "v", nil)
			m.RequestId = []byte("0123456789abcdef")
			r.probe.Ask(r.coordinator(), m)
			for range was {
				if got := <-refused; got.GetPlan() != r.doc.Version {
					t.Errorf("passed on with plan %d, want %d", got.GetPlan(), r.doc.Version)
				}
			}
			if !known {
				actortest.Eventually(t, "the write waits", func() bool { return len(r.processes(messages.TargetForward)) == 1 })
				r.enforce(done)
			}
			if reply := actortest.Next[*messages.PutReply](t, r.probe); string(reply.GetContext()) != "context" {
				t.Errorf("answered %v", reply)
			}
			if got := <-taken; got.GetPlan() != done.Version || got.GetHops() != 1 || string(got.GetRequestId()) != "0123456789abcdef" {
				t.Errorf("passed on anew: %v", got)
			}
			r.quiet()
			if len(taken) != 0 || len(r.probe.All()) != 1 {
				t.Errorf("passed on %d times more, answers %v", len(taken), r.probe.All())
			}
		})
	}
}

// TestForwardIsNotPlannedAnewForEver: who hears of a version that does not come into
// force here is told that the ring is another one, and that nothing was written.
func TestForwardIsNotPlannedAnewForEver(t *testing.T) {
	r, done, was, _, name := movingAway(t)
	for _, n := range was {
		r.peers.Handle(string(n), puts(func(m actortest.Received) { r.peers.Answer(m, staleAt(done.Version)) }))
	}
	m := putOf(name, "v", nil)
	m.TimeoutMs = 500 // all refuse it within that also on a busy machine
	if answer := r.ask(m); code(answer) != messages.CodeStale {
		t.Errorf("answered %v", answer)
	}
}

// TestPassedOn: of a write that was passed on by another plan this node says that the
// plan is old, or waits for the one that it does not know yet.
func TestPassedOn(t *testing.T) {
	var m move
	apart := func(c *Config) { c.Reachable = func(node dynamo.NodeID) bool { return node != "n5" } } // it is not gossiped with
	r := start(t, setup{nodes: 6, partitions: 64, change: apart, document: func(doc member.Document) member.Document {
		doc = announce(t, doc)
		for p := range dynamo.Partition(64) {
			if !doc.Settled.IsPrimary(p, 3, "n1") && doc.Next.IsPrimary(p, 3, "n1") {
				m = move{t: t, partition: p, comes: "n1"}
			}
		}
		return doc
	}})
	if m.comes == "" {
		t.Fatal("n1 gets nothing new")
	}
	x := r.replicas("n2", "n3", "n4", "n5", "n6")
	joint, name := m.to(r.doc, member.PhaseJoint), inPartition(r, m.partition)
	answers, gossip := make(chan any, 10), make(chan *messages.GossipRequest, 100)
	r.peers.Handle("n5", func(m actortest.Received) {
		switch got := m.Message.(type) {
		case *messages.PutReply, *messages.Failure:
			answers <- got
		case *messages.GossipRequest:
			gossip <- got
		default:
			x["n5"].receive(m)
		}
	})
	passOn := func(plan uint64) {
		put := putOf(name, "v", nil)
		put.Hops, put.Plan, put.TimeoutMs = 1, plan, 5000
		r.system.Root.RequestWithCustomSender(r.coordinator(), put, on("n5", messages.TargetForward+"1"))
	}
	passOn(r.doc.Version)
	if got := <-answers; code(got) != messages.CodeUnavailable {
		t.Errorf("with the same plan: %v", got)
	}
	passOn(r.doc.Version - 1)
	if got := <-answers; code(got) != messages.CodeStale || got.(*messages.Failure).GetDocumentVersion() != r.doc.Version {
		t.Errorf("with an old plan: %v", got)
	}
	passOn(joint.Version)
	actortest.Eventually(t, "n5 is asked for the document", func() bool { return len(gossip) > 0 })
	if len(r.processes(messages.TargetForward)) != 1 || len(answers) != 0 {
		t.Errorf("it does not wait: %d answers", len(answers))
	}
	r.enforce(joint)
	if got, ok := (<-answers).(*messages.PutReply); !ok {
		t.Errorf("with the plan of a newer document: %v", got)
	}
	r.quiet()
	if n := r.node.Counters().Forwards.Load(); n != 0 || len(answers) != 0 {
		t.Errorf("%d forwards, %d answers more", n, len(answers))
	}
}

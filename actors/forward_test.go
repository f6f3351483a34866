package actors

import (
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/dynamo"
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
	again.Hops = 1
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

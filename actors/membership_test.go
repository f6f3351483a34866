package actors

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

var errTest = errors.New("bad sector")

// TestRing: a client learns the document when it is newer than its own.
func TestRing(t *testing.T) {
	r := start(t, setup{nodes: 3, change: func(c *Config) {
		c.Founding.Addresses = func() []*messages.Address { return []*messages.Address{{Node: "n2", Address: "h:1"}} }
	}})
	membership := on("n1", nameMembership)
	for asked, want := range map[uint64]bool{0: true, 1: false, 2: false} {
		r.probe.Ask(membership, &messages.RingRequest{Version: asked})
		m := actortest.Next[*messages.RingReply](t, r.probe)
		if (m.GetDocument() != nil) != want || len(m.GetAddresses()) != 1 {
			t.Errorf("to a client with version %d: %v", asked, m)
		}
		if want {
			if doc, err := messages.ToDocument(m.GetDocument()); err != nil || !doc.Equal(r.doc) {
				t.Errorf("document %v, %v", doc, err)
			}
		}
	}
	r.probe.Ask(membership, &messages.IdentityRequest{})
	if m := actortest.Next[*messages.IdentityReply](t, r.probe); m.GetNode() != "n1" || m.GetDocument() == nil {
		t.Errorf("identity %v", m)
	}
}

// TestFoundAlone: a node that founds alone stores its intent, is elected, stores
// the document, and serves; before that it says that it does not.
func TestFoundAlone(t *testing.T) {
	t.Parallel()
	intents, documents := make(chan func(error), 8), make(chan func(error), 8)
	var elections atomic.Int32
	elect := func(_ founding.ClusterID, done func(bool, dynamo.NodeID, error)) {
		if elections.Add(1) == 1 {
			done(false, "", errTest)
			return
		}
		done(true, "n1", nil)
	}
	o := setup{hold: true, change: func(c *Config) {
		self := founding.Candidate{ID: "n1", Store: [16]byte{1}, Start: 1, Capacity: 1, Founding: true, Partitions: 2}
		c.Founding = Founding{
			Config:      founding.Config{Self: self, Expect: 1, Elect: true, Intent: founding.ClusterID{5}},
			ClusterName: "test", Addresses: func() []*messages.Address { return nil }, Peers: func() []dynamo.NodeID { return nil },
			Listed:        func() ([]string, string) { return nil, "" },
			Elect:         elect,
			StoreIntent:   func(_ founding.ClusterID, done func(error)) { intents <- done },
			StoreDocument: func(_ member.Document, done func(error)) { documents <- done },
			Load:          func() (member.Voter, bool, error) { return member.Voter{}, false, nil },
		}
	}}
	r := start(t, o)
	r.engine.ReleaseSyncs()
	refused := func(when string) {
		t.Helper()
		for _, m := range []any{getOf("k"), putOf("k", "v", nil)} {
			if answer := r.ask(m); code(answer) != messages.CodeNotReady {
				t.Errorf("%s: %v", when, answer)
			}
		}
		if h := r.node.Health(); h.Ready || !strings.Contains(h.Reason, "not in a cluster yet") {
			t.Errorf("%s: %+v", when, h)
		}
	}
	intent := <-intents
	refused("before the intent")
	intent(errTest) // the disk refuses: the actor starts over
	(<-intents)(nil)
	document := <-documents
	refused("before the document")
	document(nil)
	r.ready()
	if elections.Load() < 2 {
		t.Error("the election that failed was not repeated")
	}
	if doc := r.s.Document(); doc.ClusterID != (member.ClusterID{5}) || doc.Settled.Partitions() != 2 {
		t.Errorf("founded %v", doc)
	}
	r.doc = *r.s.Document()
	if got, _ := r.oneNode(); got != "v" {
		t.Errorf("read %q", got)
	}
}

// oneNode writes and reads with R = W = 1.
func (r *rig) oneNode() (string, error) {
	r.t.Helper()
	put, get := putOf("k", "v", nil), localGet("k")
	put.Quorum = &messages.Quorum{W: 1}
	r.put(put)
	m, ok := r.ask(get).(*messages.GetReply)
	if !ok || len(m.GetValues()) != 1 {
		return "", errTest
	}
	return string(m.GetValues()[0].GetValue()), nil
}

// TestNodeWithoutPartitions serves all the same: it passes requests on.
func TestNodeWithoutPartitions(t *testing.T) {
	r := start(t, setup{nodes: 12, partitions: 1, capacity: 100, hold: true})
	r.engine.ReleaseSyncs()
	if n := len(r.doc.Settled.PartitionsOf("n1", r.doc.Settled.Depth())); n != 0 {
		t.Fatalf("the claim gave n1 %d partitions", n)
	}
	r.ready()
	if h := r.node.Health(); !h.Ready || h.Partitions != 0 {
		t.Errorf("health %+v", h)
	}
}

// TestWaitReadySaysWhy: the reason is in the error when the time is over.
func TestWaitReadySaysWhy(t *testing.T) {
	r := start(t, setup{hold: true})
	actortest.Eventually(t, "the vnode opens", func() bool { return r.node.Health().Reason != "not in a cluster yet" })
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := r.node.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "0 of 1 partitions serve") {
		t.Errorf("not ready: %v", err)
	}
}

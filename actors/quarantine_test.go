package actors

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// TestPlaceOfALostDisk: who asks for a place gets that of the member of its name only
// when nothing is heard of that member.
func TestPlaceOfALostDisk(t *testing.T) {
	removed := func(d member.Document) member.Document {
		d, err := d.Stage(member.Change{Kind: member.Remove, Node: "n3"})
		if err == nil {
			d, err = d.Commit(d.Version)
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, tc := range map[string]struct {
		node      dynamo.NodeID
		store     byte
		document  func(member.Document) member.Document
		reachable bool
		renewed   time.Duration // ago; 0: never
		err       error
		changes   bool
		staged    int
	}{
		"lost disk":            {node: "n3", store: 9, changes: true},
		"it was heard once":    {node: "n3", store: 9, renewed: time.Hour, changes: true},
		"asked again":          {node: "n3", store: 3},
		"the member runs":      {node: "n3", store: 9, reachable: true, err: errTwin},
		"it was heard lately":  {node: "n3", store: 9, renewed: time.Millisecond, err: errTwin},
		"it was removed":       {node: "n3", store: 9, document: removed, err: member.ErrRemovedStore},
		"a store of another":   {node: "n3", store: 2, err: member.ErrAlreadyMember},
		"a new node":           {node: "n9", store: 9, changes: true, staged: 1},
		"a new node, reached":  {node: "n9", store: 9, reachable: true, changes: true, staged: 1},
		"a copy under its own": {node: "n9", store: 2, err: member.ErrAlreadyMember},
	} {
		t.Run(name, func(t *testing.T) {
			m := &membershipActor{s: &Services{Config: Config{Self: "n1", Reachable: func(dynamo.NodeID) bool { return tc.reachable }}}}
			m.renewed = map[dynamo.NodeID]time.Time{}
			if tc.renewed > 0 {
				m.renewed["n3"] = time.Now().Add(-tc.renewed)
			}
			d := documentOf(t, setup{nodes: 4, partitions: 8})
			if tc.document != nil {
				d = tc.document(d)
			}
			had, _ := d.Member(tc.node)
			out, err := m.place(d, member.Change{Kind: member.Join, Node: tc.node, Member: member.Member{
				ID: tc.node, Store: member.StoreID{tc.store}, Start: 1, Capacity: 1, Address: "h:1",
			}}, had.Store)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if changes := out.Version != d.Version; changes != tc.changes || len(out.Staged) != tc.staged {
				t.Errorf("changed: %v, staged: %v", changes, out.Staged)
			}
			if x, _ := out.Member(tc.node); tc.changes && tc.staged == 0 && (x.Store != member.StoreID{tc.store} || x.Status != member.Up || len(out.Movement.Filling) == 0) {
				t.Errorf("member %+v, filling %v", x, out.Movement.Filling)
			}
		})
	}
}

// TestDisplaced: a node that learns that another store has its place, or that it is no
// member any more, refuses everything and says why; it does not vote and asks nobody.
func TestDisplaced(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(member.Document) (member.Document, error)
		why    string
	}{
		"taken over": {func(d member.Document) (member.Document, error) {
			return d.TakeOver("n1", d.Members[0].Store, member.StoreID{9}, 1, "h:1")
		}, "another data directory has taken the place of this one"},
		"gone": {func(d member.Document) (member.Document, error) {
			d, err := d.Stage(member.Change{Kind: member.Remove, Node: "n1"})
			if err == nil {
				d, err = d.Commit(d.Version)
			}
			facts := map[dynamo.NodeID]member.Facts{}
			for range 20 {
				for i, x := range d.Members[1:] {
					target, filled := d.Target(), []dynamo.Partition(nil)
					for _, f := range d.FillsOf(x.ID) {
						filled = append(filled, f.Partition)
					}
					facts[x.ID] = member.Facts{Store: member.StoreID{byte(i + 2)}, Known: d.Version, Target: target, Filled: filled, Idle: true}
				}
				d, _ = d.Advance(facts)
			}
			return d, err
		}, "n1 is no member of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{nodes: 4})
			others := r.electors()
			next, err := tc.change(r.doc)
			if err != nil {
				t.Fatal(err)
			}
			r.system.Root.Send(on("n1", nameMembership), &messages.DocumentNews{Document: messages.FromDocument(next)})
			actortest.Eventually(t, "health says why", func() bool { return strings.Contains(r.node.Health().Reason, tc.why) })
			if r.node.Health().Ready {
				t.Error("it is ready")
			}
			ask := func(target string, m any) any {
				p := actortest.NewProbe(r.system)
				p.Ask(on("n1", target), m)
				return actortest.Next[any](t, p)
			}
			for what, answer := range map[string]any{
				"get":      r.ask(localGet("k")),
				"put":      r.ask(putOf("k", "v", nil)),
				"operator": ask(nameMembership, creating("b")),
				"replica":  ask(vnodeName(0), readOf(0, "k", 0)),
				"handoff":  ask(vnodeName(0), &messages.HandoffRequest{N: 3, Batch: 1}),
				"source":   ask(vnodeName(0), fillOf(0, next)),
			} {
				if f, ok := answer.(*messages.Failure); !ok || f.GetCode() != messages.CodeNotReady || !strings.Contains(f.GetText(), tc.why) {
					t.Errorf("%s: %v", what, answer)
				}
			}
			prepare := messages.FromPrepare(member.Prepare{Cluster: next.ClusterID, Version: next.Version + 1, Ballot: member.Ballot{Round: 1, Node: "n2", Start: 1}})
			reply, err := messages.ToReply(ask(nameMembership, prepare).(*messages.RegisterReply))
			if _, ok := reply.(member.Ineligible); !ok || err != nil {
				t.Errorf("its vote: %v, %v", reply, err)
			}
			for _, x := range others {
				x.set(func() { x.seen = nil })
			}
			actortest.Eventually(t, "two rounds of gossip over", after(2*gossipRound))
			for id, x := range others {
				x.set(func() {
					if len(x.seen) > 0 {
						t.Errorf("%s heard gossip %d times", id, len(x.seen))
					}
				})
			}
		})
	}
}

// after is a condition that holds when the time has passed.
func after(d time.Duration) func() bool {
	until := time.Now().Add(d)
	return func() bool { return time.Now().After(until) }
}

// TestRefusedByAPeer: while a peer refuses this process it does not serve; it does again
// once that peer takes it, but not because another one does.
func TestRefusedByAPeer(t *testing.T) {
	r := start(t, setup{nodes: 2})
	r.node.Refused("n2", "another process with the id n1 is connected")
	if h := r.node.Health(); h.Ready || !strings.Contains(h.Reason, "refused by n2: another process") {
		t.Errorf("health %+v", h)
	}
	if answer := r.ask(localGet("k")); code(answer) != messages.CodeNotReady {
		t.Errorf("a read: %v", answer)
	}
	r.node.Welcomed("n3")
	if r.node.Health().Ready {
		t.Error("another peer's welcome counts")
	}
	r.node.Welcomed("n2")
	if h := r.node.Health(); !h.Ready {
		t.Errorf("after the welcome: %+v", h)
	}
	// One that has changed its mind, or forgot, does not speak for the others.
	r.node.Refused("n2", "rolled back")
	r.node.Refused("n3", "rolled back")
	r.node.Welcomed("n3")
	if h := r.node.Health(); h.Ready || !strings.Contains(h.Reason, "refused by n2") {
		t.Errorf("n2 refuses it: %+v", h)
	}
	r.node.Welcomed("n2")
	r.s.quarantine.refuse("n2", &peerRefusal{why: "refused", until: time.Now().Add(-time.Second)})
	if h := r.node.Health(); !h.Ready {
		t.Errorf("a refusal of long ago counts: %+v", h)
	}
}

// TestChangesOfAQuarantinedNode: what waits while the node is put into quarantine is not begun there;
// the answer is one after which the client asks another node.
func TestChangesOfAQuarantinedNode(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 3})
	x := r.electors()
	mute(x, true)
	probe := actortest.NewProbe(r.system)
	begun, waits := creating("begun"), creating("waits")
	begun.TimeoutMs, waits.TimeoutMs = 60_000, 60_000
	probe.Ask(on("n1", nameMembership), begun)
	probe.Ask(on("n1", nameMembership), waits)
	if _, f := r.operate(&messages.ClusterRequest{Operation: messages.OperationStatus, TimeoutMs: 2000}); f != nil { // comes after both
		t.Fatal(f)
	}
	r.node.Refused("n2", "rolled back")
	mute(x, false)
	if f := actortest.Next[*messages.Failure](t, probe); f.GetCode() != messages.CodeNotReady || !strings.Contains(f.GetText(), "rolled back") {
		t.Errorf("the second: %v", f)
	}
	actortest.Eventually(t, "the first is answered", func() bool { return actortest.Count[*messages.ClusterReply](probe) == 1 })
	if _, ok := r.s.Document().Bucket("waits"); ok {
		t.Error("it was begun")
	}
}

// TestGossipWithOneThatDoesNotLearn: a member that cannot use this node's document
// gets it once a round, and not again for each answer.
func TestGossipWithOneThatDoesNotLearn(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 2})
	x := r.electors()["n2"]
	next, err := r.doc.CreateBucket(member.Bucket{Name: "new", Properties: bucket.Default()}, false)
	if err != nil {
		t.Fatal(err)
	}
	r.system.Root.Send(on("n1", nameMembership), &messages.DocumentNews{Document: messages.FromDocument(next)})
	pushed := func() (n int) {
		x.set(func() {
			for _, m := range x.seen {
				if m.GetDocument() != nil {
					n++
				}
			}
		})
		return n
	}
	actortest.Eventually(t, "the document sent", func() bool { return pushed() > 0 })
	actortest.Eventually(t, "another round over", after(gossipRound))
	if n := pushed(); n > 3 {
		t.Errorf("the document was sent %d times in two rounds", n)
	}
}

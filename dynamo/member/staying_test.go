package member

import (
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

// TestProposalLeavesMajority: a version with fewer members is not begun unless a
// majority of those that stay takes part, or nobody could decide on the one after it.
func TestProposalLeavesMajority(t *testing.T) {
	f := founding()
	f.Members = f.Members[1:] // a and b
	d := found(t, f)
	d.Members = append(d.Members[:2:2], Member{ID: "c", Capacity: 1, Status: Joining, Store: StoreID{9}, Start: 1})
	want, other := successor(d, "want"), successor(d, "other")
	want.Members[2].Status = Gone
	restored := successor(want, "want")
	restored.Version, restored.Members[1].Store = want.Version, StoreID{7}
	first := Ballot{8, "a", 3}
	yes := func(n dynamo.NodeID) ProposalEvent { return Replied{n, Promised{Ballot: first}} }
	ok := func(n dynamo.NodeID) ProposalEvent { return Replied{n, Accepted{first}} }
	lost := func(n dynamo.NodeID) ProposalEvent { return Replied{n, Ineligible{}} }
	began := func(n dynamo.NodeID) ProposalEvent {
		return Replied{n, Promised{first, &Vote{Ballot{3, "c", 1}, other}}}
	}
	const accepts, takeOver = "accept a 8 want, accept b 8 want, accept c 8 want", "accept a 8 other, accept b 8 other, accept c 8 other"
	type step struct {
		event ProposalEvent
		want  string
	}
	for name, x := range map[string]struct {
		want  Document
		steps []step
	}{
		"all that stay take part":            {want, []step{{yes("a"), ""}, {yes("c"), ""}, {yes("b"), accepts}, {ok("a"), ""}, {ok("c"), "chosen want, done <nil>"}}},
		"one has lost its votes":             {want, []step{{yes("a"), ""}, {yes("c"), ""}, {lost("b"), "pause 1"}, {Over{}, "done no majority of the members can be reached: 2 of 3 members took part, 2 are needed; without b; 2 of the 2 that stay are needed, or the cluster could never be changed again"}}},
		"one cannot be reached":              {want, []step{{Unreachable{"b"}, "pause 1"}}},
		"what another began is finished":     {want, []step{{yes("a"), ""}, {began("c"), takeOver}, {lost("b"), ""}, {ok("a"), ""}, {ok("c"), "chosen other, done another change of the cluster was made first: version 2"}}},
		"one falls silent once it took part": {want, []step{{yes("a"), ""}, {yes("b"), accepts}, {Unreachable{"b"}, ""}, {ok("a"), ""}, {ok("c"), "chosen want, done <nil>"}}},
		"one gets its place anew with it":    {restored, []step{{lost("b"), ""}, {yes("a"), ""}, {yes("c"), accepts}}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Propose("a", 3, 7, d, x.want)
			if err != nil {
				t.Fatal(err)
			}
			p.Start()
			for i, s := range x.steps {
				if got := showEffects(p.Step(s.event)); got != s.want {
					t.Fatalf("step %d, %+v: %q, want %q", i, s.event, got, s.want)
				}
			}
		})
	}
}

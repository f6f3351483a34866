package member

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

// successor is the next version with a change that tells it from others.
func successor(d Document, mark string) Document {
	next := d
	next.Version++
	next.Members = slices.Clone(d.Members)
	next.Members[0].Address = mark
	return next
}

func voter(d Document, i int) *Voter {
	return &Voter{Self: d.Members[i].ID, Store: d.Members[i].Store, Document: d}
}

func TestVoter(t *testing.T) {
	d := found(t, founding())
	v := voter(d, 0)
	one, two := Ballot{1, "a", 1}, Ballot{2, "b", 1}
	prepare := func(version uint64, b Ballot) Prepare {
		return Prepare{Cluster: d.ClusterID, Version: version, Ballot: b}
	}
	mine, other := successor(d, "mine:1"), successor(d, "other:1")
	foreign := mine
	foreign.ClusterID = ClusterID{9}
	broken := mine
	broken.Depth = 0
	far := successor(mine, "far:1")
	for i, c := range []struct {
		message any
		want    string
		changed bool
		err     error
	}{
		{prepare(2, two), "promised, nothing accepted", true, nil},
		{prepare(2, two), "promised, nothing accepted", false, nil}, // again
		{prepare(2, one), "refused for 2/b/1", false, nil},
		{Accept{one, mine}, "refused for 2/b/1", false, nil},
		{Accept{two, other}, "accepted", true, nil},
		{prepare(2, Ballot{3, "a", 1}), "promised, accepted other:1 in 2/b/1", true, nil},
		{Accept{two, mine}, "refused for 3/a/1", false, nil},
		{Accept{Ballot{3, "a", 2}, mine}, "accepted", true, nil}, // a later life of a
		{prepare(1, two), "newer 1", false, nil},
		{prepare(3, two), "behind 1", false, nil},
		{Accept{two, far}, "behind 1", false, nil},
		{Accept{two, foreign}, "", false, ErrForeign},
		{Accept{Ballot{9, "a", 1}, broken}, "", false, ErrDepth},
		{Prepare{Cluster: ClusterID{9}, Version: 2, Ballot: two}, "", false, ErrForeign},
		{prepare(2, Ballot{0, "a", 1}), "", false, ErrBallot},
		{prepare(2, Ballot{1 << 63, "a", 1}), "", false, ErrBallot},
		{prepare(2, Ballot{1, "a b", 1}), "", false, dynamo.ErrNodeName},
	} {
		var r Reply
		var changed bool
		var err error
		switch m := c.message.(type) {
		case Prepare:
			r, changed, err = v.Prepare(m)
		case Accept:
			r, changed, err = v.Accept(m)
		}
		if got := showReply(r); got != c.want || changed != c.changed || !errors.Is(err, c.err) {
			t.Errorf("%d, %+v: %q, changed %v, %v; want %q, %v, %v", i, c.message, got, changed, err, c.want, c.changed, c.err)
		}
	}
	lost := voter(d, 0)
	lost.Store = StoreID{77}
	if r, _, _ := lost.Prepare(prepare(2, one)); r != (Ineligible{}) {
		t.Errorf("a store that the document does not know: %v", r)
	}
}

func showReply(r Reply) string {
	switch r := r.(type) {
	case Promised:
		if r.Vote == nil {
			return "promised, nothing accepted"
		}
		return fmt.Sprintf("promised, accepted %s in %v", r.Vote.Document.Members[0].Address, r.Vote.Ballot)
	case Accepted:
		return "accepted"
	case Refused:
		return "refused for " + r.Later.String()
	case Newer:
		return fmt.Sprint("newer ", r.Document.Version)
	case Behind:
		return fmt.Sprint("behind ", r.Version)
	}
	return ""
}

func TestLearn(t *testing.T) {
	d := found(t, founding())
	v := voter(d, 0)
	next := successor(d, "next:1")
	v.Promised, v.Vote = Ballot{1, "a", 1}, &Vote{}
	if changed, err := v.Learn(d); changed || err != nil || v.Vote == nil {
		t.Errorf("the same: %v, %v", changed, err)
	}
	if changed, err := v.Learn(next); !changed || err != nil || v.Vote != nil || v.Promised != (Ballot{}) || !v.Document.Equal(next) {
		t.Errorf("the next: %v, %v, %+v", changed, err, v)
	}
	if changed, err := v.Learn(d); changed || err != nil {
		t.Errorf("an old one: %v, %v", changed, err)
	}
	foreign := successor(next, "x:1")
	foreign.ClusterID = ClusterID{9}
	if _, err := v.Learn(foreign); !errors.Is(err, ErrForeign) {
		t.Errorf("of another cluster: %v", err)
	}
	broken := successor(next, "x:1")
	broken.Depth = 0
	if _, err := v.Learn(broken); !errors.Is(err, ErrDepth) {
		t.Errorf("a broken one: %v", err)
	}
}

// showEffects writes effects as words.
func showEffects(effects []ProposalEffect) string {
	var out []string
	for _, e := range effects {
		switch e := e.(type) {
		case SendPrepare:
			out = append(out, fmt.Sprintf("prepare %s %d", e.To, e.Prepare.Ballot.Round))
		case SendAccept:
			out = append(out, fmt.Sprintf("accept %s %d %s", e.To, e.Accept.Ballot.Round, e.Accept.Document.Members[0].Address))
		case Teach:
			out = append(out, fmt.Sprintf("teach %s %d", e.To, e.Document.Version))
		case Pause:
			out = append(out, fmt.Sprint("pause ", e.Attempt))
		case ChosenNow:
			out = append(out, "chosen "+e.Document.Members[0].Address)
		case Done:
			out = append(out, fmt.Sprint("done ", e.Err))
		}
	}
	return strings.Join(out, ", ")
}

func TestProposal(t *testing.T) {
	d := found(t, founding())
	want, other := successor(d, "want"), successor(d, "other")
	first := Ballot{8, "a", 3}
	yes := func(n dynamo.NodeID) ProposalEvent { return Replied{n, Promised{Ballot: first}} }
	ok := func(n dynamo.NodeID) ProposalEvent { return Replied{n, Accepted{first}} }
	later := func(n dynamo.NodeID) ProposalEvent { return Replied{n, Refused{first, Ballot{20, "b", 1}}} }
	vote := func(n dynamo.NodeID, d Document, round uint64) ProposalEvent {
		return Replied{n, Promised{first, &Vote{Ballot{round, "c", 1}, d}}}
	}
	type step struct {
		event ProposalEvent
		want  string
	}
	accepts := "accept a 8 want, accept b 8 want, accept c 8 want"
	takeOver := "accept a 8 other, accept b 8 other, accept c 8 other"
	for name, steps := range map[string][]step{
		"wins":                             {{yes("a"), ""}, {yes("c"), accepts}, {ok("a"), ""}, {ok("a"), ""}, {ok("b"), "chosen want, done <nil>"}, {ok("c"), ""}},
		"finishes what another one began":  {{vote("b", other, 3), ""}, {vote("c", want, 2), takeOver}, {ok("a"), ""}, {ok("b"), "chosen other, done another change of the cluster was made first: version 2"}},
		"finishes its own":                 {{vote("b", want, 3), ""}, {yes("c"), accepts}, {ok("a"), ""}, {ok("b"), "chosen want, done <nil>"}},
		"tries again above the later one":  {{yes("a"), ""}, {later("b"), ""}, {later("c"), "pause 1"}, {Again{}, "prepare a 21, prepare b 21, prepare c 21"}, {yes("c"), ""}},
		"repeats what was lost":            {{yes("a"), ""}, {Again{}, "prepare b 8, prepare c 8"}, {yes("b"), accepts}, {ok("c"), ""}, {Again{}, "accept a 8 want, accept b 8 want"}},
		"teaches who is behind":            {{Replied{"b", Behind{0}}, "teach b 1, prepare b 8"}, {Replied{"z", Behind{0}}, ""}},
		"teaches once until it asks again": {{Replied{"b", Behind{0}}, "teach b 1, prepare b 8"}, {Replied{"b", Behind{0}}, ""}, {Again{}, "prepare a 8, prepare b 8, prepare c 8"}, {Replied{"b", Behind{0}}, "teach b 1, prepare b 8"}},
		"is too late":                      {{Replied{"b", Newer{other}}, "chosen other, done another change of the cluster was made first: version 2"}},
		"was finished by another one":      {{Replied{"b", Newer{want}}, "chosen want, done <nil>"}},
		"was overtaken by two, unasked":    {{Replied{"b", Newer{successor(other, "x")}}, "chosen x, done another change of the cluster was made first: version 3"}},
		"was overtaken by two, asked":      {{yes("a"), ""}, {yes("b"), accepts}, {Replied{"b", Newer{successor(other, "x")}}, "chosen x, done the change may still come into force: the cluster is at version 3 already"}},
		"has no majority":                  {{Unreachable{"b"}, ""}, {Unreachable{"c"}, "pause 1"}, {Over{}, "done no majority of the members can be reached: 0 of 3 members took part, 2 are needed; without a, b, c"}, {yes("a"), ""}},
		"is undecided":                     {{yes("a"), ""}, {yes("b"), accepts}, {ok("a"), ""}, {Over{}, "done the change may still come into force: 1 of 3 members took part, 2 are needed; without b, c"}},
		"does not count those who may not": {{Replied{"a", Ineligible{}}, ""}, {yes("x"), ""}, {yes("b"), ""}, {Replied{"c", Ineligible{}}, "pause 1"}},
		"hears no old ballots":             {{Replied{"a", Promised{Ballot: Ballot{7, "a", 3}}}, ""}, {yes("b"), ""}, {Replied{"c", Accepted{first}}, ""}, {Replied{"c", Newer{d}}, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Propose("a", 3, 7, d, want)
			if err != nil {
				t.Fatal(err)
			}
			if got := showEffects(p.Step(yes("a"))); got != "" {
				t.Errorf("before the start: %q", got)
			}
			if got := showEffects(p.Start()); got != "prepare a 8, prepare b 8, prepare c 8" {
				t.Fatalf("start: %q", got)
			}
			for i, s := range steps {
				if got := showEffects(p.Step(s.event)); got != s.want {
					t.Fatalf("step %d, %+v: %q, want %q", i, s.event, got, s.want)
				}
			}
		})
	}
	for name, next := range map[string]Document{"the same version": d, "one too far": successor(want, "x")} {
		if _, err := Propose("a", 1, 0, d, next); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package member

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

// foundN is a cluster of members a, b and so on.
func foundN(t testing.TB, n int) Document {
	t.Helper()
	f := Founding{ClusterID: ClusterID{1}, ClusterName: "test", Partitions: 16}
	for i := range n {
		id := dynamo.NodeID(rune('a' + i))
		f.Members = append(f.Members, Member{ID: id, Capacity: 1, Store: StoreID{byte(i + 1)}, Start: 1, Address: string(id) + ":1"})
	}
	return found(t, f)
}

// nodes are names of one letter each.
func nodes(letters string) []dynamo.NodeID {
	var out []dynamo.NodeID
	for _, l := range letters {
		out = append(out, dynamo.NodeID(l))
	}
	return out
}

func forced(t testing.TB, d Document, lost string) Document {
	t.Helper()
	out, err := d.Force(nodes(lost), 0)
	if err != nil {
		t.Fatalf("force %s: %v", lost, err)
	}
	return out
}

func TestForce(t *testing.T) {
	five := foundN(t, 5)
	moving := committed(t, five, of(Leave, "e"))
	gone := ended(t, committed(t, five, of(Remove, "e")))
	twice := forced(t, foundN(t, 5), "cde")
	for name, c := range map[string]struct {
		from Document
		lost string
		err  error
		left string
	}{
		"a majority":                {five, "cde", nil, "ab"},
		"named twice":               {five, "ecdcc", nil, "ab"},
		"half":                      {foundN(t, 4), "ab", nil, "cd"},
		"all others":                {five, "bcde", nil, "a"},
		"while a ring moves":        {moving, "bcd", nil, "ae"},
		"once more":                 {twice, "b", nil, "a"},
		"once more, as before":      {twice, "cde", nil, "ab"},
		"after one has gone":        {gone, "cd", nil, "ab"},
		"nobody":                    {five, "", ErrValue, ""},
		"a minority":                {five, "de", ErrMajority, ""},
		"all":                       {five, "abcde", ErrLastMember, ""},
		"a stranger":                {five, "cdx", ErrUnknownMember, ""},
		"one that has gone":         {gone, "cde", ErrUnknownMember, ""},
		"all that should hold data": {moving, "abcd", ErrLastMember, ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := c.from.Force(nodes(c.lost), 0)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				if !out.Equal(c.from) {
					t.Error("what is refused has changed something")
				}
				return
			}
			if got := out.Voters(); !slices.Equal(got, nodes(c.left)) {
				t.Errorf("decided on by %v", got)
			}
			if out.Equal(c.from) {
				return
			}
			last := out.Forced[len(out.Forced)-1]
			want := nodes(c.lost)
			slices.Sort(want)
			if last.At != c.from.Version || last.Version != out.Version || !slices.Equal(last.Lost, slices.Compact(want)) {
				t.Errorf("recorded: %+v", last)
			}
			if !Overrules(out.Version, c.from.Version+1_000_000) || uint32(out.Version) != uint32(c.from.Version)+1 {
				t.Errorf("version %d after %d", out.Version, c.from.Version)
			}
			out = ended(t, out)
			for _, l := range out.Losses() {
				had := out.Reading(l.Partition).Primaries(l.Partition, 3)
				if slices.ContainsFunc(had, func(id dynamo.NodeID) bool {
					return slices.Contains(nodes(c.left), id) && !slices.Contains(l.Waiting, id)
				}) {
					t.Errorf("%+v is lost, and %v had it", l, had)
				}
			}
			out = givenUp(t, out)
			for _, id := range nodes(c.lost) {
				if m, _ := out.Member(id); m.Status != Gone || !m.Out() || out.Settled.Has(id) {
					t.Errorf("%s is %v in the end", id, m)
				}
			}
			for _, id := range nodes(c.left) {
				if m, _ := out.Member(id); m.Out() != (m.Status == Gone) || m.Status == Up != out.Settled.Has(id) {
					t.Errorf("%s is %v in the end", id, m)
				}
			}
		})
	}
}

// TestForceDropsWhatIsStaged of those who are lost, and nothing else.
func TestForceDropsWhatIsStaged(t *testing.T) {
	d := staged(t, foundN(t, 4), of(Leave, "a"), of(Leave, "d"), newcomer("n", 9), replace("c", "n", true))
	out := forced(t, d, "cd")
	if got := fmt.Sprint(out.Staged); len(out.Staged) != 2 || out.Staged[0].Node != "a" || out.Staged[1].Node != "n" {
		t.Errorf("staged: %s", got)
	}
	if _, err := out.Plan(); err != nil {
		t.Error(err)
	}
}

// TestForceOnBothSides: one overrules the other, whatever they did before and since.
func TestForceOnBothSides(t *testing.T) {
	d := foundN(t, 4)
	left, right := forced(t, d, "cd"), forced(t, d, "ab")
	for range 20 {
		left = successor(left, "left")
	}
	if !Overrules(right.Version, left.Version) || Overrules(left.Version, right.Version) {
		t.Errorf("versions %d and %d", left.Version, right.Version)
	}
	if more := forced(t, left, "b"); !Overrules(more.Version, right.Version) {
		t.Errorf("forced again: %d after %d", more.Version, right.Version)
	}
}

// TestLostStoreStaysOut: it is refused at once, also while rings name it, and its name
// comes back with an empty store only.
func TestLostStoreStaysOut(t *testing.T) {
	d := forced(t, foundN(t, 4), "cd")
	c, _ := d.Member("c")
	if c.Status == Gone || !c.Out() || !d.Settled.Has("c") {
		t.Fatalf("c is %+v", c)
	}
	v := &Voter{Self: "c", Store: c.Store, Document: d}
	if r, _, err := v.Prepare(Prepare{Cluster: d.ClusterID, Version: d.Version + 1, Ballot: Ballot{1, "c", 1}}); r != (Ineligible{}) || err != nil {
		t.Errorf("it votes: %v, %v", r, err)
	}
	if _, err := d.TakeOver("c", c.Store, StoreID{9}, 2, "c:2"); !errors.Is(err, ErrRemovedStore) {
		t.Errorf("taken over: %v", err)
	}
	d = ended(t, d)
	if _, err := d.Stage(newcomer("c", 3)); !errors.Is(err, ErrRemovedStore) {
		t.Errorf("joins with the lost store: %v", err)
	}
	d = ended(t, committed(t, d, newcomer("c", 9)))
	if c, _ := d.Member("c"); c.Status != Up || c.Out() || len(d.Voters()) != 3 {
		t.Errorf("c is %+v", c)
	}
}

func TestValidateForced(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Document)
		err    error
	}{
		"later than the document": {func(d *Document) { d.Forced[0].Version = d.Version + 1 }, ErrForcedRecord},
		"before what it was":      {func(d *Document) { d.Forced[0].At = d.Version }, ErrForcedRecord},
		"out of order":            {func(d *Document) { d.Forced = append(d.Forced, d.Forced[0]) }, ErrForcedRecord},
		"nobody":                  {func(d *Document) { d.Forced[0].Lost = nil }, ErrForcedRecord},
		"no name":                 {func(d *Document) { d.Forced[0].Lost = []dynamo.NodeID{"a b"} }, dynamo.ErrNodeName},
		"too many":                {func(d *Document) { d.Forced = make([]Forced, MaxForced+1) }, ErrForcedRecord},
		"lost and not removed":    {func(d *Document) { d.Members[0].Lost = true }, ErrMember},
	} {
		d := forced(t, foundN(t, 4), "cd")
		same := d
		c.change(&d)
		if err := d.Validate(); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "lost and not removed" && d.Equal(same) && len(d.Forced) != 1 {
			t.Errorf("%s does not show", name)
		}
	}
	d := foundN(t, 2)
	for range MaxForced + 5 {
		d = forced(t, d, "b")
		d = ended(t, committed(t, ended(t, d), newcomer("b", byte(2+Forces(d.Version)))))
	}
	if len(d.Forced) != MaxForced || Forces(d.Version) != MaxForced+5 {
		t.Errorf("%d are named of %d", len(d.Forced), Forces(d.Version))
	}
}

// TestForcedVoter: who has accepted a forced version decides on nothing else, and goes
// on with nothing else unless the forced one is dead.
func TestForcedVoter(t *testing.T) {
	d := foundN(t, 5)
	f, other := forced(t, d, "cde"), successor(d, "other:1")
	one, two := Ballot{1, "b", 1}, Ballot{2, "b", 1}
	prepare := func(base uint64, b Ballot) Prepare {
		return Prepare{Cluster: d.ClusterID, Version: f.Version, Ballot: b, Base: base, Lost: nodes("cde")}
	}
	v := voter(d, 0)
	for i, c := range []struct {
		message any
		want    string
	}{
		{Accept{one, other}, "accepted"},
		{prepare(2, two), "behind 1"},
		{prepare(1, two), "promised, accepted other:1 in 1/b/1"},
		{Accept{two, f}, "accepted"},
		{prepare(1, Ballot{3, "b", 1}), "promised, accepted a:1 in 2/b/1"},
		{Prepare{Cluster: d.ClusterID, Version: 2, Ballot: Ballot{9, "b", 1}}, ""},
		{Accept{Ballot{9, "b", 1}, other}, ""},
	} {
		var r Reply
		var err error
		switch m := c.message.(type) {
		case Prepare:
			r, _, err = v.Prepare(m)
		case Accept:
			r, _, err = v.Accept(m)
		}
		if got := showReply(r); got != c.want || err != nil || c.want == "" && r != (Ineligible{}) {
			t.Errorf("%d, %+v: %T %q, %v; want %q", i, c.message, r, got, err, c.want)
		}
	}
	for _, by := range nodes("acde") { // the lost, and the voter itself, prove nothing
		if changed, err := v.Hear(by, other); changed || !errors.Is(err, ErrForced) || v.Vote == nil {
			t.Errorf("from %s: %v, %v", by, changed, err)
		}
	}
	released := *v
	if changed, err := released.Hear("b", other); !changed || err != nil || released.Document.Version != 2 {
		t.Errorf("from b, without whom nothing is forced: %v, %v", changed, err)
	}
	if r, _, err := released.Accept(Accept{two, f}); err != nil || showReply(r) != "newer 2" {
		t.Errorf("asked again: %v, %v", r, err)
	}
	if changed, err := v.Hear("e", f); !changed || err != nil || v.Vote != nil {
		t.Errorf("the forced one: %v, %v", changed, err)
	}
	if r, _, _ := v.Prepare(Prepare{Cluster: d.ClusterID, Version: 2, Ballot: Ballot{9, "e", 1}}); !strings.HasPrefix(showReply(r), "newer") {
		t.Errorf("to a lost one: %v", r)
	}
}

func TestForcedProposal(t *testing.T) {
	d := foundN(t, 5)
	first := Ballot{8, "a", 3}
	want, wider := forced(t, d, "cde"), forced(t, d, "bcde")
	maybe := forced(t, d, "ade") // of b and c, who is lost now
	above, err := d.Force(nodes("cde"), maybe.Version)
	if err != nil || !Overrules(above.Version, maybe.Version) {
		t.Fatal(above, err)
	}
	yes := func(n dynamo.NodeID) ProposalEvent { return Replied{n, Promised{Ballot: first}} }
	ok := func(n dynamo.NodeID) ProposalEvent { return Replied{n, Accepted{first}} }
	vote := func(n dynamo.NodeID, d Document) ProposalEvent {
		return Replied{n, Promised{first, &Vote{Ballot{3, "c", 1}, d}}}
	}
	other := successor(d, "other")
	type step struct {
		event ProposalEvent
		want  string
	}
	asks := func(d Document) string { return fmt.Sprintf("accept a 8 %d, accept b 8 %d", d.Version, d.Version) }
	chosen := func(d Document) string { return fmt.Sprintf("chosen %d, done ", d.Version) }
	overtaken := func(d Document) string { return fmt.Sprintf("%s%v: version %d", chosen(d), ErrOvertaken, d.Version) }
	for name, steps := range map[string][]step{
		"needs all that are left":          {{yes("a"), ""}, {yes("c"), ""}, {yes("b"), asks(want)}, {ok("a"), ""}, {ok("b"), chosen(want) + "<nil>"}},
		"overrules a plain vote":           {{vote("a", other), ""}, {yes("b"), asks(want)}},
		"finishes its own":                 {{vote("a", want), ""}, {yes("b"), asks(want)}},
		"finds itself decided":             {{vote("a", want), ""}, {vote("b", want), chosen(want) + "<nil>"}},
		"finds another one decided":        {{vote("a", wider), ""}, {yes("b"), overtaken(wider)}},
		"overrules what is dead":           {{yes("b"), ""}, {vote("a", forced(t, d, "bde")), asks(above)}},
		"overrules what the lost may know": {{yes("a"), ""}, {vote("b", maybe), asks(above)}},
		"hears that the base has changed":  {{yes("a"), ""}, {Replied{"b", Newer{other}}, overtaken(other)}},
		"teaches who is behind":            {{Replied{"b", Behind{0}}, "teach b 1, prepare b 8"}},
		"ends when somebody knows better":  {{yes("a"), ""}, {Replied{"b", Opposed{"c answers b"}}, "done the cluster cannot be forced: b says that c answers b"}},
		"waits for the last":               {{yes("a"), ""}, {Unreachable{"b"}, "pause 1"}, {Over{}, "done not all members that are left answer; wait for them, or name them as lost, too. Nothing was changed: 1 of 2 members took part, 2 are needed; without b"}},
		"is undecided":                     {{yes("a"), ""}, {yes("b"), asks(want)}, {ok("a"), ""}, {Over{}, "done the change may still come into force: 1 of 2 members took part, 2 are needed; without b"}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := ProposeForced("a", 3, 7, d, nodes("cde"))
			if err != nil {
				t.Fatal(err)
			}
			if got := showForced(p.Start()); got != "prepare a 8, prepare b 8" {
				t.Fatalf("start: %q", got)
			}
			for i, s := range steps {
				if got := showForced(p.Step(s.event)); got != s.want {
					t.Fatalf("step %d, %+v: %q, want %q", i, s.event, got, s.want)
				}
			}
		})
	}
	for _, lost := range []string{"", "de", "cdx"} {
		if _, err := ProposeForced("a", 1, 0, d, nodes(lost)); err == nil {
			t.Errorf("proposes without %q", lost)
		}
	}
	if _, err := ProposeForced("a", 1, 0, want, nodes("cde")); !errors.Is(err, ErrValue) {
		t.Errorf("the same again: %v", err)
	}
}

// showForced is showEffects with versions, by which forced documents differ.
func showForced(effects []ProposalEffect) string {
	marked := slices.Clone(effects)
	for i, e := range marked {
		switch e := e.(type) {
		case SendAccept:
			e.Accept.Document.Members = []Member{{Address: fmt.Sprint(e.Accept.Document.Version)}}
			marked[i] = e
		case ChosenNow:
			e.Document.Members = []Member{{Address: fmt.Sprint(e.Document.Version)}}
			marked[i] = e
		}
	}
	return showEffects(marked)
}

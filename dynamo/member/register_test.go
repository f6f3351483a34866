package member

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

var worlds = flag.Uint64("member.worlds", 6000, "worlds that TestRegister runs")

// world is some nodes that change the cluster document at the same time, and a
// network that loses, doubles and reorders what they say. Nodes end and start
// again, lose their stores, come and go as members.
type world struct {
	r     *rand.Rand
	bug   string // planted on purpose
	nodes map[dynamo.NodeID]*registerNode
	names []dynamo.NodeID
	mail  []letter
	// chosen is what was decided; refused are documents whose proposal said that
	// they are not and will not be.
	chosen  map[uint64]Document
	refused []Document
	marks   int
	stores  int
	wins    int
	forced  int
	broken  string
}

type registerNode struct {
	voter    Voter
	life     uint64
	round    uint64
	proposal *Proposal
}

// letter is a message on its way; life is that of the receiver's proposal that an
// answer is for.
type letter struct {
	from, to dynamo.NodeID
	body     any
}

func newWorld(seed uint64, bug string) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 7)), bug: bug, nodes: map[dynamo.NodeID]*registerNode{}, chosen: map[uint64]Document{}}
	f := Founding{ClusterID: ClusterID{1}, ClusterName: "test", Partitions: 8}
	founders := 1 + w.r.IntN(5)
	for i := range founders + 2 {
		id := dynamo.NodeID(rune('a' + i))
		w.names = append(w.names, id)
		w.stores++
		if i < founders {
			f.Members = append(f.Members, Member{ID: id, Capacity: 1, Store: w.store(), Start: 1})
		}
		w.nodes[id] = &registerNode{life: 1, voter: Voter{Self: id, Store: w.store()}}
	}
	d, _, err := Found(f)
	if err != nil {
		panic(err)
	}
	for _, n := range w.nodes {
		n.voter.Document = d
	}
	w.chosen[1] = d
	return w
}

func (w *world) store() StoreID { return StoreID{byte(w.stores), byte(w.stores >> 8), 1} }

func (w *world) fail(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

// change makes a successor: a mark, a member that joins, one that goes, or a
// member's new store.
func (w *world) change(d Document) Document {
	w.marks++
	next := d
	next.Version++
	next.Members = slices.Clone(d.Members)
	next.Members[0].Address = fmt.Sprint("mark", w.marks)
	for i := range next.Members {
		m := &next.Members[i]
		if s := w.nodes[m.ID].voter.Store; m.Store != s && m.Status != Gone && w.r.IntN(2) == 0 {
			m.Store = s
		}
	}
	for _, id := range w.names {
		at, there := slices.BinarySearchFunc(next.Members, id, func(m Member, id dynamo.NodeID) int {
			return Ballot{Node: m.ID}.Compare(Ballot{Node: id})
		})
		switch {
		case w.r.IntN(8) > 0, there && next.inRings(id):
		case !there:
			next.Members = slices.Insert(next.Members, at, Member{ID: id, Capacity: 1, Status: Joining, Store: w.nodes[id].voter.Store, Start: 1})
		case next.Members[at].Status == Joining && len(next.Voters()) > 1:
			next.Members[at].Status = Gone
		case next.Members[at].Status == Gone:
			next.Members[at] = Member{ID: id, Capacity: 1, Status: Joining, Store: w.nodes[id].voter.Store, Start: 1}
		}
	}
	return next
}

func (w *world) send(from, to dynamo.NodeID, body any) {
	w.mail = append(w.mail, letter{from, to, body})
}

func (w *world) propose(id dynamo.NodeID) {
	n := w.nodes[id]
	if n.proposal != nil || !slices.Contains(n.voter.Document.Voters(), id) {
		return
	}
	want := w.change(n.voter.Document)
	p, err := Propose(id, n.life, n.round, n.voter.Document, want)
	if err != nil {
		w.fail("%s cannot propose: %v", id, err)
		return
	}
	n.proposal = p
	w.perform(id, p.Start())
}

// force gives up so many members that no majority is left, rightly or not: they live
// on and talk.
func (w *world) force(id dynamo.NodeID) {
	n := w.nodes[id]
	voters := n.voter.Document.Voters()
	if n.proposal != nil || !slices.Contains(voters, id) || len(voters) < 2 {
		return
	}
	w.r.Shuffle(len(voters), func(i, j int) { voters[i], voters[j] = voters[j], voters[i] })
	lost := slices.DeleteFunc(voters[:len(voters)-w.r.IntN(Majority(len(voters))-1)], func(x dynamo.NodeID) bool { return x == id })
	w.proposeForced(id, lost)
}

func (w *world) proposeForced(id dynamo.NodeID, lost []dynamo.NodeID) {
	n := w.nodes[id]
	p, err := ProposeForced(id, n.life, n.round, n.voter.Document, lost)
	if errors.Is(err, ErrMajority) || errors.Is(err, ErrLastMember) { // the others only leave
		return
	}
	if err != nil {
		w.fail("%s cannot force: %v", id, err)
		return
	}
	if w.bug == "not all" {
		p.need = Majority(len(p.voters))
	}
	n.proposal = p
	w.perform(id, p.Start())
}

func (w *world) step(id dynamo.NodeID, e ProposalEvent) {
	if p := w.nodes[id].proposal; p != nil {
		w.perform(id, p.Step(e))
	}
}

func (w *world) perform(id dynamo.NodeID, effects []ProposalEffect) {
	n := w.nodes[id]
	if n.proposal != nil {
		n.round = n.proposal.Round()
	}
	for _, e := range slices.Clone(effects) {
		switch e := e.(type) {
		case SendPrepare:
			w.send(id, e.To, e.Prepare)
		case SendAccept:
			w.send(id, e.To, e.Accept)
		case Teach:
			w.send(id, e.To, e.Document)
		case ChosenNow:
			w.choose(id, e.By, e.Document)
		case Done:
			w.done(n, n.proposal.want, e.Err)
		}
	}
}

// choose checks that a version is decided once.
func (w *world) choose(at, by dynamo.NodeID, d Document) {
	if before, ok := w.chosen[d.Version]; ok && !before.Equal(d) {
		w.fail("version %d is %s, and for %s it is %s", d.Version, before.Members[0].Address, by, d.Members[0].Address)
	}
	if slices.ContainsFunc(w.refused, d.Equal) {
		w.fail("version %d is %s, which was refused", d.Version, d.Members[0].Address)
	}
	w.chosen[d.Version] = d
	if d.forcedAt() != 0 {
		w.forced++
	}
	if !w.learn(by, at, d) {
		return
	}
	for _, id := range w.names {
		w.send(at, id, d)
	}
}

// learn has a node hear a document; false: it cannot take it, because a forced one may
// have been decided.
func (w *world) learn(by, id dynamo.NodeID, d Document) bool {
	v := &w.nodes[id].voter
	if w.bug == "forced vote not kept" && v.forced() {
		v.Vote = nil
	}
	before := v.Document
	changed, err := v.Hear(by, d)
	if errors.Is(err, ErrForced) {
		return false
	}
	if now := v.Document.Version; err != nil || now < before.Version || changed != (now > before.Version) {
		w.fail("%s learns version %d at %d: %v, %v", id, d.Version, before.Version, changed, err)
	}
	if changed && !w.follows(id, d, before.Version) {
		w.fail("%s goes from version %d to %d, forced %v: not its successor", id, before.Version, d.Version, d.Forced)
	}
	return true
}

// follows reports whether a node that goes from a version to a document goes on: no
// forced version in between left out what it went by, but those that gave it up.
func (w *world) follows(id dynamo.NodeID, d Document, before uint64) bool {
	at := d.Version
	for _, f := range slices.Backward(d.Forced) {
		if before >= f.Version {
			break
		}
		if forced := w.chosen[f.Version]; !slices.Contains(forced.Voters(), id) {
			return true
		}
		at = f.At
	}
	return before <= at && before>>countBits == at>>countBits
}

func (w *world) done(n *registerNode, want Document, err error) {
	n.proposal = nil
	won, known := w.chosen[want.Version]
	switch {
	case err == nil:
		w.wins++
		if !known || !won.Equal(want) {
			w.fail("%s was told that it won with %s", n.voter.Self, want.Members[0].Address)
		}
	case errors.Is(err, ErrUndecided):
	case want.forcedAt() != 0: // somebody else may force the same
	default:
		w.refused = append(w.refused, want)
		if known && won.Equal(want) {
			w.fail("%s was told that %s lost: %v", n.voter.Self, want.Members[0].Address, err)
		}
	}
}

// deliver hands one letter over.
func (w *world) deliver(l letter) {
	v := &w.nodes[l.to].voter
	var r Reply
	var err error
	switch m := l.body.(type) {
	case Document:
		w.learn(l.from, l.to, m)
		return
	case Prepare:
		if w.bug == "votes beside a forced vote" && v.forced() && m.Base == 0 {
			v.Vote = nil
		}
		if w.bug == "vote not kept" && v.Vote != nil && w.r.IntN(2) == 0 {
			v.Vote = nil
		}
		r, _, err = v.Prepare(m)
	case Accept:
		if w.bug == "promise not kept" {
			v.Promised = Ballot{}
		}
		r, _, err = v.Accept(m)
	case Reply:
		w.step(l.to, Replied{l.from, m})
		return
	}
	if err != nil {
		w.fail("%s refuses %+v: %v", l.to, l.body, err)
		return
	}
	w.send(l.to, l.from, r)
}

// restart ends a node's process and begins another; lost says that its store went
// with it.
func (w *world) restart(id dynamo.NodeID, lost bool) {
	n := w.nodes[id]
	n.life++
	n.proposal, n.round = nil, 0
	if !lost {
		return
	}
	n.voter.Promised, n.voter.Vote = Ballot{}, nil
	if w.bug != "same store" {
		w.stores++
		n.voter.Store = w.store()
	}
}

// storm is a while of changes and faults.
func (w *world) storm(steps int) {
	for range steps {
		id := w.names[w.r.IntN(len(w.names))]
		switch x := w.r.IntN(100); {
		case x < 1 && w.r.IntN(3) == 0, x < 4 && w.bug != "" && w.r.IntN(2) == 0:
			w.force(id)
		case x < 6:
			w.propose(id)
		case x < 10:
			w.step(id, Again{})
		case x < 11:
			w.step(id, Over{})
		case x < 12:
			w.restart(id, false)
		case x < 13 && w.r.IntN(4) == 0, x < 20 && w.bug == "same store":
			w.restart(id, true)
		case len(w.mail) > 0:
			i := w.r.IntN(len(w.mail))
			l := w.mail[i]
			if w.r.IntN(10) > 0 { // else it comes again
				w.mail = slices.Delete(w.mail, i, i+1)
			}
			if w.r.IntN(10) > 0 { // else it is lost
				w.deliver(l)
			} else {
				w.step(l.from, Unreachable{l.to})
			}
		}
		if len(w.mail) > 300 {
			w.mail = w.mail[len(w.mail)-200:]
		}
		if w.broken != "" {
			return
		}
	}
}

// newest is the latest version that was decided.
func (w *world) newest() Document {
	newest := w.chosen[1]
	for _, d := range w.chosen {
		if d.Version > newest.Version {
			newest = d
		}
	}
	return newest
}

// decidable reports whether a majority of the voters has the stores that the newest
// document knows.
func (w *world) decidable() bool {
	d, eligible := w.newest(), 0
	for _, id := range d.Voters() {
		if m, _ := d.Member(id); m.Store == w.nodes[id].voter.Store {
			eligible++
		}
	}
	return eligible >= Majority(len(d.Voters()))
}

// finish repeats what was forced and is undecided for a node: all but those without whom
// that cannot be are lost now, and who has lost its store.
func (w *world) finish(id dynamo.NodeID) {
	v := &w.nodes[id].voter
	for try := 0; try < 20 && v.forced(); try++ {
		left := slices.DeleteFunc(v.Vote.Document.Voters(), func(x dynamo.NodeID) bool {
			m, _ := v.Document.Member(x)
			return m.Store != w.nodes[x].voter.Store
		})
		if !slices.Contains(left, id) {
			return // it has lost its own
		}
		w.proposeForced(id, slices.DeleteFunc(v.Document.Voters(), func(x dynamo.NodeID) bool { return slices.Contains(left, x) }))
		for rounds := 0; rounds < 5 && w.nodes[id].proposal != nil; rounds++ {
			for len(w.mail) > 0 {
				l := w.mail[0]
				w.mail = w.mail[1:]
				if slices.Contains(left, l.to) {
					w.deliver(l)
				}
			}
			w.step(id, Again{})
		}
		w.step(id, Over{})
	}
	if v.forced() {
		w.fail("%s cannot finish what was forced at version %d", id, v.Document.Version)
	}
}

// calm lets a node change the document with nothing in its way.
func (w *world) calm() {
	w.mail = nil
	for id := range w.nodes {
		w.step(id, Over{})
	}
	for _, id := range w.names {
		w.finish(id)
	}
	for _, id := range w.names {
		w.learn(id, id, w.newest())
	}
	before := w.wins
	for try := 0; try < 20 && w.wins == before; try++ {
		newest := w.newest()
		id := newest.Voters()[w.r.IntN(len(newest.Voters()))]
		w.propose(id)
		for rounds := 0; rounds < 5 && w.nodes[id].proposal != nil; rounds++ {
			for len(w.mail) > 0 {
				l := w.mail[0]
				w.mail = w.mail[1:]
				w.deliver(l)
			}
			w.step(id, Again{})
		}
		w.step(id, Over{}) // one that would leave too few voters never gets through
	}
	if w.wins == before && w.decidable() { // else too many stores were lost; that is for an operator
		w.fail("no change gets through in peace")
	}
}

// TestRegister: under any order of messages, losses, repetitions, restarts, lost
// stores and changes of the members, each version is decided once, a proposal is
// told the truth, and in peace a change gets through.
func TestRegister(t *testing.T) {
	versions, wins, forced := 0, 0, 0
	for seed := range *worlds {
		w := newWorld(seed, "")
		w.storm(600)
		if w.broken == "" {
			w.calm()
		}
		if w.broken != "" {
			t.Fatalf("seed %d: %s", seed, w.broken)
		}
		versions, wins, forced = versions+len(w.chosen)-1, wins+w.wins, forced+w.forced
	}
	if n := int(*worlds); versions < 5*n/3 || wins < 5*n/3 {
		t.Errorf("%d versions and %d wins only: nothing was tested", versions, wins)
	}
	if forced < int(*worlds)/8 {
		t.Errorf("%d forced versions only: nothing was tested", forced)
	}
}

// TestRegisterFindsBugs: the checks can fail.
func TestRegisterFindsBugs(t *testing.T) {
	for _, bug := range []string{"vote not kept", "promise not kept", "same store", "not all", "forced vote not kept", "votes beside a forced vote"} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20_000) {
				w := newWorld(seed, bug)
				if w.storm(600); w.broken != "" {
					t.Logf("caught by seed %d: %s", seed, w.broken)
					return
				}
			}
			t.Error("not caught")
		})
	}
}

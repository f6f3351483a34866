package actors

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// elector is another member that votes as the machine says, in memory.
type elector struct {
	t     testing.TB
	peers *actortest.Peers
	mu    sync.Mutex
	voter member.Voter
	// mute: it answers nothing; wire counts the bytes of gossip that it got.
	mute bool
	wire int
	seen []*messages.GossipRequest
}

// electors connects the members n2 to nN.
func (r *rig) electors() map[string]*elector {
	out := map[string]*elector{}
	for i, m := range r.doc.Members[1:] {
		x := &elector{t: r.t, peers: r.peers, voter: member.Voter{Self: m.ID, Store: member.StoreID{byte(i + 2)}, Document: r.doc}}
		out[string(m.ID)] = x
		r.peers.Handle(string(m.ID), x.receive)
	}
	return out
}

func (x *elector) receive(m actortest.Received) {
	x.mu.Lock()
	answer := x.answer(m.Message)
	x.mu.Unlock()
	if answer != nil {
		x.peers.Answer(m, answer)
	}
}

func (x *elector) answer(m any) any {
	if x.mute {
		return nil
	}
	switch m := m.(type) {
	case *messages.RegisterRequest:
		prepare, accept, err := messages.ToRegister(m)
		if err != nil {
			x.t.Errorf("%s got %v", x.voter.Self, err)
			return nil
		}
		var reply member.Reply
		if prepare != nil {
			reply, _, err = x.voter.Prepare(*prepare)
		} else {
			reply, _, err = x.voter.Accept(*accept)
		}
		if err != nil {
			x.t.Errorf("%s: %v", x.voter.Self, err)
			return nil
		}
		return messages.FromReply(reply)
	case *messages.DocumentNews:
		doc, err := messages.ToDocument(m.GetDocument())
		if err == nil {
			_, err = x.voter.Learn(doc)
		}
		if err != nil {
			x.t.Errorf("%s: %v", x.voter.Self, err)
		}
	case *messages.GossipRequest:
		x.wire += proto.Size(m)
		x.seen = append(x.seen, m)
		return &messages.GossipReply{Version: x.voter.Document.Version, Digest: m.GetDigest()}
	}
	return nil
}

func (x *elector) document() member.Document {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.voter.Document
}

func (x *elector) set(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
}

// mute has them all answer nothing, or again.
func mute(x map[string]*elector, mute bool) {
	for _, e := range x {
		e.set(func() { e.mute = mute })
	}
}

// decided is what a majority of the members knows and nobody else.
func (x *elector) decided(t *testing.T, make func(member.Document) (member.Document, error)) member.Document {
	t.Helper()
	next, err := make(x.document())
	if err != nil {
		t.Fatal(err)
	}
	x.set(func() { _, err = x.voter.Learn(next) })
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func staging(kind member.ChangeKind, node string) *messages.ClusterRequest {
	return &messages.ClusterRequest{
		Operation: messages.OperationStage, TimeoutMs: 2000,
		Change: messages.FromChange(member.Change{Kind: kind, Node: dynamo.NodeID(node), Capacity: 2}),
	}
}

func creating(name string) *messages.ClusterRequest {
	return &messages.ClusterRequest{
		Operation: messages.OperationCreateBucket, TimeoutMs: 2000,
		Bucket: messages.FromBucket(member.Bucket{Name: name, Properties: bucket.Default()}),
	}
}

// operate asks as an operator, and returns the document or the failure.
func (r *rig) operate(m *messages.ClusterRequest) (member.Document, *messages.Failure) {
	r.t.Helper()
	probe := actortest.NewProbe(r.system)
	probe.Ask(on("n1", nameMembership), m)
	var answer any
	actortest.Eventually(r.t, "an answer", func() bool {
		for _, got := range probe.All() {
			answer = got.Message
		}
		return answer != nil
	})
	switch answer := answer.(type) {
	case *messages.Failure:
		return member.Document{}, answer
	case *messages.ClusterReply:
		doc, err := messages.ToDocument(answer.GetDocument())
		if err != nil {
			r.t.Fatal(err)
		}
		return doc, nil
	}
	r.t.Fatalf("answered %T", answer)
	return member.Document{}, nil
}

// TestChangeIsDecided: with a majority a change comes into force, and all members
// hear of it; the operator's answer is the document with it.
func TestChangeIsDecided(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := r.electors()
	x["n3"].set(func() { x["n3"].mute = true })
	doc, f := r.operate(staging(member.Leave, "n2"))
	if f != nil || doc.Version != 2 || len(doc.Staged) != 1 || doc.Staged[0].Kind != member.Leave {
		t.Fatalf("%v, %v", doc, f)
	}
	if now := r.s.Document(); !now.Equal(doc) {
		t.Errorf("in force is %v", now)
	}
	actortest.Eventually(t, "n2 hears of it", func() bool { d := x["n2"].document(); return d.Equal(doc) })
	if doc, f = r.operate(&messages.ClusterRequest{Operation: messages.OperationClear, TimeoutMs: 2000}); f != nil || len(doc.Staged) != 0 {
		t.Errorf("clear: %v, %v", doc, f)
	}
}

// TestOperatorIsRefused: what makes no sense changes nothing, and is told so.
func TestOperatorIsRefused(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.electors()
	for what, m := range map[string]*messages.ClusterRequest{
		"unknown member":    staging(member.Leave, "n9"),
		"a join by name":    {Operation: messages.OperationStage, Change: &messages.Change{Node: "n9", Member: &messages.Member{Id: "n9", Capacity: 1, Store: make([]byte, 16)}}},
		"an empty plan":     {Operation: messages.OperationCommit, Version: 1},
		"nothing to clear":  {Operation: messages.OperationClear},
		"an operation":      {Operation: 99},
		"a bucket's name":   creating(""),
		"a change of kind":  {Operation: messages.OperationStage, Change: &messages.Change{Kind: 77, Node: "n2"}},
		"no bucket to set":  {Operation: messages.OperationSetBucket, Bucket: creating("b").Bucket, Version: 1},
		"a join of members": {Operation: messages.OperationJoin},
	} {
		if _, f := r.operate(m); f.GetCode() != messages.CodeInvalid || f.GetText() == "" {
			t.Errorf("%s: %v", what, f)
		}
	}
	if v := r.s.Document().Version; v != 1 {
		t.Errorf("version %d", v)
	}
}

// TestStaleCommit: what is committed must be what was planned.
func TestStaleCommit(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.electors()
	doc, f := r.operate(staging(member.SetCapacity, "n2"))
	if f != nil {
		t.Fatal(f)
	}
	old := &messages.ClusterRequest{Operation: messages.OperationSetBucket, Bucket: creating("b").Bucket, Version: doc.Version - 1}
	if _, f := r.operate(old); f.GetCode() != messages.CodeConflict {
		t.Errorf("properties that were read before: %v", f)
	}
	if _, f := r.operate(&messages.ClusterRequest{Operation: messages.OperationCommit, Version: doc.Version - 1}); f.GetCode() != messages.CodeConflict {
		t.Errorf("an old plan: %v", f)
	}
	if doc, f = r.operate(&messages.ClusterRequest{Operation: messages.OperationCommit, Version: doc.Version}); f != nil || doc.Members[1].Capacity != 2 {
		t.Errorf("commit: %v, %v", doc, f)
	}
}

// TestNoMajority: without one nothing is changed, and the answer says who is
// lacking.
func TestNoMajority(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 3}) // n2 and n3 are not connected
	m := creating("b")
	m.TimeoutMs = 500
	_, f := r.operate(m)
	if f.GetCode() != messages.CodeUnavailable {
		t.Fatalf("%v", f)
	}
	for _, node := range []string{"n2", "n3"} {
		r.peers.Handle(node, func(actortest.Received) {})
	}
	x := r.electors()
	doc, f := r.operate(creating("b"))
	if f != nil || doc.Version != 2 {
		t.Errorf("after they are back: %v, %v", doc, f)
	}
	actortest.Eventually(t, "they have it", func() bool { return x["n2"].document().Version == 2 && x["n3"].document().Version == 2 })
}

// TestOvertaken: a change that lost against another one is made anew from what is
// in force then.
func TestOvertaken(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := r.electors()
	other := x["n2"].decided(t, func(d member.Document) (member.Document, error) {
		return d.CreateBucket(member.Bucket{Name: "other", Properties: bucket.Default()}, false)
	})
	doc, f := r.operate(creating("mine"))
	if f != nil || doc.Version != other.Version+1 || len(doc.Buckets) != 2 {
		t.Errorf("%v, %v", doc, f)
	}
}

// TestVoteIsDurable: nobody hears a promise that is not on the disk.
func TestVoteIsDurable(t *testing.T) {
	var held struct {
		sync.Mutex
		done []func(error)
	}
	r := start(t, setup{nodes: 3, change: func(c *Config) {
		store := c.Founding.StoreVote
		c.Founding.StoreVote = func(v member.Voter, done func(error)) {
			store(v, func(error) {
				held.Lock()
				defer held.Unlock()
				held.done = append(held.done, done)
			})
		}
	}})
	r.probe.Ask(on("n1", nameMembership), messages.FromPrepare(member.Prepare{
		Cluster: r.doc.ClusterID, Version: 2, Ballot: member.Ballot{Round: 1, Node: "n2", Start: 1},
	}))
	count := func() int { held.Lock(); defer held.Unlock(); return len(held.done) }
	actortest.Eventually(t, "it is written", func() bool { return count() == 1 })
	if n := actortest.Count[*messages.RegisterReply](r.probe); n != 0 {
		t.Fatal("answered before the disk had it")
	}
	held.done[0](nil)
	reply, err := messages.ToReply(actortest.Next[*messages.RegisterReply](t, r.probe))
	if _, ok := reply.(member.Promised); !ok || err != nil {
		t.Errorf("%v, %v", reply, err)
	}
}

// TestPromiseSurvives a failure of the disk, which restarts the actor: it reads what
// it has promised.
func TestPromiseSurvives(t *testing.T) {
	r := start(t, setup{nodes: 3})
	membership := on("n1", nameMembership)
	promise := func(round uint64) member.Reply {
		t.Helper()
		probe := actortest.NewProbe(r.system)
		probe.Ask(membership, messages.FromPrepare(member.Prepare{
			Cluster: r.doc.ClusterID, Version: 2, Ballot: member.Ballot{Round: round, Node: "n2", Start: 1},
		}))
		reply, err := messages.ToReply(actortest.Next[*messages.RegisterReply](t, probe))
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	if reply, ok := promise(5).(member.Promised); !ok {
		t.Fatalf("%v", reply)
	}
	r.disk.mu.Lock()
	r.disk.err = errTest
	r.disk.mu.Unlock()
	r.probe.Ask(membership, messages.FromPrepare(member.Prepare{
		Cluster: r.doc.ClusterID, Version: 2, Ballot: member.Ballot{Round: 9, Node: "n2", Start: 1},
	}))
	r.quiet()
	r.disk.mu.Lock()
	r.disk.err = nil
	r.disk.mu.Unlock()
	if reply, ok := promise(4).(member.Refused); !ok || reply.Later.Round != 5 {
		t.Errorf("round 4 after 5: %+v", reply)
	}
	if n := actortest.Count[*messages.RegisterReply](r.probe); n != 0 {
		t.Error("a promise that is not on the disk was heard")
	}
}

// TestNews: a decided document is durable before it is in force; an older one, or one
// of another cluster, changes nothing.
func TestNews(t *testing.T) {
	r := start(t, setup{nodes: 3})
	next, err := r.doc.CreateBucket(member.Bucket{Name: "b", Properties: bucket.Default()}, false)
	if err != nil {
		t.Fatal(err)
	}
	foreign := next
	foreign.ClusterID, foreign.Version = member.ClusterID{9}, 7
	membership := on("n1", nameMembership)
	for _, d := range []member.Document{foreign, next, r.doc} {
		r.probe.Ask(membership, &messages.DocumentNews{Document: messages.FromDocument(d)})
	}
	actortest.Eventually(t, "it is in force", func() bool { return r.s.Document().Version == 2 })
	r.quiet()
	if now := r.s.Document(); !now.Equal(next) {
		t.Errorf("in force is %v", now)
	}
	if v, _, _ := r.disk.load(); !v.Document.Equal(next) {
		t.Errorf("on the disk is %v", v.Document)
	}
}

// TestIdleGossip: members that know the same say so in a few bytes; one that lacks
// something gets it.
func TestIdleGossip(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 3, partitions: 64})
	x := r.electors()
	quiet := func(e *elector) (last *messages.GossipRequest) {
		e.set(func() {
			if n := len(e.seen); n > 0 {
				last = e.seen[n-1]
			}
		})
		return last
	}
	actortest.Eventually(t, "a round", func() bool { return quiet(x["n2"]) != nil && quiet(x["n3"]) != nil })
	for name, e := range x {
		if m := quiet(e); proto.Size(m) > 1000 || m.GetDocument() != nil || len(m.GetRows()) > 1 {
			t.Errorf("%s got %d bytes: %v", name, proto.Size(m), m)
		}
	}
	ask := func(m *messages.GossipRequest) *messages.GossipReply {
		probe := actortest.NewProbe(r.system)
		probe.Ask(on("n1", nameMembership), m)
		return actortest.Next[*messages.GossipReply](t, probe)
	}
	all := ask(&messages.GossipRequest{Version: 0, Digest: 1})
	if all.GetDocument() == nil || len(all.GetRows()) != 1 {
		t.Errorf("to one who knows nothing: %v", all)
	}
	if same := ask(&messages.GossipRequest{Version: 1, Digest: all.GetDigest()}); same.GetDocument() != nil || len(same.GetRows()) != 0 || proto.Size(same) > 100 {
		t.Errorf("to one who knows the same: %v", same)
	}
	row := messages.FromRow(member.Row{Node: "n2", Start: 3, Counter: 1, Facts: member.Facts{Store: member.StoreID{2}, Known: 1}})
	stranger := messages.FromRow(member.Row{Node: "n7", Start: 1, Counter: 1})
	forged := messages.FromRow(member.Row{Node: "n1", Start: 1 << 40, Counter: 1 << 40})
	if more := ask(&messages.GossipRequest{Version: 1, Digest: 1, Rows: []*messages.NodeRow{row, stranger, forged}}); more.GetDigest() == all.GetDigest() || len(more.GetRows()) != 0 {
		t.Errorf("after a row: %v", more)
	}
	if got := ask(&messages.GossipRequest{Version: 1, Digest: 1}); len(got.GetRows()) != 2 || got.GetRows()[0].GetStart() != 1 {
		t.Errorf("rows: %v", got.GetRows())
	}
}

// TestManyChanges wait for their turn, up to a bound.
func TestManyChanges(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 3})
	x := r.electors()
	mute(x, true)
	probe := actortest.NewProbe(r.system)
	const asked = maxChanges + 5
	for i := range asked {
		probe.Ask(on("n1", nameMembership), creating(fmt.Sprint("b", i)))
	}
	actortest.Eventually(t, "some are shed", func() bool { return actortest.Count[*messages.Failure](probe) == asked-maxChanges })
	mute(x, false)
	actortest.Eventually(t, "all are answered", func() bool { return len(probe.All()) == asked })
	done := actortest.Count[*messages.ClusterReply](probe)
	if n := len(r.s.Document().Buckets); done == 0 || n < done {
		t.Errorf("%d done, %d buckets", done, n)
	}
}

// TestBallotsAfterFailure: the actor that takes over when the membership actor has
// failed does not use its ballots again: they would have two documents.
func TestBallotsAfterFailure(t *testing.T) {
	r := start(t, setup{nodes: 3})
	var mu sync.Mutex
	var ballots []member.Ballot
	for _, id := range []string{"n2", "n3"} {
		r.peers.Handle(id, func(m actortest.Received) {
			if q, ok := m.Message.(*messages.RegisterRequest); ok {
				if prepare, _, err := messages.ToRegister(q); err == nil && prepare != nil && m.Target.GetAddress() == "n2" {
					mu.Lock()
					ballots = append(ballots, prepare.Ballot)
					mu.Unlock()
				}
			}
		})
	}
	last := func(after int) (b member.Ballot) {
		actortest.Eventually(t, "a ballot", func() bool {
			mu.Lock()
			defer mu.Unlock()
			if len(ballots) > after {
				b = ballots[len(ballots)-1]
			}
			return len(ballots) > after
		})
		return b
	}
	membership := on("n1", nameMembership)
	r.probe.Ask(membership, creating("one"))
	first := last(0)
	r.disk.mu.Lock()
	r.disk.err = errTest
	r.disk.mu.Unlock()
	r.probe.Ask(membership, messages.FromPrepare(member.Prepare{
		Cluster: r.doc.ClusterID, Version: 2, Ballot: member.Ballot{Round: 9, Node: "n2", Start: 1},
	}))
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeUnknown {
		t.Errorf("the change under way was answered %v", f)
	}
	r.disk.mu.Lock()
	r.disk.err = nil
	r.disk.mu.Unlock()
	r.quiet()
	mu.Lock()
	before := len(ballots)
	mu.Unlock()
	r.probe.Ask(membership, creating("two"))
	if second := last(before); second.Compare(first) <= 0 {
		t.Errorf("ballot %v after %v", second, first)
	}
}

// TestJoinersThatWait: of too many, the one that has waited longest makes room.
func TestJoinersThatWait(t *testing.T) {
	r := start(t, setup{})
	m := &membershipActor{s: r.s, self: on("n1", nameMembership)}
	first := actortest.NewProbe(r.system)
	m.operatorJoins(first.PID)
	for range maxChanges - 1 {
		m.operatorJoins(r.probe.PID)
	}
	if n := len(first.All()) + len(r.probe.All()); n != 0 {
		t.Fatalf("%d were answered", n)
	}
	m.operatorJoins(r.probe.PID)
	if f := actortest.Next[*messages.Failure](t, first); f.GetCode() != messages.CodeOverloaded || len(m.askers) != maxChanges || len(r.probe.All()) != 0 {
		t.Errorf("%v; %d wait, %d others were answered", f, len(m.askers), len(r.probe.All()))
	}
}

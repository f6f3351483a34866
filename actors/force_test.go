package actors

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// reached are the members that n1 can reach.
type reached struct {
	mu    sync.Mutex
	nodes []dynamo.NodeID
}

func (x *reached) set(nodes ...dynamo.NodeID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.nodes = nodes
}

func (x *reached) reaches(node dynamo.NodeID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Contains(x.nodes, node)
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startCut is n1 of five, which reaches some of the others.
func startCut(t *testing.T, nodes ...dynamo.NodeID) (*rig, *reached, *lockedBuffer) {
	t.Helper()
	x, log := &reached{nodes: nodes}, &lockedBuffer{}
	r := start(t, setup{nodes: 5, change: func(c *Config) {
		c.hearing = time.Nanosecond
		c.Reachable, c.Log = x.reaches, slog.New(slog.NewTextHandler(log, nil))
	}})
	return r, x, log
}

func removing(lost ...string) *messages.ClusterRequest {
	return &messages.ClusterRequest{Operation: messages.OperationForce, Lost: lost, TimeoutMs: 1500}
}

// TestForced: when a majority is lost the others go on without it, it is in the document
// and in the log, and they decide like always from then on.
func TestForced(t *testing.T) {
	t.Parallel()
	r, _, log := startCut(t, "n1", "n2")
	x := r.electors()
	for _, n := range []string{"n3", "n4", "n5"} {
		x[n].set(func() { x[n].mute = true })
	}
	if _, f := r.operate(creating("before")); f == nil {
		t.Fatal("a change was made without a majority")
	}
	doc, f := r.operate(removing("n5", "n3", "n4"))
	if f != nil {
		t.Fatal(f)
	}
	if voters := doc.Voters(); len(doc.Forced) != 1 || doc.Forced[0].At != 1 || len(doc.Forced[0].Lost) != 3 || !slices.Equal(voters, []dynamo.NodeID{"n1", "n2"}) {
		t.Errorf("forced %+v, decided on by %v", doc.Forced, voters)
	}
	actortest.Eventually(t, "n2 hears of it", func() bool { return x["n2"].document().Version >= doc.Version })
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "removed by force") {
		t.Errorf("the log says\n%s", log)
	}
	again, f := r.operate(removing("n3", "n4", "n5"))
	if f != nil || len(again.Forced) != 1 {
		t.Errorf("the same again: %+v, %v", again.Forced, f)
	}
	if doc, f = r.operate(creating("after")); f != nil || len(doc.Buckets) != 1 {
		t.Errorf("a change afterwards: %v, %v", doc, f)
	}
}

// TestForceIsRefused with what to do instead, and changes nothing.
func TestForceIsRefused(t *testing.T) {
	t.Parallel()
	r, reached, _ := startCut(t, "n1", "n2", "n3")
	x := r.electors()
	refused := func(m *messages.ClusterRequest, code uint32, why string) {
		t.Helper()
		if _, f := r.operate(m); f.GetCode() != code || !strings.Contains(f.GetText(), why) {
			t.Errorf("%v: %v, want %q", m.GetLost(), f, why)
		}
	}
	refused(removing(), messages.CodeInvalid, "name the members that are lost")
	refused(removing("n1", "n4", "n5"), messages.CodeInvalid, "ask a member that is left")
	refused(removing("n4", "n5"), messages.CodeInvalid, "are a majority: 3 of 5; remove without --force")
	refused(removing("n4", "n5", "n9"), messages.CodeInvalid, "no such member: n9")
	refused(removing("n4", "n5", "a b"), messages.CodeInvalid, "")
	refused(removing("n3", "n4", "n5"), messages.CodeInvalid, "n3 answers n1")
	reached.set("n1")
	refused(removing("n3", "n4", "n5"), messages.CodeUnavailable, "without n2")
	reached.set("n1", "n2")
	x["n2"].set(func() { x["n2"].mute = true })
	refused(removing("n3", "n4", "n5"), messages.CodeUnavailable, "without n2")
	if doc := r.s.Document(); doc.Version != 1 {
		t.Errorf("in force is %v", doc)
	}
}

// TestForceSoonAfterTheStart: a node that may not have heard of those who live yet gives up
// nobody, neither as the one that is asked nor as one of those that vote.
func TestForceSoonAfterTheStart(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 5, change: func(c *Config) {
		c.hearing = time.Hour
		c.Reachable = (&reached{nodes: []dynamo.NodeID{"n1", "n2"}}).reaches
	}})
	r.electors()
	next, err := r.doc.Force([]dynamo.NodeID{"n3", "n4", "n5"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	const why = "n1 has just started, and may not have reached n3 yet"
	if _, f := r.operate(removing("n3", "n4", "n5")); f.GetCode() != messages.CodeInvalid || !strings.Contains(f.GetText(), why) {
		t.Errorf("asked: %v", f)
	}
	r.probe.Ask(on("n1", nameMembership), messages.FromPrepare(member.Prepare{
		Cluster: r.doc.ClusterID, Version: next.Version, Ballot: member.Ballot{Round: 1, Node: "n2", Start: 1}, Base: 1, Lost: []dynamo.NodeID{"n3", "n4", "n5"},
	}))
	reply, err := messages.ToReply(actortest.Next[*messages.RegisterReply](t, r.probe))
	if o, ok := reply.(member.Opposed); err != nil || !ok || !strings.Contains(o.Why, why) {
		t.Errorf("to vote: %v, %v", reply, err)
	}
	if doc := r.s.Document(); doc.Version != 1 {
		t.Errorf("in force is %v", doc)
	}
}

// TestOpposes: a member that hears of one who is named as lost does not take part.
func TestOpposes(t *testing.T) {
	t.Parallel()
	r, reached, _ := startCut(t, "n1", "n2", "n3")
	r.electors()
	next, err := r.doc.Force([]dynamo.NodeID{"n3", "n4", "n5"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	asked := func() member.Reply {
		probe := actortest.NewProbe(r.system)
		probe.Ask(on("n1", nameMembership), messages.FromPrepare(member.Prepare{
			Cluster: r.doc.ClusterID, Version: next.Version, Ballot: member.Ballot{Round: 1, Node: "n2", Start: 1}, Base: 1, Lost: []dynamo.NodeID{"n3", "n4", "n5"},
		}))
		reply, err := messages.ToReply(actortest.Next[*messages.RegisterReply](t, probe))
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	if got := asked(); got != (member.Opposed{Why: "n3 answers n1"}) {
		t.Errorf("with n3: %+v", got)
	}
	reached.set("n1", "n2")
	if _, ok := asked().(member.Promised); !ok {
		t.Error("without n3 it does not take part")
	}
	row := messages.FromRow(member.Row{Node: "n4", Start: 1, Counter: 1, Facts: member.Facts{Store: member.StoreID{4}}})
	r.probe.Ask(on("n1", nameMembership), &messages.GossipRequest{Version: 1, Rows: []*messages.NodeRow{row}})
	if got := asked(); got != (member.Opposed{Why: "n1 has heard of n4 just now"}) {
		t.Errorf("with news of n4: %+v", got)
	}
}

// TestLostOnesAreOverruled: a member that was given up and goes by a later plain version
// takes the forced one, and serves no more.
func TestLostOnesAreOverruled(t *testing.T) {
	t.Parallel()
	r, _, _ := startCut(t, "n1", "n2", "n3", "n4", "n5")
	r.electors()
	for _, name := range []string{"x", "y", "z"} {
		if _, f := r.operate(creating(name)); f != nil {
			t.Fatal(f)
		}
	}
	forced, err := r.doc.Force([]dynamo.NodeID{"n1", "n2", "n3"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.system.Root.Send(on("n1", nameMembership), &messages.DocumentNews{Document: messages.FromDocument(forced)})
	actortest.Eventually(t, "health says why", func() bool { return strings.Contains(r.node.Health().Reason, "n1 is no member of") })
	if now := r.s.Document(); !now.Equal(forced) {
		t.Errorf("in force is %v", now)
	}
	if f, ok := r.ask(localGet("k")).(*messages.Failure); !ok || f.GetCode() != messages.CodeNotReady {
		t.Errorf("it serves: %v", f)
	}
}

// TestForcedVoteIsKept: who has accepted a forced version does not go on with another
// one until it hears that the forced one is dead.
func TestForcedVoteIsKept(t *testing.T) {
	t.Parallel()
	r, _, log := startCut(t, "n1", "n2")
	forced, err := r.doc.Force([]dynamo.NodeID{"n3", "n4", "n5"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.probe.Ask(on("n1", nameMembership), messages.FromAccept(member.Accept{Ballot: member.Ballot{Round: 1, Node: "n2", Start: 1}, Document: forced}))
	if reply, err := messages.ToReply(actortest.Next[*messages.RegisterReply](t, r.probe)); err != nil || reply != (member.Accepted{Ballot: member.Ballot{Round: 1, Node: "n2", Start: 1}}) {
		t.Fatalf("%v, %v", reply, err)
	}
	plain, err := r.doc.CreateBucket(member.Bucket{Name: "b", Properties: bucket.Default()}, false)
	if err != nil {
		t.Fatal(err)
	}
	news := &messages.GossipRequest{Version: plain.Version, Document: messages.FromDocument(plain), TimeoutMs: 1000}
	from := func(node dynamo.NodeID) {
		r.system.Root.RequestWithCustomSender(on("n1", nameMembership), news, on(node, nameMembership))
	}
	from("n3")
	actortest.Eventually(t, "it says why not", func() bool { return strings.Contains(log.String(), member.ErrForced.Error()) })
	from("n2")
	actortest.Eventually(t, "it goes on", func() bool { d := r.s.Document(); return d.Equal(plain) })
}

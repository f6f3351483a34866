package actors

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

// move is a partition that goes from n1, stays and leaves to n1, stays and comes.
type move struct {
	t                    testing.TB
	partition            dynamo.Partition
	stays, leaves, comes string
	// spare are the other nodes.
	spare []string
}

// moveOf lets n2 leave a cluster, and finds a partition of n1's that moves.
func moveOf(t testing.TB, announced member.Document) move {
	for p := range dynamo.Partition(announced.Settled.Partitions()) {
		was, will := announced.Settled.Primaries(p, 3), announced.Next.Primaries(p, 3)
		if !slices.Contains(was, "n1") || !slices.Contains(was, "n2") || !slices.Contains(will, "n1") {
			continue
		}
		m := move{t: t, partition: p, leaves: "n2"}
		for _, node := range announced.Settled.Nodes() {
			switch old, now := slices.Contains(was, node), slices.Contains(will, node); {
			case node == "n1" || node == "n2":
			case old && now:
				m.stays = string(node)
			case now:
				m.comes = string(node)
			case !old:
				m.spare = append(m.spare, string(node))
			}
		}
		if m.stays != "" && m.comes != "" {
			return m
		}
	}
	t.Fatal("no partition moves as the test needs it")
	return move{}
}

func announce(t testing.TB, doc member.Document) member.Document {
	t.Helper()
	doc, err := doc.Stage(member.Change{Kind: member.Leave, Node: "n2"})
	if err == nil {
		doc, err = doc.Commit(doc.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// to advances the partition to a phase.
func (m move) to(doc member.Document, phase member.Phase) member.Document {
	m.t.Helper()
	for doc.Phase(m.partition) != phase {
		facts := map[dynamo.NodeID]member.Facts{}
		for _, node := range doc.Members {
			f := member.Facts{Store: node.Store, Known: doc.Movement.Announced, Target: doc.Target()}
			if phase >= member.PhaseSwitched {
				f.Filled = []dynamo.Partition{m.partition}
			}
			if phase == member.PhaseDone {
				f.Known = doc.Version
			}
			facts[node.ID] = f
		}
		next, changed := doc.Advance(facts)
		if !changed {
			m.t.Fatalf("stuck in phase %v", doc.Phase(m.partition))
		}
		doc = next
	}
	return doc
}

// startMoving starts n1 among six nodes with the document of a phase.
func startMoving(t testing.TB, phase member.Phase) (*rig, move, map[string]*replica, string) {
	t.Helper()
	var m move
	r := start(t, setup{nodes: 6, partitions: 16, document: func(doc member.Document) member.Document {
		doc = announce(t, doc)
		m = moveOf(t, doc)
		return m.to(doc, phase)
	}})
	return r, m, r.replicas("n2", "n3", "n4", "n5", "n6"), inPartition(r, m.partition)
}

// enforce brings a document into force.
func (r *rig) enforce(doc member.Document) {
	r.s.enforce(doc)
	for _, name := range []string{nameVnodes, nameCoordinator} {
		r.system.Root.Send(on("n1", name), &document{doc: doc})
	}
}

func busy() *messages.Failure { return messages.Fail(messages.CodeOverloaded, "busy") }

// TestRequestsByPhase: who reads and writes of a partition go to, and whose word
// they need. The bucket's W is 2.
func TestRequestsByPhase(t *testing.T) {
	phases := []member.Phase{member.PhaseAnnounced, member.PhaseJoint, member.PhaseSwitched, member.PhaseDone}
	for _, phase := range phases {
		joint := phase == member.PhaseJoint || phase == member.PhaseSwitched
		next := phase >= member.PhaseSwitched
		t.Run(phase.String(), func(t *testing.T) {
			r, m, x, name := startMoving(t, phase)
			all := getOf(name)
			all.Quorum = &messages.Quorum{R: 3}
			if _, ok := r.ask(all).(*messages.GetReply); !ok {
				t.Error("no read")
			}
			for node, want := range map[string]bool{m.stays: true, m.leaves: !next, m.comes: next} {
				if reads, _, _ := x[node].counts(); (reads > 0) != want {
					t.Errorf("%d reads from %s, want any: %v", reads, node, want)
				}
			}
			r.put(putOf(name, "v", nil))
			r.quiet()
			for node, want := range map[string]bool{m.stays: true, m.leaves: joint || !next, m.comes: joint || next} {
				if got := len(x[node].holds(name).Versions) > 0; got != want {
					t.Errorf("%s holds the write: %v, want %v", node, got, want)
				}
			}
			for _, node := range m.spare {
				if _, _, writes := x[node].counts(); writes > 0 {
					t.Errorf("%s stood in for nobody, and got a write", node)
				}
			}
			// What is left when two do not answer: n1 alone in a list, or two in each.
			for _, c := range []struct {
				down  []string
				works bool
			}{
				{[]string{m.leaves, m.comes}, true},
				{[]string{m.stays, m.comes}, phase == member.PhaseAnnounced},
				// As long as there is one list, the one that comes may stand in.
				{[]string{m.stays, m.leaves}, !joint},
			} {
				for node := range x {
					x[node].fail(nil)
				}
				for _, node := range append(c.down, m.spare...) {
					x[node].fail(busy())
				}
				answer := r.ask(putOf(name, fmt.Sprint("without ", c.down), nil))
				f, failed := answer.(*messages.Failure)
				if failed == c.works || failed && (f.GetCode() != messages.CodeUnknown || f.GetAnswered() != 1 || f.GetNeeded() != 2) {
					t.Errorf("without %v: %v", c.down, answer)
				}
				if failed && strings.Contains(f.GetText(), "the partition moves") != joint {
					t.Errorf("without %v: %v", c.down, f)
				}
				r.quiet()
			}
		})
	}
}

// TestNewReplica: the node that comes makes dots while there are two
// lists, and what it has not counts as a proof only when it is filled.
func TestNewReplica(t *testing.T) {
	var m move
	r := start(t, setup{nodes: 6, partitions: 64, document: func(doc member.Document) member.Document {
		doc = announce(t, doc)
		for p := range dynamo.Partition(64) {
			if !doc.Settled.IsPrimary(p, 3, "n1") && doc.Next.IsPrimary(p, 3, "n1") && doc.Settled.IsPrimary(p, 3, "n2") {
				m = move{t: t, partition: p, leaves: "n2", comes: "n1"}
			}
		}
		if m.comes == "" {
			t.Fatal("n1 gets nothing new")
		}
		return m.to(doc, member.PhaseAnnounced)
	}})
	x := r.replicas("n2", "n3", "n4", "n5", "n6")
	name, pid := inPartition(r, m.partition), on("n1", vnodeName(m.partition))
	ask := func(message any) any {
		p := actortest.NewProbe(r.system)
		p.Ask(pid, message)
		return actortest.Next[any](t, p)
	}
	read := func(plan uint64) any {
		q := readOf(m.partition, name, 0)
		q.Plan = plan
		return ask(q)
	}
	// Announced: it stands in for another, as one that is getting the partition.
	stand := replicateOf(m.partition, name, elsewhere(t, 8, "before"), true)
	stand.Plan, stand.HintFor = r.doc.Version, "n2"
	x["n2"].fail(busy())
	if _, ok := ask(stand).(*messages.ReplicateReply); !ok || r.s.hints.count().Records != 1 {
		t.Errorf("%d hints", r.s.hints.count().Records)
	}
	if reply, ok := read(r.doc.Version).(*messages.ReadReply); !ok || reply.GetAuthoritative() || len(reply.GetRecord()) == 0 {
		t.Errorf("what it keeps as its own: %v", reply)
	}
	// What it keeps for another only is read there, too.
	p, kept := actortest.NewProbe(r.system), keyOf(secondIn(r, m.partition, name))
	p.Ask(pid, &coordinate{
		key: kept, n: 3, position: ring.Hash(kept).Bytes(), sync: true, plan: r.doc.Version, hintFor: "n2",
		put: vnode.Put{Value: []byte("kept"), Now: 1},
	})
	actortest.Next[*durable](t, p)
	q := readOf(m.partition, kept.Name, 0)
	q.Plan = r.doc.Version
	if reply, ok := ask(q).(*messages.ReadReply); !ok || !slices.Equal(values(t, reply.GetRecord()), []string{"kept"}) {
		t.Errorf("what it keeps for another: %v", reply)
	}
	x["n2"].fail(nil)
	for _, key := range []string{name, kept.Name} {
		actortest.Eventually(t, "the hint is delivered", func() bool { return len(x["n2"].holds(key).Versions) == 1 })
	}
	name = secondIn(r, m.partition, kept.Name)

	r.enforce(m.to(r.doc, member.PhaseJoint))
	joint := r.s.Document().Version
	if reply, ok := read(joint).(*messages.ReadReply); !ok || reply.GetAuthoritative() {
		t.Errorf("joint, nothing there: %v", reply)
	}
	// It coordinates: nothing is passed on.
	r.put(putOf(name, "v", nil))
	r.quiet()
	if n := r.node.Counters().Forwards.Load(); n != 0 || len(x["n2"].holds(name).Versions) != 1 {
		t.Errorf("%d forwards, n2 holds %v", n, x["n2"].holds(name))
	}
	if reply, ok := read(joint).(*messages.ReadReply); !ok || reply.GetAuthoritative() || !slices.Equal(values(t, reply.GetRecord()), []string{"v"}) {
		t.Errorf("joint, written: %v", reply)
	}
	// Planned before it was joint: refused, in whatever way it comes.
	key := keyOf(name)
	write := replicateOf(m.partition, name, elsewhere(t, 9, "w"), true)
	write.Plan = joint - 1
	for what, message := range map[string]any{
		"read": readOf(m.partition, name, 0), "write": write, "hint": &messages.ReplicateRequest{
			Partition: uint32(m.partition), Bucket: bucketB, Key: []byte(name), Record: write.GetRecord(), N: 3, Plan: joint - 1, HintFor: "n3", ReadMs: readNow(),
		},
		"coordinate": &coordinate{key: key, n: 3, position: ring.Hash(key).Bytes(), sync: true, plan: joint - 1, put: vnode.Put{Now: 1}},
	} {
		if f, ok := ask(message).(*messages.Failure); !ok || f.GetCode() != messages.CodeStale || f.GetDocumentVersion() != joint {
			t.Errorf("a %s of an old plan: %v", what, f)
		}
	}
	if got := values(t, read(joint).(*messages.ReadReply).GetRecord()); !slices.Equal(got, []string{"v"}) {
		t.Errorf("what was refused was written: %v", got)
	}
	// A handoff has no plan.
	handoff := &messages.HandoffRequest{Partition: uint32(m.partition), N: 3, ReadMs: readNow(), Records: []*messages.HandoffRecord{
		{Bucket: bucketB, Key: []byte(name), Record: write.GetRecord()},
	}}
	if _, ok := ask(handoff).(*messages.HandoffReply); !ok {
		t.Error("a handoff was refused")
	}
	// A newer document under which the replicas are the same makes no plan stale.
	same := *r.s.Document()
	same.Version++
	r.enforce(same)
	if reply, ok := read(joint).(*messages.ReadReply); !ok {
		t.Errorf("after a version that moves nothing: %v", reply)
	}
	r.enforce(m.to(*r.s.Document(), member.PhaseSwitched))
	name = secondIn(r, m.partition, name)
	if reply, ok := read(r.s.Document().Version).(*messages.ReadReply); !ok || !reply.GetAuthoritative() {
		t.Errorf("switched: %v", reply)
	}
}

// secondIn is another key of a partition.
func secondIn(r *rig, p dynamo.Partition, name string) string {
	for i := 0; ; i++ {
		if other := fmt.Sprint(name, i); r.doc.Settled.PartitionOf(keyOf(other)) == p {
			return other
		}
	}
}

// TestBehind: a node that is no replica as far as it knows says of a newer plan that
// it is not ready; of one that it knows, that it is wrong.
func TestBehind(t *testing.T) {
	r := start(t, setup{nodes: 6, partitions: 64})
	r.replicas("n2", "n3", "n4", "n5", "n6")
	name, _ := r.outside()
	p := r.doc.Settled.PartitionOf(keyOf(name))
	for plan, want := range map[uint64]uint32{1: messages.CodeInvalid, 2: messages.CodeNotReady} {
		m := replicateOf(p, name, elsewhere(t, 9, "v"), true)
		m.Plan = plan
		r.probe.Ask(on("n1", vnodeName(p)), m)
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != want {
			t.Errorf("plan %d: %v", plan, f)
		}
	}
}

// staleAt refuses as a replica does that knows a version.
func staleAt(version uint64) *messages.Failure {
	f := messages.Fail(messages.CodeStale, "test")
	f.DocumentVersion = version
	return f
}

// TestPlannedAnew: a request that a replica refuses as stale waits for the document,
// is planned with it and answered once; a write stays one write.
func TestPlannedAnew(t *testing.T) {
	r, m, x, name := startMoving(t, member.PhaseAnnounced)
	joint := m.to(r.doc, member.PhaseJoint)
	switched := m.to(joint, member.PhaseSwitched)
	waiting := func(kind string) {
		t.Helper()
		actortest.Eventually(t, "the request waits for the document", func() bool {
			return len(r.processes(kind)) == 1 && x[m.leaves].refusals() > 0
		})
	}
	put := putOf(name, "v", nil)
	put.RequestId = bytes.Repeat([]byte{7}, 16)
	put.Quorum = &messages.Quorum{W: 3} // so that the refusal comes before the quorum
	x[m.leaves].fail(staleAt(joint.Version))
	writer := actortest.NewProbe(r.system)
	writer.Ask(r.coordinator(), put)
	waiting(messages.TargetPut)
	if len(writer.All()) != 0 {
		t.Fatalf("answered %v", writer.All())
	}
	x[m.leaves].fail(nil)
	r.enforce(joint)
	actortest.Next[*messages.PutReply](t, writer)
	r.quiet()
	for _, node := range []string{m.stays, m.leaves, m.comes} {
		if got := x[node].holds(name).Versions; len(got) != 1 {
			t.Errorf("%s holds %v", node, got)
		}
	}
	if n := r.node.Counters().Repeated.Load(); n != 0 {
		t.Errorf("the vnode was asked to make the write %d times more", n)
	}

	// All that answer the old plan have an old record; the new plan asks one that
	// has more.
	get := getOf(name)
	get.Quorum = &messages.Quorum{R: 3}
	more := version.Merge(x[m.comes].holds(name), elsewhere(t, 9, "more"))
	x[m.comes].set(name, more)
	x[m.leaves].fail(staleAt(switched.Version))
	reader := actortest.NewProbe(r.system)
	reader.Ask(r.coordinator(), get)
	waiting(messages.TargetGet)
	r.enforce(switched)
	reply := actortest.Next[*messages.GetReply](t, reader)
	if len(reply.GetValues()) != 2 || len(reader.All()) != 1 || len(writer.All()) != 1 {
		t.Errorf("read %v; %d and %d answers", reply, len(reader.All()), len(writer.All()))
	}
}

// refusals is how many requests a replica refused.
func (x *replica) refusals() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.refused
}

// TestNotPlannedAnew: without the document in time the client is told how it stands; a
// document that keeps changing ends in an answer, too.
func TestNotPlannedAnew(t *testing.T) {
	r, m, x, name := startMoving(t, member.PhaseAnnounced)
	x[m.leaves].fail(staleAt(r.doc.Version + 1))
	three := &messages.Quorum{R: 3, W: 3}
	get, put, nameless := getOf(name), putOf(name, "v", nil), putOf(name, "v", nil)
	get.Quorum, put.Quorum, nameless.Quorum = three, three, three
	get.TimeoutMs, put.TimeoutMs, nameless.TimeoutMs = 50, 50, 50
	put.RequestId = bytes.Repeat([]byte{7}, 16)
	for what, c := range map[string]struct {
		request any
		want    uint32
	}{
		"read": {get, messages.CodeStale}, "write": {put, messages.CodeUnknown}, "write without id": {nameless, messages.CodeUnknown},
	} {
		if answer := r.ask(c.request); code(answer) != c.want {
			t.Errorf("%s: %v", what, answer)
		}
	}
	r.quiet()

	// Each refusal names a version that is in force by then.
	doc, before := r.doc, x[m.leaves].refusals()
	reader := actortest.NewProbe(r.system)
	get.TimeoutMs = 0
	reader.Ask(r.coordinator(), get)
	for range rounds {
		doc.Version++
		r.enforce(doc)
		x[m.leaves].fail(staleAt(doc.Version + 1))
	}
	for len(reader.All()) == 0 {
		doc.Version++
		r.enforce(doc)
	}
	answer := actortest.Next[any](t, reader)
	if n := x[m.leaves].refusals() - before; code(answer) != messages.CodeStale || n != rounds {
		t.Errorf("a document that keeps changing: planned %d times, %v", n, answer)
	}
}

// TestRepeats: what is planned anew. A write that was made and whose record is not known
// must have an id.
func TestRepeats(t *testing.T) {
	named := putOf("k", "v", nil)
	named.RequestId = bytes.Repeat([]byte{7}, 16)
	made := &request.Prepared{}
	for what, c := range map[string]struct {
		o         order
		attempted bool
		want      bool
	}{
		"a read":                      {order{request: getOf("k")}, false, true},
		"a read, the last round":      {order{request: getOf("k"), round: rounds - 1}, false, false},
		"not attempted":               {order{request: putOf("k", "v", nil)}, false, true},
		"attempted, with id":          {order{request: named}, true, true},
		"attempted, without id":       {order{request: putOf("k", "v", nil)}, true, false},
		"attempted, the record known": {order{request: putOf("k", "v", nil), prepared: made}, true, true},
	} {
		if got := c.o.repeats(c.attempted); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// TestVerdict: what a later round says of a write that an earlier one may have made is
// not that nothing was written, whoever says so.
func TestVerdict(t *testing.T) {
	r := start(t, setup{})
	for _, c := range []struct {
		attempted  bool
		code, want uint32
	}{
		{false, messages.CodeUnavailable, messages.CodeUnavailable}, {true, messages.CodeUnavailable, messages.CodeUnknown},
		{true, messages.CodeStale, messages.CodeUnknown}, {true, messages.CodeForgotten, messages.CodeForgotten},
	} {
		o := &order{request: putOf("k", "v", nil), client: r.probe.PID, attempted: c.attempted}
		if got := o.verdict(messages.Fail(c.code, "test")); got.GetCode() != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	again := &order{request: putOf("k", "v", nil), client: r.probe.PID, round: 1, attempted: true}
	for _, refuse := range []func(){
		func() { r.s.shed(nil, again) }, func() { r.s.expired(nil, again) }, func() { r.s.failed(nil, again) },
		func() { // the node stops
			r.system.Root.Send(r.coordinator(), &finishRequests{done: func() {}})
			r.system.Root.Send(r.coordinator(), again)
		},
	} {
		refuse()
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeUnknown {
			t.Errorf("%v", f)
		}
	}
}

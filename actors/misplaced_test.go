package actors

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// leftover is a rig whose n1 has objects of a partition that it is no replica of.
type leftover struct {
	*sloppy
	p         dynamo.Partition
	primaries []dynamo.NodeID
	names     []string
}

func startLeftover(t *testing.T, count int, prepare func(*leftover)) *leftover {
	t.Helper()
	disk := diskOf(t)
	doc := documentOf(t, setup{nodes: 5, partitions: 16})
	x := &leftover{}
	for i := 0; len(x.names) < count; i++ {
		name := fmt.Sprintf("k%d", i)
		p := doc.Settled.PartitionOf(keyOf(name))
		if doc.Settled.IsPrimary(p, 3, "n1") || len(x.names) > 0 && p != x.p {
			continue
		}
		x.p, x.names = p, append(x.names, name)
		put(t, disk, p, name, elsewhere(t, 1, name))
	}
	x.primaries = doc.Settled.Primaries(x.p, 3)
	x.sloppy = startSloppy(t, keep{disk}, nil)
	if prepare != nil {
		prepare(x)
	}
	return x
}

func (x *leftover) left() int {
	n := 0
	lower, upper := vnode.ReplicaRange(x.p, 3)
	if err := x.engine.Scan(lower, upper, func(_, _ []byte) bool { n++; return true }); err != nil {
		x.t.Fatal(err)
	}
	return n
}

// refuseAll has all others refuse.
func (x *leftover) refuseAll(f *messages.Failure) {
	for _, r := range x.others {
		r.fail(f)
	}
}

// TestMisplacedObjects: objects that a node is no replica of go to those that are,
// and then are gone; before that the node is not idle.
func TestMisplacedObjects(t *testing.T) {
	t.Parallel()
	x := startLeftover(t, 150, func(x *leftover) {
		x.others[string(x.primaries[1])].fail(messages.Fail(messages.CodeStorage, "no disk"))
	})
	// One of the replicas has been lost: two can be asked, and both must confirm.
	x.peers.Handle(string(x.primaries[0]), nil)
	actortest.Eventually(t, "it is known that there are some", func() bool { return len(x.s.misplaced.list()) == 1 })
	third := x.others[string(x.primaries[2])]
	actortest.Eventually(t, "one has all of it", func() bool { return third.handed() >= len(x.names) })
	if x.s.idle() || x.left() != len(x.names) {
		t.Fatalf("idle: %v, %d left of %d", x.s.idle(), x.left(), len(x.names))
	}
	x.others[string(x.primaries[1])].fail(nil)
	actortest.Eventually(t, "the node is idle", x.s.idle)
	if n := x.left(); n != 0 {
		t.Errorf("%d are left", n)
	}
	for _, name := range x.names {
		for _, node := range x.primaries[1:] {
			if got := x.others[string(node)].holds(name).Versions; len(got) != 1 || string(got[0].Value) != name {
				t.Fatalf("%s holds %v of %s", node, got, name)
			}
		}
	}
	if got := x.node.Counters().Moved.Load(); got != uint64(len(x.names)) {
		t.Errorf("%d counted as moved", got)
	}
	// What is dropped is dropped from the hash tree, too: should the node become a replica
	// again, it must not seem to have what it has not.
	actortest.Eventually(t, "the tree was read", func() bool { return x.node.Counters().TreeRanges.Load() >= 1<<hashtree.MinBits })
	x.stop()
	if tree := loadSaved(t, x.engine, x.doc.Settled.Partitions(), x.p); tree.Root() != (hashtree.Node{}) {
		t.Errorf("the tree has %v", tree.Root())
	}
}

// TestMisplacedAndMarked: a misplaced object stays as long as a mark says that a replica
// which is down lacks it: the mark has nothing else to give.
func TestMisplacedAndMarked(t *testing.T) {
	t.Parallel()
	x := startLeftover(t, 2, func(x *leftover) { x.refuseAll(busy()) })
	down, marked := string(x.primaries[0]), keyOf(x.names[0])
	x.opinions.set(x.primaries[0], true)
	x.peers.Handle(down, nil)
	actortest.Eventually(t, "the partition's vnode marks it", func() bool {
		if x.s.hints.count().Records == 0 {
			x.system.Root.Send(on("n1", vnodeName(x.p)), &keepHint{key: marked, n: 3, position: ring.Hash(marked).Bytes(), node: x.primaries[0]})
		}
		return x.s.hints.count().Records == 1
	})
	x.refuseAll(nil)
	actortest.Eventually(t, "the other one is gone", func() bool { return x.left() == 1 })
	tries := x.others[string(x.primaries[1])].handed()
	actortest.Eventually(t, "it was tried again", func() bool { return x.others[string(x.primaries[1])].handed() > tries })
	if got := storedIn(t, x.engine, x.p, marked.Name); got.IsZero() || x.s.idle() {
		t.Fatalf("n1 has %v, idle: %v", got, x.s.idle())
	}
	x.peers.Handle(down, x.others[down].receive)
	x.opinions.set(x.primaries[0], false)
	actortest.Eventually(t, "the node is idle", x.s.idle)
	if got := x.others[down].holds(marked.Name).Versions; x.left() != 0 || len(got) != 1 {
		t.Errorf("%d left; who was down has %v", x.left(), got)
	}
}

// TestMisplacedTooFew: one replica alone is not enough to drop what lies here.
func TestMisplacedTooFew(t *testing.T) {
	t.Parallel()
	x := startLeftover(t, 3, func(x *leftover) {
		x.peers.Handle(string(x.primaries[0]), nil)
		x.peers.Handle(string(x.primaries[1]), nil)
	})
	last := x.others[string(x.primaries[2])]
	actortest.Eventually(t, "it was tried twice", func() bool { return last.handed() >= 6 })
	if n := x.left(); n != 3 || x.s.idle() {
		t.Errorf("%d left, idle: %v", n, x.s.idle())
	}
}

// TestMisplacedWithoutVnode: a partition that n1 is nowhere on the list of has a
// vnode as long as something lies there.
func TestMisplacedWithoutVnode(t *testing.T) {
	t.Parallel()
	disk := diskOf(t)
	doc := joinUnderWay(t)
	doc.Next, doc.Movement.Filling, doc.Movement.Joint = nil, nil, 0 // n1 is in no ring
	name := "k"
	p := doc.Settled.PartitionOf(keyOf(name))
	put(t, disk, p, name, elsewhere(t, 1, "v"))
	r := start(t, setup{nodes: 4, partitions: 16, engine: keep{disk}, document: func(member.Document) member.Document { return doc }})
	others := r.replicas("n2", "n3", "n4")
	actortest.Eventually(t, "the node is idle", r.s.idle)
	if got := storedIn(t, r.engine, p, name); !got.IsZero() {
		t.Errorf("left: %v", got)
	}
	for node, x := range others {
		if len(x.holds(name).Versions) != 1 {
			t.Errorf("%s has it not", node)
		}
	}
}

// TestDropMisplaced: the vnode drops no object that has changed since, nor one that
// belongs here by now; a damaged one is set aside.
func TestDropMisplaced(t *testing.T) {
	x := startLeftover(t, 3, func(x *leftover) { x.refuseAll(messages.Fail(messages.CodeOverloaded, "busy")) })
	drop := func(h hint) int {
		p := actortest.NewProbe(x.system)
		at, _, _ := vnode.ParseObjectKey(h.object)
		p.Ask(on("n1", vnodeName(at)), &dropHints{hints: []hint{h}})
		return actortest.Next[*hintsDropped](t, p).kept
	}
	key := object(x.p, x.names[0])
	actortest.Eventually(t, "the vnode serves", func() bool { return x.s.vnodes.has(x.p) })
	if kept := drop(hint{key: key, object: key, record: elsewhere(t, 2, "older")}); kept != 1 || x.left() != 3 {
		t.Errorf("changed since: %d kept, %d left", kept, x.left())
	}
	if kept := drop(hint{key: key, object: key, damaged: true}); kept != 1 || x.left() != 3 {
		t.Errorf("was damaged, and is whole: %d kept, %d left", kept, x.left())
	}
	if kept := drop(hint{key: key, object: key, record: elsewhere(t, 1, x.names[0])}); kept != 0 || x.left() != 2 {
		t.Errorf("as it was: %d kept, %d left", kept, x.left())
	}
	bad := object(x.p, x.names[1])
	b := x.engine.NewBatch()
	b.Set(bad, []byte{1, 0, 0, 0, 0, 0, 0})
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	if kept := drop(hint{key: bad, object: bad, damaged: true}); kept != 0 || x.left() != 1 {
		t.Errorf("damaged: %d kept, %d left", kept, x.left())
	}
	if _, err := x.engine.Get(nil, vnode.CorruptKey(bad)); err != nil {
		t.Errorf("not set aside: %v", err)
	}
	name, p, _ := x.key(true, 0)
	own := object(p, name)
	put(t, x.engine, p, name, elsewhere(t, 1, "v"))
	if kept := drop(hint{key: own, object: own, record: elsewhere(t, 1, "v")}); kept != 1 || storedIn(t, x.engine, p, name).IsZero() {
		t.Errorf("belongs here: %d kept", kept)
	}
}

// TestRingChangesUnderTransfer: what was confirmed by the replicas of an older ring
// is not dropped.
func TestRingChangesUnderTransfer(t *testing.T) {
	t.Parallel()
	x := startHinted(t)
	x.opinions.set(x.back, false)
	m := x.next()
	doc := x.doc
	next := x.doc.Settled.Renamed(map[dynamo.NodeID]dynamo.NodeID{other(x.doc.Settled.Primaries(x.p, 3), 1): "n9"}).WithVersion(x.doc.Target() + 1)
	doc.Version++
	doc.Next, doc.Movement.Announced, doc.Movement.Joint = &next, doc.Version, doc.Version
	x.enforce(doc)
	x.confirm(m)
	x.next() // offered again
	if got := x.hintsOf(); got.Records != 1 {
		t.Errorf("%+v is kept", got)
	}
}

// TestHintsOfFormerReplica: hints for a node that is no replica go to those that are,
// although it never comes back.
func TestHintsOfFormerReplica(t *testing.T) {
	x := startSloppy(t, nil, nil)
	name, p, primaries := x.key(false, 0)
	former := dynamo.NodeID("")
	for node := range x.others {
		if !slices.Contains(primaries, dynamo.NodeID(node)) {
			former = dynamo.NodeID(node)
		}
	}
	x.opinions.set(former, true)
	x.peers.Handle(string(former), nil)
	m := replicateOf(p, name, elsewhere(t, 1, "v"), true)
	m.HintFor = string(former)
	x.probe.Ask(on("n1", vnodeName(p)), m)
	actortest.Next[*messages.ReplicateReply](t, x.probe)
	actortest.Eventually(t, "the hint is gone", func() bool { return x.hintsOf() == HintCount{} })
	for _, node := range primaries {
		if got := x.others[string(node)].holds(name); len(got.Versions) != 1 {
			t.Errorf("%s holds %v", node, got)
		}
	}
}

// TestIntendedNodeGetsAll: with the other replicas dead nothing can be dropped, and
// the intended node gets all the same everything that is kept for it.
func TestIntendedNodeGetsAll(t *testing.T) {
	x := startSloppy(t, nil, nil)
	_, p, primaries := x.key(false, 0)
	x.opinions.set(primaries[0], true)
	for _, node := range primaries[1:] {
		x.peers.Handle(string(node), nil)
		x.opinions.set(node, true)
	}
	var names []string
	for i := 0; len(names) < 2*batchRecords+1; i++ {
		name, at, _ := x.key(false, i)
		if at != p {
			continue
		}
		names = append(names, name)
		m := replicateOf(p, name, elsewhere(t, 1, "v"), true)
		m.HintFor = string(primaries[0])
		x.probe.Ask(on("n1", vnodeName(p)), m)
		actortest.Next[*messages.ReplicateReply](t, x.probe)
	}
	x.opinions.set(primaries[0], false)
	back := x.others[string(primaries[0])]
	actortest.Eventually(t, "it has everything", func() bool {
		return !slices.ContainsFunc(names, func(name string) bool { return len(back.holds(name).Versions) != 1 })
	})
	if got := x.hintsOf(); got.Records != len(names) {
		t.Errorf("%+v is kept of %d", got, len(names))
	}
}

// TestGivenIsRemembered: the next transfer knows that the intended node has all,
// until something was dropped or the node was away.
func TestGivenIsRemembered(t *testing.T) {
	var down opinions
	doc := documentOf(t, setup{nodes: 3})
	s := &Services{Config: Config{Self: "n1", Log: slog.New(slog.DiscardHandler), Reachable: down.reachable}, Counters: &Counters{}}
	x := &transfersActor{s: s, later: map[work]*delay{}, delivered: map[dynamo.NodeID]int{}}
	at := slot{node: "n2"}
	s.hints.add(at, HintCount{Records: 1})
	end := func(o transfer.Outcome) bool {
		x.ended(&transferEnded{at: at, outcome: o})
		return x.later[work{slot: at}].given
	}
	if !end(transfer.Outcome{Given: true}) || !end(transfer.Outcome{}) {
		t.Error("forgotten")
	}
	if end(transfer.Outcome{Dropped: 1}) {
		t.Error("something was dropped")
	}
	end(transfer.Outcome{Given: true})
	down.set("n2", true)
	if got := x.todo(&doc); len(got) != 0 || x.later[work{slot: at}].given {
		t.Errorf("it was away: %v, %v", got, x.later[work{slot: at}].given)
	}
}

// TestHandoffOfBrokenRecord: a record whose dot names another value here is refused;
// the vnode does not restart for it.
func TestHandoffOfBrokenRecord(t *testing.T) {
	r := start(t, setup{})
	before := r.written("k", "one", none)
	rec := before.Stored.Record
	record := replicateOf(0, "k", poison(rec), true).GetRecord()
	r.probe.Ask(r.pid(), &messages.HandoffRequest{
		Batch: 1, N: 3, ReadMs: readNow(), Records: []*messages.HandoffRecord{{Bucket: bucketB, Key: []byte("k"), Record: record}},
	})
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeInvalid || !strings.Contains(f.GetText(), "one dot names two values") {
		t.Errorf("answered %v", f)
	}
	if got := values(t, r.read("k").GetRecord()); !slices.Equal(got, []string{"one"}) {
		t.Errorf("reads %v", got)
	}
	if stats, ok := r.node.Registry().Find("vnode/0"); !ok || stats.Restarts != 0 {
		t.Errorf("restarted: %+v", stats)
	}
}

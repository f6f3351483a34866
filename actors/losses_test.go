package actors

import (
	"errors"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// TestOnlyCopyIsKept: what cannot be read of a replica that nobody else has costs that alone.
func TestOnlyCopyIsKept(t *testing.T) {
	r := start(t, setup{})
	r.written("bad", "v", none)
	r.written("good", "v", none)
	key := objectKey("bad")
	r.engine.Damage(key, append(key, 0))
	r.probe.Ask(r.pid(), readOf(0, "bad", 0))
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeStorage {
		t.Errorf("answered %v", f)
	}
	actortest.Eventually(t, "health says that it is kept", func() bool {
		d := r.node.Health().Damage
		return d.Partitions == 1 && d.Kept != "" && d.Filling == 0
	})
	if m := r.read("good"); !m.GetAuthoritative() || len(m.GetRecord()) == 0 {
		t.Errorf("another key: %v", m)
	}
	r.written("new", "v", none)
	if r.node.Counters().Lost.Load() != 0 {
		t.Error("it was dropped")
	}
}

// lostIn is a document in which n1 has lost partition 0.
func lostIn(d member.Document) member.Document {
	d, err := d.LoseReplica(0, "n1", member.StoreID{1}, d.Version)
	if err != nil {
		panic(err)
	}
	return d
}

// TestLostReplicaIsDropped, at the start before anything is served, once: its objects, and who
// the vnode was; not what it keeps for others or has set aside.
func TestLostReplicaIsDropped(t *testing.T) {
	before := start(t, setup{nodes: 3})
	before.written("k", "v", none)
	key := objectKey("k")
	aside := vnode.CorruptKey(objectKey("other"))
	b := before.engine.NewBatch()
	b.Set(aside, []byte("x"))
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	meta, err := before.engine.Get(nil, vnode.MetaKey(0))
	if err != nil {
		t.Fatal(err)
	}
	disk := copied(t, before.engine)
	r := start(t, setup{nodes: 3, engine: keep{disk}, document: lostIn})
	if _, err := r.engine.Get(nil, key); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the object: %v", err)
	}
	if _, err := r.engine.Get(nil, aside); err != nil {
		t.Errorf("what was set aside: %v", err)
	}
	now, err := r.engine.Get(nil, vnode.MetaKey(0))
	if err != nil || string(now[1:17]) == string(meta[1:17]) {
		t.Errorf("the incarnation is the same, %v", err)
	}
	if n := r.node.Counters().Lost.Load(); n != 1 {
		t.Errorf("%d dropped", n)
	}
	r.probe.Ask(r.pid(), readOf(0, "k", 0))
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeStale {
		t.Errorf("a read of before the loss: %v", f)
	}
	again := start(t, setup{nodes: 3, engine: keep{copied(t, r.engine)}, document: lostIn})
	if n := again.node.Counters().Lost.Load(); n != 0 {
		t.Errorf("dropped again: %d", n)
	}
}

// TestSuspectTakesNoWriteOfAfterTheLoss: others may know that it is lost before it does.
func TestSuspectTakesNoWriteOfAfterTheLoss(t *testing.T) {
	disk := diskOf(t)
	b := disk.NewBatch()
	b.Set(vnode.LossKey(0), vnode.Loss{Suspect: 1}.Encode())
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	r := start(t, setup{nodes: 3, engine: keep{disk}})
	m := replicateOf(0, "k", elsewhere(t, 9, "v"), true)
	for plan, ok := range map[uint64]bool{1: true, 2: false} {
		m.Plan = plan
		r.probe.Ask(r.pid(), m)
		if ok {
			actortest.Next[*messages.ReplicateReply](t, r.probe)
		} else if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeNotReady {
			t.Errorf("plan %d: %v", plan, f)
		}
	}
	if m := r.read("none"); m.GetAuthoritative() {
		t.Error("a suspect proves that there is nothing")
	}
}

// TestDropOfNeighbours: a block that has objects of two partitions goes when both are lost.
func TestDropOfNeighbours(t *testing.T) {
	r := start(t, setup{nodes: 3, partitions: 4})
	_, end := vnode.ObjectRange(1)
	lower := append([]byte(nil), end...)
	lower[len(lower)-1]--
	lower = append(lower, 0xff)
	upper := append(append([]byte(nil), end...), 1)
	r.engine.Damage(lower, upper) // the end of 1 and the beginning of 2
	r.s.losses.hold(1)
	if err := r.s.dropObjects(1); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("alone: %v", err)
	}
	r.s.losses.hold(2)
	if err := r.s.dropObjects(1); err != nil {
		t.Errorf("both: %v", err)
	}
	if err := r.s.dropObjects(2); err != nil {
		t.Errorf("the other: %v", err)
	}
}

// TestNothingIsFilledBeforeItIsDropped: what is there counts as filled, and then goes.
func TestNothingIsFilledBeforeItIsDropped(t *testing.T) {
	r := start(t, setup{nodes: 3})
	doc := lostIn(r.doc)
	fills := func() int { return len((&transfersActor{s: r.s}).toFill(&doc)) }
	if n := fills(); n != 0 {
		t.Errorf("%d fills before the drop", n)
	}
	r.s.losses.droppedFor(0, doc.Version-1) // an earlier one
	if n := fills(); n != 0 {
		t.Errorf("%d fills before the second drop", n)
	}
	r.s.losses.droppedFor(0, doc.Version)
	if n := fills(); n != 1 {
		t.Errorf("%d fills after the drop", n)
	}
}

// TestLateRefusalOfALoss: that a proposal failed says nothing of a replica that was dropped
// meanwhile, because another proposal came through.
func TestLateRefusalOfALoss(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.s.losses.suspect(0, "")
	r.s.losses.free(0)
	r.s.notLost(0, errors.New("too late"))
	if r.s.losses.doubted(0) {
		t.Error("what was dropped is doubted")
	}
}

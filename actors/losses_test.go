package actors

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/faulty"
	"github.com/dynactor/dynactor/storage/memory"
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

// TestLostReplicaIsDropped, at the start before anything is served, once: what cannot be read, and who
// the vnode was; not the rest of its objects, nor what it keeps for others or has set aside.
func TestLostReplicaIsDropped(t *testing.T) {
	before := start(t, setup{nodes: 3})
	before.written("k", "v", none)
	before.written("bad", "v", none)
	key := objectKey("bad")
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
	disk := faulty.New(keep{copied(t, before.engine)})
	disk.Damage(key, append(slices.Clone(key), 0))
	r := start(t, setup{nodes: 3, engine: disk, document: lostIn})
	if _, err := r.engine.Get(nil, key); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("what could not be read: %v", err)
	}
	if _, err := r.engine.Get(nil, objectKey("k")); err != nil {
		t.Errorf("another object: %v", err)
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

// TestDropOfNeighbours: a block that has objects of two partitions goes when both are lost; if one of
// them is not given up, the other does not wait for ever.
func TestDropOfNeighbours(t *testing.T) {
	r := start(t, setup{nodes: 3, partitions: 4})
	from := place(t, r, 1)
	to := place(t, r, 2)
	r.engine.Damage(from, append(to, 0)) // the end of 1 and the beginning of 2
	r.s.losses.hold(1)
	if err := r.s.dropObjects(1, true); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("alone: %v", err)
	}
	actortest.Eventually(t, "the neighbour is a suspect", func() bool { return r.s.losses.doubted(2) })
	r.s.losses.hold(2)
	if err := r.s.dropObjects(1, true); err != nil {
		t.Errorf("both: %v", err)
	}
	if err := r.s.dropObjects(2, true); err != nil {
		t.Errorf("the other: %v", err)
	}
	again := start(t, setup{nodes: 3, partitions: 4})
	from, to = place(t, again, 1), place(t, again, 2)
	again.engine.Damage(from, append(to, 0))
	again.s.losses.hold(1)
	if err := again.s.dropObjects(1, false); err != nil {
		t.Errorf("out of patience: %v", err)
	}
	if _, err := again.engine.Get(nil, from); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("what lay there: %v", err)
	}
}

// place puts an object to a partition, any one, and returns its key.
func place(t *testing.T, r *rig, p dynamo.Partition) []byte {
	t.Helper()
	for i := range 1000 {
		key := keyOf(fmt.Sprint("k", i))
		if r.doc.Settled.PartitionOf(key) == p {
			put(t, r.engine, p, key.Name, elsewhere(t, 9, "v"))
			return vnode.AppendObjectKey(nil, p, 3, ring.Hash(key).Bytes(), key)
		}
	}
	t.Fatal("no key")
	return nil
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
	r.s.losses.suspect(0, 1)
	r.s.losses.clear(0)
	r.s.notLost(0, errors.New("too late"))
	if r.s.losses.doubted(0) {
		t.Error("what was dropped is doubted")
	}
}

// TestLateProposalOfALoss: one suspicion gives a replica up once, however often it is proposed.
func TestLateProposalOfALoss(t *testing.T) {
	r := start(t, setup{nodes: 3})
	asked := &replicaLost{partition: 0, known: 1}
	for name, tc := range map[string]struct {
		found uint64 // 0: no suspicion
		ok    bool
	}{"the suspicion stands": {1, true}, "it was given up": {0, false}, "found again since": {7, false}} {
		r.s.losses.clear(0)
		if tc.found > 0 {
			r.s.losses.suspect(0, tc.found)
		}
		if next, err := r.s.loseIn(r.doc, asked); (err == nil) != tc.ok || (next.Version > r.doc.Version) != tc.ok {
			t.Errorf("%s: version %d, %v", name, next.Version, err)
		}
	}
}

// suspectDisk is a disk that remembers that something of a partition could not be read.
func suspectDisk(t *testing.T, p dynamo.Partition) *memory.Engine {
	t.Helper()
	disk := diskOf(t)
	b := disk.NewBatch()
	b.Set(vnode.LossKey(p), vnode.Loss{Suspect: 1}.Encode())
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	return disk
}

// TestSuspectConfirmsNothing that others would drop something for.
func TestSuspectConfirmsNothing(t *testing.T) {
	r := start(t, setup{nodes: 3, engine: keep{suspectDisk(t, 0)}})
	reaping := &messages.ReapRequest{N: 3}
	for name, m := range map[string]any{
		"a question of a reaping": reaping,
		"its answer":              &reapRead{request: reaping, n: 3, whole: func() bool { return true }},
		"the end of a reaping":    &messages.ReapDropRequest{N: 3},
		"what is handed over":     &messages.HandoffRequest{N: 3, ReadMs: readNow(), Records: handed("k", elsewhere(t, 9, "v"))},
		"the end of a transfer":   &dropHints{},
	} {
		r.probe.Ask(r.pid(), m)
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeNotReady {
			t.Errorf("%s: %v", name, f)
		}
	}
}

// TestSuspectThatMovedAway: what this node is no replica of is nobody's to fill.
func TestSuspectThatMovedAway(t *testing.T) {
	o := setup{nodes: 9, partitions: 16}
	doc := documentOf(t, o)
	p := dynamo.Partition(0)
	for slices.Contains(doc.Settled.Replicas(p), "n1") {
		p++
	}
	disk := suspectDisk(t, p)
	for i, found := 0, false; !found; i++ {
		if name := fmt.Sprint("k", i); doc.Settled.PartitionOf(keyOf(name)) == p {
			put(t, disk, p, name, elsewhere(t, 9, "v"))
			found = true
		}
	}
	o.engine = keep{disk}
	r := start(t, o)
	actortest.Eventually(t, "it is no suspect any more", func() bool {
		b, err := disk.Get(nil, vnode.LossKey(p))
		if err != nil {
			t.Fatal(err)
		}
		l, err := vnode.DecodeLoss(b)
		return err == nil && l.Suspect == 0 && r.node.Health().Damage.Partitions == 0
	})
}

// TestOpensDamaged: a vnode that cannot read what it is to go by serves, proves nothing, and is a suspect.
func TestOpensDamaged(t *testing.T) {
	marks, _ := vnode.MarkRange(0, 3)
	for name, key := range map[string][]byte{
		"its own state": vnode.MetaKey(0), "what it knows of losses": vnode.LossKey(0), "a tree": vnode.TreeKey(0, 3, 0, 0), "a mark": marks, "an object": nil,
	} {
		t.Run(name, func(t *testing.T) {
			before := start(t, setup{nodes: 3})
			before.written("k", "v", none)
			before.stop()
			disk := copied(t, before.engine)
			b := disk.NewBatch()
			switch name {
			case "an object":
				key = objectKey("k")
				b.Delete(vnode.TreeKey(0, 3, 0, 0)) // it looks whether there are any
				lower, upper := vnode.MarkRange(0, 3)
				b.DeleteRange(lower, upper)
			case "what it knows of losses":
				b.Set(key, vnode.Loss{Dropped: 1}.Encode())
			case "a mark":
				b.Set(vnode.MarkKey(0, 3, 0), []byte{})
			}
			if err := b.Commit(storage.Applied, nil); err != nil {
				t.Fatal(err)
			}
			bad := faulty.New(keep{disk})
			bad.Damage(key, append(slices.Clone(key), 0, 0, 0))
			r := start(t, setup{nodes: 3, engine: bad})
			if !r.s.losses.doubted(0) {
				t.Error("no suspect")
			}
			if m := r.read("none"); m.GetAuthoritative() {
				t.Error("it proves that there is nothing")
			}
		})
	}
}

// TestReadOverADrop: what was read while a partition was dropped is not answered with.
func TestReadOverADrop(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.written("k", "v", none)
	asked := map[string]proto.Message{
		"a read": readOf(0, "none", 0), "a listing": &messages.KeysRequest{Bucket: bucketB, TimeoutMs: 10_000},
	}
	for name, m := range asked {
		shut, busy := make(chan struct{}), make(chan struct{})
		for range 2 { // all readers
			if !r.s.Readers.Submit(func() { busy <- struct{}{}; <-shut }) {
				t.Fatal("no reader")
			}
			<-busy
		}
		r.probe.Ask(r.pid(), m)
		r.written("after", "v", none) // so the vnode has taken it
		r.s.losses.hold(0)
		r.s.losses.free(0)
		close(shut)
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeNotReady {
			t.Errorf("%s: %v", name, f)
		}
	}
	look := r.s.losses.watchAll()
	r.s.losses.hold(0)
	if look() || r.s.readBatch(slot{partition: 0}, nil).err == nil {
		t.Error("what lies here for others is taken for whole")
	}
	r.s.losses.free(0)
	if look() || r.s.readBatch(slot{partition: 0}, nil).err != nil {
		t.Error("after the drop")
	}
}

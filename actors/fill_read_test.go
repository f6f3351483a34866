package actors

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// fillOf asks n1's vnode as a source.
func fillOf(p dynamo.Partition, doc member.Document) *messages.FillRequest {
	return &messages.FillRequest{Partition: uint32(p), N: 3, Target: doc.Target(), Store: storeOf(1), Batch: 7}
}

func storeOf(node byte) []byte { id := member.StoreID{node}; return id[:] }

// lacking is a document by which n2 has lost its disk.
func lacking(doc member.Document) member.Document {
	doc.Movement.Filling = []member.Fill{{Node: "n2", Whole: true}}
	return doc
}

// asN2 asks a vnode of n1 as a fill of n2.
func (r *rig) asN2(p dynamo.Partition, m *messages.FillRequest) *actortest.Probe {
	probe := actortest.NewProbe(r.system)
	r.peers.Handle("n2", func(got actortest.Received) {
		if got.Target.GetId() == "fill/0" {
			probe.SendUserMessage(probe.PID, got.Message)
		}
	})
	r.system.Root.RequestWithCustomSender(on("n1", vnodeName(p)), m, on("n2", "fill/0"))
	return probe
}

// TestNoSource: who goes by another ring, or does not know yet that writes go to
// both, or knows the asker with another store, or has not the data itself, says so.
func TestNoSource(t *testing.T) {
	joint := joinUnderWay(t)
	fill := joint.FillsOf("n1")[0]
	announced, settled := joint, joint
	announced.Movement.Joint = 0
	settled.Movement.Filling = nil
	foreign := dynamo.Partition(0)
	for joint.Holds(foreign, 1, "n1") {
		foreign++
	}
	alone := fillOf(foreign, joint)
	alone.N = 1
	other, stranger := fillOf(fill.Partition, joint), fillOf(fill.Partition, joint)
	other.Target++
	stranger.Store = storeOf(9)
	asked := fillOf(fill.Partition, joint)
	for what, c := range map[string]struct {
		doc  member.Document
		m    *messages.FillRequest
		want uint32
	}{
		"serves":                {joint, asked, 0},
		"another ring":          {joint, other, messages.CodeStale},
		"another store":         {joint, stranger, messages.CodeStale},
		"announced":             {announced, asked, messages.CodeStale},
		"knows of no fill":      {settled, asked, messages.CodeStale},
		"is no replica":         {joint, alone, messages.CodeStale},
		"another partition":     {joint, fillOf(fill.Partition+1, joint), messages.CodeInvalid},
		"no store":              {joint, &messages.FillRequest{Partition: uint32(fill.Partition), N: 3, Target: joint.Target()}, messages.CodeInvalid},
		"a cursor of another n": {joint, &messages.FillRequest{Partition: uint32(fill.Partition), N: 3, Target: joint.Target(), Store: storeOf(1), Cursor: []byte("o")}, messages.CodeInvalid},
		"no n":                  {joint, &messages.FillRequest{Partition: uint32(fill.Partition), Target: joint.Target()}, messages.CodeInvalid},
		"wants another partition": {joint, &messages.FillRequest{Partition: uint32(fill.Partition), N: 3, Target: joint.Target(), Store: storeOf(1), Wanted: []*messages.FillKey{
			{Bucket: bucketB, Key: []byte(keyElsewhere(joint, fill.Partition))},
		}}, messages.CodeInvalid},
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, setup{nodes: 4, partitions: 16, document: func(member.Document) member.Document { return c.doc }})
			to := fill.Partition
			if what == "is no replica" {
				to = foreign
			}
			if from, n := c.doc.FillRange(fill); from > 3 || n < 3 {
				t.Fatalf("n1 does not get n = 3: %d to %d", from, n)
			}
			r.probe.Ask(on("n1", vnodeName(to)), c.m)
			got := actortest.Next[any](t, r.probe)
			if code(got) != c.want {
				t.Fatalf("answered %T %v", got, got)
			}
			if m, ok := got.(*messages.FillReply); c.want == 0 && (!ok || m.GetBatch() != 7 || m.GetMore()) {
				t.Errorf("answered %v", got)
			}
		})
	}
}

func keyElsewhere(doc member.Document, p dynamo.Partition) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint(i); doc.Settled.PartitionOf(keyOf(name)) != p {
			return name
		}
	}
}

// TestFillSeesItsTurn: a source's answer has every write that the vnode took before,
// also in the same turn.
func TestFillSeesItsTurn(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{nodes: 2, engine: g, document: lacking})
	g.shut()
	r.probe.Ask(r.pid(), replicateOf(0, "a", elsewhere(t, 1, "a"), false))
	<-g.waiting
	r.probe.Ask(r.pid(), replicateOf(0, "b", elsewhere(t, 1, "b"), false)) // in one turn
	m := fillOf(0, r.doc)
	m.Store = storeOf(2)
	fills := r.asN2(0, m)
	g.pass()
	<-g.waiting // the turn, until it is let through
	var both sync.WaitGroup
	both.Add(2)
	for range 2 { // one for each reader: when both run, nothing is before them
		r.s.Readers.Submit(func() { both.Done(); both.Wait() })
	}
	both.Wait()
	if n := len(fills.All()); n > 0 {
		t.Errorf("answered before the commit: %v", fills.All())
	}
	g.release()
	reply := actortest.Next[*messages.FillReply](t, fills)
	var got []string
	for _, rec := range reply.GetRecords() {
		got = append(got, string(rec.GetKey()))
	}
	if slices.Sort(got); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("has %q", got)
	}
}

// TestFillOfFailedTurn: when the turn is not committed there is no answer with data.
func TestFillOfFailedTurn(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{nodes: 2, engine: g, document: lacking})
	g.shut()
	r.probe.Ask(r.pid(), replicateOf(0, "a", elsewhere(t, 1, "a"), false))
	<-g.waiting
	r.probe.Ask(r.pid(), replicateOf(0, "b", elsewhere(t, 1, "b"), false))
	m := fillOf(0, r.doc)
	m.Store = storeOf(2)
	fills := r.asN2(0, m)
	r.engine.FailCommits(errTest)
	g.release()
	if f := actortest.Next[any](t, fills); code(f) != messages.CodeStorage {
		t.Errorf("answered %v", f)
	}
	r.engine.Heal()
}

// TestFillPages: pages are bounded, go on at the cursor, and leave out what is
// damaged; wanted records too.
func TestFillPages(t *testing.T) {
	r := start(t, setup{})
	sizes := map[string]int{}
	for i := range 150 {
		name := fmt.Sprintf("k%03d", i)
		sizes[name] = 10
		if i%10 == 0 {
			sizes[name] = batchBytes / 3
		}
		put(t, r.engine, 0, name, elsewhere(t, 1, string(bytes.Repeat([]byte{'v'}, sizes[name]))))
	}
	damaged := object(0, "k077")
	b := r.engine.NewBatch()
	b.Set(damaged, []byte{1, 0, 0, 0, 0, 0, 0})
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	m := fillOf(0, r.doc)
	for _, digests := range []bool{false, true} {
		seen, bad, pages := map[string]bool{}, 0, 0
		for m.Cursor, m.Digests = nil, digests; ; {
			reply, ok := r.s.fillReply(0, 1, mustFill(t, m)).(*messages.FillReply)
			if !ok {
				t.Fatal("no page")
			}
			bytes := 0
			for _, rec := range reply.GetRecords() {
				seen[string(rec.GetKey())] = true
				bytes += len(rec.GetRecord())
			}
			for _, d := range reply.GetDigests() {
				seen[string(d.GetKey())] = true
			}
			if bytes > batchBytes || len(reply.GetRecords()) > batchRecords {
				t.Errorf("a page of %d records and %d bytes", len(reply.GetRecords()), bytes)
			}
			pages++
			bad += int(reply.GetDamaged())
			m.Cursor = reply.GetCursor()
			if !reply.GetMore() {
				break
			}
		}
		if len(seen) != 149 || bad != 1 || !digests && pages < 5 {
			t.Errorf("digests=%v: %d keys, %d damaged, %d pages", digests, len(seen), bad, pages)
		}
	}
	m.Digests = false
	for name := range sizes {
		m.Wanted = append(m.Wanted, &messages.FillKey{Bucket: bucketB, Key: []byte(name)})
	}
	m.Wanted = append(m.Wanted, &messages.FillKey{Bucket: bucketB, Key: []byte("none")})
	got := 0
	for len(m.Wanted) > 0 {
		reply := r.s.fillReply(0, 1, mustFill(t, m)).(*messages.FillReply)
		if reply.GetHandled() < 1 || int(reply.GetHandled()) > batchRecords {
			t.Fatalf("%d of %d handled", reply.GetHandled(), len(m.Wanted))
		}
		got += len(reply.GetRecords())
		m.Wanted = m.Wanted[reply.GetHandled():]
	}
	if got != 149 {
		t.Errorf("%d wanted records came", got)
	}
}

func mustFill(t testing.TB, m *messages.FillRequest) messages.FillBatch {
	t.Helper()
	f, err := messages.ToFill(m)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

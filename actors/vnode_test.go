package actors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

var none version.Context

func TestVnodePutReadReplicate(t *testing.T) {
	r := start(t, setup{})
	if m := r.read("k"); len(m.GetRecord()) != 0 || !m.GetAuthoritative() {
		t.Fatalf("a key never written: %v", m)
	}
	first := r.written("k", "one", none)
	if !first.NewEpoch || first.Dot.Counter != 1 {
		t.Errorf("the first write has dot %v", first.Dot)
	}
	second := r.written("k", "two", first.Stored.Record.Context())
	if second.Dot.Actor != first.Dot.Actor || second.Dot.Counter != 2 {
		t.Errorf("the second write has dot %v after %v", second.Dot, first.Dot)
	}
	for _, sync := range []bool{true, false} {
		r.probe.Ask(r.pid(), replicateOf(0, "k", elsewhere(t, 9, "three"), sync))
		actortest.Next[*messages.ReplicateReply](t, r.probe)
	}
	m := r.read("k")
	if got := values(t, m.GetRecord()); !m.GetAuthoritative() || len(got) != 2 || !slices.Contains(got, "two") || !slices.Contains(got, "three") {
		t.Errorf("read %v", got)
	}
}

// TestVnodeOneCommitForAll: what waits in the mailbox becomes one commit, and a
// later message of it sees what an earlier one wrote.
func TestVnodeOneCommitForAll(t *testing.T) {
	g := newGate(memory.New())
	r := start(t, setup{engine: g})
	g.shut()
	r.write(r.probe, "other", "x", none, true)
	<-g.waiting
	before := r.engine.Stats().Commits
	r.write(r.probe, "k", "one", none, true)
	r.write(r.probe, "k", "two", none, true)
	r.probe.Ask(r.pid(), replicateOf(0, "k", elsewhere(t, 9, "three"), true))
	g.release()
	for range 3 {
		actortest.Next[*durable](t, r.probe)
	}
	actortest.Next[*messages.ReplicateReply](t, r.probe)
	if commits := r.engine.Stats().Commits - before; commits != 2 {
		t.Errorf("%d commits, want that of the first write and one for the other three", commits)
	}
	var dots []clock.Dot
	for range 3 {
		dots = append(dots, actortest.Next[*prepared](t, r.probe).result.Dot)
	}
	if dots[1].Actor != dots[2].Actor || dots[1].Counter != 1 || dots[2].Counter != 2 {
		t.Errorf("two writes of one key in one commit got %v and %v", dots[1], dots[2])
	}
	if got := values(t, r.read("k").GetRecord()); len(got) != 3 {
		t.Errorf("read %v", got)
	}
}

// TestNoVnodeWaitsForTheDisk: while the disk hangs in a sync, every vnode still
// prepares writes and serves reads; only the word that it is durable is missing.
func TestNoVnodeWaitsForTheDisk(t *testing.T) {
	const partitions = 8
	r := start(t, setup{partitions: partitions})
	r.engine.HoldSyncs()
	probes := map[dynamo.Partition]*actortest.Probe{}
	for i := 0; len(probes) < partitions; i++ {
		key := keyOf(strings.Repeat("k", i+1))
		p := r.doc.Settled.PartitionOf(key)
		if probes[p] != nil {
			continue
		}
		probe := actortest.NewProbe(r.system)
		probes[p] = probe
		pid := on("n1", vnodeName(p))
		probe.Ask(pid, &coordinate{key: key, n: 3, position: ring.Hash(key).Bytes(), sync: true, plan: 1, put: vnode.Put{Value: []byte("v"), Now: 1}})
		actortest.Next[*prepared](t, probe)
		probe.Ask(pid, readOf(p, key.Name, 0))
		if got := values(t, actortest.Next[*messages.ReadReply](t, probe).GetRecord()); !slices.Equal(got, []string{"v"}) {
			t.Errorf("partition %d reads %v of what it has prepared", p, got)
		}
		if actortest.Count[*durable](probe) != 0 {
			t.Errorf("partition %d: durable before the sync", p)
		}
	}
	r.engine.ReleaseSyncs()
	for _, probe := range probes {
		actortest.Next[*durable](t, probe)
	}
}

// TestVnodeAnswersByDurability: with sync the answer waits for the disk, without
// it does not.
func TestVnodeAnswersByDurability(t *testing.T) {
	r := start(t, setup{})
	synced, applied := actortest.NewProbe(r.system), actortest.NewProbe(r.system)
	r.engine.HoldSyncs()
	r.write(synced, "a", "v", none, true)
	synced.Ask(r.pid(), replicateOf(0, "b", elsewhere(t, 9, "v"), true))
	r.write(applied, "c", "v", none, false)
	applied.Ask(r.pid(), replicateOf(0, "d", elsewhere(t, 9, "v"), false))
	actortest.Next[*durable](t, applied)
	actortest.Next[*messages.ReplicateReply](t, applied)
	actortest.Next[*prepared](t, synced)
	if n := len(synced.All()); n != 1 {
		t.Errorf("%d answers before the sync: %v", n, synced.All())
	}
	r.engine.ReleaseSyncs()
	actortest.Next[*durable](t, synced)
	actortest.Next[*messages.ReplicateReply](t, synced)
}

// TestVnodeFullDisk: refused writes are answered, reads go on, health says so;
// when there is room the vnode serves again without being asked, and what it
// writes then is under a new epoch.
func TestVnodeFullDisk(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	before := r.written("k", "one", none)
	r.engine.FailCommits(storage.ErrFull)
	r.write(r.probe, "k", "lost", none, true)
	r.probe.Ask(r.pid(), replicateOf(0, "k", elsewhere(t, 9, "lost"), true))
	for range 2 {
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeStorage {
			t.Errorf("refused with %v", f)
		}
	}
	if h := r.node.Health(); h.Ready || h.Serving != 0 || !strings.Contains(h.Reason, "disk is full") {
		t.Errorf("health %+v", h)
	}
	if got := values(t, r.read("k").GetRecord()); !slices.Equal(got, []string{"one"}) {
		t.Errorf("read %v", got)
	}
	r.engine.Heal()
	r.ready()
	after := r.written("k", "two", before.Stored.Record.Context())
	if !after.NewEpoch || after.Dot.Actor.Epoch <= before.Dot.Actor.Epoch {
		t.Errorf("dot %v after %v: the epoch must be new", after.Dot, before.Dot)
	}
	if actortest.Count[*prepared](r.probe)+actortest.Count[*durable](r.probe)+actortest.Count[*messages.ReplicateReply](r.probe) != 0 {
		t.Errorf("a refused write was confirmed: %v", r.probe.All())
	}
}

// TestVnodeFailedSync: nothing is acknowledged after a failed sync, ever; and
// what was applied before it is not reported as "not attempted".
func TestVnodeFailedSync(t *testing.T) {
	r := start(t, setup{})
	r.engine.FailSyncs(errors.New("bad sector"))
	r.write(r.probe, "k", "v", none, true)
	r.probe.Ask(r.pid(), replicateOf(0, "l", elsewhere(t, 9, "v"), true))
	actortest.Next[*prepared](t, r.probe)
	actortest.Next[*notDurable](t, r.probe)
	actortest.Next[*messages.Failure](t, r.probe)
	actortest.Eventually(t, "the vnode has failed", func() bool { return !r.node.Health().Ready })
	r.probe.Ask(r.pid(), replicateOf(0, "k", elsewhere(t, 9, "v"), true))
	actortest.Next[*messages.Failure](t, r.probe)
	if actortest.Count[*durable](r.probe)+actortest.Count[*messages.ReplicateReply](r.probe) != 0 {
		t.Errorf("acknowledged after a failed sync: %v", r.probe.All())
	}
}

// TestVnodeReadErrorIsNotNotFound, neither to a reader nor to a write.
func TestVnodeReadErrorIsNotNotFound(t *testing.T) {
	r := start(t, setup{})
	before := r.written("k", "one", none)
	r.engine.FailReads(errors.New("bad sector"))
	r.probe.Ask(r.pid(), readOf(0, "k", 0))
	r.write(r.probe, "k", "two", none, true)
	r.probe.Ask(r.pid(), replicateOf(0, "k", elsewhere(t, 9, "two"), true))
	for range 3 {
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeStorage {
			t.Errorf("answered %v", f)
		}
	}
	r.engine.Heal()
	if got := values(t, r.read("k").GetRecord()); !slices.Equal(got, []string{"one"}) {
		t.Errorf("read %v", got)
	}
	if after := r.written("k", "two", before.Stored.Record.Context()); after.Dot.Counter != before.Dot.Counter+1 {
		t.Errorf("dot %v after %v", after.Dot, before.Dot)
	}
}

func objectKey(name string) []byte {
	return vnode.AppendObjectKey(nil, 0, 3, ring.Hash(keyOf(name)).Bytes(), keyOf(name))
}

// damage flips a bit of what is stored under a key and returns the bytes.
func (r *rig) damage(key []byte) []byte {
	r.t.Helper()
	b, err := r.engine.Get(nil, key)
	if err != nil {
		r.t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	batch := r.engine.NewBatch()
	batch.Set(key, b)
	if err := batch.Commit(storage.Applied, nil); err != nil {
		r.t.Fatal(err)
	}
	return b
}

// TestVnodeCorruptValue: damaged bytes are missing, never "not found"; a write
// sets them aside and takes a new epoch.
func TestVnodeCorruptValue(t *testing.T) {
	writes := map[string]func(r *rig, lost vnode.Result){
		"put": func(r *rig, lost vnode.Result) {
			if after := r.written("k", "two", none); !after.NewEpoch || after.Dot.Actor == lost.Dot.Actor {
				t.Errorf("dot %v after the loss of %v", after.Dot, lost.Dot)
			}
		},
		"replicate": func(r *rig, lost vnode.Result) {
			// The record comes back from another replica, with our own entry.
			r.probe.Ask(r.pid(), replicateOf(0, "k", lost.Stored.Record, true))
			actortest.Next[*messages.ReplicateReply](r.t, r.probe)
			if after := r.written("k", "two", none); !after.NewEpoch || after.Dot.Actor == lost.Dot.Actor {
				t.Errorf("dot %v after the loss of %v", after.Dot, lost.Dot)
			}
		},
	}
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			r := start(t, setup{})
			lost := r.written("k", "one", none)
			bytesThen := r.damage(objectKey("k"))
			for _, digest := range []uint32{0, 1} {
				r.probe.Ask(r.pid(), readOf(0, "k", digest))
				if m := actortest.Next[*messages.ReadReply](t, r.probe); len(m.GetRecord()) != 0 || m.GetAuthoritative() {
					t.Errorf("digest %d: a damaged value is answered with %v", digest, m)
				}
			}
			seen, _ := r.s.hints.apart(0)
			write(r, lost)
			if after, _ := r.s.hints.apart(0); seen != 0 || after == 0 {
				t.Errorf("reaping is told %d times of a damaged value that is seen and %d times when it was replaced, want none and some", seen, after)
			}
			aside, err := r.engine.Get(nil, vnode.CorruptKey(objectKey("k")))
			if err != nil || !bytes.Equal(aside, bytesThen) {
				t.Errorf("set aside: %x, %v", aside, err)
			}
			// By the reads, by the write, and if it comes in between, by what reads for the tree.
			if n := r.node.Counters().Corrupt.Load(); n < 3 || n > 5 {
				t.Errorf("counted %d, want 3 to 5", n)
			}
			if m := r.read("k"); !m.GetAuthoritative() || len(m.GetRecord()) == 0 {
				t.Errorf("after the write: %v", m)
			}
		})
	}
}

// TestVnodeNewerFormat: what a newer program wrote is not overwritten.
func TestVnodeNewerFormat(t *testing.T) {
	r := start(t, setup{})
	b := r.engine.NewBatch()
	future := []byte("\xff????something of the future")
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli)) // all formats have it, in one place
	for _, part := range [][]byte{objectKey("k"), future[:1], future[5:]} {
		sum.Write(part)
	}
	binary.BigEndian.PutUint32(future[1:], sum.Sum32())
	b.Set(objectKey("k"), future)
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	r.probe.Ask(r.pid(), readOf(0, "k", 0))
	r.write(r.probe, "k", "v", none, true)
	for range 2 {
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeStorage {
			t.Errorf("answered %v", f)
		}
	}
}

func TestVnodeRefusesWhatIsNotItsOwn(t *testing.T) {
	r := start(t, setup{partitions: 2})
	wrong := 1 - r.doc.Settled.PartitionOf(keyOf("k"))
	for name, m := range map[string]any{
		"read of another partition":      readOf(1-wrong, "k", 0),
		"read of a key that is not here": readOf(wrong, "k", 0),
		"read without n":                 &messages.ReadRequest{Partition: uint32(wrong), Bucket: bucketB, Key: []byte("k")},
		"write of a key not here":        replicateOf(wrong, "k", elsewhere(t, 9, "v"), true),
		"write of a damaged record":      &messages.ReplicateRequest{Partition: uint32(wrong), Bucket: bucketB, Key: []byte("k"), N: 3, Record: []byte("?")},
		"listing of another partition":   &messages.KeysRequest{Partition: uint32(1 - wrong), Bucket: bucketB},
		"cursor of another partition":    &messages.KeysRequest{Partition: uint32(wrong), Bucket: bucketB, Cursor: []byte("o\x00\x00\x00\x09")},
	} {
		t.Run(name, func(t *testing.T) {
			probe := actortest.NewProbe(r.system)
			probe.Ask(on("n1", vnodeName(wrong)), m)
			if f := actortest.Next[*messages.Failure](t, probe); f.GetCode() != messages.CodeInvalid {
				t.Errorf("answered %v", f)
			}
		})
	}
}

// TestBucketCreatedSince: what was planned before a bucket had an n of its own is
// refused: where that puts a key nobody would look for it.
func TestBucketCreatedSince(t *testing.T) {
	r := start(t, setup{nodes: 3})
	own := bucket.Default()
	own.Quorum.N = 2
	doc, err := r.doc.CreateBucket(member.Bucket{Name: "b", Properties: own}, false)
	if err != nil {
		t.Fatal(err)
	}
	r.enforce(doc)
	key := keyOf("k")
	for _, c := range []struct {
		plan   uint64
		n      int
		failed bool
	}{
		{1, 3, true}, {2, 2, false},
		{3, 3, false}, // who has planned it knows better
	} {
		write, read := replicateOf(0, "k", elsewhere(t, 9, "w"), true), readOf(0, "k", 0)
		write.N, write.Plan, read.N, read.Plan = uint32(c.n), c.plan, uint32(c.n), c.plan
		for what, message := range map[string]any{
			"read": read, "write": write,
			"coordinate": &coordinate{key: key, n: c.n, position: ring.Hash(key).Bytes(), plan: c.plan, put: vnode.Put{Now: 1}},
		} {
			p := actortest.NewProbe(r.system)
			p.Ask(r.pid(), message)
			f, failed := actortest.Next[any](t, p).(*messages.Failure)
			if failed != c.failed || failed && (f.GetCode() != messages.CodeStale || f.GetDocumentVersion() != 2) {
				t.Errorf("a %s with n = %d of version %d: %v", what, c.n, c.plan, f)
			}
		}
	}
}

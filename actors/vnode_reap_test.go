package actors

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

func reapKeyOf(name string, hash [version.HashSize]byte, due dynamo.Timestamp) *messages.ReapKey {
	return messages.FromReapKeys([]messages.ReapKeyOf{{Key: keyOf(name), Hash: hash, Due: due}})[0]
}

// asksToReap asks what the node has of some keys.
func (r *rig) asksToReap(keys ...*messages.ReapKey) *messages.ReapReply {
	r.t.Helper()
	p := actortest.NewProbe(r.system)
	p.Ask(on(r.s.Self, nameReaps), &messages.ReapRequest{N: 3, Round: 7, Keys: keys})
	return actortest.Next[*messages.ReapReply](r.t, p)
}

func (r *rig) drops(keys ...*messages.ReapKey) int {
	r.t.Helper()
	p := actortest.NewProbe(r.system)
	p.Ask(r.pid(), &messages.ReapDropRequest{N: 3, Round: 8, Keys: keys})
	return int(actortest.Next[*messages.ReapDropReply](r.t, p).GetDropped())
}

// TestVnodeReapsOnlyWhatIsNamed: whatever the order of writes, deletions, questions and
// drops, no record goes but the one that is named by its hash; what is held is told right;
// and index and tree are those of the store.
func TestVnodeReapsOnlyWhatIsNamed(t *testing.T) {
	disk := diskOf(t)
	r := start(t, setup{engine: keep{disk}, change: paced(quietPace)})
	actortest.Eventually(t, "all actors run", func() bool { return r.asksToReap().GetClear() })
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		past := map[string][]version.Record{} // of a key: all that it was
		now := func(name string) version.Record {
			all := past[name]
			if len(all) == 0 {
				return version.Record{}
			}
			return all[len(all)-1]
		}
		name := func() string {
			return fmt.Sprintf("%d-%d", run, rapid.IntRange(0, 2).Draw(t, "key"))
		}
		named := func() (string, version.Record, *messages.ReapKey) {
			name := name()
			if len(past[name]) == 0 {
				return name, version.Record{}, reapKeyOf(name, [version.HashSize]byte{1}, 0)
			}
			rec := past[name][rapid.IntRange(0, len(past[name])-1).Draw(t, "which")]
			due, _ := reap.Due(rec)
			return name, rec, reapKeyOf(name, rec.CausalHash(), due)
		}
		write := func(put vnode.Put) {
			name := name()
			put.Now = r.now()
			if rapid.Bool().Draw(t, "knowing") {
				put.Context = now(name).Context()
			}
			key := keyOf(name)
			p := actortest.NewProbe(r.system)
			p.Ask(r.pid(), &coordinate{key: key, n: 3, position: ring.Hash(key).Bytes(), plan: 1, put: put})
			past[name] = append(past[name], actortest.Next[*prepared](r.t, p).result.Stored.Record)
			actortest.Next[*durable](r.t, p)
		}
		t.Repeat(map[string]func(*rapid.T){
			"write":  func(*rapid.T) { write(vnode.Put{Value: []byte("v")}) },
			"expire": func(*rapid.T) { write(vnode.Put{Value: []byte("v"), TTL: 1}) },
			"delete": func(*rapid.T) { write(vnode.Put{Tombstone: true}) },
			"ask": func(t *rapid.T) {
				name, rec, key := named()
				reply := r.asksToReap(key)
				is := !rec.IsZero() && now(name).CausalHash() == rec.CausalHash()
				if want := is && reap.Reapable(rec, r.now()); len(reply.GetHeld()) == 1 != want || !reply.GetClear() || reply.GetRound() != 7 {
					t.Fatalf("held %v, want %v: %v", reply.GetHeld(), want, reply)
				}
			},
			"drop": func(t *rapid.T) {
				name, rec, key := named()
				is := !rec.IsZero() && now(name).CausalHash() == rec.CausalHash()
				if n := r.drops(key); n == 1 != is {
					t.Fatalf("dropped %d, it is the record: %v", n, is)
				}
				if is {
					past[name] = append(past[name], version.Record{})
				}
			},
			"": func(t *rapid.T) {
				for name := range past {
					if got := storedIn(r.t, disk, 0, name); !got.SameCausal(now(name)) {
						t.Fatalf("%s is %v, want %v", name, got, now(name))
					}
				}
			},
		})
	})
	indexed(t, disk)
	if got, want := r.root(), treeOf(t, disk).Root().Hash; got != want {
		t.Errorf("root %x, of the store it is %x", got, want)
	}
}

// TestReapAnswersFromTheDisk: a tombstone that a crash could take is not told to be held,
// nor a drop to be done.
func TestReapAnswersFromTheDisk(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	rec := deleted(t, "v")
	key := reapKeyOf("k", rec.CausalHash(), 0)
	r.probe.Ask(r.pid(), replicateOf(0, "k", rec, true))
	actortest.Next[*messages.ReplicateReply](t, r.probe)
	for what, m := range map[string]any{
		"a question": &messages.ReapRequest{N: 3, Keys: []*messages.ReapKey{key}}, "a drop": &messages.ReapDropRequest{N: 3, Keys: []*messages.ReapKey{key}},
	} {
		r.engine.HoldSyncs()
		p := actortest.NewProbe(r.system)
		p.Ask(r.pid(), m)
		commits := r.engine.Stats().Commits
		actortest.Eventually(t, "its commit waits for the disk", func() bool { return r.engine.Stats().Commits > commits || r.engine.Stats().Pending > 0 })
		if got := p.All(); len(got) > 0 {
			t.Errorf("%s: answered before: %v", what, got)
		}
		r.engine.ReleaseSyncs()
		actortest.Eventually(t, "it is answered", func() bool { return len(p.All()) == 1 })
	}
}

// TestReapRefuses what is not about this partition, or malformed.
func TestReapRefuses(t *testing.T) {
	t.Parallel()
	r := start(t, setup{partitions: 2})
	wrong, right := "", ""
	for i := 0; wrong == "" || right == ""; i++ {
		if name := fmt.Sprint(i); r.doc.Settled.PartitionOf(keyOf(name)) == 0 {
			right = name
		} else {
			wrong = name
		}
	}
	good := reapKeyOf(right, [version.HashSize]byte{}, 0)
	for what, c := range map[string]struct {
		change func(*messages.ReapRequest)
		want   uint32
	}{
		"is taken":          {func(*messages.ReapRequest) {}, 0},
		"another partition": {func(m *messages.ReapRequest) { m.Partition = 1 }, messages.CodeInvalid},
		"a key of another":  {func(m *messages.ReapRequest) { m.Keys[0] = reapKeyOf(wrong, [version.HashSize]byte{}, 0) }, messages.CodeInvalid},
		"no n":              {func(m *messages.ReapRequest) { m.N = 0 }, messages.CodeInvalid},
		"half a hash": {func(m *messages.ReapRequest) {
			m.Keys[0] = &messages.ReapKey{Bucket: bucketB, Key: []byte(right), Hash: []byte("short")}
		}, messages.CodeInvalid},
		"too many": {func(m *messages.ReapRequest) {
			for range reap.MaxKeys {
				m.Keys = append(m.Keys, good)
			}
		}, messages.CodeInvalid},
	} {
		ask := &messages.ReapRequest{N: 3, Keys: []*messages.ReapKey{good}}
		c.change(ask)
		drop := &messages.ReapDropRequest{Partition: ask.Partition, N: ask.N, Keys: ask.Keys}
		for _, m := range []any{ask, drop} {
			p := actortest.NewProbe(r.system)
			p.Ask(r.pid(), m)
			if got := actortest.Next[any](t, p); code(got) != c.want {
				t.Errorf("%s: %T answered with %v", what, m, got)
			}
		}
	}
}

// TestMarkChanges with all that comes and goes apart from the replicas' own records, and
// with the process; and with nothing else.
func TestMarkChanges(t *testing.T) {
	x := startHinted(t) // n1 keeps a hint
	mark := func() ([2]uint64, bool) {
		p := actortest.NewProbe(x.system)
		p.Ask(on("n1", nameReaps), &messages.ReapRequest{Partition: uint32(x.p), N: 3})
		reply := actortest.Next[*messages.ReapReply](t, p)
		return [2]uint64{reply.GetRun(), reply.GetChanges()}, reply.GetClear()
	}
	before, clear := mark()
	if clear || before[0] == 0 {
		t.Errorf("with a hint: %v, clear: %v", before, clear)
	}
	x.probe.Ask(on("n1", vnodeName(x.p)), readOf(x.p, x.name, 0))
	actortest.Next[any](t, x.probe)
	if now, _ := mark(); now != before {
		t.Errorf("a read changed %v to %v", before, now)
	}
	x.keep(x.another(), 2)
	kept, clear := mark()
	if kept == before || kept[0] != before[0] || clear {
		t.Errorf("another hint: %v, was %v, clear: %v", kept, before, clear)
	}
	x.opinions.set(x.back, false)
	for x.hintsOf().Records > 0 {
		x.confirm(x.next())
		actortest.Eventually(t, "the batch is dropped or another one comes", func() bool { return x.hintsOf().Records == 0 || len(x.handoffs) > 0 })
	}
	actortest.Eventually(t, "it is clear", func() bool { _, clear := mark(); return clear })
	if gone, _ := mark(); gone == kept {
		t.Errorf("all hints are gone, and it is still %v", gone)
	}
}

// TestReapAsksWhoHasNoVnode of the partition, too: something may lie there all the same.
func TestReapAsksWhoHasNoVnode(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 9, partitions: 16})
	name, p := "", dynamo.Partition(0)
	for i := 0; name == "" || r.s.vnodes.listed(p); i++ {
		name = fmt.Sprint(i)
		p = r.doc.Settled.PartitionOf(keyOf(name))
	}
	ask := func() any {
		probe := actortest.NewProbe(r.system)
		probe.Ask(on("n1", nameReaps), &messages.ReapRequest{Partition: uint32(p), N: 3})
		return actortest.Next[any](t, probe)
	}
	clear := func() bool {
		reply, ok := ask().(*messages.ReapReply)
		return ok && reply.GetClear() && reply.GetVersion() == r.doc.Version && reply.GetRun() != 0
	}
	actortest.Eventually(t, "it has nothing", clear)
	put(t, r.engine, p, name, elsewhere(t, 9, "v"))
	if clear() {
		t.Error("it has an object that is not its own")
	}
	r.s.quarantine.refuse("n2", &peerRefusal{why: "refused", until: time.Now().Add(time.Hour)})
	if got := ask(); code(got) != messages.CodeNotReady {
		t.Errorf("in quarantine: %v", got)
	}
}

// TestReapMendsTheIndex: of an object that was damaged nobody knows what its entry was, and
// it stays when another record takes its place. Whoever asks for it has it mended.
func TestReapMendsTheIndex(t *testing.T) {
	t.Parallel()
	for what, rec := range map[string]version.Record{
		"a value": elsewhere(t, 9, "v"), "one that has expired": expiring(t), "both": version.Merge(elsewhere(t, 9, "v"), expiring(t)),
	} {
		disk := diskOf(t)
		r := start(t, setup{engine: keep{disk}, change: paced(quietPace)})
		write := func(rec version.Record) {
			r.probe.Ask(r.pid(), replicateOf(0, "k", rec, true))
			actortest.Next[*messages.ReplicateReply](t, r.probe)
		}
		write(deleted(t, "v"))
		r.damage(object(0, "k"))
		write(rec)
		if reply := r.asksToReap(reapKeyOf("k", deleted(t, "v").CausalHash(), 0)); len(reply.GetHeld()) != 0 {
			t.Errorf("%s: held %v", what, reply)
		}
		indexed(t, disk)
		if got, want := r.root(), treeOf(t, disk).Root().Hash; got != want {
			t.Errorf("%s: root %x, of the store it is %x", what, got, want)
		}
	}
}

// expiring is a value that ends.
func expiring(t testing.TB) version.Record {
	t.Helper()
	result, err := vnode.Open([16]byte{97}, 1, 100, true, 0).Coordinate(vnode.Stored{}, vnode.Put{Value: []byte("v"), Now: 1, TTL: 5})
	if err != nil {
		t.Fatal(err)
	}
	return result.Stored.Record
}

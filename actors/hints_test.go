package actors

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// opinions are a failure detector of the test.
type opinions struct {
	mu   sync.Mutex
	down map[dynamo.NodeID]bool
}

func (o *opinions) set(node dynamo.NodeID, down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down == nil {
		o.down = map[dynamo.NodeID]bool{}
	}
	o.down[node] = down
}

func (o *opinions) reachable(node dynamo.NodeID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.down[node]
}

// sloppy is a rig of n1 among five nodes, of which the others are replicas of the
// test's, and a detector of its own.
type sloppy struct {
	*rig
	opinions opinions
	others   map[string]*replica
}

func startSloppy(t *testing.T, engine storage.Engine, change func(*Config)) *sloppy {
	t.Helper()
	x := &sloppy{}
	s := setup{nodes: 5, partitions: 16, engine: engine, change: func(c *Config) {
		c.Reachable = x.opinions.reachable
		if change != nil {
			change(c)
		}
	}}
	x.rig = start(t, s)
	x.others = x.replicas("n2", "n3", "n4", "n5")
	return x
}

// key finds a key of which n1 is a primary, or is not, and where it lies.
func (x *sloppy) key(primary bool, nth int) (name string, p dynamo.Partition, primaries []dynamo.NodeID) {
	for i := 0; ; i++ {
		name = fmt.Sprintf("k%d", i)
		p = x.doc.Settled.PartitionOf(keyOf(name))
		if x.doc.Settled.IsPrimary(p, 3, "n1") == primary {
			if nth == 0 {
				return name, p, x.doc.Settled.Primaries(p, 3)
			}
			nth--
		}
	}
}

// other is a primary that is not n1.
func other(primaries []dynamo.NodeID, nth int) dynamo.NodeID {
	rest := slices.DeleteFunc(slices.Clone(primaries), func(n dynamo.NodeID) bool { return n == "n1" })
	return rest[nth]
}

func (x *sloppy) hintsOf() HintCount { return x.s.hints.count() }

// TestPaper_4_6_FallbackKeepsHint: a node that is no replica keeps a record for
// one that is, and answers reads with it; that it has nothing proves nothing.
func TestPaper_4_6_FallbackKeepsHint(t *testing.T) {
	x := startSloppy(t, nil, nil)
	name, p, primaries := x.key(false, 0)
	x.opinions.set(primaries[0], true)
	x.opinions.set(primaries[1], true) // so that nothing is delivered
	ask := func(m any) any {
		probe := actortest.NewProbe(x.system)
		probe.Ask(on("n1", vnodeName(p)), m)
		return actortest.Next[any](t, probe)
	}
	if m, ok := ask(readOf(p, name, 0)).(*messages.ReadReply); !ok || m.GetAuthoritative() || len(m.GetRecord()) != 0 {
		t.Errorf("before: %v", m)
	}
	m := replicateOf(p, name, elsewhere(t, 1, "one"), true)
	if f, ok := ask(m).(*messages.Failure); !ok || f.GetCode() != messages.CodeInvalid || !strings.Contains(f.GetText(), "no replica") {
		t.Errorf("without a word of whom it is for: %v", f)
	}
	m.HintFor = string(primaries[0])
	if answer, ok := ask(m).(*messages.ReplicateReply); !ok {
		t.Fatalf("not kept: %v", answer)
	}
	second := replicateOf(p, name, elsewhere(t, 2, "two"), true)
	second.HintFor = string(primaries[1])
	ask(second)
	reply, ok := ask(readOf(p, name, 0)).(*messages.ReadReply)
	if got := values(t, reply.GetRecord()); !ok || !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("reads of what is kept for two: %v, %v", got, ok)
	}
	ask(m) // again: nothing changes
	if got := x.hintsOf(); got.Records != 2 || got.Bytes < 100 {
		t.Errorf("counted %+v", got)
	}
	probe := actortest.NewProbe(x.system)
	probe.Ask(on("n1", vnodeName(p)), &messages.KeysRequest{Partition: uint32(p), Bucket: bucketB, Limit: 10})
	if f := actortest.Next[*messages.Failure](t, probe); f.GetCode() != messages.CodeStale {
		t.Errorf("a listing of one that is no replica: %v", f)
	}
}

// TestHintsAreBounded: over the bound a fallback refuses, and drops nothing.
func TestHintsAreBounded(t *testing.T) {
	x := startSloppy(t, nil, func(c *Config) { c.HintBytes = 1000 })
	_, p, primaries := x.key(false, 0)
	x.opinions.set(primaries[0], true)
	refused := 0
	for i := range 40 {
		name, at, _ := x.key(false, i)
		if at != p {
			continue
		}
		m := replicateOf(p, name, elsewhere(t, 1, strings.Repeat("v", 200)), true)
		m.HintFor = string(primaries[0])
		x.probe.Ask(on("n1", vnodeName(p)), m)
		if f, ok := actortest.Next[any](t, x.probe).(*messages.Failure); ok {
			refused++
			if f.GetCode() != messages.CodeOverloaded || !strings.Contains(f.GetText(), "keeps no more hints") || f.GetRetryAfterMs() == 0 {
				t.Errorf("refused with %v", f)
			}
		}
	}
	if got := x.hintsOf(); got.Records == 0 || got.Bytes > 1000 || refused == 0 {
		t.Errorf("%+v kept, %d refused", got, refused)
	}
	if h := x.node.Health(); h.Hints != x.hintsOf() {
		t.Errorf("health says %+v", h.Hints)
	}
}

// TestPaper_4_6_SloppyQuorum: with two of three primaries down, writes go to
// fallbacks with a hint and reads find them there; pw and pr still count
// primaries.
func TestPaper_4_6_SloppyQuorum(t *testing.T) {
	x := startSloppy(t, nil, nil)
	name, _, primaries := x.key(true, 0)
	for i := range 2 {
		x.opinions.set(other(primaries, i), true)
		x.peers.Handle(string(other(primaries, i)), nil)
	}
	x.put(putOf(name, "v", nil))
	if got, _ := x.shown(name); !slices.Equal(got, []string{"v"}) {
		t.Errorf("get: %v", got)
	}
	held := 0
	for node, r := range x.others {
		if len(r.holds(name).Versions) > 0 {
			held++
			if slices.Contains(primaries, dynamo.NodeID(node)) {
				t.Errorf("%s is down and has it", node)
			}
		}
	}
	if held != 2 {
		t.Errorf("%d fallbacks hold it", held)
	}
	strict := putOf(name, "w", nil)
	strict.Quorum = &messages.Quorum{Pw: 2}
	if f, ok := x.ask(strict).(*messages.Failure); !ok || f.GetPrimariesNeeded() != 2 || f.GetPrimariesAnswered() > 1 {
		t.Errorf("pw=2: %v", f)
	}
}

// TestFallbackCoordinates: when no primary is up, a fallback takes the write.
func TestFallbackCoordinates(t *testing.T) {
	x := startSloppy(t, nil, nil)
	name, p, primaries := x.key(false, 0)
	for _, node := range primaries {
		x.opinions.set(node, true)
		x.peers.Handle(string(node), nil)
	}
	c := x.put(putOf(name, "one", nil))
	x.put(putOf(name, "two", c))
	if got, _ := x.shown(name); !slices.Equal(got, []string{"two"}) {
		t.Errorf("get: %v", got)
	}
	if got := x.hintsOf(); got.Records == 0 {
		t.Error("it is not kept as a hint")
	}
	lower, upper := vnode.ObjectRange(p)
	err := x.engine.Scan(lower, upper, func(key, _ []byte) bool {
		t.Errorf("stored as its own: %x", key)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFallbackKeepsForOthersToo: a fallback that coordinates keeps its record also
// for a primary that nobody else stands in for.
func TestFallbackKeepsForOthersToo(t *testing.T) {
	x := startSloppy(t, nil, nil)
	name, _, primaries := x.key(false, 0)
	for _, node := range primaries {
		x.opinions.set(node, true)
		x.peers.Handle(string(node), nil)
	}
	x.put(putOf(name, "v", nil))
	actortest.Eventually(t, "hints for two", func() bool { return x.hintsOf().Records == 2 })
	lower, upper := vnode.Hints()
	err := x.engine.Scan(lower, upper, func(key, value []byte) bool {
		node, _, _ := vnode.ParseHintKey(key)
		if s, err := vnode.DecodeStored(key, value); err != nil || len(s.Record.Versions) != 1 {
			t.Errorf("for %s: %v, %v", node, s.Record, err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHandoff: when the node is back, it gets what was kept for it, and nothing is
// kept any more; also after a restart of the one that keeps.
func TestHandoff(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			x := startSloppy(t, nil, nil)
			name, p, primaries := x.key(false, 0)
			back := primaries[0]
			x.opinions.set(back, true)
			m := replicateOf(p, name, elsewhere(t, 1, "v"), true)
			m.HintFor = string(back)
			x.probe.Ask(on("n1", vnodeName(p)), m)
			actortest.Next[*messages.ReplicateReply](t, x.probe)
			if restart {
				disk := copied(t, x.engine)
				x.stop()
				x = startSloppy(t, keep{disk}, nil)
				x.opinions.set(back, true)
				if got := x.hintsOf(); got.Records != 1 {
					t.Fatalf("after the restart %+v", got)
				}
			}
			x.opinions.set(back, false)
			actortest.Eventually(t, "the hint is gone", func() bool { return x.hintsOf() == HintCount{} })
			for _, node := range primaries {
				if got := x.others[string(node)].holds(name); len(got.Versions) != 1 {
					t.Errorf("%s holds %v", node, got)
				}
			}
			// The transfer tells of it after its vnode has dropped the hint.
			actortest.Eventually(t, "one counted as delivered", func() bool { return x.node.Counters().HintsDelivered.Load() == 1 })
			lower, upper := vnode.Hints()
			if err := x.engine.Scan(lower, upper, func(key, _ []byte) bool { t.Errorf("%x is left", key); return true }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestHandoffKeepsWhatIsNotSafe: a receiver that refuses, or too few that can be
// reached, leave the hint where it is, until they take it.
func TestHandoffKeepsWhatIsNotSafe(t *testing.T) {
	t.Parallel()
	x := startSloppy(t, nil, nil)
	name, p, primaries := x.key(false, 0)
	refusing := x.others[string(primaries[2])]
	refusing.fail(messages.Fail(messages.CodeStorage, "no disk"))
	m := replicateOf(p, name, elsewhere(t, 1, "v"), true)
	m.HintFor = string(primaries[0])
	x.probe.Ask(on("n1", vnodeName(p)), m)
	actortest.Next[*messages.ReplicateReply](t, x.probe)
	actortest.Eventually(t, "the node itself has it", func() bool { return len(x.others[string(primaries[0])].holds(name).Versions) == 1 })
	actortest.Eventually(t, "it was tried twice", func() bool { return x.others[string(primaries[0])].handed() >= 2 })
	if got := x.hintsOf(); got.Records != 1 {
		t.Fatalf("dropped although a replica refused: %+v", got)
	}
	refusing.fail(nil)
	actortest.Eventually(t, "the hint is gone", func() bool { return x.hintsOf() == HintCount{} })
}

// TestHintAtReplica: where nobody can stand in for a primary, a coordinator that
// has the record itself remembers that the other lacks it, and hands over what
// it has when that is back, also what was written since.
func TestHintAtReplica(t *testing.T) {
	var down opinions
	down.set("n3", true)
	r := start(t, setup{nodes: 3, change: func(c *Config) { c.Reachable = down.reachable }})
	x := r.replicas("n2")
	r.peers.Handle("n3", nil)
	c := r.put(putOf("k", "one", nil))
	actortest.Eventually(t, "a hint", func() bool { return r.s.hints.count().Records == 1 })
	r.put(putOf("k", "two", c))
	r.quiet()
	if got := r.s.hints.count(); got.Records != 1 {
		t.Errorf("%+v for one key", got)
	}
	x["n3"] = r.replicas("n3")["n3"]
	down.set("n3", false)
	actortest.Eventually(t, "the hint is gone", func() bool { return r.s.hints.count() == HintCount{} })
	if got := x["n3"].holds("k").Versions; len(got) != 1 || string(got[0].Value) != "two" {
		t.Errorf("n3 holds %v", got)
	}
}

// TestDropHints: what has changed since it was handed over stays.
func TestDropHints(t *testing.T) {
	x := startSloppy(t, nil, nil)
	name, p, primaries := x.key(false, 0)
	x.opinions.set(primaries[0], true)
	pid := on("n1", vnodeName(p))
	old := elsewhere(t, 1, "old")
	m := replicateOf(p, name, old, true)
	m.HintFor = string(primaries[0])
	x.probe.Ask(pid, m)
	actortest.Next[*messages.ReplicateReply](t, x.probe)
	object := vnode.AppendObjectKey(nil, p, 3, ring.Hash(keyOf(name)).Bytes(), keyOf(name))
	h := hint{key: vnode.AppendHintKey(nil, primaries[0], object), object: object, record: old}
	newer := replicateOf(p, name, elsewhere(t, 2, "new"), true)
	newer.HintFor = string(primaries[0])
	x.probe.Ask(pid, newer)
	actortest.Next[*messages.ReplicateReply](t, x.probe)
	x.probe.Ask(pid, &dropHints{hints: []hint{h}})
	if got := actortest.Next[*hintsDropped](t, x.probe).kept; got != 1 || x.hintsOf().Records != 1 {
		t.Errorf("%d kept, %+v", got, x.hintsOf())
	}
	x.probe.Ask(pid, &dropHints{hints: []hint{{key: h.key, object: object, damaged: true}}})
	if got := actortest.Next[*hintsDropped](t, x.probe).kept; got != 1 || x.hintsOf().Records != 1 {
		t.Errorf("one that took the place of a damaged one: %d kept, %+v", got, x.hintsOf())
	}
	x.probe.Ask(pid, readOf(p, name, 0))
	if got := values(t, actortest.Next[*messages.ReadReply](t, x.probe).GetRecord()); !slices.Equal(got, []string{"old", "new"}) {
		t.Errorf("reads %v", got)
	}
}

// TestFastestReplicaIsNamed: the context of a read names the primary whose record
// came first as the one to coordinate the next write (§ 5).
func TestFastestReplicaIsNamed(t *testing.T) {
	x := startSloppy(t, nil, nil)
	name, _, primaries := x.key(false, 0)
	rec := elsewhere(t, 1, "v")
	for _, n := range primaries {
		x.others[string(n)].set(name, rec)
	}
	slow := x.held(string(primaries[0]))
	probe := actortest.NewProbe(x.system)
	probe.Ask(x.coordinator(), getOf(name))
	m := actortest.Next[*messages.GetReply](t, probe)
	c, err := version.DecodeContext(keyOf(name), m.GetContext())
	if err != nil || !slices.Contains(primaries[1:], c.Coordinator) {
		t.Errorf("%s, %v: want one of %v", c.Coordinator, err, primaries[1:])
	}
	slow.release()
}

package actors

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// joinUnderWay is a cluster of n2 to n4 that n1 joins, and where writes go to both rings.
func joinUnderWay(t testing.TB) member.Document {
	t.Helper()
	f := member.Founding{ClusterID: member.ClusterID{1}, ClusterName: "test", Partitions: 16}
	facts := map[dynamo.NodeID]member.Facts{}
	for i := range 4 {
		m := member.Member{ID: dynamo.NodeID(fmt.Sprintf("n%d", i+1)), Capacity: 1, Store: member.StoreID{byte(i + 1)}}
		facts[m.ID] = member.Facts{Store: m.Store, Known: 1 << 20}
		if i > 0 {
			f.Members = append(f.Members, m)
		}
	}
	doc, _, err := member.Found(f)
	if err == nil {
		doc, err = doc.Stage(member.Change{Kind: member.Join, Node: "n1", Member: member.Member{ID: "n1", Capacity: 1, Store: member.StoreID{1}}})
	}
	if err == nil {
		doc, err = doc.Commit(doc.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
	for doc.Movement.Joint == 0 {
		doc, _ = doc.Advance(facts)
	}
	return doc
}

// source is a node that has data: what it answers is what a vnode reads.
type source struct {
	s      *Services
	peers  *actortest.Peers
	mu     sync.Mutex
	asked  []*messages.FillRequest
	sent   map[string]bool // names of the records
	limit  int             // answers until it is gone; negative: none
	age    time.Duration
	refuse *messages.Failure
}

// sources connects n2 to n4.
func (r *rig) sources() map[string]*source {
	out := map[string]*source{}
	for _, name := range []string{"n2", "n3", "n4"} {
		x := &source{limit: -1, peers: r.peers, sent: map[string]bool{}, s: &Services{
			Config:   Config{Self: dynamo.NodeID(name), System: r.system, Engine: memory.New(), Log: slog.New(slog.DiscardHandler)},
			Counters: &Counters{},
		}}
		out[name] = x
		r.t.Cleanup(func() { x.s.Engine.Close() })
	}
	return out
}

func (r *rig) connect(all map[string]*source) {
	for name, x := range all {
		x.peers = r.peers
		r.peers.Handle(name, x.receive)
	}
}

func (x *source) receive(m actortest.Received) {
	req, ok := m.Message.(*messages.FillRequest)
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked = append(x.asked, req)
	if x.refuse != nil {
		x.peers.Answer(m, x.refuse)
		return
	}
	if x.limit == 0 {
		x.peers.Answer(m, messages.Fail(messages.CodeOverloaded, "not now"))
		return
	}
	x.limit--
	f, err := messages.ToFill(req)
	if err != nil {
		panic(err)
	}
	reply := dated(x.s.fillReply(dynamo.Partition(req.GetPartition()), req.GetBatch(), f), readNow()-x.age.Milliseconds())
	if page, ok := reply.(*messages.FillReply); ok {
		for _, r := range page.GetRecords() {
			x.sent[string(r.GetKey())] = true
		}
	}
	x.peers.Answer(m, reply)
}

func (x *source) set(limit int, refuse *messages.Failure) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.limit, x.refuse, x.asked = limit, refuse, nil
}

func (x *source) aged(age time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.age = age
}

func (x *source) requests() []*messages.FillRequest {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.asked)
}

// object is the storage key of a record of bucket b, where n is 3.
func object(p dynamo.Partition, name string) []byte {
	return vnode.AppendObjectKey(nil, p, 3, ring.Hash(keyOf(name)).Bytes(), keyOf(name))
}

// put writes a record to a store as if a vnode had it.
func put(t testing.TB, e storage.Engine, p dynamo.Partition, name string, rec version.Record) {
	t.Helper()
	key := object(p, name)
	b := e.NewBatch()
	b.Set(key, vnode.AppendStored(nil, key, vnode.Stored{Record: rec}))
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
}

// stored is what a store has of a key.
func storedIn(t testing.TB, e storage.Engine, p dynamo.Partition, name string) version.Record {
	t.Helper()
	key := object(p, name)
	b, err := e.Get(nil, key)
	if err != nil {
		return version.Record{}
	}
	s, err := vnode.DecodeStored(key, b)
	if err != nil {
		t.Fatal(err)
	}
	return s.Record
}

// filler is a rig whose n1 joins, and the sources of what it lacks.
type filler struct {
	*rig
	all   map[string]*source
	want  map[string]version.Record // by key, of those that n1 lacks
	where map[string]dynamo.Partition
}

// startFiller gives each source most of the records, and each record to one at
// least; of some, sources have different ones. prepare runs before the first is
// asked.
func startFiller(t *testing.T, engine storage.Engine, prepare func(map[string]*source)) *filler {
	t.Helper()
	doc := joinUnderWay(t)
	x := &filler{want: map[string]version.Record{}, where: map[string]dynamo.Partition{}}
	x.rig = start(t, setup{nodes: 4, partitions: 16, engine: engine, document: func(member.Document) member.Document { return doc }})
	x.doc = doc
	x.all = x.sources()
	for i := range 2000 {
		name := fmt.Sprintf("k%d", i)
		p := doc.Settled.PartitionOf(keyOf(name))
		if f, ok := doc.Filling(p, "n1"); ok {
			if from, to := doc.FillRange(f); from <= 3 && 3 <= to {
				x.give(i, p, name)
			}
		}
	}
	if prepare != nil {
		prepare(x.all)
	}
	x.connect(x.all)
	return x
}

func (x *filler) give(i int, p dynamo.Partition, name string) {
	x.where[name] = p
	for at, node := range []string{"n2", "n3", "n4"} {
		if i%7 == at || i%7 == at+1 { // it lacks some
			continue
		}
		rec := elsewhere(x.t, 1, name)
		if i%11 == at {
			rec = elsewhere(x.t, byte(2+at), "another "+name)
		}
		put(x.t, x.all[node].s.Engine, p, name, rec)
		x.want[name] = version.Merge(x.want[name], rec)
	}
}

// done waits until all is filled, and looks that nothing is missing.
func (x *filler) done() {
	x.t.Helper()
	var want []dynamo.Partition
	for _, f := range x.doc.FillsOf("n1") {
		want = append(want, f.Partition)
	}
	actortest.Eventually(x.t, "all is filled", func() bool {
		target, got := x.s.filledFacts()
		return target == x.doc.Target() && slices.Equal(got, want)
	})
	if len(x.want) < 500 {
		x.t.Fatalf("only %d keys", len(x.want))
	}
	for name, rec := range x.want {
		if got := storedIn(x.t, x.engine, x.where[name], name); !got.SameCausal(rec) {
			x.t.Fatalf("%s: %v, want %v", name, got, rec)
		}
	}
}

// TestFillFromAllSources: what any source has is here in the end; only one source
// sends all of its records, the others what is missing or differs.
func TestFillFromAllSources(t *testing.T) {
	t.Parallel()
	x := startFiller(t, nil, nil)
	x.done()
	sent := 0
	for _, s := range x.all {
		sent += len(s.sent)
		for _, m := range s.requests() {
			if m.GetTarget() != x.doc.Target() || !bytes.Equal(m.GetStore(), storeOf(1)) {
				t.Fatalf("asked %v", m)
			}
		}
	}
	if sent < len(x.want) || sent > 2*len(x.want) {
		t.Errorf("%d records were sent for %d keys", sent, len(x.want))
	}
	// A batch whose answer comes too late, on a busy machine, is sent again and counted once.
	if got := x.node.Counters().Filled.Load(); got < uint64(len(x.want)) || got > uint64(sent) {
		t.Errorf("%d counted, %d sent for %d keys", got, sent, len(x.want))
	}
	other := x.doc
	next := x.doc.Next.WithVersion(x.doc.Target() + 1)
	other.Next = &next
	x.enforce(other)
	if target, got := x.s.filledFacts(); target != other.Target() || len(got) != 0 {
		t.Errorf("for another target: %d, %v", target, got)
	}
}

// TestFillGoesOn: a source that fails in the middle is asked again from where it
// was, and nothing counts as filled without it.
func TestFillGoesOn(t *testing.T) {
	t.Parallel()
	var first map[string]*source
	x := startFiller(t, nil, func(all map[string]*source) {
		first = all
		all["n3"].set(3, nil)
	})
	at := first["n3"]
	actortest.Eventually(t, "it fails for some partitions", func() bool { return len(at.requests()) > 8 })
	if _, got := x.s.filledFacts(); len(got) > 3 {
		t.Fatalf("filled: %v", got)
	}
	at.set(-1, nil)
	x.done()
	resumed := slices.ContainsFunc(at.requests(), func(m *messages.FillRequest) bool { return len(m.GetCursor()) > 0 })
	if !resumed {
		t.Error("it began at the start again")
	}
}

// TestFillAfterRestart: what was not complete when the node stopped is done again.
func TestFillAfterRestart(t *testing.T) {
	t.Parallel()
	x := startFiller(t, nil, func(all map[string]*source) { all["n4"].set(2, nil) })
	actortest.Eventually(t, "some is here", func() bool { return len(x.all["n4"].requests()) > 10 })
	disk := copied(t, x.engine)
	x.stop()
	x = startFiller(t, keep{disk}, nil)
	x.done()
}

// TestFillOfStaleSource: a source that does not know of the movement is asked again.
func TestFillOfStaleSource(t *testing.T) {
	t.Parallel()
	stale := messages.Fail(messages.CodeStale, "what movement?")
	x := startFiller(t, nil, func(all map[string]*source) { all["n2"].set(-1, stale) })
	actortest.Eventually(t, "it was asked", func() bool { return len(x.all["n2"].requests()) > 0 })
	if _, got := x.s.filledFacts(); len(got) != 0 {
		t.Fatalf("filled: %v", got)
	}
	x.all["n2"].set(-1, nil)
	x.done()
}

// TestFillWithoutSources: what a node whose disk was lost and that is alone lacks is nowhere. It says so,
// once, and waits until an operator accepts that.
func TestFillWithoutSources(t *testing.T) {
	doc := documentOf(t, setup{nodes: 1, partitions: 2})
	doc.Movement.Filling = []member.Fill{{Partition: 1, Node: "n1", Whole: true}}
	log := &lockedBuffer{}
	r := start(t, setup{nodes: 1, partitions: 2, document: func(member.Document) member.Document { return doc }, change: func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
	}})
	actortest.Eventually(t, "it has taken what is left", func() bool {
		_, got := r.s.filledFacts()
		return slices.Equal(got, []dynamo.Partition{1})
	})
	ask := func(version uint64, partitions ...uint32) (member.Document, *messages.Failure) {
		return r.operate(&messages.ClusterRequest{Operation: messages.OperationAcceptLoss, Version: version, Partitions: partitions, TimeoutMs: 2000})
	}
	for what, f := range map[string]func() (member.Document, *messages.Failure){
		"an older version":     func() (member.Document, *messages.Failure) { return ask(0) },
		"one that is not lost": func() (member.Document, *messages.Failure) { return ask(1, 0) },
		"no partition":         func() (member.Document, *messages.Failure) { return ask(1, 2) },
		"no number of one":     func() (member.Document, *messages.Failure) { return ask(1, 1<<31) },
	} {
		if _, failure := f(); failure == nil || failure.GetText() == "" {
			t.Errorf("%s: %v", what, failure)
		}
	}
	// Another version of the document, so that the movement was looked at again.
	created, f := r.operate(creating("b"))
	if f != nil || len(created.Movement.Filling) != 1 {
		t.Fatalf("%+v, %v", created.Movement, f)
	}
	h := r.node.Health()
	if !h.Ready || h.Lost == nil || !slices.Equal(h.Lost.Partitions, []dynamo.Partition{1}) || !strings.Contains(h.Lost.Do, acceptCommand) {
		t.Errorf("health: %+v", h)
	}
	if n := strings.Count(log.String(), "no replica is left"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if given, f := ask(created.Version); f != nil || len(given.Losses()) != 0 {
		t.Fatalf("%+v, %v", given.Movement, f)
	}
	actortest.Eventually(t, "the fill is over", func() bool { return len(r.s.Document().Movement.Filling) == 0 && r.node.Health().Lost == nil })
}

// TestWhenToFill: a partition of a lost disk is filled at once, unless the node is
// new in it, too: then not before writes go to both rings.
func TestWhenToFill(t *testing.T) {
	doc := joinUnderWay(t)
	for i := range doc.Movement.Filling {
		doc.Movement.Filling[i].Whole = true
	}
	settled := documentOf(t, setup{nodes: 4, partitions: 16})
	settled.Movement.Filling = []member.Fill{{Partition: 1, Node: "n1", Whole: true}, {Partition: 1, Node: "n2", Whole: true}}
	announced := doc
	announced.Movement.Joint = 0
	for what, c := range map[string]struct {
		doc  member.Document
		want int
	}{"settled": {settled, 1}, "joint": {doc, len(doc.FillsOf("n1"))}, "announced": {announced, 0}} {
		x := &transfersActor{s: &Services{Config: Config{Self: "n1"}}}
		if got := x.toFill(&c.doc); len(got) != c.want || c.want > 0 && !got[0].fill {
			t.Errorf("%s: %v, want %d", what, got, c.want)
		}
	}
}

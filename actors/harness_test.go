package actors

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/faulty"
	"github.com/dynactor/dynactor/storage/memory"
)

func TestMain(m *testing.M) {
	// Tests that wait for pauses and timeouts do so together; they need little of a
	// processor.
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	// The library's dead letter throttle ends by itself.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/asynkron/protoactor-go/actor.NewThrottle.func1"))
}

// setup says what a rig is made of.
type setup struct {
	self       string // empty: n1
	nodes      int    // n1 is real, the others are the test's
	partitions int
	capacity   int // of each of the others; 0 is 1, which is n1's
	buckets    []member.Bucket
	engine     storage.Engine // nil: memory
	change     func(*Config)
	document   func(member.Document) member.Document // makes the one that the node starts with
	hold       bool                                  // hold syncs from the start, and do not wait until ready
	// connect leads to the other nodes; nil: functions of the test (rig.peers).
	connect func(*rig)
}

// rig is one node, n1, without a network.
type rig struct {
	t      testing.TB
	engine *faulty.Engine
	system *actor.ActorSystem
	node   *Node
	s      *Services
	doc    member.Document
	peers  *actortest.Peers
	probe  *actortest.Probe
	disk   registerDisk
	// passed goes by on the clock that dates records, besides what does.
	passed atomic.Int64
	// clock is the node's wall clock; panicking makes it panic.
	clock     atomic.Int64
	panicking atomic.Bool
	stopped   bool
}

func start(t testing.TB, o setup) *rig {
	t.Helper()
	if o.nodes == 0 {
		o.nodes = 1
	}
	if o.partitions == 0 {
		o.partitions = 1
	}
	if o.engine == nil {
		o.engine = memory.New()
	}
	if o.self == "" {
		o.self = "n1"
	}
	self := founding.Candidate{ID: dynamo.NodeID(o.self), Store: [16]byte{o.self[1] - '0'}, Start: 1}
	r := &rig{t: t, engine: faulty.New(o.engine), system: actortest.System(t, o.self), doc: documentOf(t, o)}
	if o.document != nil {
		r.doc = o.document(r.doc)
	}
	if o.connect == nil {
		o.connect = func(r *rig) { r.peers = actortest.NewPeers(r.system) }
	}
	r.disk.voter.Document = r.doc
	o.connect(r)
	r.probe = actortest.NewProbe(r.system)
	r.clock.Store(int64(time.Hour))
	config := Config{
		Self: self.ID, System: r.system, Engine: r.engine, Reachable: ring.Everyone, Now: r.now, Clock: r.dates, Log: slog.New(slog.DiscardHandler),
		HintBytes: 1 << 20, MaxValue: 1 << 20, MaxRequests: 100, Timeout: actortest.Patience, DigestAbove: 1000, ReaderCount: 2,
		OnDocument: func(member.Document) {},
		Founding: Founding{
			Config:    founding.Config{Self: self},
			Addresses: func() []*messages.Address { return nil }, Peers: func() []dynamo.NodeID { return nil },
			Load: r.disk.load, StoreDocument: r.disk.storeDocument, StoreVote: r.disk.storeVote, Moved: func(dynamo.NodeID, string) {},
		},
	}
	if o.change != nil {
		o.change(&config)
	}
	if o.hold {
		r.engine.HoldSyncs()
	}
	r.node = NewNode(config)
	r.s = r.node.services
	if err := r.node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.engine.Heal()
		r.stop()
		if err := r.engine.Close(); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	if !o.hold {
		r.ready()
	}
	return r
}

// registerDisk keeps what the membership actor stores.
type registerDisk struct {
	mu    sync.Mutex
	voter member.Voter
	err   error
}

func (d *registerDisk) load() (member.Voter, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.voter, true, nil
}

func (d *registerDisk) storeDocument(doc member.Document, done func(error)) {
	d.store(done, func() { d.voter = member.Voter{Document: doc} })
}

func (d *registerDisk) storeVote(v member.Voter, done func(error)) {
	d.store(done, func() { d.voter.Promised, d.voter.Vote = v.Promised, v.Vote })
}

func (d *registerDisk) store(done func(error), write func()) {
	d.mu.Lock()
	err := d.err
	if err == nil {
		write()
	}
	d.mu.Unlock()
	done(err)
}

// documentOf founds a cluster of n1 to nN.
func documentOf(t testing.TB, o setup) member.Document {
	t.Helper()
	f := member.Founding{ClusterID: member.ClusterID{1}, ClusterName: "test", Partitions: o.partitions, Buckets: o.buckets}
	for i := range o.nodes {
		capacity := 1
		if i > 0 {
			capacity = max(1, o.capacity)
		}
		f.Members = append(f.Members, member.Member{
			ID: dynamo.NodeID(fmt.Sprintf("n%d", i+1)), Capacity: capacity, Store: member.StoreID{byte(i + 1)},
		})
	}
	doc, _, err := member.Found(f)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func (r *rig) now() dynamo.Timestamp {
	if r.panicking.Load() {
		panic("the test's clock")
	}
	return dynamo.Timestamp(r.clock.Load())
}

func (r *rig) dates() time.Duration { return rt.Clock() + time.Duration(r.passed.Load()) }

// pass lets time pass for records that are under way.
func (r *rig) pass(d time.Duration) { r.passed.Add(int64(d)) }

// readNow dates a record that is read now.
func readNow() int64 { return rt.Clock().Milliseconds() }

func (r *rig) ready() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), actortest.Patience)
	defer cancel()
	if err := r.node.WaitReady(ctx); err != nil {
		r.t.Fatalf("not ready: %v", err)
	}
}

// stop stops the node in order, once.
func (r *rig) stop() {
	r.t.Helper()
	if r.stopped {
		return
	}
	r.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), actortest.Patience)
	defer cancel()
	if err := r.node.Stop(ctx); err != nil && r.engine.Stats().Failed == nil {
		r.t.Errorf("stop: %v", err)
	}
}

// copied is what the store holds right now, as a crash would leave it if all of
// it had reached the disk.
func copied(t testing.TB, e storage.Engine) *memory.Engine {
	t.Helper()
	out := diskOf(t)
	b := out.NewBatch()
	if err := e.Scan(nil, nil, func(k, v []byte) bool { b.Set(k, v); return true }); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

// pid is the vnode of partition 0.
func (r *rig) pid() *actor.PID { return on(r.s.Self, vnodeName(0)) }

func (r *rig) coordinator() *actor.PID { return on(r.s.Self, nameCoordinator) }

var bucketB = []byte("b")

func keyOf(name string) dynamo.Key { return dynamo.Key{Bucket: "b", Name: name} }

// write asks the vnode of partition 0 to coordinate a write.
func (r *rig) write(p *actortest.Probe, name, value string, c version.Context, sync bool) {
	key := keyOf(name)
	p.Ask(r.pid(), &coordinate{
		key: key, n: 3, position: ring.Hash(key).Bytes(), sync: sync, plan: 1, put: vnode.Put{Value: []byte(value), Context: c, Now: r.now()},
	})
}

// written makes a synced write and waits for its end.
func (r *rig) written(name, value string, c version.Context) vnode.Result {
	r.t.Helper()
	p := actortest.NewProbe(r.system)
	r.write(p, name, value, c, true)
	result := actortest.Next[*prepared](r.t, p).result
	actortest.Next[*durable](r.t, p)
	return result
}

// read asks the vnode of partition 0 for its record.
func (r *rig) read(name string) *messages.ReadReply {
	r.t.Helper()
	r.probe.Ask(r.pid(), readOf(0, name, 0))
	return actortest.Next[*messages.ReadReply](r.t, r.probe)
}

func readOf(p dynamo.Partition, name string, digest uint32) *messages.ReadRequest {
	return &messages.ReadRequest{Partition: uint32(p), Bucket: bucketB, Key: []byte(name), N: 3, Plan: 1, DigestAbove: digest}
}

// values are what a record says, in the order of dots; a tombstone is "-".
func values(t testing.TB, encoded []byte) []string {
	t.Helper()
	if len(encoded) == 0 {
		return nil
	}
	rec, err := version.Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range rec.Versions {
		s := string(v.Value)
		if v.Tombstone {
			s = "-"
		}
		out = append(out, s)
	}
	return out
}

// replicate is a replication message of a record to a partition.
func replicateOf(p dynamo.Partition, name string, rec version.Record, sync bool) *messages.ReplicateRequest {
	return &messages.ReplicateRequest{
		Partition: uint32(p), Bucket: bucketB, Key: []byte(name), Record: version.Append(nil, rec), Sync: sync, N: 3, Plan: 1,
		ReadMs: readNow(),
	}
}

// elsewhere makes the record that another node's vnode, numbered by id, would
// make of a write.
func elsewhere(t testing.TB, id byte, value string) version.Record {
	t.Helper()
	state := vnode.Open([16]byte{id}, 1, 100, true, 0)
	result, err := state.Coordinate(vnode.Stored{}, vnode.Put{Value: []byte(value), Now: 1})
	if err != nil {
		t.Fatal(err)
	}
	return result.Stored.Record
}

// gate is an engine whose Commit waits while it is shut, so that a test can
// queue messages behind it.
type gate struct {
	storage.Engine
	mu      sync.Mutex
	waiting chan struct{} // gets one value for each Commit that waits
	open    chan struct{} // closed: Commit passes
}

func newGate(e storage.Engine) *gate {
	g := &gate{Engine: e, waiting: make(chan struct{}, 100), open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

// pass lets those pass that wait, and nobody who comes then.
func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
	g.open = make(chan struct{})
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

func (g *gate) NewBatch() storage.Batch { return &gatedBatch{g.Engine.NewBatch(), g} }

type gatedBatch struct {
	storage.Batch
	g *gate
}

func (b *gatedBatch) Commit(d storage.Durability, done func(error)) error {
	b.g.mu.Lock()
	open := b.g.open
	b.g.mu.Unlock()
	select {
	case <-open:
	default:
		b.g.waiting <- struct{}{}
		<-open
	}
	return b.Batch.Commit(d, done)
}

package actors

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// twins are two real nodes, the replicas of one partition; n1 begins its exchanges.
type twins struct {
	t      testing.TB
	one    *rig
	two    *rig
	asked  atomic.Int64 // questions of exchanges from n1 to n2
	moved  atomic.Int64 // records in them, and in the answers
	losing atomic.Bool  // every ninth of them is refused
	aging  atomic.Bool  // records are under way for longer than they may be
	// records, if set, is called with messages that have some, before they arrive.
	records func(messages.Dated)
}

func startTwins(t testing.TB, a, b storage.Engine, change func(*Config)) *twins {
	t.Helper()
	x := &twins{t: t}
	if change == nil {
		change = paced(quietPace)
	}
	x.one = start(t, setup{nodes: 2, engine: a, change: change})
	x.two = start(t, setup{nodes: 2, engine: b, change: change, self: "n2"})
	x.connect(x.one, x.two)
	x.connect(x.two, x.one)
	return x
}

// connect carries what one sends to the other.
func (x *twins) connect(from, to *rig) {
	from.peers.Handle(string(to.s.Self), func(m actortest.Received) {
		if reply, ok := m.Message.(*messages.ExchangeReply); ok {
			x.moved.Add(int64(len(reply.GetPage().GetRecords())))
			x.carries(reply, len(reply.GetPage().GetRecords()))
		}
		if question, ok := m.Message.(*messages.ExchangeRequest); ok {
			x.moved.Add(int64(len(question.GetPush().GetRecords())))
			x.carries(question, len(question.GetPush().GetRecords()))
			if n := x.asked.Add(1); x.losing.Load() && n%9 == 0 {
				from.peers.Answer(m, busy())
				return
			}
		}
		if d, ok := m.Message.(messages.Dated); ok && x.aging.Load() {
			m.Message = dated(proto.Clone(m.Message.(proto.Message)), d.GetReadMs()-(reap.MessageLife+time.Second).Milliseconds())
		}
		// A PID remembers the process that it led to, which is the sender's side's here.
		fresh := func(pid *actor.PID) *actor.PID { return actor.NewPID(pid.GetAddress(), pid.GetId()) }
		to.system.Root.RequestWithCustomSender(fresh(m.Target), m.Message, fresh(m.Sender))
	})
}

func (x *twins) carries(m messages.Dated, records int) {
	if x.records != nil && records > 0 {
		x.records(m)
	}
}

// repair has n1 exchange with n2, and returns how that went.
func (x *twins) repair() *messages.RepairReply {
	x.t.Helper()
	ask := func(number uint64) *messages.RepairReply {
		p := actortest.NewProbe(x.one.system)
		p.Ask(on("n1", nameExchanges), &messages.RepairRequest{Number: number})
		return actortest.Next[*messages.RepairReply](x.t, p)
	}
	reply := ask(0)
	if reply.GetPairs() != 1 {
		x.t.Fatalf("%d pairs", reply.GetPairs())
	}
	number := reply.GetNumber()
	actortest.Eventually(x.t, "the exchange has ended", func() bool {
		reply = ask(number)
		return reply.GetComplete()+reply.GetFailed() == reply.GetPairs()
	})
	return reply
}

// all is what a store has of partition 0 that can be read.
func all(t testing.TB, e storage.Engine) map[string]version.Record {
	t.Helper()
	out := map[string]version.Record{}
	lower, upper := vnode.ObjectRange(0)
	err := e.Scan(lower, upper, func(key, value []byte) bool {
		_, k, _ := vnode.ParseObjectKey(key)
		if s, err := vnode.DecodeStored(key, append([]byte(nil), value...)); err == nil {
			out[k.Name] = s.Record
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (x *twins) same() bool {
	return maps.EqualFunc(all(x.t, x.one.engine), all(x.t, x.two.engine), version.Record.SameCausal)
}

// spoil makes key i of many different behind the back of one side, each in another way,
// and returns what both must have in the end.
func spoil(t testing.TB, i int, name string, a, b storage.Engine) version.Record {
	t.Helper()
	if i%2 == 0 {
		a, b = b, a
	}
	state := vnode.Open([16]byte{byte(100 + i%50)}, 1, 1000, true, 0)
	first, err := state.Coordinate(vnode.Stored{}, vnode.Put{Value: []byte(name), Now: 1})
	if err != nil {
		t.Fatal(err)
	}
	second, err := state.Coordinate(first.Stored, vnode.Put{Value: []byte("newer " + name), Context: first.Stored.Record.Context(), Now: 2, Tombstone: i%8 == 0})
	if err != nil {
		t.Fatal(err)
	}
	want := second.Stored.Record
	put(t, a, 0, name, want)
	switch i % 5 {
	case 0: // it is gone
	case 1: // it is older
		put(t, b, 0, name, first.Stored.Record)
	case 2, 3: // it is damaged
		batch, value := b.NewBatch(), vnode.AppendStored(nil, object(0, name), vnode.Stored{Record: want})
		value[len(value)/2] ^= 1
		batch.Set(object(0, name), value)
		if err := batch.Commit(storage.Applied, nil); err != nil {
			t.Fatal(err)
		}
	case 4: // each has something that the other has not
		put(t, b, 0, name, elsewhere(t, 7, "concurrent"))
		want = version.Merge(want, elsewhere(t, 7, "concurrent"))
	}
	return want
}

// TestExchangeMends: a thousand keys of three thousand that were made different behind the
// vnodes' backs, some gone, some older, some damaged, some concurrent, are the same on
// both sides after one exchange; and the next one finds that with one round trip.
func TestExchangeMends(t *testing.T) {
	t.Parallel()
	const keys, different = 3000, 1000 // so many that 64 leaves have more than a message holds
	a, b, want := diskOf(t), diskOf(t), map[string]version.Record{}
	for i := range keys {
		name := fmt.Sprint("k", i)
		if i < different {
			want[name] = spoil(t, i, name, a, b)
			continue
		}
		want[name] = elsewhere(t, 9, name)
		put(t, a, 0, name, want[name])
		put(t, b, 0, name, want[name])
	}
	x := startTwins(t, keep{a}, keep{b}, nil)
	x.one.root()
	x.two.root()
	reply := x.repair()
	if reply.GetComplete() != 1 || reply.GetMended() < different || reply.GetDamaged() != 0 {
		t.Errorf("repaired: %v", reply)
	}
	if got := all(t, x.one.engine); !x.same() || !maps.EqualFunc(got, want, version.Record.SameCausal) {
		t.Fatalf("not the same after an exchange: %v", reply)
	}
	if got := x.one.node.Counters().Mended.Load() + x.two.node.Counters().Mended.Load(); got != different+different/5 {
		t.Errorf("%d mended, want %d and those that both lacked", got, different)
	}
	// One that is older on one side, or concurrent, may travel both ways; no other twice,
	// and what is the same on both sides never.
	if n := x.moved.Load(); n < different || n > different+2*different/5 {
		t.Errorf("%d records travelled", n)
	}
	x.one.root() // what was damaged was read again; until then nothing is compared
	x.two.root()
	asked := x.asked.Load()
	if reply = x.repair(); reply.GetComplete() != 1 || reply.GetMended() != 0 || x.one.node.Counters().ExchangesEqual.Load() != 1 {
		t.Errorf("the next one: %v", reply)
	}
	if n := x.asked.Load() - asked; n != 1 {
		t.Errorf("two that are equal took %d round trips", n)
	}
	for _, r := range []*rig{x.one, x.two} {
		if got, want := r.root(), treeOf(t, r.engine).Root().Hash; got != want {
			t.Errorf("%s has the root %x, of the store it is %x", r.s.Self, got, want)
		}
	}
}

// TestExchangeHealsWhatASampleFinds: damage of a running system, without anybody reading
// the key, is found by a sample and mended by the next exchange.
func TestExchangeHealsWhatASampleFinds(t *testing.T) {
	t.Parallel()
	a, b := diskOf(t), diskOf(t)
	for i := range 200 {
		name := fmt.Sprint("k", i)
		put(t, a, 0, name, elsewhere(t, 9, name))
		put(t, b, 0, name, elsewhere(t, 9, name))
	}
	x := startTwins(t, keep{a}, keep{b}, func(c *Config) { c.pace, c.ExchangeInterval = busyPace, 20*time.Millisecond })
	actortest.Eventually(t, "the two are equal", func() bool { return x.one.node.Counters().ExchangesEqual.Load() > 0 })
	x.one.damage(object(0, "k3"))
	x.two.damage(object(0, "k4"))
	gone := x.two.engine.NewBatch()
	gone.Delete(object(0, "k5"))
	if err := gone.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	actortest.Eventually(t, "both have all again", func() bool { return len(all(t, a)) == 200 && x.same() })
	for _, name := range []string{"k3", "k4", "k5"} {
		if got := storedIn(t, b, 0, name); !got.SameCausal(elsewhere(t, 9, name)) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if x.one.node.Counters().Corrupt.Load() == 0 || x.two.node.Counters().Corrupt.Load() == 0 {
		t.Error("what was damaged is not counted")
	}
}

// TestExchangeUnderLoad: writes go on at both replicas, which nothing but exchanges
// connects, some of which break off. No write is undone, and no key has siblings:
// each is written at one of the two, always with the context of the write before.
func TestExchangeUnderLoad(t *testing.T) {
	t.Parallel()
	x := startTwins(t, memory.New(), memory.New(), func(c *Config) { c.pace, c.ExchangeInterval = busyPace, 5*time.Millisecond })
	x.losing.Store(true)
	want := [2]map[string]string{{}, {}}
	var writers sync.WaitGroup
	over := time.Now().Add(actortest.Patience)
	met := func() bool { // some exchanges of each kind fell between the writes
		c := x.one.node.Counters()
		return c.Mended.Load() > 0 && c.Exchanges.Load() > 0 && c.ExchangesFailed.Load() > 0 || time.Now().After(over)
	}
	for i, r := range []*rig{x.one, x.two} {
		writers.Go(func() {
			seen := map[string]version.Context{}
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for n := 0; n < 1500 || !met(); n++ {
				name := fmt.Sprintf("%d-%d", i, rnd.IntN(100))
				value := fmt.Sprint(n)
				seen[name] = r.written(name, value, seen[name]).Stored.Record.Context()
				want[i][name] = value
			}
		})
	}
	writers.Wait()
	if c := x.one.node.Counters(); c.Mended.Load() == 0 || c.Exchanges.Load() == 0 || c.ExchangesFailed.Load() == 0 {
		t.Errorf("meanwhile %d were complete, %d not, and %d records mended", c.Exchanges.Load(), c.ExchangesFailed.Load(), c.Mended.Load())
	}
	x.losing.Store(false)
	actortest.Eventually(t, "the two are the same", func() bool { return x.repair().GetComplete() == 1 && x.same() })
	for i := range want {
		for name, value := range want[i] {
			got := all(t, x.one.engine)[name]
			if len(got.Versions) != 1 || string(got.Versions[0].Value) != value {
				t.Fatalf("%s has %v, the last write was %s", name, got.Versions, value)
			}
		}
	}
	for _, r := range []*rig{x.one, x.two} {
		if n := r.node.Counters().TreeWrong.Load(); n > 0 {
			t.Errorf("%s: %d leaves wrong", r.s.Self, n)
		}
	}
}

// TestNotComparable: nothing is compared with who goes by another ring, is no replica or
// lacks data, or whose store was another one.
func TestNotComparable(t *testing.T) {
	t.Parallel()
	ask := func(change func(*messages.ExchangeRequest)) *messages.ExchangeRequest {
		m := &messages.ExchangeRequest{N: 3, Plan: 1, Question: &messages.ExchangeRequest_Root{Root: &messages.TreeRoot{}}}
		change(m)
		return m
	}
	for what, c := range map[string]struct {
		document func(member.Document) member.Document
		m        *messages.ExchangeRequest
		want     uint32
	}{
		"compares":            {nil, ask(func(*messages.ExchangeRequest) {}), 0},
		"the asker is filled": {lacking, ask(func(*messages.ExchangeRequest) {}), messages.CodeStale},
		"an older document":   {func(d member.Document) member.Document { d.Version = 2; return d }, ask(func(*messages.ExchangeRequest) {}), messages.CodeStale},
		"a newer document":    {nil, ask(func(m *messages.ExchangeRequest) { m.Plan = 9 }), messages.CodeNotReady},
		"another store":       {nil, ask(func(m *messages.ExchangeRequest) { m.Incarnation = make([]byte, 16) }), messages.CodeNotReady},
		"another partition":   {nil, ask(func(m *messages.ExchangeRequest) { m.Partition = 1 }), messages.CodeInvalid},
		"no n":                {nil, ask(func(m *messages.ExchangeRequest) { m.N = 0 }), messages.CodeInvalid},
		"no question":         {nil, ask(func(m *messages.ExchangeRequest) { m.Question = nil }), messages.CodeInvalid},
		"a part of a root": {nil, ask(func(m *messages.ExchangeRequest) {
			m.Question = &messages.ExchangeRequest_Root{Root: &messages.TreeRoot{Hash: []byte("short")}}
		}), messages.CodeInvalid},
		"deeper than the tree": {nil, ask(func(m *messages.ExchangeRequest) {
			m.Question = &messages.ExchangeRequest_Nodes{Nodes: &messages.TreeNodes{Bits: 20, Index: []uint32{0}, To: 22}}
		}), messages.CodeInvalid},
		"leaves that there are not": {nil, ask(func(m *messages.ExchangeRequest) {
			m.Question = &messages.ExchangeRequest_Recheck{Recheck: &messages.TreeLeaves{Bits: 6, Index: []uint32{64}}}
		}), messages.CodeInvalid},
		"records of leaves that there are not": {nil, ask(func(m *messages.ExchangeRequest) {
			m.Question = &messages.ExchangeRequest_Pull{Pull: &messages.RecordNames{Bits: 6, Leaf: []uint32{64}, Hash: []uint64{1}}}
		}), messages.CodeInvalid},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{nodes: 2, document: c.document})
			probe := actortest.NewProbe(r.system)
			r.peers.Handle("n2", func(got actortest.Received) { probe.SendUserMessage(probe.PID, got.Message) })
			r.system.Root.RequestWithCustomSender(r.pid(), c.m, on("n2", "exchange/0/3/n1"))
			if got := actortest.Next[any](t, probe); code(got) != c.want {
				t.Errorf("answered %T %v", got, got)
			}
		})
	}
}

// TestPushIsDurable: who is told that a record was merged need not keep it.
func TestPushIsDurable(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 2})
	probe := actortest.NewProbe(r.system)
	r.peers.Handle("n2", func(got actortest.Received) { probe.SendUserMessage(probe.PID, got.Message) })
	r.engine.HoldSyncs()
	page := &messages.RecordPage{Records: []*messages.HandoffRecord{
		{Bucket: bucketB, Key: []byte("k"), Record: version.Append(nil, elsewhere(t, 9, "v"))},
		{Bucket: bucketB, Key: []byte("l"), Record: []byte("this is no record")},
	}}
	r.system.Root.RequestWithCustomSender(r.pid(), &messages.ExchangeRequest{
		N: 3, Plan: 1, Batch: 7, ReadMs: readNow(), Question: &messages.ExchangeRequest_Push{Push: page},
	}, on("n2", "exchange/0/3/n1"))
	actortest.Eventually(t, "reads see it", func() bool { return len(r.read("k").GetRecord()) > 0 })
	if got := probe.All(); len(got) > 0 {
		t.Errorf("answered before the disk has it: %v", got)
	}
	r.engine.ReleaseSyncs()
	reply := actortest.Next[*messages.ExchangeReply](t, probe)
	if reply.GetBatch() != 7 || reply.GetMerged() != 1 || reply.GetDamaged() != 1 {
		t.Errorf("answered %v", reply)
	}
}

// TestLargeRecordsTravelApart: a message has no more bytes of records than it may.
func TestLargeRecordsTravelApart(t *testing.T) {
	t.Parallel()
	a, b := diskOf(t), diskOf(t)
	for i := range 12 {
		name := fmt.Sprint("k", i)
		put(t, [2]storage.Engine{a, b}[i%2], 0, name, elsewhere(t, 9, string(make([]byte, 400<<10))))
	}
	x := startTwins(t, keep{a}, keep{b}, nil)
	x.one.root()
	x.two.root()
	if reply := x.repair(); reply.GetComplete() != 1 || reply.GetMended() != 12 || !x.same() {
		t.Errorf("repaired: %v", reply)
	}
	// The root's, the levels', two lists of leaves; then six records each way, two by two.
	if n := x.asked.Load(); n < 8 {
		t.Errorf("%d questions for twelve records of 400 KB", n)
	}
}

// TestExchangeOfTreesOfOtherSizes: one side has lost everything but that it is filled, so
// its tree is small; and gets all.
func TestExchangeOfTreesOfOtherSizes(t *testing.T) {
	t.Parallel()
	a, b := diskOf(t), diskOf(t)
	for i := range 2000 {
		name := fmt.Sprint("k", i)
		put(t, b, 0, name, elsewhere(t, 9, name))
	}
	x := startTwins(t, keep{a}, keep{b}, nil)
	x.one.root()
	x.two.root()
	actortest.Eventually(t, "the tree has grown", func() bool { return x.two.node.Counters().TreeEntries.Load() >= 4000 })
	if reply := x.repair(); reply.GetComplete() != 1 || reply.GetMended() != 2000 || !x.same() {
		t.Errorf("repaired: %v", reply)
	}
	if reply := x.repair(); reply.GetMended() != 0 || x.one.node.Counters().ExchangesEqual.Load() != 1 {
		t.Errorf("again: %v", reply)
	}
}

// TestComparableWhileOthersMove: a newer document that says the same of the partition
// ends no exchange; one by which it moves does.
func TestComparableWhileOthersMove(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 6, partitions: 16})
	moving := announce(t, r.doc)
	ask := func(p move, plan uint64) any {
		probe := actortest.NewProbe(r.system)
		peer := p.stays
		r.peers.Handle(peer, func(got actortest.Received) { probe.SendUserMessage(probe.PID, got.Message) })
		m := &messages.ExchangeRequest{Partition: uint32(p.partition), N: 3, Plan: plan, Question: &messages.ExchangeRequest_Root{Root: &messages.TreeRoot{}}}
		r.system.Root.RequestWithCustomSender(on("n1", vnodeName(p.partition)), m, on(dynamo.NodeID(peer), "exchange/0/3/n1"))
		return actortest.Next[any](t, probe)
	}
	p := moveOf(t, moving)
	old := r.doc.Version
	if got := ask(p, old); code(got) != 0 {
		t.Fatalf("nothing moves: %v", got)
	}
	r.enforce(moving)
	if got := ask(p, old); code(got) != 0 {
		t.Errorf("a movement is announced, nothing moves yet: %v", got)
	}
	r.enforce(p.to(moving, member.PhaseJoint))
	if got := ask(p, old); code(got) != messages.CodeStale {
		t.Errorf("the partition moves: %v", got)
	}
	if got := ask(p, r.s.Document().Version); code(got) != 0 {
		t.Errorf("by the same document, while it moves: %v", got)
	}
}

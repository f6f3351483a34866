package actors

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// lasting is an engine of which a read of some keys takes a while.
type lasting struct {
	storage.Engine
	keys func(key []byte) bool
	pass func(time.Duration)
	on   atomic.Bool
}

const while = 3 * time.Minute

func (e *lasting) read(key []byte) {
	if e.on.Load() && e.keys(key) {
		e.pass(while)
	}
}

func (e *lasting) Get(dst, key []byte) ([]byte, error) {
	e.read(key)
	return e.Engine.Get(dst, key)
}

func (e *lasting) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	e.read(lower)
	return e.Engine.Scan(lower, upper, visit)
}

// objects and hints are the keys of those.
func objects(key []byte) bool { return bytes.HasPrefix(key, object(0, "")[:1]) }
func hints(key []byte) bool {
	return bytes.HasPrefix(key, vnode.AppendHintKey(nil, "n", object(0, ""))[:1])
}

// readBefore wants what is sent at this moment to have been read before its reading
// lasted a while, and not long before that: others read, too.
func readBefore(t *testing.T, what string, r *rig, read int64) {
	t.Helper()
	if age := time.Duration(r.s.millis()-read) * time.Millisecond; age < while || age > 10*while {
		t.Errorf("%s: read %v ago, it began %v ago", what, age, while)
	}
}

// TestAnswersAreDated: whatever a vnode answers with records says when it began to read
// them, not when it had.
func TestAnswersAreDated(t *testing.T) {
	t.Parallel()
	e := &lasting{Engine: memory.New(), keys: objects}
	r, ask, probe := startAsN2(t, setup{engine: e})
	e.pass = r.pass
	r.written("k", "v", none)
	r.root()
	hash := entryHash(keyOf("k"), storedIn(t, r.engine, 0, "k")).Short()
	leaf := r.s.shape(0).Prefix(vnode.ObjectPosition(object(0, "k")), 6).Index
	e.on.Store(true)
	for what, m := range map[string]any{
		"read": readOf(0, "k", 0), "digest": readOf(0, "k", 1),
		"pull": &messages.ExchangeRequest{N: 3, Plan: 1, Question: &messages.ExchangeRequest_Pull{
			Pull: &messages.RecordNames{Bits: 6, Leaf: []uint32{leaf}, Hash: []uint64{hash}},
		}},
	} {
		ask(m)
		got := actortest.Next[messages.Dated](t, probe)
		readBefore(t, what, r, got.GetReadMs())
		if x, ok := got.(*messages.ExchangeReply); ok && len(x.GetPage().GetRecords()) != 1 {
			t.Errorf("%s: %v", what, got)
		}
	}
	// A write is made of what is there.
	r.write(r.probe, "k", "w", none, true)
	readBefore(t, "write", r, actortest.Next[*prepared](t, r.probe).read)
}

// TestFillsAreDated: the same of a source of a fill, and of one that is no replica and
// reads what it keeps for others.
func TestFillsAreDated(t *testing.T) {
	t.Parallel()
	e := &lasting{Engine: memory.New(), keys: objects}
	r := start(t, setup{nodes: 2, engine: e, document: lacking})
	e.pass = r.pass
	r.written("k", "v", none)
	e.on.Store(true)
	for what, wanted := range map[string][]*messages.FillKey{"page": nil, "wanted": {{Bucket: bucketB, Key: []byte("k")}}} {
		m := fillOf(0, r.doc)
		m.Store, m.Wanted = storeOf(2), wanted
		got := actortest.Next[*messages.FillReply](t, r.asN2(0, m))
		if readBefore(t, what, r, got.GetReadMs()); len(got.GetRecords()) != 1 {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// TestHandedOverIsDated: what a transfer hands over, and a read of it, was read when its
// reading began.
func TestHandedOverIsDated(t *testing.T) {
	t.Parallel()
	e := &lasting{Engine: memory.New(), keys: hints}
	x := startHintedOn(t, e)
	e.pass = x.pass
	e.on.Store(true)
	before := x.s.millis()
	x.probe.Ask(on("n1", vnodeName(x.p)), readOf(x.p, x.name, 0))
	got := actortest.Next[*messages.ReadReply](t, x.probe)
	if after := got.GetReadMs() - before; len(got.GetRecord()) == 0 || after < 0 || after >= while.Milliseconds() {
		t.Errorf("read %d ms after it was asked for: %v", after, got)
	}
	x.opinions.set(x.back, false)
	readBefore(t, "handoff", x.rig, x.next().Message.(messages.Dated).GetReadMs())
}

// TestExchangedIsDated: the same of both directions of an exchange.
func TestExchangedIsDated(t *testing.T) {
	t.Parallel()
	a, b := &lasting{Engine: diskOf(t), keys: objects}, &lasting{Engine: diskOf(t), keys: objects}
	put(t, a, 0, "mine", elsewhere(t, 9, "v"))
	put(t, b, 0, "theirs", elsewhere(t, 9, "v"))
	x := startTwins(t, keep{a}, keep{b}, nil)
	a.pass, b.pass = x.one.pass, x.two.pass
	x.one.root()
	x.two.root()
	var seen atomic.Int64
	x.records = func(m messages.Dated) {
		seen.Add(1)
		from := x.one
		if _, reply := m.(*messages.ExchangeReply); reply {
			from = x.two
		}
		readBefore(t, fmt.Sprintf("%T", m), from, m.GetReadMs())
	}
	a.on.Store(true)
	b.on.Store(true)
	x.repair() // the clocks of the two part ways
	if seen.Load() == 0 {
		t.Error("nothing was exchanged")
	}
}

// occupy keeps the vnode of a partition in a turn until the gate is released.
func (r *rig) occupy(g *gate, p dynamo.Partition) {
	r.t.Helper()
	r.probe.Ask(on(r.s.Self, vnodeName(p)), &messages.HandoffRequest{
		Partition: uint32(p), N: 3, ReadMs: readNow(), Records: handed(inPartition(r, p), elsewhere(r.t, 99, "v")),
	})
	<-g.waiting
}

// waits reports whether records wait for the vnode of a partition: no other messages of
// these tests are that large.
func (r *rig) waits(p dynamo.Partition) bool {
	stats, _ := r.node.Registry().Find(vnodeName(p))
	return stats.Bytes > 1000
}

// TestPagesKeepTheirDate: a page of a fill or of an exchange that was young when its actor
// took it, and waits for the vnode, is judged by when it was read.
func TestPagesKeepTheirDate(t *testing.T) {
	t.Parallel()
	t.Run("fill", func(t *testing.T) {
		t.Parallel()
		g := newGate(memory.New())
		x := startFiller(t, g, func(all map[string]*source) {
			for _, s := range all {
				s.set(0, nil)
			}
		})
		places := slices.Compact(slices.Sorted(maps.Values(x.where)))
		g.shut()
		for _, p := range places {
			x.occupy(g, p)
		}
		for _, s := range x.all {
			s.aged(young)
			s.set(-1, nil)
		}
		actortest.Eventually(t, "a page waits", func() bool { return slices.ContainsFunc(places, x.waits) })
		if n := x.node.Counters().TooOld.Load(); n != 0 {
			t.Errorf("%d refused", n)
		}
		for _, s := range x.all {
			s.aged(0) // what comes later is new
		}
		x.pass(old - young)
		g.release()
		actortest.Eventually(t, "it is refused", func() bool { return x.node.Counters().TooOld.Load() > 0 })
		actortest.Eventually(t, "it is asked for again", x.some)
	})
	t.Run("exchange", func(t *testing.T) {
		t.Parallel()
		a, b := diskOf(t), diskOf(t)
		put(t, b, 0, "k", elsewhere(t, 9, strings.Repeat("v", 2000)))
		g := newGate(keep{a})
		x := startTwins(t, g, keep{b}, nil)
		x.one.root()
		x.two.root()
		var once sync.Once
		on := make(chan struct{})
		x.records = func(m messages.Dated) {
			once.Do(func() {
				m.SetReadMs(m.GetReadMs() - young.Milliseconds())
				g.shut()
				x.one.occupy(g, 0)
				close(on)
			})
		}
		done := make(chan *messages.RepairReply)
		go func() { done <- x.repair() }()
		<-on
		actortest.Eventually(t, "the page waits", func() bool { return x.one.waits(0) })
		x.one.pass(old - young)
		x.two.pass(old - young)
		g.release()
		// The exchange is begun again by itself.
		if reply := <-done; reply.GetComplete() != 1 || x.one.node.Counters().TooOld.Load() != 1 || !x.same() {
			t.Errorf("%v, %d refused", reply, x.one.node.Counters().TooOld.Load())
		}
	})
}

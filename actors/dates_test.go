package actors

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage/memory"
)

// old and young are ages of records that may not be merged any more, and that may.
const (
	old   = reap.MessageLife + time.Second
	young = reap.MessageLife - time.Minute
)

// carriers are the messages that a vnode gets records in, made of a key's record and
// its date.
var carriers = map[string]func(name string, rec version.Record, read int64) any{
	"replicate": func(name string, rec version.Record, read int64) any {
		m := replicateOf(0, name, rec, true)
		m.ReadMs = read
		return m
	},
	"replicate to one that stands in": func(name string, rec version.Record, read int64) any {
		m := replicateOf(0, name, rec, true)
		m.ReadMs, m.HintFor = read, "n2"
		return m
	},
	"handoff": func(name string, rec version.Record, read int64) any {
		return &messages.HandoffRequest{N: 3, ReadMs: read, Records: handed(name, rec)}
	},
	"push": func(name string, rec version.Record, read int64) any {
		page := &messages.RecordPage{Records: handed(name, rec)}
		return &messages.ExchangeRequest{N: 3, Plan: 1, ReadMs: read, Question: &messages.ExchangeRequest_Push{Push: page}}
	},
	"a page that was pulled": func(name string, rec version.Record, read int64) any {
		return &mergePage{plan: 1, n: 3, records: handed(name, rec), read: read}
	},
}

func handed(name string, rec version.Record) []*messages.HandoffRecord {
	return []*messages.HandoffRecord{{Bucket: bucketB, Key: []byte(name), Record: version.Append(nil, rec)}}
}

// startAsN2 starts n1 as one of two replicas, and has a probe get what n1 answers n2.
func startAsN2(t *testing.T, o setup) (r *rig, ask func(any), probe *actortest.Probe) {
	t.Helper()
	o.nodes = 2
	r = start(t, o)
	probe = actortest.NewProbe(r.system)
	r.peers.Handle("n2", func(got actortest.Received) {
		if got.Target.GetId() == "exchange/0/3/n1" {
			probe.SendUserMessage(probe.PID, got.Message)
		}
	})
	ask = func(m any) { r.system.Root.RequestWithCustomSender(r.pid(), m, on("n2", "exchange/0/3/n1")) }
	return r, ask, probe
}

// TestOldRecordsAreRefused: in whatever message a vnode gets a record, it merges it only
// if it was read from a store not too long ago.
func TestOldRecordsAreRefused(t *testing.T) {
	t.Parallel()
	r, ask, probe := startAsN2(t, setup{})
	now := readNow()
	for what, carry := range carriers {
		for when, c := range map[string]struct {
			read int64
			want uint32
		}{
			"without a date": {0, messages.CodeInvalid},
			"to come":        {now + time.Hour.Milliseconds(), messages.CodeInvalid},
			"old":            {now - old.Milliseconds(), messages.CodeTooOld},
			"not known":      {1, messages.CodeTooOld},
			"young":          {now - young.Milliseconds(), 0},
			"new":            {now, 0},
		} {
			name := what + " " + when
			before, hints := r.node.Counters().TooOld.Load(), r.s.hints.count().Records
			ask(carry(name, elsewhere(t, 9, "v"), c.read))
			if got := actortest.Next[any](t, probe); code(got) != c.want {
				t.Errorf("%s: answered %T %v", name, got, got)
			}
			counted := r.node.Counters().TooOld.Load() - before
			if (counted == 1) != (c.want == messages.CodeTooOld) {
				t.Errorf("%s: %d counted", name, counted)
			}
			if is := !storedIn(t, r.engine, 0, name).IsZero(); is != (c.want == 0) {
				t.Errorf("%s: merged: %v", name, is)
			}
			if kept := r.s.hints.count().Records - hints; kept > 0 && c.want != 0 {
				t.Errorf("%s: a hint is kept", name)
			}
		}
	}
	// Without records there is nothing to date: this asks only for what is durable.
	ask(&messages.HandoffRequest{N: 3})
	if _, ok := actortest.Next[any](t, probe).(*messages.HandoffReply); !ok {
		t.Error("a handoff of nothing was refused")
	}
}

// TestAgeIsJudgedInTheTurn: a record that was young when its message came, and has waited
// since, is judged by what it is then.
func TestAgeIsJudgedInTheTurn(t *testing.T) {
	t.Parallel()
	for what, carry := range carriers {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g := newGate(memory.New())
			r, ask, probe := startAsN2(t, setup{engine: g})
			g.shut()
			r.write(r.probe, "first", "v", none, true)
			<-g.waiting
			ask(carry("k", elsewhere(t, 9, "v"), readNow()))
			r.pass(old)
			g.release()
			if got := actortest.Next[any](t, probe); code(got) != messages.CodeTooOld {
				t.Errorf("answered %T %v", got, got)
			}
			if !storedIn(t, r.engine, 0, "k").IsZero() {
				t.Error("it was merged")
			}
		})
	}
}

// TestOldAnswersAreNotMerged: a read takes no record that a replica has read too long ago,
// shows it to nobody and repairs nobody with it.
func TestOldAnswersAreNotMerged(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 3})
	x := r.replicas("n2", "n3")
	x["n2"].set("k", elsewhere(t, 9, "v"))
	x["n2"].aged(old)
	if got, m := r.shown("k"); len(got) != 0 || len(m.GetContext()) != 0 {
		t.Errorf("shown %v", m)
	}
	r.quiet()
	if n := r.node.Counters().TooOld.Load(); n != 1 || len(x["n3"].given()) != 0 || !storedIn(t, r.engine, 0, "k").IsZero() {
		t.Errorf("%d refused, n3 was given %v, here is %v", n, x["n3"].given(), storedIn(t, r.engine, 0, "k"))
	}
	all := getOf("k")
	all.Quorum = &messages.Quorum{R: 3}
	if answer := r.ask(all); code(answer) != messages.CodeUnavailable {
		t.Errorf("the answer counts: %v", answer)
	}
	// A younger one is merged, and those that are repaired learn how old it is, also
	// together with one that is new.
	r.quiet()
	x["n2"].aged(young)
	x["n3"].set("k", elsewhere(t, 8, "w"))
	if answer, ok := r.ask(all).(*messages.GetReply); !ok || len(answer.GetValues()) != 2 {
		t.Errorf("young: %v", answer)
	}
	r.quiet()
	for node, n := range x {
		given := n.given()
		if len(given) != 1 || given[0] > readNow()-young.Milliseconds() || given[0] < readNow()-young.Milliseconds()-actortest.Patience.Milliseconds() {
			t.Errorf("%s was repaired with records of %v, it is %d", node, given, readNow())
		}
	}
	actortest.Eventually(t, "the repair here", func() bool { return len(storedIn(t, r.engine, 0, "k").Versions) == 2 })
}

// TestPlannedAnewWithItsDate: a write that goes on with a later plan goes on with the
// record that it has made, and with its date.
func TestPlannedAnewWithItsDate(t *testing.T) {
	r, m, x, name := startMoving(t, member.PhaseAnnounced)
	joint := m.to(r.doc, member.PhaseJoint)
	put := putOf(name, "v", nil)
	put.Quorum = &messages.Quorum{W: 3}
	x[m.leaves].fail(staleAt(joint.Version))
	before := readNow()
	r.probe.Ask(r.coordinator(), put)
	actortest.Eventually(t, "the request waits for the document", func() bool { return x[m.leaves].refusals() > 0 })
	after := readNow()
	x[m.leaves].fail(nil)
	r.pass(young)
	r.enforce(joint)
	actortest.Next[*messages.PutReply](t, r.probe)
	r.quiet()
	var given []int64
	for _, node := range []string{m.stays, m.leaves, m.comes} {
		given = append(given, x[node].given()...)
	}
	if len(given) < 4 || slices.Max(given) != slices.Min(given) || given[0] < before || given[0] > after {
		t.Errorf("replicated with the dates %v, made between %d and %d", given, before, after)
	}
}

// TestHandoffReadsAnew: a hint that was under way for too long is handed over again, as it
// is read then, and is kept until that is confirmed.
func TestHandoffReadsAnew(t *testing.T) {
	t.Parallel()
	x := startHinted(t)
	x.opinions.set(x.back, false)
	first := x.next()
	x.pass(time.Hour)
	x.peers.Answer(first, messages.Fail(messages.CodeTooOld, "it took an hour"))
	second := x.next()
	if got := x.hintsOf(); got.Records != 1 {
		t.Errorf("%+v is kept of what was refused", got)
	}
	between := second.Message.(messages.Dated).GetReadMs() - first.Message.(messages.Dated).GetReadMs()
	if between < time.Hour.Milliseconds() || between > (time.Hour+actortest.Patience).Milliseconds() {
		t.Errorf("read again after %d ms", between)
	}
	x.confirm(second)
	actortest.Eventually(t, "the hint is gone", func() bool { return x.hintsOf() == HintCount{} })
}

// TestFillReadsAnew: pages that were under way for too long fill nothing, and are asked
// for again; the fill leaves who sent them for now.
func TestFillReadsAnew(t *testing.T) {
	t.Parallel()
	x := startFiller(t, nil, func(all map[string]*source) {
		for _, s := range all {
			s.aged(old)
		}
	})
	actortest.Eventually(t, "pages of all sources are refused", func() bool {
		x.probe.Ask(on("n1", nameTransfers), &messages.TransfersRequest{})
		for _, s := range actortest.Next[*messages.TransfersReply](t, x.probe).GetTransfers() {
			if strings.Count(s.GetProblem(), ": read too long ago: ") == 3 {
				return true
			}
		}
		return false
	})
	_, filled := x.s.filledFacts() // what has no records has none that are old
	for name, p := range x.where {
		if !storedIn(t, x.engine, p, name).IsZero() || slices.Contains(filled, p) {
			t.Fatalf("partition %d has %s, filled are %v", p, name, filled)
		}
	}
	for _, s := range x.all {
		s.aged(young)
	}
	actortest.Eventually(t, "one of them is filled", x.some)
}

// some reports whether a partition that has records has all of them.
func (x *filler) some() bool {
	_, filled := x.s.filledFacts()
	for name, p := range x.where {
		if slices.Contains(filled, p) {
			return storedIn(x.t, x.engine, p, name).SameCausal(x.want[name])
		}
	}
	return false
}

// TestExchangeReadsAnew: an exchange whose records were under way for too long is not
// complete and moves nothing, in either direction; the next one does.
func TestExchangeReadsAnew(t *testing.T) {
	t.Parallel()
	for what, pull := range map[string]bool{"pull": true, "push": false} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			a, b := diskOf(t), diskOf(t)
			for i := range 20 {
				name := fmt.Sprint("k", i)
				put(t, a, 0, name, elsewhere(t, 9, name))
				put(t, b, 0, name, elsewhere(t, 9, name))
			}
			has, lacks := a, b
			if pull {
				has, lacks = b, a
			}
			put(t, has, 0, "more", elsewhere(t, 9, "v"))
			x := startTwins(t, keep{a}, keep{b}, nil)
			x.one.root()
			x.two.root()
			x.aging.Store(true)
			refused := func() uint64 { return x.one.node.Counters().TooOld.Load() + x.two.node.Counters().TooOld.Load() }
			reply := x.repair()
			if reply.GetFailed() != 1 || reply.GetMended() != 0 || refused() == 0 || len(all(t, lacks)) != 20 {
				t.Errorf("with old records: %v, %d refused, %d keys", reply, refused(), len(all(t, lacks)))
			}
			if n := x.two.node.Counters().TooOld.Load(); (n == 0) != pull {
				t.Errorf("n2 refused %d", n)
			}
			x.aging.Store(false)
			// It names the peer: what was pulled went no further than the exchange.
			if problem := fmt.Sprint(reply.GetProblems()); !strings.Contains(problem, "n2: n2: read too long ago") {
				t.Errorf("reported as %s", problem)
			}
			if reply := x.repair(); reply.GetComplete() != 1 || reply.GetMended() != 1 || !x.same() {
				t.Errorf("with new ones: %v", reply)
			}
		})
	}
}

// line holds up what is written to a connection.
type line struct {
	net.Conn
	held *sync.RWMutex
}

func (l line) Write(b []byte) (int, error) {
	l.held.RLock()
	defer l.held.RUnlock()
	return l.Conn.Write(b)
}

// TestHeldUpBetweenNodes: two nodes whose clocks have nothing to do with each other. A
// replication is under way between them for longer than it may be, is refused, and
// what it had comes by a hint that is read anew.
func TestHeldUpBetweenNodes(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	clock := func(off time.Duration) func() time.Duration {
		return func() time.Duration { return rt.Clock() + off + time.Duration(passed.Load()) }
	}
	here, there := clock(50*time.Hour), clock(-20*time.Hour)
	patient := func(c *link.Config) { c.Silence = 2 * actortest.Patience }
	var address string
	two := start(t, setup{self: "n2", nodes: 2, change: func(c *Config) { c.Clock = there }, connect: func(r *rig) {
		_, address = open(t, r.system, nil, patient, func(c *link.Config) { c.Clock = there })
	}})
	var links *link.Links
	var held sync.RWMutex
	one := start(t, setup{nodes: 2, change: func(c *Config) { c.Clock = here }, connect: func(r *rig) {
		links, _ = open(t, r.system, nil, patient, func(c *link.Config) {
			c.Clock = here
			c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
				return line{conn, &held}, err
			}
		})
	}})
	if err := links.SetPeer("n2", address); err != nil {
		t.Fatal(err)
	}
	actortest.Eventually(t, "the link is up", func() bool { p, _ := links.Peer("n2"); return p.Up() })
	write := func(name string) {
		t.Helper()
		m := putOf(name, "v", nil)
		m.Quorum = &messages.Quorum{W: 1}
		one.put(m)
	}
	has := func(name string) func() bool {
		return func() bool { return !storedIn(t, two.engine, 0, name).IsZero() }
	}
	write("at once")
	actortest.Eventually(t, "n2 has it", has("at once"))
	if n := two.node.Counters().TooOld.Load(); n != 0 {
		t.Fatalf("%d refused", n)
	}
	held.Lock()
	write("held up")
	passed.Add(int64(old))
	held.Unlock()
	actortest.Eventually(t, "it is refused", func() bool { return two.node.Counters().TooOld.Load() > 0 })
	actortest.Eventually(t, "n2 has it by a hint", has("held up"))
	actortest.Eventually(t, "the hint is gone", func() bool { return one.s.hints.count() == HintCount{} })
	actortest.Eventually(t, "it counts as delivered", func() bool { return one.node.Counters().HintsDelivered.Load() > 0 })
}

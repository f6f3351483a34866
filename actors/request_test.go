package actors

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
)

func code(answer any) uint32 {
	f, ok := answer.(*messages.Failure)
	if !ok {
		return 0
	}
	return f.GetCode()
}

func TestPutGetDelete(t *testing.T) {
	r := start(t, setup{nodes: 3})
	others := r.replicas("n2", "n3")
	c := r.put(putOf("k", "one", nil))
	r.quiet()
	for name, x := range others {
		if got := x.holds("k").Versions; len(got) != 1 || string(got[0].Value) != "one" {
			t.Errorf("%s holds %v", name, got)
		}
	}
	r.put(putOf("k", "two", c))
	if got, _ := r.shown("k"); !slices.Equal(got, []string{"two"}) {
		t.Errorf("get: %v", got)
	}
	r.put(putOf("k", "three", nil))
	got, m := r.shown("k")
	if slices.Sort(got); !slices.Equal(got, []string{"three", "two"}) {
		t.Errorf("a put without context: %v", got)
	}
	deletion := putOf("k", "", m.GetContext())
	deletion.Delete = true
	r.put(deletion)
	got, m = r.shown("k")
	if len(got) != 0 || len(m.GetContext()) == 0 {
		t.Errorf("a deleted key: %v, context of %d bytes", got, len(m.GetContext()))
	}
	r.put(putOf("k", "four", m.GetContext()))
	if got, _ := r.shown("k"); !slices.Equal(got, []string{"four"}) {
		t.Errorf("written again with the deletion's context: %v", got)
	}
	if got, m := r.shown("never"); len(got) != 0 || len(m.GetContext()) != 0 {
		t.Errorf("a key never written: %v, %v", got, m)
	}
}

// TestRequestRefused: what is wrong with a request is said in its own words, and
// nothing is asked of anybody.
func TestRequestRefused(t *testing.T) {
	r := start(t, setup{nodes: 3})
	others := r.replicas("n2", "n3")
	foreign := r.put(putOf("another", "v", nil))
	r.quiet()
	_, _, before := others["n2"].counts()
	id := putOf("k", "v", nil)
	id.RequestId = []byte("short")
	for name, c := range map[string]struct {
		m    any
		code uint32
		text string
	}{
		"no key":          {getOf(""), messages.CodeInvalid, "key is empty"},
		"no bucket":       {&messages.GetRequest{Key: []byte("k")}, messages.CodeInvalid, "bucket is empty"},
		"long key":        {getOf(strings.Repeat("k", 1025)), messages.CodeInvalid, "at most 1024"},
		"r of 4":          {&messages.GetRequest{Bucket: bucketB, Key: []byte("k"), Quorum: &messages.Quorum{R: 4}}, messages.CodeInvalid, "r is out of range: 4, allowed are 1 to n = 3"},
		"w of 4":          {&messages.PutRequest{Bucket: bucketB, Key: []byte("k"), Quorum: &messages.Quorum{W: 4}}, messages.CodeInvalid, "w is out of range: 4"},
		"pr, huge":        {&messages.GetRequest{Bucket: bucketB, Key: []byte("k"), Quorum: &messages.Quorum{Pr: 1 << 31}}, messages.CodeInvalid, "pr is out of range"},
		"too much time":   {&messages.GetRequest{Bucket: bucketB, Key: []byte("k"), TimeoutMs: 1 << 31}, messages.CodeInvalid, "at most 5m"},
		"large value":     {putOf("k", strings.Repeat("v", 1<<20+1), nil), messages.CodeTooLarge, "at most 1048576"},
		"foreign context": {putOf("k", "v", foreign), messages.CodeBadContext, ""},
		"garbage context": {putOf("k", "v", []byte("garbage")), messages.CodeBadContext, ""},
		"huge context":    {putOf("k", "v", make([]byte, dynamo.MaxContext+1)), messages.CodeBadContext, ""},
		"request id":      {id, messages.CodeInvalid, "16 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := r.ask(c.m)
			if f, ok := answer.(*messages.Failure); !ok || f.GetCode() != c.code || !strings.Contains(f.GetText(), c.text) {
				t.Errorf("answered %v, want %s: ... %s", answer, messages.CodeName(c.code), c.text)
			}
		})
	}
	if _, _, after := others["n2"].counts(); after != before {
		t.Errorf("%d replications of refused writes", after-before)
	}
}

// TestPanicAnswersOnce: a request actor that panics stops, and its client gets
// one answer: a read's is a failure, a write's that it may still appear.
func TestPanicAnswersOnce(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.replicas("n2", "n3")
	r.panicking.Store(true)
	gets, puts := actortest.NewProbe(r.system), actortest.NewProbe(r.system)
	gets.Ask(r.coordinator(), getOf("k"))
	puts.Ask(r.coordinator(), putOf("k", "v", nil))
	if f := actortest.Next[*messages.Failure](t, gets); f.GetCode() != messages.CodeInternal {
		t.Errorf("get: %v", f)
	}
	if f := actortest.Next[*messages.Failure](t, puts); f.GetCode() != messages.CodeUnknown {
		t.Errorf("put: %v", f)
	}
	r.quiet()
	r.panicking.Store(false)
	r.shown("k") // the coordinator goes on
	if len(gets.All()) != 1 || len(puts.All()) != 1 {
		t.Errorf("answers: %v, %v", gets.All(), puts.All())
	}
	if n := r.s.unanswered.Load(); n != 0 {
		t.Errorf("%d requests are counted as unanswered", n)
	}
}

// TestDeadline: replicas that say nothing cost a read its time; a write that was
// begun is unknown then.
func TestDeadline(t *testing.T) {
	r := start(t, setup{nodes: 3})
	for _, n := range []string{"n2", "n3"} {
		r.peers.Handle(n, func(actortest.Received) {})
	}
	get, put := getOf("k"), putOf("k", "v", nil)
	get.TimeoutMs, put.TimeoutMs = 30, 30
	answer := r.ask(get)
	if f, ok := answer.(*messages.Failure); !ok || f.GetCode() != messages.CodeUnavailable || f.GetAnswered() != 1 || f.GetNeeded() != 2 ||
		!strings.Contains(f.GetText(), "n2: timeout") {
		t.Errorf("get: %v", answer)
	}
	answer = r.ask(put)
	if f, ok := answer.(*messages.Failure); !ok || f.GetCode() != messages.CodeUnknown || f.GetAnswered() != 1 || f.GetNeeded() != 2 {
		t.Errorf("put: %v", answer)
	}
}

// TestUnreachableReplica: one that is not connected, or refuses, costs nothing
// while the quorum is met, and the request ends at once when it is not.
func TestUnreachableReplica(t *testing.T) {
	t.Parallel()
	for name, break_ := range map[string]func(*rig, map[string]*replica){
		"not connected": func(r *rig, _ map[string]*replica) { r.peers.Handle("n3", nil) },
		"storage failed": func(_ *rig, x map[string]*replica) {
			x["n3"].fail(messages.Fail(messages.CodeStorage, "bad sector"))
		},
		"no such actor": func(_ *rig, x map[string]*replica) {
			x["n3"].fail(messages.Fail(messages.CodeUnreachable, "no vnode"))
		},
		"garbage": func(r *rig, _ map[string]*replica) {
			r.peers.Handle("n3", func(m actortest.Received) {
				r.peers.Answer(m, &messages.ReadReply{Record: []byte("garbage"), Authoritative: true, ReadMs: readNow()})
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, setup{nodes: 3})
			x := r.replicas("n2", "n3")
			break_(r, x)
			r.put(putOf("k", "v", nil))
			if got, _ := r.shown("k"); !slices.Equal(got, []string{"v"}) {
				t.Errorf("get: %v", got)
			}
			all := getOf("k")
			all.Quorum = &messages.Quorum{R: 3}
			if answer := r.ask(all); code(answer) != messages.CodeUnavailable {
				t.Errorf("a read of all three: %v", answer)
			}
		})
	}
}

// held connects nodes that answer only when the test lets them.
type held struct {
	mu   sync.Mutex
	all  []actortest.Received
	rig  *rig
	open map[string]*replica
}

func (r *rig) held(names ...string) *held {
	h := &held{rig: r, open: map[string]*replica{}}
	for _, n := range names {
		h.open[n] = &replica{t: r.t, peers: r.peers, records: map[string]version.Record{}}
		r.peers.Handle(n, func(m actortest.Received) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.all = append(h.all, m)
		})
	}
	return h
}

// release answers everything that came so far.
func (h *held) release() {
	h.mu.Lock()
	all := h.all
	h.all = nil
	h.mu.Unlock()
	for _, m := range all {
		h.open[m.Target.GetAddress()].receive(m)
	}
}

func (h *held) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all)
}

// TestOverload: over the bound a request is answered at once, with a hint; when
// others have ended there is room again.
func TestOverload(t *testing.T) {
	r := start(t, setup{nodes: 3, change: func(c *Config) { c.MaxRequests = 2 }})
	h := r.held("n2", "n3")
	probe := actortest.NewProbe(r.system)
	probe.Ask(r.coordinator(), getOf("a"))
	probe.Ask(r.coordinator(), putOf("b", "v", nil))
	answer := r.ask(getOf("c"))
	if f, ok := answer.(*messages.Failure); !ok || f.GetCode() != messages.CodeOverloaded || f.GetRetryAfterMs() == 0 {
		t.Errorf("over the bound: %v", answer)
	}
	if n := r.node.Counters().Shed.Load(); n != 1 {
		t.Errorf("shed %d", n)
	}
	actortest.Eventually(t, "both requests were sent", func() bool { return h.waiting() == 4 })
	h.release()
	actortest.Next[*messages.GetReply](t, probe)
	actortest.Next[*messages.PutReply](t, probe)
	r.peers.Handle("n2", nil)
	r.peers.Handle("n3", nil)
	if answer := r.ask(getOf("c")); code(answer) != messages.CodeUnavailable {
		t.Errorf("with room again: %v", answer)
	}
}

// TestStragglersTakeNoRoom: requests that are answered and wait for a replica
// that hangs leave the others their turn.
func TestStragglersTakeNoRoom(t *testing.T) {
	r := start(t, setup{nodes: 3, change: func(c *Config) { c.MaxRequests = 2 }})
	r.replicas("n2")
	h := r.held("n3")
	for range lingerFactor * 2 {
		r.shown("k")
	}
	if n := len(r.processes(messages.TargetGet)); n < 3 {
		t.Fatalf("%d requests linger, the test wants more than MaxRequests", n)
	}
	h.release()
	r.quiet()
}

// TestLateAnswers to a request that has ended reach nobody and harm nothing.
func TestLateAnswers(t *testing.T) {
	r := start(t, setup{nodes: 3})
	h := r.held("n2", "n3")
	get, put := getOf("k"), putOf("k", "v", nil)
	get.TimeoutMs, put.TimeoutMs = 20, 20
	r.ask(get)
	r.ask(put)
	r.quiet()
	h.release()
	r.replicas("n2", "n3")
	r.put(putOf("k", "w", nil))
	if got, _ := r.shown("k"); len(got) != 2 {
		t.Errorf("get: %v", got)
	}
}

// TestPeerDown: when the link to a replica breaks, requests that wait for it go
// on without it at once, and a write that was passed on to it is unknown.
func TestPeerDown(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.replicas("n2")
	h := r.held("n3")
	all, put := getOf("k"), putOf("k", "v", nil)
	all.Quorum, put.Quorum = &messages.Quorum{R: 3}, &messages.Quorum{W: 3}
	gets, puts := actortest.NewProbe(r.system), actortest.NewProbe(r.system)
	gets.Ask(r.coordinator(), all)
	puts.Ask(r.coordinator(), put)
	actortest.Eventually(t, "the replica was asked", func() bool { return h.waiting() == 2 })
	r.node.PeerDown("n2") // has answered
	r.node.PeerDown("n3")
	if f := actortest.Next[*messages.Failure](t, gets); f.GetCode() != messages.CodeUnavailable || !strings.Contains(f.GetText(), "n3: unreachable") {
		t.Errorf("get: %v", f)
	}
	if f := actortest.Next[*messages.Failure](t, puts); f.GetCode() != messages.CodeUnknown || f.GetNeeded() != 3 {
		t.Errorf("put: %v", f)
	}
}

// TestPeerDownBefore: word of a break from before a request began says nothing of
// the connection that the request uses.
func TestPeerDownBefore(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.replicas("n2")
	h := r.held("n3")
	down := &peerDown{node: "n3", at: time.Now()}
	m := getOf("k")
	m.Quorum = &messages.Quorum{R: 3}
	r.probe.Ask(r.coordinator(), m)
	actortest.Eventually(t, "the replica was asked", func() bool { return h.waiting() == 1 })
	r.system.Root.Send(r.coordinator(), down)
	later := actortest.NewProbe(r.system)
	later.Ask(r.coordinator(), localGet("other")) // the coordinator has passed the word on before it answers this
	actortest.Next[*messages.GetReply](t, later)
	h.release()
	if reply := actortest.Next[*messages.GetReply](t, r.probe); len(reply.GetValues()) != 0 {
		t.Errorf("get: %v", reply)
	}
}

// localGet is a read that n1 answers alone.
func localGet(name string) *messages.GetRequest {
	m := getOf(name)
	m.Quorum = &messages.Quorum{R: 1}
	return m
}

// TestStopWaitsForRequests: those in flight are finished, new ones refused.
func TestStopWaitsForRequests(t *testing.T) {
	r := start(t, setup{nodes: 3})
	h := r.held("n2", "n3")
	r.probe.Ask(r.coordinator(), putOf("k", "v", nil))
	actortest.Eventually(t, "the replicas were asked", func() bool { return h.waiting() == 2 })
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.stop() }()
	actortest.Eventually(t, "new requests are refused", func() bool {
		return code(r.ask(localGet("k"))) == messages.CodeNotReady
	})
	select {
	case <-stopped:
		t.Error("stopped with a request in flight")
	default:
	}
	h.release()
	actortest.Next[*messages.PutReply](t, r.probe)
	<-stopped
}

// TestStopCutShort: when the time to stop is over, clients are still answered.
func TestStopCutShort(t *testing.T) {
	r := start(t, setup{nodes: 3})
	h := r.held("n2", "n3")
	r.probe.Ask(r.coordinator(), putOf("k", "v", nil))
	actortest.Eventually(t, "the replicas were asked", func() bool { return h.waiting() == 2 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	r.stopped = true
	if err := r.node.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeUnknown {
		t.Errorf("answered %v", f)
	}
}

// TestCoordinatorRestarts: its requests are answered, and answers that come
// later for them reach no request of the new one.
func TestCoordinatorRestarts(t *testing.T) {
	r := start(t, setup{nodes: 3})
	h := r.held("n2", "n3")
	r.probe.Ask(r.coordinator(), putOf("k", "old", nil))
	actortest.Eventually(t, "the replicas were asked", func() bool { return h.waiting() == 2 })
	old := r.processes(messages.TargetPut)
	finished := make(chan struct{})
	r.system.Root.Send(r.coordinator(), &finishRequests{done: func() { close(finished) }})
	actortest.Eventually(t, "new requests are refused", func() bool { return code(r.ask(localGet("k"))) == messages.CodeNotReady })
	process, _ := r.system.ProcessRegistry.GetLocal(nameCoordinator)
	process.SendSystemMessage(r.coordinator(), &actor.Restart{}) // as its supervisor does after a panic
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeUnknown {
		t.Errorf("the request in flight: %v", f)
	}
	// The new instance knows that the node is stopping.
	if answer := r.ask(getOf("k")); code(answer) != messages.CodeNotReady {
		t.Errorf("after the restart: %v", answer)
	}
	<-finished
	r.quiet()
	h.release()
	if len(old) != 1 || len(r.probe.All()) != 1 {
		t.Errorf("requests %v, answers %v", old, r.probe.All())
	}
}

// bucketOf is the bucket b with other properties than the default.
func bucketOf(change func(*bucket.Properties)) []member.Bucket {
	p := bucket.Default()
	change(&p)
	return []member.Bucket{{Name: "b", Properties: p}}
}

// TestDurabilityOneFailedCommit: when the one disk that should have the write
// fails, the others still hold it, in memory: the write is done by W of them, as
// in § 6.1, or with W = 3 it is unknown. It is never refused as not attempted.
func TestDurabilityOneFailedCommit(t *testing.T) {
	for w, want := range map[uint32]uint32{2: 0, 3: messages.CodeUnknown} {
		r := start(t, setup{nodes: 3, buckets: bucketOf(func(p *bucket.Properties) { p.Durability = dynamo.DurabilityOne })})
		x := r.replicas("n2", "n3")
		r.engine.FailSyncs(errors.New("bad sector"))
		m := putOf("k", "v", nil)
		m.Quorum = &messages.Quorum{W: w}
		if answer := r.ask(m); code(answer) != want {
			t.Errorf("w=%d: %v", w, answer)
		}
		r.quiet()
		if len(x["n2"].holds("k").Versions) != 1 || len(x["n3"].holds("k").Versions) != 1 {
			t.Errorf("w=%d: the others do not hold it", w)
		}
	}
}

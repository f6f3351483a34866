package link

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/messages"
)

func TestRequestAndReply(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	vnode, seen := b.vnode("vnode/1")
	get := a.inbox("get/1", 10)
	meet(t, a, b)
	get.send(vnode, &messages.ReadRequest{Key: []byte("hello")})
	if reply := next[*messages.ReadReply](t, get); string(reply.Record) != "hello" {
		t.Errorf("reply is %v", reply)
	}
	if seen.Load() != 1 {
		t.Errorf("vnode saw %d requests", seen.Load())
	}
	eventually(t, "counted", func() bool { s, _ := a.links.Peer("b"); return s.Sent == 1 })
	s, _ := a.links.Peer("b")
	if s.QueuedMessages != 0 || s.QueuedBytes != 0 || s.Received != 1 || s.Connects != 1 || !s.Dialled || s.Role != messages.RoleNode || s.FoundingOnly {
		t.Errorf("status is %+v", s)
	}
	eventually(t, "round trip measured", func() bool { s, _ := a.links.Peer("b"); return s.RTT > 0 })
}

func TestClientsDialAndNeverListen(t *testing.T) {
	n, c := node(t, "a"), client(t, "app")
	vnode, _ := n.vnode("vnode/1")
	in := c.inbox("client/1", 10)
	if err := c.links.Connect(n.address); err != nil {
		t.Fatal(err)
	}
	eventually(t, "client up", func() bool { return c.bothUp("a") && n.bothUp("app") })
	in.send(vnode, &messages.KeysRequest{Limit: 3})
	if reply := next[*messages.KeysReply](t, in); len(reply.Keys[0]) != 3 {
		t.Errorf("reply is %v", reply)
	}
	if s, _ := n.links.Peer("app"); s.Role != messages.RoleClient {
		t.Errorf("the node takes the client for a %v", s.Role)
	}
	c.stop()
	eventually(t, "node forgets the client", func() bool { return len(n.links.Peers()) == 0 })
	n.system.Root.RequestWithCustomSender(in.pid, &messages.KeysReply{}, vnode)
	if d := n.links.Totals().Dropped; d[NotConnected] != 1 {
		t.Errorf("an answer to a client that has gone: dropped %v", d)
	}
}

func TestOrderIsKept(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	vnode := b.inbox("vnode/1", 5000)
	get := a.inbox("get/1", 5000)
	meet(t, a, b)
	for i := range 5000 {
		get.send(vnode.pid, &messages.ReadRequest{Plan: uint64(i)})
	}
	for i := range 5000 {
		if m := next[*messages.ReadRequest](t, vnode); m.Plan != uint64(i) {
			t.Fatalf("message %d came as number %d", m.Plan, i)
		}
	}
}

// Everything that cannot be sent comes back at once, with what it was.
func TestUndelivered(t *testing.T) {
	a, b := newEnd(t, "a", func(c *Config) { c.MaxFrame, c.QueueBytes = 64<<10, 64<<10 }), node(t, "b")
	get := a.inbox("get/1", 10)
	check := func(target *actor.PID, message any, want Reason) {
		t.Helper()
		get.send(target, message)
		u := next[*Undelivered](t, get)
		if u.Reason != want || u.Target != target || u.Message != message {
			t.Errorf("got %+v, want %v", u, want)
		}
	}
	check(b.pid("vnode/1"), &messages.ReadRequest{}, NotConnected)
	meet(t, a, b)
	check(b.pid("vnode/1"), &messages.ReadRequest{Key: make([]byte, 64<<10)}, TooLarge)
	check(b.pid("vnode/1"), "a string", Unencodable)
	check(b.pid(string(make([]byte, MaxActorID+1))), &messages.ReadRequest{}, Unencodable)
	check(actor.NewPID("nobody", "vnode/1"), &messages.ReadRequest{}, NotConnected)
	shared := Share(&messages.ReadRequest{})
	get.send(actor.NewPID("nobody", "vnode/1"), shared)
	if u := next[*Undelivered](t, get); u.Message != any(shared.Message()) {
		t.Errorf("of a shared message came back %T", u.Message)
	}
	// Only this node's actors can be answered.
	a.system.Root.RequestWithCustomSender(b.pid("vnode/1"), &messages.ReadRequest{}, actor.NewPID("c", "get/9"))
	if d := a.links.Totals().Dropped; d[Unencodable] != 3 || d[TooLarge] != 1 {
		t.Errorf("counted %v", d)
	}
}

func TestSystemMessagesDoNotCross(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	vnode, _ := b.vnode("vnode/1")
	get := a.inbox("get/1", 10)
	meet(t, a, b)
	far := b.pid("vnode/1")
	a.system.Root.Stop(far)
	a.system.Root.Poison(far)
	a.system.Root.Send(far, &actor.Watch{Watcher: get.pid})
	a.system.Root.Send(far, &actor.Terminated{Who: vnode})
	if !traffic(t, get, far) {
		t.Fatal("no traffic")
	}
	if d := a.links.Totals().Dropped; d[System] != 4 {
		t.Errorf("counted %v, want 4 system messages", d)
	}
}

func TestShareEncodesOnce(t *testing.T) {
	a, b, c := node(t, "a"), node(t, "b"), node(t, "c")
	meet(t, a, b)
	meet(t, a, c)
	var inboxes []*inbox
	for _, n := range []*end{b, c} {
		inboxes = append(inboxes, n.inbox("vnode/1", 10))
	}
	local := a.inbox("vnode/1", 10)
	m := &messages.ReplicateRequest{Record: []byte("first")}
	shared := Share(m)
	from := a.inbox("put/1", 10)
	from.send(inboxes[0].pid, shared.For(a.system, inboxes[0].pid))
	// Breaking the rule that a message does not change shows that the second
	// one was not encoded again.
	m.Record = []byte("second")
	from.send(inboxes[1].pid, shared.For(a.system, inboxes[1].pid))
	for _, in := range inboxes {
		if got := next[*messages.ReplicateRequest](t, in); string(got.Record) != "first" {
			t.Errorf("%s got %q", in.end.id, got.Record)
		}
	}
	from.send(local.pid, shared.For(a.system, local.pid))
	if got := next[*messages.ReplicateRequest](t, local); got != m {
		t.Error("a local actor gets the message itself")
	}
}

func TestTimeToLive(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	p := newProxy(t, b.address)
	vnode := b.inbox("vnode/1", 100)
	get := a.inbox("get/1", 20000)
	a.setPeer("b", p.address())
	eventually(t, "links up", func() bool { return a.bothUp("b") && b.bothUp("a") })

	get.send(vnode.pid, &messages.ReadRequest{TimeoutMs: 60_000})
	if m := next[*messages.ReadRequest](t, vnode); m.TimeoutMs == 0 || m.TimeoutMs > 60_000 {
		t.Errorf("time left on receipt is %d ms", m.TimeoutMs)
	}
	get.send(vnode.pid, &messages.ReadRequest{})
	if m := next[*messages.ReadRequest](t, vnode); m.TimeoutMs != 0 {
		t.Errorf("no limit became %d ms", m.TimeoutMs)
	}
	// With the line held the writer stalls, and what waits behind it expires.
	p.hold(LaneRequest, true)
	filler := &messages.ReadRequest{Key: make([]byte, 1<<20)}
	for range 40 {
		get.send(vnode.pid, filler)
	}
	get.send(vnode.pid, &messages.ReadRequest{Plan: 7, TimeoutMs: 1})
	deadline := time.Now().Add(5 * time.Millisecond)
	eventually(t, "time over", func() bool { return time.Now().After(deadline) })
	p.hold(LaneRequest, false)
	if u := next[*Undelivered](t, get); u.Reason != Expired || u.Message.(*messages.ReadRequest).Plan != 7 {
		t.Errorf("got %v of %v", u.Reason, u.Message)
	}
}

// The table of roles is asked before anything is decoded, and an answer tells.
func TestRolesAreEnforced(t *testing.T) {
	a, b, c := node(t, "a"), node(t, "b"), client(t, "app")
	meet(t, a, b)
	c.setPeer("b", b.address)
	eventually(t, "client up", func() bool { return c.bothUp("b") && b.bothUp("app") })
	get, app := a.inbox("get/1", 10), c.inbox("client/1", 10)
	for _, name := range []string{"vnode/1", "membership", "secret"} {
		b.inbox(name, 10)
	}
	for _, x := range []struct {
		name string
		from *inbox
		to   string
		m    proto.Message
		code uint32
	}{
		{"client reads a replica", app, "vnode/1", &messages.ReadRequest{}, messages.CodeRefused},
		{"client replicates", app, "vnode/1", &messages.ReplicateRequest{}, messages.CodeRefused},
		{"client founds", app, "membership", &messages.IdentityRequest{}, messages.CodeRefused},
		{"node reads from a stranger", get, "secret", &messages.ReadRequest{}, messages.CodeRefused},
		{"node uses the event stream", get, "eventstream", &messages.ReadRequest{}, messages.CodeRefused},
		{"node asks for a vnode that is not there", get, "vnode/99", &messages.ReadRequest{}, messages.CodeUnreachable},
	} {
		x.from.send(b.pid(x.to), x.m)
		if f := next[*messages.Failure](t, x.from); f.Code != x.code {
			t.Errorf("%s: answered %v", x.name, f)
		}
	}
	if d := b.links.Totals().Dropped; d[Forbidden] != 5 || d[NoTarget] != 1 {
		t.Errorf("counted %v", d)
	}
}

func TestFoundingMessagesOnlyBeforeFounding(t *testing.T) {
	founded := make(chan struct{})
	id := func() []byte {
		select {
		case <-founded:
			return []byte("cluster-1")
		default:
			return nil
		}
	}
	a, b := node(t, "a"), newEnd(t, "b", func(c *Config) { c.ClusterID = id })
	meet(t, a, b)
	b.inbox("membership", 10)
	vnode, _ := b.vnode("vnode/1")
	get := a.inbox("get/1", 10)
	member := a.inbox("membership", 10)
	get.send(vnode, &messages.ReadRequest{})
	if f := next[*messages.Failure](t, get); f.Code != messages.CodeRefused {
		t.Errorf("a read before founding was answered %v", f)
	}
	member.send(b.pid("membership"), &messages.IdentityRequest{})
	if s, _ := a.links.Peer("b"); !s.FoundingOnly {
		t.Errorf("status is %+v", s)
	}
	close(founded)
	b.links.ClusterChanged()
	eventually(t, "links made anew", func() bool {
		s, _ := a.links.Peer("b")
		return s.State == Up && !s.FoundingOnly
	})
	eventually(t, "reads flow", func() bool { return retried(t, get, vnode) })
}

// Bulk must not delay requests: with the bulk lane blocked and its queue
// filling, reads go on.
func TestBulkDoesNotDelayRequests(t *testing.T) {
	n := newEnd(t, "a", func(c *Config) { c.Silence = time.Minute })
	p := newProxy(t, n.address)
	c := newEnd(t, "app", func(c *Config) { c.Role, c.ClusterID, c.Silence = messages.RoleClient, nil, time.Minute })
	vnode, _ := n.vnode("vnode/1")
	membership := n.inbox("membership", 1000)
	in := c.inbox("client/1", 1000)
	c.setPeer("a", p.address())
	eventually(t, "client up", func() bool { return c.bothUp("a") && n.bothUp("app") })
	p.hold(LaneBulk, true)
	for range 50 {
		in.send(vnode, &messages.KeysRequest{Bucket: make([]byte, 1<<20)})
	}
	eventually(t, "bulk stuck", func() bool { s, _ := c.links.Peer("a"); return s.QueuedBytes > 8<<20 })
	for i := range 100 {
		in.send(membership.pid, &messages.RingRequest{Version: uint64(i)})
		if m := next[*messages.RingRequest](t, membership); m.Version != uint64(i) {
			t.Fatalf("request %d came as %d", i, m.Version)
		}
	}
	if s, _ := c.links.Peer("a"); s.QueuedBytes <= 8<<20 {
		t.Error("the bulk lane was not blocked meanwhile")
	}
	p.hold(LaneBulk, false)
	for range 50 {
		next[*messages.KeysReply](t, in)
	}
}

func TestRemoveAndSetAgain(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	vnode, _ := b.vnode("vnode/1")
	get := a.inbox("get/1", 100)
	for round := range 5 {
		meet(t, a, b)
		if !traffic(t, get, vnode) {
			t.Fatalf("no traffic in round %d", round)
		}
		a.links.Remove("b")
		eventually(t, "gone at both ends", func() bool { return len(a.links.Peers()) == 0 && len(b.links.Peers()) == 0 })
		if traffic(t, get, vnode) {
			t.Fatal("traffic after Remove")
		}
	}
}

// A node may move: the next attempt goes to the new address.
func TestPeerMoves(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	p, q := newProxy(t, b.address), newProxy(t, b.address)
	vnode, _ := b.vnode("vnode/1")
	get := a.inbox("get/1", 1000)
	a.setPeer("b", p.address())
	eventually(t, "traffic", func() bool { return retried(t, get, vnode) })
	p.close()
	a.setPeer("b", q.address())
	eventually(t, "traffic over the other way", func() bool {
		s, _ := a.links.Peer("b")
		return s.State == Up && s.Connects == 2 && retried(t, get, vnode)
	})
}

// What is queued is written before an orderly stop closes the connection.
func TestStopWritesWhatIsQueued(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	vnode := b.inbox("vnode/1", 1000)
	meet(t, a, b)
	from := a.inbox("get/1", 10)
	for i := range 1000 {
		from.send(vnode.pid, &messages.ReadRequest{Plan: uint64(i), Key: bytes.Repeat([]byte("k"), 500)})
	}
	a.stop()
	for i := range 1000 {
		if m := next[*messages.ReadRequest](t, vnode); m.Plan != uint64(i) {
			t.Fatalf("message %d came as %d", m.Plan, i)
		}
	}
	eventually(t, "b knows why", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.downs) > 0 && fmt.Sprint(b.downs[0]) == "refused by peer: stopping: a ends the link"
	})
}

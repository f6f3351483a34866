package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/messages"
)

// A cut that heals: traffic again within three seconds of the healing, with
// the timings of a real node.
func TestCutThatHeals(t *testing.T) {
	real := func(c *Config) { d := Default(); c.Heartbeat, c.BackoffMax = d.Heartbeat, d.BackoffMax }
	a, b := newEnd(t, "a", real), newEnd(t, "b", real)
	p, q := newProxy(t, b.address), newProxy(t, a.address)
	vnode, _ := b.vnode("vnode/1")
	get := a.inbox("get/1", 100_000)
	a.setPeer("b", p.address())
	b.setPeer("a", q.address())
	eventually(t, "traffic", func() bool { return retried(t, get, vnode) })
	for round, cut := range map[string]func(on bool){
		"reset": func(on bool) {
			for _, p := range []*proxy{p, q} {
				if on {
					p.sever()
				} else {
					p.heal()
				}
			}
		},
		"freeze": func(on bool) {
			for _, p := range []*proxy{p, q} {
				p.hold(LaneRequest, on)
				p.hold(LaneBulk, on)
			}
		},
	} {
		cut(true)
		eventually(t, round+": noticed at both ends", func() bool { return !a.up("b") && !b.up("a") })
		if traffic(t, get, vnode) {
			t.Fatalf("%s: traffic through a cut", round)
		}
		// Long enough for the back-off to have reached its longest pause.
		attempts := time.Now().Add(3 * time.Second)
		eventually(t, "pauses are long", func() bool { return time.Now().After(attempts) })
		cut(false)
		within(t, 3*time.Second, round+": traffic within 3 s", func() bool { return retried(t, get, vnode) })
	}
}

// A full queue says so at once, and takes messages again when it has room.
func TestFullQueue(t *testing.T) {
	b := node(t, "b")
	p := newProxy(t, b.address)
	a := newEnd(t, "a", func(c *Config) { c.QueueMessages, c.Silence = 10, time.Minute })
	vnode := b.inbox("vnode/1", 10_000)
	get := a.inbox("get/1", 10_000)
	a.setPeer("b", p.address())
	eventually(t, "up", func() bool { return a.bothUp("b") })
	p.hold(LaneRequest, true)
	sent, big := 0, make([]byte, 1<<20)
	eventually(t, "queue full", func() bool {
		get.send(vnode.pid, &messages.ReadRequest{Key: big})
		sent++
		return a.links.Totals().Dropped[Full] > 0
	})
	if u := next[*Undelivered](t, get); u.Reason != Full || u.Reason.Code() != messages.CodeOverloaded {
		t.Errorf("came back: %v", u.Reason)
	}
	if s, _ := a.links.Peer("b"); s.QueuedMessages != 10 || s.Dropped[Full] != 1 {
		t.Errorf("status is %+v", s)
	}
	p.hold(LaneRequest, false)
	for range sent - 1 {
		next[*messages.ReadRequest](t, vnode)
	}
	eventually(t, "room again", func() bool { s, _ := a.links.Peer("b"); return s.QueuedMessages == 0 })
	get.send(vnode.pid, &messages.ReadRequest{})
	next[*messages.ReadRequest](t, vnode)
}

// Both ends dial at the same time, many times over: always one connection per
// lane at the end, and it is the same one at both.
func TestBothEndsDialAtOnce(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		a, b := node(t, "a"), node(t, "b")
		vnode, _ := b.vnode("vnode/1")
		other, _ := a.vnode("vnode/2")
		fromA, fromB := a.inbox("get/1", 100), b.inbox("get/2", 100)
		var both sync.WaitGroup
		both.Go(func() { a.setPeer("b", b.address) })
		both.Go(func() { b.setPeer("a", a.address) })
		both.Wait()
		eventually(t, "up", func() bool { return a.bothUp("b") && b.bothUp("a") })
		eventually(t, "traffic both ways", func() bool { return retried(t, fromA, vnode) && retried(t, fromB, other) })
		eventually(t, "two connections", func() bool {
			return a.links.Totals().Connections == 2 && b.links.Totals().Connections == 2
		})
		x, _ := a.links.Peer("b")
		y, _ := b.links.Peer("a")
		if x.Dialled == y.Dialled || x.Connects != 1 || y.Connects != 1 {
			t.Fatalf("round %d: a has %+v, b has %+v", round, x, y)
		}
		a.stop()
		b.stop()
	}
}

// A node that is back is taken with its new start; the process that it
// replaced is refused.
func TestRestartedPeer(t *testing.T) {
	a := node(t, "a")
	get := a.inbox("get/1", 100_000)
	far := actor.NewPID("b", "vnode/1")
	start := func(number uint64, address string) *end {
		return newEnd(t, "b", func(c *Config) {
			c.Start = number
			if address != "" {
				var err error
				if c.Listener, err = net.Listen("tcp", address); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	first := start(100, "")
	first.vnode("vnode/1")
	meet(t, a, first)
	first.stop()
	eventually(t, "down", func() bool { return !a.up("b") })
	second := start(101, first.address)
	second.vnode("vnode/1")
	eventually(t, "traffic with the second", func() bool { return retried(t, get, far) })
	if s, _ := a.links.Peer("b"); s.Start != 101 {
		t.Errorf("status is %+v", s)
	}
	old := start(100, "")
	old.setPeer("a", a.address)
	eventually(t, "the first one is refused", func() bool {
		for _, r := range old.links.Refusals() {
			if r.Code == RefusedStart && !r.Ours {
				return true
			}
		}
		return false
	})
	if !traffic(t, get, far) {
		t.Error("the old process disturbed the new one")
	}
}

// A node's connection is not taken over by another process under its name; one that is
// in no cluster gives way to one that is.
func TestTwins(t *testing.T) {
	a := node(t, "a")
	process := func(number uint64, cluster bool) *end {
		return newEnd(t, "b", func(c *Config) {
			c.Role, c.Start = messages.RoleNode, number
			if !cluster {
				c.ClusterID = nil
			}
		})
	}
	refused := func(e *end) func() bool {
		return func() bool {
			return slices.ContainsFunc(e.links.Refusals(), func(r Refusal) bool { return !r.Ours && r.Code == RefusedDuplicate })
		}
	}
	fresh := process(9, false)
	fresh.setPeer("a", a.address)
	eventually(t, "the one without a cluster is connected", func() bool { return fresh.up("a") })
	member := process(5, true)
	member.setPeer("a", a.address)
	eventually(t, "the member is connected", func() bool { s, _ := a.links.Peer("b"); return s.Up() && s.Start == 5 && member.bothUp("a") })
	eventually(t, "the one without a cluster is refused", refused(fresh))
	copied := process(6, true)
	copied.setPeer("a", a.address)
	eventually(t, "a later start is refused", refused(copied))
	if s, _ := a.links.Peer("b"); !s.Up() || s.Start != 5 {
		t.Errorf("now a is connected with %+v", s)
	}
	member.stop()
	fresh.stop()
	eventually(t, "the later one is connected when the first has gone", func() bool { return copied.up("a") })
}

// The lanes of a peer never go to two processes, also when another one than that which
// has called is found at the peer's address.
func TestTwinAtTheAddress(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	p := &peer{outlet: &outlet{id: "b"}, lanes: [lanes]*lane{{}, {}}}
	bulk := &greeted{lane: LaneBulk, wire: &wire{Conn: here}, hello: Hello{Process: 2}}
	if err := p.twin(bulk); err != nil {
		t.Errorf("nobody is connected: %v", err)
	}
	p.lanes[LaneRequest].conn = &conn{peer: Hello{Process: 1}}
	if r := new(Refusal); !errors.As(p.twin(bulk), &r) || r.Code != RefusedDuplicate || !r.Ours {
		t.Errorf("another process: %v", r)
	}
	p.lanes[LaneRequest].conn.peer.Process = 2
	if err := p.twin(bulk); err != nil {
		t.Errorf("the same process: %v", err)
	}
}

func TestDuplicateClient(t *testing.T) {
	n := node(t, "a")
	one, two := client(t, "app"), client(t, "app")
	one.setPeer("a", n.address)
	eventually(t, "first up", func() bool { return one.up("a") })
	two.setPeer("a", n.address)
	eventually(t, "second refused", func() bool {
		s, _ := two.links.Peer("a")
		return strings.Contains(s.LastError, RefusedDuplicate.String())
	})
	if !one.up("a") {
		t.Error("the second disturbed the first")
	}
	one.stop()
	eventually(t, "second up when the first has gone", func() bool { return two.up("a") })
}

// A client may not take the name of a node.
func TestClientWithANodesName(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	a.setPeer("b", "127.0.0.1:1")
	eventually(t, "peer known", func() bool { _, ok := a.links.Peer("b"); return ok })
	impostor := newEnd(t, "b", func(c *Config) { c.Role, c.ClusterID = messages.RoleClient, nil })
	impostor.setPeer("a", a.address)
	eventually(t, "refused", func() bool {
		s, _ := impostor.links.Peer("a")
		return strings.Contains(s.LastError, RefusedDuplicate.String())
	})
	meet(t, a, b)
}

// A seed may be the node itself; and an address may come to belong to another.
func TestSeeds(t *testing.T) {
	a, b, c := node(t, "a"), node(t, "b"), node(t, "c")
	p := newProxy(t, b.address)
	for _, address := range []string{a.address, p.address()} {
		if err := a.links.Connect(address); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "b found", func() bool { return a.bothUp("b") })
	eventually(t, "itself recognised", func() bool {
		for _, s := range a.links.Peers() {
			if s.ID == "" && s.Address == a.address && strings.Contains(s.LastError, RefusedSelf.String()) {
				return true
			}
		}
		return false
	})
	p.mu.Lock()
	p.target = c.address
	p.mu.Unlock()
	b.stop()
	p.sever()
	p.heal()
	eventually(t, "c found at b's address", func() bool { return a.bothUp("c") && !a.up("b") })
}

// A link actor that panics is restarted, and the link comes back.
func TestLinkActorRestarts(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	vnode, _ := b.vnode("vnode/1")
	get := a.inbox("get/1", 100_000)
	meet(t, a, b)
	// A connection that does not exist: the actor's handler panics.
	a.system.Root.Send(a.system.NewLocalPID("links/b"), &pauseOver{lane: 99})
	eventually(t, "restarted", func() bool { s, ok := a.links.Peer("b"); return ok && s.Connects == 2 })
	eventually(t, "traffic", func() bool { return retried(t, get, vnode) })
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.downs) != 1 || !errors.Is(a.downs[0], ErrRestarted) {
		t.Errorf("went down for %v", a.downs)
	}
}

// A process of another kind than an actor that panics on the reader costs the
// connection, not the node.
func TestPanickingProcess(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	if _, absent := b.system.ProcessRegistry.Add(panicking{}, "vnode/1"); !absent {
		t.Fatal("name taken")
	}
	vnode, _ := b.vnode("vnode/2")
	get := a.inbox("get/1", 100_000)
	meet(t, a, b)
	get.send(b.pid("vnode/1"), &messages.ReadRequest{})
	eventually(t, "b gave up the connection", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.downs) == 1 && errors.Is(b.downs[0], ErrDelivery)
	})
	eventually(t, "traffic", func() bool { return retried(t, get, vnode) })
}

type panicking struct{}

func (panicking) SendUserMessage(*actor.PID, any)   { panic("process failed") }
func (panicking) SendSystemMessage(*actor.PID, any) {}
func (panicking) Stop(*actor.PID)                   {}

// A process that is not an actor gets the request id that its PID carried.
func TestRequestIDsComeBack(t *testing.T) {
	a, b := node(t, "a"), node(t, "b")
	vnode, _ := b.vnode("vnode/1")
	meet(t, a, b)
	answers := make(chan *actor.PID, 1)
	pid, _ := a.system.ProcessRegistry.Add(catcher{answers}, "get/demux")
	pid.RequestId = 77
	a.system.Root.RequestWithCustomSender(vnode, &messages.ReadRequest{}, pid)
	if got := receive(t, "answer", answers); got.RequestId != 77 || got.Id != "get/demux" {
		t.Errorf("answered to %v", got)
	}
}

type catcher struct{ got chan *actor.PID }

func (c catcher) SendUserMessage(pid *actor.PID, _ any) { c.got <- pid }
func (catcher) SendSystemMessage(*actor.PID, any)       {}
func (catcher) Stop(*actor.PID)                         {}

// Stop under traffic in both directions leaves nothing, and afterwards
// everything comes back as not connected.
func TestStopUnderTraffic(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	a, b := node(t, "a"), node(t, "b")
	vnode, _ := b.vnode("vnode/1")
	meet(t, a, b)
	quit := make(chan struct{})
	var senders sync.WaitGroup
	for i := range 2 {
		get := a.inbox(fmt.Sprintf("get/%d", i), 1<<20)
		senders.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					get.send(vnode, &messages.ReadRequest{Key: []byte("k")})
					runtime.Gosched()
				}
			}
		})
	}
	eventually(t, "traffic", func() bool { s, _ := a.links.Peer("b"); return s.Received > 100 })
	b.stop()
	a.stop()
	close(quit)
	senders.Wait()
	if x := a.links.Totals(); x.Connections != 0 {
		t.Errorf("left: %+v", x)
	}
	eventually(t, "goroutines gone", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	if err := a.links.Start(); err == nil {
		t.Error("stopped links were started again")
	}
}

func TestStopIsBoundedByItsContext(t *testing.T) {
	b := node(t, "b")
	p := newProxy(t, b.address)
	a := newEnd(t, "a", func(c *Config) { c.DrainTimeout, c.Silence = time.Hour, time.Hour })
	get := a.inbox("get/1", 100)
	a.setPeer("b", p.address())
	eventually(t, "up", func() bool { return a.bothUp("b") })
	p.hold(LaneRequest, true)
	for range 20 {
		get.send(b.pid("vnode/1"), &messages.ReadRequest{Key: make([]byte, 1<<20)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := a.links.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopping against a peer that does not read: %v", err)
	}
	// The cleanup's Stop finds everything ended.
}

func TestConfigReportsEveryProblem(t *testing.T) {
	good := Default()
	good.NodeID, good.ClusterName = "n1", "shop"
	if err := good.Validate(); err != nil {
		t.Errorf("the default with a name: %v", err)
	}
	bad := Config{NodeID: "a/b", Role: 9}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, word := range []string{"node id", "role", "cluster name", "MaxFrame", "QueueMessages", "Silence", "back-off", "timeouts", "MaxConnections"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in: %v", word, err)
		}
	}
}

package actors

import (
	"context"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/messages"
)

// open starts links for a node on any free port.
func open(t testing.TB, system *actor.ActorSystem, down func(link.Peer, error), change ...func(*link.Config)) (*link.Links, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := link.Default()
	c.NodeID, c.ClusterName, c.Start, c.Listener = system.Address(), "test", 1, listener
	c.ClusterID = func() []byte { return []byte{1} }
	c.Observer.Down = down
	for _, f := range change {
		f(&c)
	}
	l, err := link.New(system, c)
	if err == nil {
		err = l.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, l) })
	return l, listener.Addr().String()
}

func shut(t testing.TB, l *link.Links) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), actortest.Patience)
	defer cancel()
	if err := l.Stop(ctx); err != nil {
		t.Errorf("stop links: %v", err)
	}
}

// linked is n1 with a real link to n2, whose vnode the test plays.
type linked struct {
	*rig
	links, other *link.Links
	far          *actor.ActorSystem
	asked        chan actortest.Received
	reads        *slow                  // n1's own
	stack        atomic.Pointer[string] // of the last panic
}

func startLinked(t *testing.T) *linked {
	t.Helper()
	n := &linked{far: actortest.System(t, "n2"), asked: make(chan actortest.Received, 10), reads: newSlow()}
	var address string
	n.other, address = open(t, n.far, nil)
	_, err := n.far.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		if _, ok := ctx.Message().(messages.Timed); ok {
			n.asked <- actortest.Received{Target: ctx.Self(), Sender: ctx.Sender(), Message: ctx.Message()}
		}
	}, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{}))), vnodeName(0))
	if err != nil {
		t.Fatal(err)
	}
	n.rig = start(t, setup{
		nodes: 2,
		connect: func(r *rig) {
			n.links, _ = open(t, r.system, func(p link.Peer, _ error) { r.node.PeerDown(dynamo.NodeID(p.ID)) })
		},
		change: func(c *Config) {
			n.reads.Engine, c.Engine = c.Engine, n.reads
			now := c.Now
			c.Now = func() dynamo.Timestamp {
				if n.panicking.Load() {
					stack := string(debug.Stack())
					n.stack.Store(&stack)
				}
				return now()
			}
		},
	})
	if err := n.links.SetPeer("n2", address); err != nil {
		t.Fatal(err)
	}
	actortest.Eventually(t, "the link is up", func() bool { p, _ := n.links.Peer("n2"); return p.Up() })
	return n
}

// idle waits until no actor of n1 runs: who is running handles what comes then,
// and not who brings it.
func (n *linked) idle() {
	n.t.Helper()
	actortest.Eventually(n.t, "all is still", func() bool {
		all, _ := n.node.Registry().List(nil, 0)
		return !slices.ContainsFunc(all, func(s rt.Stats) bool { return s.InHandler > 0 || s.Queued+s.Control > 0 })
	})
}

// reply answers what n2 was asked.
func (n *linked) reply(m actortest.Received, answer any) {
	n.far.Root.RequestWithCustomSender(m.Sender, answer, m.Target)
}

// TestPanicInTheLinksReader: an answer of another node runs the request actor on
// the goroutine that reads the connection. When the actor panics there, its
// client is answered, and the connection and all others go on.
func TestPanicInTheLinksReader(t *testing.T) {
	for name, tc := range map[string]struct {
		request, answer any
		code            uint32
		hold, release   func(*linked) // n1's own part, so that the request hears of nothing but n2's answer
	}{
		"get": {getOf("k"), &messages.ReadReply{Authoritative: true}, messages.CodeInternal,
			func(n *linked) { n.reads.shut() }, func(n *linked) { n.reads.release() }},
		"put": {putOf("k", "v", nil), &messages.ReplicateReply{}, messages.CodeUnknown,
			func(n *linked) { n.engine.HoldSyncs() }, func(n *linked) { n.engine.ReleaseSyncs() }},
	} {
		t.Run(name, func(t *testing.T) {
			n := startLinked(t)
			tc.hold(n)
			n.probe.Ask(n.coordinator(), tc.request)
			m := <-n.asked
			n.idle()
			n.panicking.Store(true)
			n.reply(m, tc.answer)
			if f := actortest.Next[*messages.Failure](t, n.probe); f.GetCode() != tc.code {
				t.Errorf("answered %v", f)
			}
			n.panicking.Store(false)
			if stack := n.stack.Load(); stack == nil || !strings.Contains(*stack, "link.(*conn).read(") {
				t.Error("the panic was elsewhere")
			}
			tc.release(n)
			n.probe.Ask(n.coordinator(), tc.request)
			n.reply(<-n.asked, tc.answer)
			actortest.Eventually(t, "the next request is answered", func() bool {
				return actortest.Count[*messages.GetReply](n.probe)+actortest.Count[*messages.PutReply](n.probe) == 1
			})
			if p, _ := n.links.Peer("n2"); !p.Up() || p.Connects != 1 {
				t.Errorf("the link was cut: %+v", p)
			}
			if got := len(n.probe.All()); got != 2 {
				t.Errorf("%d answers to 2 requests", got)
			}
		})
	}
}

// TestPanicWhenTheLinkBreaks: the same when the actor panics because it hears
// that its link broke.
func TestPanicWhenTheLinkBreaks(t *testing.T) {
	n := startLinked(t)
	n.reads.shut()
	n.probe.Ask(n.coordinator(), getOf("k"))
	<-n.asked
	n.panicking.Store(true)
	shut(t, n.other)
	if f := actortest.Next[*messages.Failure](t, n.probe); f.GetCode() != messages.CodeInternal {
		t.Errorf("answered %v", f)
	}
	n.panicking.Store(false)
	n.reads.release()
	if answer := n.ask(localGet("k")); code(answer) != 0 {
		t.Errorf("a read of this node alone: %v", answer)
	}
	n.quiet()
	if got := n.s.unanswered.Load(); got != 0 || len(n.probe.All()) != 1 {
		t.Errorf("%d unanswered, answers %v", got, n.probe.All())
	}
}

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	within(t, patience, what, holds)
}

func within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		case <-look.C:
		}
	}
}

// receive waits for one value of a channel.
func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("never came: %s", what)
	}
	panic("unreachable")
}

// end is one end of links: a node or a client.
type end struct {
	t       testing.TB
	id      string
	system  *actor.ActorSystem
	links   *Links
	address string

	mu     sync.Mutex
	ups    []string
	downs  []error
	byPeer map[string]int
}

var starts atomic.Uint64

// newEnd makes and starts one end with test-sized timings. change may alter
// the configuration.
func newEnd(t testing.TB, id string, change func(*Config)) *end {
	t.Helper()
	e := &end{t: t, id: id, system: rt.NewSystem(id, nil), byPeer: make(map[string]int)}
	c := Default()
	c.NodeID, c.ClusterName, c.Start = id, "test", starts.Add(1)
	c.ClusterID = func() []byte { return []byte("cluster-1") }
	c.Heartbeat, c.BackoffMax = 100*time.Millisecond, 500*time.Millisecond
	c.Observer.Up = func(p Peer) { e.mu.Lock(); e.ups = append(e.ups, p.ID); e.byPeer[p.ID]++; e.mu.Unlock() }
	c.Observer.Down = func(_ Peer, err error) { e.mu.Lock(); e.downs = append(e.downs, err); e.mu.Unlock() }
	if change != nil {
		change(&c)
	}
	if c.Role == messages.RoleNode && c.Listener == nil {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Listener = listener
	}
	if c.Listener != nil {
		e.address = c.Listener.Addr().String()
	}
	links, err := New(e.system, c)
	if err != nil {
		t.Fatal(err)
	}
	e.links = links
	if err := links.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.stop)
	return e
}

func node(t testing.TB, id string) *end { return newEnd(t, id, nil) }

func client(t testing.TB, id string) *end {
	return newEnd(t, id, func(c *Config) {
		c.Role = messages.RoleClient
		c.ClusterID = nil
	})
}

func (e *end) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.links.Stop(ctx); err != nil {
		e.t.Errorf("stopping %s: %v", e.id, err)
	}
	if !e.system.IsStopped() {
		e.system.Shutdown()
	}
}

func (e *end) setPeer(other string, address string) {
	e.t.Helper()
	if err := e.links.SetPeer(other, address); err != nil {
		e.t.Fatal(err)
	}
}

func (e *end) up(peer string) bool {
	s, ok := e.links.Peer(peer)
	return ok && s.State == Up
}

func (e *end) bothUp(peer string) bool {
	s, ok := e.links.Peer(peer)
	return ok && s.State == Up && s.Bulk == Up
}

// meet links two ends and waits until both lanes are up at both.
func meet(t testing.TB, a, b *end) {
	t.Helper()
	a.setPeer(b.id, b.address)
	eventually(t, "links up", func() bool { return a.bothUp(b.id) && b.bothUp(a.id) })
}

// inbox is an actor that keeps what it gets.
type inbox struct {
	end *end
	pid *actor.PID
	got chan any
}

// inbox spawns one under a name that the table of roles knows.
func (e *end) inbox(name string, size int) *inbox {
	e.t.Helper()
	in := &inbox{end: e, got: make(chan any, size)}
	var err error
	in.pid, err = e.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case actor.SystemMessage, actor.AutoReceiveMessage:
		default:
			in.got <- m
		}
	}, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{MaxMessages: 1 << 20}))), name)
	if err != nil {
		e.t.Fatal(err)
	}
	return in
}

func (in *inbox) send(to *actor.PID, message any) {
	in.end.system.Root.RequestWithCustomSender(to, message, in.pid)
}

// next waits for the next message of a type.
func next[T any](t testing.TB, in *inbox) T {
	t.Helper()
	m := receive(t, fmt.Sprintf("a %T at %s", *new(T), in.pid.Id), in.got)
	v, ok := m.(T)
	if !ok {
		t.Fatalf("%s got a %T: %v", in.pid.Id, m, m)
	}
	return v
}

// vnode spawns an actor that answers reads and listings at once, and counts.
func (e *end) vnode(name string) (*actor.PID, *atomic.Int64) {
	e.t.Helper()
	var seen atomic.Int64
	pid, err := e.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case *messages.ReadRequest:
			seen.Add(1)
			ctx.Respond(&messages.ReadReply{Record: m.Key, Authoritative: true})
		case *messages.KeysRequest:
			seen.Add(1)
			ctx.Respond(&messages.KeysReply{Keys: [][]byte{make([]byte, m.Limit)}})
		}
	}, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{MaxMessages: 1 << 20}))), name)
	if err != nil {
		e.t.Fatal(err)
	}
	return pid, &seen
}

func (e *end) pid(id string) *actor.PID { return actor.NewPID(e.id, id) }

// traffic reports whether a read makes the round trip now: false when it
// comes back as undelivered. A read that is lost without a word fails the
// test, so it is for links that nothing disturbs.
func traffic(t testing.TB, from *inbox, to *actor.PID) bool {
	t.Helper()
	passed, lost := attempt(t, from, to, patience)
	if lost {
		t.Fatal("never came: an answer or Undelivered")
	}
	return passed
}

// retried is traffic for links that may be cut under the read: what a dead
// connection had taken is lost without a word, so the caller sends again.
func retried(t testing.TB, from *inbox, to *actor.PID) bool {
	t.Helper()
	passed, _ := attempt(t, from, to, 250*time.Millisecond)
	return passed
}

var attempts atomic.Uint64

// attempt sends one read of a key of its own and waits for what becomes of
// it; what comes late of earlier ones is passed over.
func attempt(t testing.TB, from *inbox, to *actor.PID, limit time.Duration) (passed, lost bool) {
	t.Helper()
	key := fmt.Sprintf("k%d", attempts.Add(1))
	from.send(to, &messages.ReadRequest{Key: []byte(key)})
	over := time.NewTimer(limit)
	defer over.Stop()
	for {
		select {
		case m := <-from.got:
			switch m := m.(type) {
			case *messages.ReadReply:
				if string(m.Record) == key {
					return true, false
				}
			case *Undelivered:
				if r, is := m.Message.(*messages.ReadRequest); is && string(r.Key) == key {
					return false, false
				}
			default:
				t.Fatalf("got a %T", m)
			}
		case <-over.C:
			return false, true
		}
	}
}

// proxy is a TCP proxy that can cut, hold and heal. It reads the lane out of
// the hello, so that one lane can be held alone.
type proxy struct {
	t        testing.TB
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu    sync.Mutex
	cond  sync.Cond
	cut   bool
	held  [256]bool
	conns map[net.Conn]bool
	done  bool
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: listener, target: target, conns: make(map[net.Conn]bool)}
	p.cond.L = &p.mu
	p.work.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(c) {
			continue
		}
		p.work.Go(func() { p.serve(c) })
	}
}

// keep lists a connection, or closes it while the line is cut.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut || p.done {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

// lane offsets in a hello frame: header, kind, magic, versions, role.
const laneOffset = headerLen + 1 + 4 + 4 + 1

func (p *proxy) serve(in net.Conn) {
	defer in.Close()
	first := make([]byte, 4096)
	n, err := in.Read(first)
	if err != nil {
		return
	}
	lane := byte(0)
	if n > laneOffset {
		lane = first[laneOffset]
	}
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer out.Close()
	if !p.keep(out) {
		return
	}
	if _, err := out.Write(first[:n]); err != nil {
		return
	}
	p.work.Go(func() { p.copy(in, out, lane) })
	p.copy(out, in, lane)
}

func (p *proxy) copy(to, from net.Conn, lane byte) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		p.mu.Lock()
		for p.held[lane] && !p.done && !p.cut {
			p.cond.Wait()
		}
		p.mu.Unlock()
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// hold stops taking bytes of a lane: the peer looks like one that never reads.
func (p *proxy) hold(lane byte, on bool) {
	p.mu.Lock()
	p.held[lane] = on
	p.mu.Unlock()
	p.cond.Broadcast()
}

// sever cuts every connection and takes no new ones until heal.
func (p *proxy) sever() {
	p.mu.Lock()
	p.cut = true
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
	p.mu.Unlock()
	p.cond.Broadcast()
}

func (p *proxy) heal() {
	p.mu.Lock()
	p.cut = false
	p.mu.Unlock()
}

func (p *proxy) close() {
	if err := p.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		p.t.Errorf("closing the proxy: %v", err)
	}
	p.mu.Lock()
	p.done = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.cond.Broadcast()
	p.work.Wait()
}

// heap is the live heap in bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

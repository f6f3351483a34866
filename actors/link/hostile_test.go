package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

// Whatever comes instead of a hello is cut, and the node goes on.
func TestGarbageInsteadOfHello(t *testing.T) {
	n, other := node(t, "a"), node(t, "b")
	meet(t, n, other)
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	hello := rawHello("x", messages.RoleNode, LaneRequest)
	damaged := appendHello(nil, kindHello, &hello)
	damaged[20] ^= 1
	long := binary.BigEndian.AppendUint32(nil, 1<<31)
	for name, b := range map[string][]byte{
		"noise":            noise,
		"HTTP":             []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"huge length":      append(long, noise...),
		"damaged hello":    damaged,
		"envelope first":   frameOf(10, true, "vnode/1", "get/1", nil),
		"hello too long":   endFrame(append([]byte{0, 0, 0, 0, 0, 0, 0, 0, kindHello}, make([]byte, maxHelloFrame)...), 0),
		"nothing of hello": endFrame([]byte{0, 0, 0, 0, 0, 0, 0, 0, kindHello}, 0),
	} {
		t.Run(name, func(t *testing.T) {
			r := dialRaw(t, n.address)
			// The node may cut before all is written.
			if _, err := r.Write(b); err != nil {
				t.Logf("cut while writing: %v", err)
			}
			r.closed()
		})
	}
	if !n.up("b") {
		t.Error("the link to another node broke meanwhile")
	}
	if n.links.Totals().Refused < 7 {
		t.Errorf("totals: %+v", n.links.Totals())
	}
}

// After the hello a damaged frame breaks the connection, with the reason.
func TestGarbageAfterHello(t *testing.T) {
	good := frameOf(10, true, "vnode/1", "get/1", nil)
	damaged := append([]byte(nil), good...)
	damaged[len(damaged)-1] ^= 1
	torn := append([]byte(nil), good...)
	torn[headerLen+1] = 0xff // an envelope that does not parse, with a right checksum
	hello := rawHello("x", messages.RoleNode, 0)
	for i, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"checksum", damaged, ErrFrame},
		{"huge length", binary.BigEndian.AppendUint32(nil, 1<<30), ErrFrameTooLong},
		{"envelope", endFrame(torn[:headerLen+4], 0), ErrFrame},
		{"second hello", appendHello(nil, kindHello, &hello), ErrFrame},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := node(t, fmt.Sprintf("n%d", i))
			r := join(t, n.address, "x", messages.RoleNode, LaneRequest)
			r.write(append(c.b, 0, 0, 0, 0))
			r.closed()
			eventually(t, "reason seen", func() bool {
				n.mu.Lock()
				defer n.mu.Unlock()
				return len(n.downs) == 1 && errors.Is(n.downs[0], c.want)
			})
		})
	}
}

// A newer node sends what this program does not know: counted, answered, and
// the connection stays.
func TestUnknownAndUndecodable(t *testing.T) {
	n := node(t, "a")
	vnode, _ := n.vnode("vnode/1")
	r := join(t, n.address, "x", messages.RoleNode, LaneRequest)
	answer := func(what string, want uint32) {
		t.Helper()
		e := r.envelope()
		var f messages.Failure
		if err := proto.Unmarshal(e.payload, &f); err != nil || e.number != 1 || f.Code != want || string(e.target) != "get/1" {
			t.Errorf("%s: answered %d to %s: %v %v", what, e.number, e.target, &f, err)
		}
	}
	r.write(frameOf(9999, true, "vnode/1", "get/1", []byte("anything")))
	answer("unknown number", messages.CodeUnsupported)
	r.write(frameOf(9999, false, "vnode/1", "", nil))
	r.write(frameOf(10, true, "vnode/1", "get/1", []byte{0xff, 0xff}))
	answer("undecodable", messages.CodeInvalid)
	r.write(frameOf(10, true, "vnode/9", "get/1", nil))
	answer("no target", messages.CodeUnreachable)
	// A kind of frame that does not exist yet.
	unknown, start := beginFrame(nil, 77)
	r.write(endFrame(unknown, start))
	payload, err := proto.Marshal(&messages.ReadRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	r.write(frameOf(10, true, vnode.Id, "get/1", payload))
	if e := r.envelope(); e.number != 11 {
		t.Errorf("a good request afterwards was answered with %d", e.number)
	}
	if d := n.links.Totals().Dropped; d[Unsupported] != 2 || d[Undecodable] != 1 || d[NoTarget] != 1 {
		t.Errorf("counted %v", d)
	}
}

// A peer cannot speak for another: answers go to the connection's identity.
func TestSenderIsTheConnection(t *testing.T) {
	n := node(t, "a")
	senders := make(chan *actor.PID, 1)
	_, err := n.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		if _, ok := ctx.Message().(*messages.ReadRequest); ok {
			senders <- ctx.Sender()
		}
	}), "vnode/1")
	if err != nil {
		t.Fatal(err)
	}
	r := join(t, n.address, "x", messages.RoleNode, LaneRequest)
	r.write(frameOf(10, true, "vnode/1", "b/get/1", nil))
	if pid := receive(t, "sender", senders); pid.Address != "x" || pid.Id != "b/get/1" {
		t.Errorf("the sender is %v", pid)
	}
}

// Who does not finish its hello in time is cut.
func TestSlowHelloIsCut(t *testing.T) {
	n := newEnd(t, "a", func(c *Config) { c.HelloTimeout = 300 * time.Millisecond })
	r := dialRaw(t, n.address)
	hello := rawHello("x", messages.RoleNode, LaneRequest)
	frame := appendHello(nil, kindHello, &hello)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, b := range frame {
		<-tick.C
		if _, err := r.Write([]byte{b}); err != nil {
			return // cut
		}
	}
	t.Fatalf("a hello of %d bytes at one in 50 ms was heard out", len(frame))
}

// Who says hello and then nothing is cut by the silence.
func TestSilentPeerIsCut(t *testing.T) {
	n := newEnd(t, "a", func(c *Config) { c.Silence = 400 * time.Millisecond })
	join(t, n.address, "x", messages.RoleNode, LaneRequest).closed()
	eventually(t, "reason seen", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.downs) == 1 && errors.Is(n.downs[0], ErrSilence)
	})
}

// Slow is not silent: a request that comes byte by byte is answered.
func TestSlowSenderIsServed(t *testing.T) {
	n := newEnd(t, "a", func(c *Config) { c.Silence = time.Second })
	vnode, _ := n.vnode("vnode/1")
	r := join(t, n.address, "x", messages.RoleNode, LaneRequest)
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for _, b := range frameOf(10, true, vnode.Id, "get/1", nil) {
		<-tick.C
		r.write([]byte{b})
	}
	if e := r.envelope(); e.number != 11 {
		t.Errorf("answered with %d", e.number)
	}
}

// A thousand connections that say nothing are bounded and cut; the links that
// there are do not notice.
func TestThousandSilentConnections(t *testing.T) {
	n := newEnd(t, "a", func(c *Config) { c.MaxUnauthenticated, c.HelloTimeout = 200, time.Second })
	b := node(t, "b")
	vnode, _ := n.vnode("vnode/1")
	get := b.inbox("get/1", 1000)
	meet(t, b, n)
	var all []net.Conn
	for range 1000 {
		c, err := net.Dial("tcp", n.address)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		defer c.Close()
		if g := n.links.Totals().Greeting; g > 200 {
			t.Fatalf("%d connections wait for a hello", g)
		}
	}
	for range 100 {
		if !traffic(t, get, vnode) {
			t.Fatal("the link broke")
		}
	}
	eventually(t, "all cut", func() bool { x := n.links.Totals(); return x.Greeting == 0 && x.Connections <= 2 })
	if x := n.links.Totals(); x.Rejected < 1 || x.Rejected+x.Refused < 1000 {
		t.Errorf("of %d connections %d were rejected and %d refused", len(all), x.Rejected, x.Refused)
	}
}

// A thousand clients that are connected and idle cost little, stay up, and go.
func TestThousandIdleClients(t *testing.T) {
	n := newEnd(t, "a", func(c *Config) { c.Silence, c.Heartbeat = time.Minute, 5*time.Second })
	before, goroutines := heap(), runtime.NumGoroutine()
	var all []*raw
	for i := range 1000 {
		all = append(all, join(t, n.address, fmt.Sprintf("c%d", i), messages.RoleClient, LaneRequest))
	}
	eventually(t, "all up", func() bool {
		up := 0
		for _, p := range n.links.Peers() {
			if p.State == Up {
				up++
			}
		}
		return up == 1000
	})
	if each := (int64(heap()) - int64(before)) / 1000; each > 64<<10 {
		t.Errorf("an idle connection takes %d bytes", each)
	}
	if each := (runtime.NumGoroutine() - goroutines) / 1000; each > 3 {
		t.Errorf("an idle connection takes %d goroutines", each)
	}
	for _, r := range all {
		r.Close()
	}
	eventually(t, "all gone", func() bool { return len(n.links.Peers()) == 0 })
}

func TestConnectionLimit(t *testing.T) {
	n := newEnd(t, "a", func(c *Config) { c.MaxConnections, c.MaxUnauthenticated, c.Silence = 3, 3, time.Minute })
	var held []*raw
	for i := range 3 {
		held = append(held, join(t, n.address, fmt.Sprintf("c%d", i), messages.RoleClient, LaneRequest))
	}
	dialRaw(t, n.address).closed()
	if x := n.links.Totals(); x.Rejected != 1 || x.Connections != 3 {
		t.Errorf("totals %+v", x)
	}
	held[0].Close()
	eventually(t, "room again", func() bool { return n.links.Totals().Connections == 2 })
	join(t, n.address, "c9", messages.RoleClient, LaneRequest)
}

// A peer that has stopped (it reads nothing and says nothing) must not make the
// sender grow: the queue is bounded, what does not fit comes back at once, and
// in the end all of it.
func TestStoppedPeerLeavesMemoryFlat(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	a := newEnd(t, "a", func(c *Config) { c.QueueMessages, c.QueueBytes, c.MaxFrame = 500, 1<<20, 1<<20 })
	a.setPeer("z", listener.Addr().String())
	c, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stopped := &raw{t: t, Conn: c}
	welcome := rawHello("z", messages.RoleNode, LaneRequest)
	stopped.write(appendHello(nil, kindWelcome, &welcome))
	eventually(t, "up", func() bool { return a.up("z") })

	const sent = 200_000
	in := a.inbox("get/1", sent+1)
	before := heap()
	to, far := a.links.outlet("z"), actor.NewPID("z", "vnode/1")
	message := &messages.ReadRequest{Key: make([]byte, 1000)}
	worst := 0
	for i := range sent {
		in.send(far, message)
		if q := to.lanes[LaneRequest].Load(); i%100 == 0 && q != nil {
			worst = max(worst, int(q.bytes.Load()))
		}
	}
	if grown := int64(heap()) - int64(before); grown > 64<<20 {
		t.Errorf("memory grew by %d MiB while %d MiB were sent", grown>>20, sent/1000)
	}
	if worst == 0 || worst > 1<<20 {
		t.Errorf("at most %d bytes were queued, the bound is 1 MiB", worst)
	}
	eventually(t, "silence breaks it", func() bool { return !a.up("z") })
	d, written := a.links.Totals().Dropped, to.sent.Load()
	if d[Full] < 1000 || d[Broken] == 0 {
		t.Errorf("dropped %v", d)
	}
	// What was in the frame whose write failed is in doubt and not told.
	doubt := uint64(frameTarget/1000 + 1)
	told := d[Full] + d[Broken] + d[NotConnected]
	if told+written > sent || told+written+doubt < sent {
		t.Errorf("of %d messages %d were written and %d came back", sent, written, told)
	}
	for range told {
		if u := next[*Undelivered](t, in); u.Message != any(message) || u.Target != far {
			t.Fatalf("came back: %+v", u)
		}
	}
}

// Two hellos that may not be: each is refused with its reason, at both ends.
func TestRefusalsReachBothEnds(t *testing.T) {
	registry := rt.NewRegistry()
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   RefusalCode
	}{
		{"cluster name", func(c *Config) { c.ClusterName = "other" }, RefusedCluster},
		{"cluster id", func(c *Config) { c.ClusterID = func() []byte { return []byte("cluster-2") } }, RefusedCluster},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := node(t, "a")
			b := newEnd(t, "b", func(config *Config) { config.Registry = registry; c.change(config) })
			b.setPeer("a", a.address)
			for _, e := range []*end{a, b} {
				eventually(t, "refusal seen at "+e.id, func() bool {
					for _, r := range e.links.Refusals() {
						if r.Code == c.want && r.Ours == (e == a) && r.Text != "" {
							return true
						}
					}
					return false
				})
			}
			s, _ := b.links.Peer("a")
			if s.State == Up || !strings.Contains(s.LastError, c.want.String()) {
				t.Errorf("status at the dialler is %+v", s)
			}
			if _, listed := registry.Find("links/a"); !listed {
				t.Error("the link actor is not listed for the console")
			}
		})
	}
}

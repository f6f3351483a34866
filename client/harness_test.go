package client_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/faulty"
	"github.com/dynactor/dynactor/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// single is a bucket with one replica, for clusters of one node.
func single(name string) member.Bucket {
	p := bucket.Default()
	p.Quorum = quorum.Params{N: 1, R: 1, W: 1}
	return member.Bucket{Name: name, Properties: p}
}

// lww is a bucket that shows the latest write.
func lww(name string) member.Bucket {
	p := bucket.Default()
	p.Conflicts = dynamo.LastWriteWins
	return member.Bucket{Name: name, Properties: p}
}

// engines keeps the engine of each node for the test to meddle with.
type engines struct {
	mu  sync.Mutex
	all []*faulty.Engine
}

func (e *engines) make(string) storage.Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := faulty.New(memory.New())
	e.all = append(e.all, f)
	return f
}

func (e *engines) each(f func(*faulty.Engine)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		f(x)
	}
}

// proxy passes bytes between clients and a node, and loses an answer on demand.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	armed bool
	lost  int
	// mute swallows answers; heartbeats pass, so that the connection stands.
	mute bool
}

// answerBytes is more than a heartbeat or an acknowledgement takes, and less
// than an answer to a put.
const answerBytes = 40

func startProxy(t clustertest.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	p := &proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		node, err := net.Dial("tcp", p.target)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.conns[c], p.conns[node] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(node, c, false) })
		p.wg.Go(func() { p.copy(c, node, true) })
	}
}

// copy passes frames on until one side ends, or an answer is to be lost.
func (p *proxy) copy(to, from net.Conn, answers bool) {
	defer p.drop(to, from)
	in := bufio.NewReader(from)
	for {
		var head [8]byte // length and checksum of the body
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		frame := append(head[:], make([]byte, binary.BigEndian.Uint32(head[:4]))...)
		if _, err := io.ReadFull(in, frame[8:]); err != nil {
			return
		}
		isAnswer := answers && len(frame) >= answerBytes
		if isAnswer && p.lose() {
			return
		}
		if isAnswer && p.isMute() {
			continue
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

// silence swallows all answers, or lets them pass again.
func (p *proxy) silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = on
}

func (p *proxy) isMute() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mute
}

func (p *proxy) drop(conns ...io.Closer) {
	for _, c := range conns {
		c.Close()
	}
}

// lose takes the order to lose an answer, once.
func (p *proxy) lose() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed {
		return false
	}
	p.armed = false
	p.lost++
	return true
}

// arm has the next answer lost and its connection cut.
func (p *proxy) arm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = true
}

func (p *proxy) losses() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// connectWith is connect with a configuration of the test's.
func connectWith(t clustertest.TB, c *clustertest.Cluster, change func(*client.Config)) *client.Client {
	t.Helper()
	config := client.Default()
	config.Nodes, config.Cluster = c.Addresses, c.Name
	change(&config)
	cl, err := client.New(config)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Logf("close: %v", err)
		}
	})
	return cl
}

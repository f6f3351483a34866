package bootstrap

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// TestMain runs without the user's own Consul settings.
func TestMain(m *testing.M) {
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "CONSUL_") && name != "CONSUL_REQUIRED" {
			os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

// patience is how long something that must happen may take.
const patience = 30 * time.Second

// testLog is a log that can be searched while it is written.
type testLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// reset forgets what was written.
func (l *testLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

// testNode is a node under test and its log.
type testNode struct {
	*Node
	t   *testing.T
	log *testLog
}

// testConfig is a configuration for a node on any free port.
func testConfig(name string) Config {
	c := Default()
	c.Name, c.Cluster, c.Listen, c.DataDir, c.Partitions, c.LogLevel, c.LogFormat = name, "test", "127.0.0.1:0", "unused", 8, "debug", "text"
	return c
}

// start starts a node with its store in memory, or in c.DataDir if it is set.
func start(t *testing.T, c Config) *testNode {
	t.Helper()
	n, err := tryStart(t, c)
	if err != nil {
		t.Fatalf("start %s: %v", c.Name, err)
	}
	return n
}

func tryStart(t *testing.T, c Config) (*testNode, error) {
	t.Helper()
	var o Options
	if c.DataDir == "unused" {
		o.Engine = storage.Engine(memory.New())
	}
	return startOn(t, c, o)
}

func startOn(t *testing.T, c Config, o Options) (*testNode, error) {
	t.Helper()
	log := &testLog{}
	o.LogTo = log
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", c.Name, log)
		}
	})
	n, err := Start(c, o)
	if err != nil {
		return nil, err
	}
	out := &testNode{Node: n, t: t, log: log}
	t.Cleanup(func() { out.stop() })
	return out, nil
}

// stop stops the node in order; a second call does nothing.
func (n *testNode) stop() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), StopTimeout)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		n.t.Errorf("stop %s: %v", n.config.Name, err)
	}
}

func (n *testNode) ready() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		n.t.Fatalf("%s is not ready: %v", n.config.Name, err)
	}
}

// eventually waits until what must come has come.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s did not happen", what)
		}
	}
}

// says waits until the node's health gives a reason.
func (n *testNode) says(reason string) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("%s saying %q", n.config.Name, reason), func() bool { return strings.Contains(n.Health().Reason, reason) })
}

// serves writes and reads a key through a client of the nodes.
func serves(t *testing.T, nodes ...*testNode) {
	t.Helper()
	c := newClient(t, nodes...)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	key, value := fmt.Sprintf("key %d", time.Now().UnixNano()), []byte("value")
	if _, err := c.Bucket("b").Put(ctx, key, value); err != nil {
		t.Fatalf("put: %v", err)
	}
	holds(t, c, key, value)
}

func holds(t *testing.T, c *client.Client, key string, want []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o, err := c.Bucket("b").Get(ctx, key)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	if got, err := o.One(); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("get %q: %q, %v", key, got, err)
	}
}

func newClient(t *testing.T, nodes ...*testNode) *client.Client {
	t.Helper()
	return newClientWith(t, func(*client.Config) {}, nodes...)
}

func newClientWith(t *testing.T, change func(*client.Config), nodes ...*testNode) *client.Client {
	t.Helper()
	cc := client.Default()
	cc.Nodes, cc.Cluster = nil, nodes[0].config.Cluster
	for _, n := range nodes {
		cc.Nodes = append(cc.Nodes, n.Addr())
	}
	change(&cc)
	c, err := client.New(cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close client: %v", err)
		}
	})
	return c
}

// addresses reserves loopback addresses that stay free long enough for a test
// whose nodes must know them before they start.
func addresses(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

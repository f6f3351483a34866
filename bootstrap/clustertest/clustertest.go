// Package clustertest starts clusters inside a test's own process: real nodes
// with real links over loopback, on stores in memory or on disk.
package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/dynactor/dynactor/bootstrap"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// TB is what the package needs of a *testing.T or *testing.B; examples bring
// their own.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	Failed() bool
}

// Patience is how long a cluster may take to be ready, or to stop.
const Patience = 20 * time.Second

// Options say what the cluster is made of.
type Options struct {
	// Nodes is how many; 0 is 3.
	Nodes int
	// Buckets are created with the cluster.
	Buckets []member.Bucket
	// Partitions is Q; 0 is 16.
	Partitions int
	// Engine makes the store of a node; nil is memory.
	Engine func(name string) storage.Engine
	// Change adapts a node's configuration.
	Change func(*bootstrap.Config)
}

// Cluster is a running cluster.
type Cluster struct {
	Name  string
	Nodes []*bootstrap.Node
	// Addresses are where clients connect, one for each node.
	Addresses []string
	logs      logBuffer
}

// Start starts a cluster and waits until all nodes serve. It stops with the
// test.
func Start(t TB, o Options) *Cluster {
	t.Helper()
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Partitions == 0 {
		o.Partitions = 16
	}
	c := &Cluster{Name: "test"}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of the nodes:\n%s", c.logs.String())
		}
	})
	listeners := make([]net.Listener, o.Nodes)
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("listen: %v", err)
		}
		listeners[i] = l
		c.Addresses = append(c.Addresses, l.Addr().String())
	}
	for i, l := range listeners {
		c.Nodes = append(c.Nodes, c.node(t, o, i, l))
	}
	c.WaitReady(t)
	return c
}

// node starts one node of the cluster.
func (c *Cluster) node(t TB, o Options, i int, l net.Listener) *bootstrap.Node {
	t.Helper()
	config := bootstrap.Default()
	config.Name, config.Cluster, config.DataDir = fmt.Sprintf("n%d", i+1), c.Name, "unused"
	config.Listen, config.Seeds, config.Found = l.Addr().String(), c.Addresses, i == 0
	config.Partitions, config.Buckets = o.Partitions, o.Buckets
	if o.Change != nil {
		o.Change(&config)
	}
	var engine storage.Engine
	if o.Engine != nil {
		engine = o.Engine(config.Name)
	} else {
		engine = memory.New()
	}
	n, err := bootstrap.Start(config, bootstrap.Options{Engine: engine, Listener: l, LogTo: &c.logs})
	if err != nil {
		t.Fatalf("start %s: %v", config.Name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := n.Stop(ctx); err != nil {
			t.Logf("stop %s: %v", config.Name, err)
		}
	})
	return n
}

// WaitReady waits until every node serves.
func (c *Cluster) WaitReady(t TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for i, n := range c.Nodes {
		if err := n.WaitReady(ctx); err != nil {
			t.Fatalf("node %d is not ready: %v", i+1, err)
		}
	}
	// A node does not wait for links for ever; a test does.
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i, n := range c.Nodes {
		for len(n.Connected()) < len(c.Nodes)-1 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("node %d is connected to %v only", i+1, n.Connected())
			}
		}
	}
}

// logBuffer keeps the nodes' logs for a test that fails.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is what was written so far.
func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

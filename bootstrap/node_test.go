package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/faulty"
	"github.com/dynactor/dynactor/storage/memory"
	"github.com/dynactor/dynactor/storage/pebbledb"
)

// seeded are configurations of n nodes that know each other's addresses; the
// first is to found.
func seeded(t *testing.T, n int) []Config {
	t.Helper()
	at := addresses(t, n)
	var out []Config
	for i := range n {
		c := testConfig(fmt.Sprintf("n%d", i+1))
		c.Listen, c.Seeds, c.Found = at[i], at, i == 0
		out = append(out, c)
	}
	return out
}

// onDisk gives each node a folder of its own.
func onDisk(t *testing.T, configs []Config) []Config {
	t.Helper()
	dir := t.TempDir()
	for i := range configs {
		configs[i].DataDir = filepath.Join(dir, configs[i].Name)
	}
	return configs
}

// startAll starts nodes and waits until all serve.
func startAll(t *testing.T, configs []Config) []*testNode {
	t.Helper()
	var nodes []*testNode
	for _, c := range configs {
		nodes = append(nodes, start(t, c))
	}
	for _, n := range nodes {
		n.ready()
	}
	return nodes
}

func TestStaticFounding(t *testing.T) {
	for name, change := range map[string]func([]Config){
		"one founder":          func([]Config) {},
		"the last founds":      func(c []Config) { c[0].Found, c[2].Found = false, true },
		"all are told to":      func(c []Config) { c[1].Found, c[2].Found = true, true },
		"the later two are":    func(c []Config) { c[0].Found, c[1].Found, c[2].Found = false, true, true },
		"expected by number":   func(c []Config) { c[0].Expect, c[0].Seeds = 3, nil },
		"seeds without itself": func(c []Config) { c[0].Seeds = c[0].Seeds[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			configs := seeded(t, 3)
			change(configs)
			nodes := startAll(t, configs)
			oneCluster(t, nodes)
			serves(t, nodes...)
		})
	}
}

func TestOneNodeFoundsAlone(t *testing.T) {
	c := testConfig("n1")
	c.Found = true
	n := start(t, c)
	n.ready()
	if d := n.Document(); len(d.Members) != 1 || d.Members[0].Address != n.Addr() {
		t.Errorf("document %v, members %+v", d, d.Members)
	}
}

func TestNobodyFoundsUntold(t *testing.T) {
	configs := seeded(t, 2)
	configs[0].Found = false
	a, b := start(t, configs[0]), start(t, configs[1])
	a.says("--found")
	b.says("--found")
	if a.Document() != nil || b.Document() != nil {
		t.Error("founded without being told")
	}
}

func TestLateNode(t *testing.T) {
	configs := seeded(t, 3)
	nodes := []*testNode{start(t, configs[0]), start(t, configs[1])}
	nodes[0].says("2 of 3 nodes are here: n1, n2")
	nodes[1].says("waiting for n1 to found the cluster")
	nodes = append(nodes, start(t, configs[2]))
	for _, n := range nodes {
		n.ready()
	}
	oneCluster(t, nodes)
	// One that nobody expected, told to found as well: it stays outside.
	c := testConfig("n4")
	c.Seeds, c.Found = configs[0].Seeds, true
	late := start(t, c)
	late.says("is in a cluster that this node is not a member of")
	if late.Document() != nil {
		t.Error("founded beside a cluster")
	}
}

// TestRestartBeforeFounding: what counts is who is there in the end.
func TestRestartBeforeFounding(t *testing.T) {
	configs := onDisk(t, seeded(t, 3))
	n1, n2 := start(t, configs[0]), start(t, configs[1])
	n1.says("2 of 3 nodes are here: n1, n2")
	n2.stop()
	n1.says("1 of 3 nodes are here: n1")
	nodes := []*testNode{n1, start(t, configs[1]), start(t, configs[2])}
	for _, n := range nodes {
		n.ready()
	}
	oneCluster(t, nodes)
	if m, _ := n1.Document().Member("n2"); m.Start != 2 {
		t.Errorf("n2 is a member with start %d, want 2", m.Start)
	}
	serves(t, nodes...)
}

// TestRestart stops a cluster and starts it again: it is the same cluster, and
// the data is there.
func TestRestart(t *testing.T) {
	configs := onDisk(t, seeded(t, 3))
	nodes := startAll(t, configs)
	id := oneCluster(t, nodes)
	const keys = 40
	for generation := range 3 {
		c := newClient(t, nodes...)
		for i := range keys {
			key := fmt.Sprintf("k%d", i)
			if generation > 0 {
				holds(t, c, key, fmt.Appendf(nil, "%s-%d", key, generation-1))
			}
			update(t, c, key, fmt.Appendf(nil, "%s-%d", key, generation))
		}
		for _, n := range nodes {
			n.stop()
		}
		nodes = startAll(t, configs)
		if again := oneCluster(t, nodes); again != id {
			t.Fatalf("now in cluster %s, was in %s", again, id)
		}
	}
}

// update replaces what is under a key.
func update(t *testing.T, c *client.Client, key string, value []byte, opts ...client.Option) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.Bucket("b").Update(ctx, key, nil, func([]byte) ([]byte, error) { return value, nil }, opts...); err != nil {
		t.Fatalf("update %s: %v", key, err)
	}
}

// TestCleanStop: after a stop in order vnodes continue their epochs. After one
// that could not be marked as clean they do not trust their counters.
func TestCleanStop(t *testing.T) {
	config := testConfig("n1")
	config.Found = true
	dir := t.TempDir()
	const keys = 20
	round := func() (*testNode, *faulty.Engine) {
		t.Helper()
		store, err := pebbledb.Open(dir, pebbledb.Default())
		if err != nil {
			t.Fatal(err)
		}
		engine := faulty.New(store)
		n, err := startOn(t, config, Options{Engine: engine})
		if err != nil {
			t.Fatal(err)
		}
		n.ready()
		c := newClient(t, n)
		for i := range keys {
			update(t, c, fmt.Sprintf("k%d", i), []byte("v"), client.R(1), client.W(1))
		}
		return n, engine
	}
	n, _ := round()
	if got := n.Counters().NewEpochs.Load(); got != keys {
		t.Errorf("%d new epochs for %d new keys", got, keys)
	}
	n.stop()
	n, engine := round()
	if got := n.Counters().NewEpochs.Load(); got != 0 {
		t.Errorf("%d new epochs after a clean stop", got)
	}
	engine.FailCommits(storage.ErrFull)
	ctx, cancel := context.WithTimeout(context.Background(), StopTimeout)
	defer cancel()
	if err := n.Stop(ctx); !errors.Is(err, storage.ErrFull) {
		t.Errorf("a stop that could not be marked: %v", err)
	}
	n, _ = round()
	if got := n.Counters().NewEpochs.Load(); got != keys {
		t.Errorf("%d new epochs for %d keys after a stop that was not clean", got, keys)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	c := testConfig("n1")
	c.DataDir = t.TempDir()
	for flag, set := range map[string]func(*Config){
		"--listen": func(c *Config) { c.Listen = taken },
		"--http":   func(c *Config) { c.HTTP = taken },
	} {
		c := c
		set(&c)
		_, err := tryStart(t, c)
		if err == nil || !strings.Contains(err.Error(), taken) || !strings.Contains(err.Error(), flag) || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%s in use: %v", flag, err)
		}
	}
	// Everything was taken back: the folder is free.
	start(t, c)
}

// TestStopUnderLoad stops one node of three while clients write through it:
// the stop is orderly and in time, what was acknowledged is there, and no write
// waits for an answer that will not come.
func TestStopUnderLoad(t *testing.T) {
	nodes := startAll(t, seeded(t, 3))
	c := newClient(t, nodes...)
	var (
		wg      sync.WaitGroup
		stopped atomic.Bool
		acked   sync.Map
		count   atomic.Int64
	)
	for w := range 16 {
		wg.Go(func() {
			for i := 0; !stopped.Load(); i++ {
				key := fmt.Sprintf("w%d-%d", w, i)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				_, err := c.Bucket("b").Put(ctx, key, []byte(key))
				cancel()
				if err != nil {
					t.Errorf("put %s: %v", key, err)
					return
				}
				acked.Store(key, true)
				count.Add(1)
			}
		})
	}
	eventually(t, "writes going on", func() bool { return count.Load() > 200 })
	nodes[2].stop() // fails the test when it is not orderly or takes too long
	before := count.Load()
	eventually(t, "writes going on without the node", func() bool { return count.Load() > before+200 })
	stopped.Store(true)
	wg.Wait() // every write ended, and none by its deadline
	reader := newClient(t, nodes[:2]...)
	acked.Range(func(key, _ any) bool {
		holds(t, reader, key.(string), []byte(key.(string)))
		return true
	})
}

// TestStopIsRepeatable: a second stop does nothing, and one before the cluster
// is founded is orderly too.
func TestStopIsRepeatable(t *testing.T) {
	n := start(t, testConfig("n1"))
	n.stop()
	n.stop()
}

// TestFailedStartClosesWhatItWasGiven: whatever the reason was.
func TestFailedStartClosesWhatItWasGiven(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"configuration": func(c *Config) { c.Name = "a b" },
		"store":         func(c *Config) { c.Cluster = "other" },
		"links":         func(c *Config) { c.TLSCert, c.TLSKey, c.TLSCA = "none", "none", "none" },
	} {
		t.Run(name, func(t *testing.T) {
			engine := memory.New()
			if _, err := claimStore(engine, "n1", "test"); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			c := testConfig("n1")
			spoil(&c)
			if n, err := startOn(t, c, Options{Engine: engine, Listener: l}); err == nil || n != nil {
				t.Error("it started")
			}
			if err := engine.Close(); !errors.Is(err, storage.ErrClosed) {
				t.Errorf("the engine was left open: %v", err)
			}
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the listener was left open: %v", err)
			}
		})
	}
}

func TestWaitReadySaysWhyNot(t *testing.T) {
	n := start(t, testConfig("n1"))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := n.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not in a cluster yet") {
		t.Errorf("got %v", err)
	}
}

// TestWrongCluster: nodes of another cluster name do not become part of it.
func TestWrongCluster(t *testing.T) {
	configs := seeded(t, 2)
	configs[1].Cluster = "other"
	a, b := start(t, configs[0]), start(t, configs[1])
	for _, n := range []*testNode{a, b} {
		eventually(t, "the refusal reaching the log of "+n.config.Name, func() bool { return strings.Contains(n.log.String(), "wrong cluster") })
		if n.Document() != nil {
			t.Error("founded with a node of another cluster")
		}
	}
}

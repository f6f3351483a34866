package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/bootstrap"
	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/storage/faulty"
)

// TestFailover: a node stops under load, in order or at once. No acknowledged
// write is lost, and requests with R = W = 2 go on: none fails.
func TestFailover(t *testing.T) {
	for name, patience := range map[string]time.Duration{"in order": clustertest.Patience, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{})
			cl := connect(t, c)
			b := cl.Bucket("b")
			ctx := patient(t)
			const writers, each = 4, 40 // as many before the stop as after it
			var acked sync.Map
			var before sync.WaitGroup
			before.Add(writers)
			stopped := make(chan struct{})
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					after, told := 0, false
					for i := 0; after < each; i++ {
						key := fmt.Sprintf("%d-%d", w, i)
						if _, err := b.Put(ctx, key, []byte(key)); err != nil {
							t.Errorf("put %s: %v", key, err)
						} else {
							acked.Store(key, true)
						}
						if _, err := b.Get(ctx, key); err != nil {
							t.Errorf("get %s: %v", key, err)
						}
						if i == each && !told {
							told = true
							before.Done()
						}
						select {
						case <-stopped:
							after++
						default:
						}
					}
					if !told {
						before.Done()
					}
				})
			}
			before.Wait()
			stopCtx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := c.Nodes[0].Stop(stopCtx); err != nil && patience > 0 {
				t.Errorf("stop: %v", err)
			}
			close(stopped)
			wg.Wait()
			n := 0
			acked.Range(func(key, _ any) bool {
				n++
				o, err := b.Get(ctx, key.(string))
				if v, oneErr := o.One(); err != nil || oneErr != nil || string(v) != key {
					t.Errorf("acknowledged and then %q: %v, %v", v, err, oneErr)
				}
				return true
			})
			if n < 2*writers*each {
				t.Errorf("%d writes were acknowledged", n)
			}
		})
	}
}

// proxied is a cluster of one node that is reached through a proxy only.
func proxied(t *testing.T) (*clustertest.Cluster, *proxy) {
	t.Helper()
	var p *proxy
	c := clustertest.Start(t, clustertest.Options{
		Nodes: 1, Buckets: []member.Bucket{single("b")},
		Change: func(config *bootstrap.Config) {
			p = startProxy(t, config.Listen)
			config.Advertise, config.Expect = p.address(), 1
		},
	})
	return c, p
}

// TestLostAnswers: the node carries a write out, and its answer is lost with the
// connection. The client repeats it under the same request id: one sibling.
func TestLostAnswers(t *testing.T) {
	c, p := proxied(t)
	cl := connectWith(t, c, func(config *client.Config) { config.Nodes = []string{p.address()} })
	b := cl.Bucket("b")
	ctx := patient(t)
	if err := cl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	const puts = 4
	for i := range puts {
		key := fmt.Sprint("key", i)
		before := p.losses()
		p.arm()
		w, err := b.Put(ctx, key, []byte("v"))
		if err != nil || len(w.Context) == 0 {
			t.Fatalf("put %s: %v", key, err)
		}
		if p.losses() == before {
			t.Fatalf("put %s: no answer was lost", key)
		}
		o, err := b.Get(ctx, key)
		if err != nil || len(o.Values) != 1 {
			t.Errorf("%s has %d siblings, %v", key, len(o.Values), err)
		}
	}
	// An answer that is lost need not be that of the write: it may be part of a
	// hello.
	if c.Nodes[0].Counters().Repeated.Load() == 0 {
		t.Error("no retry was recognised")
	}
}

// TestUpdatesLoseNothing: clients that add to one set at once, each with its own
// client, and a function that merges siblings.
func TestUpdatesLoseNothing(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	ctx := patient(t)
	const clients, each = 4, 10
	var wg sync.WaitGroup
	for i := range clients {
		b := connect(t, c).Bucket("b")
		wg.Go(func() {
			for k := range each {
				if _, err := b.Update(ctx, "set", union, add(fmt.Sprintf("%d-%d", i, k))); err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	b := connect(t, c).Bucket("b")
	if _, err := b.Update(ctx, "set", union, add("last")); err != nil {
		t.Fatal(err)
	}
	o, err := b.Get(ctx, "set")
	if err != nil {
		t.Fatal(err)
	}
	v, err := o.One()
	if got := strings.Fields(string(v)); err != nil || len(got) != clients*each+1 {
		t.Errorf("%d of %d elements: %v, %v", len(got), clients*each+1, got, err)
	}
}

// union merges sets of words.
func union(siblings []client.Value) ([]byte, error) {
	var all []string
	for _, s := range siblings {
		all = append(all, strings.Fields(string(s.Value))...)
	}
	slices.Sort(all)
	return []byte(strings.Join(slices.Compact(all), " ")), nil
}

// add returns a change that puts a word into the set.
func add(word string) func([]byte) ([]byte, error) {
	return func(old []byte) ([]byte, error) { return fmt.Appendf(nil, "%s %s", old, word), nil }
}

// nobody is an address where nothing listens.
func nobody(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestNobodyThere: the error comes within the deadline and says why.
func TestNobodyThere(t *testing.T) {
	config := client.Default()
	address := nobody(t)
	config.Nodes = []string{address}
	cl, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	b := cl.Bucket("b")
	wait := func(err error) {
		t.Helper()
		if !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnknown) ||
			!strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v", err)
		}
	}
	short := client.Timeout(300 * time.Millisecond)
	_, err = b.Put(context.Background(), "k", nil, short)
	wait(err)
	_, err = b.Get(context.Background(), "k", short)
	wait(err)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	wait(b.Keys(ctx, func(string) error { return nil }))
	if len(cl.Nodes()) != 0 {
		t.Errorf("connected to %v", cl.Nodes())
	}
}

// TestAllNodesStop: the same when the nodes were there before.
func TestAllNodesStop(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	cl := connect(t, c)
	b := cl.Bucket("b")
	ctx := patient(t)
	if _, err := b.Put(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if err := n.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	_, err := b.Get(ctx, "k", client.Timeout(500*time.Millisecond))
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "no node could be reached") {
		t.Errorf("get: %v", err)
	}
}

// TestQuorumOfTheLiving: with two of three nodes gone, one answer is had by
// asking for one, and asking for two says that there were not so many.
func TestQuorumOfTheLiving(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	b := connect(t, c).Bucket("b")
	ctx := patient(t)
	if _, err := b.Put(ctx, "k", []byte("v"), client.W(3)); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes[:2] {
		if err := n.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	if o, err := b.Get(ctx, "k", client.R(1)); err != nil || len(o.Values) != 1 {
		t.Errorf("R=1: %+v, %v", o, err)
	}
	_, err := b.Get(ctx, "k", client.Timeout(500*time.Millisecond))
	var e *client.Error
	if !errors.Is(err, client.ErrUnavailable) || !errors.As(err, &e) || e.Answered > 1 || e.Needed != 2 {
		t.Errorf("R=2: %v", err)
	}
	_, err = b.Put(ctx, "k", []byte("w"), client.Timeout(500*time.Millisecond))
	if !errors.Is(err, client.ErrUnknown) && !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("W=2: %v", err)
	}
	if _, err := b.Put(ctx, "k", []byte("w"), client.W(1)); err != nil {
		t.Errorf("W=1: %v", err)
	}
}

// TestTransfersOfTheLiving: a member that is dead is named, and does not keep those
// that come after it from being asked.
func TestTransfersOfTheLiving(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	cl := connect(t, c)
	ctx := patient(t)
	if err := cl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second) // that of the command
	defer cancel()
	_, err := cl.Cluster().Transfers(short)
	if err == nil || !strings.Contains(err.Error(), "n1") || strings.Contains(err.Error(), "n2") || strings.Contains(err.Error(), "n3") {
		t.Errorf("problems: %v", err)
	}
	if short.Err() != nil {
		t.Error("it took all the time there was")
	}
}

// hung is a cluster whose disks hang in a sync until the test is over.
func hung(t *testing.T) (*client.Client, *client.Bucket) {
	t.Helper()
	var e engines
	c := clustertest.Start(t, clustertest.Options{Engine: e.make})
	cl := connect(t, c)
	if err := cl.Ready(patient(t)); err != nil {
		t.Fatal(err)
	}
	e.each((*faulty.Engine).HoldSyncs)
	t.Cleanup(func() { e.each((*faulty.Engine).ReleaseSyncs) })
	return cl, cl.Bucket("b")
}

// TestCancel: a cancelled request returns, and a write that was sent is unknown.
func TestCancel(t *testing.T) {
	_, b := hung(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := b.Put(ctx, "k", []byte("v"))
		done <- err
	}()
	eventually(t, "the write is visible", func() bool {
		o, err := b.Get(context.Background(), "k")
		return err == nil && o.Exists()
	})
	cancel()
	if err := <-done; !errors.Is(err, client.ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("a write under way: %v", err)
	}
	if _, err := b.Put(ctx, "k", []byte("v")); !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("a write that was not sent: %v", err)
	}
	if _, err := b.Get(ctx, "k"); !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("a get: %v", err)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(clustertest.Patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// TestClose: requests under way end with ErrClosed, a write with ErrUnknown too;
// so do those that wait for a node.
func TestClose(t *testing.T) {
	cl, b := hung(t)
	errs := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := b.Put(context.Background(), "k", []byte("v"), client.Timeout(clustertest.Patience))
			errs <- err
		}()
	}
	eventually(t, "the writes are visible", func() bool {
		o, err := b.Get(context.Background(), "k")
		return err == nil && len(o.Values) == 3
	})
	if err := cl.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	for range 3 {
		if err := <-errs; !errors.Is(err, client.ErrClosed) || !errors.Is(err, client.ErrUnknown) {
			t.Errorf("a write under way: %v", err)
		}
	}
	if _, err := b.Put(context.Background(), "k", nil); !errors.Is(err, client.ErrClosed) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("a write after the close: %v", err)
	}
	if err := b.Keys(context.Background(), func(string) error { return nil }); !errors.Is(err, client.ErrClosed) {
		t.Errorf("keys after the close: %v", err)
	}
	if err := cl.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	t.Run("while no node is there", func(t *testing.T) {
		config := client.Default()
		config.Nodes = []string{nobody(t)}
		cl, err := client.New(config)
		if err != nil {
			t.Fatal(err)
		}
		started := make(chan struct{})
		go func() {
			close(started)
			_, err := cl.Bucket("b").Get(context.Background(), "k", client.Timeout(clustertest.Patience))
			errs <- err
		}()
		<-started
		if err := cl.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-errs; !errors.Is(err, client.ErrClosed) {
			t.Errorf("a get that waits for a node: %v", err)
		}
	})
}

// TestHedgedGet: a node answers nothing, though its connection stands. A get that it
// has is answered by another one.
func TestHedgedGet(t *testing.T) {
	proxies := map[string]*proxy{}
	c := clustertest.Start(t, clustertest.Options{Change: func(config *bootstrap.Config) {
		p := startProxy(t, config.Listen)
		proxies[config.Name] = p
		config.Advertise = p.address()
	}})
	cl := connectWith(t, c, func(config *client.Config) {
		config.Nodes = nil
		for _, p := range proxies {
			config.Nodes = append(config.Nodes, p.address())
		}
		config.HedgeAfter = 10 * time.Millisecond
	})
	b, ctx := cl.Bucket("b"), patient(t)
	if _, err := b.Put(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for name, p := range proxies { // any of them may be the one that is asked first
		p.silence(true)
		o, err := b.Get(ctx, "k")
		p.silence(false)
		if v, oneErr := o.One(); err != nil || oneErr != nil || string(v) != "v" {
			t.Errorf("with %s silent: %q, %v, %v", name, v, err, oneErr)
		}
	}
}

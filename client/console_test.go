package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/faulty"
	"github.com/dynactor/dynactor/storage/memory"
)

// sluggish is an engine whose disk hangs on demand: syncs, and reads of some keys.
type sluggish struct {
	*faulty.Engine
	mu   sync.Mutex
	open chan struct{}
}

func newSluggish() *sluggish {
	s := &sluggish{Engine: faulty.New(memory.New()), open: make(chan struct{})}
	close(s.open)
	return s
}

// Get implements storage.Engine.
func (s *sluggish) Get(dst, key []byte) ([]byte, error) {
	if bytes.Contains(key, []byte("slow-")) {
		s.mu.Lock()
		open := s.open
		s.mu.Unlock()
		<-open
	}
	return s.Engine.Get(dst, key)
}

func (s *sluggish) hang() {
	s.HoldSyncs()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = make(chan struct{})
}

func (s *sluggish) goOn() {
	s.ReleaseSyncs()
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.open)
}

// TestEveryActorAnswers: on a cluster under load, every actor of every node says how it is,
// and who supervises it is there, too. One node's disk hangs for a moment again and again,
// so that requests wait for it.
func TestEveryActorAnswers(t *testing.T) {
	third := newSluggish()
	c := clustertest.Start(t, clustertest.Options{Engine: func(node string) storage.Engine {
		if node == "n3" {
			return third
		}
		return memory.New()
	}})
	cl := connect(t, c)
	b, ctx := cl.Bucket("b"), patient(t)
	use := func(prefix string, i int) {
		if _, err := b.Put(ctx, fmt.Sprint("k", i%100), []byte("v")); err != nil && !errors.Is(err, client.ErrSiblings) {
			t.Errorf("put: %v", err)
		}
		if _, err := b.Get(ctx, fmt.Sprint(prefix, i)); err != nil {
			t.Errorf("get: %v", err)
		}
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					use("k", i)
				}
			}
		})
	}
	missing := map[string]bool{"a peer": true, "a client": true}
	for _, kind := range strings.Fields("node vnodes vnode coordinator get put detector membership admission transfers exchanges reaps console links") {
		missing[kind] = true
	}
	for round := 0; len(missing) > 0 && ctx.Err() == nil; round++ {
		third.hang()
		for i := range 4 {
			use("slow-", 4*round+i)
		}
		for _, node := range []string{"n1", "n2", "n3"} {
			walk(t, cl.Cluster(), node, missing)
		}
		third.goOn()
	}
	if len(missing) > 0 {
		t.Errorf("nothing was heard of %v", missing)
	}
	close(stop)
	load.Wait()
}

// walk asks every actor of a node, and forgets the kinds that have answered.
func walk(t *testing.T, cluster *client.Cluster, node string, missing map[string]bool) {
	t.Helper()
	all, left, err := cluster.Actors(patient(t), node, "", 0)
	if err != nil || left != 0 || len(all) < 20 {
		t.Fatalf("actors of %s: %d and %d, %v", node, len(all), left, err)
	}
	for _, a := range all {
		if a.Parent != "" && !slices.ContainsFunc(all, func(b client.Actor) bool { return b.Name == a.Parent }) {
			t.Errorf("%s on %s is under %s, which is not there", a.Name, node, a.Parent)
		}
		i, err := cluster.Inspect(patient(t), node, a.Name)
		switch brief := a.Parent == "coordinator" || strings.HasPrefix(a.Name, "exchange/"); {
		case err != nil && (!brief || !errors.Is(err, client.ErrUnavailable)):
			t.Errorf("%s on %s: %v", a.Name, node, err)
		case err != nil: // it has ended since
		case i.NoAnswer != "" || len(i.Fields) == 0 || i.Name != a.Name:
			t.Errorf("%s on %s: %q %v", a.Name, node, i.NoAnswer, i.Fields)
		default:
			delete(missing, a.Kind())
			if strings.HasPrefix(a.Name, "links/n") {
				delete(missing, "a peer")
			}
			if strings.HasPrefix(a.Name, "links/client-") {
				delete(missing, "a client")
			}
		}
	}
}

// TestActors: some of them, and how many are left.
func TestActors(t *testing.T) {
	cl := connect(t, clustertest.Start(t, clustertest.Options{}))
	cluster, ctx := cl.Cluster(), patient(t)
	all, left, err := cluster.Actors(ctx, "n2", "vnode/1*", 3)
	if err != nil || left != 4 || len(all) != 3 || all[0].Name != "vnode/1" || all[1].Name != "vnode/10" || all[0].Parent != "vnodes" || all[0].Age <= 0 || all[0].Processed == 0 {
		t.Errorf("%+v, %d left, %v", all, left, err)
	}
	if all, left, err := cluster.Actors(ctx, "n2", "nothing like it", 0); err != nil || left != 0 || len(all) != 0 {
		t.Errorf("%+v, %d left, %v", all, left, err)
	}
	if _, _, err := cluster.Actors(ctx, "n2", strings.Repeat("x", 1000), 0); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a long pattern: %v", err)
	}
	if _, err := cluster.Inspect(ctx, "n2", "vnode/99"); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), `no actor "vnode/99"`) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := cluster.Inspect(ctx, "n9", "node"); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("on no node: %v", err)
	}
}

// TestErrors: what is logged as an error is told to operators.
func TestErrors(t *testing.T) {
	e := &engines{}
	c := clustertest.Start(t, clustertest.Options{Engine: e.make})
	cl := connect(t, c)
	ctx := patient(t)
	if all, more, err := cl.Cluster().Errors(ctx, "n1", 0); err != nil || len(all) != 0 || more != 0 {
		t.Errorf("at first: %+v, %d, %v", all, more, err)
	}
	e.each(func(f *faulty.Engine) { f.FailCommits(storage.ErrFull) })
	if _, err := cl.Bucket("b").Put(ctx, "k", []byte("v"), client.Timeout(time.Second)); err == nil {
		t.Error("a full disk took a write")
	}
	var said []client.Fault
	for _, node := range []string{"n1", "n2", "n3"} { // which of them was asked to coordinate is not known
		all, _, err := cl.Cluster().Errors(ctx, node, 1)
		if err != nil || len(all) > 1 {
			t.Errorf("%s: %+v, %v", node, all, err)
		}
		said = append(said, all...)
	}
	if len(said) == 0 || said[0].Actor != "" || !strings.Contains(said[0].Text, "vnode stopped serving") || said[0].Times == 0 || time.Since(said[0].At) > clustertest.Patience {
		t.Errorf("then: %+v", said)
	}
	e.each(func(f *faulty.Engine) { f.Heal() })
}

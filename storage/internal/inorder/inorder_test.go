package inorder_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/storage/internal/inorder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestQueue: each producer's values arrive in its order, all of them, and Take
// ends after Close only when nothing is left.
func TestQueue(t *testing.T) {
	const producers, each = 4, 2000
	q := inorder.New[[2]int]()
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				q.Push([2]int{p, i})
			}
		})
	}
	go func() { wg.Wait(); q.Close() }()
	var next [producers]int
	var buf [][2]int
	for {
		var ok bool
		if buf, ok = q.Take(buf); !ok {
			break
		}
		if len(buf) == 0 {
			t.Fatal("Take returned nothing")
		}
		for _, v := range buf {
			if v[1] != next[v[0]] {
				t.Fatalf("producer %d: %d in place of %d", v[0], v[1], next[v[0]])
			}
			next[v[0]]++
		}
	}
	for p, n := range next {
		if n != each {
			t.Errorf("producer %d: %d of %d values", p, n, each)
		}
	}
	q.Close()
	defer func() {
		if recover() == nil {
			t.Error("Push after Close did not panic")
		}
	}()
	q.Push([2]int{})
}

// TestGate: the gate is idle only when shut and empty, and lets nobody in after.
func TestGate(t *testing.T) {
	g := inorder.NewGate()
	var inside, entered atomic.Int64
	var wg sync.WaitGroup
	ready := make(chan struct{}, 8)
	for range 8 {
		wg.Go(func() {
			for i := 0; g.Enter(); i++ {
				inside.Add(1)
				if !g.Enter() { // nested, and the gate may be shut by now
					inside.Add(-1)
					g.Leave()
					continue
				}
				g.Leave()
				entered.Add(1)
				inside.Add(-1)
				g.Leave()
				if i == 100 {
					ready <- struct{}{}
				}
			}
		})
	}
	<-ready
	if !g.Shut() {
		t.Fatal("Shut refused")
	}
	<-g.Idle()
	if n := inside.Load(); n != 0 {
		t.Errorf("%d inside an idle gate", n)
	}
	after := entered.Load()
	wg.Wait()
	if entered.Load() != after || g.Enter() || g.Shut() {
		t.Error("an idle gate let somebody in, or was shut twice")
	}
}

func TestGateEmpty(t *testing.T) {
	g := inorder.NewGate()
	select {
	case <-g.Idle():
		t.Fatal("an open gate is idle")
	default:
	}
	g.Shut()
	<-g.Idle()
}

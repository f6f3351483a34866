package rt

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		runtime.Gosched()
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

func newSystem(t testing.TB) *actor.ActorSystem {
	t.Helper()
	system := NewSystem("n1", nil)
	t.Cleanup(system.Shutdown)
	return system
}

// stop stops an actor and waits until it is gone.
func stop(t testing.TB, system *actor.ActorSystem, pid *actor.PID) {
	t.Helper()
	system.Root.Stop(pid)
	eventually(t, "actor gone", func() bool {
		_, ok := system.ProcessRegistry.GetLocal(pid.Id)
		return !ok
	})
}

// recorder collects values from any goroutine.
type recorder[T any] struct {
	mu  sync.Mutex
	all []T
}

func (r *recorder[T]) add(v T) {
	r.mu.Lock()
	r.all = append(r.all, v)
	r.mu.Unlock()
}

func (r *recorder[T]) list() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]T(nil), r.all...)
}

func (r *recorder[T]) len() int { return len(r.list()) }

// The messages of these tests.
type (
	number  int
	urgent  int
	sized   int
	perish  struct{ until time.Time }
	limited time.Duration
	block   struct{ entered, release chan struct{} }
	explode struct{}
)

func (urgent) RuntimeControl()              {}
func (p perish) Expired(now time.Time) bool { return now.After(p.until) }

func newBlock() block { return block{make(chan struct{}), make(chan struct{})} }

func (b block) hold() { close(b.entered); <-b.release }

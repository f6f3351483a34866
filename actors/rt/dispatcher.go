package rt

import (
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
)

// throughput is after how many messages a mailbox lets other goroutines run.
const throughput = 300

// maxInline bounds how many inline runs may be on the way at once, and with
// that how deep they can be nested on one stack.
const maxInline = 256

// Inline returns a dispatcher that runs an actor on the goroutine that sends
// to it: no goroutine and no wake-up per message. It is for actors whose
// handlers never block: request machines.
//
// Two inline actors may send to each other: an actor that is running already
// only gets the message queued, so answers never nest and nothing waits. A
// chain of different actors does nest; beyond maxInline runs at once (over all
// goroutines, which is simpler to count and bounds the depth as well) the next
// one gets a goroutine of its own.
func Inline() actor.Dispatcher { return &inline{} }

type inline struct{ running atomic.Int32 }

// Schedule implements actor.Dispatcher.
func (d *inline) Schedule(fn func()) {
	if d.running.Add(1) > maxInline {
		d.running.Add(-1)
		go fn()
		return
	}
	defer d.running.Add(-1)
	fn()
}

// Throughput implements actor.Dispatcher.
func (d *inline) Throughput() int { return throughput }

// Workers runs plain functions on a fixed number of goroutines behind a
// bounded queue: storage reads, which must block neither a vnode nor each
// other without limit.
type Workers struct {
	mu      sync.RWMutex
	tasks   chan func()
	stopped bool
	workers sync.WaitGroup
	onPanic func(reason any)
}

// NewWorkers starts n >= 1 workers behind a queue of at most depth functions.
// onPanic is told of a function that panicked, on the worker, which goes on;
// nil lets the panic end the process.
func NewWorkers(n, depth int, onPanic func(reason any)) *Workers {
	w := &Workers{tasks: make(chan func(), max(depth, 0)), onPanic: onPanic}
	for range max(n, 1) {
		w.workers.Go(w.work)
	}
	return w
}

func (w *Workers) work() {
	for task := range w.tasks {
		w.run(task)
	}
}

func (w *Workers) run(task func()) {
	if w.onPanic != nil {
		defer func() {
			if reason := recover(); reason != nil {
				w.onPanic(reason)
			}
		}()
	}
	task()
}

// Submit queues a function. It never blocks: false means the queue is full or
// the workers have stopped, the function will not run, and the caller sheds.
func (w *Workers) Submit(task func()) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.stopped {
		return false
	}
	select {
	case w.tasks <- task:
		return true
	default:
		return false
	}
}

// Waiting is the number of functions queued.
func (w *Workers) Waiting() int { return len(w.tasks) }

// Stop refuses further functions, runs those queued and waits for them.
// Calling it again is harmless.
func (w *Workers) Stop() {
	w.mu.Lock()
	if !w.stopped {
		w.stopped = true
		close(w.tasks)
	}
	w.mu.Unlock()
	w.workers.Wait()
}

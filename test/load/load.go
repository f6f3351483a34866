// Package load works on a cluster through the client library as applications do,
// and keeps a journal of every operation and its outcome. Every value it writes
// is unique, so that a checker can tell which write a value came from.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/test/journal"
)

// Config says what a load does.
type Config struct {
	Bucket *client.Bucket
	// Workers work at the same time, each on all keys.
	Workers int
	// Keys are in use at a time; each is used about PerKey times, then others take
	// their place, so that no history becomes long.
	Keys, PerKey int
	// Every is the least time between two operations of a worker; 0 is none.
	Every time.Duration
	// Seed is of the choices; Prefix begins each key and value.
	Seed   uint64
	Prefix string
}

// Load is a running load.
type Load struct {
	config  Config
	journal *journal.Writer[journal.Op]
	began   time.Time
	stop    chan struct{}
	workers sync.WaitGroup
	steps   atomic.Int64
	writes  atomic.Int64
	ok      atomic.Int64
	mu      sync.Mutex
	// failures are the operations that did not end well, the first of them.
	failures []journal.Op
	failed   int
}

// New makes a load whose time begins now.
func New(c Config, to *journal.Writer[journal.Op]) *Load {
	return &Load{config: c, journal: to, began: time.Now(), stop: make(chan struct{})}
}

// Now is the time in the journal.
func (l *Load) Now() time.Duration { return time.Since(l.began) }

// Start begins to work.
func (l *Load) Start() {
	for i := range l.config.Workers {
		w := &worker{load: l, r: rand.New(rand.NewPCG(l.config.Seed, uint64(i)))}
		l.workers.Go(w.run)
	}
}

// Stop ends the work: operations under way are completed.
func (l *Load) Stop() {
	close(l.stop)
	l.workers.Wait()
}

// OK is how many operations ended well.
func (l *Load) OK() int64 { return l.ok.Load() }

// Failures is how many did not, and which were the first of them.
func (l *Load) Failures() (int, []journal.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed, l.failures[:len(l.failures):len(l.failures)]
}

// Fill puts one value under each of so many keys.
func (l *Load) Fill(ctx context.Context, keys, workers int) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			w := &worker{load: l}
			for i := next.Add(1); i <= int64(keys) && failed.Load() == nil && ctx.Err() == nil; i = next.Add(1) {
				if err := w.put(fmt.Sprintf("%s-fill-%d", l.config.Prefix, i), nil, nil); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// keptFailures bounds what Failures returns.
const keptFailures = 20

func (l *Load) note(op journal.Op, err error) {
	op.End = l.Now()
	op.Outcome = journal.OK
	if err != nil {
		op.Outcome, op.Error = journal.Failed, err.Error()
		if errors.Is(err, client.ErrUnknown) {
			op.Outcome = journal.Unknown
		}
	}
	l.journal.Write(op)
	if err == nil {
		l.ok.Add(1)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed++; len(l.failures) < keptFailures {
		l.failures = append(l.failures, op)
	}
}

// worker does one operation after the other.
type worker struct {
	load *Load
	r    *rand.Rand
}

func (w *worker) run() {
	pace := time.NewTicker(max(w.load.config.Every, time.Nanosecond))
	defer pace.Stop()
	for {
		select {
		case <-w.load.stop:
			return
		default:
		}
		w.step()
		if w.load.config.Every > 0 {
			select {
			case <-pace.C:
			case <-w.load.stop:
				return
			}
		}
	}
}

// step is what an application does: mostly read, merge and write with the
// context, at times write without one. What fails is in the journal. Contexts that
// come back from puts are not used: they cover what the client was never shown, so
// a journal cannot tell what a write with one replaces.
func (w *worker) step() {
	c := &w.load.config
	round := w.load.steps.Add(1) / int64(c.Keys*c.PerKey)
	key := fmt.Sprintf("%s-%d-%d", c.Prefix, round, w.r.IntN(c.Keys))
	if w.r.IntN(20) == 0 { // a key that was written long ago
		key = fmt.Sprintf("%s-%d-%d", c.Prefix, w.r.Int64N(round+1), w.r.IntN(c.Keys))
	}
	switch n := w.r.IntN(100); {
	case n < 40:
		if o, read, err := w.get(key); err == nil {
			_ = w.put(key, o.Context, read)
		}
	case n < 55:
		_ = w.put(key, nil, nil)
	case n < 65:
		if o, read, err := w.get(key); err == nil {
			w.delete(key, o.Context, read)
		}
	default:
		_, _, _ = w.get(key)
	}
}

func (w *worker) id() string {
	return fmt.Sprintf("%s%d", w.load.config.Prefix, w.load.writes.Add(1))
}

func (w *worker) get(key string) (client.Object, []string, error) {
	op := journal.Op{Kind: journal.Get, Key: key, Start: w.load.Now()}
	o, err := w.load.config.Bucket.Get(context.Background(), key)
	for _, v := range o.Values {
		op.Read = append(op.Read, string(v.Value))
	}
	w.load.note(op, err)
	return o, op.Read, err
}

func (w *worker) put(key string, c client.Context, saw []string) error {
	op := journal.Op{Kind: journal.Put, Key: key, ID: w.id(), Context: c != nil, Saw: saw, Start: w.load.Now()}
	_, err := w.load.config.Bucket.Put(context.Background(), key, []byte(op.ID), client.After(c))
	w.load.note(op, err)
	return err
}

func (w *worker) delete(key string, c client.Context, saw []string) {
	op := journal.Op{Kind: journal.Delete, Key: key, ID: w.id(), Context: true, Saw: saw, Start: w.load.Now()}
	_, err := w.load.config.Bucket.Delete(context.Background(), key, client.After(c))
	w.load.note(op, err)
}

package pebbledb

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/dynactor/dynactor/storage"
)

// statsPatience is how long Stats waits for fresh figures before it returns the
// last ones.
const statsPatience = 100 * time.Millisecond

// backlog is the engine's back-pressure: Commit waits here while Pebble is behind
// with flushes or compactions. Pebble has the same brake, but waits inside the
// lock of its commit pipeline and for ever when flushes keep failing; a writer
// who waits here is let go by a failure, a full disk and Close.
//
// Pebble's own brake is off (options.go).
//
// Pebble's figures are read by one goroutine, because reading them waits for
// the manifest to be written: neither Commit nor Stats may hang with the disk.
// Should the figures be late, the bytes admitted since then hold the writers.
type backlog struct {
	limit  uint64        // bytes of memtables
	behind atomic.Bool   // by the last figures
	since  atomic.Int64  // bytes admitted since the last figures were asked for
	wake   chan struct{} // capacity 1: figures are wanted
	ended  chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when something may have changed
	asked   uint64        // requests for figures so far
	served  uint64        // of these, answered by last
	last    *pebble.Metrics
}

func newBacklog(memTableBytes uint64) *backlog {
	return &backlog{
		limit:   stallMemTables * memTableBytes,
		wake:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
		changed: make(chan struct{}),
		last:    &pebble.Metrics{},
	}
}

// ask requests fresh figures and returns the number of the request. It never
// blocks and may be called under Pebble's locks.
func (b *backlog) ask() uint64 {
	b.mu.Lock()
	b.asked++
	n := b.asked
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // the request before has not been looked at yet
	}
	return n
}

// poke lets waiting writers look again.
func (b *backlog) poke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
}

// watch answers requests until stop is closed.
func (b *backlog) watch(db *pebble.DB, stop <-chan struct{}) {
	defer close(b.ended)
	for {
		select {
		case <-stop:
			return
		case <-b.wake:
		}
		b.mu.Lock()
		n := b.asked
		b.mu.Unlock()
		counted := b.since.Load()
		m := db.Metrics()
		b.since.Add(-counted)
		b.behind.Store(m.MemTable.Size >= b.limit || int(m.Levels[0].Sublevels) >= stallSublevels)
		b.mu.Lock()
		b.last, b.served = m, n
		b.mu.Unlock()
		b.poke()
	}
}

// figures returns Pebble's figures, fresh ones unless it takes too long.
func (b *backlog) figures() *pebble.Metrics {
	n := b.ask()
	patience := time.NewTimer(statsPatience)
	defer patience.Stop()
	for {
		b.mu.Lock()
		m, served, changed := b.last, b.served, b.changed
		b.mu.Unlock()
		if served >= n {
			return m
		}
		select {
		case <-changed:
		case <-patience.C:
			return m
		case <-b.ended:
			return m
		}
	}
}

// over says whether n bytes more have to wait, and on what. The channel is taken
// before the second look, so that no change is missed.
func (b *backlog) over(n int) (changed <-chan struct{}, over bool) {
	full := func() bool {
		return b.behind.Load() || uint64(b.since.Load())+uint64(n) > b.limit && b.since.Load() > 0
	}
	if !full() {
		return nil, false
	}
	b.mu.Lock()
	changed = b.changed
	b.mu.Unlock()
	return changed, full()
}

// batchOverhead is roughly what a memtable needs for an entry besides its bytes.
const batchOverhead = 64

// admit returns nil when p may go to Pebble, after waiting for the backlog if need
// be.
func (e *Engine) admit(p *pebble.Batch, vital bool) error {
	n := p.Len() + batchOverhead*int(p.Count())
	for {
		changed, over := e.backlog.over(n)
		if err := e.failure.err(); err != nil {
			return err
		}
		if err := e.space.admit(p.Len(), vital); err != nil {
			return err
		}
		if !over {
			e.backlog.since.Add(int64(n))
			return nil
		}
		e.backlog.ask()
		select {
		case <-changed:
		case <-e.failure.thrown:
		case <-e.stop:
			return storage.ErrClosed
		}
	}
}

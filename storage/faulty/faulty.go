// Package faulty wraps a storage.Engine and fails on request, for tests of those
// who use one. The errors come where a real engine has them: from reads, from
// Commit with nothing applied, and from done when the sync failed, after which the
// engine stays failed as the contract says. Syncs can also be held back, to look
// at the time between a commit and its durability.
package faulty

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/internal/inorder"
)

// Engine passes everything to the engine inside, except for the faults asked for.
// All methods may be called from any goroutine.
type Engine struct {
	inner storage.Engine
	ops   *inorder.Gate
	queue *inorder.Queue[func()]
	drain chan struct{}

	mu      sync.Mutex
	change  sync.Cond // held or closing changed
	reads   fault
	commits fault
	syncs   fault
	damage  []damage
	held    bool
	closing bool
	pending int
	failed  error // sticky after a failed sync
}

// fault fails calls once `after` more have passed, until it is healed.
type fault struct {
	err   error
	after int
}

// damage is a range that cannot be read.
type damage struct{ lower, upper []byte }

// Damage lets every Get of a key in [lower, upper) that is there, and every Scan that meets
// one, or is of an empty range in there, fail with storage.ErrDamaged, until the range is dropped whole.
func (e *Engine) Damage(lower, upper []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.damage = append(e.damage, damage{bytes.Clone(lower), bytes.Clone(upper)})
}

// damaged reports whether a key cannot be read.
func (e *Engine) damaged(key []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.damage, func(d damage) bool {
		return bytes.Compare(d.lower, key) <= 0 && bytes.Compare(key, d.upper) < 0
	})
}

// Drop implements storage.Engine. A cut through a damaged range is refused.
func (e *Engine) Drop(lower, upper []byte) error {
	if err := e.dropDamage(lower, upper); err != nil {
		return err
	}
	return e.inner.Drop(lower, upper)
}

func (e *Engine) dropDamage(lower, upper []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		return e.failed
	}
	within := func(d damage) bool { return bytes.Compare(lower, d.lower) <= 0 && bytes.Compare(d.upper, upper) <= 0 }
	for _, d := range e.damage {
		if !within(d) && bytes.Compare(d.lower, upper) < 0 && bytes.Compare(lower, d.upper) < 0 {
			return fmt.Errorf("faulty: drop: %w", storage.ErrDamaged)
		}
	}
	e.damage = slices.DeleteFunc(e.damage, within)
	return nil
}

// hit counts one call and returns the error it is to fail with.
func (f *fault) hit() error {
	if f.err == nil {
		return nil
	}
	if f.after > 0 {
		f.after--
		return nil
	}
	return f.err
}

var _ storage.Engine = (*Engine)(nil)

// New wraps inner, which it closes in the end.
func New(inner storage.Engine) *Engine {
	e := &Engine{
		inner: inner,
		ops:   inorder.NewGate(),
		queue: inorder.New[func()](),
		drain: make(chan struct{}),
	}
	e.change.L = &e.mu
	go e.report()
	return e
}

// FailReads lets every Get and Scan fail with err from now on.
func (e *Engine) FailReads(err error) { e.FailReadsAfter(0, err) }

// FailReadsAfter lets n more reads pass before.
func (e *Engine) FailReadsAfter(n int, err error) { e.set(&e.reads, n, err) }

// FailCommits lets every Commit fail with err from now on, applying nothing. With
// storage.ErrFull and Heal it is a disk that was full for a while.
func (e *Engine) FailCommits(err error) { e.FailCommitsAfter(0, err) }

// FailCommitsAfter lets n more commits pass before.
func (e *Engine) FailCommitsAfter(n int, err error) { e.set(&e.commits, n, err) }

// FailSyncs lets the next sync fail: the commit's done gets an ErrFailed with err
// as its cause, and so does everything after it. That is for good; Heal does not
// help. A test that starts the node anew wraps the inner engine again.
func (e *Engine) FailSyncs(err error) { e.FailSyncsAfter(0, err) }

// FailSyncsAfter lets n more syncs pass before.
func (e *Engine) FailSyncsAfter(n int, err error) { e.set(&e.syncs, n, err) }

func (e *Engine) set(f *fault, after int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*f = fault{err, after}
}

// HoldSyncs holds back the done functions of all commits, as a disk would that
// hangs in a sync. Reads see the commits all the same.
func (e *Engine) HoldSyncs() { e.hold(true) }

// ReleaseSyncs lets the held done functions be called, in order.
func (e *Engine) ReleaseSyncs() { e.hold(false) }

func (e *Engine) hold(held bool) {
	e.mu.Lock()
	e.held = held
	e.mu.Unlock()
	e.change.Broadcast()
}

// Heal ends all faults and releases held syncs. A failed sync stays.
func (e *Engine) Heal() {
	e.mu.Lock()
	e.reads, e.commits, e.syncs, e.held = fault{}, fault{}, fault{}, false
	e.mu.Unlock()
	e.change.Broadcast()
}

// report calls the done functions, in order, unless they are held.
func (e *Engine) report() {
	defer close(e.drain)
	var taken []func()
	for {
		var ok bool
		if taken, ok = e.queue.Take(taken); !ok {
			return
		}
		for _, tell := range taken {
			e.mu.Lock()
			for e.held && !e.closing {
				e.change.Wait()
			}
			e.mu.Unlock()
			tell()
		}
	}
}

// synced returns what a commit's done is told when inside it ended with err.
func (e *Engine) synced(d storage.Durability, err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending--
	if e.failed == nil && err == nil && d != storage.Applied {
		if cause := e.syncs.hit(); cause != nil {
			e.failed = fmt.Errorf("%w: %w", storage.ErrFailed, cause)
		}
	}
	if e.failed != nil {
		return e.failed
	}
	return err
}

// Get implements storage.Engine.
func (e *Engine) Get(dst, key []byte) ([]byte, error) {
	if err := e.readFault(); err != nil {
		return dst, err
	}
	out, err := e.inner.Get(dst, key)
	if err == nil && e.damaged(key) {
		return dst, fmt.Errorf("faulty: get: %w", storage.ErrDamaged)
	}
	return out, err
}

// Scan implements storage.Engine.
func (e *Engine) Scan(lower, upper []byte, visit func(key, value []byte) bool) error {
	if err := e.readFault(); err != nil {
		return err
	}
	if bytes.Equal(lower, upper) && e.damaged(lower) { // a store reads the block to find that out
		return fmt.Errorf("faulty: scan: %w", storage.ErrDamaged)
	}
	var damage error
	err := e.inner.Scan(lower, upper, func(key, value []byte) bool {
		if e.damaged(key) {
			damage = fmt.Errorf("faulty: scan: %w", storage.ErrDamaged)
			return false
		}
		return visit(key, value)
	})
	return errors.Join(err, damage)
}

func (e *Engine) readFault() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reads.hit()
}

// NewBatch implements storage.Engine.
func (e *Engine) NewBatch() storage.Batch {
	return &batch{Batch: e.inner.NewBatch(), e: e}
}

// Stats implements storage.Engine.
func (e *Engine) Stats() storage.Stats {
	s := e.inner.Stats()
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Pending = e.pending
	if e.failed != nil {
		s.Failed = e.failed
	}
	return s
}

// Close implements storage.Engine. Held syncs are released.
func (e *Engine) Close() error {
	if !e.ops.Shut() {
		return storage.ErrClosed
	}
	<-e.ops.Idle()
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	e.change.Broadcast()
	err := e.inner.Close() // passes what is under way to the queue
	e.queue.Close()
	<-e.drain
	return err
}

// batch adds the faults of Commit.
type batch struct {
	storage.Batch
	e *Engine
}

// Commit implements storage.Batch.
func (b *batch) Commit(d storage.Durability, done func(error)) error {
	e := b.e
	if !e.ops.Enter() {
		b.Discard()
		return storage.ErrClosed
	}
	defer e.ops.Leave()
	if err := e.commitFault(); err != nil {
		b.Discard()
		return err
	}
	err := b.Batch.Commit(d, func(err error) {
		e.queue.Push(func() {
			err := e.synced(d, err)
			if done != nil {
				done(err)
			}
		})
	})
	if err != nil {
		e.mu.Lock()
		e.pending--
		e.mu.Unlock()
	}
	return err
}

// commitFault counts one commit, as pending when it may pass.
func (e *Engine) commitFault() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		return e.failed
	}
	if err := e.commits.hit(); err != nil {
		return err
	}
	e.pending++
	return nil
}

package pebbledb

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"

	"github.com/dynactor/dynactor/storage"
)

// maxSyncing is how many batches may wait in Pebble's own queue for a sync. That
// queue has record.SyncConcurrency places and Commit would block on a full one,
// for as long as the disk takes. Batches beyond go without a sync of their own and
// are covered by one that the waiter asks for: the log is written in order, so a
// later sync makes all earlier records durable.
const maxSyncing = record.SyncConcurrency / 2

// how says what a commit waits for.
type how uint8

const (
	ownSync  how = iota // its own sync, which Pebble has queued
	anySync             // the next sync asked for
	noSync              // nothing: it need not be durable
	panicked            // Pebble panicked; the engine has failed
)

// commit is a batch on its way from Commit to done.
type commit struct {
	b    *pebble.Batch
	done func(error)
	how  how
}

// commit applies p and queues it for the waiter. On an error nothing was applied
// and p is the caller's to close.
func (e *Engine) commit(p *pebble.Batch, d storage.Durability, done func(error)) error {
	if !e.ops.Enter() {
		return storage.ErrClosed
	}
	defer e.ops.Leave()
	if err := e.admit(p, d == storage.Vital); err != nil {
		return err
	}
	// Before the queue, where the waiter takes it off again.
	e.pending.Add(1)
	h, err := e.apply(p, d)
	if err != nil {
		e.pending.Add(-1)
		return err
	}
	e.commits.Add(1)
	e.queue.Push(commit{p, done, h})
	return nil
}

// apply hands p to Pebble. Reads see it when apply returns.
func (e *Engine) apply(p *pebble.Batch, d storage.Durability) (h how, err error) {
	defer func() {
		// Pebble panics, with its commit lock held, on a log it cannot write.
		// The guard keeps that from it; should it panic all the same, the
		// engine is beyond repair and the process has to end.
		if r := recover(); r != nil {
			e.wrecked.Store(true)
			e.failure.fail(fmt.Errorf("pebble panicked in commit: %v", r))
			h, err = panicked, nil
		}
	}()
	switch {
	case d == storage.Applied:
		h, err = noSync, e.db.Apply(p, pebble.NoSync)
	case p.Empty():
		// It says that all before it is durable. Pebble syncs nothing for it.
		h = anySync
	case e.syncing.Add(1) <= e.opts.maxSyncing:
		h, err = ownSync, e.db.ApplyNoSyncWait(p, pebble.Sync)
	default:
		e.syncing.Add(-1)
		h, err = anySync, e.db.Apply(p, pebble.NoSync)
	}
	if err != nil {
		err = fmt.Errorf("storage: commit: %w", err)
		if h == ownSync {
			e.syncing.Add(-1)
		}
	}
	return h, err
}

// waitSyncs is the engine's one waiter: it waits for each commit in the order of
// the queue and calls its done. A commit is in the queue only after it is in the
// log, so a sync asked for now covers everything taken from the queue.
func (e *Engine) waitSyncs() {
	defer close(e.drained)
	var taken []commit
	for {
		var ok bool
		if taken, ok = e.queue.Take(taken); !ok {
			return
		}
		covered := false
		for i := range taken {
			c := &taken[i]
			var err error
			switch c.how {
			case ownSync:
				err = c.b.SyncWait()
				e.syncing.Add(-1)
			case anySync:
				if !covered {
					err = e.syncNow()
					covered = err == nil
				}
			case noSync, panicked:
			}
			e.report(c, err)
		}
	}
}

// syncNow makes everything that was committed so far durable.
func (e *Engine) syncNow() error {
	if err := e.failure.err(); err != nil {
		return err
	}
	return e.db.LogData(nil, pebble.Sync)
}

// report ends a commit. The engine's failure has the last word, whatever Pebble
// said: see guard.
func (e *Engine) report(c *commit, err error) {
	if err != nil {
		e.failure.fail(fmt.Errorf("sync: %w", err))
	}
	err = e.failure.err()
	if c.how != panicked {
		_ = c.b.Close() // fails only when closed twice
	}
	e.pending.Add(-1)
	if c.done != nil {
		c.done(err)
	}
}

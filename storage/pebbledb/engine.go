// Package pebbledb is the storage.Engine on Pebble, an embedded LSM store.
//
// Commit writes the log and the memtable and returns; Pebble syncs the log in the
// background, one fsync for all commits that came during the last one; one
// goroutine waits for the syncs in order and reports them (sync.go).
//
// What goes wrong on the disk is decided in one place, the file system under
// Pebble (guard.go): a full disk is waited out, a failed log is the end. The engine
// refuses writes before the disk is full (space.go) and holds writers back while
// Pebble is behind (backlog.go).
package pebbledb

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/internal/inorder"
)

// Engine is one Pebble store.
type Engine struct {
	dir     string
	opts    Options
	db      *pebble.DB
	guard   *guard
	failure *failure
	space   *space
	backlog *backlog

	ops         *inorder.Gate
	queue       *inorder.Queue[commit]
	stop        chan struct{} // closed when Close begins
	stopWaiting func()        // closes stop, once
	drained     chan struct{} // closed when the last done was called

	commits     atomic.Uint64
	pending     atomic.Int64 // committed, not yet reported
	syncing     atomic.Int64 // of these, in Pebble's own queue
	corruptions atomic.Uint64
	wrecked     atomic.Bool // Pebble panicked: its locks may be held for ever
}

var _ storage.Engine = (*Engine)(nil)

// Get implements storage.Engine.
func (e *Engine) Get(dst, key []byte) ([]byte, error) {
	if !e.ops.Enter() {
		return dst, storage.ErrClosed
	}
	defer e.ops.Leave()
	value, closer, err := e.db.Get(key)
	switch {
	case err == nil:
		dst = append(dst, value...)
		if err := closer.Close(); err != nil {
			return dst, fmt.Errorf("storage: get: %w", err)
		}
		return dst, nil
	case errors.Is(err, pebble.ErrNotFound):
		return dst, storage.ErrNotFound
	}
	return dst, fmt.Errorf("storage: get: %w", damaged(err))
}

// Scan implements storage.Engine.
func (e *Engine) Scan(lower, upper []byte, visit func(key, value []byte) bool) (err error) {
	if !e.ops.Enter() {
		return storage.ErrClosed
	}
	defer e.ops.Leave()
	// Empty bounds are none: to Pebble an empty upper one is before everything.
	var o pebble.IterOptions
	if len(lower) > 0 {
		o.LowerBound = lower
	}
	if len(upper) > 0 {
		o.UpperBound = upper
	}
	it, err := e.db.NewIter(&o)
	if err != nil {
		return fmt.Errorf("storage: scan: %w", damaged(err))
	}
	// Close also returns an error met while iterating.
	defer func() {
		if closeErr := it.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("storage: scan: %w", damaged(closeErr))
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("storage: scan: %w", damaged(err))
		}
		if !visit(it.Key(), value) {
			return nil
		}
	}
	return nil
}

// NewBatch implements storage.Engine.
func (e *Engine) NewBatch() storage.Batch {
	return &batch{e: e, b: e.db.NewBatch()}
}

// Stats implements storage.Engine. Sizes and Detail may be some time old when the
// disk hangs; the rest is always true now.
func (e *Engine) Stats() storage.Stats {
	s := storage.Stats{
		Engine:  "pebble",
		Commits: e.commits.Load(),
		Syncs:   e.guard.syncs.Load(),
		Pending: int(e.pending.Load()),
		Full:    e.space.full(),
		Failed:  e.failure.err(),

		Corruptions: e.corruptions.Load(),
	}
	if e.wrecked.Load() || !e.ops.Enter() {
		return s
	}
	defer e.ops.Leave()
	m := e.backlog.figures()
	s.DiskBytes = m.DiskSpaceUsage()
	s.MemoryBytes = uint64(m.BlockCache.Size) + m.MemTable.Size + m.MemTable.ZombieSize
	s.Internals = internals(m)
	s.Blocks = storage.Cache{Hits: uint64(m.BlockCache.Hits), Misses: uint64(m.BlockCache.Misses)}
	s.Detail = fmt.Sprintf("corrupt blocks met: %d\n%s", e.corruptions.Load(), m)
	return s
}

func internals(m *pebble.Metrics) storage.Internals {
	total := m.Total()
	return storage.Internals{
		ReadAmplification: m.ReadAmp(), Tables: uint64(total.TablesCount), MemTableBytes: m.MemTable.Size,
		Compactions: uint64(m.Compact.Count), CompactionsFailed: uint64(m.Compact.FailedCount), Flushes: uint64(m.Flush.Count),
		CompactedBytes: total.TableBytesCompacted + total.BlobBytesCompacted, FlushedBytes: total.TableBytesFlushed + total.BlobBytesFlushed,
		CompactionsRunning: int(m.Compact.NumInProgress), CompactionDebt: m.Compact.EstimatedDebt,
		LogBytes: m.WAL.Size, LogWritten: m.WAL.BytesWritten,
	}
}

// Close implements storage.Engine. After a failure it returns its cause.
func (e *Engine) Close() error {
	if !e.ops.Shut() {
		return storage.ErrClosed
	}
	e.stopWaiting()
	if e.wrecked.Load() {
		return e.failure.err() // nothing of Pebble's may be touched any more
	}
	<-e.ops.Idle()
	e.queue.Close()
	<-e.drained
	<-e.backlog.ended
	err := e.db.Close()
	if failed := e.failure.err(); failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("storage: close: %w", err)
	}
	return nil
}

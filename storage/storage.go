// Package storage is the contract between a node and its local persistence
// engine (paper § 5: "a pluggable local persistence component").
//
// An engine is one ordered map of bytes to bytes, shared by all vnodes of a
// node. What it must promise, checked by storagetest for every engine:
//
//   - Atomic: a batch is applied whole or not at all, also across a crash.
//   - Ordered: batches become durable in the order in which Commit was called,
//     so a durable batch implies that all earlier ones are durable too.
//   - Pipelined: Commit returns as soon as the batch is visible to reads and
//     never waits for the disk; done is called once it is durable. So one fsync
//     serves many writers.
//   - Fail-stop: after the first failed write or sync the engine never reports
//     another commit as done.
//   - A read error is never ErrNotFound.
package storage

import "errors"

var (
	// ErrNotFound: the key has no value. It is the only error that means so.
	ErrNotFound = errors.New("storage: not found")
	// ErrClosed: the engine was closed.
	ErrClosed = errors.New("storage: engine is closed")
	// ErrFailed: an earlier write or sync failed, so what the disk holds is
	// not known; the engine takes no more writes until it is opened again.
	ErrFailed = errors.New("storage: engine failed")
	// ErrFull: the disk has no room; the write was not applied and may be
	// tried again later.
	ErrFull = errors.New("storage: disk is full")
	// ErrDamaged: what the disk holds is not what was written. Open returns it when the
	// store cannot be opened for that, Get and Scan for what they could not read.
	ErrDamaged = errors.New("storage: store is damaged")
	// ErrLocked: another process, or this one, has the store open already.
	ErrLocked = errors.New("storage: another process has this store open")
)

// Durability says what Commit waits for before it calls done.
type Durability uint8

const (
	// Synced: done is called after the batch is on the disk.
	Synced Durability = iota
	// Applied: done is called once reads see the batch; a crash may lose it.
	Applied
	// Vital is Synced for the few small facts without which a node falls behind its
	// cluster. They may use half of the room that is kept free when other writes are
	// refused with ErrFull.
	Vital
)

// Engine is one ordered key-value store. All methods may be called from any
// goroutine. Keys and values passed in may be reused by the caller as soon as
// the call returns. Keys and values are any bytes, the empty ones included; an
// empty value is not the same as no value.
type Engine interface {
	// Get appends the value of key to dst and returns the result. It returns
	// dst and ErrNotFound when there is none, and any other error when that
	// could not be determined.
	Get(dst, key []byte) ([]byte, error)

	// Scan calls visit for every key in [lower, upper) in ascending order, on
	// one consistent snapshot, until visit returns false. The slices are valid
	// only during the call. An empty upper means to the end. visit may use the
	// engine, but not close it.
	Scan(lower, upper []byte, visit func(key, value []byte) bool) error

	// NewBatch starts an empty batch.
	NewBatch() Batch

	// Drop removes every key in [lower, upper) without reading what is there, so that
	// it also rids the store of what cannot be read; nothing when upper is not above
	// lower. It returns when that is durable. If what lies next to the range cannot be
	// told from it for damage, it is ErrDamaged, and nothing is removed; a range that
	// holds the damage whole can be dropped. The caller sees to it that nobody writes in
	// the range meanwhile. It waits for the disk.
	Drop(lower, upper []byte) error

	// Stats returns figures for health, metrics and the console.
	Stats() Stats

	// Close waits for commits under way, calls their done, and frees the
	// engine. Batches committed with Applied are made durable first. All
	// methods return ErrClosed afterwards, a second Close too. It must not be
	// called from a done function.
	Close() error
}

// Peeker is an engine that can tell some values at once.
type Peeker interface {
	// Peek returns the value of key if it is in memory and can be had without
	// a search; false says nothing about whether there is one. It gives what
	// Get would give. The value must not be changed and stays as it is.
	Peek(key []byte) ([]byte, bool)
}

// Batch collects writes that are applied together. It belongs to one
// goroutine until Commit and must not be used after it.
type Batch interface {
	// Set maps key to value, replacing what was there.
	Set(key, value []byte)
	// Delete removes key; removing a missing key does nothing.
	Delete(key []byte)
	// DeleteRange removes every key in [lower, upper); nothing when upper is
	// not above lower, so an empty upper removes nothing.
	DeleteRange(lower, upper []byte)
	// Len is the number of writes collected so far.
	Len() int
	// Commit applies the batch and returns once reads see it. Afterwards done
	// is called exactly once, from a goroutine of the engine that must not be
	// held up: with nil when the batch is as durable as asked, else with the
	// error. All done functions of an engine are called one after the other,
	// a goroutine's own in the order of its commits, whatever their
	// durability. If Commit itself returns an error nothing was applied and
	// done is not called. done may be nil. Commit may wait while the engine is
	// behind with its background work: that is its back-pressure.
	Commit(d Durability, done func(error)) error
	// Discard drops a batch that will not be committed.
	Discard()
}

// Cache is what a cache was asked since opening; both only grow.
type Cache struct{ Hits, Misses uint64 }

// Internals are figures of a log-structured engine. Sizes are in bytes.
type Internals struct {
	// ReadAmplification is in how many places a read may have to look, Tables how many
	// tables there are, MemTableBytes what is written and not in a table yet.
	ReadAmplification int
	Tables            uint64
	MemTableBytes     uint64
	// Compactions and Flushes count those that ended, CompactionsFailed those that failed;
	// CompactedBytes and FlushedBytes is what they wrote. They only grow.
	Compactions, CompactionsFailed, Flushes uint64
	CompactedBytes, FlushedBytes            uint64
	// CompactionsRunning are under way, CompactionDebt is what is still to be compacted.
	CompactionsRunning int
	CompactionDebt     uint64
	// LogBytes is the size of the write-ahead log, LogWritten what was written to it; that
	// only grows.
	LogBytes, LogWritten uint64
}

// Stats are an engine's figures. Sizes are in bytes.
type Stats struct {
	// Engine is the engine's name, for example "pebble".
	Engine string
	// DiskBytes is what the store takes on disk, logs included.
	DiskBytes uint64
	// MemoryBytes is what caches and unflushed writes take.
	MemoryBytes uint64
	// Commits, Syncs: batches committed and log syncs done since opening.
	// Commits/Syncs is the size of a commit group.
	Commits, Syncs uint64
	// Pending is how many batches were committed and are not yet durable.
	Pending int
	// Corruptions is how many damaged blocks reads, and the engine's work in the
	// background, have met since opening; one counts each time.
	Corruptions uint64
	// Full says that commits are refused with ErrFull for lack of room.
	Full bool
	// Failed is the error that stopped the engine, or nil.
	Failed error
	// Internals are what an engine on disk does behind the scenes; zero where an engine
	// has no such thing. Those that say so only grow until the engine is closed.
	Internals Internals
	// Records is the cache of records before the engine, Blocks the engine's own.
	Records, Blocks Cache
	// Detail is the engine's own report, many lines, for people.
	Detail string
}

package pebbledb

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Limits of Options.
const (
	minCacheBytes    = 1 << 20
	minMemTableBytes = 64 << 10
	maxMemTableBytes = 1 << 30
	maxCompactions   = 64
)

// Options says how to open a store. Start from Default and change what differs.
type Options struct {
	// FS is the file system the store lives on; nil is the disk.
	FS vfs.FS
	// CacheBytes is the size of the cache of table blocks, at least 1 MiB.
	CacheBytes int64
	// MemTableBytes is the size at which writes kept in memory are written out
	// as a table, 64 KiB to 1 GiB. Up to four times as much is held before
	// Commit waits. It also sets the size of the log files.
	MemTableBytes uint64
	// Compactions is how many compactions may run at once, 1 to 64.
	Compactions int
	// ReserveBytes is the room that is kept free on the disk: with less,
	// Commit returns storage.ErrFull. What Pebble does in the background needs
	// it, and so does an operator who has to clean up. 0 picks 5 % of the disk,
	// at least 64 MiB and at most 8 GiB, but never over a quarter of the disk.
	ReserveBytes uint64
	// FreeSpace returns the bytes free for us and in all on the disk of the
	// store; nil asks FS. An error means not known: commits are not refused.
	FreeSpace func() (free, total uint64, err error)
	// Logger gets the engine's and Pebble's messages; nil drops them.
	Logger *slog.Logger
	// OnFatal is called once, from a goroutine of its own, when the engine has
	// failed for good: a write or sync of the log failed, so the disk's content
	// is not known. The process should end in good order; the store can only
	// be opened again by another one. nil does nothing.
	OnFatal func(error)

	// tune changes Pebble's options last; only tests set it.
	tune func(*pebble.Options)
	// spaceInterval is the longest time between two looks at the free space,
	// and between two attempts to write a log that met a full disk.
	spaceInterval time.Duration
	// retryPause is the pause after a failed flush or compaction; it doubles
	// up to 64 times as much.
	retryPause time.Duration
	// maxSyncing is how many batches may wait in Pebble's own sync queue.
	maxSyncing int64
}

// Default returns options for a node on a small machine: small records, many
// more writes than memory, two cores.
func Default() Options {
	return Options{
		CacheBytes:    64 << 20,
		MemTableBytes: 64 << 20,
		Compactions:   2,
		spaceInterval: 250 * time.Millisecond,
		retryPause:    20 * time.Millisecond,
		maxSyncing:    maxSyncing,
	}
}

// Validate reports every option that is out of its limits.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(o.CacheBytes >= minCacheBytes,
		"CacheBytes is %d, need at least %d", o.CacheBytes, minCacheBytes)
	check(o.MemTableBytes >= minMemTableBytes && o.MemTableBytes <= maxMemTableBytes,
		"MemTableBytes is %d, need %d to %d", o.MemTableBytes, minMemTableBytes, maxMemTableBytes)
	check(o.Compactions >= 1 && o.Compactions <= maxCompactions,
		"Compactions is %d, need 1 to %d", o.Compactions, maxCompactions)
	return errors.Join(errs...)
}

// withDefaults fills what may be left empty.
func (o Options) withDefaults() Options {
	d := Default()
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.spaceInterval == 0 {
		o.spaceInterval = d.spaceInterval
	}
	if o.retryPause == 0 {
		o.retryPause = d.retryPause
	}
	if o.maxSyncing == 0 {
		o.maxSyncing = d.maxSyncing
	}
	return o
}

// Back-pressure: Commit waits when that many memtables are full, or that many
// sublevels of the first level wait to be compacted. Pebble's own brake is set out
// of reach: it stops a writer inside a lock that a failing disk never lets go.
const (
	stallMemTables = 4
	stallSublevels = 24
	outOfReach     = 1 << 20
)

// pebble returns Pebble's options for these. The write-ahead log is always on.
func (o *Options) pebble(fs vfs.FS, logger pebble.Logger, events *pebble.EventListener) *pebble.Options {
	p := &pebble.Options{
		FS:        fs,
		CacheSize: o.CacheBytes,
		// Explicit, so that a new library never upgrades the files unasked.
		FormatMajorVersion: pebble.FormatValueSeparation,
		MemTableSize:       o.MemTableBytes,

		MemTableStopWritesThreshold: outOfReach,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       outOfReach,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                1000,
		CompactionConcurrencyRange:  func() (int, int) { return 1, o.Compactions },
		// A sync is never delayed to gather more writers: those that come
		// during one share the next.
		WALMinSyncInterval: func() time.Duration { return 0 },
		BytesPerSync:       512 << 10,
		// A range delete of a whole partition must free its disk space even
		// when nothing else is written.
		FlushDelayDeleteRange: 10 * time.Second,
		Logger:                logger,
		EventListener:         events,
	}
	// Drop has the disk take the excision before it returns, and learns of its errors.
	p.Experimental.DisableIngestAsFlushable = func() bool { return true }
	p.TargetFileSizes[0] = 4 << 20
	for i := range p.Levels {
		l := &p.Levels[i]
		l.BlockSize = 16 << 10
		l.IndexBlockSize = 256 << 10
		// Also on the last level: a put reads its key first, and a new key is
		// then absent from every level.
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.FilterType = pebble.TableFilter
	}
	if o.tune != nil {
		o.tune(p)
	}
	return p
}

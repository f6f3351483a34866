package pebbledb

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/internal/inorder"
)

// maxFlushFailures is how many flushes in a row may fail, for other reasons than
// a full disk, before the engine gives up: a disk that takes no tables fills the
// memory with writes that cannot go anywhere.
const maxFlushFailures = 8

// Open opens the store in dir and creates it when there is none. It returns
// storage.ErrLocked when somebody else has it open, storage.ErrFull when the disk
// has no room to open it, storage.ErrDamaged when it cannot be read though a store is
// there, and every invalid option at once.
func Open(dir string, o Options) (*Engine, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("storage options: %w", err)
	}
	o = o.withDefaults()
	e := &Engine{
		dir:     dir,
		opts:    o,
		failure: newFailure(o.Logger, o.OnFatal),
		backlog: newBacklog(o.MemTableBytes),
		ops:     inorder.NewGate(),
		queue:   inorder.New[commit](),
		stop:    make(chan struct{}),
		drained: make(chan struct{}),
	}
	e.guard = newGuard(&o, e.failure, e.stop)
	e.space = newSpace(&o, e.freeSpace(), e.backlog.poke)
	e.guard.space = e.space
	stopOnce := sync.OnceFunc(func() { close(e.stop) })
	e.stopWaiting = stopOnce

	db, err := e.openPebble()
	if err != nil {
		e.guard.abandoned.Store(true)
		e.failure.fail(err) // nobody listens; it freezes the guard
		stopOnce()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	e.db = db
	e.failure.serving.Store(true)
	go e.waitSyncs()
	go e.backlog.watch(db, e.stop)
	return e, nil
}

// openPebble opens Pebble and turns a failure on the way into an error.
func (e *Engine) openPebble() (*pebble.DB, error) {
	if err := e.headless(); err != nil {
		return nil, err
	}
	db, err := pebble.Open(e.dir, e.opts.pebble(e.guard, logger{e.failure}, e.events()))
	if failed := e.failure.err(); failed != nil {
		if db != nil {
			e.stopWaiting()
			return nil, errors.Join(failed, db.Close())
		}
		return nil, errors.Join(failed, err)
	}
	switch {
	case err == nil:
		return db, nil
	case isFull(err):
		return nil, fmt.Errorf("%w: %w", storage.ErrFull, err)
	case errors.Is(err, fs.ErrNotExist): // a file that another one names
		return nil, fmt.Errorf("%w: %w", storage.ErrDamaged, err)
	}
	return nil, damaged(err)
}

// damaged makes an error of Pebble's that says so a storage.ErrDamaged.
func damaged(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", storage.ErrDamaged, err)
	}
	return err
}

// headless refuses a folder that has tables but lacks the file that says which of them
// are the store: Pebble takes it for a new store, and deletes them.
func (e *Engine) headless() error {
	names, err := e.opts.FS.List(e.dir)
	if err != nil {
		return nil // there is none, or Pebble's error will be better
	}
	tables := 0
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "marker.manifest."):
			return nil
		case strings.HasSuffix(name, ".sst"):
			tables++
		}
	}
	if tables > 0 {
		return fmt.Errorf("%w: %d tables, but no marker.manifest", storage.ErrDamaged, tables)
	}
	return nil
}

// freeSpace returns the function that measures the disk.
func (e *Engine) freeSpace() func() (free, total uint64, err error) {
	if e.opts.FreeSpace != nil {
		return e.opts.FreeSpace
	}
	return func() (uint64, uint64, error) {
		u, err := e.opts.FS.GetDiskUsage(e.dir)
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		return u.AvailBytes, u.TotalBytes, nil
	}
}

// events returns the listener for what Pebble does in the background. All of
// it is called under Pebble's locks.
func (e *Engine) events() *pebble.EventListener {
	var flushErr error // between FlushEnd and BackgroundError of one flush
	return &pebble.EventListener{
		WALCreated: func(pebble.WALCreateInfo) { e.backlog.ask() },
		FlushEnd: func(i pebble.FlushInfo) {
			flushErr = i.Err
			if i.Err == nil {
				e.guard.flushes.n.Store(0)
			}
			e.backlog.ask()
		},
		CompactionEnd: func(i pebble.CompactionInfo) {
			if i.Err == nil {
				e.guard.compactions.n.Store(0)
			}
			e.backlog.ask()
		},
		BackgroundError: func(err error) {
			e.backgroundError(err, flushErr != nil && errors.Is(err, flushErr))
			flushErr = nil
		},
		// A corrupt block is an error of the read that met it, which the owner
		// of the data can repair from another replica; no reason to stop.
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			e.corruptions.Add(1)
			e.opts.Logger.Error("corrupt table", "path", i.Path, "err", i.Details)
		},
		DiskSlow: func(i pebble.DiskSlowInfo) {
			e.opts.Logger.Warn("slow disk", "op", i.OpType.String(), "path", i.Path, "took", i.Duration)
		},
	}
}

// backgroundError counts a failed flush or compaction.
func (e *Engine) backgroundError(err error, flush bool) {
	e.opts.Logger.Error("background work failed; it will be tried again", "flush", flush, "err", err)
	defer e.backlog.ask()
	if !flush {
		e.guard.compactions.n.Add(1)
		return
	}
	if n := e.guard.flushes.n.Add(1); n >= maxFlushFailures && !isFull(err) {
		e.failure.fail(fmt.Errorf("%d flushes in a row failed: %w", n, err))
	}
}

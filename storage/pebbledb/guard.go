package pebbledb

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/dynactor/dynactor/storage"
)

// The categories Pebble gives to the files it writes; only these matter here.
const (
	categoryWAL      vfs.DiskWriteCategory = "pebble-wal"
	categoryManifest vfs.DiskWriteCategory = "pebble-manifest"
	categoryFlush    vfs.DiskWriteCategory = "pebble-memtable-flush"
)

// errFrozen is what Pebble's background work gets once the engine has failed.
var errFrozen = errors.New("the engine has failed and writes nothing more")

// maxPauseShift bounds the doubling of the pause between failing attempts.
const maxPauseShift = 6

// guard is the file system under Pebble. It decides what an error means:
//
//   - A full disk while a log or the manifest is written: nothing is lost yet, so
//     the write is tried again until there is room. Commits are refused meanwhile.
//   - Any other error of a log, and every error of a sync, is the end. The failure
//     is thrown before Pebble sees the result, and the disk is frozen: later
//     writes, renames and removals do not reach it. Pebble itself is told that its
//     log is fine, because it answers a log error by a panic under its own locks,
//     or by ending the process. No commit is reported as done any more, so nobody
//     believes it.
//   - An error while a table is written is harmless, Pebble does it over; but it
//     does so without pause, so the next attempt has to wait here.
type guard struct {
	vfs.FS
	failure *failure
	space   *space
	stop    <-chan struct{} // closed when the engine closes: no more waiting
	retry   time.Duration   // between attempts on a full disk
	pause   time.Duration   // after the first failed flush or compaction

	// abandoned is set after a failed Open. Pebble then leaves goroutines
	// behind that may start a compaction, while somebody else opens the store.
	abandoned   atomic.Bool
	syncs       atomic.Uint64 // log syncs that succeeded
	flushes     trouble
	compactions trouble
}

// trouble counts consecutive failures of one kind of background work.
type trouble struct{ n atomic.Int32 }

var _ vfs.FS = (*guard)(nil)

func newGuard(o *Options, f *failure, stop <-chan struct{}) *guard {
	return &guard{FS: o.FS, failure: f, stop: stop, retry: o.spaceInterval, pause: o.retryPause}
}

func (g *guard) frozen() bool { return g.failure.err() != nil }

// whileFull runs op again while it fails for a full disk.
func (g *guard) whileFull(op func() error) error {
	for {
		err := op()
		if err == nil || !isFull(err) {
			return err
		}
		g.space.sawFull()
		if !g.sleep(g.retry) || g.frozen() {
			return err
		}
	}
}

// sleep waits, and returns false when the engine closes meanwhile.
func (g *guard) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-g.stop:
		return false
	}
}

// Create implements vfs.FS.
func (g *guard) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	open := func() (vfs.File, error) { return g.FS.Create(name, c) }
	return g.openForWrite(name, c, open)
}

// ReuseForWrite implements vfs.FS.
func (g *guard) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	open := func() (vfs.File, error) { return g.FS.ReuseForWrite(oldname, newname, c) }
	return g.openForWrite(newname, c, open)
}

func (g *guard) openForWrite(
	name string, c vfs.DiskWriteCategory, open func() (vfs.File, error),
) (vfs.File, error) {
	switch c {
	case categoryWAL:
		return g.openLog(name, open)
	case categoryFlush:
		g.waitOut(&g.flushes)
	case categoryManifest:
	default:
		g.waitOut(&g.compactions)
	}
	if g.abandoned.Load() {
		select {} // an error would be answered by the next attempt, for ever
	}
	if g.frozen() {
		return nil, errFrozen
	}
	f, err := open()
	if err != nil {
		g.noteFull(err)
		return nil, err
	}
	if c == categoryManifest {
		return &manifestFile{tableFile: tableFile{File: f, g: g}, name: name}, nil
	}
	return &tableFile{File: f, g: g}, nil
}

func (g *guard) openLog(name string, open func() (vfs.File, error)) (vfs.File, error) {
	if g.frozen() {
		return nullFile{}, nil
	}
	var f vfs.File
	err := g.whileFull(func() (err error) { f, err = open(); return err })
	if err != nil {
		g.failure.fail(fmt.Errorf("create log %s: %w", name, err))
		return nullFile{}, nil
	}
	return &logFile{File: f, g: g, name: name}, nil
}

// waitOut pauses before background work that failed the last times.
func (g *guard) waitOut(t *trouble) {
	n := t.n.Load()
	if g.frozen() {
		n = maxPauseShift
	}
	if n > 0 {
		g.sleep(g.pause << min(n-1, maxPauseShift))
	}
}

func (g *guard) noteFull(err error) {
	if isFull(err) {
		g.space.sawFull()
	}
}

// OpenReadWrite implements vfs.FS.
func (g *guard) OpenReadWrite(
	name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption,
) (vfs.File, error) {
	if g.frozen() {
		return nil, errFrozen
	}
	f, err := g.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return &tableFile{File: f, g: g}, nil
}

// OpenDir implements vfs.FS. Directories are opened to be synced.
func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &dirFile{File: f, g: g, name: name}, nil
}

// Remove implements vfs.FS.
func (g *guard) Remove(name string) error {
	if g.frozen() {
		return nil
	}
	return g.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (g *guard) RemoveAll(name string) error {
	if g.frozen() {
		return nil
	}
	return g.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (g *guard) Rename(oldname, newname string) error {
	if g.frozen() {
		return errFrozen
	}
	return g.FS.Rename(oldname, newname)
}

// Link implements vfs.FS.
func (g *guard) Link(oldname, newname string) error {
	if g.frozen() {
		return errFrozen
	}
	return g.FS.Link(oldname, newname)
}

// syncDirOf makes the directory entry of a file durable.
func (g *guard) syncDirOf(name string) error {
	d, err := g.FS.OpenDir(g.FS.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock implements vfs.FS. A lock held by somebody else is ErrLocked.
func (g *guard) Lock(name string) (io.Closer, error) {
	c, err := g.FS.Lock(name)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES),
		strings.Contains(err.Error(), "lock held by current process"):
		return nil, fmt.Errorf("%w (%s: %w)", storage.ErrLocked, name, err)
	}
	return nil, err
}

// Unwrap implements vfs.FS.
func (g *guard) Unwrap() vfs.FS { return g.FS }

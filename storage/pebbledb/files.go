package pebbledb

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFile is a write-ahead log. None of its write methods returns an error: see
// guard.
type logFile struct {
	vfs.File
	g    *guard
	name string
}

// Write implements vfs.File. What a full disk did not take is written later.
func (f *logFile) Write(p []byte) (int, error) {
	if f.g.frozen() {
		return len(p), nil
	}
	rest := p
	err := f.g.whileFull(func() error {
		n, err := f.File.Write(rest)
		rest = rest[n:]
		return err
	})
	if err != nil {
		f.g.failure.fail(fmt.Errorf("write log %s: %w", f.name, err))
	}
	return len(p), nil
}

// Sync implements vfs.File.
func (f *logFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *logFile) SyncData() error { return f.sync(f.File.SyncData) }

// sync never tries again, not even for a full disk: after a failed fsync the
// kernel may have dropped the pages, and a second one would succeed without them.
func (f *logFile) sync(op func() error) error {
	if f.g.frozen() {
		return nil
	}
	if err := op(); err != nil {
		f.g.failure.fail(fmt.Errorf("sync log %s: %w", f.name, err))
		return nil
	}
	f.g.syncs.Add(1)
	return nil
}

// SyncTo implements vfs.File. It promises nothing about durability.
func (f *logFile) SyncTo(length int64) (bool, error) {
	if f.g.frozen() {
		return false, nil
	}
	full, err := f.File.SyncTo(length)
	if err != nil {
		f.g.failure.fail(fmt.Errorf("sync log %s: %w", f.name, err))
		return false, nil
	}
	return full, nil
}

// Preallocate implements vfs.File.
func (f *logFile) Preallocate(offset, length int64) error {
	if f.g.frozen() {
		return nil
	}
	return f.File.Preallocate(offset, length)
}

// Close implements vfs.File.
func (f *logFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.g.failure.fail(fmt.Errorf("close log %s: %w", f.name, err))
	}
	return nil
}

// dirFile is a directory. A log exists only once its directory is synced.
type dirFile struct {
	vfs.File
	g    *guard
	name string
}

// Sync implements vfs.File.
func (f *dirFile) Sync() error {
	if f.g.frozen() {
		return nil
	}
	if err := f.File.Sync(); err != nil {
		f.g.failure.fail(fmt.Errorf("sync directory %s: %w", f.name, err))
	}
	return nil
}

// tableFile is a file that Pebble can do without, or write again.
type tableFile struct {
	vfs.File
	g *guard
}

// Write implements vfs.File.
func (f *tableFile) Write(p []byte) (int, error) {
	if f.g.frozen() {
		return 0, errFrozen
	}
	n, err := f.File.Write(p)
	f.g.noteFull(err)
	return n, err
}

// Sync implements vfs.File.
func (f *tableFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *tableFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *tableFile) sync(op func() error) error {
	if f.g.frozen() {
		return errFrozen
	}
	err := op()
	f.g.noteFull(err)
	return err
}

// SyncTo implements vfs.File.
func (f *tableFile) SyncTo(length int64) (bool, error) {
	if f.g.frozen() {
		return false, errFrozen
	}
	return f.File.SyncTo(length)
}

// Preallocate implements vfs.File.
func (f *tableFile) Preallocate(offset, length int64) error {
	if f.g.frozen() {
		return errFrozen
	}
	return f.File.Preallocate(offset, length)
}

// manifestFile lists which tables and logs make up the store. Pebble cannot go on
// after an error here.
type manifestFile struct {
	tableFile
	name string
	// entered says that the directory entry is durable. Pebble syncs the
	// directory only together with the marker that points to the manifest: on
	// a file system that does not keep the order of directory changes, a crash
	// could leave the marker without the manifest, and the store would not
	// open.
	entered bool
}

// Write implements vfs.File.
func (f *manifestFile) Write(p []byte) (int, error) {
	if f.g.frozen() {
		return 0, errFrozen
	}
	rest := p
	err := f.g.whileFull(func() error {
		n, err := f.File.Write(rest)
		rest = rest[n:]
		return err
	})
	if err != nil {
		f.g.failure.fail(fmt.Errorf("write manifest: %w", err))
	}
	return len(p) - len(rest), err
}

// Sync implements vfs.File.
func (f *manifestFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *manifestFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *manifestFile) sync(op func() error) error {
	if f.g.frozen() {
		return errFrozen
	}
	err := op()
	if err == nil && !f.entered {
		err = f.g.syncDirOf(f.name)
		f.entered = err == nil
	}
	if err != nil {
		f.g.failure.fail(fmt.Errorf("sync manifest: %w", err))
	}
	return err
}

// nullFile stands for a log that is not there because the engine has failed.
type nullFile struct{}

var _ vfs.File = nullFile{}

func (nullFile) Close() error                       { return nil }
func (nullFile) Read([]byte) (int, error)           { return 0, io.EOF }
func (nullFile) ReadAt([]byte, int64) (int, error)  { return 0, io.EOF }
func (nullFile) Write(p []byte) (int, error)        { return len(p), nil }
func (nullFile) WriteAt([]byte, int64) (int, error) { return 0, errFrozen }
func (nullFile) Preallocate(_, _ int64) error       { return nil }
func (nullFile) Sync() error                        { return nil }
func (nullFile) SyncData() error                    { return nil }
func (nullFile) SyncTo(int64) (bool, error)         { return false, nil }
func (nullFile) Prefetch(_, _ int64) error          { return nil }
func (nullFile) Fd() uintptr                        { return vfs.InvalidFd }
func (nullFile) Stat() (vfs.FileInfo, error)        { return nullInfo{}, nil }

// nullInfo describes an empty file.
type nullInfo struct{}

func (nullInfo) Name() string           { return "" }
func (nullInfo) Size() int64            { return 0 }
func (nullInfo) Mode() os.FileMode      { return 0 }
func (nullInfo) ModTime() time.Time     { return time.Time{} }
func (nullInfo) IsDir() bool            { return false }
func (nullInfo) Sys() any               { return nil }
func (nullInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

package pebbledb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/dynactor/dynactor/storage"
)

var errDisk = errors.New("the disk says no")

// breaker fails every operation that match selects, from the n-th on, and takes a
// crash at the first: what is on the disk when it breaks.
type breaker struct {
	match func(errorfs.Op) bool
	err   error
	crash *crasher // may be nil

	mu     sync.Mutex
	left   int
	broken bool
	off    bool
	hit    chan struct{} // closed at the first failure, unless nil
}

// MaybeError implements errorfs.Injector.
func (b *breaker) MaybeError(op errorfs.Op) error {
	if !b.match(op) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left--; b.left >= 0 || b.off {
		return nil
	}
	if !b.broken && b.crash != nil {
		b.crash.take(fmt.Sprintf("kind %d, %s", op.Kind, op.Path))
	}
	if !b.broken && b.hit != nil {
		close(b.hit)
	}
	b.broken = true
	return b.err
}

// String implements errorfs.Injector.
func (b *breaker) String() string { return "breaker" }

// arm lets it break from now on, heal ends that.
func (b *breaker) arm()  { b.set(false) }
func (b *breaker) heal() { b.set(true) }

func (b *breaker) set(off bool) {
	b.mu.Lock()
	b.off = off
	b.mu.Unlock()
}

// active says whether something failed and is not healed.
func (b *breaker) active() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken && !b.off
}

func ofFile(suffix string, kinds ...errorfs.OpKind) func(errorfs.Op) bool {
	return func(op errorfs.Op) bool {
		for _, k := range kinds {
			if k == op.Kind {
				return strings.HasSuffix(op.Path, suffix) ||
					strings.HasPrefix(filepath.Base(op.Path), suffix)
			}
		}
		return false
	}
}

// mustNotFail is an OnFatal for tests in which the engine survives.
func mustNotFail(t *testing.T) func(error) {
	return func(err error) { t.Errorf("engine failed: %v", err) }
}

// TestFailStop breaks the disk at some operation, for good, in the middle of a
// history. From then on nothing may be reported as done that is not on the disk,
// OnFatal is called once, and the engine takes no more. What is on the disk is what
// a crash would have left.
func TestFailStop(t *testing.T) {
	for name, match := range map[string]func(errorfs.Op) bool{
		"log sync":      ofFile(".log", errorfs.OpFileSync, errorfs.OpFileSyncData),
		"log write":     ofFile(".log", errorfs.OpFileWrite),
		"log create":    ofFile(".log", errorfs.OpCreate, errorfs.OpReuseForWrite),
		"directory":     ofFile("db", errorfs.OpFileSync),
		"manifest":      ofFile("MANIFEST", errorfs.OpFileWrite, errorfs.OpFileSync),
		"tables":        ofFile(".sst", errorfs.OpCreate),
		"tables' syncs": ofFile(".sst", errorfs.OpFileSync, errorfs.OpFileSyncData),
		"every write": func(op errorfs.Op) bool {
			return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, seed := range crashSeeds(t, 3) {
				breakDisk(t, seed, match)
			}
		})
	}
}

func breakDisk(t *testing.T, seed uint64, match func(errorfs.Op) bool) {
	rng := rand.New(rand.NewPCG(seed, 17))
	h := newHistory(seed, 400)
	c := newCrasher(h, 0, 1)
	b := &breaker{match: match, err: errDisk, crash: c, left: rng.IntN(4)}
	armed := &atomic.Bool{} // not before Open is through
	o := crashOptions(errorfs.Wrap(c.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !armed.Load() {
			return nil
		}
		return b.MaybeError(op)
	})))
	o.retryPause = time.Microsecond
	fatal := make(chan error, 2)
	o.OnFatal = func(err error) { fatal <- err }
	e := open(t, "db", o)
	armed.Store(true)

	refused := commitUntilRefused(t, h, e)
	if !errors.Is(refused, storage.ErrFailed) || !errors.Is(refused, errDisk) {
		t.Fatalf("seed %d: commit: %v; want ErrFailed by %v", seed, refused, errDisk)
	}
	if err := <-fatal; !errors.Is(err, errDisk) {
		t.Fatalf("OnFatal(%v)", err)
	}
	if s := e.Stats(); !errors.Is(s.Failed, storage.ErrFailed) {
		t.Errorf("stats: failed = %v", s.Failed)
	}
	if _, err := contents(e); err != nil {
		t.Errorf("scan after the failure: %v", err)
	}
	if err := e.Close(); !errors.Is(err, storage.ErrFailed) {
		t.Errorf("close = %v", err)
	}
	if len(fatal) != 0 {
		t.Error("OnFatal was called twice")
	}
	checkFrozen(t, h, c, seed)
}

// commitUntilRefused plays the history until a commit is refused.
func commitUntilRefused(t *testing.T, h *history, e *Engine) error {
	for n := 1; n <= len(h.batches); n++ {
		if err := h.commit(e, n); err != nil {
			return err
		}
	}
	t.Fatalf("seed %d: the disk never broke", h.seed)
	return nil
}

// checkFrozen opens what was on the disk when it broke for the first time, and what
// is there in the end. All that was ever acknowledged must be in the second. For
// an error of a log the two are the same; a broken table is tried again for a while.
func checkFrozen(t *testing.T, h *history, c *crasher, seed uint64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.crashes) != 1 {
		t.Fatalf("%d crashes", len(c.crashes))
	}
	c.take("after close")
	for _, at := range c.crashes {
		e := open(t, "db", crashOptions(at.fs))
		if _, err := h.check(e, at.acked, at.submitted, 0); err != nil {
			t.Errorf("seed %d: disk broken at %s: %v", seed, at.op, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFailedSyncIsFinal: one failed sync, with a disk that works again at once, is
// the end all the same, for the group it hit and for everything after it.
func TestFailedSyncIsFinal(t *testing.T) {
	b := &breaker{
		match: ofFile(".log", errorfs.OpFileSync, errorfs.OpFileSyncData), err: errDisk, off: true,
	}
	o := small(errorfs.Wrap(vfs.NewMem(), b))
	e := open(t, "db", o)
	result := make(chan error, 1)
	put := func(key string) error {
		batch := e.NewBatch()
		batch.Set([]byte(key), nil)
		return batch.Commit(storage.Synced, func(err error) { result <- err })
	}
	if err := errors.Join(put("before"), <-result); err != nil {
		t.Fatal(err)
	}
	b.arm()
	if err := put("hit"); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, storage.ErrFailed) {
		t.Fatalf("done(%v)", err)
	}
	b.heal()
	if err := put("after"); !errors.Is(err, storage.ErrFailed) {
		t.Fatalf("commit = %v", err)
	}
	if err := e.Close(); !errors.Is(err, storage.ErrFailed) {
		t.Fatalf("close = %v", err)
	}
}

// TestOpenFails: a disk that breaks during Open is Open's error, and not OnFatal's;
// afterwards the store opens.
func TestOpenFails(t *testing.T) {
	writes := func(op errorfs.Op) bool {
		return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose &&
			op.Kind != errorfs.OpRemove // a file that is left over does no harm
	}
	for at := 0; ; at++ {
		mem := vfs.NewMem()
		b := &breaker{match: writes, err: errDisk, left: at}
		o := small(errorfs.Wrap(mem, b))
		o.OnFatal, o.retryPause = mustNotFail(t), time.Microsecond
		e, err := Open("db", o)
		if err == nil {
			b.heal()
			if at < 10 {
				t.Errorf("Open made only %d writes", at)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("write %d: %v", at, err)
		}
		e = open(t, "db", small(mem))
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadErrors: what could not be read is an error, never "not found".
func TestReadErrors(t *testing.T) {
	reads := ofFile(".sst", errorfs.OpFileRead, errorfs.OpFileReadAt, errorfs.OpOpen)
	b := &breaker{match: reads, err: errDisk, off: true}
	mem := vfs.NewMem()
	e := open(t, "db", small(mem))
	batch := e.NewBatch()
	for i := range 100 {
		batch.Set(fmt.Append(nil, "k", i), make([]byte, 1000))
	}
	if err := errors.Join(batch.Commit(storage.Synced, nil), e.db.Flush(), e.Close()); err != nil {
		t.Fatal(err)
	}
	o := small(errorfs.Wrap(mem, b))
	o.OnFatal = mustNotFail(t)
	e = open(t, "db", o)
	b.arm()
	_, err := e.Get(nil, []byte("k7"))
	if !errors.Is(err, errDisk) || errors.Is(err, storage.ErrNotFound) {
		t.Errorf("get = %v", err)
	}
	if _, err := contents(e); !errors.Is(err, errDisk) {
		t.Errorf("scan = %v", err)
	}
	b.heal()
	// Pebble may still be letting go of the table it could not open.
	until(t, func() bool {
		v, err := e.Get(nil, []byte("k7"))
		if errors.Is(err, storage.ErrNotFound) {
			t.Fatal("a key that is there was not found")
		}
		return err == nil && len(v) == 1000
	})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCorruption: a flipped bit in a table is an error of the read and counted; the
// engine goes on.
func TestCorruption(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir, Default())
	batch := e.NewBatch()
	for i := range 100 {
		batch.Set(fmt.Append(nil, "k", i), []byte(strings.Repeat(fmt.Sprint(i), 300)))
	}
	if err := errors.Join(batch.Commit(storage.Synced, nil), e.db.Flush(), e.Close()); err != nil {
		t.Fatal(err)
	}
	flipFirstByte(t, dir)
	o := Default()
	o.OnFatal = mustNotFail(t)
	e = open(t, dir, o)
	if _, err := e.Get(nil, []byte("k0")); err == nil || errors.Is(err, storage.ErrNotFound) {
		t.Errorf("get of a corrupt block = %v", err)
	}
	if s := e.Stats(); !strings.HasPrefix(s.Detail, "corrupt blocks met: ") ||
		strings.HasPrefix(s.Detail, "corrupt blocks met: 0") {
		t.Errorf("detail = %.40q", s.Detail)
	}
	done := make(chan error, 1)
	batch = e.NewBatch()
	batch.Set([]byte("new"), nil)
	if err := batch.Commit(storage.Synced, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLocked(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "db")
			o := small(fs)
			e := open(t, dir, o)
			if _, err := Open(dir, o); !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), dir) {
				t.Errorf("second open: %v", err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if err := open(t, dir, o).Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDiskFullIsWaitedOut: every write meets a full disk for a while, logs in the
// middle of a group too. Commits are refused as full; nothing fails, nothing that
// was accepted is lost, and the engine comes back by itself.
func TestDiskFullIsWaitedOut(t *testing.T) {
	for name, match := range map[string]func(errorfs.Op) bool{
		"log":      ofFile(".log", errorfs.OpFileWrite, errorfs.OpCreate, errorfs.OpReuseForWrite),
		"tables":   ofFile(".sst", errorfs.OpCreate, errorfs.OpFileWrite),
		"manifest": ofFile("MANIFEST", errorfs.OpFileWrite),
		"all writes": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fillDisk(t, match)
		})
	}
}

func fillDisk(t *testing.T, match func(errorfs.Op) bool) {
	b := &breaker{match: match, err: syscall.ENOSPC, off: true, hit: make(chan struct{})}
	o := crashOptions(errorfs.Wrap(vfs.NewMem(), b))
	o.OnFatal = mustNotFail(t)
	o.spaceInterval, o.retryPause = time.Millisecond, time.Millisecond
	o.FreeSpace = func() (uint64, uint64, error) {
		if b.active() {
			return 0, 1 << 30, nil
		}
		return 1 << 29, 1 << 30, nil
	}
	e := open(t, "db", o)
	b.arm()
	w := &persistentWriter{e: e, total: 1000, ended: make(chan struct{})}
	go w.run(t)
	<-b.hit // and a commit may now be held inside Pebble, by a log
	until(t, func() bool { return e.Stats().Full })
	never := func(error) { t.Error("done of a refused commit") }
	if err := w.batch(0).Commit(storage.Synced, never); !errors.Is(err, storage.ErrFull) {
		t.Errorf("commit on a full disk = %v", err)
	}
	b.heal()
	<-w.ended
	for n := 1; n <= w.total; n++ {
		if _, err := e.Get(nil, fmt.Appendf(nil, "%06d", n)); err != nil {
			t.Errorf("get %d: %v", n, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// persistentWriter commits until all is accepted and done; ErrFull it tries again.
type persistentWriter struct {
	e     *Engine
	total int
	ended chan struct{}
}

func (w *persistentWriter) batch(n int) storage.Batch {
	b := w.e.NewBatch()
	b.Set(fmt.Appendf(nil, "%06d", n), nil)
	b.Set([]byte("filler"), make([]byte, 2000))
	return b
}

func (w *persistentWriter) run(t *testing.T) {
	defer close(w.ended)
	var pending sync.WaitGroup
	for n := 1; n <= w.total; {
		pending.Add(1)
		err := w.batch(n).Commit(storage.Synced, func(err error) {
			if err != nil {
				t.Errorf("done: %v", err)
			}
			pending.Done()
		})
		if err == nil {
			n++
			continue
		}
		pending.Done()
		if !errors.Is(err, storage.ErrFull) {
			t.Errorf("commit: %v", err)
			return
		}
		runtime.Gosched()
	}
	pending.Wait()
}

package pebbledb

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/dynactor/dynactor/storage"
)

func TestReserve(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, c := range []struct{ asked, total, want uint64 }{
		{0, 24 * mib, 6 * mib},
		{0, 200 * mib, 50 * mib},
		{0, gib, 64 * mib},
		{0, 10 * gib, 512 * mib},
		{0, 1000 * gib, 8 * gib},
		{123, gib, 123},
	} {
		s := &space{reserve: c.asked}
		if got := s.reserveOf(c.total); got != c.want {
			t.Errorf("reserve of a disk of %d, asked %d: %d, want %d", c.total, c.asked, got, c.want)
		}
	}
}

// TestSpaceWatch: writes are refused below the reserve and let in again only with
// some more than that, without a restart; an unknown free space refuses nothing.
func TestSpaceWatch(t *testing.T) {
	var free atomic.Int64
	var broken atomic.Bool
	o := small(vfs.NewMem())
	o.ReserveBytes = 800
	o.spaceInterval = 1 // look every time
	o.OnFatal = mustNotFail(t)
	o.FreeSpace = func() (uint64, uint64, error) {
		if broken.Load() {
			return 0, 0, errDisk
		}
		return uint64(free.Load()), 10_000, nil
	}
	free.Store(5000)
	e := open(t, "db", o)
	for i, c := range []struct {
		free        int64
		full, vital bool // refused; vital ones are refused, too
	}{
		{5000, false, false}, {800, false, false}, {799, true, false}, {850, true, false}, {899, true, false}, {900, false, false},
		{800, false, false}, {400, true, false}, {399, true, true}, {0, true, true}, {5000, false, false},
	} {
		free.Store(c.free)
		key := fmt.Append(nil, i)
		batch := e.NewBatch()
		batch.Set(key, nil)
		err := batch.Commit(storage.Synced, nil)
		if c.full != errors.Is(err, storage.ErrFull) || !c.full && err != nil {
			t.Errorf("step %d, %d free: commit = %v", i, c.free, err)
		}
		if _, err := e.Get(nil, key); c.full != errors.Is(err, storage.ErrNotFound) {
			t.Errorf("step %d: get = %v", i, err)
		}
		fact := e.NewBatch()
		fact.Set([]byte("fact"), key)
		if err := fact.Commit(storage.Vital, nil); c.vital != errors.Is(err, storage.ErrFull) || !c.vital && err != nil {
			t.Errorf("step %d, %d free: commit of what is vital = %v", i, c.free, err)
		}
		if s := e.Stats(); s.Full != c.full || s.Failed != nil {
			t.Errorf("step %d: stats: full = %v, failed = %v", i, s.Full, s.Failed)
		}
	}
	free.Store(0)
	broken.Store(true)
	if err := e.NewBatch().Commit(storage.Synced, nil); err != nil {
		t.Errorf("with unknown free space: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSpaceLooksSeldom: between two looks of the interval the disk is measured
// only after a share of the reserve was written.
func TestSpaceLooksSeldom(t *testing.T) {
	var looks int
	o := Default().withDefaults()
	o.ReserveBytes, o.spaceInterval = 16_000, time.Hour
	s := newSpace(&o, func() (uint64, uint64, error) { looks++; return 1 << 30, 1 << 40, nil }, func() {})
	for range 100 {
		if err := s.admit(100, false); err != nil {
			t.Fatal(err)
		}
	}
	// 10,000 bytes, a look at the start and one per 1,000 and a bit.
	if looks < 8 || looks > 11 {
		t.Errorf("%d looks", looks)
	}
}

// slowFlush is a file system whose tables cannot be created until it is let go.
type slowFlush struct{ gate chan struct{} }

func (s slowFlush) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
		<-s.gate
	}
	return nil
}

func (slowFlush) String() string { return "slowFlush" }

// backlogged opens an engine and writes until Commit waits for the flush. The
// channel returned gives the result of that last commit.
func backlogged(t *testing.T, inj errorfs.Injector) (*Engine, <-chan error) {
	t.Helper()
	o := crashOptions(errorfs.Wrap(vfs.NewMem(), inj))
	o.retryPause = time.Millisecond
	e := open(t, "db", o)
	result := make(chan error, 1)
	go func() {
		for {
			b := e.NewBatch()
			b.Set([]byte("k"), make([]byte, 4000))
			behind := e.backlog.behind.Load()
			if err := b.Commit(storage.Synced, nil); err != nil || behind {
				result <- err
				return
			}
		}
	}()
	until(t, e.backlog.behind.Load)
	return e, result
}

// TestBackPressure: while flushes hang Commit waits, with little more in memory
// than the limit; Stats answers; when the flushes go on, so does Commit.
func TestBackPressure(t *testing.T) {
	slow := slowFlush{make(chan struct{})}
	e, result := backlogged(t, slow)
	s := e.Stats()
	if limit := uint64(2*stallMemTables+2) * minMemTableBytes; s.MemoryBytes > limit {
		t.Errorf("%d bytes in memory, more than %d", s.MemoryBytes, limit)
	}
	close(slow.gate)
	if err := <-result; err != nil {
		t.Errorf("commit after the wait: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBackPressureEnds: Close and a failure let a waiting Commit go.
func TestBackPressureEnds(t *testing.T) {
	t.Run("close", func(t *testing.T) {
		slow := slowFlush{make(chan struct{})}
		e, result := backlogged(t, slow)
		closed := make(chan error, 1)
		go func() { closed <- e.Close() }()
		err := <-result
		if err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Errorf("commit = %v", err)
		}
		close(slow.gate)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
	t.Run("failure", func(t *testing.T) {
		slow := slowFlush{make(chan struct{})}
		e, result := backlogged(t, slow)
		e.failure.fail(errDisk)
		if err := <-result; !errors.Is(err, storage.ErrFailed) {
			t.Errorf("commit = %v", err)
		}
		close(slow.gate)
		if err := e.Close(); !errors.Is(err, errDisk) {
			t.Errorf("close = %v", err)
		}
	})
}

// hungManifest is a file system whose manifest write hangs until it is let go; it
// takes Pebble's figures with it.
type hungManifest struct{ armed, gate chan struct{} }

func (h hungManifest) MaybeError(op errorfs.Op) error {
	if op.Kind != errorfs.OpFileWrite || !strings.Contains(op.Path, "MANIFEST") {
		return nil
	}
	select {
	case <-h.armed:
		<-h.gate
	default:
	}
	return nil
}

func (hungManifest) String() string { return "hungManifest" }

// TestHungDisk: a disk that hangs without an error holds writers back within bounds,
// Stats still answers, and a failure lets them go.
func TestHungDisk(t *testing.T) {
	hang := hungManifest{make(chan struct{}), make(chan struct{})}
	e := open(t, "db", crashOptions(errorfs.Wrap(vfs.NewMem(), hang)))
	close(hang.armed)
	result := make(chan error, 1)
	go func() {
		for {
			b := e.NewBatch()
			b.Set([]byte("k"), make([]byte, 4000))
			if err := b.Commit(storage.Synced, nil); err != nil {
				result <- err
				return
			}
		}
	}()
	until(t, func() bool { _, over := e.backlog.over(5000); return over })
	if s := e.Stats(); s.Commits == 0 || s.Failed != nil {
		t.Errorf("stats = %+v", s)
	}
	e.failure.fail(errDisk)
	if err := <-result; !errors.Is(err, storage.ErrFailed) {
		t.Errorf("commit = %v", err)
	}
	close(hang.gate)
	if err := e.Close(); !errors.Is(err, errDisk) {
		t.Errorf("close = %v", err)
	}
}

// TestPanicInPebble: should Pebble panic with its locks held, the commit is
// reported as failed, and Close returns.
func TestPanicInPebble(t *testing.T) {
	o := small(vfs.NewMem())
	fatal := make(chan error, 1)
	o.OnFatal = func(err error) { fatal <- err }
	e := open(t, "db", o)
	done := make(chan error, 1)
	p := e.db.NewBatch()
	if err := errors.Join(p.Set([]byte("k"), nil, nil), e.db.Apply(p, pebble.Sync)); err != nil {
		t.Fatal(err)
	}
	// Applied already: Pebble panics.
	if err := e.commit(p, storage.Synced, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, storage.ErrFailed) {
		t.Errorf("done(%v)", err)
	}
	<-fatal
	if s := e.Stats(); !errors.Is(s.Failed, storage.ErrFailed) || s.Pending != 0 {
		t.Errorf("stats = %+v", s)
	}
	if err := e.Close(); !errors.Is(err, storage.ErrFailed) {
		t.Errorf("close = %v", err)
	}
	// This time the locks are free, so that the test can clean up.
	e.queue.Close()
	<-e.drained
	if err := e.db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestValidate(t *testing.T) {
	d := Default()
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Options{CacheBytes: 1, MemTableBytes: 1 << 40, Compactions: 0}
	_, err := Open(t.TempDir(), bad)
	if err == nil {
		t.Fatal("opened with bad options")
	}
	for _, name := range []string{"CacheBytes", "MemTableBytes", "Compactions"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
}

// TestStatsBeforeFigures: Stats can be told before the first figures are there.
func TestStatsBeforeFigures(t *testing.T) {
	b := newBacklog(1 << 20)
	close(b.ended) // nobody will answer
	if s := b.figures().String(); s == "" {
		t.Error("no figures")
	}
}

// TestConcurrentStats: Stats, commits and flushes do not hold each other up.
func TestConcurrentStats(t *testing.T) {
	e := open(t, "db", crashOptions(vfs.NewMem()))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				b := e.NewBatch()
				b.Set([]byte("k"), make([]byte, 3000))
				if err := b.Commit(storage.Synced, nil); err != nil {
					t.Error(err)
				}
				if s := e.Stats(); s.Engine != "pebble" {
					t.Errorf("stats = %+v", s)
				}
			}
		})
	}
	wg.Wait()
	if s := e.Stats(); s.Commits != 200 || s.DiskBytes == 0 {
		t.Errorf("stats = %+v", s)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

package faulty_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/faulty"
	"github.com/dynactor/dynactor/storage/memory"
	"github.com/dynactor/dynactor/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDisk = errors.New("the disk says no")

// TestEngine: without faults it is an engine like any other.
func TestEngine(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Engine { return faulty.New(memory.New()) })
}

func open(t *testing.T) (*faulty.Engine, storage.Engine) {
	t.Helper()
	inner := memory.New()
	e := faulty.New(inner)
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Error(err)
		}
	})
	return e, inner
}

// put commits key and returns the channel done reports to.
func put(e storage.Engine, key string, d storage.Durability) (<-chan error, error) {
	done := make(chan error, 2)
	b := e.NewBatch()
	b.Set([]byte(key), nil)
	return done, b.Commit(d, func(err error) { done <- err })
}

// synced is put, waiting for done.
func synced(e storage.Engine, key string) error {
	done, err := put(e, key, storage.Synced)
	if err != nil {
		return err
	}
	return <-done
}

func has(e storage.Engine, key string) bool {
	_, err := e.Get(nil, []byte(key))
	return err == nil
}

func TestFailReads(t *testing.T) {
	e, _ := open(t)
	if err := synced(e, "k"); err != nil {
		t.Fatal(err)
	}
	e.FailReadsAfter(2, errDisk)
	for i, want := range []error{nil, nil, errDisk, errDisk} {
		if _, err := e.Get(nil, []byte("k")); !errors.Is(err, want) {
			t.Errorf("get %d = %v, want %v", i, err, want)
		}
	}
	if err := e.Scan(nil, nil, func(_, _ []byte) bool { return true }); !errors.Is(err, errDisk) {
		t.Errorf("scan = %v", err)
	}
	if err := synced(e, "writes go on"); err != nil {
		t.Error(err)
	}
	e.Heal()
	if !has(e, "k") {
		t.Error("not healed")
	}
}

func TestFailCommits(t *testing.T) {
	e, _ := open(t)
	e.FailCommitsAfter(1, storage.ErrFull)
	for _, c := range []struct {
		key  string
		want error
	}{{"a", nil}, {"b", storage.ErrFull}, {"c", storage.ErrFull}} {
		if err := synced(e, c.key); !errors.Is(err, c.want) {
			t.Errorf("commit %s = %v, want %v", c.key, err, c.want)
		}
	}
	if !has(e, "a") || has(e, "b") || has(e, "c") {
		t.Error("a refused commit was applied, or an accepted one not")
	}
	e.Heal()
	if err := synced(e, "b"); err != nil {
		t.Error(err)
	}
}

// TestFailSyncs: the second sync fails; its commit was visible, and everything
// later is refused, healed or not. The inner engine can be wrapped again.
func TestFailSyncs(t *testing.T) {
	e, inner := open(t)
	e.FailSyncsAfter(1, errDisk)
	if err := synced(e, "a"); err != nil {
		t.Fatal(err)
	}
	e.HoldSyncs()
	var dones []<-chan error
	for _, d := range []storage.Durability{storage.Applied, storage.Synced, storage.Applied, storage.Synced} {
		done, err := put(e, "b", d)
		if err != nil {
			t.Fatal(err)
		}
		dones = append(dones, done)
	}
	e.ReleaseSyncs()
	for i, failed := range []bool{false, true, true, true} {
		err := <-dones[i]
		if failed != errors.Is(err, storage.ErrFailed) || failed != errors.Is(err, errDisk) || !failed && err != nil {
			t.Errorf("done %d(%v), want failed = %v", i, err, failed)
		}
	}
	e.Heal()
	if _, err := put(e, "c", storage.Synced); !errors.Is(err, storage.ErrFailed) {
		t.Errorf("commit after a failed sync = %v", err)
	}
	if s := e.Stats(); !errors.Is(s.Failed, errDisk) || s.Pending != 0 {
		t.Errorf("stats = %+v", s)
	}
	again := faulty.New(inner)
	if err := synced(again, "c"); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestHoldSyncs: a held commit is visible and pending, and not done.
func TestHoldSyncs(t *testing.T) {
	e, _ := open(t)
	e.HoldSyncs()
	first, err := put(e, "a", storage.Synced)
	if err != nil {
		t.Fatal(err)
	}
	second, err := put(e, "b", storage.Applied)
	if err != nil {
		t.Fatal(err)
	}
	if s := e.Stats(); s.Pending != 2 || !has(e, "a") || !has(e, "b") {
		t.Errorf("pending = %d", s.Pending)
	}
	select {
	case err := <-first:
		t.Fatalf("done(%v) while held", err)
	case err := <-second:
		t.Fatalf("done(%v) while held", err)
	default:
	}
	e.ReleaseSyncs()
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
}

// TestCloseReleases: Close calls what is held.
func TestCloseReleases(t *testing.T) {
	e, _ := open(t)
	e.HoldSyncs()
	done, err := put(e, "a", storage.Synced)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

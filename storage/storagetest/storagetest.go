// Package storagetest is the suite that every storage.Engine must pass: one test
// per promise of the contract, and a random walk against a sorted map.
package storagetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/dynactor/dynactor/storage"
)

// Open returns a new, empty engine. The suite closes it.
type Open func(t *testing.T) storage.Engine

// Run runs the whole suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, storage.Engine)
	}{
		{"Get", testGet},
		{"GetAppends", testGetAppends},
		{"EmptyKeyAndValue", testEmptyKeyAndValue},
		{"LargeValues", testLargeValues},
		{"BuffersMayBeReused", testBuffersMayBeReused},
		{"BatchLastWriteWins", testBatchLastWriteWins},
		{"BatchOrderOfKinds", testBatchOrderOfKinds},
		{"BatchLen", testBatchLen},
		{"BatchDiscard", testBatchDiscard},
		{"BatchUsedTwice", testBatchUsedTwice},
		{"EmptyBatch", testEmptyBatch},
		{"DeleteRange", testDeleteRange},
		{"Drop", testDrop},
		{"ScanBounds", testScanBounds},
		{"ScanStops", testScanStops},
		{"ScanSnapshot", testScanSnapshot},
		{"ScanVisitMayUseEngine", testScanVisitMayUseEngine},
		{"VisibleAtCommit", testVisibleAtCommit},
		{"DoneOutsideCommit", testDoneOutsideCommit},
		{"DoneInOrder", testDoneInOrder},
		{"DoneOnce", testDoneOnce},
		{"NilDone", testNilDone},
		{"ManyInFlight", testManyInFlight},
		{"Concurrent", testConcurrent},
		{"ConcurrentBatchesAreAtomic", testConcurrentBatchesAreAtomic},
		{"CloseCallsDone", testCloseCallsDone},
		{"CloseRacesCommits", testCloseRacesCommits},
		{"Closed", testClosed},
		{"Stats", testStats},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t)
			t.Cleanup(func() {
				if err := e.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
					t.Errorf("close: %v", err)
				}
			})
			c.test(t, e)
		})
	}
	t.Run("Model", func(t *testing.T) { testModel(t, open) })
}

// write is one entry of a batch.
type write func(storage.Batch)

func set(key, value string) write {
	return func(b storage.Batch) { b.Set([]byte(key), []byte(value)) }
}

func del(key string) write {
	return func(b storage.Batch) { b.Delete([]byte(key)) }
}

func delRange(lower, upper string) write {
	return func(b storage.Batch) { b.DeleteRange([]byte(lower), []byte(upper)) }
}

func batchOf(e storage.Engine, writes ...write) storage.Batch {
	b := e.NewBatch()
	for _, w := range writes {
		w(b)
	}
	return b
}

// commit commits the writes and waits until they are durable.
func commit(t testing.TB, e storage.Engine, writes ...write) {
	t.Helper()
	done := make(chan error, 1)
	if err := batchOf(e, writes...).Commit(storage.Synced, func(err error) { done <- err }); err != nil {
		t.Fatalf("commit: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatalf("done: %v", err)
	}
}

// get returns the value of key, and whether there is one.
func get(t testing.TB, e storage.Engine, key string) (string, bool) {
	t.Helper()
	v, err := e.Get(nil, []byte(key))
	if errors.Is(err, storage.ErrNotFound) {
		return "", false
	}
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	return string(v), true
}

func wantValue(t testing.TB, e storage.Engine, key, want string) {
	t.Helper()
	if got, ok := get(t, e, key); !ok || got != want {
		t.Fatalf("get %q = %.40q, %v; want %.40q", key, got, ok, want)
	}
}

func wantAbsent(t testing.TB, e storage.Engine, key string) {
	t.Helper()
	if got, ok := get(t, e, key); ok {
		t.Fatalf("get %q = %.40q; want not found", key, got)
	}
}

// scan returns the entries of [lower, upper) as "key=value".
func scan(t testing.TB, e storage.Engine, lower, upper string) []string {
	t.Helper()
	var out []string
	err := e.Scan([]byte(lower), []byte(upper), func(k, v []byte) bool {
		out = append(out, fmt.Sprintf("%s=%s", k, v))
		return true
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return out
}

// ledger records the calls of done functions.
type ledger struct {
	mu    sync.Mutex
	ids   []int
	errs  []error
	count sync.WaitGroup
}

// expect returns the done function of commit id.
func (l *ledger) expect(id int) func(error) {
	l.count.Add(1)
	return func(err error) {
		l.mu.Lock()
		l.ids = append(l.ids, id)
		l.errs = append(l.errs, err)
		l.mu.Unlock()
		l.count.Done()
	}
}

// wait waits for every done expected so far and returns the ids in the order of
// the calls. Any error fails the test.
func (l *ledger) wait(t testing.TB) []int {
	t.Helper()
	l.count.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, err := range l.errs {
		if err != nil {
			t.Fatalf("done of commit %d: %v", l.ids[i], err)
		}
	}
	return l.ids
}

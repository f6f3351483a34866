package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dynactor/dynactor/storage"
)

// durabilities returns one or the other by turns, in no simple pattern.
func durability(i int) storage.Durability {
	if i%3 == 1 {
		return storage.Applied
	}
	return storage.Synced
}

func testVisibleAtCommit(t *testing.T, e storage.Engine) {
	var l ledger
	for i := range 50 {
		key, value := fmt.Sprint("k", i%5), fmt.Sprint(i)
		if err := batchOf(e, set(key, value)).Commit(durability(i), l.expect(i)); err != nil {
			t.Fatal(err)
		}
		wantValue(t, e, key, value)
	}
	l.wait(t)
}

// testDoneOutsideCommit: the committer may hold a lock that done takes.
func testDoneOutsideCommit(t *testing.T, e storage.Engine) {
	var mu sync.Mutex
	for i := range 50 {
		called := make(chan struct{})
		mu.Lock()
		err := batchOf(e, set("k", "v")).Commit(durability(i), func(error) {
			mu.Lock()
			defer mu.Unlock()
			close(called)
		})
		if err != nil {
			t.Fatal(err)
		}
		mu.Unlock()
		<-called
	}
}

func testDoneInOrder(t *testing.T, e storage.Engine) {
	const n = 500
	var l ledger
	for i := range n {
		if err := batchOf(e, set("k", fmt.Sprint(i))).Commit(durability(i), l.expect(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range l.wait(t) {
		if i != id {
			t.Fatalf("done number %d was for commit %d", i, id)
		}
	}
}

func testDoneOnce(t *testing.T, e storage.Engine) {
	const n = 200
	var calls [n]atomic.Int32
	var l ledger
	for i := range n {
		done := l.expect(i)
		err := batchOf(e, set("k", "v")).Commit(durability(i), func(err error) {
			if calls[i].Add(1) == 1 {
				done(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	l.wait(t)
	if err := e.Close(); err != nil { // no done comes after Close
		t.Fatal(err)
	}
	for i := range calls {
		if got := calls[i].Load(); got != 1 {
			t.Errorf("done of commit %d was called %d times", i, got)
		}
	}
}

func testNilDone(t *testing.T, e storage.Engine) {
	for i := range 10 {
		if err := batchOf(e, set(fmt.Sprint(i), "v")).Commit(durability(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, e, set("last", "v"))
	if got := len(scan(t, e, "", "")); got != 11 {
		t.Fatalf("%d keys", got)
	}
}

// testManyInFlight: more commits than any engine's inner queue holds, none of
// which is done before the last was made, because the first done waits for that.
// Commit must not wait for it.
func testManyInFlight(t *testing.T, e storage.Engine) {
	const n = 10_000
	var l ledger
	all := make(chan struct{})
	first := l.expect(0)
	hold := func(err error) { <-all; first(err) }
	if err := batchOf(e, set("first", "")).Commit(storage.Synced, hold); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < n; i++ {
		if err := batchOf(e, set(fmt.Sprint(i%100), fmt.Sprint(i))).Commit(storage.Synced, l.expect(i)); err != nil {
			t.Fatal(err)
		}
	}
	// The first one is pending or in its done; the others all are pending.
	if got := e.Stats().Pending; got < n-1 || got > n {
		t.Errorf("pending = %d of %d", got, n)
	}
	close(all)
	for i, id := range l.wait(t) {
		if i != id {
			t.Fatalf("done number %d was for commit %d", i, id)
		}
	}
	if got := e.Stats().Pending; got != 0 {
		t.Errorf("pending = %d after the last done", got)
	}
}

func testConcurrent(t *testing.T, e storage.Engine) {
	const writers, each = 8, 60
	var l ledger
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("w%d/%d", w, i)
				b := batchOf(e, set(key, "v"), set(fmt.Sprintf("last/%d", w), fmt.Sprint(i)))
				if err := b.Commit(durability(i), l.expect(w*each+i)); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				wantErrorFree(t, e, key)
			}
		})
	}
	wg.Wait()
	next := make([]int, writers)
	for _, id := range l.wait(t) {
		w, i := id/each, id%each
		if i != next[w] {
			t.Fatalf("writer %d: done of commit %d came in place of %d", w, i, next[w])
		}
		next[w]++
	}
	if got := len(scan(t, e, "w", "x")); got != writers*each {
		t.Fatalf("%d keys, want %d", got, writers*each)
	}
	for w := range writers {
		wantValue(t, e, fmt.Sprintf("last/%d", w), fmt.Sprint(each-1))
	}
}

// wantErrorFree is wantValue for goroutines, which must not call Fatal.
func wantErrorFree(t *testing.T, e storage.Engine, key string) {
	if _, err := e.Get(nil, []byte(key)); err != nil {
		t.Errorf("get %q: %v", key, err)
	}
}

// testConcurrentBatchesAreAtomic: a scan sees all of a batch or nothing of it.
func testConcurrentBatchesAreAtomic(t *testing.T, e storage.Engine) {
	const keys, rounds = 20, 60
	stamp := func(v string) write {
		return func(b storage.Batch) {
			for i := range keys {
				b.Set(fmt.Appendf(nil, "k%02d", i), []byte(v))
			}
		}
	}
	commit(t, e, stamp("start"))
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range rounds {
				if err := batchOf(e, stamp(fmt.Sprint(w, "/", i))).Commit(durability(i), nil); err != nil {
					t.Errorf("commit: %v", err)
				}
			}
		})
	}
	for range rounds {
		values := map[string]int{}
		err := e.Scan(nil, nil, func(_, v []byte) bool { values[string(v)]++; return true })
		if err != nil {
			t.Fatal(err)
		}
		if len(values) != 1 {
			t.Fatalf("a scan saw a part of a batch: %v", values)
		}
	}
	wg.Wait()
}

func testCloseCallsDone(t *testing.T, e storage.Engine) {
	const n = 300
	var called atomic.Int32
	for i := range n {
		err := batchOf(e, set("k", "v")).Commit(durability(i), func(err error) {
			if err != nil {
				t.Errorf("done: %v", err)
			}
			called.Add(1)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if got := called.Load(); got != n {
		t.Fatalf("Close returned after %d of %d done", got, n)
	}
}

// testCloseRacesCommits: whatever the moment of Close, each commit either returns
// ErrClosed and is never heard of, or is done.
func testCloseRacesCommits(t *testing.T, e storage.Engine) {
	var accepted, done atomic.Int64
	var wg sync.WaitGroup
	half := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				if w == 0 && i == 30 {
					close(half)
				}
				b := batchOf(e, set(fmt.Sprint(w), fmt.Sprint(i)))
				err := b.Commit(durability(i), func(err error) {
					if err != nil {
						t.Errorf("done: %v", err)
					}
					done.Add(1)
				})
				if errors.Is(err, storage.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				accepted.Add(1)
			}
		})
	}
	<-half
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	after := done.Load()
	wg.Wait()
	if accepted.Load() != after || after != done.Load() {
		t.Fatalf("%d commits accepted, %d done at Close, %d in the end", accepted.Load(), after, done.Load())
	}
}

func testClosed(t *testing.T, e storage.Engine) {
	before := batchOf(e, set("a", "1"))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	after := batchOf(e, set("a", "1"), del("a"))
	never := func(error) { t.Error("done was called") }
	for name, err := range map[string]error{
		"get":           second(e.Get(nil, []byte("a"))),
		"scan":          e.Scan(nil, nil, func(_, _ []byte) bool { return true }),
		"commit before": before.Commit(storage.Synced, never),
		"commit after":  after.Commit(storage.Applied, never),
		"drop":          e.Drop([]byte("a"), []byte("b")),
		"close":         e.Close(),
	} {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
	e.NewBatch().Discard()
	if s := e.Stats(); s.Pending != 0 {
		t.Errorf("pending = %d", s.Pending)
	}
}

func second[A any](_ A, err error) error { return err }

func testStats(t *testing.T, e storage.Engine) {
	const n = 40
	var l ledger
	value := make([]byte, 1000)
	for i := range value {
		value[i] = byte(rand.Uint32())
	}
	before := e.Stats()
	for i := range n {
		if _, err := e.Get(nil, fmt.Append(nil, i)); !errors.Is(err, storage.ErrNotFound) {
			t.Fatal(err)
		}
		b := e.NewBatch()
		b.Set(fmt.Append(nil, i), value)
		if err := b.Commit(storage.Synced, l.expect(i)); err != nil {
			t.Fatal(err)
		}
	}
	l.wait(t)
	s := e.Stats()
	if s.Engine == "" || s.Commits != n || s.Pending != 0 || s.Failed != nil || s.Full {
		t.Errorf("stats = %+v", s)
	}
	if s.Syncs == 0 || s.Syncs > s.Commits+10 {
		t.Errorf("%d syncs for %d commits", s.Syncs, s.Commits)
	}
	for i, grown := range counted(s) {
		if was := counted(before)[i]; grown < was {
			t.Errorf("counter %d fell from %d to %d", i, was, grown)
		}
	}
	if s.Internals.LogWritten > 0 && s.Internals.LogWritten < n*1000 { // an engine that has a log
		t.Errorf("%d bytes were logged of %d that were committed", s.Internals.LogWritten, n*1000)
	}
	if s.MemoryBytes < n*1000 {
		t.Errorf("memory = %d bytes, with %d of values in it", s.MemoryBytes, n*1000)
	}
}

// counted are the figures that may only grow.
func counted(s storage.Stats) []uint64 {
	i := s.Internals
	return []uint64{
		s.Commits, s.Syncs, s.Corruptions, s.Records.Hits, s.Records.Misses, s.Blocks.Hits, s.Blocks.Misses,
		i.Compactions, i.CompactionsFailed, i.Flushes, i.CompactedBytes, i.FlushedBytes, i.LogWritten,
	}
}

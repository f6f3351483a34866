package cached_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/cached"
	"github.com/dynactor/dynactor/storage/faulty"
	"github.com/dynactor/dynactor/storage/memory"
	"github.com/dynactor/dynactor/storage/pebbledb"
	"github.com/dynactor/dynactor/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every promise of the contract holds with a cache before the engine: none,
// one that is always too small, one that holds everything.
func TestEngine(t *testing.T) {
	for _, size := range []int64{0, 64 << 10, 64 << 20} {
		t.Run(fmt.Sprintf("memory/%d", size), func(t *testing.T) {
			storagetest.Run(t, func(*testing.T) storage.Engine { return cached.New(memory.New(), size) })
		})
	}
	t.Run("pebble", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Engine {
			o := pebbledb.Default()
			o.FS = vfs.NewMem()
			e, err := pebbledb.Open("store", o)
			if err != nil {
				t.Fatal(err)
			}
			return cached.New(e, 1<<20)
		})
	})
}

// steps is an engine that counts reads and runs hooks inside its calls.
type steps struct {
	storage.Engine
	gets   atomic.Int64
	onGet  func() // after the value was read, before it is returned
	before func() // before a commit is applied
	after  func() // after it is applied, before Commit returns
}

func (s *steps) Get(dst, key []byte) ([]byte, error) {
	s.gets.Add(1)
	out, err := s.Engine.Get(dst, key)
	call(&s.onGet)
	return out, err
}

func (s *steps) NewBatch() storage.Batch { return &stepBatch{s.Engine.NewBatch(), s} }

type stepBatch struct {
	storage.Batch
	s *steps
}

func (b *stepBatch) Commit(d storage.Durability, done func(error)) error {
	call(&b.s.before)
	err := b.Batch.Commit(d, done)
	call(&b.s.after)
	return err
}

// call runs a hook once, so that what the hook does is not hooked.
func call(hook *func()) {
	if f := *hook; f != nil {
		*hook = nil
		f()
	}
}

// fixture is a cache of ample size before an engine with hooks.
type fixture struct {
	*testing.T
	inner *steps
	cache *cached.Engine
}

func newFixture(t *testing.T) *fixture {
	inner := &steps{Engine: memory.New()}
	f := &fixture{T: t, inner: inner, cache: cached.New(inner, 1<<20)}
	t.Cleanup(func() {
		if err := f.cache.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) set(key, value string) {
	f.Helper()
	f.commit(func(b storage.Batch) { b.Set([]byte(key), []byte(value)) })
}

func (f *fixture) commit(fill func(storage.Batch)) {
	f.Helper()
	b := f.cache.NewBatch()
	fill(b)
	if err := b.Commit(storage.Applied, nil); err != nil {
		f.Fatal(err)
	}
}

// want checks what a read gives, "" for nothing, and what Peek says: it may
// know nothing but never anything else.
func (f *fixture) want(key, value string) {
	f.Helper()
	for range 2 { // the second time from the cache, if it was filled
		got, err := f.cache.Get(nil, []byte(key))
		if errors.Is(err, storage.ErrNotFound) == (value != "") || string(got) != value {
			f.Fatalf("%s is %q, %v, want %q", key, got, err, value)
		}
		if p, ok := f.cache.Peek([]byte(key)); ok && string(p) != value {
			f.Fatalf("peek of %s is %q, want %q", key, p, value)
		}
	}
}

// wantInner checks that a read gives what the engine inside has.
func (f *fixture) wantInner(key string) {
	f.Helper()
	v, err := f.inner.Engine.Get(nil, []byte(key))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		f.Fatal(err)
	}
	f.want(key, string(v))
}

// reads checks how many reads of the engine inside something takes.
func (f *fixture) reads(n int64, what func()) {
	f.Helper()
	before := f.inner.gets.Load()
	what()
	if got := f.inner.gets.Load() - before; got != n {
		f.Errorf("%d reads inside, want %d", got, n)
	}
}

func TestHits(t *testing.T) {
	f := newFixture(t)
	f.set("k", "1")
	f.reads(0, func() { f.want("k", "1") }) // a write fills
	b := f.inner.Engine.NewBatch()
	b.Set([]byte("old"), []byte("x"))
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.cache.Peek([]byte("old")); ok {
		t.Error("peek found what was never read")
	}
	f.reads(1, func() { f.want("old", "x") }) // a read fills
	if v, ok := f.cache.Peek([]byte("old")); !ok || string(v) != "x" {
		t.Errorf("peek gave %q, %v", v, ok)
	}
	f.commit(func(b storage.Batch) { b.Delete([]byte("k")) })
	f.want("k", "")
	f.commit(func(b storage.Batch) { b.Set([]byte("k"), []byte("1")); b.Set([]byte("k"), []byte("2")) })
	f.want("k", "2")
}

// A read that looked into the engine before a commit and returns after it may
// give the old value, but must not leave it in the cache.
func TestReadOvertakenByWrite(t *testing.T) {
	for name, write := range map[string]func(storage.Batch){
		"set":    func(b storage.Batch) { b.Set([]byte("k"), []byte("new")) },
		"delete": func(b storage.Batch) { b.Delete([]byte("k")) },
		"range":  func(b storage.Batch) { b.DeleteRange([]byte("a"), []byte("z")) },
		"range and set": func(b storage.Batch) {
			b.DeleteRange([]byte("a"), []byte("z"))
			b.Set([]byte("k"), []byte("new"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.set("k", "old")
			f.commit(func(b storage.Batch) { b.DeleteRange([]byte("x"), []byte("y")) }) // empties the cache
			f.inner.onGet = func() { f.commit(write) }
			if v, err := f.cache.Get(nil, []byte("k")); err != nil || string(v) != "old" {
				t.Fatalf("%q, %v", v, err)
			}
			f.wantInner("k")
		})
	}
}

// Reads inside a commit, before and after it is applied, leave nothing wrong.
func TestReadDuringWrite(t *testing.T) {
	f := newFixture(t)
	f.set("k", "old")
	f.inner.before = func() { f.want("k", "old") }
	f.inner.after = func() { f.want("k", "new") }
	f.set("k", "new")
	f.want("k", "new")
}

// Of commits that overlap, the cache cannot know which is last.
func TestOverlappingWrites(t *testing.T) {
	for name, other := range map[string]func(storage.Batch){
		"set":   func(b storage.Batch) { b.Set([]byte("k"), []byte("other")) },
		"range": func(b storage.Batch) { b.DeleteRange([]byte("a"), []byte("z")) },
	} {
		one := func(b storage.Batch) { b.Set([]byte("k"), []byte("one")) }
		for _, outer := range []bool{true, false} {
			for _, before := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, inside=%v, before=%v", name, outer, before), func(t *testing.T) {
					f := newFixture(t)
					first, second := one, other
					if !outer {
						first, second = other, one
					}
					hook := func() { f.commit(second) }
					if before {
						f.inner.before = hook
					} else {
						f.inner.after = hook
					}
					f.commit(first)
					f.wantInner("k")
				})
			}
		}
	}
}

// A commit that fails changes nothing that reads see.
func TestFailedCommit(t *testing.T) {
	inner := faulty.New(memory.New())
	cache := cached.New(inner, 1<<20)
	defer cache.Close()
	f := &fixture{T: t, inner: &steps{Engine: inner}, cache: cache}
	f.set("k", "old")
	inner.FailCommits(storage.ErrFull)
	b := cache.NewBatch()
	b.Set([]byte("k"), []byte("new"))
	if err := b.Commit(storage.Applied, nil); !errors.Is(err, storage.ErrFull) {
		t.Fatal(err)
	}
	f.want("k", "old")
	inner.Heal()
	f.set("k", "new")
	f.want("k", "new")
}

// A read that fails is not remembered.
func TestFailedRead(t *testing.T) {
	inner := faulty.New(memory.New())
	cache := cached.New(inner, 1<<20)
	defer cache.Close()
	f := &fixture{T: t, inner: &steps{Engine: inner}, cache: cache}
	f.set("k", "1")
	f.commit(func(b storage.Batch) { b.DeleteRange([]byte("x"), []byte("y")) })
	broken := errors.New("broken")
	inner.FailReads(broken)
	if _, err := cache.Get(nil, []byte("k")); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	inner.Heal()
	f.want("k", "1")
	if _, ok := cache.Peek([]byte("k")); !ok {
		t.Error("the failed read blocks the key for ever")
	}
}

// The cache stays within its size, and one large value does not push out the
// small ones.
func TestBounds(t *testing.T) {
	const size = 1 << 20
	f := newFixture(t)
	f.set("small", "1")
	f.commit(func(b storage.Batch) { b.Set([]byte("large"), make([]byte, size/2)) })
	if _, ok := f.cache.Peek([]byte("large")); ok {
		t.Error("the large value was kept")
	}
	f.reads(0, func() { f.want("small", "1") })
	before := f.inner.Stats().MemoryBytes
	for i := range 20_000 {
		f.set("key"+strconv.Itoa(i), "0123456789012345678901234567890123456789")
	}
	held := f.cache.Stats().MemoryBytes - f.inner.Stats().MemoryBytes
	if held > size || held < size/2 {
		t.Errorf("the cache holds %d bytes of %d, the engine had %d", held, size, before)
	}
}

// One writer a key counts up; what any reader sees never goes back.
func TestNeverBack(t *testing.T) {
	f := newFixture(t)
	const keys, rounds = 4, 3000
	var wg sync.WaitGroup
	var done atomic.Bool
	for k := range keys {
		key := []byte{'k', byte('0' + k)}
		f.set(string(key), "0")
		var least atomic.Int64 // what a read must at least see
		wg.Go(func() {
			for i := 1; i <= rounds; i++ {
				f.set(string(key), strconv.Itoa(i))
				least.Store(int64(i))
				if i%100 == 0 {
					f.commit(func(b storage.Batch) { b.DeleteRange([]byte("x"), []byte("y")) })
				}
			}
			done.Store(true)
		})
		for range 2 {
			wg.Go(func() {
				for !done.Load() {
					min := least.Load()
					v, err := f.cache.Get(nil, key)
					got, _ := strconv.ParseInt(string(v), 10, 64)
					if err != nil || got < min {
						t.Errorf("%s is %q, %v after %d", key, v, err, min)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestFigures: what the cache had, and what it had not.
func TestFigures(t *testing.T) {
	e := cached.New(memory.New(), 1<<20)
	defer e.Close()
	b := e.NewBatch()
	b.Set([]byte("k"), []byte("v"))
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := e.Get(nil, []byte("k")); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := e.Peek([]byte("k")); !ok {
		t.Fatal("the value is not kept")
	}
	if _, ok := e.Peek([]byte("none")); ok {
		t.Fatal("there is none")
	}
	if _, err := e.Get(nil, []byte("none")); !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
	if got, want := e.Stats().Records, (storage.Cache{Hits: 4, Misses: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

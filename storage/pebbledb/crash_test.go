package pebbledb

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/dynactor/dynactor/storage"
)

// crashSeeds is how many histories a crash test plays; DYNACTOR_CRASH_SEEDS asks
// for a long run, DYNACTOR_CRASH_SEED for one seed alone.
func crashSeeds(t *testing.T, normal int) []uint64 {
	t.Helper()
	number := func(name string) (uint64, bool) {
		s := os.Getenv(name)
		if s == "" {
			return 0, false
		}
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n, true
	}
	if seed, ok := number("DYNACTOR_CRASH_SEED"); ok {
		return []uint64{seed}
	}
	if n, ok := number("DYNACTOR_CRASH_SEEDS"); ok {
		normal = int(n)
	}
	seeds := make([]uint64, normal)
	for i := range seeds {
		seeds[i] = uint64(i)
	}
	return seeds
}

const seqKey = "seq" // every batch writes its number here, so it says what is there

// history is a run of random batches by one writer. Batch n is known again after a
// crash by seqKey, and its effects follow from the seed.
type history struct {
	seed      uint64
	batches   [][]edit
	drops     map[int]edit // ranges that are dropped before a batch, by its number
	submitted atomic.Int64 // batches given to Commit, the current one included
	acked     atomic.Int64 // of these, done(nil) with Synced: number of the last
	dropsDone atomic.Int64 // the last drop that has returned came before this batch
}

// edit is one write: a set, a delete (no value) or a range delete (upper set).
type edit struct{ key, value, upper string }

// newHistory draws the batches. Values are large enough to rotate logs and to
// span blocks of a log.
func newHistory(seed uint64, n int) *history {
	rng := rand.New(rand.NewPCG(seed, 7))
	h := &history{seed: seed}
	key := func() string { return fmt.Sprintf("k%02d", rng.IntN(40)) }
	for i := range n {
		edits := []edit{{key: seqKey, value: strconv.Itoa(i + 1)}}
		for range 1 + rng.IntN(5) {
			switch rng.IntN(8) {
			case 0:
				edits = append(edits, edit{key: key()})
			case 1:
				edits = append(edits, edit{key: key(), upper: key()})
			default:
				size := rng.IntN(200)
				if rng.IntN(6) == 0 {
					size = rng.IntN(20_000)
				}
				value := make([]byte, size+1)
				for j := range value {
					value[j] = byte('a' + rng.IntN(26))
				}
				edits = append(edits, edit{key: key(), value: string(value)})
			}
		}
		h.batches = append(h.batches, edits)
	}
	return h
}

// withDrops drops a range before one in eight batches.
func (h *history) withDrops() *history {
	rng := rand.New(rand.NewPCG(h.seed, 17))
	h.drops = map[int]edit{}
	for n := range h.batches {
		if rng.IntN(8) == 0 {
			from := rng.IntN(40)
			h.drops[n+1] = edit{key: fmt.Sprintf("k%02d", from), upper: fmt.Sprintf("k%02d", from+1+rng.IntN(10))}
		}
	}
	return h
}

// dropped is what is left of a state by the drop before batch n.
func (h *history) dropped(m map[string]string, n int) map[string]string {
	if ed, ok := h.drops[n]; ok {
		m = maps.Clone(m)
		maps.DeleteFunc(m, func(k, _ string) bool { return ed.key <= k && k < ed.upper })
	}
	return m
}

// state returns what the store holds after the first n batches.
func (h *history) state(n int) map[string]string {
	m := map[string]string{}
	for i, batch := range h.batches[:n] {
		m = h.dropped(m, i+1)
		for _, ed := range batch {
			switch {
			case ed.upper != "":
				maps.DeleteFunc(m, func(k, _ string) bool { return ed.key <= k && k < ed.upper })
			case ed.value == "":
				delete(m, ed.key)
			default:
				m[ed.key] = ed.value
			}
		}
	}
	return m
}

// commit gives batch n (from 1) to the engine. One in five need not be durable; one
// in three is waited for, so that there are both small and large groups.
func (h *history) commit(e storage.Engine, n int) error {
	if ed, ok := h.drops[n]; ok {
		if err := e.Drop([]byte(ed.key), []byte(ed.upper)); err != nil {
			return err
		}
		h.acked.Store(int64(n - 1)) // it is durable, and so is all before it
		h.dropsDone.Store(int64(n))
	}
	b := e.NewBatch()
	for _, ed := range h.batches[n-1] {
		switch {
		case ed.upper != "":
			b.DeleteRange([]byte(ed.key), []byte(ed.upper))
		case ed.value == "":
			b.Delete([]byte(ed.key))
		default:
			b.Set([]byte(ed.key), []byte(ed.value))
		}
	}
	h.submitted.Store(int64(n))
	d := storage.Synced
	if n%5 == 0 {
		d = storage.Applied
	}
	done := make(chan struct{})
	err := b.Commit(d, func(err error) {
		if err == nil && d == storage.Synced {
			h.acked.Store(int64(n)) // in order, so the last is the highest
		}
		close(done)
	})
	if err == nil && n%3 == 0 {
		<-done
	}
	return err
}

// contents reads the whole store.
func contents(e storage.Engine) (map[string]string, error) {
	m := map[string]string{}
	err := e.Scan(nil, nil, func(k, v []byte) bool { m[string(k)] = string(v); return true })
	return m, err
}

// check compares the store with the history: it must hold the first m batches,
// whole, for an m from acked to submitted, and what is dropped before batch dropped is gone.
// What is dropped before the next batch may be. It returns m.
func (h *history) check(e storage.Engine, acked, submitted, dropped int64) (int64, error) {
	got, err := contents(e)
	if err != nil {
		return 0, err
	}
	var m int64
	if s, ok := got[seqKey]; ok {
		if m, err = strconv.ParseInt(s, 10, 64); err != nil {
			return 0, err
		}
	}
	if m < acked || m > submitted {
		return m, fmt.Errorf("holds %d batches; %d were durable and %d submitted", m, acked, submitted)
	}
	want := h.state(int(m))
	if maps.Equal(got, want) && dropped <= m || maps.Equal(got, h.dropped(want, int(m)+1)) {
		return m, nil
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			return m, fmt.Errorf("after %d batches %q is %.30q, want %.30q", m, k, got[k], want[k])
		}
	}
	return m, fmt.Errorf("after %d batches %d keys, want %d", m, len(got), len(want))
}

// crashOptions reach log rotation, flush and compaction within a short history.
func crashOptions(fs vfs.FS) Options {
	o := small(fs)
	o.MemTableBytes = minMemTableBytes
	return o
}

// crash is the state of the disk at one moment and what was promised by then.
type crash struct {
	fs               *vfs.MemFS
	acked, submitted int64
	dropped          int64
	op               string
}

// crasher takes crashes off a file system, one every `every` operations.
type crasher struct {
	fs      *vfs.MemFS
	h       *history
	percent int
	every   int

	mu      sync.Mutex
	rng     *rand.Rand
	count   int
	crashes []crash
}

// MaybeError implements errorfs.Injector; it only watches.
func (c *crasher) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count++; c.count%c.every == 0 {
		c.take(fmt.Sprintf("%d (kind %d, %s)", c.count, op.Kind, op.Path))
	}
	return nil
}

// String implements errorfs.Injector.
func (c *crasher) String() string { return "crasher" }

// take crashes now. What was acknowledged is read before the disk, what was
// submitted after it, so both bounds hold.
func (c *crasher) take(op string) {
	acked, dropped := c.h.acked.Load(), c.h.dropsDone.Load()
	clone := c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.percent, RNG: c.rng})
	c.crashes = append(c.crashes, crash{clone, acked, c.h.submitted.Load(), dropped, op})
}

func newCrasher(h *history, percent, every int) *crasher {
	return &crasher{
		fs: vfs.NewCrashableMem(), h: h, percent: percent, every: every,
		rng: rand.New(rand.NewPCG(h.seed, 11)),
	}
}

func (c *crasher) watched() vfs.FS { return errorfs.Wrap(c.fs, c) }

// TestCrash crashes the disk at many of its operations, from the first of a fresh
// store to the last of Close, and opens what is left, with a further crash on the
// way. Whatever was reported as durable is there, each batch whole, and what is
// there is a beginning of the history.
func TestCrash(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		t.Run(fmt.Sprint("unsynced=", percent), func(t *testing.T) {
			t.Parallel()
			for _, seed := range crashSeeds(t, 4) {
				playCrashes(t, seed, percent)
			}
		})
	}
}

func playCrashes(t *testing.T, seed uint64, percent int) {
	h := newHistory(seed, 120).withDrops()
	// The first operations one by one, later ones at a stride.
	every := 7
	if seed%2 == 0 {
		every = 3 + int(seed%8)
	}
	c := newCrasher(h, percent, every)
	o := crashOptions(c.watched())
	// Batches with a sync of their own, without, and a mixture.
	o.maxSyncing = []int64{maxSyncing, -1, 1}[seed%3]
	e := open(t, "db", o)
	for n := range len(h.batches) {
		if err := h.commit(e, n+1); err != nil {
			t.Fatalf("seed %d: commit: %v", seed, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatalf("seed %d: close: %v", seed, err)
	}
	c.take("after close")
	last := c.crashes[len(c.crashes)-1]
	last.acked = last.submitted // Close makes everything durable
	c.crashes[len(c.crashes)-1] = last
	if len(c.crashes) < 15 {
		t.Fatalf("seed %d: only %d crashes", seed, len(c.crashes))
	}
	// All crashes of a history would take long; a random part of them, and the
	// first and the last.
	c.rng.Shuffle(len(c.crashes)-2, func(i, j int) {
		c.crashes[i+1], c.crashes[j+1] = c.crashes[j+1], c.crashes[i+1]
	})
	for i, at := range c.crashes {
		if i > 12 && i < len(c.crashes)-1 {
			continue
		}
		if err := reopenAfter(h, at, percent, c.rng); err != nil {
			t.Fatalf("seed %d, unsynced %d%%, crash at op %s: %v", seed, percent, at.op, err)
		}
	}
}

// reopenAfter opens a crashed store, crashing again at a random operation of Open,
// opens what that left, and writes to it.
func reopenAfter(h *history, at crash, percent int, rng *rand.Rand) error {
	promise := &history{seed: h.seed, batches: h.batches, drops: h.drops}
	promise.acked.Store(at.acked)
	promise.dropsDone.Store(at.dropped)
	promise.submitted.Store(at.submitted)
	c := &crasher{fs: at.fs, h: promise, percent: percent, every: 1 + rng.IntN(12), rng: rng}
	if err := reopen(c.watched(), promise, at); err != nil {
		return err
	}
	if len(c.crashes) == 0 {
		return nil
	}
	again := c.crashes[rng.IntN(len(c.crashes))]
	if err := reopen(again.fs, h, again); err != nil {
		return fmt.Errorf("crash again at op %s: %w", again.op, err)
	}
	return nil
}

// reopen opens the store, checks it, and goes on with the history from there. It
// closes and opens once more to see that this was durable too.
func reopen(fs vfs.FS, h *history, at crash) error {
	e, err := Open("db", crashOptions(fs))
	if err != nil {
		return err
	}
	m, err := h.check(e, at.acked, at.submitted, at.dropped)
	if err != nil {
		return errors.Join(err, e.Close())
	}
	end := min(m+3, int64(len(h.batches)))
	for n := m + 1; n <= end; n++ {
		if err := h.commit(e, int(n)); err != nil {
			return errors.Join(err, e.Close())
		}
	}
	if err := e.Close(); err != nil {
		return err
	}
	e, err = Open("db", crashOptions(fs))
	if err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	_, err = h.check(e, end, end, at.dropped)
	return errors.Join(err, e.Close())
}

// TestRestarts crashes a store over and over, at each start after a few batches:
// the first writes after a fresh start, and logs that are replayed again and again.
func TestRestarts(t *testing.T) {
	for _, seed := range crashSeeds(t, 4) {
		rng := rand.New(rand.NewPCG(seed, 13))
		h := newHistory(seed, 60)
		fs := vfs.NewCrashableMem()
		var acked int64
		for start := 0; ; start++ {
			e := open(t, "db", crashOptions(fs))
			m, err := h.check(e, acked, h.submitted.Load(), 0)
			if err != nil {
				t.Fatalf("seed %d, start %d: %v", seed, start, err)
			}
			end := min(m+int64(rng.IntN(4)), int64(len(h.batches)))
			for n := m + 1; n <= end; n++ {
				if err := h.commit(e, int(n)); err != nil {
					t.Fatal(err)
				}
			}
			acked = max(acked, h.acked.Load())
			if rng.IntN(2) == 0 {
				acked = end
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
			}
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
			if err := e.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
				t.Fatal(err)
			}
			fs = crashed
			h.acked.Store(acked) // Close reported more, after the crash
			if end == int64(len(h.batches)) {
				break
			}
		}
	}
}

package actors

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// busyPace has trees looked after all the time, quietPace only when there is something
// to do.
var (
	busyPace  = upkeepPace{tick: time.Millisecond, sample: time.Millisecond, checkpoint: 3 * time.Millisecond}
	quietPace = upkeepPace{tick: time.Millisecond, sample: time.Hour, checkpoint: time.Hour}
)

func paced(p upkeepPace) func(*Config) { return func(c *Config) { c.pace = p } }

// treeOf is the tree of what a store holds of partition 0, of one, and n = 3.
func treeOf(t testing.TB, e storage.Engine) *hashtree.Tree {
	t.Helper()
	tree := hashtree.New(1, 0)
	tree.DoubtAll()
	for p, ok := tree.Work(); ok; p, ok = tree.Work() {
		check := tree.Check(p)
		first, last := tree.Range(p)
		lower, upper := vnode.PositionRange(0, 3, first, last)
		var entries []hashtree.Entry
		err := e.Scan(lower, upper, func(key, value []byte) bool {
			stored, err := vnode.DecodeStored(key, value)
			if err == nil && !stored.Record.IsZero() {
				entries = append(entries, hashtree.Entry{Position: vnode.ObjectPosition(key), Hash: hashUnder(key, stored.Record)})
			}
			return true
		})
		if err == nil {
			_, err = tree.Mend(check, entries)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// root waits until the tree of partition 0 and n = 3 is settled.
func (r *rig) root() hashtree.Hash {
	r.t.Helper()
	var out hashtree.Hash
	actortest.Eventually(r.t, "the tree is settled", func() bool {
		p := actortest.NewProbe(r.system)
		p.Ask(r.pid(), &messages.ExchangeRequest{N: 3, Plan: r.s.Document().Version, Question: &messages.ExchangeRequest_Root{Root: &messages.TreeRoot{}}})
		reply, ok := actortest.Next[any](r.t, p).(*messages.ExchangeReply)
		if ok {
			out = hashtree.Hash(reply.GetRoot())
		}
		return ok
	})
	return out
}

// loadSaved is the tree that a clean stop has left, of n = 3, whole and in parts of one width.
func loadSaved(t testing.TB, e storage.Engine, partitions int, p dynamo.Partition) *hashtree.Tree {
	t.Helper()
	var parts [][]byte
	widths := map[byte]bool{}
	lower, upper := vnode.TreeRange(p, 3)
	if err := e.Scan(lower, upper, func(key, value []byte) bool {
		parts, widths[key[len(lower)]] = append(parts, bytes.Clone(value)), true
		return true
	}); err != nil {
		t.Fatal(err)
	}
	saved, err := hashtree.Load(partitions, p, parts)
	if err != nil || !saved.Settled() || len(widths) != 1 {
		t.Fatalf("of %d parts, of %d widths, a tree: settled=%v, %v", len(parts), len(widths), saved.Settled(), err)
	}
	return saved
}

// checkSaved compares the checkpoint that a clean stop has left with the store.
func checkSaved(t testing.TB, e storage.Engine) {
	t.Helper()
	saved := loadSaved(t, e, 1, 0)
	want := treeOf(t, e)
	for i := range uint32(1) << min(saved.Bits(), want.Bits()) {
		p := hashtree.Prefix{Bits: min(saved.Bits(), want.Bits()), Index: i}
		if got, want := saved.Node(p), want.Node(p); got != want {
			t.Fatalf("%v is %v in the checkpoint and %v in the store", p, got, want)
		}
	}
	lower, upper := vnode.MarkRange(0, 3)
	if err := e.Scan(lower, upper, func(key, _ []byte) bool { t.Errorf("a mark is left: %x", key); return false }); err != nil {
		t.Fatal(err)
	}
}

// TestTreeIsTheStore: whatever is written, fails and crashes, at any point, the tree is
// that of what the store holds, and so is the index of what can be reaped; and no sample
// ever finds the tree wrong.
func TestTreeIsTheStore(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			disk := diskOf(t)
			for range 4 { // lives
				crashes := live(t, disk, rnd)
				for _, c := range crashes {
					settle(t, c)
				}
				settle(t, disk)
				if rnd.IntN(2) == 0 {
					disk = crashes[rnd.IntN(len(crashes))]
				}
			}
		})
	}
}

// live runs a node for a while, and returns what crashes at some points would have left.
func live(t *testing.T, disk storage.Engine, rnd *rand.Rand) (crashes []*memory.Engine) {
	r := start(t, setup{engine: keep{disk}, change: paced(busyPace)})
	defer r.stop()
	before := r.written("poisoned", "one", none)
	writing := sync.WaitGroup{}
	for w := range 3 {
		mine := rand.New(rand.NewPCG(rnd.Uint64(), 2))
		writing.Go(func() {
			p := actortest.NewProbe(r.system)
			for i := range 200 {
				name := fmt.Sprintf("k%d", mine.IntN(600))
				switch mine.IntN(40) {
				case 0, 1, 2, 3:
					p.Ask(r.pid(), replicateOf(0, name, elsewhere(t, byte(9+w), name), mine.IntN(2) == 0))
				case 4:
					if mine.IntN(6) > 0 {
						continue // more often, and the vnode is given up
					}
					p.Ask(r.pid(), replicateOf(0, "poisoned", poison(before.Stored.Record), true))
				case 5:
					r.engine.FailCommitsAfter(2, storage.ErrFull)
				case 6, 7, 8:
					p.Ask(r.pid(), replicateOf(0, name, deleted(t, name), mine.IntN(2) == 0))
				case 9:
					p.Ask(r.pid(), &messages.ReapDropRequest{N: 3, Keys: []*messages.ReapKey{reapKeyOf(name, deleted(t, name).CausalHash(), 0)}})
				default:
					r.write(p, name, fmt.Sprint(i), none, true)
				}
				if mine.IntN(20) == 0 {
					r.engine.Heal()
					own := actortest.NewProbe(r.system)
					r.write(own, name, "after all that came before", none, true)
					actortest.Next[any](t, own)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	for range 3 {
		at := r.engine.Stats().Commits + uint64(rnd.IntN(40))
		actortest.Eventually(t, "more is written, or all", func() bool {
			select {
			case <-done:
				return true
			default:
				return r.engine.Stats().Commits >= at
			}
		})
		crashes = append(crashes, copied(t, disk))
	}
	<-done
	r.engine.Heal()
	if n := r.node.Counters().TreeWrong.Load(); n > 0 {
		t.Errorf("samples found %d leaves wrong", n)
	}
	return crashes
}

// settle starts a node on what was left, waits for its tree, and looks at what it says.
func settle(t *testing.T, disk storage.Engine) {
	t.Helper()
	r := start(t, setup{engine: keep{disk}, change: paced(quietPace)})
	if got, want := r.root(), treeOf(t, disk).Root().Hash; got != want {
		t.Errorf("root %x, of the store it is %x", got, want)
	}
	r.stop()
	checkSaved(t, disk)
	indexed(t, disk)
}

// TestTreeAfterRestart: a clean stop leaves nothing to be read; a crash what was written
// since the checkpoint.
func TestTreeAfterRestart(t *testing.T) {
	t.Parallel()
	const keys = 3000
	disk := diskOf(t)
	for i := range keys {
		put(t, disk, 0, fmt.Sprint("k", i), elsewhere(t, 9, "v"))
	}
	read := func(e storage.Engine, want func(entries uint64) bool, what string) *rig {
		t.Helper()
		r := start(t, setup{engine: keep{e}, change: paced(quietPace)})
		if got, want := r.root(), treeOf(t, e).Root().Hash; got != want {
			t.Errorf("%s: root %x, of the store it is %x", what, got, want)
		}
		if n := r.node.Counters().TreeEntries.Load(); !want(n) {
			t.Errorf("%s: %d entries were read of %d", what, n, keys)
		}
		return r
	}
	r := read(disk, func(n uint64) bool { return n >= keys }, "without a checkpoint")
	actortest.Eventually(t, "the tree has grown", func() bool { return r.node.Counters().TreeEntries.Load() >= 2*keys })
	r.stop()
	r = read(disk, func(n uint64) bool { return n == 0 }, "after a clean stop")
	r.written("k7", "another", none)
	crashed := copied(t, disk)
	r.stop()
	read(crashed, func(n uint64) bool { return n > 0 && n < keys/20 }, "after a crash").stop()
	checkSaved(t, crashed)

	b := disk.NewBatch()
	lower, upper := vnode.TreeRange(0, 3)
	b.DeleteRange(lower, upper)
	b.Set(vnode.TreeKey(0, 3, 0, 0), []byte("not a checkpoint"))
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	read(disk, func(n uint64) bool { return n >= keys }, "with a damaged checkpoint")
}

// TestTreeIsSampled: what changes behind the vnode's back is found, counted and mended;
// also a value that fails its checksum, which counts as none.
func TestTreeIsSampled(t *testing.T) {
	t.Parallel()
	r := start(t, setup{change: paced(busyPace)})
	for i := range 50 {
		r.written(fmt.Sprint("k", i), "v", none)
	}
	r.root()
	if n := r.node.Counters().TreeWrong.Load(); n > 0 {
		t.Fatalf("%d leaves wrong before anything is", n)
	}
	b := r.engine.NewBatch()
	b.Delete(object(0, "k1"))
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	r.damage(object(0, "k2"))
	want := treeOf(t, r.engine).Root()
	if want.Count != 48 {
		t.Fatalf("%d entries are left", want.Count)
	}
	actortest.Eventually(t, "the tree is mended", func() bool { return r.root() == want.Hash })
	if n := r.node.Counters().TreeWrong.Load(); n < 1 || n > 2 {
		t.Errorf("%d leaves were found wrong", n)
	}
}

// TestDamagedIsMissing: a value that a read, or a write, finds damaged is none in the tree.
func TestDamagedIsMissing(t *testing.T) {
	t.Parallel()
	r := start(t, setup{change: paced(quietPace)})
	r.written("k", "v", none)
	r.written("l", "v", none)
	r.damage(object(0, "k"))
	r.damage(object(0, "l"))
	r.read("k")
	want := func(count uint32) {
		t.Helper()
		actortest.Eventually(t, "the tree is that of the store", func() bool { return r.root() == treeOf(t, r.engine).Root().Hash })
		if got := treeOf(t, r.engine).Root().Count; got != count {
			t.Errorf("%d entries, want %d", got, count)
		}
	}
	r.written("l", "again", none)
	want(1)
	r.written("k", "again", none)
	want(2)
	if n := r.node.Counters().TreeWrong.Load(); n > 0 {
		t.Errorf("%d leaves counted as wrong", n)
	}
}

// TestTreeOfFailedCommit: what was not applied is not in the tree, and what is written
// after it is.
func TestTreeOfFailedCommit(t *testing.T) {
	t.Parallel()
	disk := diskOf(t)
	r := start(t, setup{engine: keep{disk}, change: paced(quietPace)})
	r.written("k", "one", none)
	r.engine.FailCommits(storage.ErrFull)
	r.write(r.probe, "k", "two", none, true)
	r.write(r.probe, "l", "two", none, true)
	actortest.Next[*messages.Failure](t, r.probe)
	r.engine.Heal()
	r.ready()
	if got, want := r.root(), treeOf(t, disk).Root(); got != want.Hash || want.Count != 1 {
		t.Errorf("root %x, of the store it is %v", got, want)
	}
	r.written("l", "three", none)
	if got, want := r.root(), treeOf(t, disk).Root(); got != want.Hash || want.Count != 2 {
		t.Errorf("root %x, of the store it is %v", got, want)
	}
	r.stop()
	checkSaved(t, disk)
}

// TestTreeOfUnreadableStore: while a range in doubt cannot be read, the tree is compared
// with nobody; it is read again, and then is.
func TestTreeOfUnreadableStore(t *testing.T) {
	t.Parallel()
	r := start(t, setup{change: paced(quietPace)})
	r.written("k", "v", none)
	before := r.root()
	r.engine.FailReads(errors.New("bad sector"))
	r.system.Root.Send(r.pid(), &doubted{key: object(0, "k")})
	for range 20 {
		p := actortest.NewProbe(r.system)
		p.Ask(r.pid(), &messages.ExchangeRequest{N: 3, Plan: 1, Question: &messages.ExchangeRequest_Root{Root: &messages.TreeRoot{}}})
		if f := actortest.Next[*messages.Failure](t, p); f.GetCode() != messages.CodeNotReady {
			t.Fatalf("answered %v", f)
		}
	}
	r.engine.Heal()
	if got := r.root(); got != before {
		t.Errorf("root %x, it was %x", got, before)
	}
}

// TestDamagedIsMissingAfterCrash: what was found damaged is missing also after a crash: the
// checkpoint of before does not bring it back.
func TestDamagedIsMissingAfterCrash(t *testing.T) {
	t.Parallel()
	disk := diskOf(t)
	r := start(t, setup{engine: keep{disk}, change: paced(quietPace)})
	r.written("k", "v", none)
	r.written("l", "v", none)
	r.stop() // a checkpoint, no marks
	r = start(t, setup{engine: keep{disk}, change: paced(quietPace)})
	r.damage(object(0, "k"))
	r.read("k")
	actortest.Eventually(t, "the tree lacks it", func() bool { return r.root() == treeOf(t, disk).Root().Hash })
	r = start(t, setup{engine: keep{copied(t, disk)}, change: paced(quietPace)})
	if got, want := r.root(), treeOf(t, disk).Root().Hash; got != want {
		t.Errorf("after a crash the root is %x, of the store it is %x", got, want)
	}
}

package actors

import (
	"cmp"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

const (
	// upkeepEvery is how often a vnode looks after its trees when nothing else makes it.
	upkeepEvery = wantAgainAfter
	// sampleEvery is how often it reads a range that nothing is known against.
	sampleEvery = 30 * time.Second
)

// upkeepPace has other intervals, for tests; 0 takes the above. none leaves the trees as
// they are: what they cost is measured against that.
type upkeepPace struct {
	tick, sample, checkpoint time.Duration
	none                     bool
}

// upkeep is a vnode's care for its hash trees (§ 4.7). There is one for each n, of
// all objects of the partition and n that lie here. A node is a replica of either
// all of them or none (dynamo/member.Document.Holds), so a tree never mixes its own
// with what is misplaced; the latter is not compared with anybody. Hints are others' and are in none.
type upkeep struct {
	trees [quorum.MaxN + 1]*keptTree
	// reading is the range that is being read, of one n; nil: none.
	reading *hashtree.Check
	n       int
	// sampled: nothing was known against the range; sampling: one such is due.
	sampled, sampling bool
	// resting: a range could not be read; again at the next tick.
	resting bool
	turn    turn
	timer   *rt.Timer
	saver   *rt.Timer // while checkpoints are made
	looked  time.Time // when a range was sampled last
}

// upkeepTick is the time to look after the trees; by is whose.
type upkeepTick struct{ by *vnodeActor }

// RuntimeControl lets it overtake.
func (*upkeepTick) RuntimeControl() {}

// rangeRead is a range of the store as by has asked for it. It is handled between two
// turns, as are the others here: no write is then half done.
type rangeRead struct {
	by      *vnodeActor
	check   *hashtree.Check
	entries []hashtree.Entry
	damaged int
	err     error
}

// RuntimeControl lets it overtake.
func (*rangeRead) RuntimeControl() {}

// doubted tells a vnode of an object that was found damaged: its tree may say that it
// is there.
type doubted struct{ key []byte }

// RuntimeControl lets it overtake.
func (*doubted) RuntimeControl() {}

// errReadPanicked stands for the outcome of a read that had none.
var errReadPanicked = errors.New("the read of the store panicked")

// entryHash is the hash of the entry of an object's record.
func entryHash(key dynamo.Key, r version.Record) hashtree.Hash {
	if r.IsZero() {
		return hashtree.Hash{}
	}
	return hashtree.EntryHash(key, r.CausalHash())
}

// hashUnder is entryHash for a storage key.
func hashUnder(key []byte, r version.Record) hashtree.Hash {
	if r.IsZero() {
		return hashtree.Hash{}
	}
	_, k, _ := vnode.ParseObjectKey(key)
	return entryHash(k, r)
}

// tree is that of one n, up to quorum.MaxN. What was not found when the vnode opened
// has begun empty.
func (v *vnodeActor) tree(n int) *keptTree {
	if v.upkeep.trees[n] == nil {
		v.upkeep.trees[n] = v.s.keep(hashtree.New(v.s.Document().Settled.Partitions(), v.partition), false)
	}
	return v.upkeep.trees[n]
}

// mark adds to the turn's batch the marks of what it writes, and what becomes of the index
// of what can be reaped. A crash at any point leaves them and the records, or neither.
func (v *vnodeActor) mark() {
	for key, o := range v.write.touched {
		if m, first := v.tree(o.n).Mark(o.position); first {
			v.write.open().Set(vnode.MarkKey(v.partition, o.n, m.Index), []byte{})
		}
		v.write.index(key, o)
	}
}

// grow brings what the turn has written into the trees, once reads see it; of a turn
// that was not applied nothing comes in.
func (v *vnodeActor) grow() {
	w := &v.write
	for s, o := range w.touched {
		w.key = append(w.key[:0], s...)
		t := v.tree(o.n)
		t.Update(o.position, o.was, hashUnder(w.key, w.fresh[s].Record))
		t.changed = true
	}
	for _, key := range w.damaged {
		v.doubt(key)
	}
	v.care()
}

// doubt has the leaf of an object read again.
func (v *vnodeActor) doubt(key []byte) {
	if n := vnode.ObjectN(key); n >= 1 && n <= quorum.MaxN {
		t := v.tree(n)
		t.Doubt(t.Leaf(vnode.ObjectPosition(key)))
	}
}

// onDoubted takes news of a damaged object.
func (v *vnodeActor) onDoubted(m *doubted) {
	v.doubt(m.key)
	v.care()
}

// onUpkeep is the tick.
func (v *vnodeActor) onUpkeep(m *upkeepTick) {
	if m.by != v {
		return
	}
	u := &v.upkeep
	v.armUpkeep()
	if v.status != vnodeServing {
		return
	}
	v.careForLoss()
	if v.away() { // the trees go with the rest
		return
	}
	u.resting = false
	if u.sampling = time.Since(u.looked) >= cmp.Or(v.s.pace.sample, sampleEvery); u.sampling {
		u.looked = time.Now()
	}
	if u.turn.asked { // whoever heard may have failed
		u.turn.want(v.s, v.self)
	}
	v.save()
	v.care()
}

func (v *vnodeActor) armUpkeep() {
	v.upkeep.timer.Stop()
	v.upkeep.timer = v.s.Wheel.Send(v.self, &upkeepTick{by: v}, cmp.Or(v.s.pace.tick, upkeepEvery))
}

// leave is the end of the instance's care.
func (v *vnodeActor) leave() {
	u := &v.upkeep
	u.timer.Stop()
	u.saver.Stop()
	if u.turn.asked || !u.turn.began.IsZero() {
		u.turn.gone(v.s, v.self)
	}
}

// care asks for a slice of time if a range is to be read.
func (v *vnodeActor) care() {
	u := &v.upkeep
	if u.reading != nil || u.turn.asked || u.resting || v.status != vnodeServing {
		return
	}
	if _, _, ok := v.work(); ok {
		u.turn.want(v.s, v.self)
	}
}

// work names a range to read: one that a tree names, or one to be sampled.
func (v *vnodeActor) work() (n int, p hashtree.Prefix, ok bool) {
	u := &v.upkeep
	some := 0
	for i := range u.trees { // from the one after that read last: what cannot be read keeps no other from its turn
		n := (u.n + 1 + i) % len(u.trees)
		t := u.trees[n]
		if t == nil {
			continue
		}
		if p, ok := t.Work(); ok {
			u.sampled = false
			return n, p, true
		}
		if some == 0 || rand.N(2) == 0 {
			some = n
		}
	}
	if !u.sampling || some == 0 {
		return 0, hashtree.Prefix{}, false
	}
	u.sampled = true
	return some, u.trees[some].next(), true
}

// sampleBits is by how many bits a sampled range is wider than a leaf.
const sampleBits = 4

// next is the range to be sampled: one after the other, so that each has its turn, from
// anywhere on.
func (t *keptTree) next() hashtree.Prefix {
	if bits := t.Bits() - sampleBits; t.sample.Bits != bits {
		t.sample = hashtree.Prefix{Bits: bits, Index: rand.Uint32N(1 << bits)}
	}
	return t.sample
}

func (t *keptTree) sampled() { t.sample.Index = (t.sample.Index + 1) & (1<<t.sample.Bits - 1) }

// onSlice reads the next range on the pool of readers. What was written before this is
// in the store; what comes after it the check notes.
func (v *vnodeActor) onSlice() {
	u := &v.upkeep
	if !u.turn.begins(v.s, v.self) {
		return
	}
	n, p, ok := v.work()
	if !ok || v.status != vnodeServing || u.reading != nil {
		u.turn.over(v.s, v.self)
		return
	}
	t := u.trees[n]
	check := t.Check(p)
	u.reading, u.n = check, n
	u.sampling = u.sampling && !u.sampled
	first, last := t.Range(check.Prefix())
	lower, upper := vnode.PositionRange(v.partition, n, first, last)
	self, s, partition := v.self, v.s, v.partition
	submitted := s.Readers.Submit(func() {
		out := &rangeRead{by: v, check: check, err: errReadPanicked}
		defer func() { s.System.Root.Send(self, out) }()
		out.damaged, out.err = s.entries(partition, lower, upper, func(key, _ []byte, h hashtree.Hash) bool {
			out.entries = append(out.entries, hashtree.Entry{Position: vnode.ObjectPosition(key), Hash: h})
			return true
		})
	})
	if !submitted {
		v.onRange(&rangeRead{by: v, check: check, err: errReadersBusy})
	}
}

// onRange sets the leaves of a range to what was read.
func (v *vnodeActor) onRange(m *rangeRead) {
	u := &v.upkeep
	if m.by != v || m.check != u.reading {
		return
	}
	u.reading = nil
	u.turn.over(v.s, v.self)
	t, bits := u.trees[u.n], u.trees[u.n].Bits()
	var did hashtree.Mended
	err := m.err
	if err != nil {
		t.Abandon(m.check)
	} else {
		did, err = t.Mend(m.check, m.entries)
	}
	if err != nil {
		v.s.met(v.partition, err)
		// Too many writes came, too many reads wait, or the store cannot read it. It is
		// named again, after others.
		if u.resting = true; u.sampled {
			t.sampled()
		}
		v.s.Log.Debug("a range of a hash tree was not read", slog.Uint64("partition", uint64(v.partition)), slog.Any("error", err))
		return
	}
	t.changed = t.changed || did.Wrong > 0 || t.Bits() != bits
	if t.Bits() != bits {
		t.from = 0
	}
	if did.Wrong > 0 && t.stored {
		v.remark(t, u.n, m.check.Prefix())
	}
	c := v.s.Counters
	c.TreeRanges.Add(1)
	c.TreeEntries.Add(uint64(len(m.entries)))
	if u.sampled {
		t.sampled()
		c.TreeWrong.Add(uint64(did.Wrong))
	}
	if u.sampled && did.Wrong > 0 {
		v.s.Log.Error("a hash tree was not what the store holds, and is mended", slog.Uint64("partition", uint64(v.partition)), slog.Int("n", u.n),
			slog.Int("leaves", did.Wrong), slog.Int("damaged", m.damaged))
	}
	v.care()
}

// entries visits what lies in a range of object keys, with the hash of each entry, until
// visit returns false. Values that cannot be read are none, and counted: they must not
// keep the rest from being compared. It runs on a reader.
func (s *Services) entries(p dynamo.Partition, lower, upper []byte, visit func(key, value []byte, h hashtree.Hash) bool) (damaged int, err error) {
	err = s.Engine.Scan(lower, upper, func(key, value []byte) bool {
		stored, err := vnode.DecodeStored(key, value)
		if err != nil {
			s.countCorrupt(p, key, err)
			damaged++
			return true
		}
		h := hashUnder(key, stored.Record)
		return h.IsZero() || visit(key, value, h)
	})
	return damaged, err
}

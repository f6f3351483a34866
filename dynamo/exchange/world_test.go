package exchange

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/hashtree"
)

// tester is a test, or rapid's.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// record is what a replica knows of a key: which of 64 writes it has seen. Records
// merge by union, so to undo a write is to lose a bit.
type record uint64

// replica is one of the two: a store, a tree, and who may read what.
type replica struct {
	t       tester
	tree    *hashtree.Tree
	store   map[int]record // by the number of the key
	keys    []int          // of the store, in order of their storage keys
	damaged map[int]bool   // their stored bytes cannot be read
	stuck   map[int]bool   // no record of them can be merged
	size    int            // of a record's value
}

func newReplica(t tester, size int) *replica {
	return &replica{t: t, tree: hashtree.New(1, 0), store: map[int]record{}, damaged: map[int]bool{}, stuck: map[int]bool{}, size: size}
}

// position spreads keys, but 1000 to 1999 lie close together, in one leaf.
func position(key int) (p [16]byte) {
	r := rand.New(rand.NewPCG(uint64(key), 5))
	binary.BigEndian.PutUint64(p[:], r.Uint64())
	binary.BigEndian.PutUint64(p[8:], r.Uint64())
	if key >= 1000 && key < 2000 {
		p[0], p[1], p[2] = 0x40, 0, 0
	}
	return p
}

func storageKey(key int) []byte {
	p := position(key)
	return fmt.Appendf(p[:], "key-%09d", key)
}

func hash(key int, r record) hashtree.Hash {
	if r == 0 {
		return hashtree.Hash{}
	}
	var causal [16]byte
	binary.BigEndian.PutUint64(causal[:], uint64(r))
	return hashtree.EntryHash(dynamo.Key{Bucket: "b", Name: fmt.Sprintf("key-%09d", key)}, causal)
}

func compareKeys(a, b int) int { return bytes.Compare(storageKey(a), storageKey(b)) }

// merge is the vnode's: it never loses anything.
func (r *replica) merge(key int, in record) (before, after record) {
	if r.damaged[key] {
		r.setAside(key)
	}
	before = r.store[key]
	after = before | in
	if after == before {
		return before, after
	}
	r.store[key] = after
	if before == 0 {
		i, _ := slices.BinarySearchFunc(r.keys, key, compareKeys)
		r.keys = slices.Insert(r.keys, i, key)
	}
	r.tree.Update(position(key), hash(key, before), hash(key, after))
	return before, after
}

// setAside is what a vnode does with a value that it cannot read: it forgets it. What
// it was it does not know.
func (r *replica) setAside(key int) {
	delete(r.damaged, key)
	delete(r.store, key)
	i, _ := slices.BinarySearchFunc(r.keys, key, compareKeys)
	r.keys = slices.Delete(r.keys, i, i+1)
	r.tree.Update(position(key), hashtree.Hash{}, hashtree.Hash{})
	r.tree.Doubt(r.tree.Leaf(position(key)))
}

// between lists the keys of a leaf, in order.
func (r *replica) between(width uint8, leaf uint32) []int {
	first, last := r.tree.Range(hashtree.Prefix{Bits: width, Index: leaf})
	i, _ := slices.BinarySearchFunc(r.keys, first[:], func(k int, b []byte) int { return bytes.Compare(storageKey(k), b) })
	var out []int
	for ; i < len(r.keys); i++ {
		if p := position(r.keys[i]); bytes.Compare(p[:], last[:]) > 0 {
			break
		}
		out = append(out, r.keys[i])
	}
	return out
}

// settle does the work of the tree.
func (r *replica) settle() {
	for {
		p, ok := r.tree.Work()
		if !ok {
			return
		}
		c := r.tree.Check(p)
		var entries []hashtree.Entry
		for _, k := range r.between(c.Prefix().Bits, c.Prefix().Index) {
			if r.damaged[k] {
				r.setAside(k)
				continue
			}
			entries = append(entries, hashtree.Entry{Position: position(k), Hash: hash(k, r.store[k])})
		}
		if _, err := r.tree.Mend(c, entries); err != nil {
			r.t.Fatal(err)
		}
	}
}

// list is one side's half of a List.
func (r *replica) list(l List, until []byte) *Holding {
	if err := l.Check(); err != nil {
		r.t.Fatal(err)
	}
	out := &Holding{}
	for i, leaf := range l.Index {
		if !out.Leaf() {
			break
		}
		for _, k := range r.between(l.Bits, leaf) {
			sk := storageKey(k)
			switch {
			case i == 0 && bytes.Compare(sk, l.From) < 0, until != nil && bytes.Compare(sk, until) >= 0:
				continue
			case r.damaged[k]:
				r.setAside(k)
				continue
			}
			if !out.Add(sk, hash(k, r.store[k]).Short(), r.size) {
				return out
			}
		}
	}
	return out
}

// found is a record on its way.
type found struct {
	key  int
	rec  record
	leaf uint32
}

// find reads records by leaf and hash, and makes a message of them.
func (r *replica) find(q Pull) (out []found, handled, damaged, size int) {
	sizes := make([]int, len(q.Items))
	all := make([]found, len(q.Items))
	for i, it := range q.Items {
		for _, k := range r.between(q.Bits, it.Leaf) {
			if sk := storageKey(k); bytes.Compare(sk, q.From) < 0 || q.Until != nil && bytes.Compare(sk, q.Until) >= 0 {
				continue
			}
			if hash(k, r.store[k]).Short() != it.Hash {
				continue
			}
			if sizes[i] = r.size + 30; r.damaged[k] {
				sizes[i] = -1
				r.setAside(k)
			}
			all[i] = found{k, r.store[k], it.Leaf}
			break
		}
	}
	handled, _, damaged, size = Batch(sizes)
	for i := range handled {
		if sizes[i] > 0 {
			out = append(out, all[i])
		}
	}
	return out, handled, damaged, size
}

// world runs an exchange from a to b. Between any two things that it does it calls
// turn, which may write to either side; turn returns false when a message is to be
// lost.
type world struct {
	t        tester
	a, b     *replica
	turn     func() bool
	x        *Exchange
	page     []found
	messages int
	largest  int
	in, out  map[int]int // how often a record of a key travelled
	outcome  *Outcome
}

// size counts a message's content; what it is wrapped in is the link's.
func (w *world) size(n int) int {
	w.messages++
	w.largest = max(w.largest, n)
	return n
}

// run runs one exchange to its end.
func (w *world) run(number, round uint64) Outcome {
	w.a.settle()
	w.b.settle()
	w.x, w.outcome, w.page, w.in, w.out = New(number, round), nil, nil, map[int]int{}, map[int]int{}
	effects := w.x.Start()
	for steps := 0; w.outcome == nil; steps++ {
		if steps > 1_000_000 {
			w.t.Fatal("the exchange does not end")
		}
		var answer Event
		for _, e := range effects {
			if got := w.carryOut(e); got != nil {
				answer = got
			}
		}
		if w.outcome == nil && answer == nil {
			w.t.Fatalf("%v: nothing is awaited after %+v", w.x.State(), effects)
		}
		if answer != nil {
			effects = w.x.Step(answer)
		}
	}
	if w.x.State() != Done || w.x.Step(Broken{}) != nil {
		w.t.Fatal("it goes on after the end")
	}
	return *w.outcome
}

func (w *world) carryOut(e Effect) Event {
	switch e := e.(type) {
	case Greet:
		return w.greet(e)
	case Compare:
		return w.compare(e)
	case List:
		return w.list(e)
	case Pull:
		return w.pull(e)
	case Merge:
		return w.merge(e)
	case Push:
		return w.push(e)
	case Recheck:
		w.a.tree.Doubt(e.Leaf)
		w.b.tree.Doubt(e.Leaf)
	case Finish:
		w.outcome = &e.Outcome
	}
	return nil
}

func (w *world) greet(e Greet) Event {
	root, bits := w.a.tree.Root().Hash, w.a.tree.Bits()
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	equal, common, peer, err := Meet(w.b.tree, root, bits, e.Round)
	if err != nil {
		w.t.Fatal(err)
	}
	m := Met{Batch: e.Batch, Equal: equal, Bits: common, Peer: peer, Bytes: w.size(18) + w.size(2+4*len(peer))}
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	if !equal {
		if m.Own, err = Digests(w.a.tree, Compare{Round: e.Round, Index: []uint32{0}, To: 4}); err != nil {
			w.t.Fatal(err)
		}
	}
	return m
}

// indexSize is that of ascending numbers, as differences of variable length.
func indexSize(index []uint32) int {
	n, last := 1, uint32(0)
	for _, i := range index {
		n += 1 + bits.Len32(i-last)/7
		last = i
	}
	return n
}

func (w *world) compare(e Compare) Event {
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	peer, err := Digests(w.b.tree, e)
	if err != nil {
		w.t.Fatal(err)
	}
	n := w.size(2+indexSize(e.Index)) + w.size(2+4*len(peer))
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	own, err := Digests(w.a.tree, e)
	if err != nil {
		w.t.Fatal(err)
	}
	return Compared{e.Batch, own, peer, n}
}

func listSize(l *Holding) int {
	n := 2 + len(l.Next)
	for _, list := range l.Lists {
		n += 1 + 8*len(list)
	}
	return n
}

func (w *world) list(e List) Event {
	own := w.a.list(e, nil)
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	asked := e
	asked.Index = e.Index[:len(own.Lists)]
	peer := w.b.list(asked, own.Next)
	n := w.size(2+indexSize(asked.Index)+len(e.From)+len(own.Next)) + w.size(listSize(peer))
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	own.Cut(len(peer.Lists), peer.Next)
	return Listed{Batch: e.Batch, Own: own.Lists, Peer: peer.Lists, Next: own.Next, Bytes: n}
}

func (w *world) pull(e Pull) Event {
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	records, handled, damaged, size := w.b.find(e)
	w.page = records
	for _, r := range records {
		w.in[r.key]++
	}
	n := w.size(2+9*len(e.Items)) + w.size(6+size)
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	return Page{e.Batch, handled, len(records), damaged, n, size}
}

func (w *world) merge(e Merge) Event {
	m := Merged{Batch: e.Batch}
	for _, r := range w.page {
		w.turn()
		if w.a.stuck[r.key] {
			m.Damaged++
			continue
		}
		before, after := w.a.merge(r.key, r.rec)
		m.Records = append(m.Records, Result{r.leaf, hash(r.key, r.rec).Short(), hash(r.key, before).Short(), hash(r.key, after).Short()})
	}
	return m
}

func (w *world) push(e Push) Event {
	records, handled, damaged, size := w.a.find(Pull(e))
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	merged := 0
	for _, r := range records {
		w.out[r.key]++
		if w.b.stuck[r.key] {
			damaged++
			continue
		}
		w.b.merge(r.key, r.rec)
		merged++
	}
	n := w.size(6+size) + w.size(4)
	if !w.turn() {
		return Failed{e.Batch, "lost"}
	}
	return Pushed{e.Batch, handled, merged, damaged, n, size}
}

func sortKeys(r *replica) { slices.SortFunc(r.keys, compareKeys) }

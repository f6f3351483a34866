package sim

import (
	"bytes"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// treeQuestion is a question of an exchange to the peer's vnode: a rootQuestion, an
// aae.Compare, a leavesQuestion, an aae.Pull, a recordPage that is pushed, or an
// aae.Recheck, which is not answered.
type treeQuestion struct {
	plan        uint64
	batch       uint64
	incarnation clock.Incarnation // zero: any
	asker       dynamo.NodeID
	what        any
}

type rootQuestion struct {
	root  hashtree.Hash
	bits  uint8
	round uint64
}

type leavesQuestion struct {
	list  aae.List
	until []byte
}

// treeAnswer answers a treeQuestion.
type treeAnswer struct {
	batch       uint64
	incarnation clock.Incarnation
	equal       bool
	bits        uint8
	digests     []uint32
	lists       [][]uint64
	next        []byte
	page        recordPage
	merged      int
	damaged     int
}

// mergePage has the vnode merge what an exchange of its own node has pulled. It is
// answered with aae.Merged once it is durable.
type mergePage struct {
	plan, batch uint64
	bits        uint8
	asker       dynamo.NodeID
	page        recordPage
}

// incomparable is why the tree must not be compared with another node's; nil if it may.
func (v *vnodeShell) incomparable(plan uint64, with dynamo.NodeID) any {
	n := v.n
	switch {
	case n.inForce == nil || !n.serves(v.partition):
		return failure{codeNotReady}
	case plan < n.since[v.partition]:
		return staleReply{n.inForce.Version}
	case plan > n.inForce.Version:
		return failure{codeNotReady}
	case !n.comparable(v.partition, n.id) || !n.comparable(v.partition, with):
		return failure{codeInvalid}
	}
	return nil
}

// compare answers a question: of the tree in this turn, of the store from the pool of
// readers.
func (v *vnodeShell) compare(m *treeQuestion, from pid) {
	n := v.n
	why := v.incomparable(m.plan, m.asker)
	if why == nil && m.incarnation != (clock.Incarnation{}) && m.incarnation != v.state.Incarnation() {
		why = failure{codeNotReady}
	}
	if why != nil {
		n.behind(m.plan, from.endpoint)
		n.tell(from, why)
		return
	}
	a := &treeAnswer{batch: m.batch, incarnation: v.state.Incarnation()}
	switch q := m.what.(type) {
	case rootQuestion:
		v.meet(q, a, from)
	case aae.Compare:
		var err error
		if a.digests, err = aae.Digests(v.tree.Tree, q); err != nil {
			n.c.fail("T1", "%s is asked what its tree cannot tell: %v", n.id, err)
		}
		n.tell(from, a)
	case leavesQuestion:
		v.fromStore(from, a, func() error {
			h, err := v.list(q.list, q.until)
			if err == nil {
				a.lists, a.next, a.damaged = h.Lists, h.Next, h.Damaged
			}
			return err
		})
	case aae.Pull:
		v.fromStore(from, a, func() (err error) {
			a.page, err = v.find(q)
			return err
		})
	case recordPage:
		if v.writable(from) && v.young(q.read, from) {
			a.merged = len(v.learn(q, 0))
			a.damaged = len(q.keys) - a.merged
			v.acknowledge(answer{from, a}, true)
		}
	case aae.Recheck:
		v.tree.Doubt(q.Leaf)
	}
}

// meet compares roots.
func (v *vnodeShell) meet(q rootQuestion, a *treeAnswer, from pid) {
	if !v.tree.Settled() {
		v.n.tell(from, failure{codeNotReady})
		return
	}
	v.n.c.check.treeIsStore(v)
	var err error
	if a.equal, a.bits, a.digests, err = aae.Meet(v.tree.Tree, q.root, q.bits, q.round); err != nil {
		v.n.c.fail("T1", "%s is asked what its tree cannot tell: %v", v.n.id, err)
	}
	v.n.tell(from, a)
}

// fromStore answers with what is read after a while.
func (v *vnodeShell) fromStore(from pid, a *treeAnswer, read func() error) {
	n := v.n
	whole := v.watch()
	n.after(scale(n.c.random.disk.Float64(), n.c.plan.disk.read), func() {
		err := read()
		if v.met(err); err != nil {
			n.tell(from, failure{codeStorage})
			return
		}
		if !whole() {
			n.tell(from, failure{codeNotReady})
			return
		}
		n.tell(from, a)
	})
}

// mergePage takes what an exchange has pulled.
func (v *vnodeShell) mergePage(m *mergePage, from pid) {
	if !v.writable(from) || !v.young(m.page.read, from) {
		return
	}
	if why := v.incomparable(m.plan, m.asker); why != nil {
		v.n.tell(from, why)
		return
	}
	merged := v.learn(m.page, m.bits)
	v.acknowledge(answer{from, aae.Merged{Batch: m.batch, Records: merged, Damaged: len(m.page.keys) - len(merged)}}, true)
}

// learn merges records, and tells for each that could be merged what became of it, in
// leaves of so many bits.
func (v *vnodeShell) learn(p recordPage, bits uint8) []aae.Result {
	var out []aae.Result
	hash := func(k *keyInfo, r version.Record) uint64 {
		if r.IsZero() {
			return 0
		}
		return hashtree.EntryHash(k.key, r.CausalHash()).Short()
	}
	for i, key := range p.keys {
		k := &v.n.c.keys[key]
		before, err := v.load(k)
		if err != nil {
			continue
		}
		in, err := version.Decode(p.records[i])
		if err != nil {
			v.n.c.fail("I8", "%s cannot decode the record of %v that it was sent: %v", v.n.id, k.key, err)
			continue
		}
		if v.n.c.mutation == exchangeOverwrites {
			v.n.c.check.stored(v, k, before, vnode.Stored{Record: in, Barred: before.Barred})
			v.set(k, vnode.Stored{Record: in, Barred: before.Barred})
		} else if !v.take(k, p.records[i]) {
			continue
		}
		after, err := v.load(k)
		if err != nil {
			continue
		}
		out = append(out, aae.Result{
			Leaf: v.tree.Prefix(k.position, bits).Index, Peer: hash(k, in), Before: hash(k, before.Record), After: hash(k, after.Record),
		})
	}
	return out
}

// list lists what lies in leaves, from a storage key on and until another.
func (v *vnodeShell) list(l aae.List, until []byte) (*aae.Holding, error) {
	if err := l.Check(); err != nil {
		v.n.c.fail("T1", "%s is asked for leaves that there are not: %v", v.n.id, err)
	}
	out := &aae.Holding{}
	for i, leaf := range l.Index {
		if !out.Leaf() {
			break
		}
		for _, k := range v.between(hashtree.Prefix{Bits: l.Bits, Index: leaf}) {
			if i == 0 && bytes.Compare(k.stored, l.From) < 0 || until != nil && bytes.Compare(k.stored, until) >= 0 {
				continue
			}
			b, found, err := v.n.disk.get(k.stored)
			if err != nil {
				return nil, err
			}
			h := v.n.entry(k)
			if found && h.IsZero() {
				v.doubt(k)
			}
			if !h.IsZero() && !out.Add(k.stored, h.Short(), len(b)) {
				return out, nil
			}
		}
	}
	return out, nil
}

// find reads records by leaf and hash.
func (v *vnodeShell) find(q aae.Pull) (recordPage, error) {
	out := recordPage{read: v.n.c.now}
	var sizes []int
	for _, it := range q.Items {
		size := 0
		for _, k := range v.between(hashtree.Prefix{Bits: q.Bits, Index: it.Leaf}) {
			b, _, err := v.n.disk.get(k.stored)
			if err != nil {
				return recordPage{}, err
			}
			if h := v.n.entry(k); !h.IsZero() && h.Short() == it.Hash {
				size = len(b)
				out.keys = append(out.keys, k.index)
				out.records = append(out.records, version.Append(nil, v.n.record(k, false)))
			}
		}
		sizes = append(sizes, size)
	}
	var records int
	out.handled, records, out.damaged, _ = aae.Batch(sizes)
	out.keys, out.records = out.keys[:records], out.records[:records]
	return out, nil
}

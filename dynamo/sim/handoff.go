package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// A fallback keeps its record where a replica would, and beside it a mark for
// each node that it is kept for. A replica that knows of another one's lack has
// the mark alone. The record of a fallback goes with its last mark.

const (
	// handoffPause is how often a node looks for hints that it can deliver.
	handoffPause = 150 * time.Millisecond
	// handoffTimeout is how long a batch may take.
	handoffTimeout = time.Second
)

// keepHint has the local vnode remember that another replica lacks a record.
type keepHint struct {
	key   int
	owner dynamo.NodeID
}

// handoffRequest hands a vnode records; handoffReply confirms all of them from
// the disk.
type handoffRequest struct {
	batch   uint64
	keys    []int
	records [][]byte
	read    time.Duration
}

type handoffReply struct{ batch uint64 }

// dropHints removes what was handed over and has not changed since.
type dropHints struct {
	intended dynamo.NodeID
	// home: the intended node was a replica when it was offered the records.
	home  bool
	items []handed
}

type hintsDropped struct{ kept int }

// handed is one record as it was handed over.
type handed struct {
	key     int
	record  version.Record
	damaged bool
}

func (k *keyInfo) mark(node dynamo.NodeID) string {
	return string(vnode.AppendHintKey(nil, node, k.stored))
}

// marked reports whether the store has a mark.
func (n *node) marked(k *keyInfo, node dynamo.NodeID) bool {
	_, ok := n.disk.volatile[k.mark(node)]
	return ok
}

// mark adds a mark to the turn.
func (v *vnodeShell) mark(k *keyInfo, node dynamo.NodeID) {
	key := k.mark(node)
	v.writes = append(v.writes, write{key: key, value: vnode.AppendStored(nil, []byte(key), vnode.Stored{})})
	v.commits = true
	v.n.apart(v.partition)
	v.n.wakeHandoff()
}

func (v *vnodeShell) keepHint(m *keepHint) {
	k := &v.n.c.keys[m.key]
	if v.status == vnodeServing && !v.isLost() && !v.n.marked(k, m.owner) {
		v.mark(k, m.owner)
	}
}

// handoff takes records that another node kept.
func (v *vnodeShell) handoff(m *handoffRequest, from pid) {
	if !v.writable(from) || v.doubtful(from) || !v.young(m.read, from) {
		return
	}
	for i, key := range m.keys {
		if !v.n.owns(&v.n.c.keys[key]) {
			v.n.tell(from, failure{codeInvalid})
			return
		}
		if !v.take(&v.n.c.keys[key], m.records[i]) {
			v.n.tell(from, failure{codeStorage})
			return
		}
	}
	v.acknowledge(answer{from, handoffReply{m.batch}}, v.n.c.mutation != confirmEarly)
}

// dropHints removes marks, and with the last one a fallback's record.
func (v *vnodeShell) dropHints(m *dropHints, from pid) {
	if !v.writable(from) || v.doubtful(from) {
		return
	}
	kept := 0
	for _, it := range m.items {
		k := &v.n.c.keys[it.key]
		have, err := v.load(k)
		if err != nil {
			v.n.tell(from, failure{codeStorage})
			return
		}
		same := have.Record.SameCausal(it.record)
		if it.damaged {
			same = have.IsZero() || v.n.c.mutation == dropDamaged
		}
		if !same && v.n.c.mutation != dropChanged {
			kept++
			continue
		}
		if m.intended == "" && (v.n.owns(k) || v.otherMarks(k, "")) {
			kept++ // the ring has changed: it belongs here, or is kept for somebody
			continue
		}
		if !it.damaged || !have.IsZero() {
			v.n.c.check.handedOver(v.n, k, m, have.Record)
		}
		if m.intended != "" {
			v.writes = append(v.writes, write{key: k.mark(m.intended)})
		}
		v.commits = true
		v.n.apart(v.partition)
		if !v.n.owns(k) && !v.otherMarks(k, m.intended) {
			v.n.c.check.dropped(v.n, k, have.Record)
			v.remove(k)
		}
	}
	v.acknowledge(answer{from, hintsDropped{kept}}, true)
}

// otherMarks reports whether a record is kept for another node too; marks that
// this turn adds count.
func (v *vnodeShell) otherMarks(k *keyInfo, intended dynamo.NodeID) bool {
	return slices.ContainsFunc(v.n.c.nodes, func(x *node) bool {
		if x.id == intended {
			return false
		}
		key := k.mark(x.id)
		there := v.n.marked(k, x.id)
		for _, w := range v.writes {
			if w.key == key {
				there = w.value != nil
			}
		}
		return there
	})
}

// wakeHandoff has the node look for hints after a while.
func (n *node) wakeHandoff() {
	if !n.looking {
		n.looking = true
		n.after(handoffPause, n.lookForHints)
	}
}

// wakeHandoffs has all nodes look: one has come back, or a link.
func (c *cluster) wakeHandoffs() {
	for _, n := range c.nodes {
		if n.up {
			n.wakeHandoff()
		}
	}
}

// lookForHints starts transfers to nodes that seem up, and looks again as long
// as there are hints for one of them.
func (n *node) lookForHints() {
	n.looking = false
	left := false
	for _, x := range n.c.nodes {
		for p := range n.vnodes {
			keys := n.marks(dynamo.Partition(p), x.id)
			if len(keys) == 0 || !n.reachable(x.id) && n.isHolder(dynamo.Partition(p), x.id) {
				continue
			}
			left = true
			n.handOver(dynamo.Partition(p), x.id)
		}
	}
	for p := range n.vnodes {
		if len(n.misplaced(dynamo.Partition(p))) > 0 {
			left = true
			n.handOver(dynamo.Partition(p), "")
		}
	}
	if left {
		n.wakeHandoff()
	}
}

// handOver starts a transfer unless it runs.
func (n *node) handOver(p dynamo.Partition, intended dynamo.NodeID) {
	if n.vnodes[p].status == vnodeFailed {
		n.vnodes[p].probe()
	}
	busy := slices.ContainsFunc(n.transfers, func(t *transferShell) bool { return t.partition == p && t.intended == intended })
	if !busy && n.serves(p) && !n.stopping {
		n.startTransfer(p, intended)
	}
}

func (n *node) isHolder(p dynamo.Partition, id dynamo.NodeID) bool {
	return n.inForce == nil || n.inForce.Holds(p, n.c.plan.properties.Quorum.N, id)
}

// misplaced are the keys of a partition whose records lie here, and that are neither
// this node's own nor kept for another.
func (n *node) misplaced(p dynamo.Partition) []int {
	if n.inForce == nil || n.isHolder(p, n.id) {
		return nil
	}
	var keys []int
	for i := range n.c.keys {
		k := &n.c.keys[i]
		if _, there := n.disk.volatile[string(k.stored)]; !there || k.partition != p {
			continue
		}
		if !slices.ContainsFunc(n.c.nodes, func(x *node) bool { return n.marked(k, x.id) }) {
			keys = append(keys, i)
		}
	}
	return keys
}

// idle reports whether a node keeps nothing that is for others.
func (n *node) idle() bool {
	if slices.ContainsFunc(n.vnodes, func(v *vnodeShell) bool { return v.isLost() || v.loss.interrupted }) {
		return false // some of it may lie aside
	}
	for _, store := range []map[string][]byte{n.disk.volatile, n.disk.durable} {
		for i := range n.c.keys {
			k := &n.c.keys[i]
			if _, there := store[string(k.stored)]; there && !n.owns(k) {
				return false
			}
			for _, x := range n.c.nodes {
				if _, marked := store[k.mark(x.id)]; marked {
					return false
				}
			}
		}
	}
	return true
}

// marks are the keys of a partition that are marked for a node.
func (n *node) marks(p dynamo.Partition, intended dynamo.NodeID) []int {
	var keys []int
	for i := range n.c.keys {
		if k := &n.c.keys[i]; k.partition == p && n.marked(k, intended) {
			keys = append(keys, i)
		}
	}
	return keys
}

// transferShell runs one transfer.
type transferShell struct {
	n         *node
	partition dynamo.Partition
	intended  dynamo.NodeID
	number    uint64
	machine   *transfer.Transfer
	cursor    int // keys below it are done
	replicas  []dynamo.NodeID
	lists     [][]dynamo.NodeID
	batch     []handed
	read      time.Duration // when, of the batch
	ended     bool
}

func (n *node) startTransfer(p dynamo.Partition, intended dynamo.NodeID) {
	n.next++
	t := &transferShell{n: n, partition: p, intended: intended, number: n.next, machine: transfer.New(intended, 0, false)}
	n.requests[t.number] = t
	n.transfers = append(n.transfers, t)
	n.c.tracef("%s hands what it keeps for %s in partition %d over", n.id, intended, p)
	t.run(t.machine.Start())
}

// String is the transfer in failures.
func (t *transferShell) String() string {
	return fmt.Sprintf("transfer %d of partition %d to %s: %v, %+v", t.number, t.partition, t.intended, t.machine.State(), t.machine.Progress())
}

func (t *transferShell) step(e transfer.Event) {
	if !t.ended {
		t.run(t.machine.Step(e))
	}
}

func (t *transferShell) receive(from int, body any) {
	node := t.n.c.nodes[from].id
	switch m := body.(type) {
	case handoffReply:
		t.step(transfer.Confirmed{Node: node, Batch: m.batch})
	case hintsDropped:
		t.step(transfer.Dropped{Kept: m.kept})
	case failure:
		if from == t.n.index {
			t.step(transfer.Broken{Reason: m.code.String()})
			return
		}
		t.step(transfer.Failed{Node: node, Batch: t.machine.Number(), Reason: m.code.String()})
	}
}

func (t *transferShell) undelivered(to int, _ request.Reason) {
	t.step(transfer.Failed{Node: t.n.c.nodes[to].id, Batch: t.machine.Number(), Unreachable: true, Reason: "unreachable"})
}

func (t *transferShell) run(effects []transfer.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case transfer.ReadNext:
			t.n.after(scale(t.n.c.random.disk.Float64(), t.n.c.plan.disk.read), t.readNext)
		case transfer.Offer:
			t.offer(e)
		case transfer.Drop:
			// New replicas may not have been among those who confirmed it.
			if replicas, lists := t.n.needs(t.partition); !slices.Equal(replicas, t.replicas) || !sameLists(lists, t.lists) {
				t.n.after(0, func() { t.step(transfer.Broken{Reason: "the ring has changed"}) })
				return
			}
			t.limit(transfer.Dropping)
			t.n.ask(t.n, t.partition, pid{t.n.index, t.number}, handoffTimeout, &dropHints{
				intended: t.intended, home: slices.Contains(t.replicas, t.intended), items: t.batch,
			})
		case transfer.Finish:
			t.finish(e.Outcome)
		}
	}
}

func (t *transferShell) offer(e transfer.Offer) {
	t.limit(transfer.Confirming)
	m := &handoffRequest{batch: e.Batch, read: t.read}
	for _, it := range t.batch {
		if !it.record.IsZero() {
			m.keys, m.records = append(m.keys, it.key), append(m.records, version.Append(nil, it.record))
		}
	}
	to := t.n.c.node(e.Node)
	t.n.ask(to, t.partition, pid{t.n.index, t.number}, handoffTimeout, m)
	if t.n.c.mutation == dropUnconfirmed || t.n.c.mutation == dropMisplaced && t.intended == "" {
		number := e.Batch
		t.n.after(0, func() { t.step(transfer.Confirmed{Node: e.Node, Batch: number}) })
	}
}

// limit ends the transfer when a state lasts too long.
func (t *transferShell) limit(s transfer.State) {
	number := t.machine.Number()
	t.n.after(handoffTimeout, func() {
		if t.machine.State() == s && t.machine.Number() == number {
			t.step(transfer.Broken{Reason: "no answer"})
		}
	})
}

// readNext takes the next keys that are marked.
func (t *transferShell) readNext() {
	t.batch, t.read = nil, t.n.c.now
	keys := t.n.marks(t.partition, t.intended)
	if t.intended == "" {
		keys = t.n.misplaced(t.partition)
	}
	for _, key := range keys {
		if key < t.cursor || len(t.batch) == 2 {
			continue
		}
		t.cursor = key + 1
		k := &t.n.c.keys[key]
		b, found, err := t.n.disk.get(k.stored)
		t.n.vnodes[t.partition].met(err)
		if err == nil && t.n.vnodes[t.partition].isLost() {
			err = errHole // it may be dropped just now
		}
		if err != nil {
			t.step(transfer.Broken{Reason: err.Error()})
			return
		}
		it := handed{key: key}
		if found {
			s, err := vnode.DecodeStored(k.stored, b)
			it.damaged = errors.Is(err, vnode.ErrChecksum) || errors.Is(err, version.ErrCorrupt)
			it.record = s.Record
		}
		t.batch = append(t.batch, it)
	}
	q := t.n.c.plan.properties.Quorum
	b := transfer.Batch{Size: len(t.batch), Needed: max(q.W, q.N/2+1)}
	if b.Size > 0 {
		t.replicas, t.lists = t.n.needs(t.partition)
		b.Replicas, b.Lists = t.replicas, t.lists
		b.Own = slices.Contains(b.Replicas, t.n.id)
		if t.n.c.mutation == dropHomeless && !slices.Contains(b.Replicas, t.intended) {
			b.Own = true
		}
	}
	t.step(transfer.Read{Batch: b})
}

func (t *transferShell) finish(o transfer.Outcome) {
	t.ended = true
	n := t.n
	n.c.tracef("%s is done with partition %d for %s: %+v", n.id, t.partition, t.intended, o)
	n.transfers = slices.DeleteFunc(n.transfers, func(x *transferShell) bool { return x == t })
	n.after(linger, func() { delete(n.requests, t.number) })
}

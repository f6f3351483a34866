package actors

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// slot is what one partition keeps for one node.
type slot struct {
	node      dynamo.NodeID
	partition dynamo.Partition
}

// HintCount is how much is kept.
type HintCount struct {
	Records int   `json:"records"`
	Bytes   int64 `json:"bytes"`
}

func (c *HintCount) add(o HintCount) {
	c.Records += o.Records
	c.Bytes += o.Bytes
}

// hintTable counts what this node keeps for others (§ 4.6). The store is the
// truth; the table is counted from it at the start and goes ahead of it by what
// vnodes are about to commit.
type hintTable struct {
	mu    sync.Mutex
	rows  map[slot]HintCount
	total HintCount
	// changes counts, for each partition, how often it changed what lies here apart from
	// the replicas' own: hints, and what note tells of.
	changes map[dynamo.Partition]uint64
}

// add is the only way in which a hint comes or goes, for a reaping must not miss one.
func (t *hintTable) add(at slot, c HintCount) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = map[slot]HintCount{}
	}
	t.change(at.partition)
	row := t.rows[at]
	row.add(c)
	t.total.add(c)
	if t.rows[at] = row; row.Records <= 0 {
		delete(t.rows, at)
	}
}

// note tells of a change of what lies here of a partition that is in no row.
func (t *hintTable) note(p dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(p)
}

// change counts a change; the lock is held.
func (t *hintTable) change(p dynamo.Partition) {
	if t.changes == nil {
		t.changes = map[dynamo.Partition]uint64{}
	}
	t.changes[p]++
}

// apart is how many changes there were of a partition, and whether any hint is kept for it.
func (t *hintTable) apart(p dynamo.Partition) (changes uint64, kept bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at := range t.rows {
		kept = kept || at.partition == p
	}
	return t.changes[p], kept
}

// slots are those that hold something, by node and partition.
func (t *hintTable) slots() []slot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Keys(t.rows), func(a, b slot) int {
		return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.partition, b.partition))
	})
}

// nodes are those that something of the partition is kept for.
func (t *hintTable) nodes(p dynamo.Partition) []dynamo.NodeID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []dynamo.NodeID
	for at := range t.rows {
		if at.partition == p {
			out = append(out, at.node)
		}
	}
	return out
}

// of is how much a slot holds.
func (t *hintTable) of(at slot) HintCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rows[at]
}

func (t *hintTable) count() HintCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// countHints fills the table from the store.
func (s *Services) countHints() error {
	lower, upper := vnode.Hints()
	return s.Engine.Scan(lower, upper, func(key, value []byte) bool {
		if node, _, ok := vnode.ParseHintKey(key); ok {
			s.hints.add(slot{node, vnode.HintPartition(key)}, hintSize(key, value))
		}
		return true
	})
}

func hintSize(key, value []byte) HintCount {
	return HintCount{Records: 1, Bytes: int64(len(key) + len(value))}
}

// keepHint asks the local vnode, which holds a record, to remember that another
// replica lacks it. It is not answered.
type keepHint struct {
	key      dynamo.Key
	n        int
	position [16]byte
	node     dynamo.NodeID
	// hintFor is the primary that this node stands in for itself, whose hint has
	// the record; empty when it is one.
	hintFor dynamo.NodeID
}

// hint is one record that is kept, or one of this node's own that it is no replica
// of, as it was read from the store.
type hint struct {
	// key is its storage key, object that of the record it stands for: the same
	// when it is one of this node's own.
	key, object []byte
	// own: the node is a replica, and the record is its own; here or gone.
	own bool
	// record is what was handed over; encoded is the same, empty when there is
	// nothing to hand over.
	record  version.Record
	encoded []byte
	// damaged: it cannot be read, and is set aside.
	damaged bool
}

// dropHints asks the local vnode to drop what was handed over, unless it has
// changed since. It is answered with *hintsDropped once that is durable.
type dropHints struct{ hints []hint }

type hintsDropped struct{ kept int }

// owns reports whether this node is one of the replicas of keys with n replicas
// in the vnode's partition.
func (v *vnodeActor) owns(n int) bool {
	return v.s.holds(v.partition, n)
}

// stored reads a hint for a write; there is false when there is none.
func (v *vnodeActor) stored(key []byte) (s vnode.Stored, size HintCount, there bool, err error) {
	if s, ok := v.write.fresh[string(key)]; ok {
		return s, hintSize(key, vnode.AppendStored(nil, key, s)), true, nil
	}
	if v.write.dropped[string(key)] {
		return vnode.Stored{}, HintCount{}, false, nil
	}
	b, err := v.s.Engine.Get(nil, key)
	if errors.Is(err, storage.ErrNotFound) {
		return vnode.Stored{}, HintCount{}, false, nil
	}
	if err != nil {
		return vnode.Stored{}, HintCount{}, false, err
	}
	s, err = vnode.DecodeStored(key, b)
	if isCorrupt(err) {
		v.s.countCorrupt(v.partition, key, err)
		v.s.hints.note(v.partition) // see loadForWrite
		if _, _, kept := vnode.ParseHintKey(key); !kept {
			v.write.damaged = append(v.write.damaged, bytes.Clone(key))
		}
		v.write.open().Set(vnode.CorruptKey(key), b)
		return vnode.Stored{}, hintSize(key, b), true, nil
	}
	return s, hintSize(key, b), true, err
}

// hintKey makes the storage key of a hint, in the turn's buffers.
func (v *vnodeActor) hintKey(node dynamo.NodeID, n int, position [16]byte, key dynamo.Key) []byte {
	v.write.object = vnode.AppendObjectKey(v.write.object[:0], v.partition, n, position, key)
	v.write.key = vnode.AppendHintKey(v.write.key[:0], node, v.write.object)
	return v.write.key
}

// setHint adds a hint to the turn; was is what lay there.
func (v *vnodeActor) setHint(node dynamo.NodeID, key []byte, s vnode.Stored, was HintCount) {
	is := hintSize(key, vnode.AppendStored(nil, key, s))
	v.write.set(key, s)
	v.countHint(node, HintCount{Records: is.Records - was.Records, Bytes: is.Bytes - was.Bytes})
}

// countHint changes the table at once, so that the bound holds within a turn and
// among vnodes, and so that who hears that a hint is kept or gone finds it so.
func (v *vnodeActor) countHint(node dynamo.NodeID, c HintCount) {
	at := slot{node, v.partition}
	v.s.hints.add(at, c)
	v.write.hinted = append(v.write.hinted, hintChange{at, c})
}

// uncountHints takes back what a turn has changed that was not committed.
func (v *vnodeActor) uncountHints() {
	for _, h := range v.write.hinted {
		v.s.hints.add(h.at, HintCount{Records: -h.count.Records, Bytes: -h.count.Bytes})
	}
	v.write.hinted = v.write.hinted[:0]
}

// hintChange is what a turn changes of the table.
type hintChange struct {
	at    slot
	count HintCount
}

// full is the refusal of a node that keeps as much for others as it may; what it
// has it never drops to make room.
func (v *vnodeActor) full(more int) *messages.Failure {
	have, most := v.s.hints.count(), v.s.hintBytes.Load()
	if have.Bytes+int64(more) <= most {
		return nil
	}
	v.s.Counters.HintsRefused.Add(1)
	f := messages.Fail(messages.CodeOverloaded, "%s keeps no more hints: %d of %d bytes", v.s.Self, have.Bytes, most)
	f.RetryAfterMs = 1000
	return f
}

// replicateHint keeps a coordinator's record for the primary that this node
// stands in for.
func (v *vnodeActor) replicateHint(req messages.Replicate, position [16]byte, sync bool, a answer) {
	sender := a.to
	key := v.hintKey(req.HintFor, req.N, position, req.Key)
	have, size, _, err := v.stored(key)
	if err != nil {
		v.s.answer(sender, v.self, v.readFailure(err))
		return
	}
	merged, changed, err := v.state.Accept(have, req.Record)
	if err != nil {
		panic(fmt.Sprintf("vnode %d: hint at position %x: %v", v.partition, position, err))
	}
	if changed {
		if f := v.full(len(version.Append(nil, req.Record))); f != nil && !have.Record.SameCausal(merged.Record) {
			v.s.answer(sender, v.self, f)
			return
		}
		v.s.Counters.Hints.Add(1)
		v.setHint(req.HintFor, key, merged, size)
	}
	v.write.acknowledge(a, sync)
}

// keepHint notes that another replica lacks what this node has: by a mark where
// it is a replica itself, else by a copy of the record.
func (v *vnodeActor) keepHint(m *keepHint) {
	if v.status != vnodeServing || v.away() {
		return // the record that it stands for was not written here either
	}
	var rec version.Record
	if m.hintFor != "" {
		s, _, _, err := v.stored(v.hintKey(m.hintFor, m.n, m.position, m.key))
		if err != nil {
			v.hintLost(err)
			return
		}
		if rec = s.Record; rec.IsZero() {
			return // handed over by now, to all that could be reached
		}
	}
	key := v.hintKey(m.node, m.n, m.position, m.key)
	have, size, there, err := v.stored(key)
	if err != nil {
		v.hintLost(err)
		return
	}
	if there && rec.IsZero() {
		return
	}
	kept, changed, err := v.state.Accept(have, rec)
	if err != nil {
		v.hintLost(err)
		return
	}
	if there && !changed || v.full(len(key)+len(version.Append(nil, rec))) != nil {
		return
	}
	v.s.Counters.Hints.Add(1)
	v.setHint(m.node, key, kept, size)
}

// hintLost tells of a hint that could not be kept. Anti-entropy finds what no hint
// tells of.
func (v *vnodeActor) hintLost(err error) {
	v.s.Log.Error("a hint could not be kept", slog.Uint64("partition", uint64(v.partition)), slog.Any("error", err))
}

// dropHints removes what was handed over and is as it was then.
func (v *vnodeActor) dropHints(m *dropHints, sender *actor.PID) {
	if !v.writable(sender) || v.doubtful(sender) {
		return
	}
	kept, lacking := 0, v.s.hints.nodes(v.partition)
	for i := range m.hints {
		dropped, err := v.dropHint(&m.hints[i], lacking)
		if err != nil {
			v.s.answer(sender, v.self, v.readFailure(err))
			return
		}
		if !dropped {
			kept++
		}
	}
	v.write.acknowledge(answer{to: sender, message: &hintsDropped{kept: kept}}, true)
}

// dropHint drops one record, if it may; lacking are those for whom hints are kept.
func (v *vnodeActor) dropHint(h *hint, lacking []dynamo.NodeID) (dropped bool, err error) {
	node, _, kept := vnode.ParseHintKey(h.key)
	if !kept && v.owns(vnode.ObjectN(h.object)) {
		return false, nil // the ring has changed: it belongs here
	}
	have, size, there, err := v.stored(h.key)
	if err != nil || !there {
		return true, err
	}
	if h.own {
		if have, err = v.loadForWrite(h.object); err != nil {
			return false, err
		}
	}
	// What was damaged when it was read is gone for good, and anti-entropy's to
	// find; a record that was written there since is not.
	if h.damaged && !have.IsZero() || !h.damaged && !have.Record.SameCausal(h.record) {
		return false, nil
	}
	if !kept {
		if marked, err := v.marked(h.object, lacking); marked || err != nil {
			return false, err
		}
		v.write.touch(h.key, have)
		v.s.hints.note(v.partition)
	}
	v.write.drop(h.key)
	if kept {
		v.countHint(node, HintCount{Records: -1, Bytes: -size.Bytes})
	}
	return true, nil
}

// marked reports whether a mark says that one of the nodes lacks an object: what it is to
// get is then nowhere but in that object.
func (v *vnodeActor) marked(object []byte, nodes []dynamo.NodeID) (bool, error) {
	for _, node := range nodes {
		s, _, there, err := v.stored(vnode.AppendHintKey(nil, node, object))
		if err != nil || there && s.Record.IsZero() {
			return true, err
		}
	}
	return false, nil
}

// hintsReply is the answer of readHints.
func (s *Services) hintsReply(p dynamo.Partition, position [16]byte, req messages.Read) proto.Message {
	reply, err := s.readHints(p, position, req)
	if err != nil {
		return messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", p, s.Self, err)
	}
	return reply
}

// readHints answers a read at a node that is no replica of the key as far as reads go:
// with what it keeps for those that are, and with what it has itself, because the
// partition is on its way here or gone. That it has nothing proves nothing (§ 4.6).
func (s *Services) readHints(p dynamo.Partition, position [16]byte, req messages.Read) (*messages.ReadReply, error) {
	var all version.Record
	object := vnode.AppendObjectKey(nil, p, req.N, position, req.Key)
	keys := [][]byte{object}
	for _, node := range s.Document().Holders(p, req.N) {
		keys = append(keys, vnode.AppendHintKey(nil, node, object))
	}
	for _, key := range keys {
		b, err := s.Engine.Get(nil, key)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		one, err := vnode.DecodeStored(key, b)
		if isCorrupt(err) {
			s.corrupt(p, key, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		all = version.Merge(all, one.Record)
	}
	if all.IsZero() {
		return &messages.ReadReply{}, nil
	}
	if req.DigestAbove > 0 {
		all, _ = all.Omit(req.DigestAbove)
	}
	return &messages.ReadReply{Record: version.Append(nil, all)}, nil
}

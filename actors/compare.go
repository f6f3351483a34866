package actors

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// mergePage has the vnode merge records that an exchange of this node has pulled. It is
// answered with *pageMerged once they are durable.
type mergePage struct {
	by      *exchangeActor
	plan    uint64
	n       int
	bits    uint8
	batch   uint64
	records []*messages.HandoffRecord
	read    int64 // dates them
}

type pageMerged struct {
	by    *exchangeActor
	event aae.Merged
}

// compare answers a question of an exchange, of another node's or of one of this node's.
// What trees have is told in the vnode's turn, what the store has on the pool of readers.
func (v *vnodeActor) compare(m *messages.ExchangeRequest, e rt.Envelope) {
	n, question, err := messages.ToExchange(m)
	if err == nil && m.GetPartition() != uint32(v.partition) {
		err = fmt.Errorf("%w: %d was asked for %d", errMisplaced, v.partition, m.GetPartition())
	}
	if err != nil {
		v.s.answer(e.Sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	if !v.comparable(m.GetPlan(), n, m.GetIncarnation(), e.Sender) {
		return
	}
	incarnation, partition := v.state.Incarnation(), v.partition
	reply := &messages.ExchangeReply{Batch: m.GetBatch(), Incarnation: incarnation[:]}
	switch q := question.(type) {
	case messages.Root:
		v.meet(reply, n, q, m.GetRound(), e.Sender)
	case aae.Compare:
		if reply.Digests, err = aae.Digests(v.tree(n).Tree, q); err != nil {
			v.s.answer(e.Sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
			return
		}
		v.s.answer(e.Sender, v.self, reply)
	case messages.Leaves:
		v.onStore(e, reply, func(s *Services) error { return s.listReply(reply, partition, n, q) })
	case aae.Pull:
		reply.ReadMs = v.began
		v.onStore(e, reply, func(s *Services) (err error) {
			var damaged int
			reply.Page, damaged, err = s.find(partition, n, q)
			reply.Damaged = uint32(damaged)
			return err
		})
	case messages.Push:
		v.takePush(reply, q, m.GetReadMs(), e.Sender)
	case messages.Recheck:
		for _, p := range q.Leaves {
			v.tree(n).Doubt(p)
		}
		v.care()
	}
}

// onStore answers with a reply that read fills in, on a reader.
func (v *vnodeActor) onStore(e rt.Envelope, reply *messages.ExchangeReply, read func(*Services) error) {
	s, self, p, whole := v.s, v.self, v.partition, v.s.losses.watch(v.partition)
	s.onReader(e, func() {
		err := read(s)
		switch {
		case err != nil:
			s.answer(e.Sender, self, messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", p, s.Self, err))
		case !whole():
			s.answer(e.Sender, self, s.isDamaged(p))
		default:
			s.answer(e.Sender, self, reply)
		}
	})
}

// comparable reports whether the trees of one n are of the same keys here and at the
// asker, and answers if not: both are replicas that reads use, and lack nothing, and
// their documents say the same of the partition.
func (v *vnodeActor) comparable(plan uint64, n int, incarnation []byte, sender *actor.PID) bool {
	if !v.serves(sender) || v.refuses(plan, sender) {
		return false
	}
	var f *messages.Failure
	asker, doc := dynamo.NodeID(sender.GetAddress()), v.s.Document()
	version, stale := v.s.stale(v.partition, plan)
	switch {
	case v.state == nil || v.status == vnodeFailed:
		f = messages.Fail(messages.CodeNotReady, "partition %d on %s does not serve", v.partition, v.s.Self)
	case stale:
		f = messages.Fail(messages.CodeStale, "%s knows version %d of the ring, the exchange goes by %d", v.s.Self, version, plan)
		f.DocumentVersion = version
	case v.isBehind(plan, sender):
		f = messages.Fail(messages.CodeNotReady, "%s does not know version %d of the ring yet", v.s.Self, plan)
	case !doc.Authoritative(v.partition, n, v.s.Self) || !doc.Authoritative(v.partition, n, asker):
		f = messages.Fail(messages.CodeStale, "%s and %s do not both have all keys of partition %d with n = %d", v.s.Self, asker, v.partition, n)
		f.DocumentVersion = version
	default:
		if own := v.state.Incarnation(); len(incarnation) > 0 && !bytes.Equal(incarnation, own[:]) {
			f = messages.Fail(messages.CodeNotReady, "partition %d on %s has another store than when the exchange began", v.partition, v.s.Self)
		}
	}
	if f != nil {
		v.s.answer(sender, v.self, f)
	}
	return f == nil
}

// meet compares roots, or tells the own one.
func (v *vnodeActor) meet(reply *messages.ExchangeReply, n int, q messages.Root, round uint64, sender *actor.PID) {
	t := v.tree(n)
	if !t.Settled() {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeNotReady, "the hash tree of partition %d on %s is being read", v.partition, v.s.Self))
		return
	}
	if q.Ask {
		root := t.Root().Hash
		reply.Root, reply.Bits = root[:], uint32(t.Bits())
		v.s.answer(sender, v.self, reply)
		return
	}
	equal, bits, digests, err := aae.Meet(t.Tree, q.Hash, q.Bits, round)
	if err != nil {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	reply.Equal, reply.Bits, reply.Digests = equal, uint32(bits), digests
	v.s.answer(sender, v.self, reply)
}

// takePush merges what another replica has.
func (v *vnodeActor) takePush(reply *messages.ExchangeReply, q messages.Push, read int64, sender *actor.PID) {
	if !v.writable(sender) || !v.inTime(read, sender) {
		return
	}
	merged, damaged := v.learn(q.Records, 0)
	reply.Merged, reply.Damaged = uint32(len(merged)), uint32(damaged+q.Damaged)
	v.write.acknowledge(answer{to: sender, message: reply}, true)
}

// mergePage takes what an exchange of this node has pulled.
func (v *vnodeActor) mergePage(m *mergePage, sender *actor.PID) {
	if !v.writable(sender) || !v.comparable(m.plan, m.n, nil, sender) || !v.inTime(m.read, sender) {
		return
	}
	push := messages.ToRecords(m.n, m.records)
	merged, damaged := v.learn(push.Records, m.bits)
	event := aae.Merged{Batch: m.batch, Records: merged, Damaged: damaged + push.Damaged}
	v.write.acknowledge(answer{to: sender, message: &pageMerged{by: m.by, event: event}}, true)
}

// learn merges records into what is stored, and tells for each what became of it, in
// leaves of so many bits. One that cannot be merged, or whose own value cannot be read now,
// does not keep the others from it.
func (v *vnodeActor) learn(records []messages.Replicate, bits uint8) (out []aae.Result, damaged int) {
	for _, r := range records {
		position, err := v.s.place(v.partition, uint32(v.partition), r.Key)
		var before, after vnode.Stored
		if err == nil {
			before, after, err = v.accept(r, position)
		}
		if err != nil {
			v.s.met(v.partition, err)
			v.s.Log.Error("a record was refused", slog.Uint64("partition", uint64(v.partition)), slog.Any("error", err))
			damaged++
			continue
		}
		result := aae.Result{
			Leaf: v.tree(r.N).Prefix(position, bits).Index, Peer: entryHash(r.Key, r.Record).Short(),
			Before: entryHash(r.Key, before.Record).Short(), After: entryHash(r.Key, after.Record).Short(),
		}
		if result.Before != result.After {
			v.s.Counters.Mended.Add(1)
		}
		out = append(out, result)
	}
	return out, damaged
}

// leafRange is the range of object keys of a leaf, from one of them on and until another,
// as far as those are there; false: there is nothing between.
func leafRange(shape *hashtree.Tree, p dynamo.Partition, n int, leaf hashtree.Prefix, from, until []byte) (lower, upper []byte, some bool) {
	first, last := shape.Range(leaf)
	lower, upper = vnode.PositionRange(p, n, first, last)
	if bytes.Compare(from, lower) > 0 {
		lower = from
	}
	if len(until) > 0 && bytes.Compare(until, upper) < 0 {
		upper = until
	}
	return lower, upper, bytes.Compare(lower, upper) < 0
}

// shape is a tree that says which ranges there are in a partition, and is not kept up.
func (s *Services) shape(p dynamo.Partition) *hashtree.Tree {
	return hashtree.New(s.Document().Settled.Partitions(), p)
}

// unreadable counts a leaf that could not be read to its end: a block that is lost must not
// keep the others from being mended. An engine that does not read any more fails instead.
func (s *Services) unreadable(p dynamo.Partition, n int, leaf hashtree.Prefix, err error) error {
	if errors.Is(err, storage.ErrClosed) || errors.Is(err, storage.ErrFailed) {
		return err
	}
	s.met(p, err)
	s.Log.Error("a leaf of a hash tree cannot be read", slog.Uint64("partition", uint64(p)), slog.Int("n", n), slog.String("leaf", leaf.String()),
		slog.Any("error", err))
	return nil
}

// list lists what lies in leaves. It runs on a reader.
func (s *Services) list(p dynamo.Partition, n int, l messages.Leaves) (*aae.Holding, error) {
	out, shape := &aae.Holding{}, s.shape(p)
	for _, leaf := range l.Index {
		if !out.Leaf() {
			break
		}
		prefix := hashtree.Prefix{Bits: l.Bits, Index: leaf}
		// Only the first of them begins before From, and the last ends after Until.
		lower, upper, some := leafRange(shape, p, n, prefix, l.From, l.Until)
		if !some {
			continue
		}
		_, err := s.entries(p, lower, upper, func(key, value []byte, h hashtree.Hash) bool { return out.Add(key, h.Short(), len(value)) })
		if err != nil {
			if err = s.unreadable(p, n, prefix, err); err != nil {
				return nil, err
			}
			out.Damaged++
		}
	}
	return out, nil
}

func (s *Services) listReply(reply *messages.ExchangeReply, p dynamo.Partition, n int, l messages.Leaves) error {
	holding, err := s.list(p, n, l)
	if err != nil {
		return err
	}
	for _, hashes := range holding.Lists {
		reply.Leaves = append(reply.Leaves, &messages.LeafList{Hash: hashes})
	}
	reply.Next, reply.Damaged = holding.Next, uint32(holding.Damaged)
	return nil
}

// find reads records by leaf and hash, as many of the first ones as a message holds. One
// that changed since is not found; of a leaf that cannot be read to its end all that are
// not found are damaged. It runs on a reader.
func (s *Services) find(p dynamo.Partition, n int, q aae.Pull) (page *messages.RecordPage, damaged int, err error) {
	wanted := map[uint32][]uint64{}
	for _, it := range q.Items {
		wanted[it.Leaf] = append(wanted[it.Leaf], it.Hash)
	}
	shape, found := s.shape(p), map[aae.Item]*messages.HandoffRecord{}
	whole := map[uint32]bool{} // of those that were read: to their end
	var sizes []int
	total := 0
	for _, it := range q.Items {
		if total > aae.MaxRecordBytes {
			break
		}
		if _, read := whole[it.Leaf]; !read {
			err := s.findIn(found, shape, p, n, q, it.Leaf, wanted[it.Leaf])
			if whole[it.Leaf] = err == nil; err != nil {
				if err = s.unreadable(p, n, hashtree.Prefix{Bits: q.Bits, Index: it.Leaf}, err); err != nil {
					return nil, 0, err
				}
			}
		}
		size := 0
		if r := found[it]; r != nil {
			size = len(r.Record)
		} else if !whole[it.Leaf] {
			size = -1
		}
		sizes = append(sizes, size)
		total += max(0, size)
	}
	handled, _, damaged, _ := aae.Batch(sizes)
	page = &messages.RecordPage{Handled: uint32(handled)}
	for _, it := range q.Items[:handled] {
		if r := found[it]; r != nil {
			page.Records = append(page.Records, r)
		}
	}
	return page, damaged, nil
}

// findIn adds the wanted records of one leaf. It reads what was listed, and that is not
// much.
func (s *Services) findIn(found map[aae.Item]*messages.HandoffRecord, shape *hashtree.Tree, p dynamo.Partition, n int, q aae.Pull, leaf uint32, wanted []uint64) error {
	lower, upper, some := leafRange(shape, p, n, hashtree.Prefix{Bits: q.Bits, Index: leaf}, q.From, q.Until)
	if !some {
		return nil
	}
	left := len(wanted)
	var bad error
	_, err := s.entries(p, lower, upper, func(key, value []byte, h hashtree.Hash) bool {
		if !slices.Contains(wanted, h.Short()) {
			return true
		}
		stored, err := vnode.DecodeStored(key, value)
		if err != nil {
			bad = err
			return false
		}
		_, k, _ := vnode.ParseObjectKey(key)
		found[aae.Item{Leaf: leaf, Hash: h.Short()}] = &messages.HandoffRecord{
			Bucket: []byte(k.Bucket), Key: []byte(k.Name), Record: version.Append(nil, stored.Record),
		}
		left--
		return left > 0
	})
	return errors.Join(err, bad)
}

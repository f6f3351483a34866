package actors

import (
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// index brings the index of what can be reaped up to what the turn leaves of an object.
func (w *writeBatch) index(object string, was touched) {
	record := w.fresh[object].Record // zero if it is dropped
	due, ends := reap.Due(record)
	w.object = append(w.object[:0], object...)
	if was.ends && (!ends || due != was.due) {
		w.key = vnode.AppendReapKey(w.key[:0], was.due, w.object)
		w.open().Delete(w.key)
	}
	if ends {
		w.key = vnode.AppendReapKey(w.key[:0], due, w.object)
		w.value = vnode.AppendReapValue(w.value[:0], record)
		w.open().Set(w.key, w.value)
	}
}

// reindex mends the entry of a key's object as it was asked for, if there is one: it may be
// wrong after the object was found damaged and written anew.
func (v *vnodeActor) reindex(n int, k messages.ReapKeyOf) error {
	position, err := v.s.place(v.partition, uint32(v.partition), k.Key)
	if err != nil {
		return err
	}
	object := vnode.AppendObjectKey(nil, v.partition, n, position, k.Key)
	entry := vnode.AppendReapKey(nil, k.Due, object)
	if _, err := v.s.Engine.Get(nil, entry); errors.Is(err, storage.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	stored, err := v.loadForWrite(object)
	if err != nil {
		return err
	}
	if due, ends := reap.Due(stored.Record); !ends || due != k.Due {
		v.write.open().Delete(entry)
	}
	if !stored.Record.IsZero() {
		v.write.setObject(object, stored, stored) // which writes the right one
	}
	return nil
}

// reapRead is what was read of the store to answer a reaping's question.
type reapRead struct {
	request *messages.ReapRequest
	n       int
	// version is that of the document by which it was looked for misplaced objects.
	version   uint64
	misplaced bool
	// whole reports whether what was read still lies here.
	whole func() bool
	// held are those of the keys whose records are as asked for, others those that are not.
	held   []uint32
	others []messages.ReapKeyOf
	err    error
}

// reap answers a question of a reaping. The records are read on the pool of readers; the
// answer comes in a turn after that, and when the disk has all that was read.
func (v *vnodeActor) reap(m *messages.ReapRequest, e rt.Envelope) {
	n, keys, err := v.toReap(m.GetPartition(), m)
	if err != nil {
		v.s.answer(e.Sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	if !v.writable(e.Sender) || !v.serves(e.Sender) || v.doubtful(e.Sender) {
		return
	}
	s, self, doc, p := v.s, v.self, v.s.Document(), v.partition
	whole := s.losses.watch(p)
	s.onReader(e, func() {
		out := &reapRead{request: m, n: n, version: doc.Version, whole: whole}
		if out.misplaced, out.err = s.misplacedIn(doc, p); out.err == nil {
			out.err = s.holdsToReap(out, p, keys)
		}
		s.System.Root.RequestWithCustomSender(self, out, e.Sender)
	})
}

// toReap checks a request about keys of this vnode's partition.
func (v *vnodeActor) toReap(p uint32, m interface {
	GetN() uint32
	GetKeys() []*messages.ReapKey
}) (n int, keys []messages.ReapKeyOf, err error) {
	n, keys, err = messages.ToReapKeys(m)
	if err == nil && p != uint32(v.partition) {
		err = fmt.Errorf("%w: %d was asked for %d", errMisplaced, v.partition, p)
	}
	for i := 0; i < len(keys) && err == nil; i++ {
		_, err = v.s.place(v.partition, p, keys[i].Key)
	}
	return n, keys, err
}

// misplacedIn reports whether objects of a partition lie here that this node is no replica
// of, or that were copied aside and are to be put back. It runs on a reader.
func (s *Services) misplacedIn(doc *member.Document, p dynamo.Partition) (some bool, err error) {
	lower, upper := vnode.SalvageRange(p)
	err = s.Engine.Scan(lower, upper, func(_, _ []byte) bool { some = true; return false })
	for n := 1; n <= quorum.MaxN && err == nil; n++ {
		if doc.Holds(p, n, s.Self) {
			continue
		}
		lower, upper := vnode.ReplicaRange(p, n)
		err = s.Engine.Scan(lower, upper, func(_, _ []byte) bool { some = true; return false })
	}
	return some, err
}

// holdsToReap tells the keys whose records are as asked for, and not seen by this node's
// clock either, from the others. It runs on a reader.
func (s *Services) holdsToReap(out *reapRead, p dynamo.Partition, keys []messages.ReapKeyOf) error {
	now := s.Now()
	for i, k := range keys {
		position, err := s.place(p, uint32(p), k.Key)
		if err != nil {
			return err
		}
		object := vnode.AppendObjectKey(nil, p, out.n, position, k.Key)
		b, err := s.Engine.Get(nil, object)
		var stored vnode.Stored
		if err == nil {
			stored, err = vnode.DecodeStored(object, b)
		}
		switch {
		case isCorrupt(err):
			s.corrupt(p, object, err)
		case err != nil && !errors.Is(err, storage.ErrNotFound):
			return err
		case stored.Record.IsZero() || stored.Record.CausalHash() != k.Hash:
			out.others = append(out.others, k)
		case reap.Reapable(stored.Record, now):
			out.held = append(out.held, uint32(i))
		}
	}
	return nil
}

// reapAnswer answers with what was read. The sync that it waits for has all that was read
// on the disk: a tombstone that a crash could still take must not be the reason to drop
// the others.
func (v *vnodeActor) reapAnswer(m *reapRead, sender *actor.PID) {
	if !v.writable(sender) || !v.serves(sender) || v.doubtful(sender) {
		return
	}
	if !m.whole() {
		v.s.answer(sender, v.self, v.s.isDamaged(v.partition))
		return
	}
	for i := 0; i < len(m.others) && m.err == nil; i++ {
		m.err = v.reindex(m.n, m.others[i])
	}
	if m.err != nil {
		v.s.answer(sender, v.self, v.readFailure(m.err))
		return
	}
	reply := v.s.reapReply(m.request)
	incarnation := v.state.Incarnation()
	reply.Incarnation, reply.Held = incarnation[:], m.held
	reply.Clear = reply.Clear && !m.misplaced && m.version == reply.Version
	v.write.acknowledge(answer{to: sender, message: reply}, true)
}

// reapReply says what this node keeps of a partition apart from its own vnode.
func (s *Services) reapReply(m *messages.ReapRequest) *messages.ReapReply {
	p := dynamo.Partition(m.GetPartition())
	changes, kept := s.hints.apart(p)
	moving := s.moving.Load()
	return &messages.ReapReply{
		Round: m.GetRound(), Version: s.Document().Version, Run: s.run, Changes: changes,
		Clear: !kept && moving != nil && !(*moving)[p], LifeMs: uint64(s.MessageLife.Milliseconds()),
	}
}

// reapDrop drops the records that are as named. Whatever has happened since they were asked
// for, that is safe: what they cover is gone for good (package reap).
func (v *vnodeActor) reapDrop(m *messages.ReapDropRequest, sender *actor.PID) {
	n, keys, err := v.toReap(m.GetPartition(), m)
	if err != nil {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	if !v.writable(sender) || !v.serves(sender) || v.doubtful(sender) {
		return
	}
	reply, w := &messages.ReapDropReply{Round: m.GetRound()}, &v.write
	for _, k := range keys {
		position, _ := v.s.place(v.partition, m.GetPartition(), k.Key) // was checked
		object := vnode.AppendObjectKey(nil, v.partition, n, position, k.Key)
		stored, err := v.loadForWrite(object)
		if err != nil {
			v.s.answer(sender, v.self, v.readFailure(err))
			return
		}
		if stored.Record.IsZero() || stored.Record.CausalHash() != k.Hash {
			continue
		}
		w.touch(object, stored)
		w.drop(object)
		reply.Dropped++
	}
	w.after = append(w.after, func() { v.s.Counters.Reaped.Add(uint64(reply.Dropped)) })
	w.acknowledge(answer{to: sender, message: reply}, true)
}

package actors

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// writeBatch collects the writes of one turn of a vnode and whom to answer.
type writeBatch struct {
	batch storage.Batch
	sync  bool
	// fresh holds the records written in this turn, which the store does not
	// show yet, by storage key. They go into the batch at the end of the turn:
	// of a key that is written often, the last record says it all.
	fresh map[string]vnode.Stored
	// applied are answered once reads see the batch, durable once the disk has
	// it.
	applied, durable []answer
	// askers are who has a write in the turn, once for each.
	askers []*actor.PID
	// after is what to do when reads see the turn's writes.
	after  []func()
	engine storage.Engine
	// hinted is how the turn has changed the table of hints; dropped are the keys
	// of those, and of objects, that it drops.
	hinted  []hintChange
	dropped map[string]bool
	// touched are the objects that the turn writes or drops; damaged are objects whose
	// values it could not read.
	touched            map[string]touched
	treeless           bool // nothing is noted for the trees: see upkeepPace
	damaged            [][]byte
	key, object, value []byte // buffers
}

// answer is a message to send to whom.
type answer struct {
	to      *actor.PID
	message any
	span    *ReplicaSpan // nil if the request is not traced
}

func (w *writeBatch) reset(e storage.Engine) {
	w.engine, w.sync = e, false
	clear(w.applied)                                                  // an idle vnode keeps no records alive
	w.applied, w.durable, w.askers = w.applied[:0], nil, w.askers[:0] // durable went to the engine's callback
	clear(w.after)
	w.after = w.after[:0]
	clear(w.fresh)
	clear(w.dropped)
	clear(w.touched)
	w.damaged = nil
	w.hinted = w.hinted[:0]
}

// open returns the turn's batch, which begins with the first that needs it.
func (w *writeBatch) open() storage.Batch {
	if w.batch == nil {
		w.batch = w.engine.NewBatch()
	}
	return w.batch
}

// set adds a record to the turn.
func (w *writeBatch) set(key []byte, s vnode.Stored) {
	if w.fresh == nil {
		w.fresh = make(map[string]vnode.Stored)
	}
	w.fresh[string(key)] = s
}

// setObject adds a record to the turn and notes what it was.
func (w *writeBatch) setObject(key []byte, s, was vnode.Stored) {
	w.touch(key, was)
	w.set(key, s)
}

// touch notes what an object was before the turn.
func (w *writeBatch) touch(key []byte, was vnode.Stored) {
	if _, again := w.touched[string(key)]; again || w.treeless {
		return
	}
	if w.touched == nil {
		w.touched = make(map[string]touched)
	}
	t := touched{n: vnode.ObjectN(key), position: vnode.ObjectPosition(key), was: hashUnder(key, was.Record)}
	t.due, t.ends = reap.Due(was.Record)
	w.touched[string(key)] = t
}

// touched is what an object was before the turn: the hash of its entry in the tree, and
// when it was due to be reaped, if it was.
type touched struct {
	n        int
	position [16]byte
	was      hashtree.Hash
	due      dynamo.Timestamp
	ends     bool
}

// drop removes a key, and what the turn has set there.
func (w *writeBatch) drop(key []byte) {
	if w.dropped == nil {
		w.dropped = make(map[string]bool)
	}
	w.dropped[string(key)] = true
	delete(w.fresh, string(key))
	w.open().Delete(key)
}

// finish returns the turn's batch, nil if there is nothing to commit.
func (w *writeBatch) finish() storage.Batch {
	for key, s := range w.fresh {
		w.key = append(w.key[:0], key...)
		w.value = vnode.AppendStored(w.value[:0], w.key, s)
		w.open().Set(w.key, w.value)
	}
	b := w.batch
	w.batch = nil
	return b
}

// loadForWrite reads what is stored under a key for a write that will replace
// it, zero if nothing. A value that cannot be read is an error, never nothing.
// A value that fails its checksum is set aside and treated as forgotten, which
// gives the key a new epoch; the other replicas bring back what was lost.
func (v *vnodeActor) loadForWrite(key []byte) (vnode.Stored, error) {
	if s, ok := v.write.fresh[string(key)]; ok {
		return s, nil
	}
	if v.write.dropped[string(key)] {
		return vnode.Stored{}, nil
	}
	b, err := v.s.Engine.Get(nil, key)
	if errors.Is(err, storage.ErrNotFound) {
		return vnode.Stored{}, nil
	}
	if err != nil {
		return vnode.Stored{}, err
	}
	s, err := vnode.DecodeStored(key, b)
	if isCorrupt(err) {
		v.s.countCorrupt(v.partition, key, err)
		v.s.hints.note(v.partition)                                 // an older record may take its place until an exchange mends it
		v.write.damaged = append(v.write.damaged, bytes.Clone(key)) // the tree may have what it was
		v.write.open().Set(vnode.CorruptKey(key), b)                // kept for inspection
		return vnode.Stored{}, nil
	}
	return s, err
}

// isCorrupt reports whether stored bytes are damaged, as opposed to unreadable
// right now or written by a newer program.
func isCorrupt(err error) bool {
	return errors.Is(err, vnode.ErrChecksum) || errors.Is(err, version.ErrCorrupt)
}

// coordinate makes the dot of a client's write and adds it to the turn's
// commit.
func (v *vnodeActor) coordinate(m *coordinate, sender *actor.PID) {
	if !v.writable(sender) || !v.current(m.plan, m.key.Bucket, m.n, sender) {
		return
	}
	v.extend()
	w := &v.write
	w.key = vnode.AppendObjectKey(w.key[:0], v.partition, m.n, m.position, m.key)
	var stored vnode.Stored
	var was HintCount
	var err error
	if m.hintFor == "" {
		stored, err = v.loadForWrite(w.key)
		v.s.met(v.partition, err)
	} else {
		stored, was, _, err = v.stored(v.hintKey(m.hintFor, m.n, m.position, m.key))
	}
	if err != nil {
		v.s.answer(sender, v.self, v.readFailure(err))
		return
	}
	result, err := v.state.Coordinate(stored, m.put)
	if err != nil {
		v.s.answer(sender, v.self, &refused{err: err})
		return
	}
	switch {
	case result.Known && !result.Marked:
	case m.hintFor == "":
		w.setObject(w.key, result.Stored, stored)
	default:
		if f := v.full(len(m.put.Value)); f != nil && !result.Known {
			v.s.answer(sender, v.self, f)
			return
		}
		v.setHint(m.hintFor, w.key, result.Stored, was)
	}
	v.s.Counters.coordinated(result)
	waited := v.turnAt.Sub(m.sent)
	made := &prepared{result: result, read: v.began, waited: messages.Micros(waited)}
	w.applied = append(w.applied, answer{to: sender, message: made})
	span := v.s.replicaSpan(m.trace, "write", v.partition, m.key, m.sent)
	w.acknowledge(answer{to: sender, message: &made.durable, span: span.after(waited)}, m.sync)
}

// acknowledge answers after the turn's commit: when the disk has it, or as
// soon as reads see it. A write that changed nothing is answered the same way,
// because what it relies on may still be on its way to the disk.
func (w *writeBatch) acknowledge(a answer, sync bool) {
	w.askers = append(w.askers, a.to)
	if !sync {
		w.applied = append(w.applied, a)
		return
	}
	w.sync = true
	w.durable = append(w.durable, a)
	w.open()
}

// replicate merges a coordinator's record into what is stored.
func (v *vnodeActor) replicate(m *messages.ReplicateRequest, e rt.Envelope) {
	v.s.served.Add(1)
	sender := e.Sender
	if !v.writable(sender) {
		return
	}
	req, err := messages.ToReplicate(m)
	var position [16]byte
	if err == nil {
		position, err = v.s.place(v.partition, m.GetPartition(), req.Key)
	}
	if err != nil {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	if !v.inTime(m.GetReadMs(), sender) || !v.current(m.GetPlan(), req.Key.Bucket, req.N, sender) {
		return
	}
	owns, standsIn := v.owns(req.N), req.HintFor != "" && req.HintFor != v.s.Self
	switch {
	case owns || standsIn:
	case v.isBehind(m.GetPlan(), sender):
		v.s.answer(sender, v.self, messages.Fail(messages.CodeNotReady, "%s does not know version %d of the ring yet", v.s.Self, m.GetPlan()))
		return
	default:
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "%v: %s is no replica of partition %d for n = %d", errMisplaced, v.s.Self, v.partition, req.N))
		return
	}
	if owns {
		if err := v.merge(req, position); err != nil {
			v.s.met(v.partition, err)
			v.s.answer(sender, v.self, v.readFailure(err))
			return
		}
	}
	came := v.came(e)
	waited := v.turnAt.Sub(came)
	a := answer{to: sender, message: &messages.ReplicateReply{WaitedUs: messages.Micros(waited)}}
	a.span = v.s.replicaSpan(m.GetTraceParent(), "write", v.partition, req.Key, came).after(waited)
	if standsIn { // also one that is getting the partition: who it stands in for lacks the record
		v.replicateHint(req, position, m.GetSync(), a)
		return
	}
	v.write.acknowledge(a, m.GetSync())
}

// merge adds a coordinator's record to what is stored of its key.
func (v *vnodeActor) merge(r messages.Replicate, position [16]byte) error {
	_, _, err := v.accept(r, position)
	if errors.Is(err, vnode.ErrBroken) {
		// Whoever is in this turn is answered by the mailbox.
		panic(fmt.Sprintf("vnode %d: position %x: %v", v.partition, position, err))
	}
	return err
}

// accept adds a record to what is stored of its key, and returns that before and after.
// An error may be vnode.ErrBroken.
func (v *vnodeActor) accept(r messages.Replicate, position [16]byte) (before, after vnode.Stored, err error) {
	w := &v.write
	w.key = vnode.AppendObjectKey(w.key[:0], v.partition, r.N, position, r.Key)
	if before, err = v.loadForWrite(w.key); err != nil {
		return before, before, err
	}
	after, changed, err := v.state.Accept(before, r.Record)
	if err == nil && changed {
		w.setObject(w.key, after, before)
	}
	return before, after, err
}

// commit applies the turn's writes and arranges the answers.
func (v *vnodeActor) commit() {
	w := &v.write
	v.mark()
	batch := w.finish()
	var committing time.Time
	if len(w.askers) > 0 {
		committing = time.Now()
		w.turned(committing.Sub(v.turnAt))
	}
	if batch != nil {
		d := storage.Applied
		if w.sync {
			d = storage.Synced
		}
		self, s, durable, partition, unsynced := v.self, v.s, w.durable, v.partition, &v.unsynced
		unsynced.Add(int64(len(durable)))
		err := batch.Commit(d, func(err error) {
			unsynced.Add(-int64(len(durable)))
			s.committed(self, partition, durable, committing, err)
		})
		if err != nil {
			unsynced.Add(-int64(len(durable)))
			v.uncommitted(err)
			return
		}
	}
	w.hinted = w.hinted[:0] // is committed
	v.grow()
	var took time.Duration
	if len(w.applied) > 0 {
		took = time.Since(committing)
	}
	for _, a := range w.applied {
		a.stored(v.s, took)
		v.s.answer(a.to, v.self, a.message)
	}
	for _, do := range w.after {
		do()
	}
	w.reset(v.s.Engine)
}

// uncommitted answers everybody of a turn whose batch was not applied.
func (v *vnodeActor) uncommitted(err error) {
	failure := messages.Fail(messages.CodeStorage, "partition %d on %s: %v", v.partition, v.s.Self, err)
	v.uncountHints()
	v.fail("commit", err) // first, so that health says so before the answers do
	for _, to := range v.write.askers {
		v.s.answer(to, v.self, failure)
	}
}

// read answers with the stored record: at once if it is in memory, else from
// the pool of readers, so that a slow disk does not hold up writes. The reader
// sees at least every write that the vnode had applied when it took the request.
func (v *vnodeActor) read(m *messages.ReadRequest, e rt.Envelope) {
	v.s.served.Add(1)
	sender := e.Sender
	req, err := messages.ToRead(m)
	var position [16]byte
	if err == nil {
		position, err = v.s.place(v.partition, m.GetPartition(), req.Key)
	}
	if err != nil {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	if !v.current(m.GetPlan(), req.Key.Bucket, req.N, sender) {
		return
	}
	s, self, partition, began := v.s, v.self, v.partition, v.began
	at := v.readClock(e, m.GetTraceParent(), req.Key)
	if !v.readable(req.N) {
		v.isBehind(m.GetPlan(), sender)
		s.onReader(e, func() {
			read := time.Now()
			s.answer(sender, self, at.fromStore(s, read, dated(s.hintsReply(partition, position, req), began)))
		})
		return
	}
	proof, whole := s.authoritative(partition, req.N), s.losses.watch(partition)
	if cache, ok := s.Engine.(storage.Peeker); ok {
		v.write.key = vnode.AppendObjectKey(v.write.key[:0], partition, req.N, position, req.Key)
		if b, ok := cache.Peek(v.write.key); ok {
			s.answer(sender, self, at.fromMemory(s, dated(s.readReply(partition, req, v.write.key, b, nil, proof), began)))
			return
		}
	}
	s.onReader(e, func() {
		read := time.Now()
		key := vnode.AppendObjectKey(make([]byte, 0, 64+len(req.Key.Name)), partition, req.N, position, req.Key)
		b, err := s.Engine.Get(nil, key)
		if !whole() {
			s.answer(sender, self, s.isDamaged(partition))
			return
		}
		s.answer(sender, self, at.fromStore(s, read, dated(s.readReply(partition, req, key, b, err, proof), began)))
	})
}

// onReader runs a read of the store on the pool. The sender gets an answer also
// when the pool is full, when the request's time is over before its turn, and
// when the read panics.
func (s *Services) onReader(request rt.Envelope, read func()) {
	submitted := s.Readers.Submit(func() {
		if request.Expired(time.Now()) {
			s.expired(request.Sender, request.Message)
			return
		}
		returned := false
		defer func() {
			if !returned {
				s.failed(request.Sender, request.Message)
			}
		}()
		read()
		returned = true
	})
	if !submitted {
		s.shed(request.Sender, request.Message)
	}
}

func (v *vnodeActor) readFailure(err error) *messages.Failure {
	return messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", v.partition, v.s.Self, err)
}

// readReply is the answer to a read for which the store gave b and err. proof says
// whether nothing found was a proof before the store was read; it must be one now,
// too: meanwhile the partition may have moved away, and been dropped here.
func (s *Services) readReply(p dynamo.Partition, req messages.Read, key, b []byte, err error, proof bool) proto.Message {
	proof = proof && s.authoritative(p, req.N)
	if errors.Is(err, storage.ErrNotFound) {
		return &messages.ReadReply{Authoritative: proof}
	}
	var record []byte
	if err == nil {
		record, err = vnode.StoredRecord(key, b, req.DigestAbove)
	}
	switch {
	case isCorrupt(err):
		// Missing, and to be repaired; never "not found" to the client.
		s.corrupt(p, key, err)
		return &messages.ReadReply{}
	case err != nil:
		s.met(p, err)
		return messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", p, s.Self, err)
	}
	return &messages.ReadReply{Record: record, Authoritative: proof}
}

package actors

import (
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo"
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
	// show yet, by storage key.
	fresh map[string]vnode.Stored
	// applied are answered once reads see the batch, durable once the disk has
	// it.
	applied, durable []answer
	engine           storage.Engine
	key, value       []byte // buffers
}

// answer is a message to send to whom.
type answer struct {
	to      *actor.PID
	message any
}

func (w *writeBatch) reset(e storage.Engine) {
	w.engine, w.sync = e, false
	w.applied, w.durable = nil, nil // handed to the engine's callback
	clear(w.fresh)
}

// set adds a record to the batch.
func (w *writeBatch) set(key []byte, s vnode.Stored) {
	if w.batch == nil {
		w.batch = w.engine.NewBatch()
	}
	if w.fresh == nil {
		w.fresh = make(map[string]vnode.Stored)
	}
	w.value = vnode.AppendStored(w.value[:0], key, s)
	w.batch.Set(key, w.value)
	w.fresh[string(key)] = s
}

// load reads what is stored under a key, zero if nothing. A value that cannot
// be read is an error, never nothing.
func (v *vnodeActor) load(key []byte) (vnode.Stored, error) {
	if s, ok := v.write.fresh[string(key)]; ok {
		return s, nil
	}
	b, err := v.s.Engine.Get(nil, key)
	if errors.Is(err, storage.ErrNotFound) {
		return vnode.Stored{}, nil
	}
	if err != nil {
		return vnode.Stored{}, err
	}
	return vnode.DecodeStored(key, b)
}

// loadForWrite is load for a write that will replace the record: a value that
// fails its checksum is set aside and treated as forgotten, which gives the key
// a new epoch. The other replicas bring back what was lost.
func (v *vnodeActor) loadForWrite(key []byte) (vnode.Stored, error) {
	s, err := v.load(key)
	if errors.Is(err, vnode.ErrChecksum) || errors.Is(err, version.ErrCorrupt) {
		v.s.corrupt(v.partition, key, err)
		v.setAside(key)
		return vnode.Stored{}, nil
	}
	return s, err
}

// setAside keeps the bytes of an unreadable value for inspection.
func (v *vnodeActor) setAside(key []byte) {
	if b, err := v.s.Engine.Get(nil, key); err == nil {
		if v.write.batch == nil {
			v.write.batch = v.s.Engine.NewBatch()
		}
		v.write.batch.Set(vnode.CorruptKey(key), b)
	}
}

// coordinate makes the dot of a client's write and adds it to the turn's
// commit.
func (v *vnodeActor) coordinate(m *coordinate, sender *actor.PID) {
	if !v.writable(sender) {
		return
	}
	v.extend()
	w := &v.write
	w.key = vnode.AppendObjectKey(w.key[:0], v.partition, m.n, m.position, m.key)
	stored, err := v.loadForWrite(w.key)
	if err != nil {
		v.s.answer(sender, v.self, v.readFailure(err))
		return
	}
	result, err := v.state.Coordinate(stored, m.put)
	if err != nil {
		v.s.answer(sender, v.self, &refused{err: err})
		return
	}
	if !result.Known {
		w.set(w.key, result.Stored)
	}
	v.s.Counters.coordinated(result)
	w.applied = append(w.applied, answer{sender, &prepared{result: result}})
	w.acknowledge(answer{sender, &durable{}}, m.sync)
}

// acknowledge answers after the turn's commit: when the disk has it, or as
// soon as reads see it. A write that changed nothing is answered the same way,
// because what it relies on may still be on its way to the disk.
func (w *writeBatch) acknowledge(a answer, sync bool) {
	if !sync {
		w.applied = append(w.applied, a)
		return
	}
	w.sync = true
	w.durable = append(w.durable, a)
	if w.batch == nil {
		w.batch = w.engine.NewBatch()
	}
}

// replicate merges a coordinator's record into what is stored.
func (v *vnodeActor) replicate(m *messages.ReplicateRequest, sender *actor.PID) {
	if !v.writable(sender) {
		return
	}
	req, err := messages.ToReplicate(m)
	if err != nil {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	w := &v.write
	w.key = vnode.AppendObjectKey(w.key[:0], v.partition, req.N, v.s.position(req.Key), req.Key)
	stored, err := v.loadForWrite(w.key)
	if err != nil {
		v.s.answer(sender, v.self, v.readFailure(err))
		return
	}
	merged, changed, err := v.state.Accept(stored, req.Record)
	if err != nil {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInternal, "%v", err))
		panic(fmt.Sprintf("vnode %d: %v: %v", v.partition, req.Key, err))
	}
	if changed {
		w.set(w.key, merged)
	}
	w.acknowledge(answer{sender, &messages.ReplicateReply{}}, m.GetSync())
}

// commit applies the turn's writes and arranges the answers.
func (v *vnodeActor) commit() {
	w := &v.write
	batch := w.batch
	w.batch = nil
	if batch != nil {
		d := storage.Applied
		if w.sync {
			d = storage.Synced
		}
		self, s, durable, partition := v.self, v.s, w.durable, v.partition
		err := batch.Commit(d, func(err error) { s.committed(self, partition, durable, err) })
		if err != nil {
			v.uncommitted(err)
			return
		}
	}
	for _, a := range w.applied {
		v.s.answer(a.to, v.self, a.message)
	}
}

// uncommitted answers everybody of a turn whose batch was not applied.
func (v *vnodeActor) uncommitted(err error) {
	failure := messages.Fail(messages.CodeStorage, "partition %d on %s: %v", v.partition, v.s.Self, err)
	told := map[string]bool{}
	for _, list := range [][]answer{v.write.applied, v.write.durable} {
		for _, a := range list {
			if a.to != nil && !told[a.to.Address+"/"+a.to.Id] {
				told[a.to.Address+"/"+a.to.Id] = true
				v.s.answer(a.to, v.self, failure)
			}
		}
	}
	v.fail("commit", err)
}

// read answers with the stored record, from the pool of readers so that a slow
// disk does not hold up writes. The reader sees at least every write that the
// vnode had applied when it took the request.
func (v *vnodeActor) read(m *messages.ReadRequest, sender *actor.PID) {
	key, err := messages.ToKey(m.GetBucket(), m.GetKey())
	if err != nil {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	s, self, partition := v.s, v.self, v.partition
	digest := int(m.GetDigestAbove())
	n := int(m.GetN())
	if !s.Readers.Submit(func() { s.readRecord(self, sender, partition, n, key, digest) }) {
		v.s.shed(sender, m)
	}
}

func (v *vnodeActor) readFailure(err error) *messages.Failure {
	return messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", v.partition, v.s.Self, err)
}

// readRecord runs on a reader.
func (s *Services) readRecord(vnodePID, sender *actor.PID, p dynamo.Partition, n int, key dynamo.Key, digest int) {
	storageKey := vnode.AppendObjectKey(make([]byte, 0, 64+len(key.Name)), p, n, s.position(key), key)
	b, err := s.Engine.Get(nil, storageKey)
	if errors.Is(err, storage.ErrNotFound) {
		s.answer(sender, vnodePID, &messages.ReadReply{Authoritative: true})
		return
	}
	var record []byte
	if err == nil {
		record, err = vnode.StoredRecord(storageKey, b, digest)
	}
	if errors.Is(err, vnode.ErrChecksum) || errors.Is(err, version.ErrCorrupt) {
		// Missing, and to be repaired; never "not found" to the client.
		s.corrupt(p, storageKey, err)
		s.answer(sender, vnodePID, &messages.ReadReply{})
		return
	}
	if err != nil {
		s.answer(sender, vnodePID, messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", p, s.Self, err))
		return
	}
	s.answer(sender, vnodePID, &messages.ReadReply{Record: record, Authoritative: true})
}

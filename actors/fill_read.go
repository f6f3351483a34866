package actors

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// digestBytes is how many bytes of records one answer of hashes is made of, at
// most, unless it is a single one.
const digestBytes = 4 << 20

// fill serves a replica that lacks data.
//
// The read begins when the writes of this turn are applied, so it sees every write
// that this vnode accepted before it took the request. That is what a fill relies
// on: until this node knew that the partition moves, it accepted writes whose
// coordinators did not know of the new replica; the last of them may be in this very
// turn. From here on it refuses such, so that each write that the read misses went
// to the new replica itself.
func (v *vnodeActor) fill(m *messages.FillRequest, e rt.Envelope) {
	if !v.serves(e.Sender) || v.refuses(0, e.Sender) {
		return
	}
	s, self, partition, sender, began := v.s, v.self, v.partition, e.Sender, v.began
	whole := s.losses.watch(partition)
	req, err := messages.ToFill(m)
	lower, _ := vnode.ReplicaRange(partition, req.N)
	switch {
	case err != nil:
	case m.GetPartition() != uint32(partition):
		err = fmt.Errorf("%w: %d was asked for %d", errMisplaced, partition, m.GetPartition())
	case len(m.GetStore()) != len(member.StoreID{}):
		err = fmt.Errorf("store id of %d bytes", len(m.GetStore()))
	case len(req.Cursor) > 0 && !bytes.HasPrefix(req.Cursor, lower):
		err = fmt.Errorf("the cursor is not one of partition %d, n = %d", partition, req.N)
	}
	for i := 0; i < len(req.Wanted) && err == nil; i++ {
		_, err = s.place(partition, m.GetPartition(), req.Wanted[i])
	}
	if err != nil {
		s.answer(sender, self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	if why := v.noSource(m, dynamo.NodeID(sender.GetAddress())); why != "" {
		s.answer(sender, self, messages.Fail(messages.CodeStale, "%s: %s", s.Self, why))
		return
	}
	v.write.askers = append(v.write.askers, sender)
	v.write.after = append(v.write.after, func() {
		s.onReader(e, func() {
			reply := s.fillReply(partition, m.GetBatch(), req)
			if !whole() { // the end of what is left is not the end
				reply = s.isDamaged(partition)
			}
			s.answer(sender, self, dated(reply, began))
		})
	})
}

// noSource says why this node does not know that what it has is what the asker
// lacks; empty if it does.
func (v *vnodeActor) noSource(m *messages.FillRequest, asker dynamo.NodeID) string {
	doc := v.s.Document()
	if doc == nil {
		return "not in a cluster yet"
	}
	f, lacks := doc.Filling(v.partition, asker)
	switch {
	case doc.Target() != m.GetTarget():
		return fmt.Sprintf("asked by ring %d, it goes by %d", m.GetTarget(), doc.Target())
	case f.Since != m.GetSince(), !lacks || !doc.Gives(f, member.StoreID(m.GetStore()), m.GetTarget()):
		return fmt.Sprintf("does not know that %s lacks something, or that writes go to it", asker)
	case !doc.Holds(v.partition, int(m.GetN()), v.s.Self):
		return "is no replica"
	}
	return ""
}

// fillReply is the answer to a request that was checked. It runs on a reader.
func (s *Services) fillReply(p dynamo.Partition, batch uint64, req messages.FillBatch) proto.Message {
	out := &messages.FillReply{Batch: batch}
	var err error
	if len(req.Wanted) > 0 {
		err = s.readWanted(out, p, req)
	} else {
		err = s.readPage(out, p, req)
	}
	if err != nil {
		s.met(p, err)
		return messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", p, s.Self, err)
	}
	return out
}

// readPage adds the records from the cursor on, or their hashes.
func (s *Services) readPage(out *messages.FillReply, p dynamo.Partition, req messages.FillBatch) error {
	limit, limitBytes := batchRecords, batchBytes
	if req.Digests {
		limit, limitBytes = messages.MaxWanted, digestBytes
	}
	lower, upper := vnode.ReplicaRange(p, req.N)
	if len(req.Cursor) > 0 {
		lower = req.Cursor
	}
	seen, size := 0, 0
	var failed error
	err := s.Engine.Scan(lower, upper, func(key, value []byte) bool {
		if out.More = seen >= limit || seen > 0 && size+len(value) > limitBytes; out.More {
			return false
		}
		seen++
		size += len(value)
		out.Cursor = append(bytes.Clone(key), 0)
		failed = s.addFill(out, p, key, value, req.Digests)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// readWanted adds the wanted records that are here, as many as a batch holds.
func (s *Services) readWanted(out *messages.FillReply, p dynamo.Partition, req messages.FillBatch) error {
	size := 0
	for _, k := range req.Wanted {
		key := vnode.AppendObjectKey(nil, p, req.N, ring.Hash(k).Bytes(), k)
		value, err := s.Engine.Get(nil, key)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if out.Handled > 0 && (out.Handled >= batchRecords || size+len(value) > batchBytes) {
			return nil
		}
		out.Handled++
		size += len(value)
		if err == nil {
			if err := s.addFill(out, p, key, value, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// addFill adds one record, or its hash. One that is damaged is left out, and the
// answer says that something was.
func (s *Services) addFill(out *messages.FillReply, p dynamo.Partition, storageKey, value []byte, digest bool) error {
	stored, err := vnode.DecodeStored(storageKey, value)
	_, key, ok := vnode.ParseObjectKey(storageKey)
	switch {
	case isCorrupt(err) || err == nil && !ok:
		s.corrupt(p, storageKey, errors.Join(err, vnode.ErrChecksum))
		out.Damaged++
	case err != nil:
		return err
	case stored.Record.IsZero():
	case digest:
		hash := stored.Record.CausalHash()
		out.Digests = append(out.Digests, &messages.FillDigest{Bucket: []byte(key.Bucket), Key: []byte(key.Name), Hash: hash[:]})
	default:
		out.Records = append(out.Records, &messages.HandoffRecord{
			Bucket: []byte(key.Bucket), Key: []byte(key.Name), Record: version.Append(nil, stored.Record),
		})
	}
	return nil
}

// differing are the keys whose records here are not those that the digests are of.
func (s *Services) differing(p dynamo.Partition, n int, digests []messages.Digest) ([]*messages.FillKey, error) {
	var out []*messages.FillKey
	for _, d := range digests {
		position, err := s.place(p, uint32(p), d.Key)
		if err != nil {
			return nil, err
		}
		key := vnode.AppendObjectKey(nil, p, n, position, d.Key)
		value, err := s.Engine.Get(nil, key)
		var stored vnode.Stored
		if err == nil {
			stored, err = vnode.DecodeStored(key, value)
		}
		// One that is damaged here is set aside by the vnode that merges it.
		if err != nil && !errors.Is(err, storage.ErrNotFound) && !isCorrupt(err) {
			s.met(p, err)
			return nil, err
		}
		if err != nil || stored.Record.CausalHash() != d.Hash {
			out = append(out, &messages.FillKey{Bucket: []byte(d.Key.Bucket), Key: []byte(d.Key.Name)})
		}
	}
	return out, nil
}

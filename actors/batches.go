package actors

import (
	"bytes"
	"errors"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
)

// needs says who must confirm a batch of one n.
func (s *Services) needs(p dynamo.Partition, hints []hint) transfer.Batch {
	doc := s.Document()
	n := vnode.ObjectN(hints[0].object)
	b := transfer.Batch{
		Size: len(hints), Needed: n/2 + 1, Replicas: doc.Holders(p, n),
		Own:   !slices.ContainsFunc(hints, func(h hint) bool { return !h.own }),
		Lists: [][]dynamo.NodeID{doc.Reading(p).Primaries(p, n)},
	}
	if also, ok := doc.AlsoWriting(p, n); ok {
		b.Lists = append(b.Lists, also.Primaries(p, n))
	}
	for i := range hints {
		_, key, _ := vnode.ParseObjectKey(hints[i].object)
		properties, _ := doc.Bucket(key.Bucket)
		b.Needed = max(b.Needed, properties.Quorum.W)
	}
	return b
}

// sameNeeds reports whether two batches need the same nodes to confirm them.
func sameNeeds(a, b transfer.Batch) bool {
	return slices.Equal(a.Replicas, b.Replicas) && slices.EqualFunc(a.Lists, b.Lists, slices.Equal[[]dynamo.NodeID])
}

// readBatch reads the next records of a slot, all of one n. It runs on a reader.
func (s *Services) readBatch(at slot, cursor []byte) (out *batchRead) {
	whole := s.losses.watch(at.partition)
	defer func() {
		if out.err == nil && !whole() {
			out.err = errDropping // what is not there may be there again
		}
	}()
	if at.node == "" {
		return s.readMisplaced(at.partition, cursor)
	}
	_, upper := vnode.HintRange(at.node, at.partition)
	out = &batchRead{next: cursor}
	out.scan(s, at, cursor, upper)
	return out
}

// readMisplaced reads objects that this node is no replica of.
func (s *Services) readMisplaced(p dynamo.Partition, cursor []byte) *batchRead {
	out := &batchRead{next: cursor}
	for n := 1; n <= quorum.MaxN && len(out.hints) == 0 && out.err == nil; n++ {
		lower, upper := vnode.ReplicaRange(p, n)
		if s.Document().Holds(p, n, s.Self) || bytes.Compare(cursor, upper) >= 0 {
			continue
		}
		if bytes.Compare(cursor, lower) > 0 {
			lower = cursor
		}
		out.scan(s, slot{partition: p}, lower, upper)
	}
	return out
}

// scan adds what lies in a range, as much of it as a batch holds and as has one n.
func (b *batchRead) scan(s *Services, at slot, lower, upper []byte) {
	err := s.Engine.Scan(lower, upper, func(key, value []byte) bool {
		key = bytes.Clone(key)
		object, read := key, s.readObject
		if _, stands, ok := vnode.ParseHintKey(key); ok {
			object, read = stands, s.readHint
		}
		full := len(b.hints) >= batchRecords || b.bytes+len(value) > batchBytes
		if len(b.hints) > 0 && (full || vnode.ObjectN(object) != vnode.ObjectN(b.hints[0].object)) {
			return false
		}
		h, err := read(at, key, object, bytes.Clone(value))
		if err != nil {
			b.err = err
			return false
		}
		b.hints = append(b.hints, h)
		b.bytes += len(h.encoded)
		b.next = append(bytes.Clone(key), 0)
		return true
	})
	b.err = errors.Join(b.err, err)
}

// readObject reads one of this node's own objects.
func (s *Services) readObject(at slot, key, object, value []byte) (hint, error) {
	h := hint{key: key, object: object}
	stored, err := vnode.DecodeStored(key, value)
	if isCorrupt(err) {
		s.corrupt(at.partition, key, err)
		h.damaged = true
		return h, nil
	}
	if err == nil && !stored.Record.IsZero() {
		h.record, h.encoded = stored.Record, version.Append(nil, stored.Record)
	}
	return h, err
}

// readHint reads one hint and, where it stands for this node's own record, that
// record.
func (s *Services) readHint(at slot, key, object, value []byte) (hint, error) {
	h := hint{key: key, object: object}
	stored, err := vnode.DecodeStored(key, value)
	if err == nil && stored.IsZero() {
		h.own = true
		value, err = s.Engine.Get(nil, object)
		if errors.Is(err, storage.ErrNotFound) {
			return h, nil // it was reaped; nothing is owed any more
		}
		if err != nil {
			return h, err
		}
		stored, err = vnode.DecodeStored(object, value)
	}
	switch {
	case isCorrupt(err):
		s.corrupt(at.partition, object, err)
		h.damaged = true
		return h, nil
	case err != nil:
		return h, err
	}
	h.record = stored.Record
	h.encoded = version.Append(nil, stored.Record)
	return h, nil
}

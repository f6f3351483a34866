package actors

import (
	"errors"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// lookup answers what the node has of a key: its own record, and what it keeps of it for
// others. It reads the store as a vnode's reads do, and asks no vnode: one that is stuck does
// not hide what it has.
func (s *Services) lookup(e rt.Envelope, self *actor.PID) {
	m := e.Message.(*messages.LookupRequest)
	key, err := messages.ToKey(m.GetBucket(), m.GetKey())
	doc := s.Document()
	switch {
	case err != nil:
		s.answer(e.Sender, self, messages.Fail(messages.CodeInvalid, "%v", err))
	case doc == nil:
		s.answer(e.Sender, self, messages.Fail(messages.CodeNotReady, "%s is not in a cluster yet", s.Self))
	default:
		s.onReader(e, func() { s.answer(e.Sender, self, s.has(doc, key)) })
	}
}

// has is the answer to a lookup.
func (s *Services) has(doc *member.Document, key dynamo.Key) proto.Message {
	properties, _ := doc.Bucket(key.Bucket)
	position, n := ring.Hash(key), properties.Quorum.N
	p := ring.PartitionOf(position, doc.Settled.Partitions())
	out := messages.Lookup{Partition: p, N: n, Version: doc.Version, Role: s.role(doc, p, n)}
	if row := s.vnodes.row(p); !row.Serving {
		out.Problem = row.Problem
	}
	if b, err := s.Engine.Get(nil, vnode.MetaKey(p)); err == nil {
		if meta, err := vnode.DecodeMeta(b); err == nil {
			out.Incarnation = meta.Incarnation
		}
	}
	object := vnode.AppendObjectKey(nil, p, n, position.Bytes(), key)
	for _, node := range append([]dynamo.NodeID{""}, owed(doc, p, n)...) {
		at := object
		if node != "" {
			at = vnode.AppendHintKey(nil, node, object)
		}
		c, found, err := s.copyAt(at)
		if err != nil {
			s.met(p, err)
			return messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", p, s.Self, err)
		}
		if c.For = node; found && len(out.Copies) < messages.MaxCopies {
			out.Copies = append(out.Copies, c)
		}
	}
	return messages.FromLookup(out)
}

// owed are those for whom something of a key may be kept: its holders first.
func owed(doc *member.Document, p dynamo.Partition, n int) []dynamo.NodeID {
	out := doc.Holders(p, n)
	for _, m := range doc.Members {
		if !slices.Contains(out, m.ID) {
			out = append(out, m.ID)
		}
	}
	return out
}

// copyAt is what is stored under a key, without the values.
func (s *Services) copyAt(key []byte) (c messages.Copy, found bool, err error) {
	b, err := s.Engine.Get(nil, key)
	if errors.Is(err, storage.ErrNotFound) {
		return c, false, nil
	}
	if err != nil {
		return c, false, err
	}
	stored, err := vnode.DecodeStored(key, b)
	switch {
	case isCorrupt(err):
		return messages.Copy{Damaged: true}, true, nil
	case err != nil:
		return c, false, err
	case stored.Record.IsZero():
		return messages.Copy{Mark: true}, true, nil
	}
	c.Record, c.Values = messages.Bare(stored.Record)
	return c, true, nil
}

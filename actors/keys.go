package actors

import (
	"bytes"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

const (
	// maxKeysPage is how many keys a page of a listing has at most.
	maxKeysPage = 1000
	// maxKeysScanned is how many records one page may look at.
	maxKeysScanned = 20_000
)

// keys answers with a page of the keys that this vnode holds, tombstones
// included: whether a key has a value is for a read to say.
func (v *vnodeActor) keys(m *messages.KeysRequest, e rt.Envelope) {
	s, self, partition, sender := v.s, v.self, v.partition, e.Sender
	if m.GetPartition() != uint32(partition) {
		s.answer(sender, self, messages.Fail(messages.CodeInvalid, "partition %d was asked for %d", partition, m.GetPartition()))
		return
	}
	if v.refuses(0, sender) {
		return
	}
	whole := s.losses.watch(partition)
	s.onReader(e, func() { s.listKeys(self, sender, partition, m, whole) })
}

// listKeys runs on a reader.
func (s *Services) listKeys(vnodePID, sender *actor.PID, p dynamo.Partition, m *messages.KeysRequest, whole func() bool) {
	lower, upper := vnode.ObjectRange(p)
	if c := m.GetCursor(); len(c) > 0 {
		if !bytes.HasPrefix(c, lower) {
			s.answer(sender, vnodePID, messages.Fail(messages.CodeInvalid, "the cursor is not one of partition %d", p))
			return
		}
		lower = append(bytes.Clone(c), 0)
	}
	limit := maxKeysPage
	if n := int(m.GetLimit()); n > 0 && n < limit {
		limit = n
	}
	var reply messages.KeysReply
	scanned := 0
	if why := s.unlisted(p, m.GetBucket()); why != nil {
		s.answer(sender, vnodePID, why)
		return
	}
	err := s.Engine.Scan(lower, upper, func(storageKey, _ []byte) bool {
		scanned++
		if _, key, ok := vnode.ParseObjectKey(storageKey); ok && key.Bucket == string(m.GetBucket()) {
			reply.Keys = append(reply.Keys, []byte(key.Name))
		}
		if len(reply.Keys) == limit || scanned == maxKeysScanned {
			reply.Cursor = bytes.Clone(storageKey)
			return false
		}
		return true
	})
	// Meanwhile the partition may have moved away, and been dropped here.
	if why := s.unlisted(p, m.GetBucket()); why != nil {
		s.answer(sender, vnodePID, why)
		return
	}
	if !whole() {
		s.answer(sender, vnodePID, s.isDamaged(p))
		return
	}
	if err != nil {
		s.met(p, err)
		s.answer(sender, vnodePID, messages.Fail(messages.CodeStorage, "list partition %d on %s: %v", p, s.Self, err))
		return
	}
	s.answer(sender, vnodePID, &reply)
}

// unlisted is why a listing of what lies here would lack keys: this node is no replica
// that reads use, or is being filled.
func (s *Services) unlisted(p dynamo.Partition, bucket []byte) *messages.Failure {
	if why := s.quarantined(); why != "" {
		return messages.Fail(messages.CodeNotReady, "%s", why)
	}
	doc := s.Document()
	properties, _ := doc.Bucket(string(bucket))
	if doc.Authoritative(p, properties.Quorum.N, s.Self) {
		return nil
	}
	f := messages.Fail(messages.CodeStale, "%s does not have all keys of partition %d", s.Self, p)
	f.DocumentVersion = doc.Version
	return f
}

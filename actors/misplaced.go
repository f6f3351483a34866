package actors

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// misplacedEvery is how often it is looked for objects that belong elsewhere,
// besides when the document changes: a write that was let in with the document
// before may have come to the store after the look.
const misplacedEvery = time.Minute

// misplacedTable is where objects lie that this node is no replica of: what is left
// of a partition, or of some n in it, that went to others.
type misplacedTable struct {
	mu         sync.Mutex
	version    uint64 // of the document that it was found with; 0: not known
	partitions []dynamo.Partition
}

func (t *misplacedTable) set(version uint64, all []dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.version, t.partitions = version, all
}

func (t *misplacedTable) list() []dynamo.Partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.partitions
}

// none reports whether it is known that there are none, by a document's version.
func (t *misplacedTable) none(version uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version == version && len(t.partitions) == 0
}

// idle reports whether the node keeps nothing that is for others: neither hints nor
// objects that it is no replica of. False while that is not known.
func (s *Services) idle() bool {
	doc := s.Document()
	return doc != nil && s.hints.count().Records == 0 && s.misplaced.none(doc.Version)
}

// findMisplaced looks which partitions have objects that this node is no replica of.
// It goes from one pair of partition and n to the next, whatever lies between.
func (s *Services) findMisplaced(doc *member.Document) ([]dynamo.Partition, error) {
	out, err := s.findAside()
	if err != nil {
		return nil, err
	}
	lower, upper := vnode.Objects()
	for {
		var first []byte
		err := s.Engine.Scan(lower, upper, func(key, _ []byte) bool {
			first = bytes.Clone(key)
			return false
		})
		if err != nil || first == nil {
			slices.Sort(out)
			return slices.Compact(out), err
		}
		p, _, ok := vnode.ParseObjectKey(first)
		if !ok {
			lower = append(first, 0)
			continue
		}
		n := vnode.ObjectN(first)
		if !doc.Holds(p, n, s.Self) {
			out = append(out, p)
		}
		_, lower = vnode.ReplicaRange(p, n)
	}
}

// misplacedLook is when it was looked, and with which document.
type misplacedLook struct {
	version uint64
	at      time.Time
}

// misplacedFound is the outcome of a look.
type misplacedFound struct {
	by         *transfersActor
	look       misplacedLook
	partitions []dynamo.Partition
	err        error
}

// leftovers tells of partitions that need a vnode although none of the rings says
// so: something lies there that is for others, and only a vnode may drop it.
type leftovers struct{ partitions []dynamo.Partition }

// find looks for misplaced objects when the document is another one than at the last
// look, or that was long ago.
func (t *transfersActor) find(doc *member.Document) {
	if t.look.version == doc.Version && time.Since(t.look.at) < misplacedEvery {
		return
	}
	look := misplacedLook{doc.Version, time.Now()}
	self, root, s := t.self, t.s.System.Root, t.s
	submitted := s.Readers.Submit(func() {
		whole := s.losses.watchAll()
		all, err := s.findMisplaced(doc)
		if err == nil && !whole() {
			err = errDropping // something may not be seen
		}
		root.Send(self, &misplacedFound{by: t, look: look, partitions: all, err: err})
	})
	if submitted {
		t.look = look // if the read panics, the next look is the next chance
	}
}

func (t *transfersActor) found(ctx actor.Context, m *misplacedFound) {
	if m.by != t {
		return
	}
	if m.err != nil {
		t.s.Log.Error("it is not known what lies here for others", slog.Any("error", m.err))
		return
	}
	was := t.s.idle()
	t.s.misplaced.set(m.look.version, m.partitions)
	if t.s.idle() != was {
		ctx.Send(on(t.s.Self, nameMembership), &factsChanged{})
	}
	left := map[dynamo.Partition]bool{}
	for _, p := range m.partitions {
		left[p] = true
	}
	for _, at := range t.s.hints.slots() {
		left[at.partition] = true
	}
	if len(left) > 0 {
		ctx.Send(on(t.s.Self, nameVnodes), &leftovers{slices.Sorted(maps.Keys(left))})
	}
}

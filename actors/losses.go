package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
)

// lossTable is which partitions of this node's store are damaged, and which of them wait to
// be dropped.
type lossTable struct {
	mu sync.Mutex
	// suspects are those of which something could not be read, with why they are not given
	// up; empty: they will be.
	suspects map[dynamo.Partition]string
	// held are those that the cluster document says are lost: they serve nothing until they
	// are dropped.
	held map[dynamo.Partition]bool
	// dropped are the versions for which partitions were dropped last: what is filled before
	// is dropped with the rest, and must not count as filled.
	dropped map[dynamo.Partition]uint64
	// dropping is held by who drops: a partition is not let go while it is dropped together
	// with another one.
	dropping sync.Mutex
}

func (t *lossTable) suspect(p dynamo.Partition, why string) (was string, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.suspects == nil {
		t.suspects = map[dynamo.Partition]string{}
	}
	was, known = t.suspects[p]
	t.suspects[p] = why
	return was, known
}

// amend changes why a suspect is not given up, if it still is one: it may have been dropped
// since.
func (t *lossTable) amend(p dynamo.Partition, why string) (was string, still bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if was, still = t.suspects[p]; still {
		t.suspects[p] = why
	}
	return was, still
}

// doubted reports whether a partition will be given up, so that it proves nothing.
func (t *lossTable) doubted(p dynamo.Partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	why, suspect := t.suspects[p]
	return suspect && why == ""
}

func (t *lossTable) hold(p dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held == nil {
		t.held = map[dynamo.Partition]bool{}
	}
	t.held[p] = true
}

// droppedFor notes the version for which a partition was dropped last.
func (t *lossTable) droppedFor(p dynamo.Partition, since uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dropped == nil {
		t.dropped = map[dynamo.Partition]uint64{}
	}
	t.dropped[p] = since
}

// pending reports whether a partition that is to be filled is yet to be dropped.
func (t *lossTable) pending(f member.Fill) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped[f.Partition] < f.Since
}

func (t *lossTable) free(p dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, p)
	delete(t.suspects, p)
}

// run are the held partitions next to one, and that one.
func (t *lossTable) run(p dynamo.Partition) (from, to dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from, to = p, p
	for from > 0 && t.held[from-1] {
		from--
	}
	for t.held[to+1] {
		to++
	}
	return from, to
}

// kept is how many partitions are suspect, and why the first of them that is not given up is
// not.
func (t *lossTable) kept() (suspects int, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(t.suspects)) {
		if w := t.suspects[p]; w != "" {
			return len(t.suspects), fmt.Sprintf("partition %d: %s", p, w)
		}
	}
	return len(t.suspects), ""
}

// damageMet tells a vnode that some object of it cannot be read.
type damageMet struct{ err error }

// RuntimeControl lets it overtake.
func (*damageMet) RuntimeControl() {}

// met tells a vnode of damage among its objects, if that is what an error says.
func (s *Services) met(p dynamo.Partition, err error) {
	if errors.Is(err, storage.ErrDamaged) {
		s.System.Root.Send(on(s.Self, vnodeName(p)), &damageMet{err: err})
	}
}

// errDropping: partitions are dropped one after the other.
var errDropping = errors.New("another partition is being dropped")

// dropObjects rids the store of a partition's objects. Where a damaged block has objects of
// the next partition, too, both go together once both are lost. It runs on a reader.
func (s *Services) dropObjects(p dynamo.Partition) error {
	t := &s.losses
	if !t.dropping.TryLock() {
		return errDropping
	}
	defer t.dropping.Unlock()
	from, to := p, p
	err := s.dropRun(from, to)
	if errors.Is(err, storage.ErrDamaged) {
		if from, to = t.run(p); from < to {
			err = s.dropRun(from, to)
		}
	}
	if errors.Is(err, storage.ErrDamaged) {
		for _, q := range []dynamo.Partition{from - 1, to + 1} { // of 0 and the last one there is no such vnode
			if s.vnodes.has(q) {
				lower, upper := vnode.ObjectRange(q)
				s.met(q, s.Engine.Scan(lower, upper, func(_, _ []byte) bool { return true }))
			}
		}
	}
	if err == nil {
		t.free(p)
	}
	return err
}

func (s *Services) dropRun(from, to dynamo.Partition) error {
	lower, _ := vnode.ObjectRange(from)
	_, upper := vnode.ObjectRange(to)
	return s.Engine.Drop(lower, upper)
}

// replicaLost asks the membership to say in the cluster document that a replica of this node
// is lost; known is the version of the document by which that was found out.
type replicaLost struct {
	partition dynamo.Partition
	known     uint64
}

// lose proposes that a replica of this node is lost. A vnode asks again until it is.
func (m *membershipActor) lose(ctx actor.Context, l *replicaLost) {
	if m.voter == nil || m.s.quarantined() != "" || m.losing[l.partition] {
		return
	}
	if m.losing == nil {
		m.losing = map[dynamo.Partition]bool{}
	}
	m.losing[l.partition] = true
	self := m.s.Founding.Config.Self
	m.propose(ctx, &change{
		what: fmt.Sprintf("loss of partition %d on %s", l.partition, self.ID), until: time.Now().Add(changeTimeout),
		make: func(d member.Document) (member.Document, error) {
			return d.LoseReplica(l.partition, self.ID, member.StoreID(self.Store), l.known)
		},
		done: func(_ member.Document, err error) {
			delete(m.losing, l.partition)
			m.s.notLost(l.partition, err)
		},
	})
}

// notLost notes why a replica is not given up. Where nobody else has the data, what can be
// read is served as before; in other cases it is asked again.
func (s *Services) notLost(p dynamo.Partition, err error) {
	why := ""
	if errors.Is(err, member.ErrOnlyCopy) {
		why = err.Error()
	}
	if err == nil {
		return
	}
	if was, still := s.losses.amend(p, why); still && (was != why || why == "") {
		s.Log.Error("a damaged partition is not given up", slog.Uint64("partition", uint64(p)), slog.Any("reason", err))
	}
}

// Damage is what health says of what this node could not read of its store.
type Damage struct {
	// Blocks is how many damaged blocks reads have met; one counts each time.
	Blocks uint64 `json:"blocks"`
	// Partitions are those of which something cannot be read, Filling those that were given
	// up for that and are taken from the others.
	Partitions int `json:"partitions"`
	Filling    int `json:"filling"`
	// Kept says why one of them is not given up.
	Kept string `json:"kept,omitempty"`
}

func (s *Services) damage(doc *member.Document) Damage {
	d := Damage{Blocks: s.Engine.Stats().Corruptions}
	d.Partitions, d.Kept = s.losses.kept()
	if doc != nil {
		for _, f := range doc.Movement.Filling {
			if f.Node == s.Self && f.Since > 0 {
				d.Filling++
			}
		}
	}
	return d
}

// lossOf is the version in which a document says that this node has lost a partition.
func (s *Services) lossOf(p dynamo.Partition) uint64 {
	doc := s.Document()
	if doc == nil {
		return 0
	}
	f, _ := doc.Filling(p, s.Self)
	return f.Since
}

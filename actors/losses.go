package actors

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
)

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

// dropObjects rids the store of a partition's objects, which have been copied aside. Where a
// damaged block has objects of the next partition, too, that one is found to be damaged, and both go
// together once it is copied aside as well, if there is patience for that. It runs on a reader.
func (s *Services) dropObjects(p dynamo.Partition, patient bool) error {
	t := &s.losses
	t.dropping.Lock()
	defer t.dropping.Unlock()
	err := s.dropRun(p, p)
	if errors.Is(err, storage.ErrDamaged) {
		err = s.dropTogether(p, patient)
	}
	if err == nil {
		t.settle(p)
	}
	return err
}

// dropTogether drops a partition with its neighbours. If the damage is with none of them, or they are
// not given up, the partition is deleted instead: nobody reads its blocks any more, but they stay. That does
// not help where the damage is at its end: to know what comes next the store reads that block all the same.
func (s *Services) dropTogether(p dynamo.Partition, patient bool) error {
	all := s.vnodes.all()
	from, to, next := s.losses.run(p, all)
	err := error(storage.ErrDamaged)
	if from < to {
		s.losses.cover(from, to)
		defer s.losses.cover()
		if !slices.Equal(all, s.vnodes.all()) {
			return errDropping
		}
		if err = s.nothingBetween(all, from, to); err == nil {
			err = s.dropRun(from, to)
		}
	}
	if !errors.Is(err, storage.ErrDamaged) {
		return err
	}
	for _, q := range next {
		if !patient {
			break
		}
		lower, upper := vnode.ObjectRange(q)
		if bad := s.Engine.Scan(lower, upper, func(_, _ []byte) bool { return true }); errors.Is(bad, storage.ErrDamaged) {
			s.met(q, bad)
			return err
		}
	}
	s.Log.Error("a damaged block cannot be cut out of its table", slog.Uint64("partition", uint64(p)), slog.Any("error", err))
	b := s.Engine.NewBatch()
	b.DeleteRange(vnode.ObjectRange(p))
	if err := commitNow(b); err != nil {
		return err
	}
	lower, upper := vnode.ObjectRange(p)
	return s.Engine.Scan(lower, upper, func(_, _ []byte) bool { return false })
}

// nothingBetween is storage.ErrDamaged if objects lie between the partitions of a run that have a vnode:
// those of others, whose vnode is not started yet or was given up, were not copied aside.
func (s *Services) nothingBetween(all []dynamo.Partition, from, to dynamo.Partition) error {
	_, lower := vnode.ObjectRange(from)
	for _, p := range all {
		if p <= from || p > to {
			continue
		}
		upper, next := vnode.ObjectRange(p)
		if bytes.Equal(lower, upper) { // nothing can, and to look there would be to read what is damaged
			lower = next
			continue
		}
		some := false
		if err := s.Engine.Scan(lower, upper, func(_, _ []byte) bool { some = true; return false }); err != nil {
			return err
		}
		if some {
			return fmt.Errorf("%w: objects without a vnode lie before partition %d", storage.ErrDamaged, p)
		}
		lower = next
	}
	return nil
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
	m.propose(ctx, &change{
		what: fmt.Sprintf("loss of partition %d on %s", l.partition, m.s.Self), until: time.Now().Add(changeTimeout),
		make: func(d member.Document) (member.Document, error) { return m.s.loseIn(d, l) },
		done: func(_ member.Document, err error) {
			delete(m.losing, l.partition)
			m.s.notLost(l.partition, err)
		},
	})
}

// loseIn makes the document in which a replica of this node is lost, as long as the suspicion stands
// that it is asked for: an attempt may have come through that seemed to fail, and the replica may be
// whole again by now.
func (s *Services) loseIn(d member.Document, l *replicaLost) (member.Document, error) {
	if !s.losses.stands(l.partition, l.known) {
		return d, fmt.Errorf("%w: the replica was given up meanwhile", member.ErrPlanChanged)
	}
	self := s.Founding.Config.Self
	return d.LoseReplica(l.partition, self.ID, member.StoreID(self.Store), l.known)
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
	// MaybeLost are partitions that were given up, since the node started, while so many other
	// replicas lacked data that what could not be read may have been nowhere else: it is not found then.
	MaybeLost int `json:"maybe_lost,omitempty"`
}

func (s *Services) damage(doc *member.Document) Damage {
	d := Damage{Blocks: s.Engine.Stats().Corruptions}
	d.Partitions, d.Kept, d.MaybeLost = s.losses.kept()
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

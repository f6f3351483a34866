package actors

import (
	"errors"
	"log/slog"
	"time"

	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"

	"github.com/asynkron/protoactor-go/actor"
)

// loss is a vnode's part in mending damage of the store. What cannot be read is not mended in
// place: the replica is lost, all of it, and filled by the others. First the vnode remembers
// durably that it is a suspect; then the cluster document says that the replica is lost;
// then the vnode drops it and begins anew, under a new incarnation, as one that is being filled.
//
// A suspect that others believe lost already, while it has not heard of it, must take no
// write that was planned since: it would confirm what it is going to drop, and nobody would
// know that it lacks it. That is why the suspicion is on the disk before it is told.
type loss struct {
	vnode.Loss
	// told: the suspicion is durable. dropping: a drop is under way.
	told, dropping bool
}

// lostNow tells a vnode that the document in force says that it is lost. suspected and dropped
// are the ends of what was written to the disk.
type (
	lostNow   struct{}
	suspected struct {
		by  *vnodeActor
		err error
	}
	dropped struct {
		by    *vnodeActor
		since uint64
		err   error
	}
)

// RuntimeControl lets it overtake what may not be served any more.
func (*lostNow) RuntimeControl() {}

// RuntimeControl lets it overtake.
func (*suspected) RuntimeControl() {}

// RuntimeControl lets it overtake the requests that wait for it.
func (*dropped) RuntimeControl() {}

// loadLoss reads what the vnode remembers of damage.
func (v *vnodeActor) loadLoss() error {
	b, err := v.s.Engine.Get(nil, vnode.LossKey(v.partition))
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err == nil {
		v.loss.Loss, err = vnode.DecodeLoss(b)
	}
	if err == nil {
		v.s.losses.droppedFor(v.partition, v.loss.Dropped)
	}
	if err == nil && v.loss.Suspect > 0 {
		v.loss.told = true
		v.s.losses.suspect(v.partition, "")
	}
	return err
}

// isLost reports whether the vnode has to drop what it has before it may serve anything.
func (v *vnodeActor) isLost() bool { return v.s.lossOf(v.partition) > v.loss.Dropped }

// refuses reports whether the vnode must not serve a request because of damage, and answers
// it if so. plan is the version of the document that it was planned with.
func (v *vnodeActor) refuses(plan uint64, sender *actor.PID) bool {
	doc := v.s.Document()
	if !v.isLost() && (v.loss.Suspect == 0 || doc == nil || plan <= doc.Version) {
		return false
	}
	v.isBehind(plan, sender)
	v.s.answer(sender, v.self, messages.Fail(messages.CodeNotReady, "partition %d on %s is damaged", v.partition, v.s.Self))
	return true
}

// onDamage begins with damage that something has met.
func (v *vnodeActor) onDamage(m *damageMet) {
	doc := v.s.Document()
	if v.status != vnodeServing || v.loss.Suspect > 0 || v.isLost() || doc == nil {
		return
	}
	v.s.Log.Error("a partition is damaged; it is to be given up here and taken from the others",
		slog.Uint64("partition", uint64(v.partition)), slog.Any("error", m.err))
	v.loss.Suspect = doc.Version
	v.s.losses.suspect(v.partition, "")
	v.rememberLoss()
}

func (v *vnodeActor) rememberLoss() {
	b := v.s.Engine.NewBatch()
	b.Set(vnode.LossKey(v.partition), v.loss.Encode())
	done := func(err error) { v.tellSelf(&suspected{by: v, err: err}) }
	if err := b.Commit(storage.Synced, done); err != nil {
		done(err)
	}
}

// onSuspected tells the membership once the suspicion is durable.
func (v *vnodeActor) onSuspected(m *suspected) {
	if m.by == v && m.err == nil {
		v.loss.told = true
		v.careForLoss()
	}
}

// careForLoss goes on with what is to be done about damage, also after it failed.
func (v *vnodeActor) careForLoss() {
	switch {
	case v.isLost():
		v.drop()
	case v.loss.Suspect == 0:
	case !v.loss.told:
		v.rememberLoss()
	default:
		v.s.System.Root.Send(on(v.s.Self, nameMembership), &replicaLost{partition: v.partition, known: v.loss.Suspect})
	}
}

// drop rids the store of the vnode's objects and of what it knows of itself; hints for others
// and values that were set aside stay. Nothing is served meanwhile. A crash before the end has
// it done again, before anything was confirmed.
func (v *vnodeActor) drop() {
	if v.loss.dropping || v.leasing || v.status == vnodeStopping {
		return // once the lease has come, or at the next tick
	}
	v.loss.dropping = true
	v.s.losses.hold(v.partition)
	s, p, since := v.s, v.partition, v.s.lossOf(v.partition)
	done := func(err error) { v.tellSelf(&dropped{by: v, since: since, err: err}) }
	submitted := s.Readers.Submit(func() {
		err := errReadPanicked
		defer func() {
			if err != nil {
				done(err)
			}
		}()
		if err = s.dropObjects(p); err != nil {
			return
		}
		b := s.Engine.NewBatch()
		for _, r := range vnode.OwnRanges(p) {
			b.DeleteRange(r[0], r[1])
		}
		b.Set(vnode.LossKey(p), vnode.Loss{Dropped: since}.Encode())
		err = b.Commit(storage.Synced, done)
	})
	if !submitted {
		done(errReadersBusy)
	}
}

// dropPause is how long a drop that failed rests, damagePause one that damage around the
// range has kept from being cut out: each attempt writes memory out and reads tables.
const dropPause, damagePause = 200 * time.Millisecond, 20 * time.Second

// onDropped begins anew.
func (v *vnodeActor) onDropped(m *dropped) {
	if m.by != v || v.status == vnodeStopping {
		return
	}
	v.loss.dropping = false
	if m.err != nil {
		if !errors.Is(m.err, errDropping) && !errors.Is(m.err, errReadersBusy) {
			v.s.vnodeDown(v.partition, "drop what is damaged", m.err)
		}
		pause := dropPause
		if errors.Is(m.err, storage.ErrDamaged) {
			pause = damagePause
		}
		v.s.Wheel.Send(v.self, &lostNow{}, pause)
		return
	}
	v.loss = loss{Loss: vnode.Loss{Dropped: m.since}}
	v.s.losses.droppedFor(v.partition, m.since)
	v.s.Counters.Lost.Add(1)
	v.s.Log.Warn("a damaged partition was dropped; the others fill it", slog.Uint64("partition", uint64(v.partition)))
	v.leave()
	v.upkeep = upkeep{looked: time.Now()}
	v.armUpkeep()
	v.state, v.status = nil, vnodeOpening
	v.open()
}

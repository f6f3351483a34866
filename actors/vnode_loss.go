package actors

import (
	"errors"
	"log/slog"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"

	"github.com/asynkron/protoactor-go/actor"
)

// loss is a vnode's part in mending damage of the store. What cannot be read is not mended in
// place: the replica is lost, and filled by the others. First the vnode remembers durably that it
// is a suspect; then the cluster document says that the replica is lost; then the vnode drops what it
// cannot read, keeps what it can, and begins anew, under a new incarnation, as one that is being filled.
//
// A suspect that others believe lost already, while it has not heard of it, must take no
// write that was planned since: it would confirm what it is going to drop, and nobody would
// know that it lacks it. That is why the suspicion is on the disk before it is told.
type loss struct {
	vnode.Loss
	// told: the suspicion is durable. dropping: a drop is under way.
	told, dropping bool
	// met is damage that was met while the vnode opened. interrupted: a drop was begun, so that what was
	// copied aside is to be put back. drops are how often a drop failed.
	met         error
	interrupted bool
	drops       int
	// renewed is when the replica was given up last; until pause is over it is not given up again.
	renewed time.Time
	pause   time.Duration
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
		by  *vnodeActor
		end vnode.Loss
		err error
	}
)

// RuntimeControl lets it overtake what may not be served any more.
func (*lostNow) RuntimeControl() {}

// RuntimeControl lets it overtake.
func (*suspected) RuntimeControl() {}

// RuntimeControl lets it overtake the requests that wait for it.
func (*dropped) RuntimeControl() {}

// loadLoss reads what the vnode remembers of damage, and whether it was interrupted while that was
// mended. If that cannot be read, it is done again, which takes nothing away that can be.
func (v *vnodeActor) loadLoss() error {
	v.loss.Loss, v.loss.interrupted = vnode.Loss{}, false
	b, err := v.s.Engine.Get(nil, vnode.LossKey(v.partition))
	switch err = v.tolerate(err); {
	case err != nil:
		return err
	case b != nil:
		if v.loss.Loss, err = vnode.DecodeLoss(b); err != nil {
			return err
		}
	}
	v.s.losses.droppedFor(v.partition, v.loss.Dropped)
	if v.loss.Suspect > 0 {
		v.loss.told = true
		v.s.losses.suspect(v.partition, v.loss.Suspect)
	}
	lower, upper := vnode.SalvageRange(v.partition)
	return v.tolerate(v.s.Engine.Scan(lower, upper, func(_, _ []byte) bool { v.loss.interrupted = true; return false }))
}

// tolerate takes damage, and that there is nothing, for no error: a vnode that cannot read what it
// is to go by opens as one that has nothing, and is a suspect before it serves.
func (v *vnodeActor) tolerate(err error) error {
	switch {
	case errors.Is(err, storage.ErrDamaged):
		v.loss.met = err
	case !errors.Is(err, storage.ErrNotFound):
		return err
	}
	return nil
}

// isLost reports whether the vnode has to drop what it has before it may serve anything.
func (v *vnodeActor) isLost() bool { return v.s.lossOf(v.partition) > v.loss.Dropped }

// away reports whether what the vnode has is dropped and put back, or is to be: nothing of it
// may be served, nor waited for, as that takes long.
func (v *vnodeActor) away() bool { return v.isLost() || v.loss.interrupted }

// refuses reports whether the vnode must not serve a request because of damage, and answers
// it if so. plan is the version of the document that it was planned with.
func (v *vnodeActor) refuses(plan uint64, sender *actor.PID) bool {
	doc := v.s.Document()
	if !v.away() && (v.loss.Suspect == 0 || doc == nil || plan <= doc.Version) {
		return false
	}
	v.isBehind(plan, sender)
	v.s.answer(sender, v.self, v.s.isDamaged(v.partition))
	return true
}

// doubtful reports whether what this vnode has may be given up, so that nobody may rely on that
// it has it, and answers if so.
func (v *vnodeActor) doubtful(sender *actor.PID) bool {
	if !v.away() && !v.s.losses.doubted(v.partition) {
		return false
	}
	v.s.answer(sender, v.self, v.s.isDamaged(v.partition))
	return true
}

func (s *Services) isDamaged(p dynamo.Partition) *messages.Failure {
	return messages.Fail(messages.CodeNotReady, "partition %d on %s is damaged", p, s.Self)
}

// onDamage begins with damage that something has met.
func (v *vnodeActor) onDamage(m *damageMet) {
	doc := v.s.Document()
	if v.status != vnodeServing || v.loss.Suspect > 0 || v.away() || doc == nil || !v.isReplica(doc) {
		return
	}
	v.s.Log.Error("a partition is damaged; it is to be given up here and taken from the others",
		slog.Uint64("partition", uint64(v.partition)), slog.Any("error", m.err))
	v.loss.Suspect = doc.Version
	v.s.losses.suspect(v.partition, v.loss.Suspect)
	v.rememberLoss()
}

// isReplica reports whether this node is one of the vnode's partition, for some n: others do not give
// up what lies there, and nobody fills it.
func (v *vnodeActor) isReplica(doc *member.Document) bool {
	from, to := doc.FillRange(member.Fill{Partition: v.partition, Node: v.s.Self, Whole: true})
	return from <= to
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
	case v.away():
		v.drop()
	case v.loss.Suspect == 0:
	case !v.isReplica(v.s.Document()): // any more
		v.loss.Suspect = 0
		v.s.losses.clear(v.partition)
		v.rememberLoss()
	case !v.loss.told:
		v.rememberLoss()
	case time.Since(v.loss.renewed) < v.loss.pause:
	default:
		v.s.System.Root.Send(on(v.s.Self, nameMembership), &replicaLost{partition: v.partition, known: v.loss.Suspect})
	}
}

// drop rids the store of what cannot be read of the vnode's objects, and of what it knows of itself;
// hints for others and values that were set aside stay. Nothing is served meanwhile. A crash before
// the end has it done again, before anything was confirmed.
func (v *vnodeActor) drop() {
	if v.loss.dropping || v.leasing || v.status == vnodeStopping {
		return // once the lease has come, or at the next tick
	}
	v.loss.dropping, v.loss.interrupted = true, true
	s, p, end, lost, patient := v.s, v.partition, v.loss.Loss, v.isLost(), v.loss.drops < dropPatience
	if lost {
		end = vnode.Loss{Dropped: v.s.lossOf(v.partition)}
	}
	submitted := s.Readers.Submit(func() {
		out := &dropped{by: v, end: end, err: errReadPanicked}
		defer func() { v.tellSelf(out) }()
		out.err = s.renew(p, lost, patient, end)
	})
	if !submitted {
		v.tellSelf(&dropped{by: v, err: errReadersBusy})
	}
}

const (
	// dropPause is how long a drop rests for which there was no room, damagePause one that failed:
	// each attempt copies the partition, writes memory out and reads tables.
	dropPause, damagePause = 200 * time.Millisecond, 20 * time.Second
	// damagePauseMax is how long one rests that fails for ever.
	damagePauseMax = 10 * time.Minute
	// dropPatience is how often it is tried to drop a partition with its neighbours.
	dropPatience = 3
	// lossPause is for how long a replica is not given up again, and what that grows to if it is each
	// time: what cannot be read may be nothing that goes with the objects.
	lossPause, lossPauseMax = 10 * time.Second, time.Hour
)

// failedPause is how long a drop rests that has failed so often.
func failedPause(drops int) time.Duration {
	return min(damagePause<<min(max(0, drops-dropPatience), 10), damagePauseMax)
}

// nextPause is how long a replica is not given up again, when the one before was so long and the replica
// had been given up so long ago.
func nextPause(before, ago time.Duration) time.Duration {
	if ago > 2*lossPauseMax {
		before = 0
	}
	return min(max(2*before, lossPause), lossPauseMax)
}

// onDropped begins anew.
func (v *vnodeActor) onDropped(m *dropped) {
	if m.by != v || v.status == vnodeStopping {
		return
	}
	v.loss.dropping = false
	if m.err != nil {
		pause := dropPause
		if !errors.Is(m.err, errDropping) && !errors.Is(m.err, errReadersBusy) {
			v.loss.drops++
			pause = failedPause(v.loss.drops)
			v.s.vnodeDown(v.partition, "drop what is damaged", m.err)
		}
		v.s.Wheel.Send(v.self, &lostNow{}, pause)
		return
	}
	lost := m.end.Dropped > v.loss.Dropped
	v.loss = loss{Loss: m.end, renewed: v.loss.renewed, pause: v.loss.pause}
	v.s.losses.droppedFor(v.partition, m.end.Dropped)
	if lost {
		v.loss.renewed, v.loss.pause = time.Now(), nextPause(v.loss.pause, time.Since(v.loss.renewed))
		v.s.losses.clear(v.partition)
		v.s.Counters.Lost.Add(1)
		v.s.Log.Warn("a damaged partition was dropped; the others fill it", slog.Uint64("partition", uint64(v.partition)))
	}
	v.leave()
	v.upkeep = upkeep{looked: time.Now()}
	v.armUpkeep()
	v.state, v.status = nil, vnodeOpening
	v.open()
}

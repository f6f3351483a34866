package actors

import (
	"crypto/rand"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

const (
	// epochLease is how many epochs a vnode leases at a time. Each key that it
	// coordinates for the first time takes one; a crash skips what is left.
	epochLease = 1 << 20
	// vnodeBatch is how many messages one commit serves at most.
	vnodeBatch = 256
	// vnodeQueue is how many messages a vnode holds before it sheds.
	vnodeQueue = 4096
)

// vnodeState says what a vnode does with messages.
type vnodeState uint8

const (
	// vnodeOpening: the first lease of epochs is not yet durable; messages wait.
	vnodeOpening vnodeState = iota
	// vnodeServing: reads and writes.
	vnodeServing
	// vnodeFailed: the store failed; nothing is acknowledged.
	vnodeFailed
	// vnodeStopping: writes are refused, the clean mark is being made durable.
	vnodeStopping
)

// String is the state's name in the console.
func (s vnodeState) String() string {
	return [...]string{"opening", "serving", "failed", "stopping"}[s]
}

// coordinate asks the local vnode to make the dot of a write (§ 5). It is
// answered with *prepared and *durable or *notDurable, in any order; or, when
// nothing was written, with *refused or *messages.Failure.
type coordinate struct {
	key dynamo.Key
	// hintFor is the primary that this node stands in for; empty when it is one.
	hintFor  dynamo.NodeID
	n        int
	position [16]byte
	put      vnode.Put
	sync     bool
	// until is when the request gives up; zero is never.
	until time.Time
	// plan is the version of the cluster document that the write was planned with.
	plan uint64
	// sent is when the vnode was asked, trace the context of who asks (TraceParent).
	sent  time.Time
	trace []byte
}

// Expired implements rt.Expirer: a write whose client has its answer already
// is not begun.
func (c *coordinate) Expired(now time.Time) bool { return !c.until.IsZero() && now.After(c.until) }

// prepared: the write has its dot and is applied; its commit is under way.
type prepared struct {
	result vnode.Result
	read   int64 // dates the record
	// waited and turn are what the time went for, in microseconds (messages.Spent).
	waited, turn uint32
	durable      durable
}

// durable: the commit of a coordinated write is as durable as asked, after store microseconds.
type durable struct{ store uint32 }

// notDurable: the commit of a coordinated write failed. Reads may see it, and
// the disk may have it or not.
type notDurable struct{}

// refused: the vnode decided against the write; nothing was changed.
type refused struct{ err error }

// drain asks a vnode to stop in order. done is called once all its writes and
// the mark of the clean stop are durable, or with the error that prevented it.
type drain struct{ done func(error) }

// RuntimeControl lets the drain overtake requests.
func (*drain) RuntimeControl() {}

// leased: epochs below to are durable, or err says why not. by is the instance
// that asked: after a restart a lease of the instance before must not let the
// new one serve before its own lease is durable.
type leased struct {
	by  *vnodeActor
	to  uint64
	err error
}

// RuntimeControl lets the lease overtake the requests that wait for it.
func (*leased) RuntimeControl() {}

// retry is the time for a failed vnode to try its store again.
type retry struct{ by *vnodeActor }

// RuntimeControl lets it overtake the requests that the failed vnode refuses.
func (*retry) RuntimeControl() {}

// vnodeActor holds one partition on this node. It is the only one that writes
// the partition's objects, so reading, merging and writing a record needs no
// lock. It commits all that its mailbox holds as one batch and never waits for
// the disk: the engine calls back.
type vnodeActor struct {
	s         *Services
	partition dynamo.Partition
	self      *actor.PID
	status    vnodeState
	state     *vnode.State
	// leasing: a lease is on its way to the disk; retrying: a retry is armed.
	leasing, retrying bool
	// waiting are the messages that came while opening.
	waiting waitingRoom
	// turn are those of them that are being handled: the mailbox, which answers
	// for its own batch when the handler panics, does not know of them.
	turn []rt.Envelope
	// began is when the turn did, on the clock that records are dated by.
	began int64
	// turnAt is the same by the process's clock.
	turnAt time.Time
	write  writeBatch
	// unsynced is how many answers wait for the disk.
	unsynced atomic.Int64
	upkeep   upkeep
	loss     loss
}

func newVnode(s *Services, p dynamo.Partition, after *rt.Stats) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor { return &vnodeActor{s: s, partition: p, write: writeBatch{treeless: s.pace.none}} }, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{
			MaxMessages: vnodeQueue, Batch: vnodeBatch, Size: messageSize, TTL: messageTTL,
			Shed: s.shed, Expired: s.expired, Failed: s.failed, Registry: s.Registry, After: after,
		})))
}

// Receive translates messages; see the methods for what they do.
func (v *vnodeActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		v.self = ctx.Self()
		v.upkeep.looked = time.Now()
		v.armUpkeep()
		v.open()
	case *rt.Batch:
		v.handle(m.Envelopes)
	case *leased:
		v.onLease(m)
	case *commitFailed:
		v.fail("commit", m.err)
	case *retry:
		v.onRetry(m)
	case *drain:
		v.onDrain(m)
	case *sliceGranted:
		v.onSlice()
	case *rangeRead:
		v.onRange(m)
	case *doubted:
		v.onDoubted(m)
	case *upkeepTick:
		v.onUpkeep(m)
	case *checkpointPaused:
		v.onPaused(m)
	case *damageMet:
		v.onDamage(m)
	case *suspected:
		v.onSuspected(m)
	case *lostNow:
		v.careForLoss()
	case *dropped:
		v.onDropped(m)
	case *actor.Restarting, *actor.Stopping:
		v.abandon()
	}
}

// open reads the vnode's own state and leases epochs. Until the lease is
// durable no dot can be made, so messages wait.
func (v *vnodeActor) open() {
	err := v.loadLoss()
	switch {
	case err == nil && v.s.losses.covered(v.partition):
		err = errDropping
	case err == nil && v.away():
		v.drop()
		return
	}
	var meta vnode.Meta
	found := false
	if err == nil {
		meta, found, err = v.readMeta()
	}
	if err == nil {
		err = v.loadTrees()
	}
	if err != nil {
		v.fail("read the vnode's own state", err)
		return
	}
	var fresh clock.Incarnation
	rand.Read(fresh[:]) // never fails: crypto/rand ends the process instead
	state, first := vnode.Start(meta, found, fresh, epochLease)
	v.state = state
	v.lease(first)
}

// lease makes epochs durable; the outcome comes as *leased.
func (v *vnodeActor) lease(m vnode.Meta) {
	v.leasing = true
	v.commitMeta(m, func(err error) { v.tellSelf(&leased{by: v, to: m.Limit, err: err}) })
}

// readMeta reads what the vnode keeps about itself. When that is damaged it is
// set aside, and the vnode goes on as one that never ran: under a new
// incarnation no dot can be one that the old one has used.
func (v *vnodeActor) readMeta() (meta vnode.Meta, found bool, err error) {
	key := vnode.MetaKey(v.partition)
	b, err := v.s.Engine.Get(nil, key)
	if err != nil {
		return vnode.Meta{}, false, v.tolerate(err)
	}
	meta, err = vnode.DecodeMeta(b)
	if !errors.Is(err, vnode.ErrChecksum) {
		return meta, err == nil, err
	}
	v.s.corrupt(v.partition, key, err)
	aside := v.s.Engine.NewBatch()
	aside.Set(vnode.CorruptKey(key), b)
	return vnode.Meta{}, false, aside.Commit(storage.Applied, nil)
}

// commitMeta makes the vnode's own state durable; done is always called.
func (v *vnodeActor) commitMeta(m vnode.Meta, done func(error)) {
	b := v.s.Engine.NewBatch()
	b.Set(vnode.MetaKey(v.partition), m.Encode())
	if err := b.Commit(storage.Synced, done); err != nil {
		done(err)
	}
}

func (v *vnodeActor) tellSelf(m any) { v.s.System.Root.Send(v.self, m) }

// onLease takes a durable lease into use and, at the start, lets the waiting
// messages in.
func (v *vnodeActor) onLease(m *leased) {
	if m.by != v {
		return
	}
	v.leasing = false
	if m.err != nil {
		v.fail("lease epochs", m.err)
		return
	}
	v.state.Extend(m.to)
	if v.away() {
		v.careForLoss() // it has waited for this
	}
	if v.status != vnodeOpening && v.status != vnodeFailed {
		return
	}
	again := v.status == vnodeFailed
	v.status = vnodeServing
	if v.loss.met != nil { // before anybody is told that it serves
		v.onDamage(&damageMet{err: v.loss.met})
		v.loss.met = nil
	}
	v.s.vnodeUp(v.partition, again)
	v.careForLoss()
	v.waiting.sweep(time.Now(), v.s.expired)
	for len(v.waiting.all) > 0 {
		v.turn = v.waiting.take(vnodeBatch)
		v.handle(v.turn)
		v.turn = nil
	}
	v.care()
}

// extend leases further epochs before the last lease is used up.
func (v *vnodeActor) extend() {
	if v.leasing || v.state.Left() > epochLease/5 {
		return
	}
	v.lease(v.state.Meta(v.state.Lease(epochLease)))
}

// onDrain refuses writes from now on and marks the stop as clean. The engine
// makes batches durable in order, so all earlier writes are durable before it.
func (v *vnodeActor) onDrain(m *drain) {
	served := v.status == vnodeServing && !v.away() // what is dropped leaves no state behind
	v.status = vnodeStopping
	v.release(messages.Fail(messages.CodeNotReady, "%s is stopping", v.s.Self))
	if !served {
		m.done(nil) // without the mark the next start raises the epoch floor
		return
	}
	b := v.s.Engine.NewBatch()
	b.Set(vnode.MetaKey(v.partition), v.state.Stop().Encode())
	saved := v.saveAll(b)
	if err := b.Commit(storage.Synced, m.done); err != nil {
		m.done(err)
		return
	}
	saved()
}

// fail stops acknowledging and tries the store again later. It is reported
// once; the floor rises because replicas may hold a dot whose commit was lost
// here.
func (v *vnodeActor) fail(doing string, err error) {
	if v.state != nil {
		v.state.RaiseFloor()
	}
	v.release(messages.Fail(messages.CodeStorage, "partition %d on %s: %s: %v", v.partition, v.s.Self, doing, err))
	if v.status == vnodeStopping {
		return // who drains it learns of the error
	}
	if v.status != vnodeFailed {
		v.s.vnodeDown(v.partition, doing, err)
	}
	v.status = vnodeFailed
	if !v.retrying {
		v.retrying = true
		v.s.Wheel.Send(v.self, &retry{by: v}, retryInterval)
	}
}

// retryInterval is how often a failed vnode tries its store again.
const retryInterval = 500 * time.Millisecond

// onRetry tries to make a lease durable on a failed vnode. The store may have
// recovered, for example from a full disk; a lease that becomes durable shows
// it and lets the vnode serve again.
func (v *vnodeActor) onRetry(m *retry) {
	if m.by != v {
		return
	}
	v.retrying = false
	switch {
	case v.status != vnodeFailed || v.leasing || v.loss.dropping:
	case v.state == nil:
		v.open()
	default:
		v.lease(v.state.Meta(v.state.Lease(epochLease)))
	}
}

// release answers those who wait for the vnode to open.
func (v *vnodeActor) release(f *messages.Failure) {
	for _, e := range v.waiting.all {
		v.s.answerFailure(e.Sender, e.Message, f)
	}
	v.waiting = waitingRoom{}
}

// abandon is the end of this instance, by a failure or a stop: who waits for it
// learns that, and what it had not committed is dropped.
func (v *vnodeActor) abandon() {
	v.waiting.all, v.turn = slices.Concat(v.turn, v.waiting.all), nil
	v.release(messages.Fail(messages.CodeInternal, "partition %d on %s restarts or stops", v.partition, v.s.Self))
	v.uncountHints()
	v.leave()
	if v.write.batch != nil {
		v.write.batch.Discard()
		v.write.batch = nil
	}
}

// handle serves everything that the mailbox held, with one commit.
func (v *vnodeActor) handle(batch []rt.Envelope) {
	if v.status == vnodeOpening && !v.away() {
		v.hold(batch)
		return
	}
	v.began, v.turnAt = v.s.millis(), time.Now()
	v.write.reset(v.s.Engine)
	for _, e := range batch {
		switch m := e.Message.(type) {
		case *messages.ReadRequest:
			v.read(m, e)
		case *messages.KeysRequest:
			v.keys(m, e)
		case *messages.ReplicateRequest:
			v.replicate(m, e)
		case *messages.HandoffRequest:
			v.handoff(m, e.Sender)
		case *messages.FillRequest:
			v.fill(m, e)
		case *messages.ExchangeRequest:
			v.compare(m, e)
		case *mergePage:
			v.mergePage(m, e.Sender)
		case *messages.ReapRequest:
			v.reap(m, e)
		case *reapRead:
			v.reapAnswer(m, e.Sender)
		case *messages.ReapDropRequest:
			v.reapDrop(m, e.Sender)
		case *coordinate:
			v.coordinate(m, e.Sender)
		case *keepHint:
			v.keepHint(m)
		case *dropHints:
			v.dropHints(m, e.Sender)
		}
	}
	v.commit()
}

// current reports whether a request for keys of a bucket with n replicas was planned
// with a document that still says where they are, and answers it if not
// (member.Document.Moved): the partition has moved, or the bucket was created since
// with another n, and its keys lie elsewhere. It is asked in the vnode's turn: nothing
// planned before is served after that.
func (v *vnodeActor) current(plan uint64, bucket string, n int, sender *actor.PID) bool {
	if !v.serves(sender) || v.refuses(plan, sender) {
		return false
	}
	version, stale := v.s.stale(v.partition, plan)
	if !stale && plan < version {
		properties, _ := v.s.Document().Bucket(bucket)
		stale = properties.Quorum.N != n
	}
	if stale {
		f := messages.Fail(messages.CodeStale, "%s knows version %d of the ring, the request was planned with %d", v.s.Self, version, plan)
		f.DocumentVersion = version
		v.s.answer(sender, v.self, f)
	}
	return !stale
}

// serves reports whether this store may confirm anything or be a source of data, and
// answers if not.
func (v *vnodeActor) serves(sender *actor.PID) bool {
	why := v.s.quarantined()
	if why != "" {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeNotReady, "%s", why))
	}
	return why == ""
}

// isBehind reports whether a request was planned with a document that this node does
// not know yet: that it is no replica of the key may be old news. Membership is told.
func (v *vnodeActor) isBehind(plan uint64, sender *actor.PID) bool {
	doc := v.s.Document()
	if doc == nil || plan <= doc.Version {
		return false
	}
	v.s.tellBehind(dynamo.NodeID(sender.GetAddress()), plan)
	return true
}

// hold keeps messages until the vnode is open. Those whose time is over make
// room for others.
func (v *vnodeActor) hold(batch []rt.Envelope) {
	swept := false
	for _, e := range batch {
		if v.waiting.add(e) {
			continue
		}
		if !swept {
			swept = true
			v.waiting.sweep(time.Now(), v.s.expired)
		}
		if !v.waiting.add(e) {
			v.s.shed(e.Sender, e.Message)
		}
	}
}

// writable reports whether a write can be served now, and answers it if not.
func (v *vnodeActor) writable(sender *actor.PID) (ok bool) {
	switch v.status {
	case vnodeStopping:
		v.s.answer(sender, v.self, messages.Fail(messages.CodeNotReady, "%s is stopping", v.s.Self))
		return false
	case vnodeFailed:
		v.s.answer(sender, v.self, messages.Fail(messages.CodeStorage, "partition %d on %s cannot write", v.partition, v.s.Self))
		return false
	}
	return true
}

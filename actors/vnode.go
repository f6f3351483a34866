package actors

import (
	"crypto/rand"
	"errors"
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
// answered with *prepared, then *durable; or with *refused or *messages.Failure.
type coordinate struct {
	key      dynamo.Key
	n        int
	position [16]byte
	put      vnode.Put
	sync     bool
}

// prepared: the write has its dot and is applied; its commit is under way.
type prepared struct {
	result vnode.Result
}

// durable: the commit of a coordinated write is as durable as asked.
type durable struct{}

// refused: the vnode decided against the write; nothing was changed.
type refused struct{ err error }

// drain asks a vnode to stop in order. done is called once all its writes and
// the mark of the clean stop are durable, or with the error that prevented it.
type drain struct{ done func(error) }

// RuntimeControl lets the drain overtake requests.
func (*drain) RuntimeControl() {}

// leased: epochs below to are durable, or err says why not.
type leased struct {
	to  uint64
	err error
}

// RuntimeControl lets the lease overtake the requests that wait for it.
func (*leased) RuntimeControl() {}

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
	// leasing: a further lease is on its way to the disk.
	leasing bool
	// waiting are the messages that came while opening, bounded by vnodeQueue.
	waiting []rt.Envelope
	write   writeBatch
}

func newVnode(s *Services, p dynamo.Partition) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor { return &vnodeActor{s: s, partition: p} }, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{
			MaxMessages: vnodeQueue, Batch: vnodeBatch, Size: messageSize, TTL: messageTTL,
			Shed: s.shed, Expired: s.expired, Failed: s.failed, Registry: s.Registry,
		})))
}

// Receive translates messages; see the methods for what they do.
func (v *vnodeActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		v.self = ctx.Self()
		v.open()
	case *rt.Batch:
		v.handle(m.Envelopes)
	case *leased:
		v.onLease(m)
	case *commitFailed:
		v.fail("commit", m.err)
	case *drain:
		v.onDrain(m)
	}
}

// open reads the vnode's own state and leases epochs. Until the lease is
// durable no dot can be made, so messages wait.
func (v *vnodeActor) open() {
	meta, found, err := v.readMeta()
	if err != nil {
		v.fail("read the vnode's own state", err)
		return
	}
	var fresh clock.Incarnation
	rand.Read(fresh[:]) // never fails: crypto/rand ends the process instead
	state, lease := vnode.Start(meta, found, fresh, epochLease)
	v.state = state
	v.commitMeta(lease, func(err error) { v.tellSelf(&leased{to: lease.Limit, err: err}) })
}

func (v *vnodeActor) readMeta() (vnode.Meta, bool, error) {
	b, err := v.s.Engine.Get(nil, vnode.MetaKey(v.partition))
	if errors.Is(err, storage.ErrNotFound) {
		return vnode.Meta{}, false, nil
	}
	if err != nil {
		return vnode.Meta{}, false, err
	}
	meta, err := vnode.DecodeMeta(b)
	return meta, true, err
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
	v.leasing = false
	if m.err != nil {
		v.fail("lease epochs", m.err)
		return
	}
	v.state.Extend(m.to)
	if v.status != vnodeOpening && v.status != vnodeFailed {
		return
	}
	v.status = vnodeServing
	v.s.vnodeUp(v.partition)
	waiting := v.waiting
	v.waiting = nil
	for len(waiting) > 0 {
		n := min(len(waiting), vnodeBatch)
		v.handle(waiting[:n])
		waiting = waiting[n:]
	}
}

// extend leases further epochs before the last lease is used up.
func (v *vnodeActor) extend() {
	if v.leasing || v.state.Left() > epochLease/5 {
		return
	}
	v.leasing = true
	to := v.state.Lease(epochLease)
	v.commitMeta(v.state.Meta(to), func(err error) { v.tellSelf(&leased{to: to, err: err}) })
}

// onDrain refuses writes from now on and marks the stop as clean. The engine
// makes batches durable in order, so all earlier writes are durable before it.
func (v *vnodeActor) onDrain(m *drain) {
	if v.status != vnodeServing {
		v.status = vnodeStopping
		m.done(nil) // without the mark the next start raises the epoch floor
		return
	}
	v.status = vnodeStopping
	v.commitMeta(v.state.Stop(), m.done)
}

// fail stops acknowledging. It is reported once; the floor rises because
// replicas may hold a dot whose commit was lost here.
func (v *vnodeActor) fail(doing string, err error) {
	if v.state != nil {
		v.state.RaiseFloor()
	}
	if v.status != vnodeFailed {
		v.s.vnodeDown(v.partition, doing, err)
	}
	v.status = vnodeFailed
	for _, e := range v.waiting {
		v.s.answer(e.Sender, v.self, messages.Fail(messages.CodeStorage, "partition %d: %s: %v", v.partition, doing, err))
	}
	v.waiting = nil
}

// handle serves everything that the mailbox held, with one commit.
func (v *vnodeActor) handle(batch []rt.Envelope) {
	if v.status == vnodeOpening {
		v.hold(batch)
		return
	}
	v.write.reset(v.s.Engine)
	for _, e := range batch {
		switch m := e.Message.(type) {
		case *messages.ReadRequest:
			v.read(m, e.Sender)
		case *messages.KeysRequest:
			v.keys(m, e.Sender)
		case *messages.ReplicateRequest:
			v.replicate(m, e.Sender)
		case *coordinate:
			v.coordinate(m, e.Sender)
		}
	}
	v.commit()
}

// hold keeps messages until the vnode is open.
func (v *vnodeActor) hold(batch []rt.Envelope) {
	for _, e := range batch {
		if len(v.waiting) >= vnodeQueue {
			v.s.shed(e.Sender, e.Message)
			continue
		}
		v.waiting = append(v.waiting, e)
	}
}

// writable reports whether a write can be served now, and answers it if not.
func (v *vnodeActor) writable(sender *actor.PID) (ok bool) {
	switch v.status {
	case vnodeStopping:
		v.s.answer(sender, v.self, messages.Fail(messages.CodeNotReady, "%s is stopping", v.s.Self))
		return false
	case vnodeFailed:
		// The engine may have recovered, for example from a full disk: a lease
		// that becomes durable shows it and lets the vnode serve again.
		v.probe()
		v.s.answer(sender, v.self, messages.Fail(messages.CodeStorage, "partition %d on %s cannot write", v.partition, v.s.Self))
		return false
	}
	return true
}

// probe tries to make a lease durable on a failed vnode.
func (v *vnodeActor) probe() {
	if v.leasing || v.state == nil {
		return
	}
	v.leasing = true
	to := v.state.Lease(epochLease)
	v.commitMeta(v.state.Meta(to), func(err error) {
		v.s.Wheel.Send(v.self, &leased{to: to, err: err}, probeInterval)
	})
}

// probeInterval is how often a failed vnode tries its store again.
const probeInterval = 500 * time.Millisecond

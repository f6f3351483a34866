package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

const (
	// transfersTick is how often it is looked for hints that can be delivered.
	transfersTick = 250 * time.Millisecond
	// maxTransfers is how many transfers run at once.
	maxTransfers = 2
	// A transfer that did not complete is begun again after a pause that doubles.
	transferPause, transferPauseMax = 500 * time.Millisecond, 30 * time.Second
	// transferTimeout is how long a batch may take.
	transferTimeout = 10 * time.Second
	// A batch has at most so many records and, unless it is a single one, bytes.
	batchRecords, batchBytes = 64, 256 << 10
	// transferRate bounds what one transfer sends, in bytes a second, so that
	// those who come back are not drowned.
	transferRate = 16 << 20
)

// transfersActor starts a transfer for each node and partition that hints are
// kept for, when the node is up, and again after a pause when one fails.
type transfersActor struct {
	s       *Services
	self    *actor.PID
	running map[string]slot // by the transfer's name
	told    map[string]bool // those that said how they ended
	later   map[slot]*delay
	// delivered counts what each node was given since it was last owed nothing.
	delivered map[dynamo.NodeID]int
	timer     *rt.Timer
	stopping  bool
}

// delay is when a transfer that failed is tried again.
type delay struct {
	until time.Time
	pause time.Duration
	why   string
}

// transferEnded is a transfer's last word.
type transferEnded struct {
	at      slot
	outcome transfer.Outcome
}

// lookForWork is the tick of transfers.
type lookForWork struct{}

func newTransfers(s *Services) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor {
		return &transfersActor{s: s, running: map[string]slot{}, told: map[string]bool{}, later: map[slot]*delay{}, delivered: map[dynamo.NodeID]int{}}
	}, flat, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: s.Registry})), actor.WithSupervisor(rt.StopOnFailure()))
}

// Receive starts transfers and hears how they end.
func (t *transfersActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		t.self = ctx.Self()
		t.arm()
	case *lookForWork:
		t.start(ctx)
		t.arm()
	case *transferEnded:
		if id := ctx.Sender().GetId(); t.running[id] == m.at {
			t.told[id] = true
		}
		t.ended(m)
	case *actor.Terminated: // a system message: it may overtake the last word, which then decides
		id := m.GetWho().GetId()
		if at, ok := t.running[id]; ok && !t.told[id] {
			t.wait(at)
		}
		delete(t.running, id)
		delete(t.told, id)
	case *actor.Stopping:
		t.stopping = true
		t.timer.Stop()
	case *actor.Restarting:
		t.timer.Stop()
	}
}

func (t *transfersActor) arm() { t.timer = t.s.Wheel.Send(t.self, &lookForWork{}, transfersTick) }

func (t *transfersActor) start(ctx actor.Context) {
	if t.stopping || t.s.Document() == nil {
		return
	}
	for _, at := range t.s.hints.slots() {
		name := messages.TargetTransfer + strconv.FormatUint(uint64(at.partition), 10) + "/" + string(at.node)
		if _, busy := t.running[name]; busy || len(t.running) >= maxTransfers || !t.s.reachable(at.node) || !t.s.vnodes.has(at.partition) {
			continue
		}
		if d := t.later[at]; d != nil && time.Now().Before(d.until) {
			continue
		}
		props := actor.PropsFromProducer(func() actor.Actor { return newTransfer(t.s, at, t.self) }, flat,
			actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Size: messageSize, Registry: t.s.Registry})))
		pid, err := ctx.SpawnNamed(props, name)
		if err != nil {
			t.postpone(at, err.Error())
			continue
		}
		t.running[pid.GetId()] = at
	}
}

// ended forgets a slot that is empty, and comes back to one that is not.
func (t *transfersActor) ended(m *transferEnded) {
	node := m.at.node
	t.s.Counters.HintsDelivered.Add(uint64(m.outcome.Dropped))
	t.delivered[node] += m.outcome.Dropped
	owed := slices.ContainsFunc(t.s.hints.slots(), func(x slot) bool { return x.node == node })
	if n := t.delivered[node]; n > 0 && !owed {
		t.s.Log.Info("all hints delivered", slog.String("to", string(node)), slog.Int("records", n))
		delete(t.delivered, node)
	}
	if m.outcome.Complete {
		delete(t.later, m.at)
		return
	}
	if d := t.later[m.at]; d != nil && m.outcome.Kept > 0 {
		d.pause = transferPause // it got through; what changed is handed over soon
	}
	t.postpone(m.at, m.outcome.Reason)
}

func (t *transfersActor) postpone(at slot, why string) {
	d := t.wait(at)
	if d.why != why {
		t.s.Log.Info("hints wait", slog.String("for", string(at.node)), slog.Uint64("partition", uint64(at.partition)), slog.String("reason", why))
	}
	d.why = why
}

// wait lets a slot rest, longer each time.
func (t *transfersActor) wait(at slot) *delay {
	d := t.later[at]
	if d == nil {
		d = &delay{pause: transferPause}
		t.later[at] = d
	}
	d.until = time.Now().Add(d.pause/2 + rand.N(d.pause))
	d.pause = min(2*d.pause, transferPauseMax)
	return d
}

// transferActor runs one transfer. Batches are named by their number, and other
// messages say in what state they are awaited.
type transferActor struct {
	s        *Services
	at       slot
	parent   *actor.PID
	self     *actor.PID
	transfer *transfer.Transfer
	cursor   []byte // the next read begins here
	batch    []hint
	bytes    int // of the batch
	timer    *rt.Timer
	ended    bool
}

// batchRead is the outcome of a read of the store that by asked for: an earlier
// transfer of the same partition and node has had the same name.
type batchRead struct {
	by    *transferActor
	hints []hint
	next  []byte
	bytes int
	err   error
}

// batchDue ends the wait for a batch; batchPause is the end of a pause.
type (
	batchDue   struct{ state transfer.State }
	batchPause struct{}
)

func newTransfer(s *Services, at slot, parent *actor.PID) *transferActor {
	lower, _ := vnode.HintRange(at.node, at.partition)
	// An answer to an earlier transfer, perhaps of before a restart of this node,
	// finds this one under its name, so numbers are not used twice.
	return &transferActor{s: s, at: at, parent: parent, transfer: transfer.New(s.Self, at.node, rand.Uint64()>>1), cursor: lower}
}

// Receive translates messages to events.
func (a *transferActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		a.run(ctx, a.transfer.Start())
	case *batchRead:
		a.read(ctx, m)
	case *batchPause:
		a.fetch()
	case *messages.HandoffReply:
		a.step(ctx, transfer.Confirmed{Node: from(ctx), Batch: m.GetBatch()})
	case *messages.Failure:
		a.refused(ctx, m)
	case *link.Undelivered:
		if r, ok := m.Message.(*messages.HandoffRequest); ok {
			a.step(ctx, transfer.Failed{Node: target(m), Batch: r.GetBatch(), Unreachable: m.Reason == link.NotConnected, Reason: m.Reason.String()})
		}
	case *hintsDropped:
		a.step(ctx, transfer.Dropped{Kept: m.kept})
	case *batchDue:
		if a.transfer.State() == m.state {
			a.step(ctx, transfer.Broken{Reason: fmt.Sprintf("no answer within %v while %v", transferTimeout, m.state)})
		}
	case *actor.DeadLetterResponse:
		a.step(ctx, transfer.Broken{Reason: "this node's own vnode has stopped"})
	case *actor.Stopping:
		a.timer.Stop()
		a.tell(ctx, transfer.Outcome{Reason: "stopped"})
	}
}

// refused takes a failure: of this node's vnode it ends the transfer; of a
// receiver it says that this one has not the batch.
func (a *transferActor) refused(ctx actor.Context, f *messages.Failure) {
	if from(ctx) == a.s.Self {
		a.step(ctx, transfer.Broken{Reason: f.Error()})
		return
	}
	a.step(ctx, transfer.Failed{Node: from(ctx), Batch: a.transfer.Number(), Reason: f.Error()})
}

func (a *transferActor) step(ctx actor.Context, e transfer.Event) { a.run(ctx, a.transfer.Step(e)) }

func (a *transferActor) run(ctx actor.Context, effects []transfer.Effect) {
	var request *link.Shared
	for _, e := range effects {
		switch e := e.(type) {
		case transfer.ReadNext:
			a.pace()
		case transfer.Offer:
			if request == nil {
				request = link.Share(a.request(e.Batch))
				a.arm(&batchDue{transfer.Confirming}, transferTimeout)
			}
			a.offer(ctx, e.Node, request)
		case transfer.Drop:
			a.arm(&batchDue{transfer.Dropping}, transferTimeout)
			ctx.Request(on(a.s.Self, vnodeName(a.at.partition)), &dropHints{hints: a.batch})
		case transfer.Finish:
			a.tell(ctx, e.Outcome)
			ctx.Stop(ctx.Self())
		}
	}
}

// offer sends the batch to a replica. One that is not worth asking could not be
// reached: a disk that hangs must not keep others from what is theirs.
func (a *transferActor) offer(ctx actor.Context, node dynamo.NodeID, request *link.Shared) {
	to := on(node, vnodeName(a.at.partition))
	if node != a.at.node && !a.s.reachable(node) {
		ctx.Send(a.self, &link.Undelivered{Target: to, Message: request.Message(), Reason: link.NotConnected})
		return
	}
	ctx.Request(to, request.For(a.s.System, to))
}

func (a *transferActor) arm(m any, d time.Duration) {
	a.timer.Stop()
	a.timer = a.s.Wheel.Send(a.self, m, d)
}

// tell says how it ended, once.
func (a *transferActor) tell(ctx actor.Context, o transfer.Outcome) {
	if !a.ended {
		a.ended = true
		ctx.Request(a.parent, &transferEnded{at: a.at, outcome: o})
	}
}

func (a *transferActor) request(number uint64) *messages.HandoffRequest {
	m := &messages.HandoffRequest{
		Partition: uint32(a.at.partition), Batch: number, N: uint32(vnode.ObjectN(a.batch[0].object)), TimeoutMs: uint32(transferTimeout.Milliseconds()),
	}
	for i := range a.batch {
		h := &a.batch[i]
		if len(h.encoded) == 0 {
			continue
		}
		_, key, _ := vnode.ParseObjectKey(h.object)
		m.Records = append(m.Records, &messages.HandoffRecord{Bucket: []byte(key.Bucket), Key: []byte(key.Name), Record: h.encoded})
	}
	return m
}

// pace fetches the next batch when the rate allows what the last one took.
func (a *transferActor) pace() {
	pause := time.Duration(a.bytes) * time.Second / transferRate
	if a.bytes = 0; pause < time.Millisecond {
		a.fetch()
		return
	}
	a.arm(&batchPause{}, pause)
}

// fetch reads the next batch on the pool of readers.
func (a *transferActor) fetch() {
	a.arm(&batchDue{transfer.Reading}, transferTimeout) // a read that panics says nothing
	self, root, s, at, cursor := a.self, a.s.System.Root, a.s, a.at, a.cursor
	submitted := s.Readers.Submit(func() {
		m := s.readBatch(at, cursor)
		m.by = a
		root.Send(self, m)
	})
	if !submitted {
		a.arm(&batchPause{}, transferPause)
	}
}

// read offers what was read. Once it was offered, nothing may take its place: what
// is dropped is what lies here.
func (a *transferActor) read(ctx actor.Context, m *batchRead) {
	if m.by != a || a.transfer.State() != transfer.Reading {
		return
	}
	if m.err != nil {
		a.step(ctx, transfer.Broken{Reason: m.err.Error()})
		return
	}
	a.batch, a.cursor, a.bytes = m.hints, m.next, m.bytes
	b := transfer.Batch{Size: len(m.hints)}
	if b.Size > 0 {
		b.Replicas, b.Needed = a.s.needs(a.at.partition, m.hints)
	}
	a.step(ctx, transfer.Read{Batch: b})
}

// needs are the replicas of a batch and how many of them must confirm it.
func (s *Services) needs(p dynamo.Partition, hints []hint) ([]dynamo.NodeID, int) {
	doc := s.Document()
	n := vnode.ObjectN(hints[0].object)
	needed := n/2 + 1
	for i := range hints {
		_, key, _ := vnode.ParseObjectKey(hints[i].object)
		properties, _ := doc.Bucket(key.Bucket)
		needed = max(needed, properties.Quorum.W)
	}
	return doc.Settled.Primaries(p, n), needed
}

// readBatch reads hints of one n from the cursor on. It runs on a reader.
func (s *Services) readBatch(at slot, cursor []byte) *batchRead {
	_, upper := vnode.HintRange(at.node, at.partition)
	out := &batchRead{next: cursor}
	err := s.Engine.Scan(cursor, upper, func(key, value []byte) bool {
		_, object, ok := vnode.ParseHintKey(key)
		if !ok {
			return true
		}
		full := len(out.hints) >= batchRecords || out.bytes+len(value) > batchBytes
		if len(out.hints) > 0 && (full || vnode.ObjectN(object) != vnode.ObjectN(out.hints[0].object)) {
			return false
		}
		h, err := s.readHint(at, append([]byte(nil), key...), object, append([]byte(nil), value...))
		if err != nil {
			out.err = err
			return false
		}
		out.hints = append(out.hints, h)
		out.bytes += len(h.encoded)
		out.next = append(append([]byte(nil), key...), 0)
		return true
	})
	out.err = errors.Join(out.err, err)
	return out
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

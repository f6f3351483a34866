package actors

import (
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
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
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

// transfersActor moves records between nodes, some partitions at a time. It starts
// a transfer for each node and partition that hints are kept for, when the node is
// up, one for each partition of which objects lie here that belong elsewhere, and a
// fill for each partition that lacks data; and again after a pause when one fails.
type transfersActor struct {
	s       *Services
	self    *actor.PID
	running map[string]work // by name
	told    map[string]bool // those that said how they ended
	later   map[work]*delay
	fills   map[dynamo.Partition]*filling
	look    misplacedLook
	// delivered counts what each node was given since it was last owed nothing.
	delivered map[dynamo.NodeID]int
	timer     *rt.Timer
	stopping  bool
}

// work is one thing to do: hand over what is kept for a node, or, when it names
// none, the objects that lie here and belong elsewhere; or fill the partition.
type work struct {
	slot
	fill bool
}

// name is that of the actor that does it.
func (w work) name() string {
	p := strconv.FormatUint(uint64(w.partition), 10)
	switch {
	case w.fill:
		return messages.TargetFill + p
	case w.node == "":
		return messages.TargetTransfer + p
	}
	return messages.TargetTransfer + p + "/" + string(w.node)
}

// delay is when work that failed is tried again.
type delay struct {
	until time.Time
	pause time.Duration
	why   string
	// given: the intended node has everything that is kept for it.
	given bool
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
		return &transfersActor{s: s, running: map[string]work{}, told: map[string]bool{}, later: map[work]*delay{}, fills: map[dynamo.Partition]*filling{}, delivered: map[dynamo.NodeID]int{}}
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
		t.hear(ctx, work{slot: m.at})
		t.ended(m)
	case *fillEnded:
		t.hear(ctx, m.of.work())
		t.filled(ctx, m)
	case *misplacedFound:
		t.found(ctx, m)
	case *actor.Terminated: // a system message: it may overtake the last word, which then decides
		id := m.GetWho().GetId()
		if w, ok := t.running[id]; ok && !t.told[id] {
			t.wait(w)
			if w.fill {
				delete(t.fills, w.partition) // what it was doing is not known
			}
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

// hear notes that what is done had its last word.
func (t *transfersActor) hear(ctx actor.Context, w work) {
	if id := ctx.Sender().GetId(); t.running[id] == w {
		t.told[id] = true
	}
}

func (t *transfersActor) start(ctx actor.Context) {
	doc := t.s.Document()
	if t.stopping || doc == nil {
		return
	}
	t.find(doc)
	todo := t.todo(doc)
	// In any order: what fails again and again must not take the place of the rest.
	rand.Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	for _, w := range todo {
		name := w.name()
		if _, busy := t.running[name]; busy || len(t.running) >= maxTransfers || !t.s.vnodes.has(w.partition) {
			continue
		}
		d := t.later[w]
		if d != nil && time.Now().Before(d.until) {
			continue
		}
		pid, err := ctx.SpawnNamed(t.props(doc, w, d), name)
		if err != nil {
			t.postpone(w, err.Error())
			continue
		}
		t.running[pid.GetId()] = w
	}
}

// todo is what there is to do and can be done now.
func (t *transfersActor) todo(doc *member.Document) []work {
	var out []work
	n := largestN(doc)
	for _, at := range t.s.hints.slots() {
		w := work{slot: at}
		if t.s.reachable(at.node) || !doc.Holds(at.partition, n, at.node) { // then others get it
			out = append(out, w)
		} else if d := t.later[w]; d != nil {
			d.given = false // it may come back without what it was given
		}
	}
	for _, p := range t.s.misplaced.list() {
		out = append(out, work{slot: slot{partition: p}})
	}
	return append(out, t.toFill(doc)...)
}

// largestN is the largest number of replicas of any bucket.
func largestN(doc *member.Document) int {
	n := bucket.Default().Quorum.N
	for _, b := range doc.Buckets {
		n = max(n, b.Properties.Quorum.N)
	}
	return n
}

func (t *transfersActor) props(doc *member.Document, w work, d *delay) *actor.Props {
	produce := func() actor.Actor { return newTransfer(t.s, w.slot, d != nil && d.given, t.self) }
	if w.fill {
		f := t.filling(doc, w.partition)
		produce = func() actor.Actor { return newFill(t.s, f, t.self) }
	}
	return actor.PropsFromProducer(produce, flat, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Size: messageSize, Registry: t.s.Registry})))
}

// ended forgets a slot that is empty, and comes back to one that is not.
func (t *transfersActor) ended(m *transferEnded) {
	w := work{slot: m.at}
	if m.at.node == "" {
		t.s.Counters.Moved.Add(uint64(m.outcome.Dropped))
		t.look = misplacedLook{} // what is left there
	} else {
		t.count(m)
	}
	if m.outcome.Complete {
		delete(t.later, w)
		return
	}
	if d := t.later[w]; d != nil && m.outcome.Kept > 0 {
		d.pause = transferPause // it got through; what changed is handed over soon
	}
	d := t.postpone(w, m.outcome.Reason)
	d.given = m.outcome.Given || d.given && m.outcome.Dropped == 0
}

// count tells when a node was given all that was kept for it.
func (t *transfersActor) count(m *transferEnded) {
	node := m.at.node
	t.s.Counters.HintsDelivered.Add(uint64(m.outcome.Dropped))
	t.delivered[node] += m.outcome.Dropped
	owed := slices.ContainsFunc(t.s.hints.slots(), func(x slot) bool { return x.node == node })
	if n := t.delivered[node]; n > 0 && !owed {
		t.s.Log.Info("all hints delivered", slog.String("to", string(node)), slog.Int("records", n))
		delete(t.delivered, node)
	}
}

func (t *transfersActor) postpone(w work, why string) *delay {
	d := t.wait(w)
	if d.why != why {
		t.s.Log.Info("records wait", slog.String("work", w.name()), slog.String("reason", why))
	}
	d.why = why
	return d
}

// wait lets work rest, longer each time.
func (t *transfersActor) wait(w work) *delay {
	d := t.later[w]
	if d == nil {
		d = &delay{pause: transferPause}
		t.later[w] = d
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
	needs    transfer.Batch
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

// ringChanged: what was offered is not dropped, but offered again.
type ringChanged struct{}

func newTransfer(s *Services, at slot, given bool, parent *actor.PID) *transferActor {
	lower, _ := vnode.HintRange(at.node, at.partition)
	if at.node == "" {
		lower, _ = vnode.ObjectRange(at.partition)
	}
	// An answer to an earlier transfer, perhaps of before a restart of this node,
	// finds this one under its name, so numbers are not used twice.
	return &transferActor{s: s, at: at, parent: parent, transfer: transfer.New(at.node, rand.Uint64()>>1, given), cursor: lower}
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
	case *ringChanged:
		a.step(ctx, transfer.Broken{Reason: "the ring has changed"})
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
			a.drop(ctx)
		case transfer.Finish:
			a.tell(ctx, e.Outcome)
			ctx.Stop(ctx.Self())
		}
	}
}

// drop has the vnode drop the batch, if the ring is still as it was when it was
// offered: new replicas may not have been among those who confirmed it.
func (a *transferActor) drop(ctx actor.Context) {
	if !sameNeeds(a.needs, a.s.needs(a.at.partition, a.batch)) {
		ctx.Send(a.self, &ringChanged{})
		return
	}
	a.arm(&batchDue{transfer.Dropping}, transferTimeout)
	ctx.Request(on(a.s.Self, vnodeName(a.at.partition)), &dropHints{hints: a.batch})
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
		b = a.s.needs(a.at.partition, m.hints)
	}
	a.needs = b
	a.step(ctx, transfer.Read{Batch: b})
}

package actors

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/transfer"
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
	running map[string]job  // by name
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

// job is work under way.
type job struct {
	work
	progress *progress
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
		return &transfersActor{s: s, running: map[string]job{}, told: map[string]bool{}, later: map[work]*delay{}, fills: map[dynamo.Partition]*filling{}, delivered: map[dynamo.NodeID]int{}}
	}, flat, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: s.Registry})), actor.WithSupervisor(rt.StopOnFailure()))
}

// Receive starts transfers and hears how they end.
func (t *transfersActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		t.self = ctx.Self()
		t.publish()
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
	case *messages.TransfersRequest:
		t.s.answer(ctx.Sender(), t.self, t.states())
	case *actor.Terminated:
		t.terminated(m.GetWho().GetId())
		t.start(ctx)
	case *actor.Stopping:
		t.stopping = true
		t.timer.Stop()
	case *actor.Restarting:
		t.timer.Stop()
	}
}

func (t *transfersActor) arm() { t.timer = t.s.Wheel.Send(t.self, &lookForWork{}, transfersTick) }

// terminated makes room for other work. It is a system message: it may overtake the
// last word, which then decides.
func (t *transfersActor) terminated(id string) {
	if j, ok := t.running[id]; ok && !t.told[id] {
		t.wait(j.work)
		if j.fill {
			delete(t.fills, j.partition) // what it was doing is not known
		}
	}
	delete(t.running, id)
	delete(t.told, id)
	t.publish()
}

// publish tells the rest of the node which partitions are moved.
func (t *transfersActor) publish() {
	moving := map[dynamo.Partition]bool{}
	for _, j := range t.running {
		moving[j.partition] = true
	}
	t.s.moving.Store(&moving)
}

// hear notes that what is done had its last word.
func (t *transfersActor) hear(ctx actor.Context, w work) {
	id := ctx.Sender().GetId()
	if j, ok := t.running[id]; ok && j.work == w {
		t.told[id] = true
	}
}

func (t *transfersActor) start(ctx actor.Context) {
	doc := t.s.Document()
	if t.stopping || doc == nil || t.s.quarantined() != "" {
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
		j := job{work: w, progress: &progress{began: time.Now()}}
		pid, err := ctx.SpawnNamed(t.props(doc, j, d), name)
		if err != nil {
			t.postpone(w, err.Error())
			continue
		}
		t.running[pid.GetId()] = j
		t.publish()
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

func (t *transfersActor) props(doc *member.Document, j job, d *delay) *actor.Props {
	produce := func() actor.Actor { return newTransfer(t.s, j, d != nil && d.given, t.self) }
	if j.fill {
		f := t.filling(doc, j.partition)
		produce = func() actor.Actor { return newFill(t.s, f, j.progress, t.self) }
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
		t.s.Counters.Transfers.Add(1)
		delete(t.later, w)
		return
	}
	t.s.Counters.TransfersFailed.Add(1)
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

// rest is how long to rest after a batch of so many bytes.
func rest(bytes int) time.Duration { return time.Duration(bytes) * time.Second / transferRate }

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

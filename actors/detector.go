package actors

import (
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/detector"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// detectorTick is how often the detector looks at what requests have noticed.
const detectorTick = 100 * time.Millisecond

// peerTable is what requests notice of other nodes, for the detector, and what
// the detector thinks of them, for requests. A message for each answer would
// cost more than the answer.
type peerTable struct {
	noticed  sync.Map // dynamo.NodeID to *noticed
	opinions atomic.Pointer[map[dynamo.NodeID]opinion]
}

// noticed counts since the detector last looked.
type noticed struct {
	// answers in all, written those to writes that the disk has; missed in all,
	// unwritten those that were writes.
	answers, written, micros, missed, unwritten atomic.Int64
}

type opinion struct {
	opinion detector.Opinion
	slow    bool
}

func (t *peerTable) of(node dynamo.NodeID) *noticed {
	if n, ok := t.noticed.Load(node); ok {
		return n.(*noticed)
	}
	n, _ := t.noticed.LoadOrStore(node, &noticed{})
	return n.(*noticed)
}

// answered notes that a node answered a request in so long; written, that it did
// so because its disk has a write.
func (s *Services) answered(node dynamo.NodeID, took time.Duration, written bool) {
	if node != s.Self {
		n := s.peers.of(node)
		if written {
			n.written.Add(1)
		}
		n.micros.Add(took.Microseconds())
		n.answers.Add(1)
	}
}

// missed notes that a node left a request unanswered.
func (s *Services) missed(node dynamo.NodeID, write bool) {
	if node != s.Self {
		n := s.peers.of(node)
		if write {
			n.unwritten.Add(1)
		}
		n.missed.Add(1)
	}
}

// reachable is this node's opinion of whether another one is worth asking.
func (s *Services) reachable(node dynamo.NodeID) bool {
	switch {
	case node == s.Self:
		return true
	case s.Reachable != nil:
		return s.Reachable(node)
	}
	return s.opinion(node).opinion == detector.Up
}

func (s *Services) opinion(node dynamo.NodeID) opinion {
	if all := s.peers.opinions.Load(); all != nil {
		return (*all)[node]
	}
	return opinion{}
}

// linkChanged tells the detector that a link came up or broke.
type linkChanged struct {
	node dynamo.NodeID
	up   bool
}

// RuntimeControl lets it overtake.
func (*linkChanged) RuntimeControl() {}

// IgnoreDeadLetterLogging: links outlive the actors when the node stops.
func (*linkChanged) IgnoreDeadLetterLogging() {}

// look is the detector's tick.
type look struct{}

// RuntimeControl lets it overtake probes.
func (*look) RuntimeControl() {}

// probeWritten says that the write of a probe is durable, or why not.
type probeWritten struct {
	by  *detectorActor
	err error
}

// detectorActor runs the node's failure detector, and answers the probes of
// others.
type detectorActor struct {
	s        *Services
	self     *actor.PID
	detector *detector.Detector
	base     time.Time
	timer    *rt.Timer
	// writing: a write for those who probe is under way; waiting are those that
	// came since, asking those that it is for.
	writing         bool
	asking, waiting []prober
}

type prober struct {
	pid    *actor.PID
	number uint64
}

func newDetector(s *Services) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor {
		return &detectorActor{s: s, detector: detector.New(detector.Default()), base: time.Now()}
	}, flat, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{
		Size: messageSize, TTL: messageTTL, Shed: s.shed, Expired: s.expired, Failed: s.failed, Registry: s.Registry,
	})))
}

// Receive translates messages to the detector's events.
func (d *detectorActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		d.self = ctx.Self()
		up := d.s.links() // before this actor, or its restart
		// What an instance before it thought of others nobody would ever correct: a
		// link that broke meanwhile is not news to one that knows of none.
		d.s.peers.opinions.Store(nil)
		for _, node := range up {
			d.step(ctx, detector.Linked{Node: node})
		}
		d.arm()
	case *linkChanged:
		if m.up {
			d.step(ctx, detector.Linked{Node: m.node})
		} else {
			d.step(ctx, detector.Unlinked{Node: m.node})
		}
	case *look:
		d.look(ctx)
		d.arm()
	case *messages.ProbeReply:
		d.step(ctx, detector.ProbeAnswered{Node: from(ctx), Number: m.GetNumber()})
	case *messages.ProbeRequest:
		d.waiting = append(d.waiting, prober{ctx.Sender(), m.GetNumber()})
		d.write()
	case *probeWritten:
		d.written(m)
	case *actor.Stopping, *actor.Restarting:
		d.timer.Stop()
	}
}

// links are the nodes that requests can be sent to right now.
func (s *Services) links() []dynamo.NodeID {
	if s.Founding.Members == nil {
		return nil
	}
	return s.Founding.Members()
}

func (d *detectorActor) arm() { d.timer = d.s.Wheel.Send(d.self, &look{}, detectorTick) }

// look feeds what requests have noticed since the last time.
func (d *detectorActor) look(ctx actor.Context) {
	d.s.peers.noticed.Range(func(key, value any) bool {
		d.feed(ctx, key.(dynamo.NodeID), value.(*noticed))
		return true
	})
	d.step(ctx, detector.Tick{})
}

// feed tells what was noticed of one node. What it did answer weighs more than
// what it did not; but reads that it answers from memory do not excuse writes that
// its disk does not take.
func (d *detectorActor) feed(ctx actor.Context, node dynamo.NodeID, n *noticed) {
	answers, written, micros := n.answers.Swap(0), n.written.Swap(0), n.micros.Swap(0)
	missed, unwritten := n.missed.Swap(0), n.unwritten.Swap(0)
	if answers > 0 {
		d.step(ctx, detector.Answered{Node: node, Took: time.Duration(micros/answers) * time.Microsecond, Memory: written == 0})
		missed = unwritten
	}
	if written > 0 {
		return
	}
	for i := range min(missed, 10) {
		d.step(ctx, detector.Missed{Node: node, Write: i < unwritten})
	}
}

func (d *detectorActor) step(ctx actor.Context, e detector.Event) {
	for _, fx := range d.detector.Step(time.Since(d.base), e) {
		switch fx := fx.(type) {
		case detector.Probe:
			ctx.Request(on(fx.Node, nameDetector), &messages.ProbeRequest{Number: fx.Number, TimeoutMs: uint32(detector.Default().ProbeTimeout.Milliseconds())})
		case detector.Changed:
			d.publish(fx)
		}
	}
}

func (d *detectorActor) publish(c detector.Changed) {
	next := map[dynamo.NodeID]opinion{}
	if all := d.s.peers.opinions.Load(); all != nil {
		maps.Copy(next, *all)
	}
	was := next[c.Node]
	next[c.Node] = opinion{c.Opinion, c.Slow}
	d.s.peers.opinions.Store(&next)
	switch {
	case c.Opinion == detector.Suspected:
		d.s.Log.Warn("node is suspected: its link stands, but it does not answer or comes and goes", slog.String("peer", string(c.Node)))
	case was.opinion == detector.Suspected && c.Opinion == detector.Up:
		d.s.Log.Info("node answers again", slog.String("peer", string(c.Node)))
	case c.Slow != was.slow && c.Opinion == detector.Up:
		d.s.Log.Info("node's speed", slog.String("peer", string(c.Node)), slog.Bool("slow", c.Slow))
	}
}

// write makes something durable for those who probe, once for all that wait.
func (d *detectorActor) write() {
	if d.writing || len(d.waiting) == 0 {
		return
	}
	d.writing = true
	d.asking, d.waiting = d.waiting, nil
	self, root := d.self, d.s.System.Root
	done := func(err error) { root.Send(self, &probeWritten{by: d, err: err}) }
	b := d.s.Engine.NewBatch()
	b.Set(vnode.NodeKey("probe"), []byte(d.s.Self))
	if err := b.Commit(storage.Synced, done); err != nil {
		done(err)
	}
}

// written answers those who probed; a disk that fails is not answered for.
func (d *detectorActor) written(m *probeWritten) {
	if m.by != d {
		return
	}
	d.writing = false
	for _, p := range d.asking {
		if m.err == nil {
			d.s.answer(p.pid, d.self, &messages.ProbeReply{Number: p.number})
		} else {
			d.s.answer(p.pid, d.self, messages.Fail(messages.CodeStorage, "%s: %v", d.s.Self, m.err))
		}
	}
	d.asking = nil
	d.write()
}

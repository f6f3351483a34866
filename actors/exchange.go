package actors

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/messages"
)

// exchangeActor runs one exchange with another replica (§ 4.7). What the machine asks
// for it asks of the peer's vnode and of this node's own, by the same messages.
type exchangeActor struct {
	s            *Services
	pair         aae.Pair
	job          uint64 // its number at the parent
	parent, self *actor.PID
	x            *aae.Exchange
	// plan is the version of the document that the exchange goes by, incarnation that of
	// the peer's vnode.
	plan        uint64
	incarnation []byte
	// asking is what the machine has asked for; own and peer are the two halves of the
	// answer, holding is the own half of a list, page what goes to be merged.
	asking    aae.Effect
	own, peer *messages.ExchangeReply
	holding   *aae.Holding
	page      *messages.RecordPage
	damaged   int // records that could not be read to be pushed
	bytes     int // of the messages since the last answer
	turn      turn
	rest      int // bytes that the rate has to allow for
	timer     *rt.Timer
	ended     bool
}

// exchangeRead is what was read of the own store.
type exchangeRead struct {
	by      *exchangeActor
	batch   uint64
	holding *aae.Holding
	page    *messages.RecordPage
	read    int64 // dates its records
	damaged int   // records that page should have
	err     error
}

// exchangeDue ends the wait for an answer; exchangePause a pause.
type (
	exchangeDue struct {
		batch uint64
		state aae.State
	}
	exchangePause struct{ batch uint64 }
)

// exchangeEnded is the last word of an exchange.
type exchangeEnded struct {
	pair    aae.Pair
	number  uint64
	outcome aae.Outcome
}

func exchangeName(p aae.Pair) string {
	return messages.TargetExchange + strconv.FormatUint(uint64(p.Partition), 10) + "/" + strconv.Itoa(p.N) + "/" + string(p.Peer)
}

func newExchange(s *Services, j *exchangeJob, round, plan uint64, parent *actor.PID) *exchangeActor {
	// An answer to an earlier exchange, perhaps of before a restart of this node, finds
	// this one under its name, so numbers are not used twice.
	return &exchangeActor{s: s, pair: j.pair, job: j.number, parent: parent, plan: plan, x: aae.New(rand.Uint64()>>1, round)}
}

// Receive translates messages to events.
func (a *exchangeActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		a.turn.gone(a.s, a.self)
		a.run(ctx, a.x.Start())
	case *messages.ExchangeReply:
		a.answered(ctx, m)
	case *exchangeRead:
		a.read(ctx, m)
	case *pageMerged:
		if m.by == a {
			a.step(ctx, m.event)
		}
	case *messages.Failure:
		a.refused(ctx, m)
	case *link.Undelivered:
		if r, ok := m.Message.(*messages.ExchangeRequest); ok {
			a.step(ctx, aae.Failed{Batch: r.GetBatch(), Reason: fmt.Sprintf("%s: %v", a.pair.Peer, m.Reason)})
		}
	case *sliceGranted:
		if a.turn.begins(a.s, a.self) {
			a.ask(ctx)
		}
	case *askAgain:
		if a.turn.asked {
			a.timer = a.turn.next(a.s, a.self)
		}
	case *exchangePause:
		if m.batch == a.x.Number() {
			a.pace()
		}
	case *exchangeDue:
		if m.batch == a.x.Number() && m.state == a.x.State() {
			a.step(ctx, aae.Broken{Reason: fmt.Sprintf("no answer within %v while %v", transferTimeout, m.state)})
		}
	case *actor.DeadLetterResponse:
		a.step(ctx, aae.Broken{Reason: "this node's own vnode has stopped"})
	case *actor.Stopping:
		a.timer.Stop()
		a.turn.gone(a.s, a.self)
		a.tell(ctx, aae.Outcome{Reason: "stopped"})
	}
}

func (a *exchangeActor) step(ctx actor.Context, e aae.Event) { a.run(ctx, a.x.Step(e)) }

func (a *exchangeActor) run(ctx actor.Context, effects []aae.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case aae.Recheck:
			recheck := func(m *messages.ExchangeRequest) {
				m.Question = &messages.ExchangeRequest_Recheck{Recheck: &messages.TreeLeaves{Bits: uint32(e.Leaf.Bits), Index: []uint32{e.Leaf.Index}}}
			}
			a.askOwn(ctx, 0, recheck)
			a.askPeer(ctx, 0, recheck)
		case aae.Merge:
			a.arm(&exchangeDue{e.Batch, a.x.State()}, transferTimeout)
			ctx.Request(a.vnode(), &mergePage{
				by: a, plan: a.plan, n: a.pair.N, bits: a.asking.(aae.Pull).Bits, batch: e.Batch, records: a.page.GetRecords(),
				read: a.peer.GetReadMs(),
			})
		case aae.Finish:
			a.tell(ctx, e.Outcome)
			ctx.Stop(ctx.Self())
		default:
			a.asking, a.own, a.peer, a.holding = e, nil, nil, nil
			a.pace()
		}
	}
}

// vnode is this node's own.
func (a *exchangeActor) vnode() *actor.PID { return on(a.s.Self, vnodeName(a.pair.Partition)) }

// pace asks for a slice of time for the next question, when the rate allows what the
// last answer took.
func (a *exchangeActor) pace() {
	a.turn.over(a.s, a.self)
	pause := rest(a.rest)
	if a.rest = 0; pause >= time.Millisecond {
		a.arm(&exchangePause{a.x.Number()}, pause)
		return
	}
	a.timer.Stop()
	a.timer = a.turn.next(a.s, a.self)
}

func (a *exchangeActor) arm(m any, d time.Duration) {
	a.timer.Stop()
	a.timer = a.s.Wheel.Send(a.self, m, d)
}

// ask asks the first questions of what the machine wants to know.
func (a *exchangeActor) ask(ctx actor.Context) {
	a.arm(&exchangeDue{a.x.Number(), a.x.State()}, transferTimeout)
	switch e := a.asking.(type) {
	case aae.Greet:
		a.askOwn(ctx, e.Batch, func(m *messages.ExchangeRequest) {
			m.Question = &messages.ExchangeRequest_Root{Root: &messages.TreeRoot{}}
		})
	case aae.Compare:
		nodes := func(m *messages.ExchangeRequest) { m.Round, m.Question = e.Round, nodesOf(e) }
		a.askOwn(ctx, e.Batch, nodes)
		a.askPeer(ctx, e.Batch, nodes)
	case aae.List:
		l := messages.Leaves{List: aae.List{Bits: e.Bits, Index: slices.Clone(e.Index), From: e.From}}
		a.readOwn(e.Batch, func(out *exchangeRead) { out.holding, out.err = a.s.list(a.pair.Partition, a.pair.N, l) })
	case aae.Pull:
		names := &messages.RecordNames{Bits: uint32(e.Bits), From: e.From, Until: e.Until}
		for _, it := range e.Items {
			names.Leaf, names.Hash = append(names.Leaf, it.Leaf), append(names.Hash, it.Hash)
		}
		a.askPeer(ctx, e.Batch, func(m *messages.ExchangeRequest) { m.Question = &messages.ExchangeRequest_Pull{Pull: names} })
	case aae.Push:
		q := aae.Pull(e)
		q.Items = slices.Clone(e.Items)
		a.readOwn(e.Batch, func(out *exchangeRead) {
			out.read = a.s.millis()
			out.page, out.damaged, out.err = a.s.find(a.pair.Partition, a.pair.N, q)
		})
	}
}

func nodesOf(e aae.Compare) *messages.ExchangeRequest_Nodes {
	return &messages.ExchangeRequest_Nodes{Nodes: &messages.TreeNodes{Bits: uint32(e.Bits), Index: slices.Clone(e.Index), To: uint32(e.To)}}
}

func (a *exchangeActor) request(batch uint64, fill func(*messages.ExchangeRequest)) *messages.ExchangeRequest {
	m := &messages.ExchangeRequest{
		Partition: uint32(a.pair.Partition), N: uint32(a.pair.N), Plan: a.plan, Batch: batch, TimeoutMs: uint32(transferTimeout.Milliseconds()),
	}
	fill(m)
	return m
}

func (a *exchangeActor) askOwn(ctx actor.Context, batch uint64, fill func(*messages.ExchangeRequest)) {
	ctx.Request(a.vnode(), a.request(batch, fill))
}

func (a *exchangeActor) askPeer(ctx actor.Context, batch uint64, fill func(*messages.ExchangeRequest)) {
	m := a.request(batch, fill)
	m.Incarnation = a.incarnation
	to := on(a.pair.Peer, vnodeName(a.pair.Partition))
	if !a.s.reachable(a.pair.Peer) {
		ctx.Send(a.self, &link.Undelivered{Target: to, Message: m, Reason: link.NotConnected})
		return
	}
	a.bytes += proto.Size(m)
	ctx.Request(to, m)
}

// readOwn reads the own store on the pool of readers.
func (a *exchangeActor) readOwn(batch uint64, read func(*exchangeRead)) {
	self, root := a.self, a.s.System.Root
	submitted := a.s.Readers.Submit(func() {
		out := &exchangeRead{by: a, batch: batch, err: errReadPanicked}
		defer func() { root.Send(self, out) }()
		read(out)
	})
	if !submitted {
		root.Send(self, &exchangeRead{by: a, batch: batch, err: errReadersBusy})
	}
}

// read goes on with what was read: the peer is asked the same.
func (a *exchangeActor) read(ctx actor.Context, m *exchangeRead) {
	if m.by != a || m.batch != a.x.Number() {
		return
	}
	if m.err != nil {
		a.step(ctx, aae.Broken{Reason: m.err.Error()})
		return
	}
	switch e := a.asking.(type) {
	case aae.List:
		a.holding = m.holding
		leaves := &messages.TreeLeaves{Bits: uint32(e.Bits), Index: slices.Clone(e.Index[:len(m.holding.Lists)]), From: e.From, Until: m.holding.Next}
		a.askPeer(ctx, e.Batch, func(r *messages.ExchangeRequest) { r.Question = &messages.ExchangeRequest_Leaves{Leaves: leaves} })
	case aae.Push:
		if a.page, a.damaged = m.page, m.damaged; len(m.page.GetRecords()) == 0 {
			a.step(ctx, aae.Pushed{Batch: e.Batch, Handled: int(m.page.GetHandled()), Damaged: m.damaged})
			return
		}
		a.askPeer(ctx, e.Batch, func(r *messages.ExchangeRequest) {
			r.ReadMs, r.Question = m.read, &messages.ExchangeRequest_Push{Push: &messages.RecordPage{Records: m.page.GetRecords()}}
		})
	}
}

// answered puts the halves of an answer together.
func (a *exchangeActor) answered(ctx actor.Context, m *messages.ExchangeReply) {
	if m.GetBatch() != a.x.Number() {
		return
	}
	if from(ctx) == a.s.Self {
		a.own = m
	} else {
		a.peer, a.incarnation = m, m.GetIncarnation()
		a.bytes += proto.Size(m)
	}
	switch e := a.asking.(type) {
	case aae.Greet:
		a.met(ctx, e)
	case aae.Compare:
		if a.own != nil && a.peer != nil {
			a.step(ctx, aae.Compared{Batch: e.Batch, Own: a.own.GetDigests(), Peer: a.peer.GetDigests(), Bytes: a.took()})
		}
	case aae.List:
		if a.holding == nil || a.peer == nil {
			return
		}
		a.holding.Cut(len(m.GetLeaves()), m.GetNext())
		listed := aae.Listed{Batch: e.Batch, Own: a.holding.Lists, Next: a.holding.Next, Damaged: a.holding.Damaged + int(m.GetDamaged()), Bytes: a.took()}
		for _, l := range m.GetLeaves() {
			listed.Peer = append(listed.Peer, l.GetHash())
		}
		a.step(ctx, listed)
	case aae.Pull:
		if a.peer != nil && a.x.State() == aae.Pulling { // not what is being merged
			a.pulled(ctx, e)
		}
	case aae.Push:
		if a.peer != nil && a.page != nil {
			a.step(ctx, aae.Pushed{
				Batch: e.Batch, Handled: int(a.page.GetHandled()), Records: int(m.GetMerged()), Damaged: a.damaged + int(m.GetDamaged()),
				Bytes: a.took(), RecordBytes: recordBytes(a.page.GetRecords()),
			})
		}
	}
}

// pulled takes the records that the peer was asked for.
func (a *exchangeActor) pulled(ctx actor.Context, e aae.Pull) {
	a.page = a.peer.GetPage()
	if len(a.page.GetRecords()) > 0 {
		if f := a.s.tooOld(a.peer.GetReadMs(), a.s.millis()); f != nil {
			a.step(ctx, aae.Failed{Batch: e.Batch, Reason: fmt.Sprintf("%s: %v", a.pair.Peer, f)})
			return
		}
	}
	a.step(ctx, aae.Page{
		Batch: e.Batch, Handled: int(a.page.GetHandled()), Records: len(a.page.GetRecords()), Damaged: int(a.peer.GetDamaged()),
		Bytes: a.took(), RecordBytes: recordBytes(a.page.GetRecords()),
	})
}

// met goes from the own root to the peer's, and to the own digests if the two differ.
func (a *exchangeActor) met(ctx actor.Context, e aae.Greet) {
	switch {
	case a.peer == nil:
		root := &messages.TreeRoot{Hash: a.own.GetRoot(), Bits: a.own.GetBits()}
		a.askPeer(ctx, e.Batch, func(m *messages.ExchangeRequest) {
			m.Round, m.Question = e.Round, &messages.ExchangeRequest_Root{Root: root}
		})
	case a.peer.GetEqual():
		a.step(ctx, aae.Met{Batch: e.Batch, Equal: true, Bytes: a.took()})
	case len(a.own.GetDigests()) == 0:
		children := aae.Compare{Index: []uint32{0}, To: uint8(min(aae.LevelBits, a.peer.GetBits()))}
		a.askOwn(ctx, e.Batch, func(m *messages.ExchangeRequest) { m.Round, m.Question = e.Round, nodesOf(children) })
	default:
		a.step(ctx, aae.Met{
			Batch: e.Batch, Bits: uint8(min(a.peer.GetBits(), 255)), Own: a.own.GetDigests(), Peer: a.peer.GetDigests(), Bytes: a.took(),
		})
	}
}

// took is how many bytes went to and fro since the last answer.
func (a *exchangeActor) took() int {
	n := a.bytes
	a.rest, a.bytes = n, 0
	return n
}

func recordBytes(all []*messages.HandoffRecord) int {
	n := 0
	for _, r := range all {
		n += len(r.GetRecord()) + len(r.GetKey()) + len(r.GetBucket())
	}
	return n
}

// refused takes a failure: of this node's vnode it says nothing of the peer.
func (a *exchangeActor) refused(ctx actor.Context, f *messages.Failure) {
	if from(ctx) == a.s.Self {
		a.step(ctx, aae.Broken{Reason: f.Error()})
		return
	}
	if f.GetCode() == messages.CodeStale {
		a.s.tellBehind(a.pair.Peer, f.GetDocumentVersion())
	}
	a.step(ctx, aae.Broken{Reason: fmt.Sprintf("%s: %v", a.pair.Peer, f)})
}

// tell says how it ended, once.
func (a *exchangeActor) tell(ctx actor.Context, o aae.Outcome) {
	if !a.ended {
		a.ended = true
		ctx.Request(a.parent, &exchangeEnded{pair: a.pair, number: a.job, outcome: o})
	}
}

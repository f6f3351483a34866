package link

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// stableAfter is how long a connection must have lasted for the next attempt
// to begin with the shortest pause.
const stableAfter = time.Second

// Messages of a peer's actor. Those that carry a wire own it until they are
// handled.
type (
	// readdress: look again where the peer is.
	readdress struct{}
	dialed    struct {
		lane    int
		attempt uint64
		wire    *wire
		err     error
	}
	greeted struct {
		lane    int
		attempt uint64
		wire    *wire
		own     Hello
		hello   Hello
		err     error
	}
	broken struct {
		conn *conn
		err  error
	}
	pauseOver struct {
		lane    int
		attempt uint64
	}
)

func (m *dialed) held() *wire  { return m.wire }
func (m *greeted) held() *wire { return m.wire }

// What reaches an actor that has just gone is normal and not worth a log line.
func (*dialed) IgnoreDeadLetterLogging()    {}
func (*greeted) IgnoreDeadLetterLogging()   {}
func (*broken) IgnoreDeadLetterLogging()    {}
func (*pauseOver) IgnoreDeadLetterLogging() {}
func (*readdress) IgnoreDeadLetterLogging() {}
func (*probed) IgnoreDeadLetterLogging()    {}
func (*askNow) IgnoreDeadLetterLogging()    {}
func (*reconcile) IgnoreDeadLetterLogging() {}

// peer is the actor of one peer: it carries out what the machines of its two
// lanes decide.
type peer struct {
	links  *Links
	outlet *outlet
	self   *actor.PID
	lanes  [lanes]*lane
	work   sync.WaitGroup // dials, greetings, refusals

	address   string // where to dial; empty if the peer only calls us
	hello     Hello  // of the request lane
	since     time.Time
	lastError error
}

type lane struct {
	index   int
	machine machine
	conn    *conn
	// waiting takes bulk messages from when requests flow until the bulk
	// connection is there, a moment later.
	waiting *queue
	cancel  context.CancelFunc // of the attempt that goes on
	ctx     context.Context
	timer   *time.Timer
}

// arrival is the connection that an event is about.
type arrival struct {
	wire       *wire
	own, hello Hello
	err        error
}

func newPeer(l *Links, o *outlet) *peer {
	p := &peer{links: l, outlet: o, since: time.Now()}
	for i := range p.lanes {
		// Sequences grow over all lives of this actor, whatever it was told.
		p.lanes[i] = &lane{index: i, machine: machine{sequence: uint64(l.now())}}
	}
	return p
}

// Receive implements actor.Actor.
func (p *peer) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		p.self = ctx.Self()
		p.readdress()
	case *readdress:
		p.readdress()
	case *inbound:
		p.inbound(m)
	case *dialed:
		p.dialed(m)
	case *greeted:
		p.greeted(m)
	case *broken:
		p.broken(m)
	case *pauseOver:
		p.step(p.lanes[m.lane], event{kind: evTimer, attempt: m.attempt}, nil)
	case *clusterChanged:
		p.clusterChanged()
	case *actor.Stopping:
		p.stop()
	case *actor.Restarting:
		p.end(func(c *conn) { c.close(ErrRestarted) }, ErrRestarted)
	}
}

// readdress takes the wanted address. A new one is used for the next attempt;
// a link that is up at the old one is left alone.
func (p *peer) readdress() {
	address := p.links.addressOf(p.outlet.id)
	if address == p.address {
		p.publish()
		return
	}
	p.address = address
	l := p.lanes[LaneRequest]
	if address == "" {
		p.step(l, event{kind: evUndialable}, nil)
		p.step(p.lanes[LaneBulk], event{kind: evUndialable}, nil)
		p.idleCheck()
		return
	}
	p.step(l, event{kind: evDialable}, nil)
	if l.machine.state == Up {
		p.step(p.lanes[LaneBulk], event{kind: evDialable}, nil)
	}
}

func (p *peer) dialed(m *dialed) {
	ev := event{kind: evDialed, attempt: m.attempt}
	if m.err != nil {
		ev.kind = evDialFailed
		p.failed(p.lanes[m.lane], m.attempt, m.err)
	}
	p.step(p.lanes[m.lane], ev, &arrival{wire: m.wire})
}

func (p *peer) greeted(m *greeted) {
	l := p.lanes[m.lane]
	if m.err == nil {
		m.err = p.twin(m)
	}
	ev := event{kind: evGreeted, attempt: m.attempt, theirs: mark{m.hello.Start, m.hello.Sequence}}
	if m.err != nil {
		ev.kind = evGreetFailed
		p.links.closeWire(m.wire)
		var r *Refusal
		if errors.As(m.err, &r) {
			p.links.refused(r)
			if r.Code == RefusedTarget && m.lane == LaneRequest {
				p.links.misplaced(p.outlet.id, p.address)
			}
		}
		if r == nil || !r.Code.normal() {
			p.failed(l, m.attempt, m.err)
		}
	}
	p.step(l, ev, &arrival{wire: m.wire, own: m.own, hello: m.hello})
}

// failed remembers why an attempt failed; one that was abandoned did not.
func (p *peer) failed(l *lane, attempt uint64, err error) {
	if attempt == l.machine.attempt && (l.machine.state == Dialing || l.machine.state == Greeting) {
		p.lastError = err
	}
}

func (p *peer) broken(m *broken) {
	l := p.lanes[m.conn.lane]
	ev := event{kind: evBroken, conn: m.conn.number, stable: time.Since(m.conn.began) >= stableAfter}
	p.step(l, ev, &arrival{err: m.err})
}

// clusterChanged ends the connections whose hello told another cluster id; the
// end itself arrives as broken.
func (p *peer) clusterChanged() {
	for _, l := range p.lanes {
		if l.conn != nil {
			l.conn.checkCluster()
		}
	}
}

// checkCluster fails the connection if our hello on it is out of date.
func (c *conn) checkCluster() {
	if !bytes.Equal(c.told, c.links.config.clusterID()) {
		c.fail(ErrClusterChanged)
	}
}

// step lets a lane's machine decide on an event and does what it says.
func (p *peer) step(l *lane, ev event, a *arrival) {
	dropped := false
	for _, fx := range l.machine.step(ev) {
		p.perform(l, fx, a)
		dropped = dropped || fx.kind == fxDrop
	}
	p.publish()
	if dropped {
		p.idleCheck()
	}
}

func (p *peer) perform(l *lane, fx effect, a *arrival) {
	switch fx.kind {
	case fxDial:
		p.dial(l, fx.attempt)
	case fxGreet:
		p.greet(l, fx, a.wire)
	case fxAbandon:
		l.cancel()
	case fxAdopt:
		// Before all else the acceptor learns what it needs to translate dates.
		p.up(l, fx.conn, a, appendPong(nil, a.hello.Stamp, p.links.clock()))
	case fxAccept:
		own := p.links.own(uint8(l.index), fx.sequence, p.outlet.id)
		own.Echo = a.hello.Stamp
		a.own = own
		p.up(l, fx.conn, a, appendHello(nil, kindWelcome, &own))
	case fxRefuse:
		p.refuse(a, fx.code)
	case fxDrop:
		why := ErrRemoved
		switch {
		case fx.replaced:
			why = ErrReplaced
		case a != nil && a.err != nil:
			why = a.err
		}
		p.down(l, why)
	case fxPause:
		p.pause(l, fx)
	case fxDiscard:
		p.links.closeWire(a.wire)
	}
}

func (p *peer) dial(l *lane, attempt uint64) {
	l.ctx, l.cancel = context.WithCancel(context.Background())
	ctx, address := l.ctx, p.address
	p.work.Go(func() {
		w, err := p.links.dial(ctx, address)
		p.links.system.Root.Send(p.self, &dialed{lane: l.index, attempt: attempt, wire: w, err: err})
	})
}

func (p *peer) greet(l *lane, fx effect, w *wire) {
	own := p.links.own(uint8(l.index), fx.sequence, p.outlet.id)
	ctx := l.ctx
	p.work.Go(func() {
		hello, err := p.links.greet(ctx, w, &own)
		p.links.system.Root.Send(p.self, &greeted{lane: l.index, attempt: fx.attempt, wire: w, own: own, hello: hello, err: err})
	})
}

// up makes the arrived connection the lane's, on which first is written first.
func (p *peer) up(l *lane, number uint64, a *arrival, first []byte) {
	if l.timer != nil {
		l.timer.Stop()
	}
	q := l.waiting
	if l.waiting = nil; q == nil {
		q = newQueue(p.links.config.QueueMessages, p.links.config.QueueBytes)
	}
	c := newConn()
	c.links, c.outlet, c.wire, c.queue, c.lane, c.number = p.links, p.outlet, a.wire, q, l.index, number
	c.peer, c.told, c.limited = a.hello, a.own.ClusterID, founding(&a.own, &a.hello)
	c.ended = func(c *conn, err error) { p.links.system.Root.Send(p.self, &broken{conn: c, err: err}) }
	l.conn = c
	p.links.noteStart(&a.hello)
	if err := c.wire.SetDeadline(time.Time{}); err != nil {
		p.links.logger.Debug("clearing a deadline failed", "peer", p.outlet.id, "error", err)
	}
	p.outlet.lanes[l.index].Store(q)
	if a.hello.Echo == a.own.Stamp { // it is a welcome
		c.bound = p.links.answers(a.hello.Echo, a.hello.Stamp)
	}
	c.start(first)
	if l.index == LaneRequest {
		p.requestsUp(c)
	}
}

// requestsUp is what follows when the request lane has come up: the peer
// counts as connected, and the bulk lane follows.
func (p *peer) requestsUp(c *conn) {
	p.hello = c.peer
	p.since = time.Now()
	p.outlet.connects.Add(1)
	bulk := p.lanes[LaneBulk]
	if bulk.conn == nil {
		p.openWaiting(bulk)
	}
	p.publish() // those who hear of it may look
	if p.links.config.Observer.Up != nil {
		up := p.peer()
		up.FoundingOnly = c.limited
		p.links.config.Observer.Up(up)
	}
	p.log("link up", "peer", p.outlet.id, "role", c.peer.Role.String(), "address", c.wire.RemoteAddr().String(),
		"start", c.peer.Start, "dialled", c.wire.dialled)
	if p.address != "" {
		p.step(bulk, event{kind: evDialable}, nil)
	}
}

func (p *peer) openWaiting(bulk *lane) {
	bulk.waiting = newQueue(p.links.config.QueueMessages, p.links.config.QueueBytes)
	p.outlet.lanes[LaneBulk].Store(bulk.waiting)
}

// dropWaiting gives up what waits for a bulk connection.
func (p *peer) dropWaiting(bulk *lane) {
	if bulk.waiting == nil {
		return
	}
	p.outlet.lanes[LaneBulk].Store(nil)
	for _, it := range bulk.waiting.close() {
		p.links.undelivered(p.outlet, p.outlet.id, &it, Broken)
	}
	bulk.waiting = nil
}

// down ends the lane's connection.
func (p *peer) down(l *lane, why error) {
	c := l.conn
	l.conn = nil
	p.outlet.lanes[l.index].Store(nil)
	c.close(why)
	p.lastError = why
	requests, bulk := p.lanes[LaneRequest], p.lanes[LaneBulk]
	if l == bulk {
		if requests.conn != nil {
			p.openWaiting(bulk)
		}
		return
	}
	p.since = time.Now()
	p.publish()
	if p.links.config.Observer.Down != nil {
		p.links.config.Observer.Down(p.peer(), why)
	}
	p.log("link down", "peer", p.outlet.id, "reason", why)
	p.dropWaiting(bulk)
	// The bulk lane follows the request lane: one of them looks for the peer.
	p.step(bulk, event{kind: evUndialable}, nil)
}

func (p *peer) pause(l *lane, fx effect) {
	if l.timer != nil {
		l.timer.Stop()
	}
	d := backoff(p.links.config.BackoffMin, p.links.config.BackoffMax, fx.failures, rand.Float64())
	over := &pauseOver{lane: l.index, attempt: fx.attempt}
	l.timer = time.AfterFunc(d, func() { p.links.system.Root.Send(p.self, over) })
}

// idleCheck ends this actor when nobody needs it: the peer is not wanted, and
// has no connection. A call that arrives at this very moment finds the actor
// gone before it is welcomed, and is repeated.
func (p *peer) idleCheck() {
	if p.address == "" && p.lanes[LaneRequest].conn == nil && p.lanes[LaneBulk].conn == nil {
		p.links.system.Root.Stop(p.self)
	}
}

func (p *peer) peer() Peer {
	return Peer{ID: p.outlet.id, Role: p.hello.Role, Start: p.hello.Start, Address: p.where()}
}

func (p *peer) where() string {
	if p.address != "" {
		return p.address
	}
	return p.hello.Advertise
}

// publish makes the state visible to Peers.
func (p *peer) publish() {
	old := p.outlet.snapshot.Load()
	s := &snapshot{role: p.hello.Role, start: p.hello.Start, address: p.where(), since: p.since}
	for i, l := range p.lanes {
		s.states[i] = l.machine.state
	}
	if old != nil && old.states[LaneRequest] != s.states[LaneRequest] {
		p.since = time.Now()
		s.since = p.since
	}
	if p.lastError != nil {
		s.lastError = p.lastError.Error()
	}
	if c := p.lanes[LaneRequest].conn; c != nil {
		s.dialled, s.limited, s.encrypted = c.wire.dialled, c.limited, p.links.config.TLS != nil
		s.operator = isOperator(c.wire)
	}
	p.outlet.snapshot.Store(s)
}

// stop is the orderly end: what is queued is written first, on both lanes at
// once.
func (p *peer) stop() {
	p.outlet.gone.Store(true)
	p.links.outlets.CompareAndDelete(p.outlet.id, p.outlet)
	var draining sync.WaitGroup
	for _, l := range p.lanes {
		if l.conn != nil {
			draining.Go(func() { l.conn.drain(p.links.config.DrainTimeout) })
		}
	}
	draining.Wait()
	why := ErrRemoved
	if p.links.isStopping() {
		why = ErrStopped
	}
	p.end(func(c *conn) { c.close(why) }, why)
}

// end closes everything this actor has. Nothing of it runs afterwards.
func (p *peer) end(closeConn func(*conn), why error) {
	for _, l := range p.lanes {
		if l.timer != nil {
			l.timer.Stop()
		}
		if l.cancel != nil {
			l.cancel()
		}
		l.machine.step(event{kind: evClose})
		if l.conn == nil {
			continue
		}
		closeConn(l.conn)
		p.outlet.lanes[l.index].Store(nil)
		if l.index == LaneRequest && p.links.config.Observer.Down != nil {
			p.links.config.Observer.Down(p.peer(), why)
		}
		l.conn = nil
	}
	p.dropWaiting(p.lanes[LaneBulk])
	p.publish()
	p.work.Wait()
}

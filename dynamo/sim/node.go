package sim

import (
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// shell runs one request: it carries out what the request's machine decides.
type shell interface {
	receive(from int, body any)
	undelivered(to int, why request.Reason)
	String() string
}

// node is one machine with its disk, and the process on it while it is up.
type node struct {
	c     *cluster
	id    dynamo.NodeID
	index int
	disk  *disk
	// life is the number of the process: callbacks of an earlier one reach
	// nobody.
	life      uint64
	up        bool
	downSince time.Duration
	paused    bool
	resumed   time.Duration
	held      []func() // what happened to a paused process, in order
	stopping  bool
	away      time.Duration // how long an orderly stop lasts
	skew      time.Duration
	// rate is how fast the clock runs that measures time here.
	rate        float64
	pausedSince time.Duration
	// backup is an old copy of the disk that had the id backupOf; nil: none.
	backup   map[string][]byte
	backupOf member.StoreID

	vnodes   []*vnodeShell
	requests map[uint64]shell
	inFlight int
	next     uint64

	transfers []*transferShell
	looking   bool // for hints

	// inForce is the document that the node goes by, nil before there is one; since
	// says from which version on requests for each partition must be planned.
	inForce *member.Document
	since   []uint64
	// waiting are requests that wait for a newer document.
	waiting []*exchange
	// off: there is no machine of that name now; store is that of its disk.
	off     bool
	store   member.StoreID
	members *membership
	fills   fills
	tending tending
	// incarnations are those that vnodes had first, for a mutation.
	incarnations map[dynamo.Partition]clock.Incarnation
}

func newNode(c *cluster, index int, id dynamo.NodeID) *node {
	n := &node{c: c, index: index, id: id}
	n.disk, n.store = newDisk(n), member.StoreID{byte(index + 1)}
	n.off = index >= c.plan.nodes
	c.setClock(n, scale(2*c.random.fault.Float64()-1, c.plan.fault.skew))
	n.rate = 1 + 0.03*(2*c.random.heal.Float64()-1)
	return n
}

// now is the node's wall clock.
func (n *node) now() dynamo.Timestamp { return epoch0.Add(n.c.now + n.skew) }

// after schedules something in this life of the process.
func (n *node) after(d time.Duration, run func()) {
	life := n.life
	n.c.after(d, func() { n.run(life, run) })
}

// run runs something unless the process that it belongs to is gone; if that is
// paused, when it goes on.
func (n *node) run(life uint64, run func()) {
	switch {
	case !n.up || n.life != life:
	case n.paused:
		n.held = append(n.held, func() { n.run(life, run) })
	default:
		run()
	}
}

// start begins a new life: every vnode opens.
func (n *node) start() {
	if n.up || n.off {
		return
	}
	n.life++
	n.up, n.stopping, n.paused = true, false, false
	n.requests, n.inFlight = map[uint64]shell{}, 0
	n.next = n.c.random.id.Uint64() >> 8
	if n.c.mutation == reuseNumbers {
		n.next = 0
	}
	n.c.tracef("%s starts, life %d", n.id, n.life)
	n.vnodes = make([]*vnodeShell, n.c.plan.partitions)
	for p := range n.vnodes {
		n.vnodes[p] = &vnodeShell{n: n, partition: dynamo.Partition(p)}
		n.vnodes[p].open()
	}
	n.transfers, n.looking, n.waiting = nil, false, nil
	n.join()
	n.tend()
	n.c.wakeHandoffs()
}

// crash ends the process; what was not durable is lost but for a prefix.
func (n *node) crash(keep int) {
	if !n.up {
		return
	}
	keep = min(keep, len(n.disk.pending))
	n.c.tracef("%s crashes; of %d batches %d reached the disk", n.id, len(n.disk.pending), keep)
	before := n.disk.volatile
	lost := n.disk.crash(keep)
	n.down()
	n.c.check.crashed(n, before, lost)
}

// down ends the process and breaks its connections.
func (n *node) down() {
	n.up, n.paused, n.held, n.stopping = false, false, nil, false
	n.downSince = n.c.now
	n.requests, n.vnodes, n.waiting, n.members = nil, nil, nil, nil
	for _, cl := range n.c.clients {
		cl.disconnected(n)
	}
}

// stop ends the process in order: it takes no more requests, finishes those in
// flight, and its vnodes mark the stop as clean. After the time away it starts
// again.
func (n *node) stop(away time.Duration) {
	if !n.up || n.stopping {
		return
	}
	n.c.tracef("%s stops", n.id)
	n.stopping, n.away = true, away
	n.finish(n.c.now + n.c.plan.load.timeout)
}

// finish waits for the requests in flight, but not for ever.
func (n *node) finish(until time.Duration) {
	if n.inFlight > 0 && n.c.now < until {
		n.after(20*time.Millisecond, func() { n.finish(until) })
		return
	}
	left := len(n.vnodes)
	for _, v := range n.vnodes {
		v.drain(func() {
			if left--; left == 0 {
				n.close()
			}
		})
	}
}

// close makes all that was applied durable, unless the disk is broken, and ends
// the process.
func (n *node) close() {
	n.c.after(n.away, n.start)
	if n.disk.broken {
		n.crash(0)
		return
	}
	n.disk.harden(len(n.disk.pending))
	n.disk.syncing = false
	n.c.tracef("%s has stopped", n.id)
	n.down()
}

// pause freezes the process; what reaches it waits.
func (n *node) pause() {
	if n.up {
		n.c.tracef("%s is frozen", n.id)
		n.paused, n.pausedSince = true, n.c.now
	}
}

// resume lets a frozen process go on with what waited.
func (n *node) resume() {
	if !n.paused {
		return
	}
	n.c.tracef("%s goes on", n.id)
	n.paused, n.resumed = false, n.c.now
	held := n.held
	n.held = nil
	for _, run := range held {
		run()
	}
}

// recover takes all faults from the node; a broken disk needs a restart.
func (n *node) recover() {
	n.resume()
	n.disk.full, n.disk.failNext = false, false
	if n.disk.broken {
		n.crash(n.c.random.fault.IntN(len(n.disk.pending) + 1))
	}
	n.c.after(0, n.start)
}

// arrive hands a message from outside to the process, if there is one.
func (n *node) arrive(run func()) { n.run(n.life, run) }

// ask sends a request's message to a vnode.
func (n *node) ask(to *node, partition dynamo.Partition, from pid, timeout time.Duration, body any) {
	arrive := func() {
		to.arrive(func() {
			to.vnodes[partition].receive(envelope{from: from, expires: n.c.now + timeout, body: body})
		})
	}
	n.c.net.send(n.index, to.index, arrive, n.returned(from, to.index))
}

// returned gives a request its message back that was not sent.
func (n *node) returned(from pid, to int) func(request.Reason) {
	life := n.life
	return func(why request.Reason) {
		n.run(life, func() {
			if s, ok := n.requests[from.number]; ok {
				s.undelivered(to, why)
			}
		})
	}
}

// tell sends an answer; a zero number wants none.
func (n *node) tell(to pid, body any) {
	if to.number == 0 {
		return
	}
	from, c := n.index, n.c
	if to.endpoint >= len(c.nodes) {
		cl := c.clients[to.endpoint-len(c.nodes)]
		c.net.send(from, to.endpoint, func() { cl.answer(to.number, from, body) }, nil)
		return
	}
	target := c.nodes[to.endpoint]
	c.net.send(from, to.endpoint, func() {
		target.arrive(func() {
			if s, ok := target.requests[to.number]; ok {
				s.receive(from, body)
			}
		})
	}, nil)
}

// serves reports whether the node's vnode of a partition serves.
func (n *node) serves(p dynamo.Partition) bool {
	return n.vnodes[p].status == vnodeServing && !n.vnodes[p].isLost()
}

// reachable is the node's own opinion of who answers.
func (n *node) reachable(id dynamo.NodeID) bool {
	to := n.c.node(id).index
	return to == n.index || !n.c.net.known(n.index, to)
}

// readMeta reads a vnode's own state off the disk.
func (n *node) readMeta(p dynamo.Partition) (vnode.Meta, bool, error) {
	b, found := n.disk.volatile[string(vnode.MetaKey(p))]
	if !found {
		return vnode.Meta{}, false, nil
	}
	m, err := vnode.DecodeMeta(b)
	return m, true, err
}

package sim

import (
	"bytes"
	"time"

	"github.com/dynactor/dynactor/dynamo"
)

// scheduleFault has the next fault happen after a while, until the clients are
// done; then peace comes.
func (c *cluster) scheduleFault() {
	wait := scale(c.random.fault.ExpFloat64(), c.plan.fault.every)
	c.after(max(wait, time.Millisecond), func() {
		if c.quiet() {
			c.peace()
			return
		}
		c.fault(c.drawFault())
		c.scheduleFault()
	})
}

// drawFault picks a kind by the weights of the plan; faultKinds is none.
func (c *cluster) drawFault() faultKind {
	sum := 0.0
	for _, w := range c.plan.fault.weights {
		sum += w
	}
	x := sum * c.random.fault.Float64()
	for k, w := range c.plan.fault.weights {
		if x -= w; x < 0 {
			return faultKind(k)
		}
	}
	return faultKinds
}

// fault makes one thing go wrong.
func (c *cluster) fault(kind faultKind) {
	r := c.random.fault
	n := c.nodes[r.IntN(len(c.nodes))]
	lasts := scale(r.ExpFloat64(), 400*time.Millisecond)
	if n.off {
		return
	}
	switch kind {
	case faultCut, faultOneWay, faultIsolate, faultHalves, faultClog:
		c.faultNet(kind, n.index, lasts)
	case faultCrash:
		c.crash(n, lasts)
	case faultCrashAll:
		for _, n := range c.nodes {
			c.crash(n, lasts)
		}
	case faultStop:
		n.stop(lasts)
	case faultPause:
		n.pause()
		c.after(lasts, n.resume)
	case faultClock:
		c.setClock(n, n.skew+scale(2*r.Float64()-1, 2*c.plan.fault.skew))
	case faultHeal:
		c.net.heal()
	case faultKinds:
	default:
		c.faultDisk(kind, n, lasts)
	}
}

// crash ends a process and has it back after a while.
func (c *cluster) crash(n *node, lasts time.Duration) {
	n.crash(c.random.fault.IntN(len(n.disk.pending) + 1))
	c.after(lasts, n.start)
}

// faultNet cuts or clogs links, until they are healed or the time is over.
func (c *cluster) faultNet(kind faultKind, at int, lasts time.Duration) {
	r := c.random.fault
	endpoints := len(c.nodes) + len(c.clients)
	group := r.Uint64()
	hit := func(from, to int) bool {
		switch kind {
		case faultCut, faultClog:
			return (from+to)%len(c.nodes) == at
		case faultOneWay:
			return from == at && to != at && group>>to&1 == 0
		case faultIsolate:
			return (from == at) != (to == at)
		}
		return group>>from&1 != group>>to&1
	}
	c.tracef("%v around %s for %v", kind, c.name(at), lasts)
	for from := range endpoints {
		for to := range endpoints {
			switch {
			case from == to || !hit(from, to):
			case kind == faultClog:
				c.net.clogged[from][to] = c.now + lasts
			default:
				c.net.setCut(from, to, true)
				c.after(4*lasts, func() { c.net.setCut(from, to, false) })
			}
		}
	}
}

// faultDisk harms a node's disk, within the budget.
func (c *cluster) faultDisk(kind faultKind, n *node, lasts time.Duration) {
	d, r := n.disk, c.random.fault
	k := &c.keys[r.IntN(len(c.keys))]
	switch kind {
	case faultSyncFails:
		c.tracef("the next sync of %s fails", n.id)
		d.failNext = true
		c.after(lasts, func() {
			if d.broken {
				n.crash(r.IntN(len(d.pending) + 1))
				n.start()
			}
		})
	case faultFull:
		c.tracef("the disk of %s is full for %v", n.id, lasts)
		d.full = true
		c.after(lasts, func() { d.full = false })
	case faultCorrupt:
		if c.mayDestroy(n, k) {
			c.corrupt(n, k)
		}
	case faultForget:
		if c.mayDestroy(n, k) {
			c.forget(n, k)
		}
	case faultWipe:
		switch {
		case c.plan.move.ruins > 0:
			c.ruinSome(k.partition)
		case c.plan.moves():
			c.loseDisk(n, lasts)
		default:
			c.wipe(n, lasts)
		}
	}
}

// mayDestroy reports whether a node's copy of a key may be destroyed. A batch
// under way would bring it back.
func (c *cluster) mayDestroy(n *node, k *keyInfo) bool {
	_, there := n.disk.durable[string(k.stored)]
	return there && c.check.mended(k) && !n.disk.touches(string(k.stored)) && c.check.spare(n, k)
}

// corrupt flips a bit of a stored value.
func (c *cluster) corrupt(n *node, k *keyInfo) {
	c.tracef("%s has its value of %v corrupted", n.id, k.key)
	c.check.destroy(n, k)
	bad := bytes.Clone(n.disk.durable[string(k.stored)])
	bad[c.random.fault.IntN(len(bad)-1)+1] ^= 1 << c.random.fault.IntN(8)
	n.disk.durable[string(k.stored)], n.disk.volatile[string(k.stored)] = bad, bad
}

// forget drops a stored value.
func (c *cluster) forget(n *node, k *keyInfo) {
	c.tracef("%s forgets %v", n.id, k.key)
	c.check.destroy(n, k)
	c.check.hidden(n, k)
	delete(n.disk.durable, string(k.stored))
	delete(n.disk.volatile, string(k.stored))
}

// wipe empties a node's disk while it is down.
func (c *cluster) wipe(n *node, lasts time.Duration) {
	for i := range c.keys {
		if !c.check.spare(n, &c.keys[i]) {
			return
		}
	}
	n.crash(0)
	for i := range c.keys {
		c.check.destroy(n, &c.keys[i])
		c.check.hidden(n, &c.keys[i])
	}
	c.tracef("the disk of %s is replaced by an empty one", n.id)
	clear(n.disk.durable)
	clear(n.disk.volatile)
	c.after(lasts, n.start)
}

// probe is L2: after the last fault each client reads and writes each key, and
// all of it is done in time.
func (c *cluster) probe() {
	// A vnode whose disk had failed tries again when it is asked to write.
	for _, n := range c.nodes {
		for p := range n.vnodes {
			if n.up && n.vnodes[p].status == vnodeFailed {
				n.vnodes[p].probe()
			}
		}
	}
	c.settle()
	c.plan.load.attempt = 0
	if c.plan.reaps() { // none is under way that retries could outlive
		c.plan.load.timeout = 2 * time.Second
	}
	for i := range c.keys {
		k := &c.keys[i]
		cl := c.clients[i%len(c.clients)]
		cl.queue = append(cl.queue, func() { cl.mustUpdate(k) })
	}
	for _, cl := range c.clients {
		c.after(0, cl.next)
	}
}

// mustUpdate reads and writes a key, and takes any failure for a violation.
func (cl *client) mustUpdate(k *keyInfo) {
	cl.get(k, func(body any) {
		got, ok := body.(getReply)
		if !ok {
			cl.c.fail("L2", "a get of %v in a healthy cluster: %s", k.key, describe(body))
			return
		}
		cl.queue = append([]func(){func() {
			cl.write(opPut, k, got.context)
			cl.try.done = func(body any) {
				f, _ := body.(failure)
				ahead := f.code == codeInvalid && cl.c.plan.properties.Conflicts == dynamo.LastWriteWins
				if _, ok := body.(putReply); !ok && !ahead { // clocks that are far apart are refused
					cl.c.fail("L2", "a put of %v in a healthy cluster: %s", k.key, describe(body))
				}
			}
		}}, cl.queue...)
	})
}

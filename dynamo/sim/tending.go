package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
)

// tendEvery is how often a node looks whether there is something to compare or to reap.
const tendEvery = 80 * time.Millisecond

// tending is what a process knows of its exchanges and reapings.
type tending struct {
	schedule *aae.Schedule
	version  uint64 // of the document that the pairs are of
	rounds   map[aae.Pair]uint64
	reapings map[dynamo.Partition]*reapShell
	// marks counts, by partition, what was kept or dropped here that is for others.
	marks []uint64
}

// Healed counts what replicas did without clients.
type Healed struct {
	// Exchanges that were complete, and records that one side got by them.
	Exchanges, Mended int
	// Reaps that were complete, so many of them Amid faults, those that were put off, and
	// records that were dropped.
	Reaps, Amid, PutOff, Reaped int
	// Refused are records that came too late to be merged, Restored old backups.
	Refused, Restored int
	// Lost are replicas that were given up because some of them could not be read, Renewed
	// those of them that kept the rest.
	Lost, Renewed int
}

// Add adds what happened in another run.
func (h *Healed) Add(o Healed) {
	h.Exchanges, h.Mended = h.Exchanges+o.Exchanges, h.Mended+o.Mended
	h.Reaps, h.Amid, h.PutOff, h.Reaped = h.Reaps+o.Reaps, h.Amid+o.Amid, h.PutOff+o.PutOff, h.Reaped+o.Reaped
	h.Refused, h.Restored = h.Refused+o.Refused, h.Restored+o.Restored
	h.Lost, h.Renewed = h.Lost+o.Lost, h.Renewed+o.Renewed
}

// tend begins a process's care for what it holds.
func (n *node) tend() {
	if !n.c.plan.heals() {
		return
	}
	n.tending = tending{
		schedule: aae.NewSchedule(n.c.plan.heal.interval, 0), rounds: map[aae.Pair]uint64{},
		reapings: map[dynamo.Partition]*reapShell{}, marks: make([]uint64, n.c.plan.partitions),
	}
	n.tick()
}

// ticks is the time of the schedule, which nobody sets.
func (n *node) ticks() dynamo.Timestamp { return dynamo.Timestamp(n.c.now) + 1 }

// tick looks what is to be done; chance decides on the rest, so that all orders come up.
func (n *node) tick() {
	c := n.c
	if c.calm && (!c.plan.moves() || c.atRest()) {
		return
	}
	n.after(tendEvery, n.tick)
	if n.inForce == nil || n.stopping {
		return
	}
	r, h := c.random.heal, &n.tending
	v := n.vnodes[r.IntN(len(n.vnodes))]
	switch x := r.Float64(); {
	case x < 0.3:
		v.verify()
	case x < 0.5 && !v.isLost():
		v.checkpoint()
	}
	for _, v := range n.vnodes {
		if v.status == vnodeServing && !v.tree.Settled() {
			v.verify()
		}
	}
	now := n.ticks()
	if pairs := n.pairs(); h.version != n.inForce.Version {
		h.version = n.inForce.Version
		h.schedule.Set(now, pairs)
	} else if len(pairs) > 0 && chance(r, 0.05) {
		h.schedule.Hurry(now, pairs[r.IntN(len(pairs))])
	}
	for _, p := range h.schedule.Next(now) {
		n.startCompare(p)
	}
	for p := range n.vnodes {
		if c.plan.reaps() && chance(r, 0.3) {
			n.reap(dynamo.Partition(p))
		}
		if c.mutation == expireAlone {
			n.dropExpired(dynamo.Partition(p))
		}
	}
}

// converge heals as a real cluster does, by exchanges alone; then what clients deleted is
// reaped, in two rounds.
func (c *cluster) converge() {
	defer c.harden()
	c.exchanges()
	if !c.plan.reaps() {
		return
	}
	c.plan.disk.sync = min(c.plan.disk.sync, 10*time.Millisecond) // all answer within their time
	c.deleteSome()
	c.settle()
	c.exchanges()
	first, _ := c.clocks()
	due := first.Add(-c.plan.heal.skew)
	for range 2 {
		for _, n := range c.nodes {
			for p := range n.vnodes {
				n.reap(dynamo.Partition(p))
			}
		}
		c.settle()
	}
	c.check.allReaped(due)
	if rounds := c.exchanges(); rounds > 1 && !c.plan.rots() {
		c.fail("C2", "after a reaping replicas are equal after %d rounds of exchanges", rounds)
	}
	c.checkRest("after the reapings")
}

// exchanges has all replicas compared until they are equal, and returns how many rounds
// that took.
func (c *cluster) exchanges() int {
	for round := 1; c.violation == nil; round++ {
		for _, n := range c.nodes {
			for p, v := range n.vnodes {
				if n.inForce != nil && n.isHolder(dynamo.Partition(p), n.id) {
					v.verify()
				}
			}
		}
		c.settle()
		c.outcomes = nil
		for _, n := range c.nodes {
			if !n.up || n.inForce == nil {
				continue
			}
			for _, p := range n.pairs() {
				n.startCompare(p)
			}
		}
		c.settle()
		i := slices.IndexFunc(c.outcomes, func(o aae.Outcome) bool { return !o.Equal })
		switch {
		case i < 0:
			return round
		case round == 5:
			c.fail("C2", "after %d rounds of exchanges replicas are not equal: %+v", round, c.outcomes[i])
		}
	}
	return 0
}

// deleteSome has clients delete about half of the keys.
func (c *cluster) deleteSome() {
	for i := range c.keys {
		k, cl := &c.keys[i], c.clients[i%len(c.clients)]
		if chance(c.random.heal, 0.5) {
			cl.queue = append(cl.queue, func() {
				cl.get(k, func(body any) {
					if got, ok := body.(getReply); ok {
						cl.queue = append([]func(){func() { cl.write(opDelete, k, got.context) }}, cl.queue...)
					}
				})
			})
		}
	}
	for _, cl := range c.clients {
		c.after(0, cl.next)
	}
}

// backUp has a member's disk copied now and then, and put back much later, while the
// process is down. Its start number is then lower than the one that the others know: the
// store is refused, and the operator takes an empty disk instead.
func (c *cluster) backUp() {
	every := c.plan.heal.restores
	if every == 0 || c.calm {
		return
	}
	r := c.random.heal
	c.after(scale(r.ExpFloat64(), every)+time.Millisecond, func() {
		n := c.nodes[r.IntN(len(c.nodes))]
		if n.backup == nil || n.backupOf != n.store {
			n.backup, n.backupOf = maps.Clone(n.disk.durable), n.store
		} else if c.mayLose(n) && !c.calm {
			c.restore(n, scale(r.ExpFloat64(), 400*time.Millisecond))
		}
		c.backUp()
	})
}

func (c *cluster) restore(n *node, lasts time.Duration) {
	c.tracef("an old backup is put back on %s", n.id)
	c.healed.Restored++
	n.crash(0)
	old, voter := n.backup, n.disk.durable[voterKey]
	n.backup = nil
	if c.mutation == serveRestored && voter != nil {
		n.disk.durable = old
		n.disk.durable[voterKey] = voter // or it would be behind the others, too
		n.disk.volatile = maps.Clone(old)
	} else {
		c.lose(n)
	}
	c.after(lasts, n.start)
}

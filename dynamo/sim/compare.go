package sim

import (
	"fmt"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/request"
)

// compareShell runs one exchange with another replica of a partition (§ 4.7): what its
// machine wants to know it asks of the peer's vnode and looks up in its own.
type compareShell struct {
	n       *node
	pair    aae.Pair
	peer    *node
	machine *aae.Exchange
	number  uint64
	// plan is the version of the document that it goes by, incarnation that of the
	// peer's vnode, whole reports whether the own one is the same.
	plan        uint64
	incarnation clock.Incarnation
	whole       func() bool
	// asking is what the machine has asked for, holding the own half of a list, page what
	// goes to be merged.
	asking  aae.Effect
	holding *aae.Holding
	page    recordPage
	ended   bool
}

// recordPage is records on their way from one replica to another.
type recordPage struct {
	keys             []int
	records          [][]byte
	read             time.Duration
	handled, damaged int
}

// pairs are those of which the node begins the exchanges.
func (n *node) pairs() []aae.Pair {
	var out []aae.Pair
	d, q := n.inForce, n.c.plan.properties.Quorum.N
	for _, p := range d.Vnodes(n.id) {
		if !n.comparable(p, n.id) {
			continue
		}
		for _, peer := range d.Reading(p).Primaries(p, q) {
			if peer != n.id && n.comparable(p, peer) && aae.Begins(p, n.id, peer) {
				out = append(out, aae.Pair{Partition: p, N: q, Peer: peer})
			}
		}
	}
	return out
}

// comparable reports whether a node is a replica that reads use and lacks nothing.
func (n *node) comparable(p dynamo.Partition, id dynamo.NodeID) bool {
	d, q := n.inForce, n.c.plan.properties.Quorum.N
	if n.c.mutation == equalIsFilled {
		return d.Holds(p, q, id)
	}
	return d.Authoritative(p, q, id)
}

// startCompare begins an exchange.
func (n *node) startCompare(p aae.Pair) {
	n.next++
	s := &compareShell{n: n, pair: p, peer: n.c.node(p.Peer), number: n.next, plan: n.inForce.Version}
	n.tending.rounds[p]++
	s.whole = s.vnode().watch()
	s.machine = aae.New(n.c.random.id.Uint64()>>2, n.tending.rounds[p])
	n.requests[s.number] = s
	s.run(s.machine.Start())
}

// String is the exchange in failures.
func (s *compareShell) String() string {
	return fmt.Sprintf("exchange of partition %d with %s: %v, %+v", s.pair.Partition, s.pair.Peer, s.machine.State(), s.machine.Progress())
}

func (s *compareShell) pid() pid { return pid{s.n.index, s.number} }

func (s *compareShell) vnode() *vnodeShell { return s.n.vnodes[s.pair.Partition] }

func (s *compareShell) step(e aae.Event) {
	if !s.ended {
		s.run(s.machine.Step(e))
	}
}

// soon takes a step after this one.
func (s *compareShell) soon(e aae.Event) { s.n.after(0, func() { s.step(e) }) }

func (s *compareShell) run(effects []aae.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case aae.Recheck:
			s.vnode().tree.Doubt(e.Leaf)
			s.askPeer(0, e)
		case aae.Merge:
			s.limit(e.Batch)
			s.n.ask(s.n, s.pair.Partition, s.pid(), handoffTimeout, &mergePage{
				plan: s.plan, batch: e.Batch, bits: s.asking.(aae.Pull).Bits, asker: s.n.id, page: s.page,
			})
		case aae.Finish:
			s.finish(e.Outcome)
		default:
			s.asking = e
			s.ask(s.machine.Number())
		}
	}
}

// askPeer sends a question.
func (s *compareShell) askPeer(batch uint64, what any) {
	s.n.ask(s.peer, s.pair.Partition, s.pid(), handoffTimeout, &treeQuestion{
		plan: s.plan, batch: batch, incarnation: s.incarnation, asker: s.n.id, what: what,
	})
}

// ask asks what the machine wants to know.
func (s *compareShell) ask(batch uint64) {
	s.limit(batch)
	v := s.vnode()
	if !s.whole() {
		s.soon(aae.Broken{Reason: "dropped"})
		return
	}
	if why := v.incomparable(s.plan, s.peer.id); why != nil {
		s.soon(aae.Broken{Reason: describe(why)})
		return
	}
	switch e := s.asking.(type) {
	case aae.Greet:
		if !v.tree.Settled() {
			s.soon(aae.Broken{Reason: "the tree is being read"})
			return
		}
		s.n.c.check.treeIsStore(v)
		s.askPeer(batch, rootQuestion{root: v.tree.Root().Hash, bits: v.tree.Bits(), round: e.Round})
	case aae.Compare:
		s.askPeer(batch, e)
	case aae.List:
		s.reading(batch, func() error {
			var err error
			if s.holding, err = v.list(e, nil); err == nil {
				e.Index = e.Index[:len(s.holding.Lists)]
				s.askPeer(batch, leavesQuestion{list: e, until: s.holding.Next})
			}
			return err
		})
	case aae.Pull:
		s.askPeer(batch, e)
	case aae.Push:
		s.reading(batch, func() error {
			var err error
			if s.page, err = v.find(aae.Pull(e)); err == nil && len(s.page.keys) == 0 {
				s.step(aae.Pushed{Batch: batch, Handled: s.page.handled, Damaged: s.page.damaged})
			} else if err == nil {
				s.askPeer(batch, s.page)
			}
			return err
		})
	}
}

// reading reads the own store after a while.
func (s *compareShell) reading(batch uint64, read func() error) {
	s.n.after(scale(s.n.c.random.disk.Float64(), s.n.c.plan.disk.read), func() {
		if s.ended || s.machine.Number() != batch {
			return
		}
		err := read()
		if s.vnode().met(err); err != nil {
			s.step(aae.Broken{Reason: err.Error()})
		}
	})
}

// limit ends a wait that takes too long.
func (s *compareShell) limit(batch uint64) {
	state := s.machine.State()
	s.n.after(handoffTimeout, func() {
		if s.machine.State() == state && s.machine.Number() == batch {
			s.step(aae.Broken{Reason: "no answer"})
		}
	})
}

func (s *compareShell) receive(from int, body any) {
	switch m := body.(type) {
	case *treeAnswer:
		if !s.whole() {
			s.step(aae.Broken{Reason: "dropped"})
		} else if m.batch == s.machine.Number() && !s.ended {
			s.incarnation = m.incarnation
			s.answered(m)
		}
	case aae.Merged:
		s.step(m)
	case staleReply:
		s.n.behind(m.version, from)
		s.step(aae.Broken{Reason: "stale"})
	case failure:
		s.step(aae.Broken{Reason: m.code.String()})
	}
}

func (s *compareShell) undelivered(_ int, why request.Reason) {
	s.step(aae.Failed{Batch: s.machine.Number(), Reason: why.String()})
}

// answered puts the peer's half of an answer to the own one.
func (s *compareShell) answered(m *treeAnswer) {
	v := s.vnode()
	digests := func(c aae.Compare) []uint32 {
		own, err := aae.Digests(v.tree.Tree, c)
		if err != nil {
			s.n.c.fail("T1", "%v: %v", s, err)
		}
		return own
	}
	switch e := s.asking.(type) {
	case aae.Greet:
		met := aae.Met{Batch: m.batch, Equal: m.equal, Bits: m.bits, Peer: m.digests}
		if !m.equal {
			met.Own = digests(aae.Compare{Round: e.Round, Index: []uint32{0}, To: min(aae.LevelBits, m.bits)})
		}
		s.step(met)
	case aae.Compare:
		s.step(aae.Compared{Batch: m.batch, Own: digests(e), Peer: m.digests})
	case aae.List:
		if s.holding != nil {
			s.holding.Cut(len(m.lists), m.next)
			s.step(aae.Listed{Batch: m.batch, Own: s.holding.Lists, Peer: m.lists, Next: s.holding.Next, Damaged: s.holding.Damaged + m.damaged})
		}
	case aae.Pull:
		if s.machine.State() == aae.Pulling { // not what is being merged
			s.page = m.page
			s.step(aae.Page{Batch: m.batch, Handled: m.page.handled, Records: len(m.page.keys), Damaged: m.page.damaged})
		}
	case aae.Push:
		s.step(aae.Pushed{Batch: m.batch, Handled: s.page.handled, Records: m.merged, Damaged: s.page.damaged + m.damaged})
	}
}

// finish ends the exchange.
func (s *compareShell) finish(o aae.Outcome) {
	n, c := s.n, s.n.c
	s.ended = true
	c.tracef("%s: %v", n.id, s)
	n.after(linger, func() { delete(n.requests, s.number) })
	n.tending.schedule.Done(n.ticks(), s.pair, o)
	if c.outcomes = append(c.outcomes, o); o.Complete {
		c.healed.Exchanges++
		c.healed.Mended += o.In + o.Out
	}
	if c.mutation == equalIsFilled && o.Complete {
		n.filledBy(s.pair.Partition)
	}
}

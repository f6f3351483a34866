package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// reapKeys are records of a reaping: the keys and hashes of all that it is about, and the
// places of those that the message is about.
type reapKeys struct {
	round  uint64
	places []int
	keys   []int
	hashes [][version.HashSize]byte
}

// reapAsk asks a member what it has of a partition; a primary also which of the records
// it holds. reapAnswer answers it.
type reapAsk struct{ reapKeys }

type reapAnswer struct {
	round  uint64
	answer reap.Answer
	// truth is what the checker saw of the node when it answered.
	truth apartness
}

// reapDrop tells a primary to drop records, each only if it is the one with the hash.
type reapDrop struct{ reapKeys }

type reapDropped struct {
	round uint64
	count int
}

// old reports whether a record in a message was read from a store too long ago.
func (n *node) old(read time.Duration) bool {
	h := &n.c.plan.heal
	if !n.c.plan.reaps() || n.c.mutation == takeOld || scale(n.rate, n.c.now-read) < h.life {
		return false
	}
	n.c.healed.Refused++
	return true
}

// young reports whether a record in a message may be merged, and answers it if not.
func (v *vnodeShell) young(read time.Duration, from pid) bool {
	if !v.n.old(read) {
		return true
	}
	v.n.tell(from, failure{codeExpired})
	return false
}

// apart notes that something is kept or dropped here that is for others.
func (n *node) apart(p dynamo.Partition) {
	if n.tending.marks != nil {
		n.tending.marks[p]++
	}
}

// remove drops an object in this turn.
func (v *vnodeShell) remove(k *keyInfo) {
	v.touch(k)
	v.writes, v.commits = append(v.writes, write{key: string(k.stored)}), true
	if v.fresh == nil {
		v.fresh = map[int]vnode.Stored{}
	}
	v.fresh[k.index] = vnode.Stored{}
}

// reapAsk answers with what reads see after this turn, once the disk has it.
func (v *vnodeShell) reapAsk(m *reapAsk, from pid) {
	if !v.writable(from) || v.n.inForce == nil || v.doubtful(from) || v.cannotRead(m.keys, from) {
		return
	}
	n, a := v.n, &reapAnswer{round: m.round}
	v.after = append(v.after, func(error) {
		a.answer = reap.Answer{
			Version: n.inForce.Version, Clear: v.clear(), Mark: [2]uint64{n.life, n.tending.marks[v.partition]}, Incarnation: v.state.Incarnation(),
		}
		if n.c.mutation == restartUnseen {
			a.answer.Mark[0] = 0
		}
		for _, i := range m.places {
			if n.record(&n.c.keys[m.keys[i]], false).CausalHash() == m.hashes[i] {
				a.answer.Held = append(a.answer.Held, i)
			}
		}
		a.truth = n.c.check.apartOf(v)
	})
	v.acknowledge(answer{from, a}, n.c.mutation != heldEarly)
}

// clear reports whether nothing of the partition lies here, or is under way from or to
// here, that is not where it belongs.
func (v *vnodeShell) clear() bool {
	n, c, p := v.n, v.n.c, v.partition
	for _, k := range c.sorted[p] {
		hinted := slices.ContainsFunc(c.nodes, func(x *node) bool { return n.marked(k, x.id) })
		_, there := n.disk.volatile[string(k.stored)]
		switch {
		case hinted && c.mutation != hintsUnseen, there && !hinted && !n.owns(k) && c.mutation != misplacedUnseen:
			return false
		}
	}
	if c.mutation == hintsUnseen || c.mutation == misplacedUnseen || c.mutation == reapMoving {
		return true
	}
	_, lacks := n.inForce.Filling(p, n.id)
	return !lacks && n.fills.running[p] == nil && !slices.ContainsFunc(n.transfers, func(t *transferShell) bool { return t.partition == p })
}

// reapDrop drops the records that are still what was asked for.
func (v *vnodeShell) reapDrop(m *reapDrop, from pid) {
	if !v.writable(from) || v.doubtful(from) {
		return
	}
	count := 0
	for _, i := range m.places {
		k := &v.n.c.keys[m.keys[i]]
		have, err := v.load(k)
		if err != nil {
			v.n.tell(from, failure{codeStorage})
			return
		}
		if !have.Record.IsZero() && (have.Record.CausalHash() == m.hashes[i] || v.n.c.mutation == dropUnchecked) {
			v.n.c.check.reaped(v, k, have.Record)
			v.remove(k)
			count++
		}
	}
	v.acknowledge(answer{from, reapDropped{m.round, count}}, true)
}

// reapShell runs one reaping.
type reapShell struct {
	n         *node
	partition dynamo.Partition
	number    uint64
	machine   *reap.Reap
	plan      reap.Plan
	started   time.Duration
	keys      []int
	records   []version.Record
	hashes    [][version.HashSize]byte
	// truths are what the checker saw of each node in the last two rounds.
	truths [2]map[dynamo.NodeID]apartness
	// first are the answers of the first round, for a mutation.
	first map[dynamo.NodeID]reap.Answer
	ended bool
}

// reap begins a reaping of a partition if the node is its first primary and there is
// something to reap.
func (n *node) reap(p dynamo.Partition) {
	d, q := n.inForce, n.c.plan.properties.Quorum.N
	if d == nil || n.tending.reapings[p] != nil || !n.serves(p) || n.vnodes[p].doubted() {
		return
	}
	primaries := d.Reading(p).Primaries(p, q)
	filling := slices.ContainsFunc(d.Movement.Filling, func(f member.Fill) bool { return f.Partition == p })
	moves := d.Phase(p) != member.PhaseSettled || filling
	if primaries[0] != n.id || moves && n.c.mutation != reapMoving {
		return
	}
	n.next++
	s := &reapShell{n: n, partition: p, number: n.next, started: n.c.now, first: map[dynamo.NodeID]reap.Answer{}}
	for _, k := range n.c.sorted[p] {
		if r := n.record(k, false); n.reapable(r) && len(s.keys) < reap.MaxKeys {
			s.keys, s.records, s.hashes = append(s.keys, k.index), append(s.records, r), append(s.hashes, r.CausalHash())
		}
	}
	if len(s.keys) == 0 {
		return
	}
	s.plan = reap.Plan{Version: d.Version, Primaries: primaries, Keys: len(s.keys)}
	for _, x := range d.Members {
		if x.Status != member.Gone {
			s.plan.Members = append(s.plan.Members, x.ID)
		}
	}
	s.machine = reap.New(s.plan, n.c.random.id.Uint64()>>2)
	n.requests[s.number], n.tending.reapings[p] = s, s
	n.c.check.reaping(s)
	s.run(s.machine.Start())
}

// reapable is reap.Reapable with the skew of this run.
func (n *node) reapable(r version.Record) bool {
	skew := n.c.plan.heal.skew
	if n.c.mutation == noSkew {
		skew = 0
	}
	return reap.Reapable(r, n.now().Add(reap.Skew-skew))
}

// String is the reaping in failures.
func (s *reapShell) String() string {
	return fmt.Sprintf("reaping of partition %d on %s: %v", s.partition, s.n.id, s.machine.State())
}

func (s *reapShell) step(e reap.Event) {
	if !s.ended {
		s.run(s.machine.Step(e))
	}
}

func (s *reapShell) run(effects []reap.Effect) {
	for i, e := range effects {
		switch e := e.(type) {
		case reap.Ask:
			if i == 0 {
				s.limit()
			}
			if s.n.c.mutation == oneRound && s.machine.State() == reap.Confirming {
				s.n.after(0, func() { s.step(reap.Answered{Round: e.Round, Node: e.Node, Answer: s.first[e.Node]}) })
				continue
			}
			s.send(e.Node, &reapAsk{reapKeys{e.Round, e.Keys, s.keys, s.hashes}})
		case reap.Wait:
			s.wait(e)
		case reap.Drop:
			s.drop(e)
		case reap.Finish:
			s.finish(e.Outcome)
		}
	}
}

func (s *reapShell) send(to dynamo.NodeID, body any) {
	s.n.ask(s.n.c.node(to), s.partition, pid{s.n.index, s.number}, handoffTimeout, body)
}

// limit ends a wait for answers that takes too long.
func (s *reapShell) limit() {
	state, round := s.machine.State(), s.machine.Round()
	s.n.after(handoffTimeout, func() {
		if s.machine.State() == state && s.machine.Round() == round {
			s.silent()
		}
	})
}

// silent: some have not answered.
func (s *reapShell) silent() {
	if s.n.c.mutation == absentIsClear && s.machine.State() != reap.Dropping {
		round := s.machine.Round()
		for _, node := range s.plan.Members {
			s.absent(node)
		}
		if s.machine.Round() != round || s.machine.State() == reap.Waiting {
			return
		}
	}
	s.step(reap.Broken{Reason: "no answer"})
}

// absent plants an answer of a member that gave none, and that holds no replica.
func (s *reapShell) absent(node dynamo.NodeID) bool {
	if s.n.c.mutation != absentIsClear || slices.Contains(s.plan.Primaries, node) {
		return false
	}
	s.step(reap.Answered{Round: s.machine.Round(), Node: node, Answer: reap.Answer{Version: s.plan.Version, Clear: true}})
	return true
}

// wait lets the pause pass, by this node's clock.
func (s *reapShell) wait(e reap.Wait) {
	pause := scale(1/s.n.rate, s.n.c.plan.heal.pause)
	if m := s.n.c.mutation; m == noPause || m == oneRound {
		pause = 0
	}
	s.n.after(pause, func() { s.step(reap.Waited(e)) })
}

func (s *reapShell) drop(e reap.Drop) {
	if e.Node == s.plan.Primaries[0] {
		s.limit()
		s.n.c.check.doomed(s, e.Keys)
	}
	s.send(e.Node, &reapDrop{reapKeys{e.Round, e.Keys, s.keys, s.hashes}})
}

func (s *reapShell) receive(from int, body any) {
	node := s.n.c.nodes[from].id
	switch m := body.(type) {
	case *reapAnswer:
		if m.round == s.machine.Round() {
			s.answered(node, m)
		}
	case reapDropped:
		s.step(reap.Dropped{Round: m.round, Node: node, Count: m.count})
	case failure:
		if !s.absent(node) {
			s.step(reap.Failed{Round: s.machine.Round(), Node: node, Reason: m.code.String()})
		}
	}
}

func (s *reapShell) undelivered(to int, why request.Reason) {
	if node := s.n.c.nodes[to].id; !s.absent(node) {
		s.step(reap.Failed{Round: s.machine.Round(), Node: node, Reason: why.String()})
	}
}

// answered takes a node's answer to the round.
func (s *reapShell) answered(node dynamo.NodeID, m *reapAnswer) {
	round := 0
	if s.machine.State() == reap.Confirming {
		round = 1
	}
	if s.truths[round] == nil {
		s.truths[round] = map[dynamo.NodeID]apartness{}
	}
	if _, again := s.truths[round][node]; !again {
		s.truths[round][node] = m.truth
	}
	if round == 0 && s.n.c.mutation == oneRound {
		s.first[node] = m.answer
	}
	s.step(reap.Answered{Round: m.round, Node: node, Answer: m.answer})
}

func (s *reapShell) finish(o reap.Outcome) {
	n, c := s.n, s.n.c
	s.ended = true
	c.tracef("%s reaps of partition %d: %+v", n.id, s.partition, o)
	n.after(linger, func() { delete(n.requests, s.number) })
	delete(n.tending.reapings, s.partition)
	c.healed.Reaped += o.Dropped
	switch {
	case !o.Complete:
		c.healed.PutOff++
	case !c.calm:
		c.healed.Amid++
		fallthrough
	default:
		c.healed.Reaps++
	}
}

// filledBy is the mutation that takes an exchange with one replica for a fill.
func (n *node) filledBy(p dynamo.Partition) {
	if _, lacks := n.inForce.Filling(p, n.id); !lacks || n.fills.target != n.inForce.Target() {
		return
	}
	if i, done := slices.BinarySearch(n.fills.filled, p); !done {
		n.fills.filled = slices.Insert(n.fills.filled, i, p)
		n.members.factsChanged()
	}
}

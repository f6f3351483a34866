package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/dynamo/version"
)

// A page of a fill has so many records, or hashes.
const (
	fillRecords = 2
	fillDigests = 4
)

// fills are what a node has filled for a target, and what it is filling.
type fills struct {
	target  uint64
	filled  []dynamo.Partition
	since   map[dynamo.Partition]uint64 // the losses that they are filled after
	running map[dynamo.Partition]*fillShell
	begun   map[dynamo.Partition]*filling
}

// filling is a fill and what it is for; it goes on where its last run was.
type filling struct {
	target uint64
	joint  bool
	since  uint64 // the loss that it is for
	fill   *transfer.Fill
}

// fillRequest asks a source for a page from a key on, or for the wanted keys.
type fillRequest struct {
	store   member.StoreID
	target  uint64
	since   uint64
	batch   uint64
	from    int
	digests bool
	wanted  []int
}

// fillReply answers it.
type fillReply struct {
	batch   uint64
	cursor  []byte
	more    bool
	digests bool
	keys    []int
	records [][]byte
	hashes  [][16]byte
	read    time.Duration
	handled int
}

// work begins the fills that a node has to do.
func (n *node) work() {
	d := n.inForce
	if d == nil || n.stopping {
		return
	}
	f := &n.fills
	if f.target != d.Target() || f.begun == nil {
		*f = fills{target: d.Target(), running: f.running, begun: map[dynamo.Partition]*filling{}, since: map[dynamo.Partition]uint64{}}
	}
	for _, x := range d.FillsOf(n.id) {
		if n.vnodes[x.Partition].status == vnodeFailed {
			n.vnodes[x.Partition].probe()
		}
		if !n.hasFilled(x) && f.running[x.Partition] == nil && n.serves(x.Partition) {
			n.startFill(x)
		}
	}
}

// streams are those that a fill takes. Only keys with the n of the one bucket exist.
func (n *node) streams(f member.Fill) []transfer.Stream {
	var out []transfer.Stream
	q := n.c.plan.properties.Quorum.N
	if from, to := n.inForce.FillRange(f); q < from || to < q {
		return nil
	}
	for _, source := range n.inForce.Sources(f, q) {
		out = append(out, transfer.Stream{N: q, Source: source})
	}
	switch n.c.mutation {
	case fillOne:
		out = out[:min(1, len(out))]
	case fillNothing:
		out = nil
	}
	return out
}

// fillShell runs a fill.
type fillShell struct {
	*filling
	n       *node
	of      member.Fill
	number  uint64
	page    fillReply
	wanted  []int
	digests bool
	timer   uint64
	ended   bool
}

func (n *node) startFill(x member.Fill) {
	f, d := &n.fills, n.inForce
	joint := d.Movement.Joint != 0
	b := f.begun[x.Partition]
	if b == nil || b.target != d.Target() || b.joint != joint || b.since != x.Since {
		b = &filling{target: d.Target(), joint: joint, since: x.Since, fill: transfer.NewFill(n.c.random.id.Uint64() >> 2)}
		f.begun[x.Partition] = b
	}
	if f.running == nil {
		f.running = map[dynamo.Partition]*fillShell{}
	}
	n.next++
	s := &fillShell{filling: b, n: n, of: x, number: n.next}
	n.requests[s.number] = s
	f.running[x.Partition] = s
	s.run(b.fill.Start(n.streams(x)))
}

// String is the fill in failures.
func (s *fillShell) String() string {
	return fmt.Sprintf("fill of partition %d on %s: %v, %+v", s.of.Partition, s.n.id, s.fill.State(), s.fill.Progress())
}

func (s *fillShell) step(e transfer.Event) {
	if !s.ended {
		s.run(s.fill.Step(e))
	}
}

func (s *fillShell) pid() pid { return pid{s.n.index, s.number} }

func (s *fillShell) run(effects []transfer.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case transfer.Ask:
			s.ask(e)
		case transfer.Compare:
			s.n.after(scale(s.n.c.random.disk.Float64(), s.n.c.plan.disk.read), func() { s.compare(e.Batch) })
		case transfer.Merge:
			s.merge(e.Batch, s.page)
		case transfer.Seal:
			s.merge(e.Batch, fillReply{read: s.n.c.now})
		case transfer.Rest:
			s.rest(e.Outcome)
		}
	}
}

func (s *fillShell) ask(e transfer.Ask) {
	m := &fillRequest{store: s.n.store, target: s.target, since: s.since, batch: e.Batch, digests: e.Digests}
	if len(e.Cursor) > 0 {
		m.from = int(e.Cursor[0])
	}
	if e.Wanted > 0 {
		s.wanted = s.wanted[len(s.wanted)-e.Wanted:]
		m.wanted = s.wanted
	}
	s.digests = e.Digests
	s.limit(e.Batch)
	s.n.ask(s.n.c.node(e.Source), s.of.Partition, s.pid(), handoffTimeout, m)
}

// limit ends a wait that takes too long.
func (s *fillShell) limit(batch uint64) {
	s.timer++
	timer, state := s.timer, s.fill.State()
	s.n.after(handoffTimeout, func() {
		switch {
		case s.timer != timer || s.fill.State() != state || s.fill.Number() != batch:
		case state == transfer.Asking:
			s.step(transfer.Failed{Node: s.fill.Source(), Batch: batch, Reason: "no answer"})
		default:
			s.step(transfer.Broken{Reason: "no answer"})
		}
	})
}

func (s *fillShell) receive(from int, body any) {
	node := s.n.c.nodes[from].id
	switch m := body.(type) {
	case fillReply:
		p := transfer.Page{
			Node: node, Batch: m.batch, Cursor: m.cursor, More: m.more, Digests: m.digests, Records: len(m.records), Handled: m.handled,
		}
		if effects := s.fill.Step(p); len(effects) > 0 && !s.ended {
			s.page = m
			s.run(effects)
		}
	case handoffReply:
		s.step(transfer.Merged{Batch: m.batch})
	case failure, staleReply:
		if from == s.n.index {
			s.step(transfer.Broken{Reason: describe(body)})
			return
		}
		s.step(transfer.Failed{Node: node, Batch: s.fill.Number(), Reason: describe(body)})
	}
}

func (s *fillShell) undelivered(to int, _ request.Reason) {
	s.step(transfer.Failed{Node: s.n.c.nodes[to].id, Batch: s.fill.Number(), Unreachable: true, Reason: "unreachable"})
}

// compare finds which records of the page differ from those here.
func (s *fillShell) compare(batch uint64) {
	if s.ended || s.fill.State() != transfer.Comparing || s.fill.Number() != batch {
		return
	}
	s.wanted = nil
	for i, key := range s.page.keys {
		if s.n.record(&s.n.c.keys[key], false).CausalHash() != s.page.hashes[i] {
			s.wanted = append(s.wanted, key)
		}
	}
	s.step(transfer.Compared{Batch: batch, Wanted: len(s.wanted)})
}

// merge has this node's own vnode merge records; its answer says that the disk has
// them, and all that it had accepted before.
func (s *fillShell) merge(batch uint64, page fillReply) {
	s.limit(batch)
	s.n.ask(s.n, s.of.Partition, s.pid(), handoffTimeout, &handoffRequest{batch: batch, keys: page.keys, records: page.records, read: page.read})
}

// rest ends a run. A fill that is complete, also by the document of now, is a fact.
func (s *fillShell) rest(o transfer.FillOutcome) {
	n, f, p := s.n, &s.n.fills, s.of.Partition
	s.ended = true
	n.after(linger, func() { delete(n.requests, s.number) })
	n.c.tracef("%s: %v, for ring %d", n.id, s, s.target)
	d := n.inForce
	x, due := d.Filling(p, n.id)
	same := x.Since == s.since && d.Target() == s.target && (d.Movement.Joint != 0) == s.joint
	if !o.Complete {
		n.after(memberTick*2, func() { delete(f.running, p) })
		return
	}
	delete(f.running, p)
	if !same || !due || !s.fill.Covers(n.streams(x)) {
		return
	}
	delete(f.begun, p)
	f.since[p] = s.since
	if i, done := slices.BinarySearch(f.filled, p); !done {
		f.filled = slices.Insert(f.filled, i, p)
	}
	n.members.factsChanged()
}

// fill serves a replica that lacks data, with what it reads once the writes of this
// turn are applied.
func (v *vnodeShell) fill(m *fillRequest, from pid) {
	n, asker := v.n, v.n.c.nodes[from.endpoint].id
	d, q := n.inForce, n.c.plan.properties.Quorum.N
	if d == nil {
		n.tell(from, failure{codeNotReady})
		return
	}
	if v.refuses(0, from) {
		return
	}
	whole := v.watch()
	f, lacks := d.Filling(v.partition, asker)
	f.Since = m.since
	gives := lacks && d.Gives(f, m.store, m.target) && d.Holds(v.partition, q, n.id)
	if n.c.mutation == giveUnaware {
		gives = true
	}
	if !gives {
		n.tell(from, staleReply{d.Version})
		return
	}
	early, _ := v.page(m)
	v.after = append(v.after, func(err error) {
		if err != nil {
			n.tell(from, failure{codeStorage})
			return
		}
		n.c.check.gave(v, m, early)
		n.after(scale(n.c.random.disk.Float64(), n.c.plan.disk.read), func() {
			if n.c.mutation == fillEarly {
				n.tell(from, early)
				return
			}
			page, err := v.page(m)
			switch v.met(err); {
			case !whole():
				n.tell(from, failure{codeNotReady})
			case err != nil:
				n.tell(from, failure{codeStorage})
			default:
				n.tell(from, page)
			}
		})
	})
}

// page reads what is asked for.
func (v *vnodeShell) page(m *fillRequest) (fillReply, error) {
	c := v.n.c
	out := fillReply{batch: m.batch, digests: m.digests, read: c.now}
	limit := fillRecords
	if m.digests {
		limit = fillDigests
	}
	keys := m.wanted
	if len(keys) == 0 {
		for i := m.from; i < len(c.keys); i++ {
			if k := &c.keys[i]; k.partition == v.partition && (v.n.holed(k) || !v.n.record(k, false).IsZero()) {
				keys = append(keys, i)
			}
		}
	}
	out.more = len(keys) > limit
	keys = keys[:min(limit, len(keys))]
	out.handled = len(keys)
	for _, i := range keys {
		out.cursor = []byte{byte(i + 1)}
		r := v.n.record(&c.keys[i], false)
		if v.n.holed(&c.keys[i]) {
			return fillReply{}, errHole
		}
		if r.IsZero() {
			continue
		}
		out.keys = append(out.keys, i)
		if m.digests {
			out.hashes = append(out.hashes, r.CausalHash())
		} else {
			out.records = append(out.records, version.Append(nil, r))
		}
	}
	return out, nil
}

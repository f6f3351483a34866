package sim

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/request"
)

const (
	// memberTick is how often a node looks whether a movement can go on, and
	// gossipEvery how often it gossips.
	memberTick  = 60 * time.Millisecond
	gossipEvery = 150 * time.Millisecond
	// leadAfter is how long the members before one in order have, each, to take a
	// movement on.
	leadAfter = 300 * time.Millisecond
	// storeAgain is when a vote or a document that the disk refused is written
	// again.
	storeAgain = 200 * time.Millisecond
)

// voterKey is where a node keeps its member.Voter: the value is an index into
// movement.saved, for disks of the simulation hold bytes.
const voterKey = "voter"

// membership is the model of the actor that holds the cluster document: a life of the
// node long. Without a voter it is in no cluster, and asks others.
type membership struct {
	n     *node
	voter *member.Voter
	rows  member.Rows
	register
	gossiped time.Duration
	due      time.Duration // when to take the movement on from the version
	version  uint64
	staged   bool
}

// join begins a node's part in the cluster. In a run without movement all go by the
// founding document for ever.
func (n *node) join() {
	n.inForce, n.since, n.fills = nil, nil, fills{}
	if !n.c.plan.moves() {
		n.enforce(n.c.doc)
		return
	}
	n.members = &membership{n: n, rows: member.Rows{}}
	if b, ok := n.disk.volatile[voterKey]; ok {
		v := n.c.move.saved[binary.BigEndian.Uint64(b)]
		if n.c.mutation == forgetPromise {
			v.Promised, v.Vote = member.Ballot{}, nil
		}
		n.members.voter = &v
		n.enforce(v.Document)
	}
	n.members.tick()
}

// founds puts the founding document onto the disk.
func (n *node) founds() { n.keeps(member.Voter{Self: n.id, Store: n.store, Document: n.c.doc}) }

// keeps puts a voter onto the disk.
func (n *node) keeps(v member.Voter) {
	n.c.move.saved = append(n.c.move.saved, v)
	b := binary.BigEndian.AppendUint64(nil, uint64(len(n.c.move.saved)-1))
	n.disk.durable[voterKey], n.disk.volatile[voterKey] = b, b
}

// save makes the voter durable, whatever time that takes.
func (m *membership) save(then func()) {
	n, c := m.n, m.n.c
	c.move.saved = append(c.move.saved, *m.voter)
	w := write{key: voterKey, value: binary.BigEndian.AppendUint64(nil, uint64(len(c.move.saved)-1))}
	done := func(err error) {
		if err != nil {
			n.after(storeAgain, func() { m.save(then) })
			return
		}
		then()
	}
	if err := n.disk.commit(batch{writes: []write{w}, sync: true, done: done}); err != nil {
		n.after(0, func() { done(err) })
	}
}

// durable is what a crash would leave of the voter.
func (n *node) savedVoter() (member.Voter, bool) {
	b, ok := n.disk.durable[voterKey]
	if !ok {
		return member.Voter{}, false
	}
	return n.c.move.saved[binary.BigEndian.Uint64(b)], true
}

// learn takes a decided document in; durable it comes into force.
func (m *membership) learn(d member.Document) {
	if m.n.c.retired(d, m.n) {
		m.n.retireOnceKnown(d)
	}
	if m.voter == nil {
		m.voter = &member.Voter{Self: m.n.id, Store: m.n.store, Document: d}
	} else if changed, err := m.voter.Learn(d); err != nil || !changed {
		if err != nil {
			m.n.c.fail("M1", "%s cannot use a decided document: %v", m.n.id, err)
		}
		return
	}
	if m.n.c.mutation == useEarly {
		m.n.enforce(d)
	}
	m.save(func() { m.n.enforce(d) })
}

// send brings something to another node's membership.
func (m *membership) send(to dynamo.NodeID, deliver func(*membership), undelivered func()) {
	n, target := m.n, m.n.c.node(to)
	life := n.life
	arrive := func() { target.arrive(func() { deliver(target.members) }) }
	if deaf := n.c.plan.move.deaf; deaf > 0 && !n.c.calm && target.index == int(n.c.plan.seed)%n.c.plan.nodes {
		heard := arrive
		arrive = func() { n.c.after(deaf, heard) }
	}
	n.c.net.send(n.index, target.index, arrive, func(request.Reason) {
		if undelivered != nil {
			n.run(life, undelivered)
		}
	})
}

// tick is the node's time to look around, until all is at rest.
func (m *membership) tick() {
	if m.n.c.atRest() {
		return
	}
	m.n.after(memberTick, m.tick)
	if m.voter == nil {
		m.hello()
		return
	}
	m.n.careForLosses()
	m.n.work()
	if m.n.c.now-m.gossiped >= gossipEvery {
		m.gossiped = m.n.c.now
		m.factsChanged()
		var peers []dynamo.NodeID
		for _, id := range m.voter.Document.Voters() {
			if id != m.n.id && m.n.reachable(id) {
				peers = append(peers, id)
			}
		}
		if len(peers) > 0 {
			m.contact(peers[m.n.c.random.move.IntN(len(peers))])
		}
	}
	m.lead()
}

// hello tells a random node who this one is: it is staged to join, its new store is
// taken over, or it is told the document that names it.
func (m *membership) hello() {
	n := m.n
	peer := n.c.nodes[n.c.random.move.IntN(len(n.c.nodes))]
	if peer == n {
		return
	}
	store, life, staged, id := n.store, n.life, m.staged, n.id
	m.send(peer.id, func(o *membership) { o.greeted(id, store, life, staged) }, nil)
}

func (m *membership) greeted(id dynamo.NodeID, store member.StoreID, life uint64, staged bool) {
	if m.voter == nil || m.n.inForce == nil {
		return
	}
	if m.n.c.node(id).store != store {
		return // a link dies with its process, and what it asked for with the link
	}
	d := *m.n.inForce
	x, known := d.Member(id)
	switch {
	case known && x.Status != member.Gone && x.Store == store:
		m.send(id, func(o *membership) {
			if o.voter == nil && o.n.store == store {
				o.learn(d)
			}
		}, nil)
	case known && x.Status != member.Gone && !x.Removed:
		m.propose("take-over of "+string(id), func(now member.Document) (member.Document, error) {
			if y, _ := now.Member(id); y.Store == store {
				return now, nil
			}
			next, err := now.TakeOver(id, x.Store, store, life, "")
			if m.n.c.mutation == lostNotFilled {
				next.Movement.Filling = slices.Clone(now.Movement.Filling)
			}
			return next, err
		})
	case known && x.Status != member.Gone || staged:
	default:
		c := member.Change{Kind: member.Join, Node: id, Member: member.Member{ID: id, Capacity: 1, Store: store, Start: life}}
		if slices.Contains(d.Staged, c) {
			m.send(id, func(o *membership) { o.staged = true }, nil)
			return
		}
		m.propose("join of "+string(id), func(now member.Document) (member.Document, error) { return now.StageJoin(c) })
	}
}

// contact compares what this node knows with what another does.
func (m *membership) contact(to dynamo.NodeID) {
	from, d, digest := m.n.id, m.voter.Document, m.rows.Digest()
	m.send(to, func(o *membership) {
		if o.voter != nil {
			o.compare(from, d.Version, digest)
		}
	}, nil)
}

// compare answers with what the other node lacks.
func (m *membership) compare(from dynamo.NodeID, version, digest uint64) {
	d, mine, me := m.voter.Document, m.rows.Digest(), m.n.id
	var rows []member.Row
	if mine != digest {
		rows = m.rows.Sorted()
	}
	m.send(from, func(o *membership) {
		if o.voter == nil {
			return
		}
		o.merge(rows, d)
		if back := o.rows.Sorted(); len(rows) > 0 && o.rows.Digest() != mine || o.voter.Document.Version > d.Version {
			now := o.voter.Document
			o.send(me, func(p *membership) {
				if p.voter != nil {
					p.merge(back, now)
				}
			}, nil)
		}
	}, nil)
	if version > d.Version {
		m.contact(from)
	}
}

// merge takes in what another node knows.
func (m *membership) merge(rows []member.Row, d member.Document) {
	for _, r := range rows {
		if x, known := m.voter.Document.Member(r.Node); r.Node != m.n.id && known && x.Status != member.Gone {
			m.rows.Merge(r)
		}
	}
	m.learn(d)
}

// factsChanged makes a new row of this node if what it says has changed, and sends it
// to the member that takes the movement on.
func (m *membership) factsChanged() {
	n := m.n
	if n.inForce == nil {
		return
	}
	f := member.Facts{Store: n.store, Known: n.inForce.Version, Target: n.inForce.Target(), Idle: n.idle()}
	if n.fills.target == f.Target {
		f.Filled = n.filledFacts()
	}
	row := m.rows[n.id]
	if row.Counter > 0 && row.Known == f.Known && row.Idle == f.Idle && row.Target == f.Target && slices.Equal(row.Filled, f.Filled) {
		return
	}
	next := member.Row{Node: n.id, Start: n.life, Counter: row.Counter + 1, Facts: f}
	m.rows[n.id] = next
	if leader := m.leader(); leader != n.id {
		m.send(leader, func(o *membership) {
			if o.voter != nil {
				o.merge([]member.Row{next}, o.voter.Document)
			}
		}, nil)
	}
}

// leader is the first member that this node can reach.
func (m *membership) leader() dynamo.NodeID {
	for _, id := range m.voter.Document.Voters() {
		if m.n.reachable(id) {
			return id
		}
	}
	return m.n.id
}

// lead takes the movement on when the facts allow it and no member before this one
// does so.
func (m *membership) lead() {
	n, d := m.n, m.voter.Document
	if m.running != nil || len(m.changes) > 0 || !d.Unfinished() {
		m.version = 0
		return
	}
	if _, changes := m.advance(d); !changes {
		m.version = 0
		return
	}
	if m.version != d.Version {
		rank := 0
		for _, id := range d.Voters() {
			if id < n.id && n.reachable(id) {
				rank++
			}
		}
		m.version, m.due = d.Version, n.c.now+time.Duration(rank)*leadAfter
	}
	if n.c.now < m.due {
		return
	}
	m.propose("movement", func(now member.Document) (member.Document, error) {
		next, _ := m.advance(now)
		return next, nil
	})
}

func (m *membership) advance(d member.Document) (member.Document, bool) {
	if m.n.c.mutation == fillUnaccepted {
		if given, err := d.AcceptLoss(nil, d.Version); err == nil {
			d.Movement = given.Movement
		}
	}
	return d.Advance(m.facts(d))
}

// facts are what all nodes say, as far as this one has heard.
func (m *membership) facts(d member.Document) map[dynamo.NodeID]member.Facts {
	out := m.rows.Facts()
	if m.n.c.mutation == doneUnknown && d.Movement.Joint != 0 {
		for _, id := range d.Voters() {
			x, _ := d.Member(id)
			f := out[id]
			f.Store, f.Known = x.Store, d.Version
			out[id] = f
		}
	}
	return out
}

package sim

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

// restLimit is how long a cluster without faults may take to come to rest.
const restLimit = 4 * time.Minute

// movement is what a run knows of its members and rings.
type movement struct {
	saved  []member.Voter
	stores uint64
	calmed time.Duration
	// hole is the member whose data is being made up for: its disk was lost, or it is
	// dead for good. One at a time, and only if a write is on more nodes than one.
	hole dynamo.NodeID
	dead map[dynamo.NodeID]bool
	Moved
}

// Moved counts what really happened.
type Moved struct {
	// Versions of the document, rings that were settled, disks that were lost and
	// taken over, members that were removed as dead.
	Versions, Rings, TakeOvers, Removals int
	// Ruins are disks that were lost while others were made up for, Accepted the fills whose losses
	// operators have accepted.
	Ruins, Accepted int
	// Replans are requests that a replica refused as planned with an old document.
	Replans int
}

// Add adds what happened in another run.
func (m *Moved) Add(o Moved) {
	m.Versions, m.Rings, m.TakeOvers = m.Versions+o.Versions, m.Rings+o.Rings, m.TakeOvers+o.TakeOvers
	m.Removals, m.Replans = m.Removals+o.Removals, m.Replans+o.Replans
	m.Ruins, m.Accepted = m.Ruins+o.Ruins, m.Accepted+o.Accepted
}

var errPolicy = errors.New("sim: the operators want more members")

// operate starts the operators.
func (c *cluster) operate() {
	c.move.dead = map[dynamo.NodeID]bool{}
	for i := range c.plan.move.operators {
		c.after(scale(c.random.move.Float64(), c.plan.move.every), func() { c.act(i) })
	}
}

// act is one act of an operator; they go on until nothing is left for them to do.
func (c *cluster) act(i int) {
	every := c.plan.move.every
	if c.calm {
		if !c.undone() && !c.lacking() {
			return
		}
		every = min(every, 300*time.Millisecond)
	}
	c.after(scale(c.random.move.ExpFloat64(), every)+time.Millisecond, func() { c.act(i) })
	via := c.nodes[c.random.move.IntN(len(c.nodes))]
	if !via.up || via.paused || via.members == nil || via.members.voter == nil || via.inForce == nil {
		return
	}
	m, d := via.members, *via.inForce
	if len(d.Losses()) > 0 && (c.calm || chance(c.random.move, 0.3)) {
		m.propose("accept", func(now member.Document) (member.Document, error) { return c.accept(now, d.Version) })
		return
	}
	if c.calm && !c.undone() {
		return
	}
	switch x := c.random.move.Float64(); {
	case len(d.Staged) > 0 && x < 0.1:
		m.propose("clear", func(now member.Document) (member.Document, error) { return now.Clear() })
	case len(d.Staged) > 0 && x < 0.6:
		m.propose("commit", func(now member.Document) (member.Document, error) { return c.commit(now, d.Version) })
	default:
		if change, ok := c.drawChange(d); ok {
			m.propose("stage "+change.String(), func(now member.Document) (member.Document, error) { return now.Stage(change) })
		}
	}
}

// lacking reports whether something may be found to be lost yet.
func (c *cluster) lacking() bool {
	return c.plan.move.ruins > 0 && (c.doc.Unfinished() || slices.ContainsFunc(c.nodes, func(n *node) bool {
		x, known := c.doc.Member(n.id)
		return known && !x.Out() && x.Store != n.store
	}))
}

// undone reports whether a dead member was not removed yet, or too few are left.
func (c *cluster) undone() bool {
	return c.fewer(c.doc, "") || slices.ContainsFunc(c.doc.Members, func(x member.Member) bool {
		return x.Status != member.Gone && !x.Removed && c.move.dead[x.ID]
	})
}

// commit is an operator's commit: not if too few would be left.
func (c *cluster) commit(now member.Document, version uint64) (member.Document, error) {
	p, err := now.Plan()
	if err != nil {
		return now, err
	}
	if c.fewer(p.Document, "") && c.holding(p.Document, "") < c.holding(now, "") {
		return now, errPolicy
	}
	return now.Commit(version)
}

// fewer reports whether too few members would hold data without one more.
func (c *cluster) fewer(d member.Document, without dynamo.NodeID) bool {
	return c.holding(d, without) < max(3, c.plan.properties.Quorum.N)
}

// holding is how many members hold data, or will, without one more.
func (c *cluster) holding(d member.Document, without dynamo.NodeID) int {
	n := 0
	for _, x := range d.Claimants() {
		if x.ID != without && !c.move.dead[x.ID] {
			n++
		}
	}
	return n
}

// drawChange picks a change to stage; the dead come first.
func (c *cluster) drawChange(d member.Document) (member.Change, bool) {
	r, w := c.random.move, c.plan.move
	var joiner dynamo.NodeID
	for _, s := range d.Staged {
		if s.Kind == member.Join {
			joiner = s.Node
		}
	}
	for _, x := range d.Members {
		if c.move.dead[x.ID] && x.Status != member.Gone && !x.Removed {
			if joiner != "" && chance(r, 0.5) {
				return member.Change{Kind: member.Replace, Node: x.ID, With: joiner, Dead: true}, true
			}
			return member.Change{Kind: member.Remove, Node: x.ID}, true
		}
	}
	if c.calm {
		c.boot()
		return member.Change{}, false
	}
	slot := c.nodes[r.IntN(len(c.nodes))]
	x, known := d.Member(slot.id)
	active := known && (x.Status == member.Up || x.Status == member.Joining)
	draw := r.Float64() * (w.join + w.leave + w.remove + w.replace + w.capacity)
	pick := func(weight float64) bool {
		draw -= weight
		return draw < 0
	}
	switch {
	case pick(w.join):
		c.boot()
	case pick(w.leave):
		return member.Change{Kind: member.Leave, Node: slot.id}, active && !c.fewer(d, slot.id)
	case pick(w.remove):
		if active && c.mayLose(slot) && !c.fewer(c.doc, slot.id) {
			c.kill(slot)
			return member.Change{Kind: member.Remove, Node: slot.id}, true
		}
	case pick(w.replace):
		if joiner == "" {
			c.boot()
			break
		}
		return member.Change{Kind: member.Replace, Node: slot.id, With: joiner}, active && slot.id != joiner
	default:
		return member.Change{Kind: member.SetCapacity, Node: slot.id, Capacity: 1 + r.IntN(3)}, active
	}
	return member.Change{}, false
}

// newStore is the id of an empty disk.
func (c *cluster) newStore() member.StoreID {
	c.move.stores++
	return member.StoreID(binary.BigEndian.AppendUint64([]byte("new disk"), c.move.stores))
}

// boot starts a machine that is free, with an empty disk; it asks to join. If there is
// none, one that was staged and cleared is told to ask again.
func (c *cluster) boot() {
	for _, n := range c.nodes {
		x, known := c.doc.Member(n.id)
		staged := slices.ContainsFunc(c.doc.Staged, func(s member.Change) bool { return s.Kind == member.Join && s.Node == n.id })
		if m := n.members; n.up && m != nil && m.voter == nil && m.staged && !staged {
			c.tracef("%s is told to join", n.id)
			m.staged = false
			return
		}
		if !n.off || known && x.Status != member.Gone {
			continue
		}
		n.empty()
		n.off = false
		c.move.dead[n.id] = false
		c.tracef("%s is a new machine", n.id)
		n.start()
		return
	}
}

// empty gives a machine that is down a new disk.
func (n *node) empty() {
	clear(n.disk.durable)
	clear(n.disk.volatile)
	n.disk.pending, n.disk.full, n.disk.broken, n.disk.failNext, n.disk.syncing = nil, false, false, false, false
	n.store = n.c.newStore()
}

// retire ends a node that is gone: nothing that belongs to anybody may be on its disk.
func (n *node) retire() {
	n.c.tracef("%s is gone", n.id)
	n.c.check.empty(n)
	n.crash(0)
	n.off = true
	n.empty()
}

// retireOnceKnown ends a node when others than itself say that it is gone: before that
// no operator would empty its disk.
func (n *node) retireOnceKnown(d member.Document) {
	store := n.store
	n.c.after(50*time.Millisecond, func() {
		known := 0
		for _, id := range d.Voters() {
			if m := n.c.node(id).members; m != nil && m.voter != nil && m.voter.Document.Version >= d.Version {
				known++
			}
		}
		switch {
		case n.off || n.store != store:
		case known >= member.Majority(len(d.Voters())):
			n.retire()
		default:
			n.retireOnceKnown(d)
		}
	})
}

// retired reports whether a document says that the node with its store has left.
func (c *cluster) retired(d member.Document, n *node) bool {
	x, known := d.Member(n.id)
	return known && x.Store == n.store && x.Status == member.Gone
}

// mayLose reports whether a member's disk may be lost: nothing is being made up for,
// and each acknowledged write is on the disk of another.
func (c *cluster) mayLose(n *node) bool {
	x, known := c.doc.Member(n.id)
	if c.move.hole != "" || c.mending() || c.plan.properties.Quorum.W < 2 || !known || x.Status == member.Gone || x.Removed || x.Store != n.store || n.off || !c.outlived(n) {
		return false
	}
	for i := range c.keys {
		k := &c.keys[i]
		for _, w := range c.check.ledger(k).acked {
			elsewhere := func(o *node) bool { return o != n && !o.off && o.holds(k, w.dot, true) }
			if !w.excused && !c.check.ledger(k).doomed.Covers(w.dot) && !slices.ContainsFunc(c.nodes, elsewhere) {
				return false
			}
		}
	}
	return true
}

// outlived reports whether a majority is left when a member loses its votes: of the
// version in force, of those that nodes still go by or that a crash takes them back to, who may have to
// decide on the next one without it, and of any that may come after. What is decided may be on no disk yet: if
// all who know it crash, the version before is in force again, where one who was removed still counts.
func (c *cluster) outlived(n *node) bool {
	enough := func(d member.Document) bool { return c.decides(d, n) }
	for _, o := range c.nodes {
		if o.off {
			continue
		}
		var voters []member.Voter
		if v, saved := o.savedVoter(); saved && o != n { // its own disk goes
			voters = append(voters, v)
		}
		if m := o.members; m != nil {
			if m.asked.Version > c.doc.Version && !enough(m.asked) {
				return false
			}
			if m.voter != nil {
				voters = append(voters, *m.voter)
			}
		}
		for _, v := range voters {
			if !enough(v.Document) || v.Vote != nil && v.Vote.Document.Version > c.doc.Version && !enough(v.Vote.Document) {
				return false
			}
		}
	}
	return enough(c.doc)
}

// decides reports whether a version's majority is left without a node.
func (c *cluster) decides(d member.Document, without *node) bool {
	left := 0
	for _, id := range d.Voters() {
		if x, _ := d.Member(id); id != without.id && !c.move.dead[id] && x.Store == c.node(id).store {
			left++
		}
	}
	return left >= member.Majority(len(d.Voters()))
}

// lose empties a member's disk.
func (c *cluster) lose(n *node) {
	n.crash(0)
	for i := range c.keys {
		c.check.destroy(n, &c.keys[i])
	}
	c.move.hole = n.id
	n.empty()
}

// loseDisk has a member come back with an empty disk under its name.
func (c *cluster) loseDisk(n *node, lasts time.Duration) {
	if !c.mayLose(n) {
		return
	}
	c.tracef("the disk of %s is lost", n.id)
	c.lose(n)
	c.after(lasts, n.start)
}

// kill ends a member for good.
func (c *cluster) kill(n *node) {
	c.tracef("%s is dead for good", n.id)
	c.lose(n)
	n.off, c.move.dead[n.id] = true, true
}

// decided takes note of a version that was decided on: there is one of each.
func (c *cluster) decided(by *node, d member.Document) {
	if have, known := c.docs[d.Version]; known {
		if !have.Equal(d) {
			c.fail("M1", "version %d is two documents: %v members %v, and, by %s, members %v", d.Version, have, have.Members, by.id, d.Members)
		}
		return
	}
	c.docs[d.Version] = d
	if d.Version < c.doc.Version {
		return
	}
	before := c.doc
	c.doc = d
	c.count(before, d)
	c.check.losses(before, d)
	c.tracef("version %d by %s: target %d, %+v, staged %v", d.Version, by.id, d.Target(), d.Movement, d.Staged)
	hole := c.move.hole
	if hole == "" {
		return
	}
	x, _ := d.Member(hole)
	lacks := slices.ContainsFunc(d.Movement.Filling, func(f member.Fill) bool { return f.Node == hole && f.Whole })
	switch {
	case x.Status == member.Gone, x.Removed && d.Next == nil && !d.Movement.Queued,
		!c.move.dead[hole] && x.Store == c.node(hole).store && !lacks:
		c.move.hole = ""
	}
}

// count takes note of what a version changed.
func (c *cluster) count(before, d member.Document) {
	c.move.Versions++
	for _, f := range d.Movement.Filling {
		if f.Since == d.Version {
			c.healed.Lost++
		}
	}
	if before.Next != nil && d.Settled.Equal(*before.Next) {
		c.move.Rings++
	}
	for _, x := range d.Members {
		was, known := before.Member(x.ID)
		switch {
		case !known:
		case x.Removed && !was.Removed:
			c.move.Removals++
		case x.Store != was.Store && was.Status != member.Gone:
			c.move.TakeOvers++
		}
	}
}

// atRest reports whether nothing is left for the members to do: then they stop to
// look around, so that a run ends.
func (c *cluster) atRest() bool {
	if !c.calm || c.violation != nil {
		return c.violation != nil
	}
	c.forgetUnknown()
	why := c.unrest()
	if why != "" && c.now > c.move.calmed+restLimit {
		c.fail("M4", "%v without faults: %s", restLimit, why)
	}
	return why == ""
}

// forgetUnknown goes back to the newest document that a node ever went by, if nobody has come to know a
// newer one in all this time: it was decided just before all who knew it crashed, so nobody was told of
// it, and it comes to light with the next change, which there may not be.
func (c *cluster) forgetUnknown() {
	var newest uint64
	for _, version := range c.check.versions {
		newest = max(newest, version)
	}
	if d, decided := c.docs[newest]; decided && (newest > c.doc.Version || c.now > c.move.calmed+restLimit/2) {
		c.doc = d
	}
}

// unrest says what is left to do.
func (c *cluster) unrest() string {
	if c.undone() {
		return "a dead member was not removed"
	}
	if c.doc.Unfinished() {
		return "the movement is not over: " + c.doc.String()
	}
	for _, n := range c.nodes {
		x, known := c.doc.Member(n.id)
		switch {
		case !known || x.Status == member.Gone:
			if !n.off && known && x.Store == n.store {
				return string(n.id) + " does not know that it is gone"
			}
		case !n.up || n.inForce == nil || n.inForce.Version < c.doc.Version:
			return string(n.id) + " does not know the newest document"
		case n.members.running != nil || len(n.members.changes) > 0:
			return string(n.id) + " makes a change"
		case n.hasDamage():
			return string(n.id) + " has damage"
		case !n.idle() || len(n.transfers) > 0 || len(n.fills.running) > 0:
			return string(n.id) + " moves data"
		}
	}
	return ""
}

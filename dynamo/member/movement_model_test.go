package member

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

var movements = flag.Uint64("member.movements", 4000, "worlds that TestMovementKeepsWrites runs")

// moving is a cluster while its ring moves, seen from one key with n replicas of
// partition 0. Nodes learn versions of the document in any order they can, some late;
// writes and reads are planned with any version and reach replicas at any time. Data
// is a set of writes, one bit each. A disk is lost or a dead member removed only while
// no other has to be made up for, and if each write has another copy.
type moving struct {
	r       *rand.Rand
	bug     string // planted on purpose
	n, R, W int
	still   bool        // the ring does not move, but disks are lost
	slow    bool        // half of the requests take long
	docs    []*Document // version v is docs[v-1]
	nodes   map[dynamo.NodeID]*movingNode
	names   []dynamo.NodeID
	writes  []*keyWrite
	reads   []*keyRead
	started int    // writes
	acked   uint64 // writes that met their quorums
	stores  int
	hole    dynamo.NodeID // whose data is being made up for
	counts  modelCounts
	trace   []string
	broken  string
}

type modelCounts struct{ writes, joint, reads, refused, switches, settled, lost, removed, damaged, accepted int }

func (c *modelCounts) add(o modelCounts) {
	c.writes, c.joint, c.reads, c.refused = c.writes+o.writes, c.joint+o.joint, c.reads+o.reads, c.refused+o.refused
	c.switches, c.settled, c.lost, c.removed = c.switches+o.switches, c.settled+o.settled, c.lost+o.lost, c.removed+o.removed
	c.damaged, c.accepted = c.damaged+o.damaged, c.accepted+o.accepted
}

type movingNode struct {
	id    dynamo.NodeID
	doc   *Document
	store StoreID
	dead  bool
	moved uint64 // version of doc at which the partition moved last
	data  uint64
	// pulled are the sources that a fill has taken all of, filled what is filled;
	// both for target.
	target uint64
	pulled map[dynamo.NodeID]bool
	filled map[dynamo.Partition]bool
	said   []Facts
	// damaged: something cannot be read of the replica, as was found out by version found of
	// the document; unreadable: the key itself. since is the loss for which all was dropped.
	damaged, unreadable bool
	found, since        uint64
}

type keyWrite struct {
	slow bool // its messages take long
	bit  uint64
	plan *Document
	acks []dynamo.NodeID
}

type keyRead struct {
	slow    bool
	plan    *Document
	must    uint64 // what was acknowledged when it began
	got     uint64
	asked   []dynamo.NodeID
	answers int
}

const modelPartitions = 2

func newMoving(seed uint64, bug string) *moving {
	w := &moving{r: rand.New(rand.NewPCG(seed, 11)), bug: bug, nodes: map[dynamo.NodeID]*movingNode{}}
	q := [][3]int{{3, 2, 2}, {3, 2, 2}, {3, 2, 2}, {3, 1, 3}, {3, 3, 1}, {2, 1, 2}, {2, 2, 1}, {5, 3, 3}, {5, 4, 2}, {1, 1, 1}}[w.r.IntN(10)]
	w.n, w.R, w.W = q[0], q[1], q[2]
	w.still, w.slow = w.W > 1 && w.r.IntN(4) == 0, w.r.IntN(3) == 0
	b := Bucket{Name: "of the key", Properties: bucket.Default()}
	b.Properties.Quorum = quorum.Params{N: w.n, R: w.R, W: w.W}
	f := Founding{ClusterID: ClusterID{1}, ClusterName: "test", Partitions: modelPartitions, Buckets: []Bucket{b}}
	founders := w.n + w.r.IntN(3)
	for i := range founders + 2 {
		id := dynamo.NodeID(rune('a' + i))
		w.names = append(w.names, id)
		w.nodes[id] = &movingNode{id: id, store: w.newStore()}
		if i < founders {
			f.Members = append(f.Members, Member{ID: id, Capacity: 1, Store: w.nodes[id].store, Start: 1})
		}
	}
	d, _, err := Found(f)
	if err != nil {
		panic(err)
	}
	w.docs = []*Document{&d}
	for _, n := range w.nodes {
		n.doc, n.moved = &d, 1
		n.reset()
	}
	return w
}

func (w *moving) newStore() StoreID {
	w.stores++
	return StoreID{byte(w.stores), byte(w.stores >> 8), 1}
}

func (w *moving) fail(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

func (w *moving) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *moving) newest() *Document { return w.docs[len(w.docs)-1] }

// publish makes a document the newest.
func (w *moving) publish(why string, d Document) {
	before := w.newest()
	if err := d.Validate(); err != nil || d.Version != before.Version+1 {
		w.fail("version %d after %d: %v", d.Version, before.Version, err)
	}
	w.docs = append(w.docs, &d)
	if d.Phase(0) == PhaseSwitched && before.Phase(0) != PhaseSwitched {
		w.counts.switches++
	}
	if before.Next != nil && d.Settled.Equal(*before.Next) {
		w.counts.settled++
	}
	w.logf("version %d, %s: %v, settled %v, reading %v, %+v", d.Version, why, d.Phase(0), d.Settled.Replicas(0), d.Reading(0).Replicas(0), d.Movement)
	m, _ := d.Member(w.hole)
	whole := slices.ContainsFunc(d.Movement.Filling, func(f Fill) bool { return f.Node == w.hole && f.Whole })
	switch {
	case w.hole == "":
	case m.Status == Gone, m.Removed && d.Next == nil && !d.Movement.Queued:
		w.hole = ""
	case !w.nodes[w.hole].dead && m.Store == w.nodes[w.hole].store && !whole && !w.nodes[w.hole].damaged:
		w.hole = ""
	}
}

func (n *movingNode) reset() {
	n.pulled, n.filled = map[dynamo.NodeID]bool{}, map[dynamo.Partition]bool{}
}

// serves reports whether a node is one by its own document: after it has lost its
// disk it waits for one that knows its new store.
func (n *movingNode) serves() bool {
	m, ok := n.doc.Member(n.id)
	return ok && !n.dead && m.Status != Gone && m.Store == n.store
}

// learn gives a node a newer document.
func (w *moving) learn(n *movingNode, d *Document) {
	if n.dead || d.Version <= n.doc.Version {
		return
	}
	served, older := n.serves(), n.doc
	n.doc = d
	moved := d.Moved(older, 0)
	if w.bug == "acks of a lost store count" && slices.Equal(d.Reading(0).Replicas(0), older.Reading(0).Replicas(0)) && !d.otherLists(older) {
		moved = false
	}
	if moved || !served {
		n.moved = d.Version
	}
	if d.Target() != n.target {
		n.target = d.Target()
		n.reset()
	}
	if f, ok := d.Filling(0, n.id); ok && f.Since > n.since {
		if n.unreadable || w.bug == "drops what can be read" {
			n.data = 0
		}
		n.since, n.damaged, n.unreadable = f.Since, false, false
		if w.bug != "filled once and lost again" {
			n.reset()
		}
		w.logf("%s drops the replica", n.id)
	}
	w.logf("%s learns %d, moved at %d", n.id, d.Version, n.moved)
}

// otherLists is Moved's look at the second list without stores.
func (d *Document) otherLists(older *Document) bool {
	also, before := d.both(0), older.both(0)
	return (also == nil) != (before == nil) || also != nil && !slices.Equal(also.Replicas(0), before.Replicas(0))
}

// restart forgets all but what is durable.
func (w *moving) restart(n *movingNode) {
	n.moved = n.doc.Version
	if w.bug == "moves forgotten by a restart" {
		n.moved = 0
	}
	clear(n.pulled)
}

// drop is what a node does with data that is no longer its own.
func (w *moving) drop(n *movingNode) {
	if n.serves() && n.data != 0 && !n.doc.Holds(0, w.n, n.id) {
		n.data = 0
		w.logf("%s drops", n.id)
	}
}

// fill lets a receiver take all that one source has, or report what is filled.
func (w *moving) fill(n *movingNode) {
	if !n.serves() {
		return
	}
	fills := n.doc.FillsOf(n.id)
	if w.bug == "new places of a lost disk are filled too early" {
		fills = slices.DeleteFunc(slices.Clone(n.doc.Movement.Filling), func(f Fill) bool { return f.Node != n.id || !f.Whole })
	}
	for _, f := range fills {
		var missing []dynamo.NodeID
		if from, to := n.doc.FillRange(f); f.Partition == 0 && from <= w.n && w.n <= to {
			missing = slices.DeleteFunc(n.doc.Sources(f, w.n), func(s dynamo.NodeID) bool {
				other, lacks := n.doc.Filling(0, s)
				return n.pulled[s] || lacks && other.Whole && w.bug == "no fill from one that is being filled"
			})
		}
		if len(missing) == 0 || w.bug == "fill from one source" && len(n.pulled) > 0 {
			n.filled[f.Partition] = true
			continue
		}
		s := w.nodes[missing[w.r.IntN(len(missing))]]
		gives := s.doc.Gives(f, n.store, n.doc.Target())
		m, _ := s.doc.Member(n.id)
		switch aimed := s.doc.Target() == n.doc.Target(); {
		case !f.Whole && w.bug == "source that does not know", f.Whole && w.bug == "source of a lost disk that does not know":
			gives = true
		case w.bug == "source that does not know of the loss" && f.Since > 0:
			gives = aimed
		case f.Whole && w.bug == "new places of a lost disk are filled too early":
			gives = aimed && m.Store == n.store
		}
		if s.serves() && !s.unreadable && gives {
			n.data |= s.data
			n.pulled[s.id] = true
			w.logf("%s takes %b from %s at %d", n.id, s.data, s.id, s.doc.Version)
		}
	}
}

// facts are what a node says of itself.
func (w *moving) facts(n *movingNode) Facts {
	f := Facts{Store: n.store, Known: n.doc.Version, Target: n.target, Idle: n.data == 0 && !n.doc.Holds(0, w.n, n.id)}
	for p := range dynamo.Partition(modelPartitions) {
		if n.filled[p] {
			f.Filled = append(f.Filled, p)
		}
	}
	return f
}

// advance proposes the next version, with facts of which some are old or missing.
func (w *moving) advance(fresh bool) bool {
	facts := map[dynamo.NodeID]Facts{}
	d := w.newest()
	for _, id := range w.names {
		n := w.nodes[id]
		if now := w.facts(n); !n.dead {
			n.said = append(n.said, now)
		}
		if len(n.said) == 0 || !fresh && w.r.IntN(8) == 0 {
			continue
		}
		i := len(n.said) - 1
		if !fresh && w.r.IntN(3) == 0 {
			i = w.r.IntN(len(n.said))
		}
		f := n.said[i]
		if w.bug == "done without knowing" && d.Movement.Joint != 0 || w.bug == "joint without knowing" && d.Next != nil && d.Movement.Joint == 0 {
			f.Known = math.MaxUint64
		}
		if w.bug == "facts of before the loss" {
			f.Known = max(f.Known, n.since)
		}
		facts[id] = f
	}
	next, changed := d.Advance(facts)
	if changed {
		w.publish("advance", next)
	}
	return changed
}

// shuffle announces a ring that Claim would never make: any order of the members.
func (w *moving) shuffle() {
	d := w.newest()
	if d.Next != nil || d.Movement.Queued {
		return
	}
	members := d.Claimants()
	if len(members) < w.n {
		return
	}
	out := d.successor()
	k := min(w.n+w.r.IntN(len(members)-w.n+1), d.Depth)
	lists := make([][]dynamo.NodeID, modelPartitions)
	for p := range lists {
		w.r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		for _, m := range members[:k] {
			lists[p] = append(lists[p], m.ID)
		}
	}
	next, err := ring.New(d.Settled.Version()+1, lists)
	if err != nil {
		w.fail("%v", err)
	}
	if !next.SameLists(d.Settled) {
		out.announce(next)
		w.publish("shuffle", out)
	}
}

// may reports whether one more member may be lost. Where one copy is enough for a
// write, that is possible only while nothing moves: then it is plain what is lost.
func (w *moving) may() bool {
	d := w.newest()
	return w.hole == "" && (w.W > 1 || d.Next == nil && !d.Movement.Queued)
}

// lose begins the loss of a member's data.
func (w *moving) lose(n *movingNode) {
	w.hole = n.id
	if w.W > 1 {
		return
	}
	kept := uint64(0)
	for _, id := range w.newest().Settled.Primaries(0, w.n) {
		if id != n.id {
			kept |= w.nodes[id].data
		}
	}
	w.acked &= kept
	for _, k := range w.reads {
		k.must &= kept
	}
	w.writes = slices.DeleteFunc(w.writes, func(k *keyWrite) bool { return slices.Contains(k.acks, n.id) })
}

// commit stages changes of members and commits them.
func (w *moving) commit() {
	d := *w.newest()
	for range 1 + w.r.IntN(3) {
		next, victim, err := w.stage(d)
		if err != nil || next.Version == d.Version {
			continue
		}
		planned, err := next.Plan()
		if err != nil || len(planned.Document.Claimants()) < w.n {
			continue
		}
		d = next
		w.publish("stage", d)
		if victim != "" {
			w.lose(w.nodes[victim])
			w.nodes[victim].dead = true
			w.counts.removed++
		}
	}
	if len(d.Staged) > 0 {
		next, err := d.Commit(d.Version)
		if err != nil {
			w.fail("commit of %v: %v", d.Staged, err)
			return
		}
		w.publish(fmt.Sprint("commit of ", d.Staged), next)
	}
}

// stage stages one random change; victim is a member that is given up.
func (w *moving) stage(d Document) (next Document, victim dynamo.NodeID, err error) {
	node := w.nodes[w.names[w.r.IntN(len(w.names))]]
	m, ok := d.Member(node.id)
	staged := slices.ContainsFunc(d.Staged, func(c Change) bool { return c.Kind == Join && c.Node == node.id })
	switch {
	case (!ok || m.Status == Gone) && !staged:
		*node = movingNode{id: node.id, store: w.newStore(), doc: node.doc}
		node.reset()
		next, err = d.Stage(Change{Kind: Join, Node: node.id, Member: Member{ID: node.id, Capacity: 1, Store: node.store, Start: 1}})
		return next, "", err
	case !ok || m.Status == Leaving:
		return d, "", nil
	}
	dead := w.may() && w.r.IntN(2) == 0
	if dead {
		victim = node.id
	}
	for _, c := range d.Staged {
		if c.Kind == Join && w.r.IntN(2) == 0 {
			next, err = d.Stage(Change{Kind: Replace, Node: node.id, With: c.Node, Dead: dead})
			return next, victim, err
		}
	}
	kind := Leave
	if dead {
		kind = Remove
	}
	next, err = d.Stage(Change{Kind: kind, Node: node.id})
	return next, victim, err
}

// loseDisk empties a member; takeOver lets it be one again.
func (w *moving) loseDisk(n *movingNode) {
	if m, ok := w.newest().Member(n.id); !ok || !w.may() || m.Status == Gone || m.Removed || m.Store != n.store || n.dead {
		return
	}
	w.lose(n)
	w.counts.lost++
	n.store, n.data = w.newStore(), 0
	n.reset()
	w.logf("%s loses its disk", n.id)
}

// damage makes something of a replica unreadable, which still takes writes; giveUp proposes to lose it. Where the key itself can
// be read, any number of replicas may be damaged.
func (w *moving) damage(n *movingNode) {
	unreadable := w.r.IntN(4) > 0
	if m, ok := w.newest().Member(n.id); !ok || unreadable && (!w.may() || w.W == 1) || !n.serves() || m.Removed || m.Store != n.store || n.damaged {
		return
	}
	if from, to := n.doc.FillRange(Fill{Node: n.id, Whole: true}); from > to {
		return
	}
	if unreadable {
		w.hole = n.id
	}
	n.damaged, n.unreadable, n.found = true, unreadable, n.doc.Version
	w.counts.damaged++
	w.logf("%s is damaged, the key itself: %v", n.id, n.unreadable)
}

func (w *moving) giveUp(n *movingNode) {
	if !n.damaged || !n.serves() {
		return
	}
	next, err := w.newest().LoseReplica(0, n.id, n.store, n.found)
	switch {
	case errors.Is(err, ErrPlanChanged): // it is no replica any more
		n.damaged, n.unreadable, n.data = false, false, 0
	case err != nil:
		w.logf("%s is not given up: %v", n.id, err)
	case next.Version > w.newest().Version:
		w.publish("loss of the replica on "+string(n.id), next)
	}
}

// accept is an operator who gives up what is lost.
func (w *moving) accept() {
	d := w.newest()
	if len(d.Losses()) == 0 {
		return
	}
	next, err := d.AcceptLoss(nil, d.Version)
	if err != nil {
		w.fail("a loss is not accepted: %v", err)
		return
	}
	w.counts.accepted++
	w.publish("loss accepted", next)
}

func (w *moving) takeOver(n *movingNode) {
	m, ok := w.newest().Member(n.id)
	if !ok || m.Store == n.store || m.Status == Gone || n.dead || w.hole != n.id {
		return
	}
	next, err := w.newest().TakeOver(n.id, m.Store, n.store, 1, "")
	if err != nil {
		w.fail("take-over: %v", err)
		return
	}
	if w.bug == "lost disk not filled" {
		next.Movement.Filling = slices.Clone(w.newest().Movement.Filling)
	}
	w.publish("take-over of "+string(n.id), next)
}

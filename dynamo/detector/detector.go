// Package detector decides, on one node, which others are worth asking (paper
// § 4.8.3: each node needs no more than a local notion of failure; there is no
// agreed view of who is alive).
//
// Any message of a node is a sign of life. A broken link is a failure at once,
// and its return ends it, after a pause if the node has come and gone often. A
// node whose link stands while it leaves requests unanswered is suspected: its
// disk may hang. Probes, which a node answers only after its disk has taken a
// write, decide about it; what it answers from memory says nothing of its disk. A node that answers, but much later than the others,
// is slow: it is asked like before, but not preferred.
//
// Times are on a clock of the caller that only moves forward.
package detector

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
)

// Opinion is what this node thinks of another one.
type Opinion uint8

const (
	// Down: there is no link to it.
	Down Opinion = iota
	// Suspected: the link stands, but the node does not answer, or has come and
	// gone too often of late.
	Suspected
	// Up: it answers.
	Up
)

// String is the opinion's word in the console.
func (o Opinion) String() string {
	if int(o) < len(opinionNames) {
		return opinionNames[o]
	}
	return fmt.Sprintf("unknown(%d)", uint8(o))
}

var opinionNames = [...]string{"down", "suspected", "up"}

// Config are the detector's patience and its measures.
type Config struct {
	// Misses is how many requests in a row a node may leave unanswered before it
	// is suspected, at least 1.
	Misses int
	// ProbePause is the time from one unanswered probe to the next; it doubles
	// each time up to ProbePauseMax. A probe counts as unanswered after
	// ProbeTimeout.
	ProbePause, ProbePauseMax, ProbeTimeout time.Duration
	// A node whose link broke more than once within FlapWindow is Up again only
	// after FlapPause, doubled for each further break, at most FlapPauseMax.
	FlapWindow, FlapPause, FlapPauseMax time.Duration
	// A node is slow when its usual time to answer is above SlowFactor times the
	// median of the others that are up, and above SlowFloor; and no longer when
	// it is below half of that.
	SlowFactor float64
	SlowFloor  time.Duration
	// SlowProbe is how often a slow node is probed, since few requests go there
	// that could show its recovery.
	SlowProbe time.Duration
}

// Default is the configuration of a running node.
func Default() Config {
	return Config{
		Misses:     3,
		ProbePause: 200 * time.Millisecond, ProbePauseMax: 5 * time.Second, ProbeTimeout: time.Second,
		FlapWindow: time.Minute, FlapPause: 250 * time.Millisecond, FlapPauseMax: 10 * time.Second,
		SlowFactor: 4, SlowFloor: 20 * time.Millisecond, SlowProbe: 500 * time.Millisecond,
	}
}

// Event is something that was noticed of a node: Linked, Unlinked, Answered,
// Missed, ProbeAnswered or Tick.
type Event interface{ event() }

type (
	// Linked: the link to the node is up.
	Linked struct{ Node dynamo.NodeID }
	// Unlinked: the link to the node broke.
	Unlinked struct{ Node dynamo.NodeID }
	// Answered: the node answered a request after Took.
	Answered struct {
		Node dynamo.NodeID
		Took time.Duration
		// Memory: the disk had no part in it, perhaps, as in a read.
		Memory bool
	}
	// Missed: the node left a request unanswered until its time was over.
	Missed struct {
		Node dynamo.NodeID
		// Write: it was one that is answered when the disk has it.
		Write bool
	}
	// ProbeAnswered: the node answered the probe with this number.
	ProbeAnswered struct {
		Node   dynamo.NodeID
		Number uint64
	}
	// Forgotten: the node is no member any more.
	Forgotten struct{ Node dynamo.NodeID }
	// Tick: time has passed; several a second.
	Tick struct{}
)

func (Linked) event()        {}
func (Unlinked) event()      {}
func (Answered) event()      {}
func (Missed) event()        {}
func (ProbeAnswered) event() {}
func (Forgotten) event()     {}
func (Tick) event()          {}

// Effect is something to be done: Probe or Changed.
type Effect interface{ effect() }

type (
	// Probe asks the node to write to its disk and answer with the number.
	Probe struct {
		Node   dynamo.NodeID
		Number uint64
	}
	// Changed says that the opinion of a node is another one now.
	Changed struct {
		Node    dynamo.NodeID
		Opinion Opinion
		Slow    bool
	}
)

func (Probe) effect()   {}
func (Changed) effect() {}

// Detector holds the opinions of one node. It belongs to one goroutine.
type Detector struct {
	cfg    Config
	nodes  map[dynamo.NodeID]*node
	number uint64
	out    []Effect
	judged time.Duration // when slowness was last looked at
}

// node is what is known of one node.
type node struct {
	id      dynamo.NodeID
	opinion Opinion
	slow    bool
	linked  bool
	// misses is how many requests in a row were left unanswered; unwritten is how
	// many of them were writes.
	misses, unwritten int
	// breaks are the times of the last breaks of the link, oldest first.
	breaks []time.Duration
	// until is the end of the pause after flapping.
	until time.Duration
	// probing: the probe with this number is out since sent.
	probing uint64
	sent    time.Duration
	// next is when to probe again, pause the time after that.
	next, pause time.Duration
	// usual is the smoothed time to answer; samples how many have made it.
	usual   time.Duration
	samples int
}

const (
	// maxBreaks is how many breaks of a link are remembered.
	maxBreaks = 16
	// minSamples is how many answers it takes to call a node slow.
	minSamples = 8
	// judgePause is how often slowness is looked at.
	judgePause = 250 * time.Millisecond
)

// New makes a detector that knows nobody.
func New(c Config) *Detector {
	return &Detector{cfg: c, nodes: map[dynamo.NodeID]*node{}}
}

// Opinion returns what is thought of a node; one that is not known is Down.
func (d *Detector) Opinion(id dynamo.NodeID) (o Opinion, slow bool) {
	if n := d.nodes[id]; n != nil {
		return n.opinion, n.slow
	}
	return Down, false
}

// Status is what is known of a node, for the console.
type Status struct {
	Node    dynamo.NodeID
	Opinion Opinion
	Slow    bool
	// Breaks is how often the link broke within Config.FlapWindow.
	Breaks int
	// Misses is how many requests in a row were left unanswered.
	Misses int
	// Usual is the smoothed time to answer, 0 if not known.
	Usual time.Duration
}

// Nodes returns the status of all nodes by name.
func (d *Detector) Nodes(now time.Duration) []Status {
	out := make([]Status, 0, len(d.nodes))
	for _, n := range d.nodes {
		out = append(out, Status{n.id, n.opinion, n.slow, d.breaks(n, now), n.misses, n.usual})
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// Step takes one event and returns what to do; the slice is valid until the
// next call.
func (d *Detector) Step(now time.Duration, e Event) []Effect {
	clear(d.out)
	d.out = d.out[:0]
	switch e := e.(type) {
	case Linked:
		d.linked(now, d.node(e.Node))
	case Unlinked:
		d.unlinked(now, d.node(e.Node))
	case Answered:
		d.answered(now, d.nodes[e.Node], e)
	case Missed:
		d.missed(now, d.nodes[e.Node], e.Write)
	case ProbeAnswered:
		d.probed(now, d.nodes[e.Node], e.Number)
	case Forgotten:
		delete(d.nodes, e.Node)
	case Tick:
		d.tick(now)
	}
	return d.out
}

func (d *Detector) node(id dynamo.NodeID) *node {
	n := d.nodes[id]
	if n == nil {
		n = &node{id: id}
		d.nodes[id] = n
	}
	return n
}

// linked believes a node that comes back at once, for its hello is a sign of
// life; one that flaps must stay for a while first.
func (d *Detector) linked(now time.Duration, n *node) {
	n.linked, n.misses, n.unwritten = true, 0, 0
	if now < n.until {
		d.set(n, Suspected, false)
		return
	}
	d.set(n, Up, false)
}

func (d *Detector) unlinked(now time.Duration, n *node) {
	if !n.linked {
		return
	}
	n.linked, n.probing, n.samples, n.usual = false, 0, 0, 0
	if n.breaks = append(n.breaks, now); len(n.breaks) > maxBreaks {
		n.breaks = n.breaks[1:]
	}
	if again := d.breaks(n, now) - 1; again > 0 {
		n.until = now + doubled(d.cfg.FlapPause, again-1, d.cfg.FlapPauseMax)
	}
	d.set(n, Down, false)
}

// breaks counts the breaks within the window.
func (d *Detector) breaks(n *node, now time.Duration) int {
	count := 0
	for _, at := range n.breaks {
		if now-at <= d.cfg.FlapWindow {
			count++
		}
	}
	return count
}

// doubled is d, doubled so many times, at most limit.
func doubled(d time.Duration, times int, limit time.Duration) time.Duration {
	for ; times > 0 && d < limit; times-- {
		d *= 2
	}
	return min(d, limit)
}

// answered is a sign of life. It clears a suspicion, but not the pause of one
// that flaps; and a suspicion that writes have raised only if the disk had a part
// in the answer.
func (d *Detector) answered(now time.Duration, n *node, e Answered) {
	if n == nil || !n.linked {
		return // late, from a connection that has ended
	}
	d.measure(n, e.Took)
	if n.misses = 0; e.Memory && n.unwritten > 0 {
		n.misses = n.unwritten
		return
	}
	n.unwritten = 0
	if n.opinion == Suspected && now >= n.until {
		n.probing = 0
		d.set(n, Up, n.slow)
	}
}

// measure smooths over some eight answers.
func (d *Detector) measure(n *node, took time.Duration) {
	if n.samples < minSamples {
		n.samples++
	}
	n.usual += (took - n.usual) / time.Duration(n.samples)
}

func (d *Detector) missed(now time.Duration, n *node, write bool) {
	if n == nil || !n.linked {
		return
	}
	if write {
		n.unwritten++
	}
	if n.misses++; n.misses < d.cfg.Misses || n.opinion != Up {
		return
	}
	d.set(n, Suspected, n.slow)
	n.pause = d.cfg.ProbePause
	d.probe(now, n)
}

// probe asks; the next one is due after the pause.
func (d *Detector) probe(now time.Duration, n *node) {
	d.number++
	n.probing, n.sent = d.number, now
	d.out = append(d.out, Probe{n.id, d.number})
}

func (d *Detector) probed(now time.Duration, n *node, number uint64) {
	if n == nil || number == 0 || n.probing != number {
		return
	}
	took := now - n.sent
	n.next = now + d.cfg.SlowProbe
	n.probing = 0
	d.answered(now, n, Answered{Node: n.id, Took: took})
}

func (d *Detector) tick(now time.Duration) {
	for _, n := range d.sorted() {
		if !n.linked {
			continue
		}
		switch {
		case n.probing != 0 && now-n.sent >= d.cfg.ProbeTimeout:
			d.probeMissed(now, n)
		case n.probing != 0 || now < n.next:
		case n.opinion == Suspected && now >= n.until, n.slow:
			d.probe(now, n)
		}
	}
	if now-d.judged >= judgePause {
		d.judged = now
		d.judge()
	}
}

// probeMissed waits longer before the next probe of a node that is suspected.
func (d *Detector) probeMissed(now time.Duration, n *node) {
	n.probing = 0
	n.pause = max(n.pause, d.cfg.ProbePause)
	n.next = now + n.pause
	n.pause = min(2*n.pause, d.cfg.ProbePauseMax)
	n.misses++
	if n.opinion == Up && n.misses >= d.cfg.Misses {
		d.set(n, Suspected, n.slow)
	}
}

// judge says who is slow: compared with the median of all that are up, the
// lower one of an even number, so that of two the faster is the measure.
func (d *Detector) judge() {
	var usual []time.Duration
	for _, n := range d.nodes {
		if n.opinion == Up && n.samples >= minSamples {
			usual = append(usual, n.usual)
		}
	}
	if len(usual) < 2 {
		return
	}
	slices.Sort(usual)
	median := usual[(len(usual)-1)/2]
	limit := max(time.Duration(d.cfg.SlowFactor*float64(median)), d.cfg.SlowFloor)
	for _, n := range d.sorted() {
		if n.samples < minSamples {
			continue
		}
		switch {
		case !n.slow && n.usual > limit:
			d.set(n, n.opinion, true)
		case n.slow && n.usual < limit/2:
			d.set(n, n.opinion, false)
		}
	}
}

// sorted are the nodes by name, so that the same events give the same effects.
func (d *Detector) sorted() []*node {
	out := make([]*node, 0, len(d.nodes))
	for _, n := range d.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *node) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (d *Detector) set(n *node, o Opinion, slow bool) {
	if n.opinion == o && n.slow == slow {
		return
	}
	n.opinion, n.slow = o, slow
	d.out = append(d.out, Changed{n.id, o, slow})
}

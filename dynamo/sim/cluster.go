package sim

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

const (
	// maxSteps ends a run that does not come to rest.
	maxSteps = 5_000_000
	// epoch0 is the wall-clock time at which every run begins.
	epoch0 = dynamo.Timestamp(1_700_000_000_000_000_000)
	// bucketName is the one bucket of the simulation.
	bucketName = "carts"
)

// keyInfo is a key and what the ring and the store make of it.
type keyInfo struct {
	index     int
	key       dynamo.Key
	position  [16]byte
	partition dynamo.Partition
	stored    []byte
}

// cluster is one run.
type cluster struct {
	plan     plan
	mutation mutation
	random   struct{ net, disk, load, fault, id, move, heal, loss *rand.Rand }

	now   time.Duration
	queue queue
	steps uint64
	hash  uint64
	trace func(string)

	// doc is the newest version of the cluster document that was decided on, docs
	// are all.
	doc     member.Document
	docs    map[uint64]member.Document
	move    movement
	keys    []keyInfo
	byStore map[string]int // storage key → index of the key
	net     *network
	nodes   []*node
	clients []*client
	check   *checker
	// sorted has the keys of each partition in the order of the store; outcomes are of
	// the exchanges of the last round that all took part in.
	sorted   [][]*keyInfo
	outcomes []aae.Outcome
	healed   Healed
	// skews are the least and the most that any clock was ever off.
	skews [2]time.Duration

	// issued counts the operations that clients began; calm says that the
	// faults are over.
	issued, requests, acked int
	calm                    bool
	violation               *Violation
}

func newCluster(p plan, m mutation, trace func(string)) *cluster {
	c := &cluster{plan: p, mutation: m, trace: trace, hash: 14695981039346656037, byStore: map[string]int{}}
	c.random.net, c.random.disk = stream(p.seed, streamNet), stream(p.seed, streamDisk)
	c.random.load, c.random.fault = stream(p.seed, streamLoad), stream(p.seed, streamFault)
	c.random.id, c.random.move = stream(p.seed, streamID), stream(p.seed, streamMove)
	c.random.heal, c.random.loss = stream(p.seed, streamHeal), stream(p.seed, streamLoss)
	c.check = newChecker(c)
	c.found()
	c.net = newNetwork(c, p.slots()+p.load.clients)
	for i := range p.slots() {
		n := newNode(c, i, slotName(i))
		c.nodes = append(c.nodes, n)
		if p.moves() && !n.off {
			n.founds()
		}
	}
	for i := range p.load.clients {
		c.clients = append(c.clients, newClient(c, i))
	}
	return c
}

// found makes the cluster document and the keys.
func (c *cluster) found() {
	f := member.Founding{
		ClusterID: member.ClusterID{1}, ClusterName: "sim", Partitions: c.plan.partitions,
		Buckets: []member.Bucket{{Name: bucketName, Properties: c.plan.properties}},
	}
	for i := range c.plan.nodes {
		f.Members = append(f.Members, member.Member{
			ID: slotName(i), Capacity: 1, Store: member.StoreID{byte(i + 1)}, Start: 1, Address: fmt.Sprintf("node:%d", i+1),
		})
	}
	doc, _, err := member.Found(f)
	if err != nil {
		panic(fmt.Sprintf("sim: plan cannot be founded: %v", err))
	}
	c.doc, c.docs = doc, map[uint64]member.Document{1: doc}
	for i := range c.plan.load.keys {
		c.addKey(dynamo.Key{Bucket: bucketName, Name: fmt.Sprint("k", i)})
	}
	c.sortKeys()
	for p := range c.plan.partitions {
		c.checkPreference(dynamo.Partition(p))
	}
}

func (c *cluster) addKey(key dynamo.Key) int {
	position := ring.Hash(key)
	k := keyInfo{
		index: len(c.keys), key: key, position: position.Bytes(), partition: ring.PartitionOf(position, c.doc.Settled.Partitions()),
	}
	k.stored = vnode.AppendObjectKey(nil, k.partition, c.plan.properties.Quorum.N, k.position, key)
	c.keys = append(c.keys, k)
	c.byStore[string(k.stored)] = k.index
	c.check.addKey()
	return k.index
}

// checkPreference is I11: the first N of a partition's list are distinct
// primaries, and all nodes follow, each once.
func (c *cluster) checkPreference(p dynamo.Partition) {
	n := c.plan.properties.Quorum.N
	list := c.doc.Settled.Candidates(p, n, c.plan.nodes, ring.Everyone)
	seen := map[dynamo.NodeID]bool{}
	for i, r := range list {
		if seen[r.Node] || (r.Role == dynamo.Primary) != (i < n) {
			c.fail("I11", "partition %d: %v", p, list)
		}
		seen[r.Node] = true
	}
	if len(list) != c.plan.nodes {
		c.fail("I11", "partition %d lists %d of %d nodes", p, len(list), c.plan.nodes)
	}
}

// setClock sets a node's wall clock off.
func (c *cluster) setClock(n *node, skew time.Duration) {
	n.skew = skew
	c.skews = [2]time.Duration{min(c.skews[0], skew), max(c.skews[1], skew)}
}

// after schedules something.
func (c *cluster) after(d time.Duration, run func()) { c.queue.push(c.now+max(d, 0), run) }

// step runs the next event and reports whether there was one.
func (c *cluster) step() bool {
	if c.violation != nil || len(c.queue.heap) == 0 {
		return false
	}
	e := c.queue.pop()
	c.now = e.at
	c.steps++
	c.mix(uint64(e.at))
	c.mix(e.seq)
	e.run()
	if c.steps > maxSteps {
		c.fail("L1", "no rest after %d steps", c.steps)
	}
	return true
}

// settle runs until nothing is left to happen.
func (c *cluster) settle() {
	for c.step() {
	}
}

// simulate is the whole life of a run: load and faults, then peace, probes,
// healing and the checks at the end.
func (c *cluster) simulate() {
	for _, n := range c.nodes {
		n.start()
	}
	c.operate()
	c.backUp()
	c.damage()
	for _, cl := range c.clients {
		c.after(scale(c.random.load.Float64(), 50*time.Millisecond), cl.next)
	}
	c.scheduleFault()
	c.settle()
	c.checkRest("after the faults")
	c.checkSettled()
	c.probe()
	c.settle()
	c.checkRest("after the probes")
	c.checkHints()
	c.checkPlaces()
	if c.plan.heals() {
		c.converge()
	} else {
		c.heal()
	}
	c.check.final()
}

// quiet reports whether the clients have begun all their operations.
func (c *cluster) quiet() bool { return c.issued >= c.plan.load.operations }

// peace ends all faults and brings every node back.
func (c *cluster) peace() {
	c.calm, c.move.calmed = true, c.now
	c.net.heal()
	for _, n := range c.nodes {
		n.recover()
	}
}

// checkRest is L1: no request is left when nothing is left to happen.
func (c *cluster) checkRest(when string) {
	for _, cl := range c.clients {
		if cl.try != nil {
			c.fail("L1", "%s: client %d still waits for %v", when, cl.index, cl.try)
		}
	}
	for _, n := range c.nodes {
		for _, number := range slices.Sorted(maps.Keys(n.requests)) {
			c.fail("L1", "%s: %s still has %v", when, n.id, n.requests[number])
		}
	}
}

// fail records the first violation; the run ends with it.
func (c *cluster) fail(invariant, format string, args ...any) {
	if c.violation != nil {
		return
	}
	c.violation = &Violation{Invariant: invariant, At: c.now, Facts: fmt.Sprintf(format, args...)}
	c.tracef("VIOLATION %v", c.violation)
}

// tracef writes a line of the trace, if one is kept.
func (c *cluster) tracef(format string, args ...any) {
	if c.trace != nil {
		c.trace(fmt.Sprintf("%12v %s", c.now, fmt.Sprintf(format, args...)))
	}
}

// mix adds a number to the run's hash.
func (c *cluster) mix(x uint64) {
	c.hash = (c.hash ^ x) * 0x9e3779b97f4a7c15
	c.hash ^= c.hash >> 29
}

// name is an endpoint's name in traces.
func (c *cluster) name(endpoint int) string {
	if endpoint < len(c.nodes) {
		return string(c.nodes[endpoint].id)
	}
	return fmt.Sprint("client", endpoint-len(c.nodes))
}

// node returns a node by its name.
func (c *cluster) node(id dynamo.NodeID) *node {
	i := slices.IndexFunc(c.nodes, func(n *node) bool { return n.id == id })
	return c.nodes[i]
}

// incarnation draws a vnode's random id.
func (c *cluster) incarnation() clock.Incarnation { return c.draw() }

// requestID draws a client request's random id.
func (c *cluster) requestID() dynamo.RequestID { return c.draw() }

func (c *cluster) draw() (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], c.random.id.Uint64())
	binary.BigEndian.PutUint64(id[8:], c.random.id.Uint64()|1) // never zero
	return id
}

// scale is the fraction x of d.
func scale(x float64, d time.Duration) time.Duration { return time.Duration(x * float64(d)) }

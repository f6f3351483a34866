package sim

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/version"
)

// Pauses between a client's attempts: the first, and the longest.
const (
	firstPause   = 20 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

// kind is what a client's request does.
type kind uint8

const (
	opGet kind = iota
	opPut
	opDelete
)

var kindNames = [...]string{"get", "put", "delete"}

// String is the kind's word in traces.
func (k kind) String() string { return kindNames[k] }

// client is a program that uses the store, with one request at a time.
type client struct {
	c        *cluster
	index    int
	endpoint int
	// contexts are those that the client was given, by key, newest last.
	contexts [][][]byte
	try      *try
	attempts uint64
	writes   int
	// queue is what the client does next, before it draws again.
	queue []func()
	// intercept, when set, takes all answers: a script is the client.
	intercept func(body any)
}

func newClient(c *cluster, index int) *client {
	return &client{c: c, index: index, endpoint: c.plan.slots() + index, contexts: make([][][]byte, c.plan.load.keys)}
}

// try is one request on its way through its attempts.
type try struct {
	kind     kind
	key      *keyInfo
	id       dynamo.RequestID
	value    []byte
	ttl      time.Duration
	context  []byte
	started  time.Duration
	deadline time.Duration
	pause    time.Duration
	attempt  int
	// number is that of the attempt under way at node; 0 is none.
	number uint64
	node   int
	// unknown: an attempt may have been carried out.
	unknown bool
	done    func(any)
}

// String is the request in traces.
func (t *try) String() string {
	return fmt.Sprintf("%v %v %q id=%s begun at %v", t.kind, t.key.key, t.value, t.id.String()[:6], t.started)
}

// next begins the next operation, until there have been enough.
func (cl *client) next() {
	if len(cl.queue) > 0 {
		do := cl.queue[0]
		cl.queue = cl.queue[1:]
		do()
		return
	}
	if cl.c.quiet() {
		return
	}
	cl.c.issued++
	r, l := cl.c.random.load, &cl.c.plan.load
	k := cl.c.drawKey(r)
	switch x := r.Float64(); {
	case x < l.puts:
		cl.write(opPut, k, cl.pick(k))
	case x < l.puts+l.deletes:
		cl.write(opDelete, k, cl.pick(k))
	case x < l.puts+l.deletes+l.updates:
		cl.update(k)
	default:
		cl.get(k, nil)
	}
}

// pick chooses a context for a write: none, an older one, or the latest.
func (cl *client) pick(k *keyInfo) []byte {
	r, l, have := cl.c.random.load, &cl.c.plan.load, cl.contexts[k.index]
	switch {
	case len(have) == 0 || chance(r, l.blind):
		return nil
	case chance(r, l.old):
		return have[r.IntN(len(have))]
	}
	return have[len(have)-1]
}

// update reads a key and writes it with the context of the read.
func (cl *client) update(k *keyInfo) {
	cl.get(k, func(body any) {
		if got, ok := body.(getReply); ok {
			kind := opPut
			if len(got.versions) > 0 && chance(cl.c.random.load, cl.c.plan.load.undo) {
				kind = opDelete
			}
			cl.queue = append(cl.queue, func() { cl.write(kind, k, got.context) })
		}
	})
}

func (cl *client) get(k *keyInfo, then func(any)) {
	cl.begin(&try{kind: opGet, key: k, done: then})
}

func (cl *client) write(kind kind, k *keyInfo, context []byte) {
	t := &try{kind: kind, key: k, id: cl.c.requestID(), context: context}
	if kind == opPut {
		cl.writes++
		t.value = fmt.Appendf(nil, "%d-%d", cl.index, cl.writes)
		if more := cl.c.random.load.IntN(cl.c.plan.load.maxValue) - len(t.value); more > 0 {
			t.value = append(t.value, bytes.Repeat([]byte{'.'}, more)...)
		}
		t.ttl = cl.c.drawTTL()
	}
	cl.begin(t)
}

// begin starts a request.
func (cl *client) begin(t *try) {
	cl.c.requests++
	t.started, t.pause = cl.c.now, firstPause
	t.deadline = cl.c.now + cl.c.plan.load.timeout
	if cl.c.plan.moves() && chance(cl.c.random.load, 0.5) {
		t.attempt = cl.c.random.load.IntN(len(cl.c.nodes)) // any node may be asked, also one that knows old rings
	}
	cl.try = t
	cl.c.tracef("client%d: %v context=%d bytes", cl.index, t, len(t.context))
	cl.c.after(cl.c.plan.load.timeout, func() { cl.over(t) })
	cl.send()
}

// order lists the nodes that seem up, best first: the one that the context
// names, the primaries, the others.
func (cl *client) order(t *try) []*node {
	c := cl.c
	var out []*node
	add := func(n *node) {
		if n.up && !c.net.known(cl.endpoint, n.index) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	primaries := c.doc.Settled.Primaries(t.key.partition, c.plan.properties.Quorum.N)
	if seen, err := version.DecodeContext(t.key.key, t.context); err == nil && slices.Contains(primaries, seen.Coordinator) {
		add(c.node(seen.Coordinator))
	}
	for _, id := range primaries {
		add(c.node(id))
	}
	for _, i := range c.random.load.Perm(len(c.nodes)) {
		add(c.nodes[i])
	}
	return out
}

// send makes the next attempt, or waits while no node seems up.
func (cl *client) send() {
	t := cl.try
	nodes := cl.order(t)
	if len(nodes) == 0 {
		cl.wait()
		return
	}
	n := nodes[t.attempt%len(nodes)]
	cl.attempts++
	t.number, t.node = cl.attempts, n.index
	left := max(time.Millisecond, (t.deadline - cl.c.now).Truncate(time.Millisecond))
	from, c := pid{cl.endpoint, t.number}, cl.c
	var arrive func()
	if t.kind == opGet {
		m := &getRequest{key: t.key.index, timeout: left}
		arrive = func() { n.takeGet(m, from, order{}) }
	} else {
		m := &putRequest{
			key: t.key.index, id: t.id, value: t.value, ttl: t.ttl, context: t.context, delete: t.kind == opDelete,
			retry: t.unknown, age: (c.now - t.started).Truncate(time.Millisecond), timeout: left,
		}
		arrive = func() { n.takePut(m, from, order{}) }
	}
	number, take := t.number, c.timely(left, arrive)
	c.net.sendOnce(cl.endpoint, n.index, func() { n.arrive(take) }, func(request.Reason) {
		cl.answer(number, n.index, failure{codeUnreachable})
	})
	if a := c.plan.load.attempt; a > 0 && a < left {
		c.after(a, func() { cl.impatient(number) })
	}
}

// impatient gives up an attempt that takes too long: it may be carried out.
// Half of the time the node is taken for dead.
func (cl *client) impatient(number uint64) {
	t := cl.try
	if t == nil || t.number != number {
		return
	}
	t.number, t.unknown = 0, t.unknown || t.kind != opGet
	if chance(cl.c.random.load, 0.5) {
		t.attempt++
	}
	cl.send()
}

// disconnected tells the client that a node is gone: what is under way there
// may have been carried out or not.
func (cl *client) disconnected(n *node) {
	if t := cl.try; t != nil && t.number != 0 && t.node == n.index {
		number := t.number
		cl.c.after(cl.c.plan.net.least, func() { cl.answer(number, n.index, failure{codeUnknown}) })
	}
}

// answer takes the answer to the attempt under way.
func (cl *client) answer(number uint64, from int, body any) {
	if cl.intercept != nil {
		cl.intercept(body)
		return
	}
	t := cl.try
	if t == nil || t.number != number {
		return
	}
	t.number = 0
	f, failed := body.(failure)
	if !failed {
		cl.finish(body)
		return
	}
	cl.c.tracef("client%d: %s says %v to %v %s", cl.index, cl.c.name(from), f.code, t.kind, t.id.String()[:6])
	nodes := len(cl.order(t))
	switch {
	case f.code == codeSiblings || f.code == codeInvalid:
		cl.finish(body)
	case f.code == codeUnknown || f.code == codeInternal:
		if t.kind != opGet {
			t.unknown = true
			cl.wait()
			return
		}
		fallthrough
	default:
		t.attempt++
		if nodes == 0 || t.attempt%nodes == 0 {
			cl.wait()
			return
		}
		cl.send()
	}
}

// wait pauses before the next attempt, longer each time.
func (cl *client) wait() {
	t := cl.try
	cl.c.after(t.pause, func() {
		if cl.try == t && t.number == 0 {
			cl.send()
		}
	})
	t.pause = min(2*t.pause, longestPause)
}

// over ends a request whose time is up.
func (cl *client) over(t *try) {
	if cl.try != t {
		return
	}
	// An attempt that is under way may still be carried out.
	t.unknown = t.unknown || t.number != 0 && t.kind != opGet
	cl.finish(failure{codeUnavailable})
}

// finish ends the request under way and takes note of its outcome.
func (cl *client) finish(body any) {
	t, c := cl.try, cl.c
	cl.try = nil
	if c.trace != nil {
		c.tracef("client%d: %v ends: %s", cl.index, t, describe(body))
	}
	switch m := body.(type) {
	case putReply:
		c.acked++
		cl.remember(t.key, m.context)
		c.check.answered(t, m.context)
	case getReply:
		cl.remember(t.key, m.context)
	case failure:
		if t.kind != opGet && !t.unknown {
			c.check.refused(t)
		}
	}
	c.mix(uint64(cl.index))
	if t.done != nil {
		t.done(body)
	}
	c.after(scale(c.random.load.ExpFloat64(), c.plan.load.think), cl.next)
}

// remember keeps the last contexts of a key.
func (cl *client) remember(k *keyInfo, context []byte) {
	if len(context) == 0 {
		return
	}
	have := append(cl.contexts[k.index], context)
	cl.contexts[k.index] = have[max(0, len(have)-4):]
}

// describe prints an answer for traces.
func describe(body any) string {
	switch m := body.(type) {
	case putReply:
		return "written"
	case getReply:
		s := fmt.Sprintf("%d versions", len(m.versions))
		for _, v := range m.versions {
			s += fmt.Sprintf(" %v=%q", v.Dot, bytes.TrimRight(v.Value, "."))
		}
		return s
	case failure:
		return m.code.String()
	}
	return fmt.Sprintf("%T", body)
}

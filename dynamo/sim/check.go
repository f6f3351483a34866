package sim

import (
	"bytes"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// put is one write as the checker knows it, for ever.
type put struct {
	dot     clock.Dot
	request dynamo.RequestID
	value   []byte
	dead    bool // a tombstone
	// at is the node that made the dot, now what its clock said, time what the
	// write was given for it.
	at        *node
	now, time dynamo.Timestamp
	// expires is when the value ends.
	expires dynamo.Timestamp
	// by is the coordinator's attempt that it was made for.
	by pid
	// killers are the writes whose context covered this one.
	killers []*put
	// void: the commit was refused, so nobody ever saw the write.
	void bool
	// acked: W nodes confirmed it to its coordinator.
	acked bool
	// excused: faults within the bucket's durability destroyed all copies.
	excused bool
	// unread: all copies that reads ask for were on disks that were lost before it was acked. Others are left, so
	// that it must be back in the end.
	unread bool
	// reaped: what covered the write was reaped, and with it the last trace of it.
	reaped   bool
	reapedAt time.Duration
}

// ledger is all that the checker knows of one key.
type ledger struct {
	key *keyInfo
	// byActor has the writes by counter.
	byActor   map[clock.Actor][]*put
	byRequest map[dynamo.RequestID][]*put
	acked     []*put
	// refused are requests that failed for certain.
	refused map[dynamo.RequestID]bool
	// truncated: a write dropped clock entries, so ancestry is lost and what
	// relies on it is not checked any more.
	truncated bool
	// Damage by node: what injected faults destroyed of durable copies, and of
	// copies that were only applied.
	durableDamage, appliedDamage []clock.Clock
	// readDamage is the part of it that reads cannot tell: a value that fails
	// its checksum is no answer, until a write has replaced it.
	readDamage []clock.Clock
	// handed is what each node has dropped because others have it.
	handed []clock.Clock
	// over is when a client was first told that a value is not there, because it had
	// expired.
	over map[clock.Dot]time.Duration
	// doomed is all that reapings have decided to drop.
	doomed clock.Clock
}

// maker is what the checker remembers of a vnode's incarnation: the last epoch
// that it began, and the last dot of each key.
type maker struct {
	epoch uint64
	last  map[int]clock.Dot
	first map[int]clock.Dot
}

// checker holds the invariants. It sees everything at once, which no part of a
// real cluster can.
type checker struct {
	c       *cluster
	ledgers []*ledger
	makers  map[clock.Incarnation]*maker
	// versions is the last version of the document that each store went by, ballots
	// what it has said in votes.
	versions map[member.StoreID]uint64
	ballots  map[voteKey]ballots
	// aparts counts changes of what lies somewhere for others.
	aparts map[place]int
}

func newChecker(c *cluster) *checker {
	return &checker{
		c: c, makers: map[clock.Incarnation]*maker{}, versions: map[member.StoreID]uint64{}, ballots: map[voteKey]ballots{},
		aparts: map[place]int{},
	}
}

func (h *checker) addKey() {
	h.ledgers = append(h.ledgers, &ledger{
		byActor: map[clock.Actor][]*put{}, byRequest: map[dynamo.RequestID][]*put{}, refused: map[dynamo.RequestID]bool{}, over: map[clock.Dot]time.Duration{},
		durableDamage: make([]clock.Clock, h.c.plan.slots()), appliedDamage: make([]clock.Clock, h.c.plan.slots()),
		readDamage: make([]clock.Clock, h.c.plan.slots()), handed: make([]clock.Clock, h.c.plan.slots()),
	})
}

// ledger returns a key's ledger.
func (h *checker) ledger(k *keyInfo) *ledger {
	l := h.ledgers[k.index]
	l.key = k
	return l
}

// find returns the write with a dot, nil if none was made.
func (l *ledger) find(d clock.Dot) *put {
	list := l.byActor[d.Actor]
	if d.Counter == 0 || d.Counter > uint64(len(list)) {
		return nil
	}
	return list[d.Counter-1]
}

// made is the version that a vnode has made. The clock of its record may name later times
// than it does: those of a context that came from nodes whose clocks are ahead.
func made(r vnode.Result) version.Version {
	for _, v := range r.Stored.Record.Versions {
		if v.Dot == r.Dot {
			return v
		}
	}
	return version.Version{Time: r.Stored.Record.Newest()}
}

// coordinated registers a write that a vnode made a dot for, and checks I1, I2,
// I15 and F1; then the record as any stored one. It returns the entry.
func (h *checker) coordinated(v *vnodeShell, k *keyInfo, p vnode.Put, before vnode.Stored, r vnode.Result) *put {
	l := h.ledger(k)
	is := made(r)
	w := &put{dot: r.Dot, request: p.Request, value: p.Value, dead: p.Tombstone, at: v.n, now: p.Now, time: is.Time, expires: is.Expires}
	if h.c.trace != nil {
		h.c.tracef("%s writes %v %q as %v over %v, context %v", v.n.id, k.key, p.Value, w.dot, before.Record.Clock, p.Context.Clock)
	}
	if old := l.find(r.Dot); old != nil {
		h.c.fail("I1", "%s gives the dot %v of %s to %s, key %v", v.n.id, r.Dot, old.request, p.Request, k.key)
		return old
	}
	if r.Dot.Counter != uint64(len(l.byActor[r.Dot.Actor]))+1 {
		h.c.fail("I2", "%s makes %v after %d writes of that actor, key %v", v.n.id, r.Dot, len(l.byActor[r.Dot.Actor]), k.key)
		return w
	}
	h.advance(v, k, r)
	h.onceOnly(l, w, p, before.Record)
	l.byActor[r.Dot.Actor] = append(l.byActor[r.Dot.Actor], w)
	l.byRequest[p.Request] = append(l.byRequest[p.Request], w)
	l.truncated = l.truncated || r.Truncated > 0
	for _, e := range p.Context.Clock.Entries() {
		for _, old := range l.byActor[e.Actor][:min(e.Counter, uint64(len(l.byActor[e.Actor])))] {
			if old != w {
				old.killers = append(old.killers, w)
			}
		}
	}
	h.stored(v, k, before, r.Stored)
	return w
}

// advance is I2: a vnode's epochs rise, and under each key its dots do.
func (h *checker) advance(v *vnodeShell, k *keyInfo, r vnode.Result) {
	m := h.makers[r.Dot.Actor.Incarnation]
	if m == nil {
		m = &maker{last: map[int]clock.Dot{}, first: map[int]clock.Dot{}}
		h.makers[r.Dot.Actor.Incarnation] = m
	}
	if r.NewEpoch && r.Dot.Actor.Epoch <= m.epoch {
		h.c.fail("I2", "%s begins the epoch %v, it had begun %d, key %v", v.n.id, r.Dot, m.epoch, k.key)
	}
	if last, ok := m.last[k.index]; ok && r.Dot.Compare(last) <= 0 {
		h.c.fail("I2", "%s makes %v after %v, key %v", v.n.id, r.Dot, last, k.key)
	}
	m.epoch = max(m.epoch, r.Dot.Actor.Epoch)
	m.last[k.index] = r.Dot
	if _, ok := m.first[k.index]; !ok {
		m.first[k.index] = r.Dot
	}
}

// firstDot is the first dot that an incarnation made for a key.
func (h *checker) firstDot(i clock.Incarnation, k *keyInfo) (clock.Dot, bool) {
	m := h.makers[i]
	if m == nil {
		return clock.Dot{}, false
	}
	d, ok := m.first[k.index]
	return d, ok
}

// onceOnly is I15 and F1: a request makes a second dot on one node only when a
// fault took the first one from it, and on a node that once knew the first one
// only when the record has forgotten it and either this is a first attempt that
// a retry overtook, or the time that its message was under way and the clocks'
// difference exceed the slack; and none at all after it failed for certain.
func (h *checker) onceOnly(l *ledger, w *put, p vnode.Put, before version.Record) {
	for _, old := range l.byRequest[w.request] {
		forgotten := old.time <= before.Forgotten
		knew := old.at == w.at || forgotten && before.Clock.Covers(old.dot)
		late := !p.Retry || p.Now.Add(-p.Age).Sub(old.now) > h.c.plan.slack
		if old.void || !knew || l.damaged(w.at, old.dot) || forgotten && late {
			continue
		}
		h.c.fail("I15", "%s makes %v for the request %s that %s had made %v for, key %v", w.at.id, w.dot, w.request, old.at.id, old.dot, l.key.key)
	}
	if l.refused[w.request] {
		h.c.fail("F1", "%s writes the request %s, which had failed for certain, as %v, key %v", w.at.id, w.request, w.dot, l.key.key)
	}
}

// damaged reports whether an injected fault destroyed a node's copy of a write, or it
// was handed over to others.
func (l *ledger) damaged(n *node, d clock.Dot) bool {
	return l.handed[n.index].Covers(d) || l.durableDamage[n.index].Covers(d) || l.appliedDamage[n.index].Covers(d)
}

// refused takes note of a write that failed for certain: F1.
func (h *checker) refused(t *try) {
	l := h.ledger(t.key)
	l.refused[t.id] = true
	for _, w := range l.byRequest[t.id] {
		if !w.void {
			h.c.fail("F1", "%v failed for certain, but was written as %v", t, w.dot)
		}
	}
}

// unattempted is F1 for one attempt: its coordinator says that nothing was
// written.
func (h *checker) unattempted(p *putShell) {
	l := h.ledger(p.key)
	for _, w := range l.byRequest[p.message.id] {
		if w.by == p.pid() && !w.void {
			h.c.fail("F1", "%s says that %v was not attempted, but wrote it as %v", p.n.id, p, w.dot)
		}
	}
}

// void takes note of writes whose commit was refused as a whole.
func (h *checker) void(made []*put) {
	for _, w := range made {
		w.void = true
	}
}

// lostEverywhere reports whether no store covers a write.
func (l *ledger) lostEverywhere(w *put) bool {
	return !slices.ContainsFunc(w.at.c.nodes, func(n *node) bool { return n.holds(l.key, w.dot, false) })
}

// answered is I4 from the client's side: the context it got covers its write.
func (h *checker) answered(t *try, context []byte) {
	l := h.ledger(t.key)
	c, err := version.DecodeContext(t.key.key, context)
	if err != nil {
		h.c.fail("I8", "%v was answered with a context that cannot be decoded: %v", t, err)
		return
	}
	if !slices.ContainsFunc(l.byRequest[t.id], func(w *put) bool { return c.Clock.Covers(w.dot) }) {
		h.c.fail("I4", "%v was answered with a context that does not cover it: %v", t, c.Clock)
	}
}

// stored checks a record that is about to replace another in a vnode's store:
// I1, I3, I13, I14 and I15.
func (h *checker) stored(v *vnodeShell, k *keyInfo, before, after vnode.Stored) {
	l := h.ledger(k)
	h.values(v.n, l, after.Record)
	h.back(v.n, l, after.Record, h.c.now+1)
	for _, old := range before.Record.Versions {
		if !after.Record.Has(old.Dot) {
			h.gone(v.n, l, after.Record, old.Dot)
		}
	}
	for _, e := range after.Record.Clock.Entries() {
		for n := before.Record.Clock.Counter(e.Actor) + 1; n <= e.Counter; n++ {
			if d := (clock.Dot{Actor: e.Actor, Counter: n}); !after.Record.Has(d) {
				h.gone(v.n, l, after.Record, d)
			}
		}
	}
	if !after.Record.Clock.Descends(before.Record.Clock) && !l.truncated {
		h.c.fail("I3", "%s, %v: the clock went from %v to %v", v.n.id, k.key, before.Record.Clock, after.Record.Clock)
	}
	if n := len(after.Record.Recent); n > version.RecentRequests+version.RetriedRequests {
		h.c.fail("I13", "%s, %v: %d requests are remembered", v.n.id, k.key, n)
	}
}

// values checks each version that a record holds: it is the write that its dot
// names (I1), no other of them superseded it (I14), no write that the record
// has seen did (I3), and no two have one request id (I15).
func (h *checker) values(n *node, l *ledger, r version.Record) {
	for i, x := range r.Versions {
		w := l.find(x.Dot)
		if w == nil || x.Omitted || x.Tombstone != w.dead || x.Expires != w.expires || x.Request != w.request || !bytes.Equal(x.Value, w.value) {
			h.c.fail("I1", "%s, %v: the version %v is not the write of that dot: %+v", n.id, l.key.key, x.Dot, x)
			return
		}
		for _, k := range w.killers {
			if r.Clock.Covers(k.dot) && !l.truncated {
				id := "I3"
				if r.Has(k.dot) {
					id = "I14"
				}
				h.c.fail(id, "%s, %v: %v is there with or after %v, whose context covered it", n.id, l.key.key, x.Dot, k.dot)
				return
			}
		}
		if twin := l.supersededTwin(r, w); twin != nil && !l.truncated {
			h.c.fail("I3", "%s, %v: %v is there after a context covered its twin %v, which the record remembers", n.id, l.key.key, x.Dot, twin.dot)
			return
		}
		for _, y := range r.Versions[:i] {
			if y.Request == x.Request && !y.Request.IsZero() {
				h.c.fail("I15", "%s, %v: %v and %v are both of the request %s", n.id, l.key.key, y.Dot, x.Dot, x.Request)
				return
			}
		}
	}
}

// supersededTwin finds a twin of a write that a record remembers and knows to be
// superseded. Of one that is remembered longer because it was retried, a record that
// had forgotten it may have brought the other back before they met.
func (l *ledger) supersededTwin(r version.Record, w *put) *put {
	for _, twin := range l.byRequest[w.request] {
		remembered := twin != w && slices.ContainsFunc(r.Recent, func(x version.Applied) bool { return x.Dot == twin.dot && x.Time > r.Forgotten })
		if remembered && slices.ContainsFunc(twin.killers, func(k *put) bool { return r.Clock.Covers(k.dot) }) {
			return twin
		}
	}
	return nil
}

// gone is I3: a write that a record covers and does not hold was superseded by
// a context within the record's past, or a twin stands in for it.
func (h *checker) gone(n *node, l *ledger, r version.Record, d clock.Dot) {
	w := l.find(d)
	switch {
	case w == nil:
		h.c.fail("I1", "%s, %v: the clock %v covers %v, which nobody wrote", n.id, l.key.key, r.Clock, d)
	case !l.truncated && !l.superseded(r, w):
		h.c.fail("I3", "%s, %v: %v %q is gone though no context covered it; the record is %v with %v", n.id, l.key.key, d, w.value, r.Clock, dots(r))
	}
}

// superseded reports whether a record that does not hold w rightly does so.
func (l *ledger) superseded(r version.Record, w *put) bool {
	for _, twin := range l.byRequest[w.request] {
		if twin != w && (w.request.IsZero() || !r.Clock.Covers(twin.dot)) {
			continue
		}
		if twin != w && r.Has(twin.dot) {
			return true
		}
		if slices.ContainsFunc(twin.killers, func(k *put) bool { return r.Clock.Covers(k.dot) }) {
			return true
		}
	}
	return false
}

func dots(r version.Record) []clock.Dot {
	out := make([]clock.Dot, len(r.Versions))
	for i, v := range r.Versions {
		out[i] = v.Dot
	}
	return out
}

// canonical is I8: a record's encoding is the one that its content has.
func (h *checker) canonical(k *keyInfo, r version.Record, b []byte) {
	if again := version.Append(nil, r); !bytes.Equal(again, b) {
		h.c.fail("I8", "%v: %x was sent, encoded again it is %x", k.key, b, again)
	}
	h.c.mix(uint64(len(b)))
}

// holds reports whether a node's store covers a write: as reads see it, or, if
// durable is set, as it survives a crash. A value that fails its checksum holds
// nothing.
func (n *node) holds(k *keyInfo, d clock.Dot, durable bool) bool {
	return n.record(k, durable).Clock.Covers(d)
}

// record decodes what a node's store holds of a key, be it aside.
func (n *node) record(k *keyInfo, durable bool) version.Record {
	store := n.disk.volatile
	if durable {
		store = n.disk.durable
	}
	b, ok := store[string(k.stored)]
	if !ok {
		b, ok = store[string(vnode.SalvageKey(k.stored))]
	}
	if !ok {
		return version.Record{}
	}
	s, err := vnode.DecodeStored(k.stored, b)
	if err != nil {
		return version.Record{}
	}
	return s.Record
}

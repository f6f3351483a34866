package actors

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

const (
	// maxReaps is how many reapings a node has under way at most. They rest together, so that
	// many keys have one pause.
	maxReaps = 512
	// One reaping has keys of at most so many bytes, and values unless it is of a single key:
	// what it takes to remember it, and to read it in one turn.
	reapKeyBytes, reapValueBytes = 128 << 10, 8 << 20
)

// reapsActor reaps what nobody sees any more, of the partitions of which this node is the
// first primary; and answers for this node what others ask before they reap.
//
// What can be reaped it finds in an index of this node's store (vnode.Reapable), twice in
// the life of a message. A look costs what there is in the index: mostly nothing. It does
// not wait until exchanges have found the replicas equal: that all primaries hold a record
// is asked for each key, and where one lacks it the next exchange brings it.
type reapsActor struct {
	s        *Services
	self     *actor.PID
	version  uint64 // of the document that rows are of
	rows     map[replicaSet]*reapRow
	running  map[uint64]*reapJob
	number   uint64
	look     *reapLook
	turn     turn
	timer    *rt.Timer
	stopping bool
	// reason is why something was put off the last time, and when that was.
	reason   string
	reasonAt time.Time
}

// reapRow is what is known of a replica set of which this node is the first primary.
type reapRow struct {
	replicaSet
	next    time.Time // of the looks
	waiting int       // what the last look has found
	taken   map[dynamo.Key]bool
}

// reapLook is a look under way, in slices of time.
type reapLook struct {
	*reapRow
	cursor []byte
	found  int
}

// reapFound is one slice of a look.
type reapFound struct {
	look *reapLook
	keys []messages.ReapKeyOf
	// cursor is where the next slice begins; nil: there is none.
	cursor []byte
	err    error
}

// lookForReaps is the tick.
type lookForReaps struct{}

func newReaps(s *Services) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor {
		return &reapsActor{s: s, rows: map[replicaSet]*reapRow{}, running: map[uint64]*reapJob{}, number: uint64(time.Now().UnixNano())}
	}, flat, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{
		Size: messageSize, TTL: messageTTL, Shed: s.shed, Expired: s.expired, Failed: s.failed, Registry: s.Registry,
	})), actor.WithSupervisor(rt.StopOnFailure()))
}

// Receive starts reapings, hears how they end, and answers those of others.
func (t *reapsActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		t.self = ctx.Self()
		t.turn.gone(t.s, t.self)
		t.start()
	case *lookForReaps:
		t.start()
	case *sliceGranted:
		if t.turn.begins(t.s, t.self) {
			t.fetch()
		}
	case *reapFound:
		t.found(ctx, m)
	case *reapEnded:
		t.ended(m)
	case *actor.Terminated:
		t.terminated(m.GetWho().GetId())
	case *messages.ReapRequest:
		t.answer(ctx, m)
	case *messages.ReapsRequest:
		t.s.answer(ctx.Sender(), t.self, t.states())
	case *actor.Stopping:
		t.stopping = true
		t.timer.Stop()
		t.turn.gone(t.s, t.self)
	case *actor.Restarting:
		t.timer.Stop()
	}
}

// answer says what this node keeps of a partition. Where it has a vnode, that one answers
// in a turn of its own: nothing is half kept then.
func (t *reapsActor) answer(ctx actor.Context, m *messages.ReapRequest) {
	s, self, sender, doc, p := t.s, t.self, ctx.Sender(), t.s.Document(), dynamo.Partition(m.GetPartition())
	switch why := s.quarantined(); {
	case why != "":
		s.answer(sender, self, messages.Fail(messages.CodeNotReady, "%s", why))
	case doc == nil:
		s.answer(sender, self, messages.Fail(messages.CodeNotReady, "%s is in no cluster yet", s.Self))
	case int(p) >= doc.Settled.Partitions():
		s.answer(sender, self, messages.Fail(messages.CodeInvalid, "there are %d partitions, %d is none of them", doc.Settled.Partitions(), p))
	case s.vnodes.listed(p):
		s.System.Root.RequestWithCustomSender(on(s.Self, vnodeName(p)), m, sender)
	default:
		s.onReader(rt.Envelope{Message: m, Sender: sender}, func() {
			misplaced, err := s.misplacedIn(doc, p)
			if err != nil {
				s.answer(sender, self, messages.Fail(messages.CodeStorage, "read partition %d on %s: %v", p, s.Self, err))
				return
			}
			reply := s.reapReply(m)
			reply.Clear = reply.Clear && !misplaced && doc.Version == reply.Version && !s.vnodes.listed(p)
			s.answer(sender, self, reply)
		})
	}
}

// start goes on with a look, or begins the one that is due first.
func (t *reapsActor) start() {
	t.timer.Stop()
	if t.stopping {
		return
	}
	t.timer = t.s.Wheel.Send(t.self, &lookForReaps{}, min(time.Second, t.s.MessageLife/10))
	doc := t.s.Document()
	if doc == nil || !t.s.Reap || t.s.quarantined() != "" {
		return
	}
	t.set(doc)
	if t.look == nil {
		t.look = t.due()
	}
	if t.look != nil && t.turn.began.IsZero() { // again: whoever heard may have failed
		t.turn.want(t.s, t.self)
	}
}

// due is the look that is due; nil if none is.
func (t *reapsActor) due() *reapLook {
	rows := slices.SortedFunc(maps.Values(t.rows), func(a, b *reapRow) int {
		return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.partition, b.partition), cmp.Compare(a.n, b.n))
	})
	if len(rows) == 0 || time.Now().Before(rows[0].next) {
		return nil
	}
	lower, _ := vnode.ReapRange(rows[0].partition, rows[0].n, 0)
	return &reapLook{reapRow: rows[0], cursor: lower}
}

// set brings the rows up to the document. Reapings that go by another one end.
func (t *reapsActor) set(doc *member.Document) {
	if doc.Version == t.version {
		return
	}
	t.version, t.look = doc.Version, nil
	for _, j := range t.running {
		t.s.System.Root.Send(j.pid, &reapBroken{})
	}
	rows := map[replicaSet]*reapRow{}
	for _, p := range doc.Vnodes(t.s.Self) {
		for _, n := range replicaCounts(doc) {
			at := replicaSet{p, n}
			if first := doc.Reading(p).Primaries(p, n); len(first) == 0 || first[0] != t.s.Self {
				continue
			}
			if rows[at] = t.rows[at]; rows[at] == nil {
				rows[at] = &reapRow{replicaSet: at, taken: map[dynamo.Key]bool{}}
			}
		}
	}
	t.rows = rows
	t.publish()
}

// fetch reads the next slice of the look on the pool of readers.
func (t *reapsActor) fetch() {
	look, s, self := t.look, t.s, t.self
	if look == nil {
		t.turn.over(s, self)
		return
	}
	submitted := s.Readers.Submit(func() {
		out := &reapFound{look: look, err: errReadPanicked}
		defer func() { s.System.Root.Send(self, out) }()
		out.err = s.findReapable(out, s.Now().Add(-reap.Skew))
	})
	if !submitted {
		s.System.Root.Send(self, &reapFound{look: look, err: errReadersBusy})
	}
}

// findReapable reads what is due in a slice of a look. It runs on a reader.
func (s *Services) findReapable(out *reapFound, now dynamo.Timestamp) error {
	_, upper := vnode.ReapRange(out.look.partition, out.look.n, now)
	keyBytes, valueBytes := 0, 0
	return s.Engine.Scan(out.look.cursor, upper, func(key, value []byte) bool {
		object, r, ok := vnode.ParseReap(key, value)
		if !ok {
			s.countCorrupt(out.look.partition, key, vnode.ErrChecksum)
			return true
		}
		keyBytes, valueBytes = keyBytes+len(key), valueBytes+r.Size
		if n := len(out.keys); n == reap.MaxKeys || n > 0 && (keyBytes > reapKeyBytes || valueBytes > reapValueBytes) {
			out.cursor = slices.Clone(key)
			return false
		}
		_, k, _ := vnode.ParseObjectKey(object)
		out.keys = append(out.keys, messages.ReapKeyOf{Key: k, Hash: r.Hash, Due: r.Due})
		return true
	})
}

// found begins a reaping of what a slice has found, and goes on with the look.
func (t *reapsActor) found(ctx actor.Context, m *reapFound) {
	t.turn.over(t.s, t.self)
	if m.look != t.look {
		return // the document has changed
	}
	if m.err != nil {
		t.putOff(m.look.replicaSet, m.err.Error())
	}
	m.look.found += len(m.keys)
	if !t.begin(ctx, m.look.reapRow, m.keys) {
		m.cursor = nil // the rest would find the same
	}
	if m.look.cursor = m.cursor; m.cursor == nil {
		m.look.waiting, m.look.next = m.look.found, time.Now().Add(t.s.MessageLife/2)
		t.look = nil
		t.publish()
	}
	t.start()
}

// publish tells for metrics how much was found.
func (t *reapsActor) publish() {
	waiting := 0
	for _, row := range t.rows {
		waiting += row.waiting
	}
	t.s.published.reapable.Store(int64(waiting))
}

// begin begins a reaping of those keys of which none runs. It reports whether there can be
// more.
func (t *reapsActor) begin(ctx actor.Context, row *reapRow, keys []messages.ReapKeyOf) bool {
	doc := t.s.Document()
	if t.stopping || len(t.running) >= maxReaps || doc.Version != t.version {
		return false
	}
	if keys = slices.DeleteFunc(keys, func(k messages.ReapKeyOf) bool { return row.taken[k.Key] }); len(keys) == 0 {
		return true
	}
	if why := t.s.unreapable(doc, row.partition); why != "" {
		t.putOff(row.replicaSet, why)
		return false
	}
	t.number++
	j := &reapJob{replicaSet: row.replicaSet, number: t.number, keys: keys, doc: doc}
	pid, err := ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return newReap(t.s, j, t.self) }, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Size: messageSize, Registry: t.s.Registry}))), j.name())
	if err != nil {
		t.putOff(row.replicaSet, err.Error())
		return false
	}
	j.pid = pid
	t.running[j.number] = j
	for _, k := range keys {
		row.taken[k.Key] = true
	}
	return true
}

// unreapable says why nothing of a partition can be reaped now; empty if it can.
func (s *Services) unreapable(doc *member.Document, p dynamo.Partition) string {
	if doc.Next != nil {
		return "the ring moves"
	}
	if slices.ContainsFunc(doc.Movement.Filling, func(f member.Fill) bool { return f.Partition == p }) {
		return "a replica is being filled"
	}
	for _, node := range doc.Voters() {
		if !s.reachable(node) {
			return string(node) + " cannot be reached"
		}
	}
	return ""
}

func (t *reapsActor) putOff(at replicaSet, why string) {
	t.reason, t.reasonAt = why, time.Now()
	t.s.Log.Debug("nothing is reaped", slog.Uint64("partition", uint64(at.partition)), slog.Int("n", at.n), slog.String("reason", why))
}

// ended takes the last word of a reaping.
func (t *reapsActor) ended(m *reapEnded) {
	j := t.running[m.number]
	if j == nil {
		return
	}
	delete(t.running, m.number)
	if row := t.rows[j.replicaSet]; row != nil {
		for _, k := range j.keys {
			delete(row.taken, k.Key)
		}
		row.waiting = max(0, row.waiting-m.outcome.Keys)
	}
	t.publish()
	if !m.outcome.Complete {
		t.s.Counters.ReapsPutOff.Add(1)
		t.putOff(j.replicaSet, m.outcome.Reason)
		return
	}
	t.s.Counters.Reaps.Add(1)
	t.s.Log.Debug("reaped", slog.Uint64("partition", uint64(j.partition)), slog.Int("n", j.n), slog.Int("keys", m.outcome.Keys), slog.Int("records", m.outcome.Dropped))
}

// terminated notes that a reaping's actor is gone. The news may have overtaken its last
// word, which is in the mailbox then; if there was none, this is it.
func (t *reapsActor) terminated(id string) {
	for _, j := range t.running {
		if j.name() == id {
			t.s.System.Root.Send(t.self, &reapEnded{number: j.number, outcome: reap.Outcome{Reason: "it failed"}})
		}
	}
}

// states is what is known of it all, for the console.
func (t *reapsActor) states() *messages.ReapsReply {
	out := &messages.ReapsReply{On: t.s.Reap, Running: uint32(len(t.running)), Reaped: t.s.Counters.Reaped.Load(), Reason: t.reason}
	for _, row := range t.rows {
		out.Waiting += uint64(row.waiting)
	}
	for _, j := range t.running {
		out.UnderWay += uint64(len(j.keys))
	}
	if t.reason != "" {
		out.ReasonMsAgo = uint64(time.Since(t.reasonAt).Milliseconds())
	}
	return out
}

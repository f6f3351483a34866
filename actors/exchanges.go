package actors

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// exchangesTick is how often it is looked for exchanges to begin, at least.
const exchangesTick = time.Second

// exchangesActor begins exchanges with other replicas: those of each pair of replicas of
// which this node is one, that reads use and that lack nothing, for half of the
// partitions. The peer begins the others.
type exchangesActor struct {
	s        *Services
	self     *actor.PID
	began    time.Time
	schedule *aae.Schedule
	rows     map[aae.Pair]*exchangeRow
	running  map[string]*exchangeJob
	// version is that of the document that the pairs are of.
	version uint64
	// number is that of the exchange begun last. It begins with the time, so that a number
	// of before a restart is below all of after it.
	number   uint64
	timer    *rt.Timer
	stopping bool
}

// exchangeRow is what is known of a pair.
type exchangeRow struct {
	known           time.Time
	round           uint64
	ended, verified time.Time // zero: never
	count, last     uint64    // exchanges that ended; the number of the last one
	outcome         aae.Outcome
	mended          int
}

// exchangeJob is an exchange under way: it is over when it had its last word and its
// actor is gone.
type exchangeJob struct {
	pair    aae.Pair
	number  uint64
	outcome *aae.Outcome
	gone    bool
}

// lookForExchanges is the tick.
type lookForExchanges struct{}

func newExchanges(s *Services) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor {
		interval := s.ExchangeInterval
		if interval <= 0 {
			interval = aae.Never
		}
		return &exchangesActor{
			s: s, began: time.Now(), schedule: aae.NewSchedule(interval, 0), rows: map[aae.Pair]*exchangeRow{},
			running: map[string]*exchangeJob{}, number: uint64(time.Now().UnixNano()),
		}
	}, flat, actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: s.Registry})), actor.WithSupervisor(rt.StopOnFailure()))
}

// Receive starts exchanges and hears how they end.
func (t *exchangesActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		t.self = ctx.Self()
		t.start(ctx)
	case *lookForExchanges:
		t.start(ctx)
	case *exchangeEnded:
		t.ended(ctx, m)
	case *actor.Terminated:
		t.terminated(ctx, m.GetWho().GetId())
	case *messages.ExchangesRequest:
		t.s.answer(ctx.Sender(), t.self, t.states())
	case *messages.RepairRequest:
		if why := t.s.quarantined(); why != "" { // no exchange would begin
			t.s.answer(ctx.Sender(), t.self, messages.Fail(messages.CodeNotReady, "%s", why))
			return
		}
		t.s.answer(ctx.Sender(), t.self, t.repair(m))
		t.start(ctx)
	case *actor.Stopping:
		t.stopping = true
		t.timer.Stop()
	case *actor.Restarting:
		t.timer.Stop()
	}
}

// now is the schedule's time: that since the actor began, which nobody sets.
func (t *exchangesActor) now() dynamo.Timestamp { return dynamo.Timestamp(time.Since(t.began)) + 1 }

// ended takes an exchange's last word. One of an earlier exchange of the same pair is none.
func (t *exchangesActor) ended(ctx actor.Context, m *exchangeEnded) {
	if j := t.running[exchangeName(m.pair)]; j != nil && j.number == m.number && j.outcome == nil {
		j.outcome = &m.outcome
		t.over(ctx, j)
	}
}

// terminated notes that an exchange's actor is gone. The news may have overtaken its last
// word, which is in the mailbox then; if there was none, this is it.
func (t *exchangesActor) terminated(ctx actor.Context, id string) {
	j := t.running[id]
	if j == nil {
		return
	}
	j.gone = true
	ctx.Send(t.self, &exchangeEnded{pair: j.pair, number: j.number, outcome: aae.Outcome{Reason: "it failed"}})
	t.over(ctx, j)
}

// over notes how an exchange went.
func (t *exchangesActor) over(ctx actor.Context, j *exchangeJob) {
	if !j.gone || j.outcome == nil {
		return
	}
	delete(t.running, exchangeName(j.pair))
	o, c := *j.outcome, t.s.Counters
	c.ExchangeBytes.Add(uint64(o.Bytes))
	t.schedule.Done(t.now(), j.pair, o)
	if !o.Complete {
		c.ExchangesFailed.Add(1)
		t.s.Log.Debug("an exchange is not complete", slog.Uint64("partition", uint64(j.pair.Partition)), slog.String("with", string(j.pair.Peer)), slog.String("reason", o.Reason))
	} else if c.Exchanges.Add(1); o.Equal {
		c.ExchangesEqual.Add(1)
	}
	if n := o.In + o.Out; n > 0 {
		t.s.Log.Info("replicas differed", slog.Uint64("partition", uint64(j.pair.Partition)), slog.Int("n", j.pair.N), slog.String("with", string(j.pair.Peer)),
			slog.Int("in", o.In), slog.Int("out", o.Out), slog.Int("bytes", o.Bytes))
	}
	if r := t.rows[j.pair]; r != nil {
		r.ended, r.last, r.outcome = time.Now(), j.number, o
		r.count++
		r.mended += o.In + o.Out
		if o.Complete && o.Damaged == 0 { // of what is damaged nothing is known
			r.verified = r.ended
		}
	}
	t.publish()
	t.start(ctx)
}

// start begins the exchanges that are due.
func (t *exchangesActor) start(ctx actor.Context) {
	t.timer.Stop()
	if t.stopping {
		return
	}
	doc := t.s.Document()
	if doc != nil && t.s.quarantined() == "" {
		t.set(doc)
		for _, p := range t.schedule.Next(t.now()) {
			t.begin(ctx, doc, p)
		}
	}
	wait := exchangesTick
	if at, ok := t.schedule.Wake(); ok {
		wait = min(wait, max(at.Sub(t.now()), exchangesTick/100))
	}
	t.timer = t.s.Wheel.Send(t.self, &lookForExchanges{}, wait)
}

func (t *exchangesActor) begin(ctx actor.Context, doc *member.Document, p aae.Pair) {
	r := t.rows[p]
	r.round++
	t.number++
	j, version, round := &exchangeJob{pair: p, number: t.number}, doc.Version, r.round
	props := actor.PropsFromProducer(func() actor.Actor { return newExchange(t.s, j, round, version, t.self) }, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Size: messageSize, Registry: t.s.Registry})))
	pid, err := ctx.SpawnNamed(props, exchangeName(p))
	if err != nil {
		t.s.Log.Error("an exchange did not begin", slog.Any("error", err))
		t.schedule.Done(t.now(), p, aae.Outcome{Reason: err.Error()})
		return
	}
	t.running[pid.GetId()] = j
}

// set tells the schedule which pairs there are by the document.
func (t *exchangesActor) set(doc *member.Document) {
	if doc.Version == t.version {
		return
	}
	t.version = doc.Version
	pairs := t.s.pairs(doc)
	rows := make(map[aae.Pair]*exchangeRow, len(pairs))
	for _, p := range pairs {
		if rows[p] = t.rows[p]; rows[p] == nil {
			rows[p] = &exchangeRow{known: time.Now(), round: rand.Uint64()}
		}
	}
	t.rows = rows
	t.schedule.Set(t.now(), pairs)
	t.publish()
}

// publish tells for metrics how many pairs there are, and since when one waits.
func (t *exchangesActor) publish() {
	var first *time.Time
	for _, r := range t.rows {
		if at := r.since(); first == nil || at.Before(*first) {
			first = &at
		}
	}
	t.s.published.pairs.Store(int64(len(t.rows)))
	t.s.published.unverified.Store(first)
}

// since is when the pair was verified, or became known.
func (r *exchangeRow) since() time.Time {
	if r.verified.IsZero() {
		return r.known
	}
	return r.verified
}

// replicaCounts are the numbers of replicas that buckets have, ascending.
func replicaCounts(doc *member.Document) []int {
	out := []int{bucket.Default().Quorum.N}
	for _, b := range doc.Buckets {
		out = append(out, b.Properties.Quorum.N)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// pairs are those of which this node begins the exchanges.
func (s *Services) pairs(doc *member.Document) []aae.Pair {
	var out []aae.Pair
	for _, p := range doc.Vnodes(s.Self) {
		for _, n := range replicaCounts(doc) {
			if !doc.Authoritative(p, n, s.Self) {
				continue
			}
			for _, peer := range doc.Reading(p).Primaries(p, n) {
				if peer != s.Self && doc.Authoritative(p, n, peer) && aae.Begins(p, s.Self, peer) {
					out = append(out, aae.Pair{Partition: p, N: n, Peer: peer})
				}
			}
		}
	}
	return out
}

// repair begins exchanges out of their order, or tells how far they are. Pairs that are
// new since it began, by a move of the ring or a restart of this node, are part of it.
func (t *exchangesActor) repair(m *messages.RepairRequest) *messages.RepairReply {
	if doc := t.s.Document(); doc != nil {
		t.set(doc)
	}
	out := &messages.RepairReply{Number: cmp.Or(m.GetNumber(), t.number+1)}
	for p, r := range t.rows {
		if m.Partition != nil && p.Partition != dynamo.Partition(m.GetPartition()) || m.GetN() != 0 && p.N != int(m.GetN()) {
			continue
		}
		out.Pairs++
		if m.GetNumber() == 0 {
			t.schedule.Hurry(t.now(), p)
			continue
		}
		switch {
		case r.last < m.GetNumber():
			if !t.schedule.Hurried(p) {
				t.schedule.Hurry(t.now(), p)
			}
			continue
		case !r.outcome.Complete && t.schedule.Hurried(p):
			continue
		case r.outcome.Complete:
			out.Complete++
		default:
			out.Failed++
			if len(out.Problems) < maxProblems {
				out.Problems = append(out.Problems, exchangeName(p)+": "+r.outcome.Reason)
			}
		}
		out.Mended += uint64(r.outcome.In + r.outcome.Out)
		out.Damaged += uint64(r.outcome.Damaged)
	}
	return out
}

// maxProblems is how many problems an answer about a repair names.
const maxProblems = 20

// states are what is known of the pairs, for the console.
func (t *exchangesActor) states() *messages.ExchangesReply {
	out := &messages.ExchangesReply{Pairs: uint32(len(t.rows)), IntervalMs: uint64(max(0, t.s.ExchangeInterval).Milliseconds())}
	for p, r := range t.rows {
		running := t.running[exchangeName(p)] != nil
		s := &messages.ExchangeState{
			Partition: uint32(p.Partition), N: uint32(p.N), Node: string(p.Peer), Running: running, Ended: r.count,
			Complete: r.outcome.Complete, Equal: r.outcome.Equal, In: uint64(r.outcome.In), Out: uint64(r.outcome.Out),
			Damaged: uint64(r.outcome.Damaged), Bytes: uint64(r.outcome.Bytes), Reason: r.outcome.Reason, Mended: uint64(r.mended), Verified: !r.verified.IsZero(),
		}
		s.VerifiedMsAgo = uint64(time.Since(r.since()).Milliseconds())
		if r.count > 0 {
			s.EndedMsAgo = uint64(time.Since(r.ended).Milliseconds())
		}
		out.OldestMs = max(out.OldestMs, s.VerifiedMsAgo)
		out.Exchanges = append(out.Exchanges, s)
	}
	// Those that matter most, should there be too many; then in the order of the ring.
	slices.SortFunc(out.Exchanges, func(a, b *messages.ExchangeState) int { return cmp.Compare(b.VerifiedMsAgo, a.VerifiedMsAgo) })
	out.Exchanges = out.Exchanges[:min(len(out.Exchanges), maxStates)]
	slices.SortFunc(out.Exchanges, func(a, b *messages.ExchangeState) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.N, b.N), cmp.Compare(a.Node, b.Node))
	})
	return out
}

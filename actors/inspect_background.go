package actors

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/dynactor/dynactor/dynamo/admission"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/transfer"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

// Inspect says how much background work may do, and who does it.
func (a *admissionActor) Inspect() messages.Fields {
	s, work := a.controller.Status(), messages.Fields{}
	for kind, w := range a.work {
		work = work.Add(kind, messages.Fields{}.Add("slices", w.slices).Add("took", w.took))
	}
	return a.recent.inspect(messages.Fields{}).Add("share", messages.Share(s.Share)).Add("at least", messages.Share(s.Floor)).Add("used", messages.Share(s.Used)).Add("reason", s.Why).
		Add("at once", s.Parallel).Add("have a slice", workers(s.Working, "works")).Add("wait for one", workers(s.Waiting, "waits")).
		Add("requests with it, 99 of 100", s.With).Add("requests without it, 99 of 100", s.Without).Add("work", work.Sorted())
}

func workers(all []admission.Worker, what string) (out messages.Fields) {
	for _, w := range all {
		out = out.Add(string(w), what)
	}
	return out
}

// inspect says what a worker has of the time.
func (t *turn) inspect(f messages.Fields) messages.Fields {
	if t.asked {
		return f.Add("slice of time", "waits for one")
	}
	return since(f, "has a slice for", t.began)
}

func (p *progress) inspect() messages.Fields {
	return messages.Fields{}.Add("records", uint64(p.records.Load())).Add("size", messages.Bytes(p.bytes.Load())).Add("took", time.Since(p.began))
}

// Inspect says what is moved, and what waits and why.
func (t *transfersActor) Inspect() messages.Fields {
	running, later := messages.Fields{}, messages.Fields{}
	for name, j := range t.running {
		running = running.Add(name, j.progress.inspect())
	}
	for w, d := range t.later {
		later = later.Add(w.name(), messages.Fields{}.Add("reason", d.why).Add("again in", max(0, time.Until(d.until))))
	}
	hints := t.s.hints.count()
	return messages.Fields{}.Add("running", len(t.running)).Add("at most", maxTransfers).Add("run", running.Sorted()).Add("tried again later", later.Sorted()).
		Add("hints kept", hints.Records).Add("size of hints", messages.Bytes(max(0, hints.Bytes))).Add("misplaced partitions", len(t.s.misplaced.list())).
		Add("fills begun", len(t.fills)).Add("stopping", t.stopping)
}

// Inspect says what is handed over, and how far it is.
func (a *transferActor) Inspect() messages.Fields {
	f := messages.Fields{}.Add("partition", int(a.at.partition)).Add("what", "objects that this node is no replica of")
	if a.at.node != "" {
		f = messages.Fields{}.Add("partition", int(a.at.partition)).Add("what", "hints").Add("for", string(a.at.node)).
			Add("remaining", a.s.hints.of(a.at).Records)
	}
	done := a.transfer.Progress()
	f = f.Add("state", a.transfer.State()).Add("batch", a.transfer.Number()).Add("records in the batch", len(a.batch)).Add("size of the batch", messages.Bytes(a.sent)).
		Add("replicas", names(a.needs.Replicas)).Add("dropped", done.Dropped).Add("kept, changed meanwhile", done.Kept).Add("cursor", cursor(a.cursor))
	return a.turn.inspect(append(f, a.progress.inspect()...))
}

// cursor is where the next read begins, as the key that lies there, if it is one.
func cursor(storageKey []byte) string {
	if _, object, ok := vnode.ParseHintKey(storageKey); ok {
		storageKey = object
	}
	if _, key, ok := vnode.ParseObjectKey(storageKey); ok {
		return fmt.Sprintf("%s/%s", quoted(key.Bucket), quoted(key.Name))
	}
	return fmt.Sprintf("%x", storageKey)
}

// Inspect says what the partition still lacks, and from whom it is taken.
func (a *fillActor) Inspect() messages.Fields {
	if a.ended { // the fill is the parent's again
		return messages.Fields{}.Add("partition", int(a.partition)).Add("state", "ended")
	}
	streams, left := messages.Fields{}, 0
	for _, s := range a.streams {
		said := "streamed to its end"
		if !a.fill.Covers([]transfer.Stream{s}) {
			said = "to be streamed"
			left++
		}
		streams = streams.Add(ofN(s.N)+" from "+string(s.Source), said)
	}
	done := a.fill.Progress()
	f := messages.Fields{}.Add("partition", int(a.partition)).Add("state", a.fill.State()).Add("source", string(a.fill.Source())).Add("batch", a.fill.Number()).
		Add("streams left", left).Add("streams", streams).Add("merged", done.Merged).Add("damaged at a source", done.Damaged).Add("problem", done.Reason).
		Add("cursor", quoted(a.asking.Cursor)).Add("for the ring of version", a.target)
	if a.since > 0 {
		f = f.Add("lost with version", a.since)
	}
	return a.turn.inspect(append(f, a.progress.inspect()...))
}

// Inspect says how well the replicas are compared.
func (t *exchangesActor) Inspect() messages.Fields {
	running, oldest := messages.Fields{}, time.Duration(0)
	for _, name := range slices.Sorted(maps.Keys(t.running)) {
		running = running.Add(name, "runs")
	}
	for _, r := range t.rows {
		oldest = max(oldest, time.Since(r.since()))
	}
	c := t.s.Counters
	f := messages.Fields{}.Add("pairs", len(t.rows)).Add("of version", t.version).Add("running", len(t.running)).Add("run", running)
	if len(t.rows) > 0 {
		f = f.Add("longest not verified", oldest)
	}
	if t.s.ExchangeInterval > 0 {
		f = f.Add("each at least every", t.s.ExchangeInterval)
	}
	return f.Add("complete", c.Exchanges.Load()).Add("found equal", c.ExchangesEqual.Load()).Add("not complete", c.ExchangesFailed.Load()).Add("records mended here", c.Mended.Load())
}

// Inspect says how far the comparison is.
func (a *exchangeActor) Inspect() messages.Fields {
	o := a.x.Progress()
	ranges, records := a.x.Left()
	f := messages.Fields{}.Add("partition", int(a.pair.Partition)).Add("n", a.pair.N).Add("with", string(a.pair.Peer)).Add("state", a.x.State()).Add("batch", a.x.Number())
	if e, ok := a.asking.(aae.Compare); ok {
		f = f.Add("level", int(e.Bits))
	}
	return a.turn.inspect(f.Add("ranges left", ranges).Add("records left of those listed", records).Add("records got", o.In).Add("records given", o.Out).
		Add("changed meanwhile", o.Changed).Add("damaged", o.Damaged).Add("leaves read again", o.Rechecked).Add("sent and got", messages.Bytes(o.Bytes)).
		Add("planned with version", a.plan).Add("peer's incarnation", fmt.Sprintf("%x", a.incarnation)))
}

// Inspect says what can be forgotten, and what keeps it from being.
func (t *reapsActor) Inspect() messages.Fields {
	waiting, running := 0, messages.Fields{}
	for _, r := range t.rows {
		waiting += r.waiting
	}
	for _, j := range t.running {
		running = running.Add(j.name(), len(j.keys))
	}
	f := messages.Fields{}.Add("on", t.s.Reap).Add("replica sets", len(t.rows)).Add("of version", t.version).Add("records found", waiting).
		Add("running", len(t.running)).Add("run, with keys", running.Sorted()).Add("reaped here", t.s.Counters.Reaped.Load()).Add("put off", t.reason)
	f = since(f, "put off last", t.reasonAt)
	if t.look != nil {
		f = f.Add("looks at", "partition "+strconv.Itoa(int(t.look.partition))+" "+ofN(t.look.n)).Add("found there", t.look.found)
	}
	return t.turn.inspect(f)
}

// Inspect says how far the reaping is.
func (a *reapActor) Inspect() messages.Fields {
	return a.turn.inspect(messages.Fields{}.Add("partition", int(a.job.partition)).Add("n", a.job.n).Add("state", a.reap.State()).Add("round", a.reap.Round()).
		Add("keys", len(a.job.keys)).Add("keys asked for", len(a.asked)).Add("questions not asked yet", len(a.todo)).Add("primaries", names(a.job.doc.Settled.Primaries(a.job.partition, a.job.n))).
		Add("planned with version", a.job.doc.Version))
}

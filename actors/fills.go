package actors

import (
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/transfer"
)

// filledTable is which partitions this node has filled, for one target.
type filledTable struct {
	mu         sync.Mutex
	target     uint64
	partitions map[dynamo.Partition]uint64 // with the loss (member.Fill.Since) that they were filled after
}

func (t *filledTable) add(target uint64, p dynamo.Partition, since uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.target != target || t.partitions == nil {
		t.target, t.partitions = target, map[dynamo.Partition]uint64{}
	}
	t.partitions[p] = since
}

func (t *filledTable) has(target uint64, f member.Fill) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	since, ok := t.partitions[f.Partition]
	return t.target == target && ok && since >= f.Since
}

// filledFacts are the partitions that this node has filled for the document's
// target, ascending; not those that were lost since, or that may have to be.
func (s *Services) filledFacts() (target uint64, partitions []dynamo.Partition) {
	doc := s.Document()
	if doc == nil {
		return 0, nil
	}
	t := &s.filled
	t.mu.Lock()
	if target = doc.Target(); t.target == target {
		partitions = slices.Sorted(maps.Keys(t.partitions))
	}
	t.mu.Unlock()
	return target, slices.DeleteFunc(partitions, func(p dynamo.Partition) bool {
		f, _ := doc.Filling(p, s.Self)
		f.Partition = p
		return !t.has(target, f) || s.losses.doubted(p)
	})
}

// filling is a fill and what it is for. It outlives the actors that run it, so that
// each goes on where the last one was; only one of them has it at a time.
type filling struct {
	partition dynamo.Partition
	target    uint64
	joint     bool
	since     uint64 // the loss that it is for
	streams   []transfer.Stream
	fill      *transfer.Fill
}

func (f *filling) work() work { return work{slot: slot{partition: f.partition}, fill: true} }

// toFill are the fills that this node has to do.
func (t *transfersActor) toFill(doc *member.Document) []work {
	var out []work
	if t.s.quarantined() != "" {
		return nil
	}
	for _, f := range doc.FillsOf(t.s.Self) {
		if !t.s.filled.has(doc.Target(), f) && !t.s.losses.pending(f) {
			out = append(out, work{slot: slot{partition: f.Partition}, fill: true})
		}
	}
	return out
}

// streamsOf are the streams that a partition of this node lacks.
func (s *Services) streamsOf(doc *member.Document, p dynamo.Partition) []transfer.Stream {
	f, ok := doc.Filling(p, s.Self)
	if !ok {
		return nil
	}
	var out []transfer.Stream
	from, to := doc.FillRange(f)
	for n := from; n <= to; n++ {
		for _, source := range doc.Sources(f, n) {
			out = append(out, transfer.Stream{N: n, Source: source})
		}
	}
	return out
}

// filling is the partition's fill, from the start if the last one was for something
// else.
func (t *transfersActor) filling(doc *member.Document, p dynamo.Partition) *filling {
	target, joint := doc.Target(), doc.Movement.Joint != 0
	f := t.fills[p]
	lack, _ := doc.Filling(p, t.s.Self)
	if f == nil || f.target != target || f.joint != joint || f.since != lack.Since {
		// An answer to an earlier fill, perhaps of before a restart of this node,
		// finds this one under its name, so numbers are not used twice.
		f = &filling{partition: p, target: target, joint: joint, since: lack.Since, fill: transfer.NewFill(rand.Uint64() >> 1)}
		t.fills[p] = f
	}
	f.streams = t.s.streamsOf(doc, p)
	return f
}

// fillEnded is the last word of an actor that ran a fill.
type fillEnded struct {
	of      *filling
	outcome transfer.FillOutcome
	// soon: a source does not know the ring yet.
	soon bool
}

// filled notes a fill that is complete, also by the document of now, and comes back
// to one that is not.
func (t *transfersActor) filled(ctx actor.Context, m *fillEnded) {
	p, doc := m.of.partition, t.s.Document()
	w := m.of.work()
	if !m.outcome.Complete {
		t.s.Counters.FillsFailed.Add(1)
		if d := t.later[w]; d != nil && m.soon {
			d.pause = transferPause
		}
		t.postpone(w, m.outcome.Reason)
		return
	}
	delete(t.later, w)
	joint := doc.Movement.Joint != 0
	if lack, _ := doc.Filling(p, t.s.Self); doc.Target() != m.of.target || joint != m.of.joint || lack.Since != m.of.since || !m.of.fill.Covers(t.s.streamsOf(doc, p)) {
		return // begun again, or gone on with
	}
	delete(t.fills, p)
	t.s.filled.add(m.of.target, p, m.of.since)
	t.s.Counters.Fills.Add(1)
	t.s.Counters.Filled.Add(uint64(m.outcome.Merged))
	what := "partition filled"
	if lack, _ := doc.Filling(p, t.s.Self); doc.Lost(lack) {
		what = "what is left of a partition was taken"
	}
	t.s.Log.Info(what, slog.Uint64("partition", uint64(p)), slog.Int("records", m.outcome.Merged), slog.Int("damaged", m.outcome.Damaged))
	ctx.Send(on(t.s.Self, nameMembership), &factsChanged{})
}

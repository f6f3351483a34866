package actors

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/messages"
)

// progress is what a job has done, for those who look: the job counts, the transfers
// actor reads.
type progress struct {
	began          time.Time
	records, bytes atomic.Int64
}

func (p *progress) add(records, bytes int) {
	p.records.Add(int64(records))
	p.bytes.Add(int64(bytes))
}

// maxStates is how many entries an answer has at most: those that run, then those
// that wait.
const maxStates = 1000

// states are what runs and what waits, for the console.
func (t *transfersActor) states() *messages.TransfersReply {
	out := &messages.TransfersReply{}
	doc := t.s.Document()
	if doc == nil {
		return out
	}
	running := map[work]bool{}
	for _, j := range t.running {
		running[j.work] = true
		s := t.state(j.work)
		s.Running, s.Records, s.Bytes = true, uint64(j.progress.records.Load()), uint64(j.progress.bytes.Load())
		s.RunningMs = uint32(time.Since(j.progress.began).Milliseconds())
		out.Transfers = append(out.Transfers, s)
	}
	waiting := t.todo(doc)
	for _, at := range t.s.hints.slots() { // also those whose node is down
		if w := (work{slot: at}); !slices.Contains(waiting, w) {
			waiting = append(waiting, w)
		}
	}
	out.Waiting = uint32(len(waiting))
	for _, w := range waiting {
		if running[w] {
			out.Waiting--
		} else if len(out.Transfers) < maxStates {
			out.Transfers = append(out.Transfers, t.state(w))
		}
	}
	slices.SortStableFunc(out.Transfers, func(a, b *messages.TransferState) int {
		return cmp.Or(-cmp.Compare(a.GetRunningMs(), b.GetRunningMs()), cmp.Compare(a.GetPartition(), b.GetPartition()))
	})
	return out
}

// state is what is known of work that may not run.
func (t *transfersActor) state(w work) *messages.TransferState {
	s := &messages.TransferState{Partition: uint32(w.partition), Kind: "misplaced", Node: string(w.node)}
	switch {
	case w.fill:
		s.Kind = "fill"
	case w.node != "":
		s.Kind, s.Remaining = "hints", uint64(t.s.hints.of(w.slot).Records)
		if !t.s.reachable(w.node) {
			s.Problem = string(w.node) + " cannot be reached"
		}
	}
	if d := t.later[w]; d != nil {
		s.Problem = cmp.Or(d.why, s.Problem)
		s.RetryMs = uint32(max(0, time.Until(d.until).Milliseconds()))
	}
	return s
}

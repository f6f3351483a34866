package actors

import (
	"fmt"
	"math"
	"sync/atomic"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// refusing is an engine that refuses one commit, when as many as passing have gone well from
// when it was set on.
type refusing struct {
	storage.Engine
	passing atomic.Int64
}

type refusable struct {
	storage.Batch
	e *refusing
}

func (e *refusing) NewBatch() storage.Batch { return refusable{e.Engine.NewBatch(), e} }

func (b refusable) Commit(d storage.Durability, done func(error)) error {
	if b.e.passing.Add(-1) == -1 {
		return storage.ErrFull
	}
	return b.Batch.Commit(d, done)
}

// handedMany is a batch of so many records, one a key.
func handedMany(t *testing.T, count int) *messages.HandoffRequest {
	t.Helper()
	m := &messages.HandoffRequest{N: 3, Batch: 7, ReadMs: readNow()}
	for i := range count {
		m.Records = append(m.Records, handed(fmt.Sprint("k", i), elsewhere(t, 9, "v"))...)
	}
	return m
}

// takes asks for a batch until it is acknowledged, and checks that all of it is there then.
func (r *rig) takes(m *messages.HandoffRequest) {
	r.t.Helper()
	actortest.Eventually(r.t, "the batch is acknowledged", func() bool {
		r.probe.Ask(r.pid(), m)
		reply, ok := actortest.Next[any](r.t, r.probe).(*messages.HandoffReply)
		return ok && reply.GetBatch() == m.GetBatch()
	})
	for _, record := range m.GetRecords() {
		if storedIn(r.t, r.engine, 0, string(record.GetKey())).IsZero() {
			r.t.Errorf("of %d records %s was acknowledged and is not there", len(m.GetRecords()), record.GetKey())
		}
	}
}

// TestHandoffTakesTurns: a batch is taken in several turns, so that a request that waits
// does not wait for all of it, and has one answer.
func TestHandoffTakesTurns(t *testing.T) {
	t.Parallel()
	for _, count := range []int{1, handoffTurn, handoffTurn + 1, 8 * handoffTurn} {
		r := start(t, setup{})
		before := r.engine.Stats().Commits
		r.takes(handedMany(t, count))
		if turns, want := int(r.engine.Stats().Commits-before), (count+handoffTurn-1)/handoffTurn; turns < want {
			t.Errorf("%d records in %d turns, want %d", count, turns, want)
		}
		r.read("k0")
		if n := actortest.Count[*messages.HandoffReply](r.probe); n != 1 {
			t.Errorf("%d records: %d answers", count, n)
		}
	}
}

// TestHandoffThatFailsOnTheWay: when one of its turns cannot be written, the batch is not
// acknowledged, for whoever hands it over drops it then.
func TestHandoffThatFailsOnTheWay(t *testing.T) {
	t.Parallel()
	const turns = 4
	for passing := range turns {
		e := &refusing{Engine: memory.New()}
		e.passing.Store(math.MaxInt64)
		r := start(t, setup{engine: e})
		e.passing.Store(int64(passing))
		m := handedMany(t, turns*handoffTurn)
		r.probe.Ask(r.pid(), m)
		actortest.Next[*messages.Failure](t, r.probe)
		r.takes(m)
		if n := actortest.Count[*messages.HandoffReply](r.probe); n != 1 {
			t.Errorf("after %d turns: acknowledged %d times, though a turn failed", passing, n)
		}
	}
}

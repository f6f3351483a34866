package actors

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

// handoffTurn is how many records that are handed over a vnode takes in one turn.
const handoffTurn = 8

// handoff takes records that another node kept for this one, or that this one asked
// for to fill the partition: a few now, and the others after the requests of clients that
// wait by then. The last are acknowledged when they are durable, and all before them are.
func (v *vnodeActor) handoff(m *messages.HandoffRequest, sender *actor.PID) {
	// What is handed over is dropped by who had it: not to one that may drop it next.
	if !v.writable(sender) || !v.serves(sender) || v.doubtful(sender) {
		return
	}
	m, rest := split(m)
	all, err := messages.ToHandoff(m)
	if err == nil && len(all) > 0 && !v.owns(int(m.GetN())) { // without records it asks only for what is durable
		err = fmt.Errorf("%w: %s is no replica of partition %d for n = %d", errMisplaced, v.s.Self, v.partition, m.GetN())
	}
	for i := 0; i < len(all) && err == nil; i++ {
		_, err = v.s.place(v.partition, m.GetPartition(), all[i].Key)
	}
	if err != nil {
		v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "%v", err))
		return
	}
	if len(all) > 0 && !v.inTime(m.GetReadMs(), sender) {
		return
	}
	for _, r := range all {
		position, _ := v.s.place(v.partition, m.GetPartition(), r.Key) // was checked
		_, _, err := v.accept(r, position)
		switch {
		case errors.Is(err, vnode.ErrBroken):
			// Whoever hands it over keeps it. A restart would help nobody.
			v.s.Log.Error("a record was refused", slog.Uint64("partition", uint64(v.partition)), slog.Any("error", err))
			v.s.answer(sender, v.self, messages.Fail(messages.CodeInvalid, "position %x: %v", position, err))
			return
		case err != nil:
			v.s.met(v.partition, err)
			v.s.answer(sender, v.self, v.readFailure(err))
			return
		}
	}
	if rest != nil {
		self, root := v.self, v.s.System.Root
		v.write.askers = append(v.write.askers, sender)
		v.write.after = append(v.write.after, func() { root.RequestWithCustomSender(self, rest, sender) })
		return
	}
	v.write.acknowledge(answer{to: sender, message: &messages.HandoffReply{Batch: m.GetBatch()}}, true)
}

// split cuts off what is more than a turn takes; nil if nothing is.
func split(m *messages.HandoffRequest) (first, rest *messages.HandoffRequest) {
	records := m.GetRecords()
	if len(records) <= handoffTurn {
		return m, nil
	}
	of := func(records []*messages.HandoffRecord) *messages.HandoffRequest {
		return &messages.HandoffRequest{
			Partition: m.GetPartition(), Batch: m.GetBatch(), N: m.GetN(), Records: records, TimeoutMs: m.GetTimeoutMs(), ReadMs: m.GetReadMs(),
		}
	}
	return of(records[:handoffTurn]), of(records[handoffTurn:])
}

package actors

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/messages"
)

// A vnode says in its answers what the time went for (messages.Spent). It reads the clock once
// for each turn, each read, and each commit.

// arrived is when a message came into its mailbox, which counts its time from then; zero if it
// has no limit.
func arrived(e rt.Envelope) time.Time {
	if e.Until.IsZero() {
		return time.Time{}
	}
	return e.Until.Add(-messageTTL(e.Message))
}

// came is when a message of this turn did; of one that does not tell, when the turn began.
func (v *vnodeActor) came(e rt.Envelope) time.Time {
	if at := arrived(e); !at.IsZero() {
		return at
	}
	return v.turnAt
}

// readClock tells what the time of one read went for.
type readClock struct {
	turn   time.Time
	waited time.Duration
	span   *ReplicaSpan
}

func (v *vnodeActor) readClock(e rt.Envelope, trace []byte, key dynamo.Key) readClock {
	came := v.came(e)
	return readClock{turn: v.turnAt, waited: v.turnAt.Sub(came), span: v.s.replicaSpan(trace, "read", v.partition, key, came)}
}

// fromMemory says so in the answer to a read that needed no reader.
func (c readClock) fromMemory(s *Services, m proto.Message) proto.Message {
	return c.say(s, messages.Spent{Waited: c.waited, Turn: time.Since(c.turn)}, m)
}

// fromStore says so in the answer to one that a reader began at a time.
func (c readClock) fromStore(s *Services, read time.Time, m proto.Message) proto.Message {
	return c.say(s, messages.Spent{Waited: c.waited, Reader: read.Sub(c.turn), Store: time.Since(read)}, m)
}

func (c readClock) say(s *Services, spent messages.Spent, m proto.Message) proto.Message {
	if r, ok := m.(*messages.ReadReply); ok {
		r.WaitedUs, r.TurnUs = messages.Micros(spent.Waited), messages.Micros(spent.Turn)
		r.ReaderUs, r.StoreUs = messages.Micros(spent.Reader), messages.Micros(spent.Store)
	}
	s.spanned(c.span, spent, m)
	return m
}

// turned notes for how long the turn's writes were in it, before they are committed.
func (w *writeBatch) turned(took time.Duration) {
	for _, list := range [...][]answer{w.applied, w.durable} {
		for _, a := range list {
			switch m := a.message.(type) {
			case *messages.ReplicateReply:
				m.TurnUs = messages.Micros(took)
			case *prepared:
				m.turn = messages.Micros(took)
			}
			if a.span != nil {
				a.span.Spent.Turn = took
			}
		}
	}
}

// stored notes for how long a write was on its way to the store. It is answered next.
func (a answer) stored(s *Services, took time.Duration) {
	switch m := a.message.(type) {
	case *messages.ReplicateReply:
		m.StoreUs = messages.Micros(took)
	case *durable:
		m.store = messages.Micros(took)
	}
	if a.span != nil {
		spent := a.span.Spent
		spent.Store = took
		s.spanned(a.span, spent, a.message)
	}
}

// after notes for how long a request waited for its turn.
func (r *ReplicaSpan) after(waited time.Duration) *ReplicaSpan {
	if r != nil {
		r.Spent.Waited = waited
	}
	return r
}

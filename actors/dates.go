package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/messages"
)

// A record travels for at most Config.MessageLife after it was read from a store: then
// tombstones that no store lacks may be reaped (dynamo/reap). Messages say when their
// records were read (messages.Dated), and whoever merges them asks tooOld in its own
// turn, not on arrival: a message may wait, and a process may stand still.

// millis is the clock that records are dated by.
func (s *Services) millis() int64 { return s.Clock().Milliseconds() }

// tooOld is the refusal of records that were read from a store at a time, if they must
// not be merged at another one; else nil. What reads them anew may send them again.
func (s *Services) tooOld(read, now int64) *messages.Failure {
	switch age := time.Duration(now-read) * time.Millisecond; {
	case read == 0:
		return messages.Fail(messages.CodeInvalid, "it does not say when its records were read")
	case read > now: // no clock that runs says so
		return messages.Fail(messages.CodeInvalid, "its records are to be read only in %v", -age)
	case age > s.MessageLife:
		s.Counters.TooOld.Add(1)
		return messages.Fail(messages.CodeTooOld, "its records may have been read %v ago, they may travel for %v", age, s.MessageLife)
	}
	return nil
}

// inTime reports whether records that were read at a time may be merged in this turn, and
// answers if not.
func (v *vnodeActor) inTime(read int64, sender *actor.PID) bool {
	f := v.s.tooOld(read, v.began)
	if f != nil {
		v.s.answer(sender, v.self, f)
	}
	return f == nil
}

// dated says of an answer with records, if it is one, when they were read.
func dated(m proto.Message, read int64) proto.Message {
	if d, ok := m.(messages.Dated); ok {
		d.SetReadMs(read)
	}
	return m
}

package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// Services are what the actors of one node share. All of it is either
// immutable, or safe for use from any goroutine.
type Services struct {
	Config
	// Wheel runs the node's timers; Readers its reads of the store.
	Wheel    *rt.Wheel
	Readers  *rt.Workers
	Counters *Counters

	inForce      atomic.Pointer[inForce]
	foundingNote atomic.Pointer[string]
	// unanswered is how many requests in flight still owe their client an answer.
	unanswered atomic.Int64
	vnodes     vnodeTable
	hints      hintTable
	misplaced  misplacedTable
	filled     filledTable
	losses     lossTable
	// moving are the partitions of which a transfer or a fill runs here.
	moving atomic.Pointer[map[dynamo.Partition]bool]
	// maxRequests and hintBytes are the two limits as they are now: operators may change them.
	maxRequests, hintBytes atomic.Int64
	// run is random, of this run of the process.
	run       uint64
	peers     peerTable
	latencies latencies
	requests  *requestTable
	published published
	slow      *slowRequests
	// served counts the reads and writes of clients that vnodes here took part in.
	served     atomic.Uint64
	quarantine quarantine
	// round is the highest of ballots that this life of the node has used or heard of.
	round atomic.Uint64
}

// Config is what a node's actors need from outside.
type Config struct {
	// Self is this node's name.
	Self dynamo.NodeID
	// System runs the actors; its address is Self.
	System *actor.ActorSystem
	// Engine is the node's store.
	Engine storage.Engine
	// Reachable, if set, takes the place of the node's own failure detector
	// (§ 4.8.3).
	Reachable ring.Reachable
	// HintBytes is how much the node keeps for others (§ 4.6) before it refuses.
	HintBytes int64
	// Now is the wall clock.
	Now func() dynamo.Timestamp
	// Log receives one event per line.
	Log *slog.Logger
	// Registry lists the mailboxes for the console, those of links too if they have the same
	// one; nil: the node makes its own.
	Registry *rt.Registry
	// Failures keeps what went wrong; Log's handler is of it. nil: the node makes its own, and
	// wraps Log.
	Failures *rt.Failures
	// Lines keeps what was logged lately; Log's handler is of it. nil: the node makes its own,
	// and wraps Log.
	Lines *rt.Lines
	// LogLevel, if set, is what Log's handler goes by: operators may change it.
	LogLevel *slog.LevelVar
	// MayControl is why a client may not change settings, restart and kill actors, nil if it
	// may. nil: nobody may.
	MayControl func(client string) error
	// MaxValue is the largest value that a client may write, in bytes.
	MaxValue int
	// MaxRequests is how many requests may await their answer before the node
	// sheds. Requests that are answered and only wait for stragglers have a wider
	// bound, so that one replica that hangs does not cost the others their turn.
	MaxRequests int
	// Timeout is how long a request may take if it does not say so itself.
	Timeout time.Duration
	// DigestAbove is the value size in bytes from which only one replica of a
	// read sends the value and the others their clocks.
	DigestAbove int
	// ReaderCount is how many reads of the store run at once.
	ReaderCount int
	// MessageLife is how old a record in a message may be, counted from the read of the
	// store that it came from; 0 is reap.MessageLife. It must be the same on all nodes.
	MessageLife time.Duration
	// Clock is what records are dated by, and no wall clock; nil is rt.Clock. Links need
	// the same one.
	Clock func() time.Duration
	// OnDocument is called with each cluster document that comes into force.
	OnDocument func(member.Document)
	// ExchangeInterval is how often two replicas are compared, at least; 0: only when an
	// operator says so.
	ExchangeInterval time.Duration
	// BackgroundFloor is the least share of the time that slices get (admission.Config);
	// 0 is the default.
	BackgroundFloor float64
	// Reap: this node begins to reap, where it is the first primary, what nobody sees any
	// more. It takes part in what others reap in any case.
	Reap bool
	// Spans records what requests did for distributed traces; nil: nothing.
	Spans Spans
	// pace is for tests.
	pace upkeepPace
	// unmeasured is for tests: requests are not counted.
	unmeasured bool
	// hearing is for tests; 0 takes the usual.
	hearing time.Duration
	// Founding is how this node takes part in founding a cluster.
	Founding Founding
}

// errMisplaced: a key lies in another partition than the one addressed. Stored
// there it would be found by nobody.
var errMisplaced = errors.New("key belongs to another partition")

// place returns a key's position, after checking that the request was meant for
// partition p and that the key lies in it.
func (s *Services) place(p dynamo.Partition, asked uint32, k dynamo.Key) ([16]byte, error) {
	position := ring.Hash(k)
	if asked != uint32(p) {
		return [16]byte{}, fmt.Errorf("%w: %d was asked for %d", errMisplaced, p, asked)
	}
	if doc := s.Document(); doc != nil {
		if at := ring.PartitionOf(position, doc.Settled.Partitions()); at != p {
			return [16]byte{}, fmt.Errorf("%w: %d, not %d", errMisplaced, at, p)
		}
	}
	return position.Bytes(), nil
}

// answer sends a message to whoever asked, on behalf of an actor. Nobody asked
// for some; then nothing is sent.
func (s *Services) answer(to, from *actor.PID, message any) {
	if to == nil {
		return
	}
	s.System.Root.RequestWithCustomSender(to, message, from)
}

// shed answers a message that a full mailbox, or one whose actor has stopped,
// did not take.
func (s *Services) shed(sender *actor.PID, message any) {
	switch m := message.(type) {
	case *drain:
		m.done(nil) // what does not run is drained
		return
	case *finishRequests:
		m.done()
		return
	}
	s.Counters.Shed.Add(1)
	f := messages.Fail(messages.CodeOverloaded, "%s is overloaded; try again", s.Self)
	f.RetryAfterMs = 50
	s.answerFailure(sender, message, f)
}

// expired answers a message whose time was over before its turn came.
func (s *Services) expired(sender *actor.PID, message any) {
	s.Counters.Expired.Add(1)
	s.answerFailure(sender, message, messages.Fail(messages.CodeExpired, "waited too long in a queue of %s", s.Self))
}

// failed answers a message that was being handled when its actor panicked.
func (s *Services) failed(sender *actor.PID, message any) {
	s.answerFailure(sender, message, messages.Fail(messages.CodeInternal, "an actor of %s failed and restarts", s.Self))
}

// answerFailure answers requests only: a Failure that answers an answer could
// bounce for ever.
func (s *Services) answerFailure(sender *actor.PID, message any, f *messages.Failure) {
	if o, ok := message.(*order); ok {
		s.requests.refused(o, f)
		s.answer(o.client, actor.NewPID(string(s.Self), nameNode), o.verdict(f))
		return
	}
	n, ok := messages.NumberOf(message)
	info, known := messages.InfoOf(n)
	local := false
	switch message.(type) {
	case *coordinate, *dropHints, *mergePage, *reapRead:
		local = true
	}
	s.requests.refused(message, f)
	if local || ok && known && info.Request {
		s.answer(sender, actor.NewPID(string(s.Self), nameNode), f)
	}
}

// messageSize weighs a message for the bounds of a mailbox.
func messageSize(m any) int {
	switch m := m.(type) {
	case *order:
		return messageSize(m.request)
	case *coordinate:
		return len(m.put.Value) + len(m.key.Name) + 64
	case *messages.ReplicateRequest:
		return len(m.GetRecord()) + len(m.GetKey()) + 64
	case *messages.HandoffRequest:
		size := 64
		for _, r := range m.GetRecords() {
			size += len(r.GetRecord()) + len(r.GetKey()) + 64
		}
		return size
	case *messages.FillReply:
		size := 64
		for _, r := range m.GetRecords() {
			size += len(r.GetRecord()) + len(r.GetKey()) + 64
		}
		return size + 128*len(m.GetDigests())
	case *messages.ExchangeRequest, *messages.ExchangeReply, *messages.ReapRequest, *messages.ReapDropRequest:
		return 64 + proto.Size(m.(proto.Message))
	case *mergePage:
		return recordBytes(m.records) + 64
	case *messages.PutRequest:
		return len(m.GetValue()) + len(m.GetContext()) + len(m.GetKey()) + 64
	case proto.Message:
		return 128
	}
	return 64
}

// messageTTL is how long a message may wait in a mailbox.
func messageTTL(m any) time.Duration {
	if o, ok := m.(*order); ok {
		m = o.request
	}
	if t, ok := m.(messages.Timed); ok {
		return time.Duration(t.GetTimeoutMs()) * time.Millisecond
	}
	return 0
}

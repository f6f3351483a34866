package rt

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// deadLetterInterval is the library's throttle window. It keeps a goroutine
// for that long after a dead letter, also past Shutdown, so it is short.
const deadLetterInterval = 100 * time.Millisecond

// NewSystem makes an actor system whose PIDs carry the node id as their
// address. There must be one per process and node.
//
// The library numbers anonymous actors from 0 in every process, so an answer
// that arrives after a restart could reach a stranger who got the same number.
// Here the numbers begin at a random point of 2^62.
//
// The library's log lines go to logger (nil discards them), one level lower
// than it thinks of them, and with the type of a message in place of its
// content, which is a client's data. Its metrics stay off: they multiply the
// cost of a send by thirty.
func NewSystem(nodeID string, logger *slog.Logger) *actor.ActorSystem {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	quiet := slog.New(quietHandler{logger.Handler()}).With(slog.String("lib", "protoactor"))
	system := actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }),
		actor.WithDeadLetterThrottleInterval(deadLetterInterval),
		actor.WithDeadLetterRequestLogging(false),
	)
	system.ProcessRegistry.Address = nodeID
	system.ProcessRegistry.SequenceID = randomSequence()
	return system
}

// randomSequence leaves the top two bits clear, so that counting on never
// wraps.
func randomSequence() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return binary.LittleEndian.Uint64(b[:]) >> 2
}

// quietHandler lowers Info to Debug and hides message contents.
type quietHandler struct{ slog.Handler }

func lower(l slog.Level) slog.Level {
	if l == slog.LevelInfo {
		return slog.LevelDebug
	}
	return l
}

// Enabled implements slog.Handler.
func (h quietHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, lower(l))
}

// Handle implements slog.Handler.
func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, lower(r.Level), r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "message" {
			a = slog.String("message_type", fmt.Sprintf("%T", a.Value.Any()))
		}
		out.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name)}
}

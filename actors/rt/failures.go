package rt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

const (
	// MaxFailures is how many failures are kept.
	MaxFailures = 256
	// maxFailureText is how many bytes of each are.
	maxFailureText = 2048
)

// Failure is one thing that went wrong: an actor panicked, or an error was logged.
type Failure struct {
	// At is when it happened, the last time.
	At time.Time
	// Actor is who panicked; empty: it was logged.
	Actor string
	Text  string
	// Times is how often it happened in a row.
	Times uint64
}

// Failures keeps what went wrong lately: the last MaxFailures of it. What happens again and
// again takes the place of one.
type Failures struct {
	mu   sync.Mutex
	all  []Failure // oldest first
	lost uint64
}

// List returns what went wrong, latest first, up to limit (0: all), and how much more has
// been since the start.
func (f *Failures) List(limit int) (out []Failure, more uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.all) - 1; i >= 0 && (limit <= 0 || len(out) < limit); i-- {
		out = append(out, f.all[i])
	}
	return out, f.lost + uint64(len(f.all)-len(out))
}

// Ordered notes that an actor ends or fails because of an order.
func (f *Failures) Ordered(actor string, order *Order) { f.add(actor, order.Error()) }

func (f *Failures) add(by, text string) {
	if len(text) > maxFailureText {
		text = strings.ToValidUTF8(text[:maxFailureText], "")
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.all); n > 0 && f.all[n-1].Actor == by && f.all[n-1].Text == text {
		f.all[n-1].At = now
		f.all[n-1].Times++
		return
	}
	if len(f.all) == MaxFailures {
		f.all = append(f.all[:0], f.all[1:]...)
		f.lost++
	}
	f.all = append(f.all, Failure{At: now, Actor: by, Text: text, Times: 1})
}

// Watch notes the actors of a system that fail, until stop is called.
func (f *Failures) Watch(system *actor.ActorSystem) (stop func()) {
	subscription := system.EventStream.Subscribe(func(event any) {
		if e, ok := event.(*actor.SupervisorEvent); ok {
			f.add(e.Child.GetId(), whatFailed(e))
		}
	})
	return func() { system.EventStream.Unsubscribe(subscription) }
}

// whatFailed says why an actor failed, and what its supervisor did. That one restarts it which was
// told to goes without saying.
func whatFailed(e *actor.SupervisorEvent) string {
	order, told := e.Reason.(*Order)
	switch {
	case told && e.Directive == actor.RestartDirective:
		return order.Error()
	case told:
		return order.Error() + "; " + consequence(e.Directive)
	}
	return fmt.Sprintf("panicked: %v; %s", e.Reason, consequence(e.Directive))
}

func consequence(d actor.Directive) string {
	switch d {
	case actor.RestartDirective:
		return "restarts"
	case actor.StopDirective:
		return "stops"
	case actor.ResumeDirective:
		return "goes on"
	}
	return "its supervisor fails, too"
}

// Handler passes what is logged on, and notes the errors.
func (f *Failures) Handler(to slog.Handler) slog.Handler {
	bare := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	return &noting{to, slog.NewTextHandler(logged{f}, &slog.HandlerOptions{Level: slog.LevelError, ReplaceAttr: bare})}
}

// logged takes lines of a text handler, one for each write.
type logged struct{ *Failures }

// Write implements io.Writer.
func (l logged) Write(line []byte) (int, error) {
	l.add("", strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

// noting is two handlers in one.
type noting struct{ to, note slog.Handler }

// Enabled implements slog.Handler.
func (h *noting) Enabled(ctx context.Context, l slog.Level) bool {
	return h.to.Enabled(ctx, l) || h.note.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *noting) Handle(ctx context.Context, r slog.Record) error {
	var err error
	if h.note.Enabled(ctx, r.Level) {
		err = h.note.Handle(ctx, r.Clone())
	}
	if h.to.Enabled(ctx, r.Level) {
		err = errors.Join(err, h.to.Handle(ctx, r))
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h *noting) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &noting{h.to.WithAttrs(attrs), h.note.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h *noting) WithGroup(name string) slog.Handler {
	return &noting{h.to.WithGroup(name), h.note.WithGroup(name)}
}

package bootstrap

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Of one message and level so many events are logged in so long; the rest are counted.
	repeatsLogged = 5
	repeatsWithin = 10 * time.Second
	// maxRepeats is how many messages are watched; while there are more, the others are all logged.
	maxRepeats = 1000
)

// limiter keeps what is logged again and again from filling the disk: of events with the same message and level
// the first of each ten seconds are logged, and then how many more there were. None goes untold.
type limiter struct {
	mu      sync.Mutex
	windows map[repeated]*window
	closed  bool

	levels     [4]atomic.Uint64
	suppressed atomic.Uint64
}

// repeated is what events have in common that are the same.
type repeated struct {
	level   slog.Level
	message string
}

// window is ten seconds of one message.
type window struct {
	began  time.Time
	events int
	// untold are those that were not logged; to and timer are set while there are any.
	untold int
	to     slog.Handler
	timer  *time.Timer
}

func newLimiter() *limiter { return &limiter{windows: map[repeated]*window{}} }

// levelNames are the levels as they are counted.
var levelNames = [4]string{"debug", "info", "warn", "error"}

// admit reports whether an event is to be logged.
func (l *limiter) admit(r slog.Record, to slog.Handler) bool {
	l.levels[min(3, max(0, int(r.Level)+4)/4)].Add(1)
	key, now := repeated{r.Level, r.Message}, time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.windows[key]
	switch {
	case l.closed:
		return true
	case w == nil || w.untold == 0 && now.Sub(w.began) >= repeatsWithin:
		if w == nil && len(l.windows) >= maxRepeats && !l.forget(now) {
			return true
		}
		w = &window{began: now}
		l.windows[key] = w
	}
	if w.events++; w.events <= repeatsLogged {
		return true
	}
	l.suppressed.Add(1)
	w.untold++
	if w.to = to; w.timer == nil {
		w.timer = time.AfterFunc(max(0, repeatsWithin-now.Sub(w.began)), func() { l.tell(key, w) })
	}
	return false
}

// forget makes room; the lock is held.
func (l *limiter) forget(now time.Time) bool {
	for key, w := range l.windows {
		if w.untold == 0 && now.Sub(w.began) >= repeatsWithin {
			delete(l.windows, key)
		}
	}
	return len(l.windows) < maxRepeats
}

// tell logs how many events of a window were not.
func (l *limiter) tell(key repeated, w *window) {
	l.mu.Lock()
	n, to := w.untold, w.to
	w.untold = 0
	if l.windows[key] == w {
		delete(l.windows, key)
	}
	l.mu.Unlock()
	if n == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), key.level, "logged again and again", 0)
	r.AddAttrs(slog.String("message", key.message), slog.Int("more", n), slog.Duration("within", repeatsWithin))
	// As with any event there is nobody to tell that it could not be written.
	_ = to.Handle(context.Background(), r)
}

func (l *limiter) close() {
	l.mu.Lock()
	l.closed = true
	open := l.windows
	l.windows = map[repeated]*window{}
	for _, w := range open {
		if w.timer != nil {
			w.timer.Stop()
		}
	}
	l.mu.Unlock()
	for key, w := range open {
		l.tell(key, w)
	}
}

func (l *limiter) counts() (byLevel map[string]uint64, suppressed uint64) {
	byLevel = map[string]uint64{}
	for i, name := range levelNames {
		byLevel[name] = l.levels[i].Load()
	}
	return byLevel, l.suppressed.Load()
}

// limited is a handler behind a limiter.
type limited struct {
	to    slog.Handler
	limit *limiter
}

// Enabled implements slog.Handler.
func (h *limited) Enabled(ctx context.Context, level slog.Level) bool {
	return h.to.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *limited) Handle(ctx context.Context, r slog.Record) error {
	if !h.limit.admit(r, h.to) {
		return nil
	}
	return h.to.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limited{h.to.WithAttrs(attrs), h.limit}
}

// WithGroup implements slog.Handler.
func (h *limited) WithGroup(name string) slog.Handler { return &limited{h.to.WithGroup(name), h.limit} }

package rt

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

const (
	// MaxLines is how many lines of the log are kept.
	MaxLines = 1000
	// maxLineText is how many bytes of each are.
	maxLineText = 2048
)

// Line is one event that was logged.
type Line struct {
	// Number counts from 1.
	Number uint64
	At     time.Time
	Level  slog.Level
	// Text is message and attributes, as slog's text handler writes them.
	Text string
}

// Lines keeps what was logged lately, so that operators can follow a node's log from
// elsewhere: the last MaxLines of it.
type Lines struct {
	once sync.Once
	run  uint64
	mu   sync.Mutex
	ring [MaxLines]Line
	last uint64 // number of the newest
}

// Run is a random number of this run: the numbers of lines begin anew with each.
func (l *Lines) Run() uint64 {
	l.once.Do(func() { l.run = rand.Uint64() })
	return l.run
}

// Since returns the lines after a number, oldest first, the latest limit of them, and how
// many there were besides.
func (l *Lines) Since(after uint64, limit int) (out []Line, lost uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after >= l.last {
		return nil, 0
	}
	n := min(l.last-after, uint64(max(limit, 0)), MaxLines)
	for number := l.last - n + 1; number <= l.last; number++ {
		out = append(out, l.ring[number%MaxLines])
	}
	return out, l.last - after - n
}

func (l *Lines) add(at time.Time, level slog.Level, text string) {
	if len(text) > maxLineText {
		text = strings.ToValidUTF8(text[:maxLineText], "")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.ring[l.last%MaxLines] = Line{l.last, at, level, text}
}

// Handler passes what is logged on, and keeps it.
func (l *Lines) Handler(to slog.Handler) slog.Handler {
	k := &keeping{to: to, lines: l, buffer: &lineBuffer{}}
	k.text = slog.NewTextHandler(k.buffer, &slog.HandlerOptions{Level: slog.Level(-1 << 30), ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}})
	return k
}

// lineBuffer takes the line that a text handler writes; the lock is held from before it is
// written until it is read.
type lineBuffer struct {
	sync.Mutex
	bytes.Buffer
}

// keeping is a handler that keeps what another one takes.
type keeping struct {
	to, text slog.Handler
	lines    *Lines
	buffer   *lineBuffer
}

// Enabled implements slog.Handler.
func (k *keeping) Enabled(ctx context.Context, level slog.Level) bool {
	return k.to.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (k *keeping) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(k.keep(ctx, r.Clone()), k.to.Handle(ctx, r))
}

func (k *keeping) keep(ctx context.Context, r slog.Record) error {
	k.buffer.Lock()
	defer k.buffer.Unlock()
	k.buffer.Reset()
	err := k.text.Handle(ctx, r)
	at := r.Time
	if at.IsZero() {
		at = time.Now()
	}
	k.lines.add(at, r.Level, strings.TrimSuffix(k.buffer.String(), "\n"))
	return err
}

// WithAttrs implements slog.Handler.
func (k *keeping) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &keeping{to: k.to.WithAttrs(attrs), text: k.text.WithAttrs(attrs), lines: k.lines, buffer: k.buffer}
}

// WithGroup implements slog.Handler.
func (k *keeping) WithGroup(name string) slog.Handler {
	return &keeping{to: k.to.WithGroup(name), text: k.text.WithGroup(name), lines: k.lines, buffer: k.buffer}
}

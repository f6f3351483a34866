package bootstrap

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// Log is a node's log.
type Log struct {
	*slog.Logger
	// Level is what is logged at least; it may be changed while the node runs.
	Level *slog.LevelVar
	limit *limiter
}

// NewLogger makes the node's log: one event a line, as text or JSON. Without a format it is text on a terminal
// and JSON elsewhere. What comes again and again is counted (see limiter).
func NewLogger(w io.Writer, level, format string) (*Log, error) {
	l, err := parseLevel(level)
	if err != nil {
		return nil, err
	}
	if format == "" {
		format = "json"
		if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			format = "text"
		}
	}
	out := &Log{Level: &slog.LevelVar{}, limit: newLimiter()}
	out.Level.Set(l)
	o := &slog.HandlerOptions{Level: out.Level}
	var h slog.Handler
	switch format {
	case "json":
		h = slog.NewJSONHandler(w, o)
	case "text":
		h = slog.NewTextHandler(w, o)
	default:
		return nil, fmt.Errorf("log format %q is not text or json", format)
	}
	out.Logger = slog.New(&limited{h, out.limit})
	return out, nil
}

// Close says how often was logged what was only counted so far. What is logged later is not counted any more.
func (l *Log) Close() { l.limit.close() }

// Counts are the events logged so far by level, and how many of them were only counted.
func (l *Log) Counts() (byLevel map[string]uint64, suppressed uint64) { return l.limit.counts() }

func parseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is not debug, info, warn or error", s)
}

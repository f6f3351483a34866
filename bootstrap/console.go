package bootstrap

import (
	"context"
	"fmt"
	"io"
	"log/slog"
)

// newLogger is NewLogger with a level that can change while the node runs.
func newLogger(w io.Writer, c Config) (*slog.Logger, *slog.LevelVar, error) {
	first, err := parseLevel(c.LogLevel)
	if err != nil {
		return nil, nil, err
	}
	level := new(slog.LevelVar)
	level.Set(first)
	log, err := NewLogger(w, "debug", c.LogFormat)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(&levelled{log.Handler(), level}), level, nil
}

// levelled leaves out what is below a level.
type levelled struct {
	slog.Handler
	level slog.Leveler
}

// Enabled implements slog.Handler.
func (l *levelled) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= l.level.Level() && l.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (l *levelled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &levelled{l.Handler.WithAttrs(attrs), l.level}
}

// WithGroup implements slog.Handler.
func (l *levelled) WithGroup(name string) slog.Handler {
	return &levelled{l.Handler.WithGroup(name), l.level}
}

// mayControl says which clients may change this node with the console: none unless it was
// started so, and with TLS only those whose certificate names an operator.
func (n *Node) mayControl() func(client string) error {
	if !n.config.ConsoleControl {
		return nil
	}
	return func(client string) error {
		if n.config.TLSCert == "" {
			return nil
		}
		if p, ok := n.links.Peer(client); ok && p.Operator {
			return nil
		}
		return fmt.Errorf("to change %s takes a certificate of the cluster's authority that names operator or operator.NAME", n.config.Name)
	}
}

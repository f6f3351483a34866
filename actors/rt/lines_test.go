package rt

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// TestLines: what is logged is kept as it is passed on, by number; what the handler does not
// take is not.
func TestLines(t *testing.T) {
	var lines Lines
	var passed bytes.Buffer
	log := slog.New(lines.Handler(slog.NewTextHandler(&passed, &slog.HandlerOptions{Level: slog.LevelInfo})))
	log.Debug("not logged")
	log.With("node", "n1").WithGroup("g").Info("hello", "k", "a\nb")
	log.Error("bad")
	out, lost := lines.Since(0, 10)
	if len(out) != 2 || lost != 0 || out[0].Number != 1 || out[0].Level != slog.LevelInfo || out[0].Text != `msg=hello node=n1 g.k="a\nb"` || out[1].Text != "msg=bad" || time.Since(out[1].At) > patience {
		t.Errorf("kept %+v, %d lost", out, lost)
	}
	if n := strings.Count(passed.String(), "\n"); n != 2 {
		t.Errorf("passed on %d lines:\n%s", n, passed.String())
	}
	if run := lines.Run(); lines.Run() != run {
		t.Error("a run has two numbers")
	}
	for i := range 2 * MaxLines {
		log.Info(fmt.Sprint(i))
	}
	for _, tc := range []struct {
		after       uint64
		limit       int
		first, last uint64
		lost        uint64
	}{
		{0, 5000, MaxLines + 3, 2*MaxLines + 2, MaxLines + 2}, {0, 2, 2*MaxLines + 1, 2*MaxLines + 2, 2 * MaxLines}, {2*MaxLines + 1, 100, 2*MaxLines + 2, 2*MaxLines + 2, 0},
	} {
		out, lost := lines.Since(tc.after, tc.limit)
		if len(out) == 0 || out[0].Number != tc.first || out[len(out)-1].Number != tc.last || lost != tc.lost || out[len(out)-1].Text != fmt.Sprintf("msg=%d", 2*MaxLines-1) {
			t.Errorf("after %d: %d lines, %d lost", tc.after, len(out), lost)
		}
	}
	if out, lost := lines.Since(1<<60, 10); len(out) != 0 || lost != 0 {
		t.Errorf("after the last: %v, %d", out, lost)
	}
	log.Info(strings.Repeat("ä", maxLineText))
	if out, _ := lines.Since(2*MaxLines+2, 1); len(out) != 1 || len(out[0].Text) > maxLineText {
		t.Errorf("a long line is kept as %d bytes", len(out[0].Text))
	}
}

// TestFail: an actor fails between two messages, and its supervisor restarts it.
func TestFail(t *testing.T) {
	system, registry := newSystem(t), NewRegistry()
	pid, got := probe(t, system, MailboxOptions{Registry: registry, Failed: func(_ *actor.PID, m any) { t.Errorf("%T had failed", m) }}, actor.WithGuardian(RestartWithLimit(10, time.Minute, nil)))
	order := &Order{"restarted", "me"}
	if !registry.Fail(pid.Id, order) || registry.Fail("nobody", order) {
		t.Error("which actors there are is not known")
	}
	eventually(t, "restarted", func() bool { s, _ := registry.Find(pid.Id); return s.Restarts == 1 && !s.Suspended })
	if s, _ := registry.Find(pid.Id); s.LastPanic == nil || s.LastPanic.Reason != order || s.LastPanic.Message != nil || s.LastPanic.Stack != "" {
		t.Errorf("it has failed with %+v", s.LastPanic)
	}
	kind := registry.Kinds()[0]
	if kind.Restarts != 1 || kind.Panics != 0 {
		t.Errorf("an order counts as %+v", kind)
	}
	system.Root.Send(pid, number(1))
	eventually(t, "it goes on", func() bool { return len(users(got.list())) == 1 })
	stop(t, system, pid)
}

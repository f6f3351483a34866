package rt

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

func TestSystemIdentity(t *testing.T) {
	a, b := newSystem(t), newSystem(t)
	if a.Address() != "n1" || a.NewLocalPID("x").Address != "n1" {
		t.Errorf("address is %q", a.Address())
	}
	if a.ProcessRegistry.NextId() == b.ProcessRegistry.NextId() {
		t.Error("two starts give the same ids")
	}
}

func TestSystemLogsQuietlyAndWithoutContents(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	system := NewSystem("n1", logger)
	system.Root.Send(system.NewLocalPID("nobody"), "a client's secret")
	if out.Len() != 0 {
		t.Errorf("logged at info: %s", out.String())
	}
	system.Shutdown()

	logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	system = NewSystem("n1", logger)
	system.Root.Send(system.NewLocalPID("nobody"), "a client's secret")
	if s := out.String(); strings.Contains(s, "secret") || !strings.Contains(s, "message_type=string") {
		t.Errorf("logged at debug: %s", s)
	}
	system.Shutdown()
}

func TestRestartWithLimitGivesUp(t *testing.T) {
	system := newSystem(t)
	gave := make(chan any, 1)
	strategy := RestartWithLimit(2, time.Minute, func(_ *actor.PID, reason any) { gave <- reason })
	registry := NewRegistry()
	pid, _ := probe(t, system, MailboxOptions{Registry: registry}, actor.WithGuardian(strategy))
	for range 3 {
		system.Root.Send(pid, explode{})
	}
	if reason := receive(t, "supervisor gave up", gave); reason != "explode" {
		t.Errorf("reason is %v", reason)
	}
	eventually(t, "stopped", func() bool { return registry.Len() == 0 })
}

func TestRestartWithBackoffPausesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		system := NewSystem("n1", nil)
		const shortest, longest = 100 * time.Millisecond, time.Second
		started := make(chan time.Time, 10)
		props := actor.PropsFromFunc(func(ctx actor.Context) {
			switch ctx.Message().(type) {
			case *actor.Started:
				started <- time.Now()
			case explode:
				panic("explode")
			}
		}, actor.WithMailbox(NewMailbox(MailboxOptions{})), actor.WithGuardian(RestartWithBackoff(shortest, longest)))
		pid := system.Root.Spawn(props)
		before := <-started
		for i := range 6 {
			system.Root.Send(pid, explode{})
			now := <-started
			full := min(shortest<<i, longest)
			if pause := now.Sub(before); pause < full/2 || pause > full {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, full/2, full)
			}
			before = now
		}
		system.Root.Stop(pid)
		synctest.Wait()
		system.Shutdown()
		time.Sleep(time.Second)
	})
}

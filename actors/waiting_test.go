package actors

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// overAfter waits until messages with so many milliseconds left have expired.
func overAfter(t *testing.T, ms int) {
	t.Helper()
	sent := time.Now()
	actortest.Eventually(t, "the time is over", func() bool { return time.Since(sent) > time.Duration(ms+1)*time.Millisecond })
}

// TestExpiredWhileOpening: a request whose time is over when the vnode opens is
// not carried out.
func TestExpiredWhileOpening(t *testing.T) {
	r := start(t, setup{hold: true})
	actortest.Eventually(t, "the vnode is there", func() bool {
		_, ok := r.node.Registry().Find("vnode/0")
		return ok
	})
	const ms = 60
	late, patient := actortest.NewProbe(r.system), actortest.NewProbe(r.system)
	read, write := readOf(0, "k", 0), replicateOf(0, "k", elsewhere(t, 9, "v"), true)
	read.TimeoutMs, write.TimeoutMs = ms, ms
	late.Ask(r.pid(), read)
	late.Ask(r.pid(), write)
	patient.Ask(r.pid(), readOf(0, "k", 0))
	actortest.Eventually(t, "the vnode holds them", func() bool {
		s, _ := r.node.Registry().Find("vnode/0")
		return s.Queued == 0
	})
	overAfter(t, ms)
	r.engine.ReleaseSyncs()
	if m := actortest.Next[*messages.ReadReply](t, patient); len(m.GetRecord()) != 0 {
		t.Errorf("the late write was carried out: %v", values(t, m.GetRecord()))
	}
	for range 2 {
		if f := actortest.Next[*messages.Failure](t, late); f.GetCode() != messages.CodeExpired {
			t.Errorf("a late request: %v", f)
		}
	}
	if n := r.node.Counters().Expired.Load(); n != 2 {
		t.Errorf("%d are counted as expired", n)
	}
}

// slow is an engine whose reads wait while it is shut.
type slow struct {
	storage.Engine
	entered, open chan struct{}
}

func newSlow() *slow {
	s := &slow{entered: make(chan struct{}, 10), open: make(chan struct{})}
	close(s.open)
	return s
}

// shut makes reads wait until release; nobody may be reading.
func (s *slow) shut()    { s.open = make(chan struct{}) }
func (s *slow) release() { close(s.open) }

func (s *slow) Get(dst, key []byte) ([]byte, error) {
	select {
	case <-s.open:
	default:
		s.entered <- struct{}{}
		<-s.open
	}
	return s.Engine.Get(dst, key)
}

// TestExpiredBeforeReading: a read whose time is over when a reader takes it is
// not carried out.
func TestExpiredBeforeReading(t *testing.T) {
	s := newSlow()
	r := start(t, setup{change: func(c *Config) { s.Engine, c.Engine, c.ReaderCount = c.Engine, s, 1 }})
	s.shut()
	r.probe.Ask(r.pid(), readOf(0, "first", 0))
	<-s.entered
	const ms = 60
	late := readOf(0, "k", 0)
	late.TimeoutMs = ms
	keys := &messages.KeysRequest{Bucket: bucketB, TimeoutMs: ms}
	waiting := actortest.NewProbe(r.system)
	waiting.Ask(r.pid(), late)
	waiting.Ask(r.pid(), keys)
	overAfter(t, ms)
	s.release()
	actortest.Next[*messages.ReadReply](t, r.probe)
	for range 2 {
		if f := actortest.Next[*messages.Failure](t, waiting); f.GetCode() != messages.CodeExpired {
			t.Errorf("a late read: %v", f)
		}
	}
}

// TestWaitingRoom: it is bounded in messages and in bytes, and what has expired
// makes room.
func TestWaitingRoom(t *testing.T) {
	now := time.Now()
	large := rt.Envelope{Message: &messages.ReplicateRequest{Record: make([]byte, rt.DefaultMaxBytes/2)}, Until: now}
	small := rt.Envelope{Message: &messages.ReadRequest{}}
	var w waitingRoom
	if !w.add(large) || w.add(large) || !w.add(small) {
		t.Error("two halves and their overhead do not fit, one and a small one do")
	}
	var gone []any
	note := func(_ *actor.PID, m any) { gone = append(gone, m) }
	w.sweep(now, note)
	if len(gone) != 0 || len(w.all) != 2 {
		t.Errorf("swept %d too early", len(gone))
	}
	w.sweep(now.Add(1), note)
	if len(gone) != 1 || gone[0] != large.Message || len(w.all) != 1 {
		t.Errorf("swept %d, %d left", len(gone), len(w.all))
	}
	for w.add(small) {
	}
	if len(w.all) != vnodeQueue {
		t.Errorf("%d messages fit, want %d", len(w.all), vnodeQueue)
	}
	if got := w.take(10); len(got) != 10 || len(w.all) != vnodeQueue-10 || !w.add(small) {
		t.Errorf("took %d, %d left", len(got), len(w.all))
	}
	for len(w.take(vnodeBatch)) > 0 {
	}
	if w.bytes != 0 || w.all != nil {
		t.Errorf("empty, with %d bytes", w.bytes)
	}
}

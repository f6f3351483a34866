package rt

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// inBubble runs a test in fake time with a wheel. Everything is created inside
// the bubble, and stopped before it ends.
func inBubble(t *testing.T, tick time.Duration, test func(t *testing.T, w *Wheel)) {
	synctest.Test(t, func(t *testing.T) {
		system := NewSystem("n1", nil)
		w := NewWheel(system, tick)
		test(t, w)
		w.Stop()
		system.Shutdown()
		time.Sleep(time.Second) // fake: past the library's dead letter throttle
	})
}

func TestWheelNeverEarlyAndAtMostOneTickLate(t *testing.T) {
	const tick = 10 * time.Millisecond
	inBubble(t, tick, func(t *testing.T, w *Wheel) {
		random := rand.New(rand.NewPCG(1, 2))
		fired := 0
		for range 2000 {
			d := time.Duration(random.Int64N(int64(40 * time.Second)))
			if random.IntN(10) == 0 {
				d = time.Duration(random.Int64N(int64(tick)))
			}
			due := time.Now().Add(d)
			w.After(d, func() {
				fired++
				if late := time.Since(due); late < 0 || late > tick {
					t.Errorf("a timer of %v was %v late", d, late)
				}
			})
			if random.IntN(20) == 0 {
				time.Sleep(time.Duration(random.Int64N(int64(30 * time.Millisecond))))
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if fired != 2000 || w.Armed() != 0 {
			t.Errorf("fired %d of 2000, %d still armed", fired, w.Armed())
		}
	})
}

func TestWheelStopsTimers(t *testing.T) {
	inBubble(t, 10*time.Millisecond, func(t *testing.T, w *Wheel) {
		fired := 0
		kept := w.After(50*time.Millisecond, func() { fired++ })
		dropped := w.After(50*time.Millisecond, func() { fired += 100 })
		if !dropped.Stop() || dropped.Stop() {
			t.Error("the first Stop cancels, the second finds nothing")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if fired != 1 || kept.Stop() {
			t.Errorf("fired %d", fired)
		}
		var none *Timer
		if none.Stop() {
			t.Error("a nil timer was stopped")
		}
	})
}

func TestWheelSendsToActors(t *testing.T) {
	inBubble(t, 10*time.Millisecond, func(t *testing.T, w *Wheel) {
		got := make(chan any, 1)
		props := actor.PropsFromFunc(func(ctx actor.Context) {
			if m, ok := ctx.Message().(number); ok {
				got <- m
			}
		}, actor.WithMailbox(NewMailbox(MailboxOptions{})))
		pid := w.system.Root.Spawn(props)
		start := time.Now()
		w.Send(pid, number(3), 25*time.Millisecond)
		if m := <-got; m != any(number(3)) || time.Since(start) < 25*time.Millisecond {
			t.Errorf("got %v after %v", m, time.Since(start))
		}
		w.system.Root.Stop(pid)
		synctest.Wait()
	})
}

func TestWheelStopLeavesNothing(t *testing.T) {
	inBubble(t, time.Millisecond, func(t *testing.T, w *Wheel) {
		fired := 0
		w.After(time.Hour, func() { fired++ })
		w.Stop()
		if w.Armed() != 0 {
			t.Error("timers left after Stop")
		}
		if w.After(0, func() { fired++ }).Stop() {
			t.Error("a stopped wheel armed a timer")
		}
		time.Sleep(2 * time.Hour)
		if fired != 0 {
			t.Error("a stopped wheel fired")
		}
	})
}

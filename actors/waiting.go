package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
)

// waitingRoom keeps the messages that came while a vnode opens, with the bounds
// of its mailbox: the disk may take its time.
type waitingRoom struct {
	all   []rt.Envelope
	bytes int
}

// add takes a message unless there is no room.
func (w *waitingRoom) add(e rt.Envelope) bool {
	size := messageSize(e.Message)
	if n := len(w.all); n >= vnodeQueue || n > 0 && w.bytes+size > rt.DefaultMaxBytes {
		return false
	}
	w.all = append(w.all, e)
	w.bytes += size
	return true
}

// take removes the oldest n messages, or all if there are fewer.
func (w *waitingRoom) take(n int) []rt.Envelope {
	out := w.all[:min(n, len(w.all))]
	for _, e := range out {
		w.bytes -= messageSize(e.Message)
	}
	if w.all = w.all[len(out):]; len(w.all) == 0 {
		w.all = nil
	}
	return out
}

// sweep removes the messages whose time is over, and tells of each.
func (w *waitingRoom) sweep(now time.Time, expired func(*actor.PID, any)) {
	all := w.all
	*w = waitingRoom{all: make([]rt.Envelope, 0, len(all))}
	for _, e := range all {
		if e.Expired(now) {
			expired(e.Sender, e.Message)
			continue
		}
		w.add(e)
	}
}

package rt

import "github.com/asynkron/protoactor-go/actor"

// inlineEntries is how many entries a lane holds before it allocates. Most
// request actors never have more than two messages waiting.
const inlineEntries = 2

// keepEntries is the largest buffer that is kept for reuse; a longer one was a
// burst and is given back to the collector.
const keepEntries = 1024

// entry is one waiting message.
type entry struct {
	// message is as posted: a bare message or a *actor.MessageEnvelope.
	message any
	// deadline is on the mailbox's clock; 0 is none.
	deadline int64
	// size is what Size said when the message came in.
	size int
}

// lane is a queue with two buffers: senders append to one under the mailbox's
// lock while the actor empties the other without it. So the actor takes the
// lock once for all that is waiting and not once for each.
type lane struct {
	// in belongs to the mailbox's lock.
	in []entry
	// out and next belong to the goroutine that runs the mailbox.
	out  []entry
	next int

	inline [2][inlineEntries]entry
}

func (l *lane) init() {
	l.in = l.inline[0][:0]
	l.out = l.inline[1][:0]
}

// push appends and reports whether the buffer was empty; the mailbox's lock is
// held.
func (l *lane) push(e entry) bool {
	l.in = append(l.in, e)
	return len(l.in) == 1
}

// swap turns the two buffers once out is used up; the mailbox's lock is held.
// It reports false if nothing is waiting.
func (l *lane) swap() bool {
	if len(l.in) == 0 {
		return false
	}
	spare := l.out[:0]
	if cap(spare) > keepEntries {
		spare = nil
	}
	l.out, l.in = l.in, spare
	l.next = 0
	return true
}

// used reports whether every entry of out has been taken.
func (l *lane) used() bool { return l.next >= len(l.out) }

// pop takes the next entry of out and forgets it, so that a handled message is
// not kept alive by the buffer.
func (l *lane) pop() (entry, bool) {
	if l.next >= len(l.out) {
		return entry{}, false
	}
	e := l.out[l.next]
	l.out[l.next] = entry{}
	l.next++
	return e, true
}

// drain empties both buffers; the mailbox's lock is held and no handler runs.
func (l *lane) drain(to []entry) []entry {
	to = append(to, l.out[min(l.next, len(l.out)):]...)
	to = append(to, l.in...)
	clear(l.out)
	clear(l.in)
	l.out, l.in, l.next = l.out[:0], l.in[:0], 0
	return to
}

// unwrap splits what was posted into message and sender without allocating.
func unwrap(posted any) (any, *actor.PID) {
	if env, ok := posted.(*actor.MessageEnvelope); ok {
		return env.Message, env.Sender
	}
	return posted, nil
}

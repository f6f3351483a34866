package link

import (
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/messages"
)

// itemOverhead is what an item weighs besides its payload: the item itself and
// its envelope's other fields.
const itemOverhead = 128

// item is one encoded message that waits to be written.
type item struct {
	number  messages.Number
	request bool
	// deadline is on the links' clock, in nanoseconds; 0 is none.
	deadline int64
	target   *actor.PID
	sender   *actor.PID
	// message is what was sent, for Undelivered.
	message any
	payload []byte
	// pooled is where payload goes back to; nil if it is shared.
	pooled *[]byte
}

func (it *item) weight() int { return len(it.payload) + itemOverhead }

// release gives the payload back once it has been copied into a frame or will
// never be.
func (it *item) release() {
	if it.pooled != nil {
		putBuffer(it.pooled)
		it.pooled, it.payload = nil, nil
	}
}

// queue is what waits for one connection. Senders push from any goroutine; the
// connection's writer takes all there is at once. A queue lives and ends with
// its connection, so what is pushed can never go out on a later one, after the
// peer has perhaps restarted.
type queue struct {
	maxMessages, maxBytes int64
	// messages and bytes include what the writer has taken and not yet written.
	messages, bytes atomic.Int64
	// wake has one slot: the writer looks again.
	wake chan struct{}

	mu     sync.Mutex
	items  []item
	sealed bool // nothing can be pushed any more
}

func newQueue(maxMessages, maxBytes int) *queue {
	return &queue{maxMessages: int64(maxMessages), maxBytes: int64(maxBytes), wake: make(chan struct{}, 1)}
}

// push queues the item; 0 means it was taken. One message larger than the
// bound is taken when nothing else waits.
func (q *queue) push(it *item) Reason {
	weight := int64(it.weight())
	q.mu.Lock()
	if q.sealed {
		q.mu.Unlock()
		return NotConnected
	}
	waiting := q.messages.Load()
	if waiting >= q.maxMessages || waiting > 0 && q.bytes.Load()+weight > q.maxBytes {
		q.mu.Unlock()
		return Full
	}
	q.items = append(q.items, *it)
	first := len(q.items) == 1
	q.messages.Add(1)
	q.bytes.Add(weight)
	q.mu.Unlock()
	if first {
		q.poke()
	}
	return 0
}

// poke wakes the writer.
func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take swaps all that waits for the writer's spare slice. What it returns still
// counts until done.
func (q *queue) take(spare []item) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return spare[:0]
	}
	taken := q.items
	q.items = spare[:0]
	return taken
}

// done frees the place of items that were written or given up.
func (q *queue) done(n, weight int) {
	q.messages.Add(-int64(n))
	q.bytes.Add(-int64(weight))
}

// seal ends pushing. What waits stays for the writer to take.
func (q *queue) seal() {
	q.mu.Lock()
	q.sealed = true
	q.mu.Unlock()
	q.poke()
}

// isSealed reports whether the writer should finish when nothing waits.
func (q *queue) isSealed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sealed
}

// close seals the queue and returns what the writer has not taken.
func (q *queue) close() []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sealed = true
	left := q.items
	q.items = nil
	for i := range left {
		q.done(1, left[i].weight())
	}
	return left
}

// Buffers for payloads. Large ones are left to the collector, so that one
// burst of large values does not stay in memory for ever.
const maxPooled = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

func getBuffer() *[]byte { return buffers.Get().(*[]byte) }

func putBuffer(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

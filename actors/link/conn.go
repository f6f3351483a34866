package link

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// frameTarget is how large a frame grows when many messages wait. Longer ones
// save nothing and delay heartbeats.
const frameTarget = 128 << 10

// keepBuffer is the largest buffer a connection keeps between frames.
const keepBuffer = 1 << 20

// keepItems is the longest list of items the writer keeps between takes.
const keepItems = 1024

// conn is one connection after its hello: a reader and a writer, which end
// together. It belongs to its peer's actor and reports its end to it once.
type conn struct {
	links  *Links
	outlet *outlet
	wire   *wire
	queue  *queue
	lane   int
	number uint64 // the machine's
	peer   Hello
	// told is the cluster id in our hello.
	told []byte
	// limited: only founding messages may pass.
	limited bool
	began   time.Time
	// ended is called once, on a goroutine of the connection, when both have
	// ended or will end at once.
	ended func(c *conn, err error)

	pongs chan uint64
	done  chan struct{}
	once  sync.Once
	work  sync.WaitGroup

	// The reader's: interned actor ids, PIDs of vnodes that answer, and what is known of
	// the peer's clock.
	targets map[string]string
	senders map[string]*actor.PID
	bound   bound
}

// newConn makes a connection whose description is still to be filled in.
func newConn() *conn {
	return &conn{
		pongs: make(chan uint64, 1), done: make(chan struct{}),
		targets: make(map[string]string), senders: make(map[string]*actor.PID), began: time.Now(),
	}
}

// start runs reader and writer. first is written before anything else.
func (c *conn) start(first []byte) {
	c.wire.idle = c.links.config.Silence
	c.work.Go(func() { c.fail(c.write(first)) })
	c.work.Go(func() { c.fail(c.read()) })
}

// fail ends the connection; the first reason counts.
func (c *conn) fail(err error) {
	c.once.Do(func() {
		close(c.done)
		c.links.closeWire(c.wire)
		for _, it := range c.queue.close() {
			c.links.undelivered(c.outlet, c.outlet.id, &it, Broken)
		}
		c.ended(c, err)
	})
}

// close ends the connection for a reason of this end, telling the peer as far
// as that is possible without waiting, and waits for its goroutines.
func (c *conn) close(err error) {
	c.fail(err)
	c.work.Wait()
}

// drain lets the writer finish what is queued, then closes.
func (c *conn) drain(limit time.Duration) {
	c.queue.seal()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	}
	c.close(ErrStopped)
}

// write is the writer: it takes all that is queued, as often as there is
// something, and sees to the heartbeats.
func (c *conn) write(buf []byte) error {
	ticker := time.NewTicker(c.links.config.Heartbeat)
	defer ticker.Stop()
	var items []item
	for {
		if err := c.flush(&buf); err != nil {
			return err
		}
		items = c.queue.take(items)
		if len(items) > 0 {
			written, err := c.writeItems(items, &buf)
			for i := written; i < len(items); i++ {
				c.links.undelivered(c.outlet, c.outlet.id, &items[i], Broken)
			}
			if clear(items); cap(items) > keepItems {
				items = nil
			}
			if err != nil {
				return err
			}
			// Many senders at once must not keep heartbeats from going out.
			select {
			case <-ticker.C:
				buf = appendPing(buf, c.links.clock())
			case stamp := <-c.pongs:
				buf = appendPong(buf, stamp, c.links.clock())
			case <-c.done:
				return nil
			default:
			}
			continue
		}
		if c.queue.isSealed() {
			return c.sayBye()
		}
		select {
		case <-c.queue.wake:
		case <-ticker.C:
			c.checkCluster()
			buf = appendPing(buf, c.links.clock())
		case stamp := <-c.pongs:
			buf = appendPong(buf, stamp, c.links.clock())
		case <-c.done:
			return nil
		}
	}
}

// sayBye is the last thing the writer of an orderly stop does. It leaves the
// closing to the peer, which closes when it reads this: a socket closed with
// unread bytes in it takes back what it has not sent yet.
func (c *conn) sayBye() error {
	bye := &Refusal{Code: RefusedStopping, Text: c.links.config.NodeID + " ends the link"}
	if err := c.wire.refuse(bye); err != nil {
		return err
	}
	<-c.done
	return nil
}

// writeItems writes items as frames and returns how many of them were written
// or may have been: what was part of a frame whose write failed is in doubt.
func (c *conn) writeItems(items []item, buf *[]byte) (int, error) {
	for next := 0; next < len(items); {
		var start, packed, weight int
		*buf, start = beginFrame(*buf, kindEnvelopes)
		now := c.links.now()
		first := next
		for ; next < len(items); next++ {
			it := &items[next]
			size := len(it.payload) + envelopeOverhead
			if packed > 0 && len(*buf)-start+size > frameTarget {
				break
			}
			weight += it.weight()
			if it.deadline != 0 && now >= it.deadline {
				c.links.undelivered(c.outlet, c.outlet.id, it, Expired)
				continue
			}
			*buf = appendEnvelope(*buf, it, remaining(it.deadline, now))
			it.release()
			packed++
		}
		if packed == 0 {
			*buf = (*buf)[:start]
		} else {
			*buf = endFrame(*buf, start)
		}
		err := c.flush(buf)
		c.queue.done(next-first, weight)
		if err != nil {
			for i := next; i < len(items); i++ {
				c.queue.done(1, items[i].weight())
			}
			return next, err
		}
		if packed > 0 {
			c.outlet.sent.Add(uint64(packed))
			c.outlet.frames.Add(1)
		}
	}
	return len(items), nil
}

// remaining is what is left of a deadline in whole milliseconds, at least one.
func remaining(deadline, now int64) uint32 {
	if deadline == 0 {
		return 0
	}
	ms := (deadline - now + int64(time.Millisecond) - 1) / int64(time.Millisecond)
	return uint32(min(max(ms, 1), 1<<32-1))
}

// flush writes the buffer and empties it.
func (c *conn) flush(buf *[]byte) error {
	if len(*buf) == 0 {
		return nil
	}
	began := time.Now()
	err := c.wire.write(*buf, c.links.config.Silence)
	c.outlet.sentBytes.Add(uint64(len(*buf)))
	if took := time.Since(began); took > c.links.config.Heartbeat && c.links.config.Observer.Slow != nil {
		c.links.config.Observer.Slow(c.outlet.id, took)
	}
	if *buf = (*buf)[:0]; cap(*buf) > keepBuffer {
		*buf = nil
	}
	return err
}

// read is the reader: it delivers until the connection ends.
func (c *conn) read() (err error) {
	defer func() {
		// Actors recover their own panics; this is a process of another kind
		// that panicked on our goroutine. Its bytes are consumed, so the
		// connection starts afresh.
		if reason := recover(); reason != nil {
			c.links.logger.Error("a message's target panicked", "peer", c.peer.NodeID, "reason", reason, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrDelivery, reason)
		}
	}()
	var buf []byte
	for {
		kind, body, used, err := readFrame(c.wire.br, c.links.config.MaxFrame, buf)
		if err != nil {
			return err
		}
		c.outlet.receivedBytes.Add(uint64(len(used) + headerLen))
		if err := c.frame(kind, body); err != nil {
			return err
		}
		if buf = used; cap(buf) > keepBuffer {
			buf = nil
		}
	}
}

// frame handles one frame. Unknown kinds belong to newer versions.
func (c *conn) frame(kind byte, body []byte) error {
	switch kind {
	case kindEnvelopes:
		c.outlet.inFrame.Add(1)
		for len(body) > 0 {
			e, rest, err := parseEnvelope(body)
			if err != nil {
				return err
			}
			c.deliver(&e)
			body = rest
		}
	case kindPing:
		d := decoder{rest: body}
		stamp := d.uint64()
		select {
		case c.pongs <- stamp:
		default: // the writer is behind; the next ping will do
		}
	case kindPong:
		d := decoder{rest: body}
		c.heard(d.uint64(), d.uint64())
	case kindRefusal:
		r, err := parseRefusal(body)
		if err != nil {
			return err
		}
		r.Peer, r.Address = c.peer.NodeID, c.wire.RemoteAddr().String()
		return r
	case kindHello, kindWelcome:
		return fmt.Errorf("%w: a second hello", ErrFrame)
	}
	return nil
}

// heard takes the answer to a stamp, and the round trip. That is smoothed over eight
// heartbeats.
func (c *conn) heard(stamp, clock uint64) {
	b := c.links.answers(stamp, clock)
	if b == (bound{}) {
		return // not a stamp of ours
	}
	c.bound = b
	if c.lane != LaneRequest {
		return // it may have waited behind bulk
	}
	rtt := c.links.clock() - b.own
	smooth := c.outlet.rtt.Load()
	if smooth == 0 {
		smooth = int64(rtt)
	}
	c.outlet.rtt.Store(smooth + (int64(rtt)-smooth)/8)
	if c.links.config.Observer.Heard != nil {
		c.links.config.Observer.Heard(c.outlet.id, rtt)
	}
}

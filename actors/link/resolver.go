package link

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/messages"
)

// Shared is a message that goes to several nodes and is encoded once. Like any
// message it must not change after it is sent. It is safe for concurrent use.
type Shared struct {
	message proto.Message
	once    sync.Once
	payload []byte
	err     error
}

// Share wraps a message that will be sent to several actors. Only PIDs of other
// nodes may get the wrapper itself: see For.
func Share(m proto.Message) *Shared { return &Shared{message: m} }

// Message is what was shared.
func (s *Shared) Message() proto.Message { return s.message }

// For returns what to send to pid: the message itself if the actor is on this
// node, the wrapper if it is elsewhere.
func (s *Shared) For(system *actor.ActorSystem, pid *actor.PID) any {
	if pid.GetAddress() == system.Address() {
		return s.message
	}
	return s
}

func (s *Shared) encode() ([]byte, error) {
	s.once.Do(func() { s.payload, s.err = proto.Marshal(s.message) })
	return s.payload, s.err
}

// outlet is where messages to one peer go: the queues of its connections. It
// is separate from the peer's actor because senders use it directly.
type outlet struct {
	id    string
	route *route // for PIDs made while the peer is known
	lanes [lanes]atomic.Pointer[queue]
	counters
}

// push hands an item to its lane.
func (o *outlet) push(lane int, it *item) Reason {
	q := o.lanes[lane].Load()
	if q == nil {
		return NotConnected
	}
	return q.push(it)
}

// route is the process behind the PIDs of one node. The library keeps it in
// each PID for ever, so it must outlive connections and peers: it looks the
// outlet up again when its own is gone.
type route struct {
	links *Links
	id    string
	last  atomic.Pointer[outlet]
}

var _ actor.Process = (*route)(nil)

// resolve is the address resolver: every address but our own is a node's id.
// PIDs of a peer that is known share one route.
func (l *Links) resolve(pid *actor.PID) (actor.Process, bool) {
	if pid.GetAddress() == "" {
		return nil, false
	}
	if o := l.outlet(pid.GetAddress()); o != nil {
		return o.route, true
	}
	return &route{links: l, id: pid.GetAddress()}, true
}

func (r *route) outlet() *outlet {
	o := r.last.Load()
	if o != nil && !o.gone.Load() {
		return o
	}
	if o = r.links.outlet(r.id); o != nil {
		r.last.Store(o)
	}
	return o
}

// SendUserMessage implements actor.Process: encode and queue, or tell the
// sender that it did not work. It never blocks.
func (r *route) SendUserMessage(pid *actor.PID, posted any) {
	_, message, sender := actor.UnwrapEnvelope(posted)
	switch message.(type) {
	case actor.SystemMessage, actor.AutoReceiveMessage, actor.MailboxMessage:
		r.links.dropped(r.outlet(), r.id, System)
		return
	}
	o := r.outlet()
	if reason := r.links.send(o, pid, sender, message); reason != 0 {
		r.links.undelivered(o, r.id, &item{target: pid, sender: sender, message: message}, reason)
	}
}

// SendSystemMessage implements actor.Process. System messages govern the life
// of actors, and a node's actors live by that node's decisions alone.
func (r *route) SendSystemMessage(*actor.PID, any) { r.links.dropped(r.outlet(), r.id, System) }

// Stop implements actor.Process.
func (r *route) Stop(*actor.PID) { r.links.dropped(r.outlet(), r.id, System) }

// send encodes a message and queues it; 0 means it is queued.
func (l *Links) send(o *outlet, target, sender *actor.PID, message any) Reason {
	if o == nil {
		return NotConnected
	}
	it := item{target: target, sender: sender}
	reason := l.encode(&it, message)
	if reason != 0 {
		return reason
	}
	lane := LaneRequest
	if info, _ := messages.InfoOf(it.number); info.Bulk {
		lane = LaneBulk
	}
	if reason = o.push(lane, &it); reason != 0 {
		it.release()
	}
	return reason
}

// encode fills in an item from a message.
func (l *Links) encode(it *item, message any) Reason {
	if it.sender != nil && it.sender.Address != l.config.NodeID {
		return Unencodable
	}
	if len(it.target.Id) > MaxActorID || len(it.sender.GetId()) > MaxActorID {
		return Unencodable
	}
	shared, isShared := message.(*Shared)
	if isShared {
		message = shared.message
	}
	m, ok := message.(proto.Message)
	if !ok {
		return Unencodable
	}
	if it.number, ok = messages.NumberOf(m); !ok {
		return Unencodable
	}
	info, _ := messages.InfoOf(it.number)
	it.request, it.message = info.Request, m
	if timed, ok := message.(messages.Timed); ok {
		if ms := timed.GetTimeoutMs(); ms > 0 {
			it.deadline = l.now() + int64(ms)*int64(time.Millisecond)
		}
	}
	if isShared {
		payload, err := shared.encode()
		if err != nil {
			return Unencodable
		}
		it.payload = payload
	} else {
		it.pooled = getBuffer()
		payload, err := proto.MarshalOptions{}.MarshalAppend((*it.pooled)[:0], m)
		*it.pooled, it.payload = payload, payload
		if err != nil {
			it.release()
			return Unencodable
		}
	}
	if len(it.payload)+envelopeOverhead > l.config.MaxFrame {
		it.release()
		return TooLarge
	}
	return 0
}

// undelivered counts a message that was not sent and tells its sender.
func (l *Links) undelivered(o *outlet, peer string, it *item, reason Reason) {
	it.release()
	l.dropped(o, peer, reason)
	if it.sender == nil || it.sender.Address != l.config.NodeID {
		return
	}
	message := it.message
	if s, ok := message.(*Shared); ok {
		message = s.message
	}
	l.system.Root.Send(it.sender, &Undelivered{Target: it.target, Message: message, Reason: reason})
}

// dropped counts one message that did not get through in either direction.
func (l *Links) dropped(o *outlet, peer string, reason Reason) {
	if o != nil {
		o.dropped[reason].Add(1)
	}
	l.drops[reason].Add(1)
	if l.config.Observer.Dropped != nil {
		l.config.Observer.Dropped(peer, reason, 1)
	}
}

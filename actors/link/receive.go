package link

import (
	"bytes"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/messages"
)

// maxInterned is how many actor ids a reader remembers. The ids that requests
// go to (vnodes, the coordinator) come again and again; those of answers do not.
const maxInterned = 1024

// deliver hands one received message to its actor, on the reader's goroutine.
// What the sender may do is decided before the payload is looked at.
func (c *conn) deliver(e *envelope) {
	c.outlet.received.Add(1)
	info, known := messages.InfoOf(e.number)
	if !known {
		c.reject(e, Unsupported, "message number %d is not known here", e.number)
		return
	}
	target := c.intern(e)
	if !messages.Allowed(c.peer.Role, e.number, target) {
		c.reject(e, Forbidden, "a %v may not send %s to %q", c.peer.Role, info.Name, target)
		return
	}
	if c.limited && !foundingNumbers[info.Name] {
		c.reject(e, Forbidden, "no %s before the cluster is founded", info.Name)
		return
	}
	process, ok := c.links.system.ProcessRegistry.GetLocal(target)
	if !ok {
		c.reject(e, NoTarget, "there is no actor %q", target)
		return
	}
	message, _ := messages.New(e.number)
	if err := proto.Unmarshal(e.payload, message); err != nil {
		c.reject(e, Undecodable, "%s: %v", info.Name, err)
		return
	}
	if timed, ok := message.(messages.Timed); ok && e.ttl > 0 {
		if own := timed.GetTimeoutMs(); own == 0 || e.ttl < own {
			timed.SetTimeoutMs(e.ttl)
		}
	}
	if dated, ok := message.(messages.Dated); ok {
		dated.SetReadMs(c.bound.date(dated.GetReadMs()))
	}
	process.SendUserMessage(c.pid(process, target, e), &actor.MessageEnvelope{Message: message, Sender: c.sender(e)})
}

// pid is the target's PID for processes that look at it: a request id in it
// tells them which request an answer belongs to. Actors do not see it.
func (c *conn) pid(process actor.Process, target string, e *envelope) *actor.PID {
	if _, ok := process.(*actor.ActorProcess); ok {
		return nil
	}
	return &actor.PID{Address: c.links.config.NodeID, Id: target, RequestId: e.targetRequest}
}

// sender is whom to answer. Its address is the connection's identity, whatever
// the peer would like it to be.
//
// What answers a node is a vnode nearly always, so those PIDs are kept.
func (c *conn) sender(e *envelope) *actor.PID {
	if len(e.sender) == 0 {
		return nil
	}
	if e.request || e.senderRequest != 0 || !bytes.HasPrefix(e.sender, vnodePrefix) {
		return c.newSender(e)
	}
	if pid, ok := c.senders[string(e.sender)]; ok {
		return pid
	}
	if len(c.senders) >= maxInterned {
		clear(c.senders)
	}
	pid := c.newSender(e)
	c.senders[pid.Id] = pid
	return pid
}

var vnodePrefix = []byte(messages.TargetVnode)

func (c *conn) newSender(e *envelope) *actor.PID {
	return &actor.PID{Address: c.peer.NodeID, Id: string(e.sender), RequestId: e.senderRequest}
}

// intern returns the target's id as a string, the same one for the same bytes
// if it is the target of requests.
func (c *conn) intern(e *envelope) string {
	if !e.request {
		return string(e.target)
	}
	if s, ok := c.targets[string(e.target)]; ok {
		return s
	}
	if len(c.targets) >= maxInterned {
		clear(c.targets)
	}
	s := string(e.target)
	c.targets[s] = s
	return s
}

// reject counts a message that is not delivered and, if its sender waits for
// an answer, gives it one, in the name of "links", so that it learns which node
// refused. The answer goes the way of all messages: bounded,
// and dropped if the peer does not take it.
func (c *conn) reject(e *envelope, reason Reason, format string, args ...any) {
	c.links.dropped(c.outlet, c.outlet.id, reason)
	to := c.sender(e)
	if !e.request || to == nil {
		return
	}
	failure := messages.Fail(reason.Code(), format, args...)
	if r := c.links.send(c.outlet, to, c.links.rootPID(), failure); r != 0 {
		c.links.dropped(c.outlet, c.outlet.id, r)
	}
}

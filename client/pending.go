package client

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/messages"
)

// answered is what came back for one attempt.
type answered struct {
	// node is who answered, or who was asked and could not be.
	node    string
	message any
}

// attempt is one message that was sent and awaits its answer.
type attempt struct {
	node string
	done chan answered // buffered, gets one answer
}

// pending is where answers arrive: a process of the actor system whose PID
// carries the number of the attempt. It is no actor, for an answer needs no
// turn: it wakes exactly the goroutine that waits for it.
type pending struct {
	pid *actor.PID

	mu       sync.Mutex
	next     uint32
	attempts map[uint32]*attempt
	closed   bool
}

func newPending(system *actor.ActorSystem, name string) *pending {
	p := &pending{attempts: make(map[uint32]*attempt)}
	p.pid, _ = system.ProcessRegistry.Add(p, name)
	return p
}

// open registers an attempt at a node and returns the PID to answer to; nil
// when the client is closed.
func (p *pending) open(node string) (*attempt, *actor.PID) {
	a := &attempt{node: node, done: make(chan answered, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	for {
		p.next++
		if _, taken := p.attempts[p.next]; p.next != 0 && !taken {
			break
		}
	}
	p.attempts[p.next] = a
	return a, &actor.PID{Address: p.pid.Address, Id: p.pid.Id, RequestId: p.next}
}

// drop forgets an attempt whose answer is not waited for any more.
func (p *pending) drop(pid *actor.PID) {
	p.mu.Lock()
	delete(p.attempts, pid.RequestId)
	p.mu.Unlock()
}

// answer hands a message to the attempt with the number, once; later ones find
// nobody.
func (p *pending) answer(number uint32, node string, message any) {
	p.mu.Lock()
	a := p.attempts[number]
	delete(p.attempts, number)
	p.mu.Unlock()
	if a != nil {
		if node == "" {
			node = a.node
		}
		a.done <- answered{node: node, message: message}
	}
}

// lost fails all attempts at a node whose connection broke: they may have been
// carried out or not.
func (p *pending) lost(node string, why error) {
	failure := messages.Fail(messages.CodeUnknown, "the connection to %s broke: %v", node, why)
	p.mu.Lock()
	var numbers []uint32
	for n, a := range p.attempts {
		if a.node == node {
			numbers = append(numbers, n)
		}
	}
	p.mu.Unlock()
	for _, n := range numbers {
		p.answer(n, node, failure)
	}
}

// close fails everything that is waited for.
func (p *pending) close() {
	p.mu.Lock()
	p.closed = true
	all := p.attempts
	p.attempts = map[uint32]*attempt{}
	p.mu.Unlock()
	for _, a := range all {
		a.done <- answered{node: a.node, message: ErrClosed}
	}
}

// SendUserMessage implements actor.Process.
func (p *pending) SendUserMessage(pid *actor.PID, message any) {
	_, m, sender := actor.UnwrapEnvelope(message)
	node := sender.GetAddress()
	if u, ok := m.(*link.Undelivered); ok {
		node = u.Target.GetAddress()
		m = messages.Fail(messages.CodeUnreachable, "%v", u.Reason)
	}
	p.answer(pid.GetRequestId(), node, m)
}

// SendSystemMessage implements actor.Process; there is nothing to do.
func (p *pending) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process; there is nothing to stop.
func (p *pending) Stop(*actor.PID) {}

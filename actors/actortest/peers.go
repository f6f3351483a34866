package actortest

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/link"
)

// Peers stand for all other nodes: what is sent to one of them goes to a
// function of the test, in the sender's goroutine. A node without a function is
// not connected, and the sender is told as the links tell it.
type Peers struct {
	system *actor.ActorSystem
	mu     sync.Mutex
	nodes  map[string]func(Received)
}

// NewPeers takes the place of the links in an actor system.
func NewPeers(system *actor.ActorSystem) *Peers {
	p := &Peers{system: system, nodes: map[string]func(Received){}}
	system.ProcessRegistry.RegisterAddressResolver(func(pid *actor.PID) (actor.Process, bool) {
		return peer{p}, true
	})
	return p
}

// Handle connects a node; nil disconnects it.
func (p *Peers) Handle(node string, f func(Received)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes[node] = f
}

// Answer sends an answer to whoever sent r, from the actor that r was sent to.
func (p *Peers) Answer(r Received, message any) {
	if r.Sender != nil {
		p.system.Root.RequestWithCustomSender(actor.NewPID(r.Sender.Address, r.Sender.Id), message, r.Target)
	}
}

// peer is the process behind the PIDs of other nodes.
type peer struct{ p *Peers }

// SendUserMessage implements actor.Process.
func (x peer) SendUserMessage(pid *actor.PID, posted any) {
	_, message, sender := actor.UnwrapEnvelope(posted)
	if s, ok := message.(*link.Shared); ok {
		message = s.Message()
	}
	x.p.mu.Lock()
	f := x.p.nodes[pid.GetAddress()]
	x.p.mu.Unlock()
	switch {
	case f != nil:
		f(Received{Target: pid, Sender: sender, Message: message})
	case sender != nil:
		x.p.system.Root.Send(sender, &link.Undelivered{Target: pid, Message: message, Reason: link.NotConnected})
	}
}

// SendSystemMessage implements actor.Process: such messages stay on their node.
func (x peer) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process: nobody stops actors of other nodes.
func (x peer) Stop(*actor.PID) {}

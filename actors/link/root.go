package link

import (
	"strings"

	"github.com/asynkron/protoactor-go/actor"
)

// Messages of the root actor.
type (
	// reconcile: what is wanted has changed.
	reconcile struct{}
	// clusterChanged: connections made under another cluster id must go.
	clusterChanged struct{}
	// removed: the peer must go now.
	removed struct{ id string }
	// unwanted: the peer's address turned out to be another node's.
	unwanted struct{ id string }
	// askAgain: another node is at the address than before.
	askAgain struct{ address string }
	// inbound: somebody has called, and its hello is acceptable.
	inbound struct {
		wire  *wire
		hello Hello
	}
)

func (m *inbound) held() *wire { return m.wire }

// root is the actor "links": it starts and stops one actor per peer and per
// address that is being asked. A child that fails is restarted after a pause.
type root struct {
	links    *Links
	children map[string]*child // by actor name
}

// child is one actor below. A name can be used again only when the actor has
// gone, so what comes for it meanwhile waits.
type child struct {
	pid      *actor.PID
	stopping bool
	waiting  []*inbound
}

// Receive implements actor.Actor.
func (r *root) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		r.children = make(map[string]*child)
		r.reconcile(ctx)
	case *reconcile:
		r.reconcile(ctx)
	case *clusterChanged:
		r.broadcast(ctx, m)
	case *removed:
		r.stop(ctx, m.id)
		r.reconcile(ctx)
	case *unwanted:
		r.forward(ctx, m.id, &readdress{})
	case *askAgain:
		r.forward(ctx, prospectName(m.address), m)
	case *inbound:
		r.inbound(ctx, m)
	case *actor.Terminated:
		r.terminated(ctx, m.Who)
	case *actor.Restarting:
		r.abandon()
	case *actor.Stopped:
		r.abandon()
		close(r.links.ended)
	}
}

// reconcile brings the children in line with what is wanted. Peers that are
// not wanted have called us; they end by themselves (idleCheck).
func (r *root) reconcile(ctx actor.Context) {
	peers, prospects := r.links.plan()
	for id := range peers {
		if c := r.peer(ctx, id); c != nil && !c.stopping {
			ctx.Send(c.pid, &readdress{})
		}
	}
	for address, p := range prospects {
		name := prospectName(address)
		if r.children[name] == nil {
			r.spawn(ctx, name, func() actor.Actor { return &asker{prospect: p} })
		}
	}
	for name, c := range r.children {
		address, is := prospectAddress(name)
		if is && prospects[address] == nil && !c.stopping {
			r.stop(ctx, name)
		}
	}
}

// peer returns the peer's child, spawned if there is none.
func (r *root) peer(ctx actor.Context, id string) *child {
	if c := r.children[id]; c != nil {
		return c
	}
	o := &outlet{id: id, route: &route{links: r.links, id: id}}
	o.route.last.Store(o)
	r.links.outlets.Store(id, o)
	c := r.spawn(ctx, id, func() actor.Actor { return newPeer(r.links, o) })
	if c == nil {
		r.links.outlets.CompareAndDelete(id, o)
	}
	return c
}

// spawn starts a child; nil if it cannot be. While this actor stops it still
// gets messages, and a child spawned then would be told by nobody to stop.
func (r *root) spawn(ctx actor.Context, name string, producer actor.Producer) *child {
	if r.links.isStopping() {
		return nil
	}
	pid, err := ctx.SpawnNamed(r.links.props(producer), name)
	if err != nil {
		// The name is taken by a child that we do not know of: a defect.
		r.links.logger.Error("spawning a link failed", "name", name, "error", err)
		return nil
	}
	c := &child{pid: pid}
	r.children[name] = c
	return c
}

func (r *root) stop(ctx actor.Context, name string) {
	if c := r.children[name]; c != nil && !c.stopping {
		c.stopping = true
		ctx.Stop(c.pid)
	}
}

func (r *root) inbound(ctx actor.Context, m *inbound) {
	c := r.peer(ctx, m.hello.NodeID)
	switch {
	case c == nil:
		r.links.closeWire(m.wire)
	case c.stopping:
		c.waiting = append(c.waiting, m)
	default:
		ctx.Send(c.pid, m)
	}
}

func (r *root) terminated(ctx actor.Context, who *actor.PID) {
	name := strings.TrimPrefix(who.Id, ctx.Self().Id+"/")
	c := r.children[name]
	if c == nil {
		return
	}
	delete(r.children, name)
	for _, m := range c.waiting {
		r.inbound(ctx, m)
	}
	if r.links.isStopping() {
		return
	}
	// It may be wanted again by now.
	if _, is := prospectAddress(name); is || r.links.addressOf(name) != "" {
		r.reconcile(ctx)
	}
}

func (r *root) forward(ctx actor.Context, name string, message any) {
	if c := r.children[name]; c != nil && !c.stopping {
		ctx.Send(c.pid, message)
	}
}

func (r *root) broadcast(ctx actor.Context, message any) {
	for name, c := range r.children {
		if _, is := prospectAddress(name); !is && !c.stopping {
			ctx.Send(c.pid, message)
		}
	}
}

// abandon closes the connections that wait for a child.
func (r *root) abandon() {
	for _, c := range r.children {
		for _, m := range c.waiting {
			r.links.closeWire(m.wire)
		}
		c.waiting = nil
	}
}

package link

import (
	"crypto/tls"

	"github.com/dynactor/dynactor/messages"
)

// inbound takes the call of a peer, or refuses it.
func (p *peer) inbound(m *inbound) {
	l := p.lanes[m.hello.Lane]
	a := &arrival{wire: m.wire, hello: m.hello}
	isClient := m.hello.Role == messages.RoleClient
	if c := p.lanes[LaneRequest].conn; isClient && p.address != "" || c != nil && c.peer.Role != m.hello.Role {
		p.refuse(a, RefusedDuplicate) // a client with a node's name, or the reverse
		return
	}
	if isClient && !p.sameRights(l, m.wire) {
		p.refuse(a, RefusedDuplicate)
		return
	}
	if !isClient && !p.alone(&m.hello) {
		p.refuse(a, RefusedDuplicate)
		return
	}
	ev := event{
		kind: evInbound, theirs: mark{m.hello.Start, m.hello.Sequence},
		smaller: m.hello.NodeID < p.links.config.NodeID, client: isClient,
	}
	p.step(l, ev, a)
}

// sameRights reports whether a client's connection may do what the one of its other lane may. A client's id and
// start are no secrets: else anybody could send on one lane as the operator who is connected on the other.
func (p *peer) sameRights(l *lane, w *wire) bool {
	other := p.lanes[LaneRequest+LaneBulk-l.index].conn
	return other == nil || isOperator(other.wire) == isOperator(w)
}

func isOperator(w *wire) bool {
	c, ok := w.Conn.(*tls.Conn)
	return ok && IsOperator(c.ConnectionState())
}

// alone reports whether no other process of the node is connected. A process whose
// connection lives is not replaced by another one under its name: after a restart
// the old connection breaks, at the latest by its silence, and the caller comes
// again. Only a process that is in no cluster gives way to one that is.
func (p *peer) alone(h *Hello) bool {
	c := p.lanes[LaneRequest].conn
	if c == nil || c.peer.Process == h.Process {
		return true
	}
	if !c.limited || len(h.ClusterID) == 0 {
		return false
	}
	for _, l := range p.lanes {
		if l.conn != nil {
			p.step(l, event{kind: evBroken, conn: l.conn.number}, &arrival{err: ErrReplaced})
		}
	}
	return true
}

func (p *peer) refuse(a *arrival, code RefusalCode) {
	r := &Refusal{Peer: p.outlet.id, Address: a.wire.RemoteAddr().String(), Code: code, Ours: true}
	switch code {
	case RefusedDuplicate:
		r.Text = "another process with the id " + p.outlet.id + " is connected"
	case RefusedSuperseded:
		r.Text = "the connection from " + p.links.config.NodeID + " goes on"
	default:
		r.Text = "at " + p.links.config.NodeID
	}
	p.links.refused(r)
	p.work.Go(func() {
		if err := a.wire.refuse(r); err != nil {
			p.links.logger.Debug("refusing failed", "peer", r.Peer, "error", err)
		}
		p.links.closeWire(a.wire)
	})
}

// twin refuses the process that was found at the peer's address when requests go to
// another one, which has called from elsewhere.
func (p *peer) twin(m *greeted) error {
	c := p.lanes[LaneRequest].conn
	if m.lane == LaneRequest || c == nil || c.peer.Process == m.hello.Process {
		return nil
	}
	return &Refusal{Peer: p.outlet.id, Address: m.wire.RemoteAddr().String(), Code: RefusedDuplicate, Ours: true,
		Text: "another process with the id " + p.outlet.id + " is connected than the one that is here"}
}

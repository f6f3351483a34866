package link

import (
	"time"

	"github.com/dynactor/dynactor/messages"
)

// Inspect says which links there are.
func (r *root) Inspect() messages.Fields {
	t, links := r.links.Totals(), messages.Fields{}
	for name, c := range r.children {
		said := "runs"
		if c.stopping {
			said = "ends"
		}
		links = links.Add(name, said)
	}
	return messages.Fields{}.Add("connections", t.Connections).Add("said no hello yet", t.Greeting).Add("refused by this node", t.Refused).
		Add("closed at once", t.Rejected).Add("messages dropped", drops(t.Dropped)).Add("links", links.Sorted())
}

func drops(all map[Reason]uint64) (out messages.Fields) {
	for r, n := range all {
		out = out.Add(r.String(), n)
	}
	return out.Sorted()
}

// Inspect says how the link is.
func (p *peer) Inspect() messages.Fields {
	s := p.outlet.status()
	f := messages.Fields{}.Add("state", s.State).Add("bulk connection", s.Bulk).Add("for", time.Since(s.Since)).Add("role", s.Role).Add("address", s.Address).
		Add("start", s.Start).Add("called by this node", s.Dialled).Add("encrypted", s.Encrypted)
	if s.RTT > 0 {
		f = f.Add("round trip", s.RTT)
	}
	return f.Add("messages to be written", s.QueuedMessages).Add("size of them", messages.Bytes(max(s.QueuedBytes, 0))).Add("times connected", s.Connects).
		Add("messages sent", s.Sent).Add("sent", messages.Bytes(s.SentBytes)).Add("messages got", s.Received).Add("got", messages.Bytes(s.ReceivedBytes)).
		Add("messages dropped", drops(s.Dropped)).Add("last error", s.LastError)
}

// Inspect says who is looked for.
func (a *asker) Inspect() messages.Fields {
	f := messages.Fields{}.Add("address", a.prospect.address).Add("node found", a.prospect.known()).Add("asking", a.asking).Add("attempts", a.attempt).
		Add("failures in a row", a.failures)
	if s := a.prospect.snapshot.Load(); s != nil {
		f = f.Add("last error", s.lastError)
	}
	return f
}

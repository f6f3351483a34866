package sim

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// dropExpired is the mutation that has each replica judge alone what has expired.
func (n *node) dropExpired(p dynamo.Partition) {
	m := &reapDrop{}
	for _, k := range n.c.sorted[p] {
		r := n.record(k, false)
		alive := func(v version.Version) bool { return !v.Expired(n.now()) }
		if len(r.Versions) > 0 && !slices.ContainsFunc(r.Versions, alive) {
			m.places, m.keys, m.hashes = append(m.places, len(m.keys)), append(m.keys, k.index), append(m.hashes, r.CausalHash())
		}
	}
	n.ask(n, p, pid{}, handoffTimeout, m)
}

// renewed is the mutation that has values live as long again where they arrive.
func (v *vnodeShell) renewed(r version.Record) version.Record {
	r.Versions = slices.Clone(r.Versions)
	for i := range r.Versions {
		if x := &r.Versions[i]; x.Expires != 0 {
			x.Expires = v.n.now().Add(x.Expires.Sub(x.Time))
		}
	}
	return r
}

// incarnation draws the name of a vnode that never ran.
func (n *node) incarnation(p dynamo.Partition) clock.Incarnation {
	fresh := n.c.incarnation()
	if n.c.mutation != keepIncarnation && n.c.mutation != dropKeepsName {
		return fresh
	}
	if n.incarnations == nil {
		n.incarnations = map[dynamo.Partition]clock.Incarnation{}
	}
	if old, ok := n.incarnations[p]; ok {
		return old
	}
	n.incarnations[p] = fresh
	return fresh
}

// mutatePut plants the mutations of a client's write.
func (v *vnodeShell) mutatePut(p *vnode.Put, stored *vnode.Stored) {
	switch v.n.c.mutation {
	case contextIgnored:
		p.Context = version.Context{}
	case contextEverything:
		p.Context = stored.Record.Context()
	case noSlack:
		p.Slack = 1
	case dedupeOff:
		recent := slices.Clone(stored.Record.Recent)
		stored.Record.Recent = slices.DeleteFunc(recent, func(x version.Applied) bool { return x.Request == p.Request })
	}
}

// keepEpoch gives a forgotten key's write the dot that the key's first write
// got from this vnode.
func (v *vnodeShell) keepEpoch(k *keyInfo, r *vnode.Result) {
	first, ok := v.n.c.check.firstDot(v.state.Incarnation(), k)
	if !ok {
		return
	}
	rec := &r.Stored.Record
	rec.Clock = clock.Of(clock.Entry{Actor: first.Actor, Counter: first.Counter})
	rec.Versions[0].Dot, r.Dot = first, first
	for i := range rec.Recent {
		rec.Recent[i].Dot = first
	}
}

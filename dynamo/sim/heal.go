package sim

import (
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// heal stands in for anti-entropy: it hands each node's records to all primaries
// of the key, in an order drawn from the seed, through the encoding and
// vnode.Accept, until all have seen all.
func (c *cluster) heal() {
	for i := range c.keys {
		k := &c.keys[i]
		primaries := c.doc.Settled.Preference(k.partition, c.plan.properties.Quorum.N, ring.Everyone)
		for range 2 {
			for _, from := range c.random.fault.Perm(len(c.nodes)) {
				for _, to := range primaries {
					c.exchange(k, c.nodes[from], c.node(to.Node))
				}
			}
		}
	}
	c.harden()
}

// harden makes all that is applied durable.
func (c *cluster) harden() {
	for _, n := range c.nodes {
		n.disk.harden(len(n.disk.pending))
	}
}

// exchange hands one node's record of a key to another, and makes the result
// durable.
func (c *cluster) exchange(k *keyInfo, from, to *node) {
	if from == to || c.violation != nil {
		return
	}
	in := from.record(k, false)
	if in.IsZero() {
		return
	}
	v := to.vnodes[k.partition]
	v.fresh = nil
	in, err := version.Decode(version.Append(nil, in))
	if err != nil {
		c.fail("I8", "%v of %s cannot be decoded after it was encoded: %v", k.key, from.id, err)
		return
	}
	stored := vnode.Stored{}
	if b, ok := to.disk.volatile[string(k.stored)]; ok {
		if s, err := vnode.DecodeStored(k.stored, b); err == nil {
			stored = s
		}
	}
	merged, changed, err := v.accept(k, stored, in)
	if err != nil {
		c.fail("I1", "%s takes %v from %s: %v", to.id, k.key, from.id, err)
		return
	}
	if changed {
		value := vnode.AppendStored(nil, k.stored, merged)
		to.disk.volatile[string(k.stored)], to.disk.durable[string(k.stored)] = value, value
	}
}

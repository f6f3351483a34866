package sim

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
)

// enforced is M2: the document that a node goes by is on its disk, is one that was
// decided on, and is never older than the one before.
func (h *checker) enforced(n *node) {
	v, saved := n.savedVoter()
	d := n.inForce
	if !saved || v.Document.Version < d.Version {
		h.c.fail("M2", "%s goes by version %d, on its disk is %d", n.id, d.Version, v.Document.Version)
	}
	if have, known := h.c.docs[d.Version]; known && !have.Equal(*d) {
		h.c.fail("M1", "%s goes by a version %d that nobody decided on", n.id, d.Version)
	}
	if last := h.versions[n.store]; last > d.Version {
		h.c.fail("M2", "%s goes by version %d after %d", n.id, d.Version, last)
	}
	h.versions[n.store] = d.Version
}

// ballots is what a store has said in the vote for a version.
type ballots struct{ promised, accepted member.Ballot }

// voteKey names a vote.
type voteKey struct {
	store   member.StoreID
	version uint64
}

// votes is M3: a voter never goes back on what it said.
func (h *checker) votes(n *node, version uint64, r member.Reply) {
	said := h.ballots[voteKey{n.store, version}]
	switch r := r.(type) {
	case member.Promised:
		if r.Ballot.Compare(said.promised) < 0 {
			h.c.fail("M3", "%s promises %v for version %d after %v", n.id, r.Ballot, version, said.promised)
		}
		if (member.Ballot{}) != said.accepted && (r.Vote == nil || r.Vote.Ballot.Compare(said.accepted) < 0) {
			h.c.fail("M3", "%s promises %v for version %d and does not tell that it accepted %v", n.id, r.Ballot, version, said.accepted)
		}
	case member.Accepted:
		if r.Ballot.Compare(said.promised) < 0 {
			h.c.fail("M3", "%s accepts %v for version %d after it promised %v", n.id, r.Ballot, version, said.promised)
		}
	}
}

// says is M3 once a voter is heard: what it says is on its disk.
func (h *checker) says(n *node, version uint64, r member.Reply) {
	key := voteKey{n.store, version}
	said := h.ballots[key]
	var ballot member.Ballot
	switch r := r.(type) {
	case member.Promised:
		ballot = r.Ballot
	case member.Accepted:
		ballot = r.Ballot
		if ballot.Compare(said.accepted) > 0 {
			said.accepted = ballot
		}
	}
	if ballot.Compare(said.promised) > 0 {
		said.promised = ballot
	}
	h.ballots[key] = said
	v, _ := n.savedVoter()
	if v.Document.Version+1 < version || v.Document.Version+1 == version && v.Promised.Compare(ballot) < 0 {
		h.c.fail("M3", "%s says %+v for version %d, on its disk is %v for %d", n.id, r, version, v.Promised, v.Document.Version+1)
	}
}

// gave is M5: a fill is given all that its source had when the turn that took the
// request was over. planted is what a fill would read before that.
func (h *checker) gave(v *vnodeShell, m *fillRequest, planted fillReply) {
	if h.c.mutation != fillEarly || m.digests {
		return
	}
	now, _ := v.page(m)
	for i, key := range now.keys {
		at := slices.Index(planted.keys, key)
		if at < 0 {
			h.c.fail("M5", "%s gives a fill nothing of %v, which it has taken before", v.n.id, h.c.keys[key].key)
			return
		}
		a, errA := version.Decode(planted.records[at])
		b, errB := version.Decode(now.records[i])
		if errA != nil || errB != nil || !a.Clock.Descends(b.Clock) {
			h.c.fail("M5", "%s gives a fill an older %v than it has taken before", v.n.id, h.c.keys[key].key)
		}
	}
}

// served is M7: what a vnode serves was planned with a document that says the same as
// its own of where the partition is.
func (h *checker) served(v *vnodeShell, plan uint64) {
	d, old := v.n.inForce, h.c.docs[plan]
	if old.Next != nil && slices.Equal(old.Settled.Replicas(v.partition), old.Next.Replicas(v.partition)) {
		return // it moves in name only, and a node that missed that version need not know
	}
	if h.c.plan.moves() && old.Version > 0 && plan < d.Version && d.Moved(&old, v.partition) {
		h.c.fail("M7", "%s goes by version %d and serves a request for partition %d that was planned with %d", v.n.id, d.Version, v.partition, plan)
	}
}

// dropped takes note of what a node no longer has because others have it.
func (h *checker) dropped(n *node, k *keyInfo, r version.Record) {
	l := h.ledger(k)
	l.handed[n.index] = l.handed[n.index].Merge(r.Clock)
}

// lists checks I4 for a write of a partition that moves: each list of the document
// that it was planned with has its quorum. Fallbacks may be anybody.
func (h *checker) lists(p *putShell, w *put) {
	l, q := h.ledger(p.key), h.c.plan.properties.Quorum
	if !h.c.plan.moves() || h.c.plan.spares > 0 {
		return
	}
	d := h.c.docs[p.plan]
	rings := []ring.Ring{d.Reading(p.key.partition)}
	if also, moves := d.AlsoWriting(p.key.partition, q.N); moves {
		rings = append(rings, also)
	}
	for _, r := range rings {
		have := 0
		list := r.Primaries(p.key.partition, q.N)
		for _, id := range list {
			x := h.c.node(id)
			if x.holds(p.key, w.dot, true) || l.durableDamage[x.index].Covers(w.dot) || l.handed[x.index].Covers(w.dot) || l.doomed.Covers(w.dot) {
				have++
			}
		}
		if have < q.W {
			h.c.fail("I4", "%s acknowledges %v of %v, planned with version %d: of %v %d nodes have it durably; %v", p.n.id, w.dot, p.key.key, p.plan, list, have, q)
		}
	}
}

// checkSettled is M4: when all is at rest all go by one document, and its ring is the
// one that its members should have.
func (c *cluster) checkSettled() {
	d := c.doc
	if !c.plan.moves() || c.violation != nil {
		return
	}
	if why := c.unrest(); why != "" {
		c.fail("M4", "at the end: %s", why)
		return
	}
	for _, x := range d.Members {
		if x.Status == member.Gone {
			continue
		}
		n := c.node(x.ID)
		if x.Status != member.Up || !n.inForce.Equal(d) {
			c.fail("M4", "at the end %s is %v and goes by version %d of %d", x.ID, x.Status, n.inForce.Version, d.Version)
		}
	}
	want, report, err := ring.Claim(d.Settled, d.Claimants(), d.Settled.Partitions(), d.Depth)
	switch {
	case err != nil:
		c.fail("M4", "no ring can be claimed at the end: %v", err)
	case d.Next != nil || !want.SameLists(d.Settled):
		c.fail("M4", "at the end the ring is not the one that is claimed for its members: %d moves off", d.Settled.Moves(want, ring.Focus))
	}
	c.checkBalance(report)
}

// checkPlaces is M6: when all is at rest no node has data that is not its own.
func (c *cluster) checkPlaces() {
	if !c.plan.moves() {
		return
	}
	for _, n := range c.nodes {
		if n.up {
			c.check.empty(n)
		}
	}
}

// empty is M6 for one node: what lies there it is a replica of.
func (h *checker) empty(n *node) {
	for i := range h.c.keys {
		k := &h.c.keys[i]
		_, there := n.disk.volatile[string(k.stored)]
		if there && !h.c.doc.Holds(k.partition, h.c.plan.properties.Quorum.N, n.id) {
			h.c.fail("M6", "%s still has %v, which is not its own", n.id, k.key)
		}
	}
}

// checkBalance is that each member holds its share of the places of a list, give or
// take one. With more replicas than ring.Focus that cannot always be had, and the
// plan that operators look at says so: then it is two.
func (c *cluster) checkBalance(r ring.Report) {
	for _, x := range r.Prefixes {
		if x.N == c.plan.properties.Quorum.N && x.Off > 1+min(1, max(0, x.N-ring.Focus)) {
			c.fail("M4", "at the end a member is %d partitions off its share", x.Off)
		}
	}
}

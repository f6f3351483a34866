package actors

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// Inspect says what this node thinks of the others.
func (d *detectorActor) Inspect() messages.Fields {
	nodes := messages.Fields{}
	for _, n := range d.detector.Nodes(time.Since(d.base)) {
		x := messages.Fields{}.Add("opinion", n.Opinion).Add("slow", n.Slow).Add("requests unanswered in a row", n.Misses).Add("breaks of its link lately", n.Breaks)
		if n.Usual > 0 {
			x = x.Add("usual time to answer", n.Usual)
		}
		nodes = nodes.Add(string(n.Node), x)
	}
	return messages.Fields{}.Add("nodes known", len(nodes)).Add("nodes", nodes).Add("probes waiting for the disk", len(d.asking)+len(d.waiting))
}

// Inspect says how the cluster is as far as this node knows, and what it is about to change.
func (m *membershipActor) Inspect() messages.Fields {
	f := messages.Fields{}
	if m.voter == nil {
		if m.machine != nil {
			f = f.Add("state", m.machine.State())
		}
		return f.Add("waits for", m.note).Add("refused", m.refusal).Add("wait to be staged", len(m.askers))
	}
	state := "member"
	switch {
	case m.s.quarantined() != "":
		state = "in quarantine"
	case m.running != nil:
		state = "proposing"
	}
	f = f.Add("state", state).Add("quarantine", m.s.quarantined())
	if doc := m.s.Document(); doc != nil {
		f = inspectDocument(f, doc)
	}
	f = f.Add("voter's version", m.voter.Document.Version).Add("promised ballot", m.voter.Promised)
	if m.running != nil {
		f = f.Add("ballot's round", m.running.Round())
	}
	changes := messages.Fields{}
	for _, c := range m.changes {
		changes = changes.Add(c.what, time.Until(c.until))
	}
	rows := messages.Fields{}
	for _, r := range m.rows.Sorted() {
		row := messages.Fields{}.Add("version", r.Known).Add("address", r.Address).Add("start", r.Start).Add("row", r.Counter).Add("keeps nothing for others", r.Idle).
			Add("partitions filled", len(r.Filled)).Add("store", messages.Bytes(r.Bytes))
		rows = rows.Add(string(r.Node), since(row, "heard", m.renewed[r.Node]))
	}
	f = f.Add("changes and their time left", changes).Add("commits that wait", len(m.commits)).Add("wait for a version", len(m.waiting))
	return since(f.Add("rows of members", rows), "last gossip", m.last)
}

func inspectDocument(f messages.Fields, doc *member.Document) messages.Fields {
	status := map[string]int{}
	for _, x := range doc.Members {
		status[x.Status.String()]++
	}
	members := messages.Fields{}
	for _, s := range slices.Sorted(maps.Keys(status)) {
		members = members.Add(s, status[s])
	}
	f = f.Add("cluster", doc.ClusterName).Add("version in force", doc.Version).Add("members", members).Add("partitions", doc.Settled.Partitions()).
		Add("buckets", len(doc.Buckets)).Add("staged changes", len(doc.Staged)).Add("replicas being filled", len(doc.Movement.Filling))
	if doc.Next != nil {
		f = f.Add("movement", fmt.Sprintf("announced with version %d", doc.Movement.Announced)).Add("partitions switched", len(doc.Movement.Switched))
	}
	return f.Add("partitions lost", len(doc.Losses()))
}

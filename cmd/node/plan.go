package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// share is what one member holds before and after a plan, for the usual number of
// replicas.
type share struct {
	Member  dynamo.NodeID `json:"member"`
	Before  int           `json:"before"`
	After   int           `json:"after"`
	Gets    int           `json:"gets"`
	Gives   int           `json:"gives"`
	Percent float64       `json:"percent"`
	// Bytes is about how much it is sent: the mean size of a replica, times Gets.
	Bytes uint64 `json:"bytes"`
}

// shares compares two rings, member by member.
func shares(status client.ClusterStatus, p member.Plan) []share {
	each := replicaBytes(status)
	var out []share
	for _, m := range p.Document.Members {
		before, after := p.From.PartitionsOf(m.ID, ring.Focus), p.To.PartitionsOf(m.ID, ring.Focus)
		if m.Status == member.Gone && len(before)+len(after) == 0 {
			continue
		}
		s := share{Member: m.ID, Before: len(before), After: len(after), Gets: missing(after, before), Gives: missing(before, after)}
		s.Percent = 100 * float64(s.After) / float64(p.To.Partitions()*min(ring.Focus, p.To.Depth()))
		s.Bytes = uint64(s.Gets) * each
		out = append(out, s)
	}
	return out
}

// missing counts what of a is not in b.
func missing(a, b []dynamo.Partition) int {
	in := map[dynamo.Partition]bool{}
	for _, p := range b {
		in[p] = true
	}
	n := 0
	for _, p := range a {
		if !in[p] {
			n++
		}
	}
	return n
}

// replicaBytes is the mean size of one partition's replica, as far as the nodes have
// said how much they hold.
func replicaBytes(status client.ClusterStatus) uint64 {
	var bytes uint64
	replicas := 0
	for _, n := range status.Nodes {
		if n.Counter > 0 {
			bytes += n.Bytes
			replicas += len(status.Document.Settled.PartitionsOf(n.Node, ring.Focus))
		}
	}
	if replicas == 0 {
		return 0
	}
	return bytes / uint64(replicas)
}

// showPlan prints who gets what.
func showPlan(w io.Writer, status client.ClusterStatus, p member.Plan) error {
	for _, c := range status.Document.Staged {
		fmt.Fprintln(w, "staged:", describe(c))
	}
	for _, warning := range warnings(status, p) {
		fmt.Fprintln(w, "warning:", warning)
	}
	if p.Queued {
		fmt.Fprintf(w, "A commit changes the members now and the ring later: node cluster commit --version %d\n", status.Document.Version)
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "member\tbefore\tafter\tof all\tgets\tgives\tis sent about\t")
	for _, s := range shares(status, p) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f %%\t%d\t%d\t%d MB\t\n", s.Member, s.Before, s.After, s.Percent, s.Gets, s.Gives, s.Bytes>>20)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d replicas move; no balanced ring does with less than %d.\nTo make it so: node cluster commit --version %d\n",
		p.Moves, p.To.Partitions()*min(ring.Focus, p.To.Depth()), p.LeastMoves, status.Document.Version)
	return err
}

// warnings are those of the plan, and members that it has to wait for.
func warnings(status client.ClusterStatus, p member.Plan) []string {
	out := p.Warnings
	for _, n := range status.Nodes {
		m, ok := p.Document.Member(n.Node)
		if ok && !n.Reachable && !m.Removed && m.Status != member.Gone {
			out = append(out, fmt.Sprintf("%s does not answer: what moves waits for it; if it is dead, remove it", n.Node))
		}
	}
	return out
}

// planJSON is a plan for scripts.
func planJSON(status client.ClusterStatus, p member.Plan) any {
	staged := []string{}
	for _, c := range status.Document.Staged {
		staged = append(staged, c.String())
	}
	return struct {
		Version    uint64   `json:"version"`
		Staged     []string `json:"staged"`
		Warnings   []string `json:"warnings"`
		Queued     bool     `json:"queued"`
		Moves      int      `json:"moves"`
		LeastMoves int      `json:"least_moves"`
		Shares     []share  `json:"members"`
	}{status.Document.Version, staged, append([]string{}, warnings(status, p)...), p.Queued, p.Moves, p.LeastMoves, shares(status, p)}
}

// memberJSON is one member for scripts.
type memberJSON struct {
	Name       dynamo.NodeID `json:"name"`
	Status     string        `json:"status"`
	Seen       string        `json:"seen"`
	Address    string        `json:"address"`
	Zone       string        `json:"zone,omitempty"`
	Capacity   int           `json:"capacity"`
	Partitions int           `json:"partitions"`
	Filling    int           `json:"filling"`
	Bytes      uint64        `json:"bytes"`
}

// forcedJSON is a forced version for scripts.
type forcedJSON struct {
	At      uint64          `json:"at"`
	Version uint64          `json:"version"`
	Lost    []dynamo.NodeID `json:"lost"`
}

// lossJSON is a partition's loss for scripts.
type lossJSON struct {
	Partition dynamo.Partition `json:"partition"`
	N         []int            `json:"n"`
	Waiting   []dynamo.NodeID  `json:"waiting"`
}

// statusJSON is the cluster for scripts.
func statusJSON(status client.ClusterStatus) any {
	d := &status.Document
	out := struct {
		Cluster string         `json:"cluster"`
		Version uint64         `json:"version"`
		Asked   string         `json:"asked"`
		Moving  bool           `json:"moving"`
		Phases  map[string]int `json:"partitions"`
		Members []memberJSON   `json:"members"`
		Staged  []string       `json:"staged"`
		Forced  []forcedJSON   `json:"forced,omitempty"`
		Lost    []lossJSON     `json:"lost,omitempty"`
	}{Cluster: d.ClusterName, Version: d.Version, Asked: status.Asked, Moving: d.Unfinished(), Phases: map[string]int{}, Staged: []string{}}
	for p := range d.Settled.Partitions() {
		out.Phases[d.Phase(dynamo.Partition(p)).String()]++
	}
	known := map[dynamo.NodeID]client.NodeStatus{}
	for _, n := range status.Nodes {
		known[n.Node] = n
	}
	filling := map[dynamo.NodeID]int{}
	for _, f := range d.Movement.Filling {
		filling[f.Node]++
	}
	for _, m := range d.Members {
		n := known[m.ID]
		if n.Address != "" {
			m.Address = n.Address
		}
		out.Members = append(out.Members, memberJSON{
			Name: m.ID, Status: statusWord(m), Seen: seen(m, n), Address: m.Address, Zone: m.Zone, Capacity: m.Capacity,
			Partitions: len(d.Settled.PartitionsOf(m.ID, ring.Focus)), Filling: filling[m.ID], Bytes: n.Bytes,
		})
	}
	for _, c := range d.Staged {
		out.Staged = append(out.Staged, c.String())
	}
	for _, f := range d.Forced {
		out.Forced = append(out.Forced, forcedJSON(f))
	}
	for _, l := range d.Losses() {
		out.Lost = append(out.Lost, lossJSON(l))
	}
	return out
}

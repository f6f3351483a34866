package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// clusterCmd are the operator's commands. Changes are staged, looked at (plan),
// and committed together.
type clusterCmd struct {
	Status      clusterStatusCmd     `cmd:"" help:"Say how the cluster is: members, movement, what is staged."`
	Members     clusterMembersCmd    `cmd:"" help:"List the members."`
	Ring        clusterRingCmd       `cmd:"" help:"List the partitions and who holds them."`
	Transfers   clusterTransfersCmd  `cmd:"" help:"List what nodes have to move, with rate, what is left, last error and next try."`
	Background  clusterBackgroundCmd `cmd:"" help:"List what nodes do besides serving clients: who has slices of time, which share they may take, and why."`
	AAE         clusterAAECmd        `cmd:"" name:"aae" help:"List the pairs of replicas: when they were compared last, what was mended, which was not verified for longest."`
	Repair      clusterRepairCmd     `cmd:"" help:"Compare replicas now, and mend what differs."`
	Join        clusterJoinCmd       `cmd:"" help:"Have a node that is in no cluster (--node) ask to be staged once more."`
	Leave       clusterLeaveCmd      `cmd:"" help:"Stage a member to hand over what it holds and leave."`
	Remove      clusterRemoveCmd     `cmd:"" help:"Stage the removal of members that are dead for good; with --force, remove them at once without a majority."`
	AcceptLoss  clusterAcceptCmd     `cmd:"" help:"Give up what no replica has any more; see status."`
	Replace     clusterReplaceCmd    `cmd:"" help:"Stage a node that is staged to join to take a member's places."`
	SetCapacity clusterCapacityCmd   `cmd:"" help:"Stage another capacity of a member."`
	SetZone     clusterZoneCmd       `cmd:"" help:"Stage another zone of a member."`
	Plan        clusterPlanCmd       `cmd:"" help:"Show what a commit of the staged changes would do."`
	Commit      clusterCommitCmd     `cmd:"" help:"Make the staged changes."`
	Clear       clusterClearCmd      `cmd:"" help:"Drop the staged changes."`
}

// operator are the flags of all of them.
type operator struct {
	connection
	JSON bool `name:"json" help:"Print JSON."`
}

// do runs one request of an operator and prints its outcome.
func (o *operator) do(s *streams, request func(context.Context, *client.Cluster) (client.ClusterStatus, error), show func(io.Writer, client.ClusterStatus) error) error {
	return o.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
		defer cancel()
		status, err := request(ctx, cl.Cluster())
		if err != nil {
			return err
		}
		if o.JSON {
			return writeJSON(s.out, statusJSON(status))
		}
		return show(s.out, status)
	})
}

// listOf asks for what all members say and prints it. Of those that did not answer it says
// so, and prints what the others have said.
func listOf[T any](o *operator, s *streams, ask func(*client.Cluster, context.Context) ([]T, error), show func(io.Writer, []T) error, forScripts func([]T) any) error {
	return o.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
		defer cancel()
		all, err := ask(cl.Cluster(), ctx)
		if err != nil && len(all) == 0 {
			return err
		}
		if o.JSON {
			return errors.Join(writeJSON(s.out, forScripts(all)), err)
		}
		return errors.Join(show(s.out, all), err)
	})
}

// stage stages a change and says what comes next.
func (o *operator) stage(s *streams, c member.Change) error {
	return o.do(s, func(ctx context.Context, cl *client.Cluster) (client.ClusterStatus, error) { return cl.Stage(ctx, c) }, showStaged)
}

func showStaged(w io.Writer, status client.ClusterStatus) error {
	fmt.Fprintln(w, "Staged:")
	for _, c := range status.Document.Staged {
		fmt.Fprintln(w, " ", describe(c))
	}
	_, err := fmt.Fprintln(w, "Next: node cluster plan, then node cluster commit (or clear).")
	return err
}

// describe says a change as the command does, and for a node that joins what it
// brings.
func describe(c member.Change) string {
	if c.Kind != member.Join {
		return c.String()
	}
	zone := ""
	if c.Member.Zone != "" {
		zone = ", zone " + c.Member.Zone
	}
	return fmt.Sprintf("%s (at %s, capacity %d%s)", c, c.Member.Address, c.Member.Capacity, zone)
}

type clusterStatusCmd struct{ operator }

// Run prints the state of the cluster.
func (c *clusterStatusCmd) Run(s *streams) error {
	return c.do(s, statusOf, func(w io.Writer, status client.ClusterStatus) error {
		if err := showMembers(w, status); err != nil {
			return err
		}
		fmt.Fprintln(w)
		showForced(w, &status.Document)
		showMovement(w, &status.Document)
		showLosses(w, status.Document.Losses())
		if len(status.Document.Staged) > 0 {
			return showStaged(w, status)
		}
		return nil
	})
}

func statusOf(ctx context.Context, cl *client.Cluster) (client.ClusterStatus, error) {
	return cl.Status(ctx)
}

// showMovement says how far the ring is on its way to the next one.
func showMovement(w io.Writer, d *member.Document) {
	if d.Next == nil && len(d.Movement.Filling) == 0 {
		fmt.Fprintln(w, "Nothing moves.")
		return
	}
	phases := map[member.Phase]int{}
	for p := range d.Settled.Partitions() {
		phases[d.Phase(dynamo.Partition(p))]++
	}
	if d.Next != nil {
		fmt.Fprintf(w, "Moving to ring %d: of %d partitions", d.Next.Version(), d.Settled.Partitions())
		sep := " "
		for _, ph := range []member.Phase{member.PhaseAnnounced, member.PhaseJoint, member.PhaseSwitched, member.PhaseDone} {
			if phases[ph] > 0 {
				fmt.Fprintf(w, "%s%d %v", sep, phases[ph], ph)
				sep = ", "
			}
		}
		fmt.Fprintln(w, ".")
	}
	waiting := map[dynamo.NodeID]int{}
	for _, f := range d.Movement.Filling {
		waiting[f.Node]++
	}
	for _, m := range d.Members {
		if n := waiting[m.ID]; n > 0 {
			fmt.Fprintf(w, "  %s has %d partitions to fill.\n", m.ID, n)
		}
	}
	if d.Movement.Queued {
		fmt.Fprintln(w, "  The ring changes again afterwards.")
	}
}

type clusterMembersCmd struct{ operator }

// Run prints the members.
func (c *clusterMembersCmd) Run(s *streams) error { return c.do(s, statusOf, showMembers) }

func showMembers(w io.Writer, status client.ClusterStatus) error {
	d := status.Document
	fmt.Fprintf(w, "Cluster %s, version %d, as %s sees it:\n", safe(d.ClusterName), d.Version, safe(status.Asked))
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tSTATUS\tSEEN\tADDRESS\tZONE\tCAPACITY\tPARTITIONS\tDATA")
	known := map[dynamo.NodeID]client.NodeStatus{}
	for _, n := range status.Nodes {
		known[n.Node] = n
	}
	for _, m := range d.Members {
		n := known[m.ID]
		address := m.Address
		if n.Address != "" {
			address = n.Address
		}
		data := "?"
		if n.Counter > 0 {
			data = fmt.Sprintf("%d MB", n.Bytes>>20)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", safe(string(m.ID)), statusWord(m), seen(m, n), safe(address), safe(dash(m.Zone)), m.Capacity,
			len(d.Settled.PartitionsOf(m.ID, ring.Focus)), data)
	}
	return t.Flush()
}

func statusWord(m member.Member) string {
	if m.Removed && m.Status != member.Gone {
		return "removed"
	}
	return m.Status.String()
}

func seen(m member.Member, n client.NodeStatus) string {
	switch {
	case m.Status == member.Gone:
		return "-"
	case !n.Reachable:
		return "unreachable"
	case n.Slow:
		return "slow"
	}
	return "up"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

type clusterRingCmd struct{ operator }

// Run prints the ring.
func (c *clusterRingCmd) Run(s *streams) error {
	return c.do(s, statusOf, func(w io.Writer, status client.ClusterStatus) error {
		d := &status.Document
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "PARTITION\tPHASE\tREPLICAS (the first n of a bucket hold its keys)\tNEXT")
		for q := range d.Settled.Partitions() {
			p, next := dynamo.Partition(q), "-"
			reading := d.Reading(p)
			if ph := d.Phase(p); ph == member.PhaseAnnounced || ph == member.PhaseJoint {
				next = list(d.Next.Replicas(p))
			}
			fmt.Fprintf(t, "%d\t%v\t%s\t%s\n", p, d.Phase(p), list(reading.Replicas(p)), next)
		}
		return t.Flush()
	})
}

func list(nodes []dynamo.NodeID) string {
	words := make([]string, len(nodes))
	for i, n := range nodes {
		words[i] = string(n)
	}
	return strings.Join(words, " ")
}

type clusterJoinCmd struct{ operator }

// Run asks a node to ask its seeds.
func (c *clusterJoinCmd) Run(s *streams) error {
	return c.do(s, func(ctx context.Context, cl *client.Cluster) (client.ClusterStatus, error) { return cl.Join(ctx) }, showStaged)
}

type clusterLeaveCmd struct {
	operator
	Name string `arg:"" help:"The member."`
}

// Run stages a leave.
func (c *clusterLeaveCmd) Run(s *streams) error {
	return c.stage(s, member.Change{Kind: member.Leave, Node: dynamo.NodeID(c.Name)})
}

type clusterReplaceCmd struct {
	operator
	Name string `arg:"" help:"The member that goes."`
	With string `arg:"" help:"The node that takes its places; it must be staged to join."`
	Dead bool   `help:"The member is dead for good: nothing is taken from it."`
}

// Run stages a replacement.
func (c *clusterReplaceCmd) Run(s *streams) error {
	return c.stage(s, member.Change{Kind: member.Replace, Node: dynamo.NodeID(c.Name), With: dynamo.NodeID(c.With), Dead: c.Dead})
}

type clusterCapacityCmd struct {
	operator
	Name     string `arg:"" help:"The member."`
	Capacity int    `arg:"" help:"Its weight: with twice the capacity it gets twice the partitions."`
}

// Run stages a capacity.
func (c *clusterCapacityCmd) Run(s *streams) error {
	if c.Capacity < 1 || c.Capacity > ring.MaxCapacity {
		return usageError(fmt.Sprintf("capacity %d, allowed are 1 to %d", c.Capacity, ring.MaxCapacity))
	}
	return c.stage(s, member.Change{Kind: member.SetCapacity, Node: dynamo.NodeID(c.Name), Capacity: c.Capacity})
}

type clusterZoneCmd struct {
	operator
	Name string `arg:"" help:"The member."`
	Zone string `arg:"" help:"What fails together, a rack or a data centre."`
}

// Run stages a zone.
func (c *clusterZoneCmd) Run(s *streams) error {
	return c.stage(s, member.Change{Kind: member.SetZone, Node: dynamo.NodeID(c.Name), Zone: c.Zone})
}

type clusterPlanCmd struct{ operator }

// Run prints what a commit would do.
func (c *clusterPlanCmd) Run(s *streams) error {
	return c.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		status, err := cl.Cluster().Status(ctx)
		if err != nil {
			return err
		}
		plan, err := status.Document.Plan()
		if err != nil {
			return fmt.Errorf("%w: stage a change first, see node cluster --help", err)
		}
		if c.JSON {
			return writeJSON(s.out, planJSON(status, plan))
		}
		return showPlan(s.out, status, plan)
	})
}

type clusterCommitCmd struct {
	operator
	Version uint64 `help:"Commit only if the cluster is still at the version that the plan was made for; 0: as it is now."`
}

// Run commits what is staged.
func (c *clusterCommitCmd) Run(s *streams) error {
	return c.do(s, func(ctx context.Context, cl *client.Cluster) (client.ClusterStatus, error) {
		version := c.Version
		if version == 0 {
			status, err := cl.Status(ctx)
			if err != nil {
				return status, err
			}
			version = status.Document.Version
		}
		return cl.Commit(ctx, version)
	}, func(w io.Writer, status client.ClusterStatus) error {
		fmt.Fprintf(w, "Committed: version %d.\n", status.Document.Version)
		showMovement(w, &status.Document)
		_, err := fmt.Fprintln(w, "Watch it with node cluster status.")
		return err
	})
}

type clusterClearCmd struct{ operator }

// Run drops what is staged.
func (c *clusterClearCmd) Run(s *streams) error {
	return c.do(s, func(ctx context.Context, cl *client.Cluster) (client.ClusterStatus, error) { return cl.Clear(ctx) },
		func(w io.Writer, _ client.ClusterStatus) error {
			_, err := fmt.Fprintln(w, "Nothing is staged any more.")
			return err
		})
}

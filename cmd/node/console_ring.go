package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

// ringJSON is the ring for scripts.
type ringJSON struct {
	Cluster    string              `json:"cluster"`
	Version    uint64              `json:"version"`
	Asked      string              `json:"asked"`
	Partitions []ringPartitionJSON `json:"partitions"`
	Nodes      []ringNodeJSON      `json:"nodes"`
}

type ringPartitionJSON struct {
	Partition int      `json:"partition"`
	Phase     string   `json:"phase"`
	Replicas  []string `json:"replicas"`
	// Next are those that it moves to, if it moves.
	Next []string `json:"next,omitempty"`
	// Filling are replicas that still get what they lack.
	Filling []string `json:"filling,omitempty"`
}

type ringNodeJSON struct {
	Node      string `json:"node"`
	Letter    string `json:"letter"`
	Status    string `json:"status"`
	Reachable bool   `json:"reachable"`
	// First is of how many partitions it is the first replica.
	First int `json:"first"`
}

func (x *consoleSession) ring(ctx context.Context, _ []string, _ string) (shown, error) {
	status, err := x.client.Cluster().Status(ctx)
	if err != nil {
		return shown{}, err
	}
	r := ringOf(status)
	return shown{r, func(w io.Writer) error {
		if isTerminal(w) && len(r.Partitions) <= mostDrawn {
			return drawRing(w, r, true)
		}
		return showRing(w, r)
	}}, nil
}

// letters name nodes in the drawing.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

func ringOf(status client.ClusterStatus) ringJSON {
	d := &status.Document
	out := ringJSON{Cluster: d.ClusterName, Version: d.Version, Asked: status.Asked, Partitions: []ringPartitionJSON{}, Nodes: []ringNodeJSON{}}
	first := map[string]int{}
	for q := range d.Settled.Partitions() {
		p := dynamo.Partition(q)
		row := ringPartitionJSON{Partition: q, Phase: d.Phase(p).String(), Replicas: namesOf(d.Reading(p).Replicas(p))}
		if ph := d.Phase(p); ph == member.PhaseAnnounced || ph == member.PhaseJoint {
			row.Next = namesOf(d.Next.Replicas(p))
		}
		for _, f := range d.Movement.Filling {
			if f.Partition == p {
				row.Filling = append(row.Filling, string(f.Node))
			}
		}
		if len(row.Replicas) > 0 {
			first[row.Replicas[0]]++
		}
		out.Partitions = append(out.Partitions, row)
	}
	for i, n := range status.Nodes {
		letter := "?"
		if i < len(letters) {
			letter = letters[i : i+1]
		}
		m, _ := d.Member(n.Node)
		out.Nodes = append(out.Nodes, ringNodeJSON{string(n.Node), letter, m.Status.String(), n.Reachable, first[string(n.Node)]})
	}
	return out
}

func namesOf(nodes []dynamo.NodeID) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = string(n)
	}
	return out
}

// node finds one by name.
func (r *ringJSON) node(name string) ringNodeJSON {
	if i := slices.IndexFunc(r.Nodes, func(n ringNodeJSON) bool { return n.Node == name }); i >= 0 {
		return r.Nodes[i]
	}
	return ringNodeJSON{Node: name, Letter: "?"}
}

// mark is how a partition is: "!" its first replica cannot be reached, "~" it moves or a
// replica is being filled.
func (r *ringJSON) mark(p ringPartitionJSON) string {
	switch {
	case len(p.Replicas) > 0 && !r.node(p.Replicas[0]).Reachable:
		return "!"
	case p.Next != nil || p.Filling != nil || p.Phase == member.PhaseSwitched.String():
		return "~"
	}
	return ""
}

// mostDrawn is how many partitions a drawing has at most; more are listed.
const mostDrawn = 128

// colours are those of the owners; terminals have at least these.
var colours = []int{36, 33, 35, 32, 34, 31, 96, 93, 95, 92, 94, 91}

// drawRing draws the partitions around a circle, clockwise from the top: for each the letter
// of the node that comes first.
func drawRing(w io.Writer, r ringJSON, colour bool) error {
	q := len(r.Partitions)
	radius := max(4, int(math.Ceil(float64(q)/5)))
	width := 4*radius + 3
	cells := make([][]string, 2*radius+1)
	for y := range cells {
		cells[y] = slices.Repeat([]string{" "}, width)
	}
	for i, p := range r.Partitions {
		angle := 2 * math.Pi * float64(i) / float64(q)
		cx, cy := 2*radius+int(math.Round(2*float64(radius)*math.Sin(angle))), radius-int(math.Round(float64(radius)*math.Cos(angle)))
		letter, shade := "?", 0
		if len(p.Replicas) > 0 {
			letter = r.node(p.Replicas[0]).Letter
			shade = max(0, strings.Index(letters, letter))
		}
		mark := r.mark(p)
		if colour {
			style := fmt.Sprintf("\x1b[%dm", colours[shade%len(colours)])
			if mark != "" {
				style += "\x1b[7m"
			}
			letter = style + letter + mark + "\x1b[0m"
		} else {
			letter += mark
		}
		cells[cy][cx] = letter
		if mark != "" {
			cells[cy][cx+1] = "" // the mark has its place
		}
	}
	middle := fmt.Sprintf("%s: %d partitions", safe(cutText(r.Cluster, 2*radius)), q)
	if at := 2*radius - len([]rune(middle))/2; at > 2 {
		for i, c := range []rune(middle) {
			cells[radius][at+i] = string(c)
		}
	}
	for _, row := range cells {
		if _, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(row, ""), " ")); err != nil {
			return err
		}
	}
	return errorsOf(legend(w, r), showMoving(w, r))
}

// errorsOf is the first error.
func errorsOf(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// legend says whose letters they are.
func legend(w io.Writer, r ringJSON) error {
	fmt.Fprintf(w, "\nVersion %d, as %s sees it. In the ring, clockwise from the top, a letter is the first replica of a partition.\n", r.Version, safe(r.Asked))
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\tNODE\tSTATUS\tREACHABLE\tFIRST OF")
	for _, n := range r.Nodes {
		reachable := "yes"
		if !n.Reachable {
			reachable = "no (!)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\n", n.Letter, safe(n.Node), n.Status, reachable, n.First)
	}
	return t.Flush()
}

// shownMoving is how many partitions that move are listed.
const shownMoving = 20

// showMoving lists the partitions that move.
func showMoving(w io.Writer, r ringJSON) error {
	moving := slices.DeleteFunc(slices.Clone(r.Partitions), func(p ringPartitionJSON) bool { return p.Next == nil && p.Filling == nil })
	if len(moving) == 0 {
		_, err := fmt.Fprintln(w, "Nothing moves.")
		return err
	}
	fmt.Fprintf(w, "%d partitions move or are being filled (~):\n", len(moving))
	for i, p := range moving {
		if i == shownMoving {
			fmt.Fprintf(w, "  and %d more\n", len(moving)-i)
			break
		}
		fmt.Fprintf(w, "  %d %s: %s", p.Partition, p.Phase, safe(strings.Join(p.Replicas, " ")))
		if p.Next != nil {
			fmt.Fprintf(w, " -> %s", safe(strings.Join(p.Next, " ")))
		}
		if p.Filling != nil {
			fmt.Fprintf(w, ", being filled: %s", safe(strings.Join(p.Filling, " ")))
		}
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprint(w)
	return err
}

// showRing lists the partitions, where there is no terminal, or too many for one.
func showRing(w io.Writer, r ringJSON) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "PARTITION\tPHASE\tREPLICAS\tNEXT\tBEING FILLED")
	for _, p := range r.Partitions {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", p.Partition, p.Phase, safe(strings.Join(p.Replicas, " ")), safe(dash(strings.Join(p.Next, " "))), safe(dash(strings.Join(p.Filling, " "))))
	}
	return errorsOf(t.Flush(), legend(w, r), showMoving(w, r))
}

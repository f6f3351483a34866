package main

import (
	"cmp"
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
			return drawRing(w, r, cmp.Or(columnsOf(w), usualColumns), true)
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

// usualColumns is how wide a terminal is taken for that does not say.
const usualColumns = 80

// spot is where a letter stands in a drawing: columns and rows from its middle.
type spot struct{ x, y int }

// outline is the way around a ring, clockwise from the top, with as many rows above the middle
// as below, and no wider than the terminal. Behind each place is room for a mark, and each row
// has at least one place on each side.
func outline(half, columns int) []spot {
	wide := max(1, min(2*half+1, columns/2-1)) // a letter is about twice as high as wide
	reach := func(row int) int {               // how far from the middle a row goes
		if row == 0 {
			return wide
		}
		part := (float64(row) - 0.5) / (float64(half) + 0.5)
		return int(math.Round(float64(wide) * math.Sqrt(1-part*part)))
	}
	var quarter []spot // from the top to the right
	beyond := reach(half) &^ 1
	for x := 0; x <= beyond; x += 2 {
		quarter = append(quarter, spot{x, half})
	}
	for row := half - 1; row >= 0; row-- {
		for more := max(0, (reach(row)-beyond-1)/2); more >= 0; more-- {
			quarter = append(quarter, spot{reach(row) - 2*more, row})
		}
		beyond = reach(row)
	}
	var out []spot
	mirrored := func(x, y int) {
		for i := range quarter {
			p := quarter[i]
			if x*y > 0 { // this quarter is walked from the side to the top or bottom
				p = quarter[len(quarter)-1-i]
			}
			if p = (spot{x * p.x, y * p.y}); !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	mirrored(1, -1)
	mirrored(1, 1)
	mirrored(-1, 1)
	mirrored(-1, -1)
	return out
}

// placesFor are places for a number of partitions, in the smallest ring that has so many.
func placesFor(partitions, columns int) []spot {
	for half := 1; ; half++ {
		if all := outline(half, columns); len(all) >= partitions {
			out := make([]spot, partitions)
			for i := range out {
				out[i] = all[i*len(all)/partitions]
			}
			return out
		}
	}
}

// drawRing draws the partitions around a circle, clockwise from the top, in a number of columns:
// for each the letter of the node that comes first.
func drawRing(w io.Writer, r ringJSON, columns int, colour bool) error {
	places := placesFor(len(r.Partitions), columns)
	wide, half := 0, 0
	for _, p := range places {
		wide, half = max(wide, p.x, -p.x), max(half, p.y, -p.y)
	}
	cells := make([][]string, 2*half+1)
	for y := range cells {
		cells[y] = slices.Repeat([]string{" "}, 2*wide+2)
	}
	for i, p := range r.Partitions {
		row, x := cells[half+places[i].y], wide+places[i].x
		mark := r.mark(p)
		row[x] = r.letter(p, mark, colour)
		if mark != "" {
			row[x+1] = "" // the mark has its place
		}
	}
	middle := []rune(fmt.Sprintf("%s: %d partitions", safe(cutText(r.Cluster, wide)), len(r.Partitions)))
	if at := wide - len(middle)/2; at > 2 && at+len(middle) < 2*wide {
		for i, c := range middle {
			cells[half][at+i] = string(c)
		}
	}
	for _, row := range cells {
		text := strings.TrimRight(strings.Join(row, ""), " ")
		if text == "" {
			continue // there are a few places more than partitions
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return errorsOf(legend(w, r), showMoving(w, r))
}

// letter is how a partition is drawn: its first node, in a colour of that, and its mark.
func (r *ringJSON) letter(p ringPartitionJSON, mark string, colour bool) string {
	letter := "?"
	if len(p.Replicas) > 0 {
		letter = r.node(p.Replicas[0]).Letter
	}
	if !colour {
		return letter + mark
	}
	style := fmt.Sprintf("\x1b[%dm", colours[max(0, strings.Index(letters, letter))%len(colours)])
	if mark != "" {
		style += "\x1b[7m"
	}
	return style + letter + mark + "\x1b[0m"
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
	if err := say(w, fmt.Sprintf("\nVersion %d, as %s sees it. In the ring, clockwise from the top, a letter is the first replica of a partition.", r.Version, safe(r.Asked))); err != nil {
		return err
	}
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

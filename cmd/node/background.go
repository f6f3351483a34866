package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client"
)

type clusterBackgroundCmd struct{ operator }

// Run shows who works besides clients, and how much of the time that takes.
func (c *clusterBackgroundCmd) Run(s *streams) error {
	return listOf(&c.operator, s, (*client.Cluster).Background, showBackground, backgroundJSON)
}

// shownWorkers is how many actors are named to people; scripts get all.
const shownWorkers = 5

func showBackground(w io.Writer, all []client.Background) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSHARE\tUSED\tP99 WITH\tWITHOUT\tWORK\tWAIT\tSET\tWHY")
	for _, b := range all {
		set := "-"
		if b.Changed > 0 {
			set = ago(b.Changed).String() + " ago"
		}
		fmt.Fprintf(t, "%s\t%.0f%%\t%.0f%%\t%v\t%v\t%d\t%d\t%s\t%s\n", safe(b.Node), 100*b.Share, 100*b.Used, b.With, b.Without, len(b.Working), len(b.Waiting), set, safe(b.Why))
	}
	fmt.Fprintln(t, "\nNODE\tKIND\tSLICES\tTIME\tNOW")
	for _, b := range all {
		for _, x := range b.Work {
			var now []string
			for _, worker := range b.Working {
				if kind, _, _ := strings.Cut(worker, "/"); kind == x.Kind {
					now = append(now, worker)
				}
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%v\t%s\n", safe(b.Node), safe(x.Kind), x.Slices, x.Took.Round(time.Millisecond), safe(dash(strings.Join(now[:min(len(now), shownWorkers)], " "))))
		}
	}
	return t.Flush()
}

// nodeBackgroundJSON is one node for scripts.
type nodeBackgroundJSON struct {
	Node         string     `json:"node"`
	Share        float64    `json:"share"`
	Floor        float64    `json:"floor"`
	Used         float64    `json:"used"`
	Parallel     int        `json:"parallel"`
	Why          string     `json:"why"`
	ChangedMSAgo int64      `json:"changed_ms_ago,omitempty"`
	WithUS       int64      `json:"p99_with_us"`
	WithoutUS    int64      `json:"p99_without_us"`
	Working      []string   `json:"working"`
	Waiting      []string   `json:"waiting"`
	Work         []workJSON `json:"work"`
}

type workJSON struct {
	Kind   string `json:"kind"`
	Slices uint64 `json:"slices"`
	TookMS int64  `json:"took_ms"`
}

func backgroundJSON(all []client.Background) any {
	out := []nodeBackgroundJSON{}
	for _, b := range all {
		n := nodeBackgroundJSON{
			Node: b.Node, Share: b.Share, Floor: b.Floor, Used: b.Used, Parallel: b.Parallel, Why: b.Why, ChangedMSAgo: b.Changed.Milliseconds(),
			WithUS: b.With.Microseconds(), WithoutUS: b.Without.Microseconds(), Working: append([]string{}, b.Working...), Waiting: append([]string{}, b.Waiting...),
			Work: []workJSON{},
		}
		for _, x := range b.Work {
			n.Work = append(n.Work, workJSON{x.Kind, x.Slices, x.Took.Milliseconds()})
		}
		out = append(out, n)
	}
	return out
}

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dynactor/dynactor/client"
)

// showReaping tells what each node reaps of what was deleted or has expired.
func showReaping(w io.Writer, all []client.Reaping) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tREAPS\tWAITING\tUNDER WAY\tREAPED\tPUT OFF")
	for _, x := range all {
		on, why := "on", "-"
		if !x.On {
			on = "off"
		}
		if x.Reason != "" {
			why = fmt.Sprintf("%v ago: %s", ago(x.ReasonAgo), x.Reason)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\n", x.Node, on, x.Waiting, x.UnderWay, x.Reaped, why)
	}
	return t.Flush()
}

// reapingJSON is one node's reaping for scripts.
type reapingJSON struct {
	Node        string `json:"node"`
	On          bool   `json:"on"`
	Waiting     uint64 `json:"waiting"`
	UnderWay    uint64 `json:"under_way"`
	Reaped      uint64 `json:"reaped"`
	Reason      string `json:"reason,omitempty"`
	ReasonMSAgo int64  `json:"reason_ms_ago,omitempty"`
}

func reapingsJSON(all []client.Reaping) []reapingJSON {
	out := []reapingJSON{}
	for _, x := range all {
		out = append(out, reapingJSON{x.Node, x.On, x.Waiting, x.UnderWay, x.Reaped, x.Reason, x.ReasonAgo.Milliseconds()})
	}
	return out
}

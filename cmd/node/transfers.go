package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client"
)

type clusterTransfersCmd struct{ operator }

// Run lists what moves.
func (c *clusterTransfersCmd) Run(s *streams) error {
	return listOf(&c.operator, s, (*client.Cluster).Transfers, showTransfers, transfersJSON)
}

func showTransfers(w io.Writer, all []client.Transfer) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "Nothing has to be moved.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tPARTITION\tKIND\tFOR\tSTATE\tRECORDS\tMB/S\tLEFT\tPROBLEM")
	for _, x := range all {
		state, left := "waits", "-"
		switch {
		case x.Running:
			state = "runs"
		case x.Retry > 0:
			state = "again in " + x.Retry.Round(100*time.Millisecond).String()
		}
		if x.Remaining > 0 {
			left = strconv.FormatUint(x.Remaining, 10)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\t%.1f\t%s\t%s\n", safe(x.Node), x.Partition, safe(x.Kind), safe(dash(x.For)), state, x.Records, rate(x)/1e6, left, safe(dash(x.Problem)))
	}
	return t.Flush()
}

// rate is in bytes a second.
func rate(x client.Transfer) float64 {
	if x.Took <= 0 {
		return 0
	}
	return float64(x.Bytes) / x.Took.Seconds()
}

// transferJSON is one transfer for scripts.
type transferJSON struct {
	Node      string  `json:"node"`
	Partition int     `json:"partition"`
	Kind      string  `json:"kind"`
	For       string  `json:"for,omitempty"`
	Running   bool    `json:"running"`
	Records   uint64  `json:"records"`
	Bytes     uint64  `json:"bytes"`
	Rate      float64 `json:"bytes_per_second"`
	Remaining uint64  `json:"remaining,omitempty"`
	Problem   string  `json:"problem,omitempty"`
	RetryMS   int64   `json:"retry_ms,omitempty"`
}

func transfersJSON(all []client.Transfer) any {
	out := []transferJSON{}
	for _, x := range all {
		out = append(out, transferJSON{
			x.Node, x.Partition, x.Kind, x.For, x.Running, x.Records, x.Bytes, rate(x), x.Remaining, x.Problem, x.Retry.Milliseconds(),
		})
	}
	return out
}

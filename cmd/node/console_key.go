package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client/lookup"
)

func (x *consoleSession) key(ctx context.Context, args []string, _ string) (shown, error) {
	r, err := lookup.Ask(ctx, x.client.Cluster(), args[0], args[1])
	if r == nil {
		return shown{}, err
	}
	return shown{r, func(w io.Writer) error { return showKey(w, r) }}, err
}

// showKey prints where a key lives, the copies side by side, and what is the matter.
func showKey(w io.Writer, r *lookup.Report) error {
	fmt.Fprintf(w, "key %s in bucket %s\n", strconv.QuoteToASCII(r.Key), strconv.QuoteToASCII(r.Bucket))
	fmt.Fprintf(w, "position %s, partition %d, n=%d\n\n", r.Position, r.Partition, r.N)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tROLE\tCOPY\tSTATE\tHASH\tVERSIONS\tCLOCK")
	for _, n := range r.Nodes {
		role := n.Role
		if !n.Reachable {
			role += " (unreachable)"
		}
		if len(n.Copies) == 0 {
			state := "nothing"
			if !n.Answered {
				state = "no answer"
			}
			fmt.Fprintf(t, "%s\t%s\t-\t%s\t-\t-\t-\n", safe(n.Node), safe(role), state)
		}
		for i, c := range n.Copies {
			node, of, versions := n.Node, "own", []string{}
			if i > 0 {
				node, role = "", ""
			}
			if c.For != "" {
				of = "for " + c.For
			}
			for _, v := range c.Versions {
				versions = append(versions, v.Dot)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", safe(node), safe(role), safe(of), c.State, dash(c.Hash), dash(strings.Join(versions, " ")), dash(strings.Join(c.Clock, " ")))
		}
		if n.Problem != "" {
			fmt.Fprintf(t, "\t%s\t\t\t\t\t\n", safe(n.Problem))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := showVersions(w, r.Versions); err != nil {
		return err
	}
	for _, f := range r.Findings {
		if err := say(w, safe(f)); err != nil {
			return err
		}
	}
	return nil
}

func showVersions(w io.Writer, all []lookup.Version) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nVERSION\tWRITTEN BY\tAT\tSIZE\tSHA-256\tEXPIRES")
	for _, v := range all {
		size, expires := sizeText(v.Size), "-"
		if v.Tombstone {
			size = "deleted"
		}
		if v.Expires != nil {
			expires = v.Expires.Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Dot, safe(v.By), v.Time.Format(time.RFC3339Nano), size, dash(v.Hash), expires)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

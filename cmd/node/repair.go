package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client"
)

type clusterAAECmd struct{ operator }

// Run lists the exchanges of pairs of replicas, and what is reaped.
func (c *clusterAAECmd) Run(s *streams) error {
	return c.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		all, err := cl.Cluster().Exchanges(ctx)
		if err != nil && len(all) == 0 {
			return err
		}
		reaping, reapErr := cl.Cluster().Reaping(ctx)
		err = errors.Join(err, reapErr)
		if c.JSON {
			return errors.Join(writeJSON(s.out, exchangesJSON(all, reaping)), err)
		}
		return errors.Join(showExchanges(s.out, all), showReaping(s.out, reaping), err)
	})
}

// oldest is the pair that was verified, or else became known, longest ago.
func oldest(all []client.Exchange) (x client.Exchange) {
	for _, e := range all {
		if e.VerifiedAgo >= x.VerifiedAgo {
			x = e
		}
	}
	return x
}

func showExchanges(w io.Writer, all []client.Exchange) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "There are no two replicas to compare.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "PARTITION\tN\tREPLICAS\tLAST\tRESULT\tIN\tOUT\tKB\tMENDED\tPROBLEM")
	for _, x := range all {
		fmt.Fprintf(t, "%d\t%d\t%s %s\t%s\t%s\t%d\t%d\t%.1f\t%d\t%s\n",
			x.Partition, x.N, safe(x.Node), safe(x.With), lastEnd(x), lastResult(x), x.In, x.Out, float64(x.Bytes)/1e3, x.Mended, safe(dash(x.Reason)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	x, word := oldest(all), "not verified for"
	if !x.Verified {
		word = "never verified, known for"
	}
	_, err := fmt.Fprintf(w, "%d pairs; the oldest, partition %d of %s and %s, is %s %v.\n", len(all), x.Partition, safe(x.Node), safe(x.With), word, ago(x.VerifiedAgo))
	return err
}

func ago(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }

func lastEnd(x client.Exchange) string {
	if x.Ended == 0 {
		return "never"
	}
	return ago(x.EndedAgo).String() + " ago"
}

// lastResult is what the last exchange came to, or that one runs.
func lastResult(x client.Exchange) string {
	switch {
	case x.Running:
		return "runs"
	case x.Ended == 0:
		return "-"
	case x.Equal:
		return "equal"
	case x.Complete:
		return "mended"
	}
	return "failed"
}

// exchangeJSON is one pair for scripts.
type exchangeJSON struct {
	Partition     int    `json:"partition"`
	N             int    `json:"n"`
	Node          string `json:"node"`
	With          string `json:"with"`
	Running       bool   `json:"running"`
	Ended         uint64 `json:"ended"`
	EndedMSAgo    int64  `json:"ended_ms_ago"`
	Result        string `json:"result"`
	In            uint64 `json:"in"`
	Out           uint64 `json:"out"`
	Damaged       uint64 `json:"damaged"`
	Bytes         uint64 `json:"bytes"`
	Mended        uint64 `json:"mended"`
	Verified      bool   `json:"verified"`
	VerifiedMSAgo int64  `json:"verified_ms_ago"`
	Problem       string `json:"problem,omitempty"`
}

func exchangesJSON(all []client.Exchange, reaping []client.Reaping) any {
	out := struct {
		OldestMS int64          `json:"oldest_unverified_ms"`
		Pairs    []exchangeJSON `json:"pairs"`
		Reaping  []reapingJSON  `json:"reaping"`
	}{oldest(all).VerifiedAgo.Milliseconds(), []exchangeJSON{}, reapingsJSON(reaping)}
	for _, x := range all {
		out.Pairs = append(out.Pairs, exchangeJSON{
			x.Partition, x.N, x.Node, x.With, x.Running, x.Ended, x.EndedAgo.Milliseconds(), lastResult(x), x.In, x.Out, x.Damaged, x.Bytes, x.Mended,
			x.Verified, x.VerifiedAgo.Milliseconds(), x.Reason,
		})
	}
	return out
}

type clusterRepairCmd struct {
	operator
	Partition *int   `help:"Only this partition."`
	Bucket    string `help:"Only keys of buckets that have as many replicas (n) as this one: these lie together, in all partitions."`
	Wait      bool   `help:"Wait until all are compared and mended."`
}

// Run has replicas compared at once.
func (c *clusterRepairCmd) Run(s *streams) error {
	return c.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		status, err := cl.Cluster().Status(ctx)
		if err != nil {
			return err
		}
		scope, err := c.scope(status)
		if err != nil {
			return err
		}
		if !c.Wait {
			done, err := cl.Cluster().Repair(ctx, scope, nil)
			return errors.Join(c.show(s.out, done), err)
		}
		p := progressOf{to: s.err}
		done, err := cl.Cluster().Repair(context.Background(), scope, p.tell)
		p.end()
		err = errors.Join(c.show(s.out, done), err)
		if done.Failed > 0 {
			err = errors.Join(err, fmt.Errorf("%d of %d pairs of replicas were not compared", done.Failed, done.Pairs))
		}
		return err
	})
}

func (c *clusterRepairCmd) scope(status client.ClusterStatus) (out client.Scope, err error) {
	if c.Partition != nil {
		if p, all := *c.Partition, status.Document.Settled.Partitions(); p < 0 || p >= all {
			return out, usageError(fmt.Sprintf("partition %d, there are 0 to %d", p, all-1))
		}
		out.Partition, out.Single = *c.Partition, true
	}
	if c.Bucket != "" {
		properties, _ := status.Document.Bucket(c.Bucket)
		out.N = properties.Quorum.N
	}
	return out, nil
}

func (c *clusterRepairCmd) show(w io.Writer, r client.Repair) error {
	if c.JSON {
		return writeJSON(w, map[string]any{
			"pairs": r.Pairs, "complete": r.Complete, "failed": r.Failed, "mended": r.Mended, "damaged": r.Damaged, "problems": append([]string{}, r.Problems...),
		})
	}
	if !c.Wait {
		_, err := fmt.Fprintf(w, "%d pairs of replicas are compared now. Watch it with node cluster aae.\n", r.Pairs)
		return err
	}
	for _, p := range r.Problems {
		fmt.Fprintln(w, " ", safe(p))
	}
	_, err := fmt.Fprintf(w, "%d of %d pairs of replicas compared, %d records mended, %d could not be.\n", r.Complete, r.Pairs, r.Mended, r.Damaged)
	return err
}

// progressOf shows how far a repair is, from when it is known how much there is.
type progressOf struct {
	to  io.Writer
	bar *progress
}

func (p *progressOf) tell(r client.Repair) {
	if p.bar == nil {
		p.bar = newProgress(p.to, "repair", int64(r.Pairs))
	}
	p.bar.done.Store(uint64(r.Complete))
	p.bar.failed.Store(uint64(r.Failed))
	p.bar.grow(int64(r.Pairs))
	p.bar.advance(int64(r.Complete + r.Failed))
}

func (p *progressOf) end() {
	if p.bar != nil {
		p.bar.end()
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/bucket"
)

// listed shows what all members were asked for, and of those that did not answer the error.
func listed[T any](all []T, err error, forScripts func([]T) any, show func(io.Writer, []T) error) (shown, error) {
	if err != nil && len(all) == 0 {
		return shown{}, err
	}
	return shown{forScripts(all), func(w io.Writer) error { return show(w, all) }}, err
}

func (x *consoleSession) transfers(ctx context.Context, _ []string, _ string) (shown, error) {
	all, err := x.client.Cluster().Transfers(ctx)
	return listed(all, err, transfersJSON, showTransfers)
}

func (x *consoleSession) background(ctx context.Context, _ []string, _ string) (shown, error) {
	all, err := x.client.Cluster().Background(ctx)
	return listed(all, err, backgroundJSON, showBackground)
}

func (x *consoleSession) aae(ctx context.Context, _ []string, _ string) (shown, error) {
	all, err := x.client.Cluster().Exchanges(ctx)
	if err != nil && len(all) == 0 {
		return shown{}, err
	}
	reaping, reapErr := x.client.Cluster().Reaping(ctx)
	return shown{exchangesJSON(all, reaping), func(w io.Writer) error {
		return errors.Join(showExchanges(w, all), showReaping(w, reaping))
	}}, errors.Join(err, reapErr)
}

// hintJSON is what a node keeps of a partition for another one, for scripts.
type hintJSON struct {
	Node      string `json:"node"`
	For       string `json:"for"`
	Partition int    `json:"partition"`
	Records   uint64 `json:"records"`
	Running   bool   `json:"running"`
	Problem   string `json:"problem,omitempty"`
	RetryMS   int64  `json:"retry_ms,omitempty"`
}

func (x *consoleSession) hints(ctx context.Context, _ []string, _ string) (shown, error) {
	all, err := x.client.Cluster().Transfers(ctx)
	if err != nil && len(all) == 0 {
		return shown{}, err
	}
	rows := []hintJSON{}
	for _, t := range all {
		if t.Kind == "hints" {
			rows = append(rows, hintJSON{t.Node, t.For, t.Partition, t.Remaining, t.Running, t.Problem, t.Retry.Milliseconds()})
		}
	}
	slices.SortStableFunc(rows, func(a, b hintJSON) int {
		return cmp.Or(cmp.Compare(a.For, b.For), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Partition, b.Partition))
	})
	return shown{rows, func(w io.Writer) error { return showHints(w, rows) }}, err
}

func showHints(w io.Writer, rows []hintJSON) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "No node keeps anything for another one.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "FOR\tKEPT BY\tPARTITION\tRECORDS\tHANDED OVER\tPROBLEM")
	var order []string
	total := map[string]uint64{}
	for _, h := range rows {
		state := "when it can be reached"
		switch {
		case h.Running:
			state = "now"
		case h.RetryMS > 0:
			state = "again in " + (time.Duration(h.RetryMS) * time.Millisecond).Round(100*time.Millisecond).String()
		}
		if _, known := total[h.For]; !known {
			order = append(order, h.For)
		}
		total[h.For] += h.Records
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", safe(h.For), safe(h.Node), h.Partition, h.Records, state, safe(dash(h.Problem)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, node := range order {
		if _, err := fmt.Fprintf(w, "%d records are kept for %s.\n", total[node], safe(node)); err != nil {
			return err
		}
	}
	return nil
}

func (x *consoleSession) buckets(ctx context.Context, _ []string, _ string) (shown, error) {
	status, err := x.client.Cluster().Status(ctx)
	if err != nil {
		return shown{}, err
	}
	return shownBuckets(status), nil
}

func shownBuckets(status client.ClusterStatus) shown {
	return shown{bucketsJSON(status), func(w io.Writer) error {
		if len(status.Document.Buckets) == 0 {
			_, err := fmt.Fprintln(w, "No bucket was created: all have n=3 r=2 w=2, and keep siblings.")
			return err
		}
		return showBuckets(w, status)
	}}
}

// bucket changes properties of a bucket.
func (x *consoleSession) bucket(ctx context.Context, args []string, _ string) (shown, error) {
	if args[0] != "set" {
		return shown{}, usageError("usage: bucket set BUCKET PROPERTY=VALUE...")
	}
	var p properties
	for _, word := range args[2:] {
		if err := p.parse(word); err != nil {
			return shown{}, err
		}
	}
	status, err := setBucket(ctx, x.client.Cluster(), args[1], func(b *bucket.Properties) error { return p.apply(b) })
	if err != nil {
		return shown{}, err
	}
	return shownBuckets(status), nil
}

// parse takes one NAME=VALUE.
func (f *properties) parse(word string) error {
	name, value, found := strings.Cut(word, "=")
	if !found {
		return usageError(fmt.Sprintf("%q is not PROPERTY=VALUE, such as w=3", word))
	}
	count := func(to **int) error {
		n, err := strconv.Atoi(value)
		if err != nil {
			return usageError(fmt.Sprintf("%s: %q is no number", name, value))
		}
		*to = &n
		return nil
	}
	switch name {
	case "r":
		return count(&f.R)
	case "w":
		return count(&f.W)
	case "pr":
		return count(&f.PR)
	case "pw":
		return count(&f.PW)
	case "durability":
		f.Durability = &value
	case "ttl":
		ttl, err := time.ParseDuration(value)
		if err != nil {
			return usageError(fmt.Sprintf("ttl: %q is no duration, such as 24h or 0s", value))
		}
		f.TTL = &ttl
	default:
		return usageError(fmt.Sprintf("a bucket has no property %q that can change: r, w, pr, pw, durability, ttl can", name))
	}
	return nil
}

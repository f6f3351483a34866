package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/messages"
)

// shownSlow is how many slow requests are shown, unless more are asked for.
const shownSlow = 20

// slowJSON is a slow request for scripts.
type slowJSON struct {
	ID        string       `json:"id"`
	Bucket    string       `json:"bucket"`
	Key       string       `json:"key"`
	Partition uint32       `json:"partition"`
	Client    string       `json:"client"`
	TookUS    int64        `json:"took_us"`
	AgoUS     int64        `json:"ago_us"`
	Outcome   string       `json:"outcome"`
	Slowest   string       `json:"slowest"`
	Timeline  timelineJSON `json:"timeline"`
}

// slowRow is a slow request of a node.
type slowRow struct {
	node string
	client.SlowRequest
}

// slowArgs are the arguments of requests.
type slowArgs struct {
	// limit is 0 if none was asked for.
	limit int
	// id is empty unless one request is asked for.
	id string
}

func toSlowArgs(args []string) (out slowArgs, err error) {
	usage := usageError("usage: requests --slow [--limit N | --id ID] [on NODE]")
	if args[0] != "--slow" {
		return out, usage
	}
	switch rest := args[1:]; {
	case len(rest) == 0:
		return out, nil
	case len(rest) == 2 && rest[0] == "--id" && rest[1] != "":
		return slowArgs{id: rest[1]}, nil
	case len(rest) == 2 && rest[0] == "--limit":
		if n, err := strconv.Atoi(rest[1]); err == nil && n > 0 {
			return slowArgs{limit: n}, nil
		}
	}
	return out, usage
}

// requests shows which requests were slow: one line for each, or what happened to one of them.
func (x *consoleSession) requests(ctx context.Context, args []string, on string) (shown, error) {
	a, err := toSlowArgs(args)
	if err != nil {
		return shown{}, err
	}
	limit := a.limit
	if limit == 0 && a.id == "" && !x.json {
		limit = shownSlow
	}
	all, err := x.slowest(ctx, on, limit)
	if err != nil && len(all) == 0 {
		return shown{}, err
	}
	if a.id != "" {
		i := slices.IndexFunc(all, func(r slowRow) bool { return r.ID == a.id })
		if i < 0 {
			return shown{}, cmp.Or(err, fmt.Errorf("no request %q among the slow ones of the last five minutes: requests --slow --limit 1000 lists them", a.id))
		}
		return shown{slowForScripts(all[i : i+1]), func(w io.Writer) error { return showSlow(w, all[i]) }}, err
	}
	more := 0
	if limit > 0 && len(all) > limit {
		all, more = all[:limit], len(all)-limit
	}
	return shown{slowForScripts(all), func(w io.Writer) error { return showAllSlow(w, all, more, time.Now()) }}, err
}

// slowest asks all nodes, or one, for their slowest requests: one more than the limit of each, which
// tells that there are more. 0 is all.
func (x *consoleSession) slowest(ctx context.Context, on string, limit int) (all []slowRow, err error) {
	if limit > 0 {
		limit++
	}
	nodes, said, err := each(x, ctx, on, func(node string) ([]client.SlowRequest, error) {
		return x.client.Cluster().SlowRequests(ctx, node, limit)
	})
	for _, node := range nodes {
		for _, r := range said[node] {
			all = append(all, slowRow{node, r})
		}
	}
	slices.SortStableFunc(all, func(a, b slowRow) int { return cmp.Compare(b.Took, a.Took) })
	return all, err
}

func slowForScripts(all []slowRow) []slowJSON {
	rows := []slowJSON{}
	for _, r := range all {
		rows = append(rows, slowJSON{
			r.ID, r.Bucket, r.Key, r.Partition, r.Client, r.Took.Microseconds(), r.Ago.Microseconds(), r.Outcome, slowestStep(r.Timeline).text(),
			timelineForScripts(r.node, r.Timeline),
		})
	}
	return rows
}

// showAllSlow prints a line for each request. TIME is when it came, by the clock here.
func showAllSlow(w io.Writer, all []slowRow, more int, now time.Time) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "No requests in the last minutes.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tOP\tBUCKET\tKEY\tOUTCOME\tTOOK\tSLOWEST STEP\tNODE\tID")
	for _, r := range all {
		came := now.Add(-r.Ago - r.Took).Format(time.TimeOnly)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			came, safe(r.Kind), safe(r.Bucket), safe(r.Key), safe(r.Outcome), span(r.Took), dash(slowestStep(r.Timeline).text()), safe(r.node), safe(r.ID))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	left := ""
	if more > 0 {
		left = fmt.Sprintf("There are more: --limit %d shows twice as many. ", 2*len(all))
	}
	_, err := fmt.Fprintf(w, "%srequests --slow --id ID shows what happened to one.\n", left)
	return err
}

// showSlow prints what happened to one request.
func showSlow(w io.Writer, r slowRow) error {
	fmt.Fprintf(w, "%s %s of %s in bucket %s, partition %d, %s ago: %s\n", span(r.Took), safe(r.Kind), safe(r.Key), safe(r.Bucket), r.Partition, span(r.Ago), safe(r.Outcome))
	return showTimeline(w, r.node, r.Timeline)
}

// slowStep is the step of a request that took longest, of those before the client was answered.
type slowStep struct {
	what  string
	took  time.Duration
	spent client.Spent
	// inner is the same at the coordinator that has answered.
	inner *slowStep
}

// slowestStep finds it. An answer took the time since the last that is known of its node; that the
// time was over, since nodes that have said nothing were asked; anything else since the step before.
func slowestStep(t client.Timeline) (slowest slowStep) {
	last, asked := map[string]time.Duration{}, map[string]bool{}
	var before client.Step
	for _, s := range t.Steps {
		what, since := named(s), before.At
		switch s.What {
		case messages.StepAsked, messages.StepFetched, messages.StepCoordinated, messages.StepReplicated, messages.StepPassed:
			asked[s.Node] = true
		case messages.StepAnswered, messages.StepPrepared, messages.StepDurable, messages.StepFailed:
			since, asked[s.Node] = last[s.Node], s.What == messages.StepPrepared
		case messages.StepDue:
			what, since = silence(asked, last, since)
		}
		if before.What == messages.StepOutdated {
			what = named(before)
		}
		if took := s.At - since; took > slowest.took {
			slowest = slowStep{what: what, took: took, spent: s.Spent}
			if s.Inner != nil {
				there := slowestStep(*s.Inner)
				slowest.inner = &there
			}
		}
		if s.What == messages.StepReplied {
			break
		}
		last[s.Node], before = s.At, s
	}
	return slowest
}

// named is a step and its node.
func named(s client.Step) string { return strings.TrimSpace(s.What.String() + " " + safe(s.Node)) }

// silence tells which nodes have not answered, and since when the first of them should.
func silence(asked map[string]bool, last map[string]time.Duration, now time.Duration) (what string, since time.Duration) {
	var nodes []string
	for node, awaited := range asked {
		if awaited {
			nodes = append(nodes, safe(node))
			now = min(now, last[node])
		}
	}
	slices.Sort(nodes)
	return strings.TrimSpace("no answer " + strings.Join(nodes, " ")), now
}

// text is the step with the largest part of what it took at the replica.
func (s slowStep) text() string {
	if s.what == "" {
		return ""
	}
	out := s.what + " " + span(s.took)
	if s.inner != nil && s.inner.what != "" {
		return out + ": " + s.inner.text()
	}
	if largest, took := largestPart(s.spent); took > 0 {
		out += " (" + largest + " " + span(took) + ")"
	}
	return out
}

func largestPart(p client.Spent) (name string, took time.Duration) {
	for _, part := range partsOf(p) {
		if part.took > took {
			name, took = part.name, part.took
		}
	}
	return name, took
}

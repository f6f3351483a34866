package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client"
)

// trace carries out a get or a put and shows what happened at which node.
func (x *consoleSession) trace(ctx context.Context, args []string, _ string) (shown, error) {
	usage := usageError("usage: trace get BUCKET KEY, or trace put BUCKET KEY VALUE")
	if want, known := map[string]int{"get": 3, "put": 4}[args[0]]; !known || len(args) != want {
		return shown{}, usage
	}
	var t client.Timeline
	var err error
	if b := x.client.Bucket(args[1]); args[0] == "get" {
		_, err = b.Get(ctx, args[2], client.Trace(&t))
	} else {
		err = replace(ctx, b, args[2], args[3], &t)
	}
	if len(t.Steps) == 0 && err != nil {
		return shown{}, err // it was never begun
	}
	return shown{timelineForScripts("client", t), func(w io.Writer) error { return showTimeline(w, "client", t) }}, err
}

// replace writes a value in the place of those that are there, and tells what happened.
func replace(ctx context.Context, b *client.Bucket, key, value string, t *client.Timeline) error {
	got, err := b.Get(ctx, key)
	if err == nil {
		_, err = b.Put(ctx, key, []byte(value), client.After(got.Context), client.Trace(t))
	}
	return err
}

// timelineJSON is a timeline for scripts. Times are in microseconds since the request came to
// its node, by that node's clock.
type timelineJSON struct {
	Node    string     `json:"node"`
	Kind    string     `json:"kind"`
	Steps   []stepJSON `json:"steps"`
	LeftOut int        `json:"left_out,omitempty"`
}

type stepJSON struct {
	AtUS      int64         `json:"at_us"`
	What      string        `json:"what"`
	Node      string        `json:"node,omitempty"`
	StandsFor string        `json:"stands_for,omitempty"`
	Text      string        `json:"text,omitempty"`
	Spent     *spentJSON    `json:"spent,omitempty"`
	Inner     *timelineJSON `json:"timeline,omitempty"`
}

type spentJSON struct {
	WaitedUS int64 `json:"waited_us"`
	TurnUS   int64 `json:"turn_us"`
	ReaderUS int64 `json:"reader_us"`
	StoreUS  int64 `json:"store_us"`
}

func timelineForScripts(node string, t client.Timeline) timelineJSON {
	out := timelineJSON{node, t.Kind, []stepJSON{}, t.LeftOut}
	for _, s := range t.Steps {
		j := stepJSON{AtUS: s.At.Microseconds(), What: s.What.String(), Node: s.Node, StandsFor: s.StandsFor, Text: s.Text}
		if p := s.Spent; p != (client.Spent{}) {
			j.Spent = &spentJSON{p.Waited.Microseconds(), p.Turn.Microseconds(), p.Reader.Microseconds(), p.Store.Microseconds()}
		}
		if s.Inner != nil {
			inner := timelineForScripts(s.Inner.Node, *s.Inner)
			j.Inner = &inner
		}
		out.Steps = append(out.Steps, j)
	}
	return out
}

func showTimeline(w io.Writer, node string, t client.Timeline) error {
	tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tab, "AT\tAT NODE\tWHAT")
	showSteps(tab, node, t, 0)
	return tab.Flush()
}

// showSteps prints a timeline from a time of the client's on. What happened at a node that was
// asked comes in its place: as if the way there took as long as the way back.
func showSteps(w io.Writer, node string, t client.Timeline, from time.Duration) {
	asked := map[string]time.Duration{}
	inner := map[int]int{} // by the step that asked, the step with what happened there
	last := map[string]int{}
	for i, s := range t.Steps {
		if s.Inner == nil {
			last[s.Node] = i
		} else if at, ok := last[s.Node]; ok {
			inner[at] = i
		}
	}
	for i, s := range t.Steps {
		fmt.Fprintf(w, "%s\t%s\t%s\n", offset(from+s.At), safe(node), stepText(s, asked))
		asked[s.Node] = s.At
		if answer, ok := inner[i]; ok {
			there := t.Steps[answer]
			way := max(there.At-s.At-length(*there.Inner), 0) / 2
			showSteps(w, there.Inner.Node, *there.Inner, from+s.At+way)
		}
	}
	if t.LeftOut > 0 {
		fmt.Fprintf(w, "\t%s\t%d more steps\n", safe(node), t.LeftOut)
	}
}

// length is the time from the first to the last step.
func length(t client.Timeline) time.Duration {
	if len(t.Steps) == 0 {
		return 0
	}
	return t.Steps[len(t.Steps)-1].At
}

// offset is a time in ms, so that they stand below each other.
func offset(d time.Duration) string { return fmt.Sprintf("%8.3f ms", float64(d.Microseconds())/1000) }

// partOf is a part of the time that a step took at a replica.
type partOf struct {
	name string
	took time.Duration
}

// partsOf are the parts in the order in which they come.
func partsOf(p client.Spent) []partOf {
	return []partOf{{"waited", p.Waited}, {"turn", p.Turn}, {"reader", p.Reader}, {"store", p.Store}}
}

// stepText says what happened, after the node was asked at a time.
func stepText(s client.Step, asked map[string]time.Duration) string {
	out := s.What.String()
	if s.Node != "" {
		out += " " + safe(s.Node)
	}
	if s.StandsFor != "" {
		out += " in place of " + safe(s.StandsFor)
	}
	if s.Text != "" {
		out += ": " + safe(s.Text)
	}
	if p := s.Spent; p != (client.Spent{}) {
		var parts []string
		at, known := asked[s.Node]
		for _, part := range partsOf(p) {
			if part.took > 0 {
				parts = append(parts, part.name+" "+span(part.took))
			}
		}
		if way := s.At - at - p.Total(); known && way > 0 {
			parts = append(parts, "on the way "+span(way))
		}
		out += " (" + strings.Join(parts, ", ") + ")"
	}
	return out
}

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
)

// actorJSON is an actor for scripts.
type actorJSON struct {
	Node        string     `json:"node"`
	Name        string     `json:"name"`
	Kind        string     `json:"kind"`
	Parent      string     `json:"parent,omitempty"`
	State       string     `json:"state"`
	Queued      uint64     `json:"queued"`
	Control     uint64     `json:"control"`
	QueuedBytes uint64     `json:"queued_bytes"`
	Processed   uint64     `json:"processed"`
	Shed        uint64     `json:"shed"`
	Expired     uint64     `json:"expired"`
	Restarts    uint64     `json:"restarts"`
	AgeUS       int64      `json:"age_us"`
	OldestUS    int64      `json:"oldest_us"`
	InHandlerUS int64      `json:"in_handler_us"`
	Panic       *panicJSON `json:"panic,omitempty"`
}

type panicJSON struct {
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	AgoUS   int64  `json:"ago_us"`
	Stack   string `json:"stack,omitempty"`
}

func actorForScripts(node string, a client.Actor) actorJSON {
	out := actorJSON{
		node, a.Name, a.Kind(), a.Parent, a.State(), a.Queued, a.Control, a.Bytes, a.Processed, a.Shed, a.Expired, a.Restarts,
		a.Age.Microseconds(), a.Oldest.Microseconds(), a.InHandler.Microseconds(), nil,
	}
	if p := a.Panic; p != nil {
		out.Panic = &panicJSON{p.Reason, p.Message, p.Ago.Microseconds(), p.Stack}
	}
	return out
}

func (x *consoleSession) actors(ctx context.Context, args []string, on string) (shown, error) {
	pattern := strings.Join(args, "")
	nodes, all, err := each(x, ctx, on, func(node string) ([]client.Actor, error) {
		some, left, err := x.client.Cluster().Actors(ctx, node, pattern, 0)
		if err == nil && left > 0 {
			err = fmt.Errorf("%s has %d more actors", node, left)
		}
		return some, err
	})
	rows := []actorJSON{}
	for _, node := range nodes {
		for _, a := range all[node] {
			rows = append(rows, actorForScripts(node, a))
		}
	}
	return shown{rows, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "ACTOR\tSTATE\tQUEUED\tOLDEST\tHANDLED\tRESTARTS\tAGE")
		for _, node := range nodes {
			fmt.Fprintf(t, "%s\t\t\t\t\t\t\n", safe(node))
			tree(t, all[node])
		}
		return t.Flush()
	}}, err
}

// tree prints actors below their supervisors, as far as those are among them.
func tree(w io.Writer, all []client.Actor) {
	children, names := map[string][]client.Actor{}, map[string]bool{}
	for _, a := range all {
		names[a.Name] = true
	}
	for _, a := range all {
		parent := a.Parent
		if !names[parent] || parent == a.Name {
			parent = ""
		}
		children[parent] = append(children[parent], a)
	}
	var show func(parent string, depth int)
	show = func(parent string, depth int) {
		for _, a := range children[parent] {
			state := a.State()
			if a.InHandler > time.Second {
				state += " for " + span(a.InHandler)
			}
			fmt.Fprintf(w, "%s%s\t%s\t%d\t%s\t%d\t%d\t%s\n", strings.Repeat("  ", depth), safe(a.Name), state, a.Queued+a.Control, span(a.Oldest), a.Processed, a.Restarts, span(a.Age))
			show(a.Name, depth+1)
		}
	}
	show("", 1)
}

// span is a duration with three digits or so; "-" is none.
func span(d time.Duration) string {
	switch size := d.Abs(); {
	case d == 0:
		return "-"
	case size >= time.Minute:
		return d.Round(time.Second).String()
	case size >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case size >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.String()
}

// fieldJSON is a field for scripts: durations in microseconds, times as RFC 3339.
type fieldJSON struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value any    `json:"value"`
	More  bool   `json:"more,omitempty"`
}

func fieldsForScripts(l client.List) []fieldJSON {
	out := []fieldJSON{}
	for _, f := range l.Fields {
		j := fieldJSON{Name: f.Name, Type: "text", Value: f.Value}
		switch v := f.Value.(type) {
		case client.Count:
			j.Type = "count"
		case client.Bytes:
			j.Type = "bytes"
		case client.Share:
			j.Type = "share"
		case time.Duration:
			j.Type, j.Value = "duration_us", v.Microseconds()
		case time.Time:
			j.Type = "time"
		case client.List:
			j.Type, j.Value, j.More = "list", fieldsForScripts(v), v.More
		}
		out = append(out, j)
	}
	return out
}

// inspectionJSON is an actor and what it says of itself, for scripts.
type inspectionJSON struct {
	Actor    actorJSON   `json:"actor"`
	Fields   []fieldJSON `json:"fields"`
	More     bool        `json:"more,omitempty"`
	NoAnswer string      `json:"no_answer,omitempty"`
}

func inspectionForScripts(node string, i client.Inspection) inspectionJSON {
	return inspectionJSON{actorForScripts(node, i.Actor), fieldsForScripts(i.List), i.More, i.NoAnswer}
}

func (x *consoleSession) inspect(ctx context.Context, args []string, on string) (shown, error) {
	node, i, err := x.lookAt(ctx, args[0], on)
	if err != nil {
		return shown{}, err
	}
	return shown{inspectionForScripts(node, i), func(w io.Writer) error { return showInspection(w, node, i) }}, nil
}

// outside are the fields that are seen of any actor.
func outside(a client.Actor) client.List {
	number := func(n uint64) client.Count { return client.Count(n) }
	fields := []client.Field{
		{Name: "state", Value: a.State()}, {Name: "supervisor", Value: cmp.Or(a.Parent, "none")}, {Name: "age", Value: a.Age},
		{Name: "messages waiting", Value: number(a.Queued)}, {Name: "size of them", Value: client.Bytes(a.Bytes)}, {Name: "that overtake", Value: number(a.Control)},
		{Name: "oldest waits for", Value: a.Oldest}, {Name: "in a handler for", Value: a.InHandler}, {Name: "handled", Value: number(a.Processed)},
		{Name: "refused", Value: number(a.Shed)}, {Name: "expired", Value: number(a.Expired)}, {Name: "restarts", Value: number(a.Restarts)},
	}
	if p := a.Panic; p != nil {
		at := ", at a " + cmp.Or(p.Message, "start or end")
		if p.Stack == "" { // it was told to
			at = ""
		}
		fields = append(fields, client.Field{Name: "last failure", Value: fmt.Sprintf("%s ago%s: %s", span(p.Ago), at, p.Reason)})
	}
	return client.List{Fields: fields}
}

func showInspection(w io.Writer, node string, i client.Inspection) error {
	fmt.Fprintf(w, "%s on %s\n", safe(i.Name), safe(node))
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	showFields(t, outside(i.Actor), 1)
	fmt.Fprintln(t)
	showFields(t, i.List, 1)
	if i.NoAnswer != "" {
		fmt.Fprintf(t, "  no answer:\t%s\n", safe(i.NoAnswer))
	}
	if err := t.Flush(); err != nil || i.Panic == nil || i.Panic.Stack == "" {
		return err
	}
	fmt.Fprintln(w, "\n  where it failed:")
	for line := range strings.Lines(i.Panic.Stack) {
		fmt.Fprintf(w, "    %s\n", safe(strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "    ")))
	}
	return nil
}

func showFields(w io.Writer, l client.List, depth int) {
	indent := strings.Repeat("  ", depth)
	for _, f := range l.Fields {
		if list, ok := f.Value.(client.List); ok {
			fmt.Fprintf(w, "%s%s:\t\n", indent, safe(f.Name))
			showFields(w, list, depth+1)
			continue
		}
		fmt.Fprintf(w, "%s%s:\t%s\n", indent, safe(f.Name), fieldText(f.Value))
	}
	if l.More {
		fmt.Fprintf(w, "%s...\t\n", indent)
	}
}

func fieldText(value any) string {
	switch v := value.(type) {
	case client.Bytes:
		return sizeText(uint64(v))
	case client.Share:
		return strconv.FormatFloat(100*float64(v), 'f', 1, 64) + " %"
	case time.Duration:
		return span(v)
	case time.Time:
		return v.Format(time.RFC3339)
	}
	return safe(fmt.Sprint(value))
}

// sizeText is a size in units of 1000.
func sizeText(n uint64) string {
	size, units := float64(n), []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for size >= 1000 && i+1 < len(units) {
		size /= 1000
		i++
	}
	if i == 0 {
		return fmt.Sprint(n, " B")
	}
	return strconv.FormatFloat(size, 'f', 1, 64) + " " + units[i]
}

// faultJSON is something that went wrong, for scripts.
type faultJSON struct {
	Node  string    `json:"node"`
	At    time.Time `json:"at"`
	Actor string    `json:"actor,omitempty"`
	Text  string    `json:"text"`
	Times uint64    `json:"times"`
}

func (x *consoleSession) errors(ctx context.Context, _ []string, on string) (shown, error) {
	type faults struct {
		all  []client.Fault
		more uint64
	}
	nodes, said, err := each(x, ctx, on, func(node string) (faults, error) {
		all, more, err := x.client.Cluster().Errors(ctx, node, 0)
		return faults{all, more}, err
	})
	rows, more := []faultJSON{}, uint64(0)
	for _, node := range nodes {
		more += said[node].more
		for _, f := range said[node].all {
			rows = append(rows, faultJSON{node, f.At, f.Actor, f.Text, f.Times})
		}
	}
	slices.SortStableFunc(rows, func(a, b faultJSON) int { return b.At.Compare(a.At) })
	return shown{rows, func(w io.Writer) error {
		if len(rows) == 0 {
			_, err := fmt.Fprintln(w, "Nothing went wrong since the nodes have started.")
			return err
		}
		for _, f := range rows {
			times := ""
			if f.Times > 1 {
				times = fmt.Sprintf(" (%d times)", f.Times)
			}
			if _, err := fmt.Fprintf(w, "%s %s %s: %s%s\n", f.At.Format(time.RFC3339), safe(f.Node), safe(cmp.Or(f.Actor, "log")), safe(f.Text), times); err != nil {
				return err
			}
		}
		if more > 0 {
			_, err := fmt.Fprintf(w, "%d more before.\n", more)
			return err
		}
		return nil
	}}, err
}

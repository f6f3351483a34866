package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dynactor/dynactor/client"
)

// lookPause is the time between two looks of a command that goes on.
const lookPause = time.Second

// looks calls a function each second until it fails, its time is over, or the number of looks
// that was asked for is reached. That the command ends at Ctrl-C is no error.
func (x *consoleSession) looks(look func(ctx context.Context, first bool) error) error {
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	for n := 1; ; n++ {
		ctx, cancel := context.WithTimeout(x.whole, x.limit)
		err := look(ctx, n == 1)
		cancel()
		if err != nil && x.whole.Err() == nil || n == x.times {
			return err
		}
		select {
		case <-tick.C:
		case <-x.whole.Done():
			return nil
		}
	}
}

// watch inspects an actor again and again, and marks what has changed.
func (x *consoleSession) watch(ctx context.Context, args []string, on string) (shown, error) {
	node, _, err := x.lookAt(ctx, args[0], on)
	if err != nil {
		return shown{}, err
	}
	var before map[string]bool
	return shown{}, x.looks(func(ctx context.Context, first bool) error {
		i, err := x.client.Cluster().Inspect(ctx, node, args[0])
		if err != nil && first {
			return err
		}
		if x.json {
			if err != nil {
				return err
			}
			return writeJSON(x.out, inspectionForScripts(node, i))
		}
		var text bytes.Buffer
		if err != nil {
			fmt.Fprintf(&text, "%s on %s: %s\n", safe(args[0]), safe(node), plain(err))
		} else if err := showInspection(&text, node, i); err != nil {
			return err
		}
		var out bytes.Buffer
		if isTerminal(x.out) {
			out.WriteString("\x1b[H\x1b[2J")
		}
		before = markChanges(&out, text.String(), before, isTerminal(x.out))
		fmt.Fprintf(&out, "%s, again each %v; Ctrl-C ends it\n\n", time.Now().Format(time.TimeOnly), lookPause)
		_, err = x.out.Write(out.Bytes())
		return err
	})
}

// markChanges writes a text, and marks the lines that were not there before. It returns the
// lines, for the next time.
func markChanges(w io.Writer, text string, before map[string]bool, terminal bool) map[string]bool {
	now := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		key := strings.Join(strings.Fields(line), " ") // columns move
		now[key] = true
		switch changed := before != nil && !before[key]; {
		case changed && terminal:
			fmt.Fprintf(w, "\x1b[7m%s\x1b[0m\n", line)
		case changed:
			fmt.Fprintf(w, "* %s\n", line)
		default:
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
	return now
}

// lookAt finds the node whose actor is meant, and inspects it: that which is named, else the one
// that is asked if it has such an actor, else another one that has.
func (x *consoleSession) lookAt(ctx context.Context, actor, on string) (node string, i client.Inspection, err error) {
	status, err := x.known(ctx)
	if err != nil {
		return "", i, err
	}
	node = cmp.Or(on, status.Asked)
	if i, err = x.client.Cluster().Inspect(ctx, node, actor); err == nil || on != "" || !errors.Is(err, client.ErrUnavailable) {
		return node, i, err
	}
	for _, other := range x.having(ctx, actor) {
		if found, elsewhere := x.client.Cluster().Inspect(ctx, other, actor); elsewhere == nil {
			return other, found, nil
		}
	}
	return node, i, err
}

// having are the nodes that have an actor of a name. Of those that do not answer it is not known.
func (x *consoleSession) having(ctx context.Context, actor string) []string {
	_, all, _ := each(x, ctx, "", func(node string) (bool, error) {
		some, _, err := x.client.Cluster().Actors(ctx, node, actor, 0)
		return slices.ContainsFunc(some, func(a client.Actor) bool { return a.Name == actor }), err
	})
	maps.DeleteFunc(all, func(_ string, has bool) bool { return !has })
	return slices.Sorted(maps.Keys(all))
}

// firstLines is how many lines of each log are shown at first.
const firstLines = 20

// lineJSON is one event of a log, for scripts.
type lineJSON struct {
	Node  string    `json:"node"`
	At    time.Time `json:"at"`
	Level string    `json:"level"`
	Text  string    `json:"text"`
}

// logs follows what nodes log.
func (x *consoleSession) logs(ctx context.Context, _ []string, on string) (shown, error) {
	status, err := x.known(ctx)
	if err != nil {
		return shown{}, err
	}
	if _, known := status.Document.Member(nodeID(on)); on != "" && !known {
		return shown{}, fmt.Errorf("no member is named %q: nodes lists them", on)
	}
	cursors, problems := map[string]client.LogCursor{}, map[string]string{}
	return shown{}, x.looks(func(ctx context.Context, _ bool) error {
		nodes, said, err := each(x, ctx, on, func(node string) (logged, error) {
			l := logged{from: cursors[node]}
			limit := 0
			if l.from == (client.LogCursor{}) {
				limit = firstLines
			}
			var err error
			l.lines, l.lost, l.next, err = x.client.Cluster().Log(ctx, node, l.from, limit)
			return l, err
		})
		var rows []lineJSON
		for _, node := range nodes {
			l := said[node]
			if l.lost > 0 && l.from != (client.LogCursor{}) {
				rows = append(rows, lineJSON{node, l.lines[0].At, "WARN", fmt.Sprintf("%d lines before were not seen: more is logged than is kept", l.lost)})
			}
			for _, line := range l.lines {
				rows = append(rows, lineJSON{node, line.At, line.Level, line.Text})
			}
			cursors[node] = l.next
		}
		slices.SortStableFunc(rows, func(a, b lineJSON) int { return a.At.Compare(b.At) })
		return errors.Join(x.printLines(rows), x.complain(problems, err))
	})
}

// logged is what a node has logged since the last look.
type logged struct {
	from, next client.LogCursor
	lines      []client.LogLine
	lost       uint64
}

func (x *consoleSession) printLines(rows []lineJSON) error {
	for _, l := range rows {
		var err error
		if x.json {
			err = writeJSON(x.out, l)
		} else {
			_, err = fmt.Fprintf(x.out, "%s %s %-5s %s\n", l.At.Format("2006-01-02T15:04:05.000Z07:00"), safe(l.Node), safe(l.Level), safe(l.Text))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// complain tells of nodes that do not answer, once.
func (x *consoleSession) complain(told map[string]string, err error) error {
	if err == nil || x.whole.Err() != nil {
		clear(told)
		return nil
	}
	text := plain(err)
	if told["all"] == text {
		return nil
	}
	told["all"] = text
	return say(x.err, text)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/reeflective/readline"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
)

func nodeID(name string) dynamo.NodeID { return dynamo.NodeID(name) }

// settingJSON is a setting of a node, for scripts.
type settingJSON struct {
	Node    string `json:"node"`
	Setting string `json:"setting"`
	Value   string `json:"value"`
	Help    string `json:"help"`
}

// set changes a setting of one node or of all, and lists all.
func (x *consoleSession) set(ctx context.Context, args []string, on string) (shown, error) {
	if len(args) == 1 {
		return shown{}, usageError("usage: set [NAME VALUE] [on NODE]")
	}
	nodes, said, err := each(x, ctx, on, func(node string) ([]client.Setting, error) {
		if len(args) == 0 {
			return x.client.Cluster().Settings(ctx, node)
		}
		return x.client.Cluster().Set(ctx, node, args[0], args[1])
	})
	if len(nodes) == 0 && err != nil {
		return shown{}, err
	}
	rows := []settingJSON{}
	for _, node := range nodes {
		for _, s := range said[node] {
			rows = append(rows, settingJSON{node, s.Name, s.Value, s.Help})
		}
	}
	return shown{rows, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "NODE\tSETTING\tVALUE\tWHAT IT IS")
		for _, s := range rows {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", safe(s.Node), safe(s.Setting), safe(s.Value), safe(s.Help))
		}
		return t.Flush()
	}}, err
}

// controlJSON is what was done to an actor, for scripts.
type controlJSON struct {
	Node        string `json:"node"`
	Actor       string `json:"actor"`
	What        string `json:"what"`
	Consequence string `json:"consequence"`
}

// errNotDone ends a command that somebody has thought better of.
var errNotDone = errors.New("nothing was done")

func (x *consoleSession) restart(ctx context.Context, args []string, on string) (shown, error) {
	return x.control(ctx, "restart", args[0], on)
}

func (x *consoleSession) kill(ctx context.Context, args []string, on string) (shown, error) {
	return x.control(ctx, "kill", args[0], on)
}

// control says what becomes of an actor, asks, and does it.
func (x *consoleSession) control(ctx context.Context, what, actor, on string) (shown, error) {
	if on == "" {
		switch nodes := x.having(ctx, actor); len(nodes) {
		case 0:
			return shown{}, fmt.Errorf("%w: no node that answers has an actor %q; it may have ended", client.ErrUnavailable, actor)
		case 1:
			on = nodes[0]
		default:
			return shown{}, usageError(fmt.Sprintf("%s have %q: say which with on NODE", strings.Join(nodes, ", "), actor))
		}
	}
	fate, err := x.client.Cluster().Fate(ctx, on, actor, what == "kill")
	if err != nil {
		return shown{}, err
	}
	if err := x.sure(fmt.Sprintf("%s %s on %s: %s.", what, safe(actor), safe(on), safe(fate))); err != nil {
		return shown{}, err
	}
	ctx, cancel := context.WithTimeout(x.whole, x.limit) // whoever was asked has taken his time
	defer cancel()
	do := x.client.Cluster().Restart
	if what == "kill" {
		do = x.client.Cluster().Kill
	}
	if fate, err = do(ctx, on, actor); err != nil {
		return shown{}, err
	}
	row := controlJSON{on, actor, what, fate}
	return shown{row, func(w io.Writer) error {
		return say(w, fmt.Sprintf("%s on %s: %s.", safe(actor), safe(on), safe(fate)))
	}}, nil
}

// sure asks whether something is to be done.
func (x *consoleSession) sure(what string) error {
	if x.yes {
		return nil
	}
	if x.ask == nil {
		return usageError(what + " There is nobody to ask: --yes says that it is to be done")
	}
	// Apart from the question: a prompt that is longer than a line is drawn again with each key.
	if err := say(x.err, what); err != nil {
		return err
	}
	answer, err := x.ask("Go on? [y/N] ")
	switch {
	case errors.Is(err, readline.ErrInterrupt), errors.Is(err, io.EOF):
		return errNotDone
	case err != nil:
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errNotDone
}

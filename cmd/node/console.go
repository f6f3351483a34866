package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
)

// consoleCmd looks into the nodes of a running cluster.
type consoleCmd struct {
	connection
	JSON    bool     `name:"json" help:"Print JSON, one value for each command."`
	Command []string `short:"e" sep:"none" placeholder:"COMMAND" help:"Carry out this command; repeatable. \"help\" lists them."`
	At      string   `arg:"" optional:"" name:"address" help:"Node to connect to, instead of --node."`
}

// Run carries out the commands in order, up to the first that fails.
func (c *consoleCmd) Run(ctx context.Context, s *streams) error {
	if len(c.Command) == 0 {
		return usageError("give a command with -e: node console -e help lists them")
	}
	if c.At != "" {
		c.Node = []string{c.At}
	}
	return c.one(func(cl *client.Client) error {
		x := &consoleSession{client: cl, out: s.out, json: c.JSON, timeout: func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, c.Timeout) }}
		for _, line := range c.Command {
			if err := x.do(line); err != nil {
				return err
			}
		}
		return nil
	})
}

// consoleSession is a console that is attached to a cluster.
type consoleSession struct {
	client  *client.Client
	out     io.Writer
	json    bool
	timeout func() (context.Context, context.CancelFunc)
}

// consoleCommand is one command: what it prints as text, and the same for scripts.
type consoleCommand struct {
	name, args, help string
	most             int // arguments, without "on NODE"
	least            int
	run              func(x *consoleSession, ctx context.Context, args []string, on string) (shown, error)
}

// shown is what a command has found.
type shown struct {
	json any
	text func(io.Writer) error
}

// consoleCommands is a function because help lists them.
func consoleCommands() []consoleCommand {
	return []consoleCommand{
		{"nodes", "", "the members, and whether they can be reached", 0, 0, (*consoleSession).nodes},
		{"actors", "[PATTERN] [on NODE]", "the actors of all nodes as a tree: what each does, and what waits for it", 1, 0, (*consoleSession).actors},
		{"inspect", "ACTOR [on NODE]", "one actor, and what it says of itself; without a node, of the one that was asked", 1, 1, (*consoleSession).inspect},
		{"errors", "[on NODE]", "what went wrong lately: actors that failed, and errors that were logged; latest first", 0, 0, (*consoleSession).errors},
		{"help", "", "this", 0, 0, (*consoleSession).help},
	}
}

// do carries out one command.
func (x *consoleSession) do(line string) error {
	words, on := strings.Fields(line), ""
	if n := len(words); n > 2 && words[n-2] == "on" {
		words, on = words[:n-2], words[n-1]
	}
	if len(words) == 0 {
		return usageError("an empty command: -e help lists them")
	}
	all := consoleCommands()
	i := slices.IndexFunc(all, func(c consoleCommand) bool { return c.name == words[0] })
	if i < 0 {
		return usageError(fmt.Sprintf("no command %q: -e help lists them", words[0]))
	}
	c, args := all[i], words[1:]
	if len(args) < c.least || len(args) > c.most || on != "" && !strings.Contains(c.args, "NODE") {
		return usageError(strings.TrimSpace("usage: " + c.name + " " + c.args))
	}
	ctx, cancel := x.timeout()
	defer cancel()
	found, err := c.run(x, ctx, args, on)
	if found.text == nil {
		return err
	}
	if x.json {
		return errors.Join(writeJSON(x.out, found.json), err)
	}
	return errors.Join(found.text(x.out), err)
}

func (x *consoleSession) help(context.Context, []string, string) (shown, error) {
	type commandJSON struct {
		Command string `json:"command"`
		Args    string `json:"args"`
		Help    string `json:"help"`
	}
	var all []commandJSON
	for _, c := range consoleCommands() {
		all = append(all, commandJSON{c.name, c.args, c.help})
	}
	return shown{all, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, c := range all {
			fmt.Fprintf(t, "%s %s\t%s\n", c.Command, c.Args, c.Help)
		}
		fmt.Fprintln(t)
		fmt.Fprintln(t, `A PATTERN is a part of the names, or, with *, which stands for anything, whole names: vnode, vnode/1*, *n2.`)
		return t.Flush()
	}}, nil
}

// known is the cluster, once the client knows where its members are.
func (x *consoleSession) known(ctx context.Context) (client.ClusterStatus, error) {
	status, err := x.client.Cluster().Status(ctx)
	if err == nil {
		err = x.client.Ready(ctx)
	}
	return status, err
}

// memberJSON is a member for scripts.
type memberRowJSON struct {
	Node      string `json:"node"`
	Status    string `json:"status"`
	Reachable bool   `json:"reachable"`
	Slow      bool   `json:"slow"`
	Address   string `json:"address"`
	Version   uint64 `json:"version"`
	Asked     bool   `json:"asked"`
}

func (x *consoleSession) nodes(ctx context.Context, _ []string, _ string) (shown, error) {
	status, err := x.known(ctx)
	if err != nil {
		return shown{}, err
	}
	var all []memberRowJSON
	for _, n := range status.Nodes {
		m, _ := status.Document.Member(n.Node)
		all = append(all, memberRowJSON{string(n.Node), m.Status.String(), n.Reachable, n.Slow, cmp.Or(n.Address, m.Address), n.Known, string(n.Node) == status.Asked})
	}
	return shown{all, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "NODE\tSTATUS\tREACHABLE\tADDRESS\tVERSION\t")
		for _, n := range all {
			reachable, asked := "no", ""
			switch {
			case n.Slow:
				reachable = "slow"
			case n.Reachable:
				reachable = "yes"
			}
			if n.Asked {
				asked = "says this"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", safe(n.Node), n.Status, reachable, safe(dash(n.Address)), n.Version, asked)
		}
		return t.Flush()
	}}, nil
}

// each asks one node, or all. What some have said is there although others did not answer.
func each[T any](x *consoleSession, ctx context.Context, on string, ask func(node string) (T, error)) (nodes []string, all map[string]T, err error) {
	status, err := x.known(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range status.Nodes {
		if on == "" || n.Node == dynamo.NodeID(on) {
			nodes = append(nodes, string(n.Node))
		}
	}
	if len(nodes) == 0 {
		return nil, nil, fmt.Errorf("no member is named %q: -e nodes lists them", on)
	}
	type answer struct {
		node string
		said T
		err  error
	}
	answers := make(chan answer, len(nodes))
	for _, node := range nodes {
		go func() {
			said, err := ask(node)
			answers <- answer{node, said, err}
		}()
	}
	all = map[string]T{}
	for range nodes {
		a := <-answers
		if a.err != nil {
			err = errors.Join(err, a.err)
			continue
		}
		all[a.node] = a.said
	}
	return slices.DeleteFunc(nodes, func(node string) bool { _, ok := all[node]; return !ok }), all, err
}

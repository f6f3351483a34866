package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
)

// consoleCmd looks into the nodes of a running cluster, and changes them.
type consoleCmd struct {
	connection
	JSON    bool     `name:"json" help:"Print JSON, one value for each command."`
	Yes     bool     `help:"Do not ask before restart and kill."`
	Times   int      `placeholder:"N" help:"End watch, logs and top after so many looks, instead of at Ctrl-C."`
	Command []string `short:"e" sep:"none" placeholder:"COMMAND" help:"Carry out this command; repeatable. \"help\" lists them. Without it, commands are read: with a prompt at a terminal, else one a line."`
	At      string   `arg:"" optional:"" name:"address" help:"Node to connect to, instead of --node."`
}

// Run carries out the commands in order, up to the first that fails; or those that are typed.
func (c *consoleCmd) Run(ctx context.Context, s *streams) error {
	if c.At != "" {
		c.Node = []string{c.At}
	}
	return c.one(func(cl *client.Client) error {
		x := &consoleSession{client: cl, streams: s, json: c.JSON, yes: c.Yes, times: c.Times, limit: c.Timeout}
		if len(c.Command) == 0 {
			return x.converse(ctx)
		}
		if isTerminal(s.in) {
			x.ask = x.askPlainly
		}
		for _, line := range c.Command {
			if err := x.do(ctx, line); err != nil {
				return err
			}
		}
		return nil
	})
}

// consoleSession is a console that is attached to a cluster.
type consoleSession struct {
	*streams
	client *client.Client
	json   bool
	// yes: nobody is asked before something is changed.
	yes bool
	// times is after how many looks the commands that go on end; 0: at Ctrl-C.
	times int
	// limit is for one command, but for those that go on.
	limit time.Duration
	// whole is the time of the command that runs, for those that go on.
	whole context.Context
	// ask asks a question at the prompt; nil where there is none.
	ask func(question string) (string, error)
}

// consoleCommand is one command: what it prints as text, and the same for scripts. What it
// teaches is in lessons.
type consoleCommand struct {
	name, args, help string
	most             int // arguments, without "on NODE"
	least            int
	run              func(x *consoleSession, ctx context.Context, args []string, on string) (shown, error)
}

// shown is what a command has found; nothing if it has printed that itself.
type shown struct {
	json any
	text func(io.Writer) error
}

// consoleCommands is a function because help lists them.
func consoleCommands() []consoleCommand {
	return []consoleCommand{
		{"nodes", "", "the members, and whether they can be reached", 0, 0, (*consoleSession).nodes},
		{"ring", "", "who owns which partition, what moves, who cannot be reached", 0, 0, (*consoleSession).ring},
		{"key", "BUCKET KEY", "where a key lives: its replicas, their versions side by side, hints, and why there are siblings", 2, 2, (*consoleSession).key},
		{"actors", "[PATTERN] [on NODE]", "the actors of all nodes as a tree: what each does, and what waits for it", 1, 0, (*consoleSession).actors},
		{"inspect", "ACTOR [on NODE]", "one actor, and what it says of itself; without a node, of the first that has it", 1, 1, (*consoleSession).inspect},
		{"watch", "ACTOR [on NODE]", "inspect again each second; what has changed is marked", 1, 1, (*consoleSession).watch},
		{"top", "[rate|waiting|oldest] [console] [on NODE]", "the actors that have most to do, refreshed each second", 2, 0, (*consoleSession).top},
		{"errors", "[on NODE]", "what went wrong lately: actors that failed, and errors that were logged; latest first", 0, 0, (*consoleSession).errors},
		{"logs", "[on NODE]", "follow what nodes log", 0, 0, (*consoleSession).logs},
		{"trace", "get|put BUCKET KEY [VALUE]", "carry out a get, or a put in the place of what is there, and show what happened at which node", 4, 1, (*consoleSession).trace},
		{"requests", "--slow [--limit N | --id ID] [on NODE]", "the slowest requests of the last five minutes, or what happened to one of them", 3, 1, (*consoleSession).requests},
		{"hints", "", "what nodes keep for others that could not be reached", 0, 0, (*consoleSession).hints},
		{"transfers", "", "what nodes have to move, how fast, what is left", 0, 0, (*consoleSession).transfers},
		{"aae", "", "which replicas were compared when (anti-entropy), and what is reaped", 0, 0, (*consoleSession).aae},
		{"background", "", "what nodes do besides serving clients, which share of their time that may take, and why", 0, 0, (*consoleSession).background},
		{"buckets", "", "the buckets that were created, and their properties", 0, 0, (*consoleSession).buckets},
		{"bucket", "set BUCKET PROPERTY=VALUE...", "change properties of a bucket: r, w, pr, pw, durability, ttl", 9, 3, (*consoleSession).bucket},
		{"set", "[NAME VALUE] [on NODE]", "change a setting of nodes until they stop; without a name, list what can be changed", 2, 0, (*consoleSession).set},
		{"restart", "ACTOR [on NODE]", "make an actor fail, so that its supervisor restarts it; asks first", 1, 1, (*consoleSession).restart},
		{"kill", "ACTOR [on NODE]", "stop a request, or an actor that its supervisor starts again; asks first", 1, 1, (*consoleSession).kill},
		{"help", "[COMMAND]", "this, or what a command is for, with an example", 1, 0, (*consoleSession).help},
	}
}

// commandOf finds a command by its name.
func commandOf(name string) (consoleCommand, error) {
	all := consoleCommands()
	i := slices.IndexFunc(all, func(c consoleCommand) bool { return c.name == name })
	if i < 0 {
		return consoleCommand{}, usageError(fmt.Sprintf("no command %q: help lists them", name))
	}
	return all[i], nil
}

// parse takes a line apart: the command, its arguments, and the node behind "on".
func parse(line string) (c consoleCommand, args []string, on string, err error) {
	words, err := split(line)
	if err != nil {
		return c, nil, "", usageError(err.Error())
	}
	if len(words) == 0 {
		return c, nil, "", usageError("an empty command: help lists them")
	}
	if c, err = commandOf(words[0].text); err != nil {
		return c, nil, "", err
	}
	if n := len(words); n > 2 && words[n-2] == (word{text: "on"}) && strings.Contains(c.args, "[on NODE]") {
		words, on = words[:n-2], words[n-1].text
	}
	for _, w := range words[1:] {
		args = append(args, w.text)
	}
	if len(args) < c.least || len(args) > c.most {
		return c, nil, "", usageError(strings.TrimSpace("usage: " + c.name + " " + c.args))
	}
	return c, args, on, nil
}

// do carries out one command.
func (x *consoleSession) do(whole context.Context, line string) error {
	c, args, on, err := parse(line)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(whole, x.limit)
	defer cancel()
	x.whole = whole
	found, err := c.run(x, ctx, args, on)
	if found.text == nil {
		return err
	}
	if x.json {
		return errors.Join(writeJSON(x.out, found.json), err)
	}
	return errors.Join(found.text(x.out), err)
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
		return nil, nil, fmt.Errorf("no member is named %q: nodes lists them", on)
	}
	said, problems := make([]T, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { said[i], problems[i] = ask(node) })
	}
	wg.Wait()
	all = map[string]T{}
	for i, node := range nodes {
		if problems[i] == nil {
			all[node] = said[i]
		}
	}
	err = errors.Join(problems...)
	return slices.DeleteFunc(nodes, func(node string) bool { _, ok := all[node]; return !ok }), all, err
}

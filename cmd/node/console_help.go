package main

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// lesson teaches one command.
type lesson struct{ text, example string }

// lessons are by command; each has one.
var lessons = map[string]lesson{
	"nodes": {"Each member of the cluster, and the opinion of the node that was asked: can it reach the others? " +
		"VERSION is the newest cluster document that the member has said it knows.", "nodes"},
	"ring": {"The hash space is cut into partitions, drawn clockwise from the top; the letter is the node that comes first in the preference list. " +
		"~ marks a partition that moves or has a replica that is being filled, ! one whose first node cannot be reached.", "ring"},
	"key": {"Where a key lies, and what each node has of it: its replicas in the order of the preference list, who stands in for those that cannot be reached, hints. " +
		"A version is named by its dot: the vnode's incarnation, its epoch, and a counter; the clock says which writes a copy has seen. Values are not shown, only their size and hash. " +
		"Words with spaces or other bytes stand in double quotes, as Go writes them.", `key default "a key\x00"`},
	"actors": {"Everything in a node is an actor with a name. A pattern is a part of the names, or, with *, which stands for anything, whole names. " +
		"Actors that are stuck are listed like others: busy says for how long.", "actors vnode/1* on n2"},
	"inspect": {"First what is seen from outside, then what the actor says of itself. One that does not answer within a second is stuck, or has much to do: the first part says which.", "inspect vnode/3 on n1"},
	"watch":   {"As inspect, again each second. What has changed since is marked. Ctrl-C ends it.", "watch coordinator on n1"},
	"top": {"The actors of all nodes that have most to do: by messages handled a second, by messages that wait, or by how long the oldest waits. " +
		"Those that are stuck come first. The actors named console, which answer this, are shown only with the word console. At a terminal it fills the screen: r, w and o sort, q ends it.", "top waiting"},
	"errors": {"What went wrong since the nodes have started, latest first: the last 256 of each. An actor that failed says what its supervisor did, one that was restarted or killed by whom.", "errors on n3"},
	"logs":   {"The last lines of each node's log, and then what comes, by time. Nodes keep 1000 lines for this. With set log-level debug more is logged. Ctrl-C ends it.", "logs on n2"},
	"trace": {"Carries out a get, or a put that replaces the values that are there, and shows from top to bottom what happened when at which node. " +
		"In parentheses is what a replica's time went for: it waited for its turn, was in it, waited for a reader of the store, was in the store, was on the way. " +
		"Values are not kept. Words with spaces or other bytes stand in double quotes.", `trace put default "a key\x00" bread`},
	"requests": {"Each node keeps the slowest requests that it has coordinated in the last five minutes, with what happened to each. The slowest of all nodes are shown, slowest first, 20 unless --limit says otherwise. " +
		"SLOWEST STEP is what the client waited for longest. --id shows one from top to bottom; its id is the name of the actor that has carried it out, which the log has, too. JSON has all that nodes keep, with what happened.", "requests --slow --limit 50 on n1"},
	"hints":      {"A write for a node that cannot be reached is kept by another one, as a hint, and handed over later (hinted handoff).", "hints"},
	"transfers":  {"Partitions that are filled after the ring has changed or a disk was lost, hints that are handed over, and what lies where it does not belong.", "transfers"},
	"aae":        {"Anti-entropy compares each two replicas in the background, and mends what differs. The pair that was not compared for longest is named below. node cluster repair compares now.", "aae"},
	"background": {"Transfers, fills, comparisons and hash trees get a share of the time, which shrinks when clients' requests suffer. This shows the share, who has it, and why.", "background"},
	"buckets":    {"Buckets that were created have properties of their own: n replicas, r and w of them for a read and a write. Others have the defaults.", "buckets"},
	"bucket":     {"Changes properties of a bucket that was created: r, w, pr, pw, durability (all, one, none) and ttl (24h; 0s is for ever). n and conflicts are fixed.", "bucket set sessions w=3 ttl=24h"},
	"set":        {"Without a name: what can be changed of each node while it runs, and how it is. With one: the change holds until the node stops, and is logged. The node must run with --console-control.", "set log-level debug on n2"},
	"restart": {"Makes the actor fail, as if it had met a defect: its supervisor decides what comes of it, and errors shows it. It says first what will happen, and asks. " +
		"The node must run with --console-control.", "restart vnode/3 on n1"},
	"kill": {"Stops an actor. Only of requests and of actors that somebody starts again. It says first what will happen, and asks. The node must run with --console-control.", "kill vnode/3 on n1"},
	"help": {"Without a command: all of them.", "help key"},
}

// helpJSON is a command for scripts.
type helpJSON struct {
	Command string `json:"command"`
	Args    string `json:"args"`
	Help    string `json:"help"`
	Lesson  string `json:"lesson,omitempty"`
	Example string `json:"example,omitempty"`
}

func (x *consoleSession) help(_ context.Context, args []string, _ string) (shown, error) {
	if len(args) == 1 {
		c, err := commandOf(args[0])
		if err != nil {
			return shown{}, err
		}
		l := lessons[c.name]
		return shown{[]helpJSON{{c.name, c.args, c.help, l.text, l.example}}, func(w io.Writer) error {
			return say(w, fmt.Sprintf("%s %s\n  %s\n\n%s\n\nExample: %s", c.name, c.args, c.help, l.text, l.example))
		}}, nil
	}
	var all []helpJSON
	for _, c := range consoleCommands() {
		all = append(all, helpJSON{Command: c.name, Args: c.args, Help: c.help})
	}
	return shown{all, func(w io.Writer) error {
		if err := listCommands(w, all, columnsOf(w)); err != nil {
			return err
		}
		return say(w, "\nA PATTERN is a part of the names, or, with *, which stands for anything, whole names: vnode, vnode/1*, *n2.\n"+
			`Words with spaces or other bytes stand in double quotes: "a b", "\x00". help COMMAND teaches one.`)
	}}, nil
}

// leastForHelp is how many columns beside the commands are enough to say what they do; of fewer,
// that stands below.
const leastForHelp = 30

// listCommands prints commands and what they do, in a number of columns, 0 for any.
func listCommands(w io.Writer, all []helpJSON, columns int) error {
	var out strings.Builder
	beside := 0
	for _, c := range all {
		beside = max(beside, len(c.Command)+1+len(c.Args)+2)
	}
	for _, c := range all {
		words := c.Command + " " + c.Args
		if columns > 0 && columns < beside+leastForHelp {
			fmt.Fprintf(&out, "%s\n%s\n", wrap(strings.TrimSpace(words), columns), wrap("    "+c.Help, columns))
			continue
		}
		lines := strings.ReplaceAll(wrap(c.Help, max(0, columns-beside)), "\n", "\n"+strings.Repeat(" ", beside))
		fmt.Fprintf(&out, "%-*s%s\n", beside, words, lines)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

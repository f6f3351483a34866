package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/reeflective/readline"

	"github.com/dynactor/dynactor/client"
)

// choice is a word that could come next, and what it is.
type choice struct{ word, help string }

// completionWait is how long the nodes may take to say what there is to choose from.
const completionWait = time.Second

// offer is what could come next, for the prompt.
func offer(x *consoleSession, ctx context.Context, line string) readline.Completions {
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	var pairs []string
	for _, c := range choices(x, ctx, line) {
		pairs = append(pairs, c.word, c.help)
	}
	return readline.CompleteValuesDescribed(pairs...)
}

// choices are the words that could come next on a line: commands, then what the command takes.
func choices(x *consoleSession, ctx context.Context, line string) []choice {
	words, err := split(line)
	if err != nil {
		return nil // within quotes
	}
	begun := ""
	if n := len(words); n > 0 && !strings.HasSuffix(line, " ") {
		begun = words[n-1].text
		words = words[:n-1]
	}
	var all []choice
	if len(words) == 0 {
		all = commandChoices()
	} else if c, err := commandOf(words[0].text); err == nil {
		all = argumentChoices(x, ctx, c, words[1:])
	}
	return slices.DeleteFunc(all, func(c choice) bool { return !strings.HasPrefix(c.word, asWordBegun(begun)) })
}

// asWordBegun is asWord for a word whose end is not there yet.
func asWordBegun(text string) string {
	if text == "" || text == "on" {
		return text
	}
	return strings.TrimSuffix(asWord(text), `"`)
}

func commandChoices() (out []choice) {
	for _, c := range consoleCommands() {
		out = append(out, choice{c.name, c.help})
	}
	return out
}

// argumentChoices are what may stand behind a command and some arguments.
func argumentChoices(x *consoleSession, ctx context.Context, c consoleCommand, before []word) []choice {
	n := len(before)
	if n > 0 && before[n-1] == (word{text: "on"}) && strings.Contains(c.args, "[on NODE]") {
		return nodeChoices(x, ctx)
	}
	var out []choice
	if strings.Contains(c.args, "[on NODE]") && n >= c.least && n <= c.most {
		out = append(out, choice{"on", "a node"})
	}
	at := func(name string, i int) bool { return c.name == name && n == i }
	switch {
	case at("help", 0):
		out = commandChoices()
	case (strings.HasPrefix(c.args, "ACTOR") || c.name == "actors") && n == 0:
		out = append(out, actorChoices(x, ctx)...)
	case c.name == "top":
		for _, o := range orders {
			out = append(out, choice{o.name, "sort by it"})
		}
		out = append(out, choice{topConsole, "show consoles, too"})
	case at("trace", 0):
		out = []choice{{"get", "read the key"}, {"put", "replace the values of the key"}}
	case at("requests", 0):
		out = []choice{{"--slow", "the slowest of the last five minutes"}}
	case at("requests", 1):
		out = append(out, choice{"--limit", "how many"}, choice{"--id", "what happened to one"})
	case at("requests", 2):
		out = nil // a number
		if before[1].text == "--id" {
			out = slowChoices(x, ctx)
		}
	case at("key", 0), at("bucket", 1), at("trace", 1):
		out = bucketChoices(x, ctx)
	case at("bucket", 0):
		out = []choice{{"set", "change properties"}}
	case c.name == "bucket":
		for _, p := range []string{"r=", "w=", "pr=", "pw=", "durability=", "ttl="} {
			out = append(out, choice{p, ""})
		}
	case at("set", 0):
		out = append(out, settingChoices(x, ctx)...)
	}
	return out
}

func nodeChoices(x *consoleSession, ctx context.Context) (out []choice) {
	status, err := x.client.Cluster().Status(ctx)
	if err != nil {
		return nil
	}
	for _, n := range status.Nodes {
		out = append(out, choice{asWord(string(n.Node)), ""})
	}
	return out
}

func bucketChoices(x *consoleSession, ctx context.Context) (out []choice) {
	status, err := x.client.Cluster().Status(ctx)
	if err != nil {
		return nil
	}
	for _, b := range status.Document.Buckets {
		out = append(out, choice{asWord(b.Name), ""})
	}
	return out
}

// actorChoices are the actors of the node that is asked, and of the others those that it has not.
func actorChoices(x *consoleSession, ctx context.Context) (out []choice) {
	_, all, _ := each(x, ctx, "", func(node string) ([]client.Actor, error) {
		some, _, err := x.client.Cluster().Actors(ctx, node, "", 0)
		return some, err
	})
	seen := map[string]bool{}
	for _, some := range all {
		for _, a := range some {
			if !seen[a.Name] {
				seen[a.Name] = true
				out = append(out, choice{asWord(a.Name), ""})
			}
		}
	}
	slices.SortFunc(out, func(a, b choice) int { return strings.Compare(a.word, b.word) })
	return out
}

func slowChoices(x *consoleSession, ctx context.Context) (out []choice) {
	all, _ := x.slowest(ctx, "", shownSlow)
	for _, r := range all {
		out = append(out, choice{asWord(r.ID), span(r.Took) + " " + safe(r.Kind) + " of " + safe(r.Key)})
	}
	return out
}

func settingChoices(x *consoleSession, ctx context.Context) (out []choice) {
	status, err := x.known(ctx)
	if err != nil {
		return nil
	}
	all, err := x.client.Cluster().Settings(ctx, status.Asked)
	if err != nil {
		return nil
	}
	for _, s := range all {
		out = append(out, choice{asWord(s.Name), safe(s.Help)})
	}
	return out
}

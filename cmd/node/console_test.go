package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/dynactor/dynactor/client"
)

// numbers are what differs from run to run.
var numbers = regexp.MustCompile(`[0-9][0-9.]*(ns|µs|ms|s|m|h)?([0-9.]+(s|m))?`)

// TestConsole: an operator looks at a real cluster.
func TestConsole(t *testing.T) {
	at := cluster(t)
	address := strings.TrimPrefix(at[1], "--node=")
	console := func(flags ...string) []string { return append([]string{"console", address, at[0]}, flags...) }
	shows := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in\n%s", w, out)
			}
		}
	}
	shows(must(t, "", console("-e", "nodes")...), "NODE", "n1", "n2", "n3", "up", "yes", "says this")
	out := must(t, "", console("-e", "actors vnode/1 on n2", "-e", "actors reaps")...)
	shows(out, "ACTOR", "n2", "  vnode/1 ", "  vnode/15 ", "n3", "  reaps ", "idle")
	if strings.Count(out, "  reaps ") != 3 || strings.Count(out, "vnode/") != 7 {
		t.Errorf("printed\n%s", out)
	}
	out = must(t, "", console("-e", "actors on n1")...)
	shows(out, "\n  node ", "\n    vnodes ", "\n      vnode/0 ", "\n    console ", "\n  links ", "\n    links/n2 ")
	out = must(t, "", console("-e", "inspect vnode/3 on n3")...)
	shows(out, "vnode/3 on n3\n", "  state: ", "  supervisor: ", "vnodes\n", "  partition: ", "  role:", "    n=3: ", "replica\n", "  incarnation: ")
	const want = `detector on n2
  state:             idle
  supervisor:        node
  age:               N
  messages waiting:  N
  size of them:      N B
  that overtake:     N
  oldest waits for:  -
  in a handler for:  -
  handled:           N
  refused:           N
  expired:           N
  restarts:          N

  nodes known:  N
  nodes:        
    nN:
`
	detector := numbers.ReplaceAllString(must(t, "", console("-e", "inspect detector on n2")...), "N")
	if !strings.HasPrefix(squeeze(detector), squeeze(numbers.ReplaceAllString(want, "N"))) {
		t.Errorf("printed\n%s\nwant\n%s", detector, want)
	}
	shows(must(t, "", console("-e", "errors")...), "Nothing went wrong")
	shows(must(t, "", console("-e", "help")...), "inspect ACTOR [on NODE]", "errors [on NODE]", "PATTERN")
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"inspect vnode/99":      {exitUnavailable, `no actor "vnode/99"`},
		"inspect":               {exitUsage, "usage: inspect ACTOR [on NODE]"},
		"inspect a b c":         {exitUsage, "usage: inspect"},
		"nodes on n1":           {exitUsage, "usage: nodes"},
		"reboot":                {exitUsage, `no command "reboot"`},
		"":                      {exitUsage, "empty command"},
		"actors on nobody":      {exitFailed, `no member is named "nobody"`},
		"inspect detector on x": {exitUnavailable, "cannot be reached"},
	} {
		r := node(t, "", console("-e", line, "-e", "help")...)
		if r.code != want.code || !strings.Contains(r.err, want.text) || strings.Contains(r.out, "PATTERN") {
			t.Errorf("%q: exit status %d, want %d\n%s%s", line, r.code, want.code, r.out, r.err)
		}
	}
	if r := node(t, "\nhelp errors\n reboot\nhelp\n", console()...); r.code != exitUsage || !strings.Contains(r.out, "Example: errors on n3") || strings.Contains(r.out, "PATTERN") {
		t.Errorf("read by line: %+v", r)
	}
}

// squeeze takes out how wide columns are.
func squeeze(s string) string {
	s = regexp.MustCompile(` *\n *`).ReplaceAllString(s, "\n")
	return regexp.MustCompile(` +`).ReplaceAllString(s, " ")
}

// TestConsoleJSON: one value for each command.
func TestConsoleJSON(t *testing.T) {
	at := cluster(t)
	d := json.NewDecoder(strings.NewReader(must(t, "", append([]string{"console", "--json", "-e", "nodes", "-e", "actors", "-e", "inspect vnode/2 on n2", "-e", "errors", "-e", "help"}, at...)...)))
	d.DisallowUnknownFields()
	var (
		nodes   []memberRowJSON
		actors  []actorJSON
		inspect struct {
			Actor  actorJSON   `json:"actor"`
			Fields []fieldJSON `json:"fields"`
		}
		faults []faultJSON
		help   []helpJSON
	)
	for _, v := range []any{&nodes, &actors, &inspect, &faults, &help} {
		if err := d.Decode(v); err != nil {
			t.Fatal(err)
		}
	}
	if len(nodes) != 3 || nodes[0].Node != "n1" || !nodes[0].Reachable || nodes[0].Status != "up" || nodes[0].Address == "" {
		t.Errorf("nodes %+v", nodes)
	}
	if len(actors) < 60 || actors[0].Node != "n1" || actors[0].Name != "admission" || actors[0].Kind != "admission" || actors[0].Parent != "node" || actors[0].AgeUS <= 0 {
		t.Errorf("%d actors, %+v", len(actors), actors[:min(1, len(actors))])
	}
	if a := inspect.Actor; a.Node != "n2" || a.Name != "vnode/2" || len(inspect.Fields) < 5 || inspect.Fields[0] != (fieldJSON{Name: "partition", Type: "count", Value: 2.0}) {
		t.Errorf("inspected %+v", inspect)
	}
	if faults == nil || len(faults) != 0 || len(help) != len(consoleCommands()) {
		t.Errorf("faults %v, help %v", faults, help)
	}
}

// TestHostileTexts: whatever a node says, the terminal only gets what can be printed.
func TestHostileTexts(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J\r\n\t\u202e\u200b\xff\u009b1m\x7f"
	for in, want := range map[string]string{
		"vnode/17": "vnode/17", "größe €": "größe €", "": "", evil: `\x1b]0;owned\a\x1b[2J\r\n\t\u202e\u200b\xff\u009b1m\x7f`, "\ufffd": "\ufffd", `"q"'\`: `"q"'\`,
	} {
		if got := safe(in); got != want {
			t.Errorf("%q is printed %q, want %q", in, got, want)
		}
	}
	a := client.Actor{Name: evil, Parent: evil, Panic: &client.Panic{Reason: evil, Message: evil, Stack: evil + "\n" + evil}}
	i := client.Inspection{Actor: a, NoAnswer: evil, List: client.List{More: true, Fields: []client.Field{
		{Name: evil, Value: evil}, {Name: "l", Value: client.List{Fields: []client.Field{{Name: evil, Value: client.Count(1)}}}},
		{Name: "s", Value: client.Share(0.125)}, {Name: "b", Value: client.Bytes(1500)}, {Name: "t", Value: time.UnixMilli(0).UTC()}, {Name: "d", Value: 1500 * time.Millisecond},
	}}}
	var out bytes.Buffer
	if err := showInspection(&out, evil, i); err != nil {
		t.Fatal(err)
	}
	tree(&out, []client.Actor{a, {Name: "x", Parent: evil}, {Name: "y", Parent: "y"}})
	for _, r := range strings.NewReplacer("\n", "", "\t", "").Replace(out.String()) {
		if !unicode.IsPrint(r) {
			t.Fatalf("printed %q:\n%q", r, out.String())
		}
	}
	for _, want := range []string{"12.5 %", "1.5 kB", "1970-01-01T00:00:00Z", "1.5s", "...", "no answer:", "    x\t", "  y\t"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestConsoleTeaches: every command has a lesson whose example is one of its own, and no lesson
// is about a command that is no more.
func TestConsoleTeaches(t *testing.T) {
	left := maps.Clone(lessons)
	for _, c := range consoleCommands() {
		l, ok := lessons[c.name]
		if delete(left, c.name); !ok || l.text == "" {
			t.Errorf("%s has no lesson", c.name)
		}
		if got, _, _, err := parse(l.example); err != nil || got.name != c.name {
			t.Errorf("the example of %s is %q: %s, %v", c.name, l.example, got.name, err)
		}
	}
	if len(left) > 0 {
		t.Errorf("lessons of no command: %v", left)
	}
}

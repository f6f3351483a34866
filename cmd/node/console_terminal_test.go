package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
)

// TestTerminal is what an operator sees at a terminal, of a cluster of three node processes.
func TestTerminal(t *testing.T) {
	nodes := processes(t, 3, "--console-control")
	at := nodes[0].address
	must(t, "", "put", "hello", "world", "--node="+at)
	must(t, "", "bucket", "create", "carts", "--node="+at)
	for _, tc := range []struct {
		name string
		run  func(t *testing.T, at string)
	}{
		{"prompt", terminalPrompt},
		{"completion", terminalCompletion},
		{"history", terminalHistory},
		{"interrupts", terminalInterrupts},
		{"questions", terminalQuestions},
		{"words", terminalWords},
		{"ring", terminalRing},
		{"hostile", terminalHostile},
		{"top", terminalTop},
		{"top alone", terminalTopAlone},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(t, at) })
	}
}

// has fails the test for texts that are missing.
func has(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in\n%s", w, out)
		}
	}
}

func terminalPrompt(t *testing.T, at string) {
	x := atTerminal(t, home(t), 100, 60, at)
	x.ready(t)
	x.shows(t, "Attached to n")
	has(t, x.lines()[0], "help lists the commands, Tab completes, Ctrl-C cancels, Ctrl-D ends.")
	out, _ := x.run(t, "nodes")
	has(t, out, "NODE  STATUS  REACHABLE  ADDRESS", "n1    up      yes", "n2    up      yes", "n3    up      yes", "says this")
	out, _ = x.run(t, "help")
	has(t, out, "inspect ACTOR [on NODE]", "help COMMAND teaches one.")
	out, _ = x.run(t, "help key")
	has(t, out, "key BUCKET KEY", "A version is named by its dot", `Example: key default "a key\x00"`)
	out, _ = x.run(t, "reboot")
	has(t, out, `no command "reboot": help lists them`)
	if out, _ = x.run(t, "   "); out != "\n" {
		t.Errorf("an empty line prints %q", out)
	}
	x.typed(t, "\x04")
	if code := x.ended(t); code != exitOK || x.modes(t) != x.fresh {
		t.Errorf("Ctrl-D: exit status %d, terminal %+v, was %+v", code, x.modes(t), x.fresh)
	}
}

func terminalCompletion(t *testing.T, at string) {
	x := atTerminal(t, home(t), 100, 60, at)
	for keys, want := range map[string]string{
		"nod\t":                       "nodes",
		"inspect coord\t":             "inspect coordinator",
		"key car\t":                   "key carts",
		"inspect coordinator on n\t":  "inspect coordinator on n1",
		"inspect coordinator on n2\t": "inspect coordinator on n2",
		"xyz\t":                       "xyz",
	} {
		x.run(t, "")
		prompt := x.lines()[1]
		x.edit(t, keys, prompt+" "+want)
		x.edit(t, "\x15", prompt)
	}
	x.run(t, "")
	x.edit(t, "help nod\t", x.lines()[1]+" help nodes")
	out, _ := x.enter(t, "") // once
	has(t, out, "Example: nodes")
}

func terminalHistory(t *testing.T, at string) {
	env := home(t)
	path := filepath.Join(strings.TrimPrefix(env[1], "XDG_STATE_HOME="), "dynactor", "console_history")
	first := atTerminal(t, env, 100, 60, at)
	first.run(t, "help nodes")
	first.run(t, "help ring")
	prompt := first.lines()[len(first.lines())-1]
	first.edit(t, "\x1b[A", prompt+" help ring")
	first.edit(t, "\x1b[A", prompt+" help nodes")
	first.edit(t, "\x15", prompt)
	for file, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", file, info, err, want)
		}
	}
	first.typed(t, "\x04")
	if code := first.ended(t); code != exitOK {
		t.Errorf("exit status %d", code)
	}
	second := atTerminal(t, env, 100, 60, at)
	second.ready(t)
	prompt = second.lines()[len(second.lines())-1]
	second.edit(t, "\x1b[A", prompt+" help ring")
	out, _ := second.enter(t, "")
	has(t, out, "Example: ring")
}

func terminalInterrupts(t *testing.T, at string) {
	x := atTerminal(t, home(t), 100, 60, at)
	x.ready(t)
	prompt := x.lines()[len(x.lines())-1]
	x.edit(t, "inspect vno", prompt+" inspect vno")
	x.typed(t, "\x03")
	x.ready(t)
	x.typed(t, "watch coordinator on n2\r")
	clock := regexp.MustCompile(`\d\d:\d\d:\d\d, again each 1s; Ctrl-C ends it`)
	seen := map[string]bool{}
	eventually(t, "two looks", func() bool {
		text := strings.Join(x.lines(), "\n")
		if strings.Contains(text, "coordinator on n2") {
			seen[clock.FindString(text)] = true
		}
		return len(seen) > 2 // "" when it is being drawn
	})
	x.typed(t, "\x03")
	x.ready(t)
	has(t, strings.Join(x.lines(), "\n"), "cancelled")
	out, _ := x.run(t, "nodes")
	has(t, out, "n2    up      yes")
}

func terminalQuestions(t *testing.T, at string) {
	x := atTerminal(t, home(t), 100, 60, at)
	changes := regexp.MustCompile(`(?m)^  (restarts|incarnation|epoch): .*$`) // when it has started again
	look := func() string {
		out, _ := x.run(t, "inspect vnode/3 on n1")
		return strings.Join(changes.FindAllString(out, -1), "\n")
	}
	before := look()
	has(t, before, "restarts", "incarnation", "epoch")
	for _, command := range []string{"restart vnode/3 on n1", "kill vnode/3 on n1"} {
		for _, answer := range []string{"n\r", "\r", "yeah\r", "\x03", "\x04"} {
			x.run(t, "")
			x.edit(t, command+"\r", "Go on? [y/N]")
			x.typed(t, answer)
			x.ready(t)
			has(t, strings.Join(x.lines(), "\n"), command+": ", "its supervisor", "nothing was done")
		}
	}
	if after := look(); after != before {
		t.Errorf("after five answers that are no yes:\n%s\nwas\n%s", after, before)
	}
	out, _ := x.run(t, "errors")
	has(t, out, "Nothing went wrong")
	x.run(t, "")
	prompt := x.lines()[1]
	for _, line := range []string{"errors", "inspect vnode/3 on n1", "kill vnode/3 on n1"} { // the history has no answers
		x.edit(t, "\x1b[A", prompt+" "+line)
	}
	x.edit(t, "\r", "Go on? [y/N]")
	x.typed(t, "y\r")
	x.ready(t)
	has(t, strings.Join(x.lines(), "\n"), "\nvnode/3 on n1: ")
	eventually(t, "another vnode/3", func() bool { return look() != before })
}

// terminalWords: lines end between words, at any width, and no word is lost.
func terminalWords(t *testing.T, at string) {
	for _, columns := range []int{80, 40} {
		x := atTerminal(t, home(t), columns, 200, at)
		x.ready(t)
		for i, line := range x.lines() {
			if len(line) > columns || i == 0 && !strings.HasSuffix(line, ",") && !strings.HasSuffix(line, "Ctrl-D") && !strings.HasSuffix(line, "the") {
				t.Errorf("line %d at the beginning is %q", i, line)
			}
		}
		for _, command := range []string{"help", "help key", "help trace", "reboot", "inspect nobody on n2", "set x y", `key default "hello`, "key default hello", "restart links/n2"} {
			_, sent := x.run(t, command)
			r := node(t, "", "console", "--node="+at, "-e", command)
			want := strings.TrimPrefix(r.out+r.err, "node: ")
			if command == "key default hello" { // its table is not wrapped
				_, sent, _ = strings.Cut(sent, "EXPIRES")
				_, want, _ = strings.Cut(want, "EXPIRES")
				_, sent, _ = strings.Cut(sent, "\n\n")
				_, want, _ = strings.Cut(want, "\n\n")
			}
			if got, want := strings.Join(strings.Fields(sent), " "), strings.Join(strings.Fields(want), " "); got != want || want == "" {
				t.Errorf("%s in %d columns says\n%s\nwant\n%s", command, columns, got, want)
			}
			for line := range strings.Lines(sent) {
				if w := ansi.StringWidth(strings.TrimRight(line, " \n")); w > columns && strings.Contains(strings.TrimSpace(line), " ") {
					t.Errorf("%s in %d columns: %d in %q", command, columns, w, line)
				}
			}
		}
	}
}

func terminalRing(t *testing.T, at string) {
	for _, columns := range []int{80, 40} {
		x := atTerminal(t, home(t), columns, 60, at)
		_, sent := x.run(t, "ring")
		drawing, legend, _ := strings.Cut(sent, "\n\nVersion")
		letters := regexp.MustCompile(`[abc]`).FindAllString(drawing, -1)
		if len(letters) != 16 || strings.Trim(drawing, "abc \n") != "" {
			t.Errorf("not the letters of 16 partitions:\n%s", sent)
		}
		for line := range strings.Lines(sent) {
			if line = strings.TrimRight(line, "\n"); len(line) > columns {
				t.Errorf("more than %d columns: %q", columns, line)
			}
		}
		for line := range strings.Lines(drawing) {
			if strings.TrimSpace(line) == "" {
				t.Errorf("a blank row in\n%s", drawing)
			}
		}
		has(t, strings.Join(strings.Fields(legend), " "), "a letter is the first replica of a partition.", "a n1 up yes", "b n2 up yes", "c n3 up yes", "Nothing moves.")
	}
}

// terminalHostile: names are typed, pasted, completed, stored and kept in the history that would
// do something to the terminal.
func terminalHostile(t *testing.T, at string) {
	const evil = "\x1b]0;owned\x07\x1b[2J\x1b[8m\u202e\u009b8mz"
	must(t, "", "put", evil, "v", "--bucket="+evil, "--node="+at)
	must(t, "", "bucket", "create", "evil"+evil, "--node="+at)
	env := home(t)
	kept := filepath.Join(strings.TrimPrefix(env[1], "XDG_STATE_HOME="), "dynactor", "console_history")
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(map[string]string{"datetime": "2026-01-01T00:00:00Z", "block": "nodes " + evil})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, append(line, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	x := atTerminal(t, env, 100, 60, at)
	x.run(t, "")
	prompt := x.lines()[1]
	x.edit(t, "\x1b[A", prompt+` nodes \x1b]0;owned\a\x1b[2J\x1b[8m\u202e\u009b8mz`)
	x.edit(t, "\x15", prompt)
	x.edit(t, "nodes ab\u202e", prompt+" nodes ab\ufffd")
	x.typed(t, "\x03")
	x.ready(t)
	x.edit(t, "\x1b[200~help "+evil[:len(evil)-len("\u009b8mz")]+"\n\x1b[201~", prompt+` help \x1b]0;owned\a\x1b[2J\x1b[8m\u202e`)
	out, _ := x.enter(t, "")
	has(t, out, "no command", "owned")
	out, _ = x.run(t, "key "+strconv.QuoteToASCII(evil)+" "+strconv.QuoteToASCII(evil))
	has(t, out, "complete", `\x1b]0;owned\a`)
	x.run(t, "")
	x.edit(t, "key \t", prompt+" key "+strconv.QuoteToASCII("evil"+evil)) // quotes are before letters
	x.edit(t, "\x15", prompt)
	x.typed(t, "\x12owned") // the search in the history
	x.shows(t, "inc-search")
	x.shows(t, "owned_")
	x.typed(t, "\x03")
	x.ready(t)
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.titles) > 0 || bytes.Contains(x.raw, []byte("\x1b]")) || bytes.Contains(x.raw, []byte("\x1b[2J\x1b[8m")) || bytes.ContainsAny(x.raw, "\x07\u202e\u009b") {
		t.Errorf("the terminal got %q, titles %q", x.raw, x.titles)
	}
}

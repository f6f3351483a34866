package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// topRow is an actor as top shows it.
type topRow struct {
	node, actor    string
	rate           float64
	queued, oldest string
}

// topHead is the first line of top.
var topHead = regexp.MustCompile(`^(\d\d:\d\d:\d\d)  \d+ actors, by (\w+)$`)

// topOn reads top off the screen: when it was drawn, by what it is sorted, and its rows; nothing
// if that is not all of a picture that fills the screen but for its last line.
func topOn(x *terminal, columns, rows int) (clock, by string, out []topRow) {
	lines := x.lines()
	if alternate, hidden := x.full(); !alternate || !hidden || len(lines) != rows-1 {
		return "", "", nil
	}
	head := topHead.FindStringSubmatch(lines[0])
	if head == nil || lines[1] != "sort by r: rate, w: waiting, o: oldest; q: quit" || !strings.HasPrefix(lines[2], "NODE  ACTOR") {
		return "", "", nil
	}
	for _, line := range lines[3:] {
		f := strings.Fields(line)
		if len(line) > columns || len(f) < 8 || !regexp.MustCompile(`^n[123]$`).MatchString(f[0]) {
			return "", "", nil
		}
		f = slices.Delete(f, 3, len(f)-5) // "busy for 1s" are three words
		rate, err := strconv.ParseFloat(f[3], 64)
		if err != nil {
			return "", "", nil
		}
		out = append(out, topRow{f[0], f[1], rate, f[4], f[5]})
	}
	return head[1], head[2], out
}

// terminalTop: from the prompt and back to it.
func terminalTop(t *testing.T, at string) {
	x := atTerminal(t, home(t), 100, 24, at)
	x.ready(t)
	prompt := x.lines()[len(x.lines())-1]
	leave := func(key string) {
		t.Helper()
		modes := x.modes(t)
		x.typed(t, key)
		x.ready(t)
		eventually(t, "the usual screen with a cursor", x.usual)
		has(t, strings.Join(x.lines(), "\n"), "Attached to n", prompt+" top")
		if now := x.modes(t); now.Lflag&unix.ICANON != modes.Lflag&unix.ICANON { // the prompt's, as top's, are raw
			t.Errorf("modes %+v, were %+v", now, modes)
		}
		out, _ := x.enter(t, "help nodes")
		has(t, out, "Example: nodes")
	}
	x.typed(t, "top\r")
	var rows []topRow
	var clock string
	shown := func(by string, columns, high int) func() bool {
		return func() bool {
			var is string
			clock, is, rows = topOn(x, columns, high)
			return is == by
		}
	}
	eventually(t, "top by rate", shown("rate", 100, 24))
	eventually(t, "puts in the rates, with more first", func() bool {
		must(t, "", "put", "top", "v", "--node="+at)
		return shown("rate", 100, 24)() && rows[0].rate >= 1 && slices.ContainsFunc(rows, func(r topRow) bool { return r.actor == "coordinator" && r.rate > 0 })
	})
	if !slices.IsSortedFunc(rows, func(a, b topRow) int { return int(10*b.rate) - int(10*a.rate) }) {
		t.Errorf("not by rate: %+v", rows)
	}
	if !slices.ContainsFunc(rows, func(r topRow) bool { return r.node != rows[0].node }) {
		t.Errorf("one node only: %+v", rows)
	}
	times := map[string]bool{}
	eventually(t, "three looks without a key", func() bool {
		if shown("rate", 100, 24)() {
			times[clock] = true
		}
		return len(times) >= 3
	})
	for _, by := range []string{"waiting", "oldest"} {
		x.typed(t, by[:1])
		eventually(t, "top by "+by, shown(by, 100, 24))
	}
	for _, size := range [][2]int{{70, 12}, {130, 40}, {100, 24}} {
		x.resize(t, size[0], size[1])
		eventually(t, fmt.Sprint("top in ", size), shown("oldest", size[0], size[1]))
	}
	leave("q")
	x.typed(t, "\x0ctop waiting\r")
	eventually(t, "top by waiting", shown("waiting", 100, 24))
	x.typed(t, "\x03")
	x.ready(t)
	eventually(t, "the usual screen with a cursor", x.usual)
	out, _ := x.run(t, "nodes")
	has(t, out, "n2    up      yes")
}

// terminalTopAlone: without a prompt, all is as it was when top has ended.
func terminalTopAlone(t *testing.T, at string) {
	for name, leave := range map[string]func(x *terminal){
		"q":      func(x *terminal) { x.typed(t, "q") },
		"Ctrl-C": func(x *terminal) { x.typed(t, "\x03") },
		"SIGTERM": func(x *terminal) {
			if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := atTerminal(t, home(t), 80, 24, at, "-e", "top")
			eventually(t, "top", func() bool { _, by, _ := topOn(x, 80, 24); return by == "rate" })
			if m := x.modes(t); m.Lflag&(unix.ICANON|unix.ECHO) != 0 {
				t.Errorf("modes in top %+v", m)
			}
			leave(x)
			code := x.ended(t)
			eventually(t, "the usual screen with a cursor", x.usual)
			if m := x.modes(t); code != exitOK || m != x.fresh {
				t.Errorf("exit status %d, modes %+v, were %+v", code, m, x.fresh)
			}
		})
	}
}

package main

import (
	"bytes"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/dynactor/dynactor/client"
)

// TestHostileWords: whatever names are typed and stored, the terminal only gets what can be
// printed, from every command, as text and as JSON.
func TestHostileWords(t *testing.T) {
	at := controlled(t)
	evil := "\x1b]0;owned\x07\x1b[2J\r\u202e\u009b1m\xff" + strings.Repeat("x", 980)
	bucket := "\x1b[2J\xff\u202eb"
	must(t, "", append([]string{"put", evil, "v", "--bucket=" + bucket}, at...)...)
	q := strconv.Quote(evil)
	lines := []string{"key " + strconv.Quote(bucket) + " " + q, q, "bucket set " + q + " w=1", "bucket set b " + q, "bucket set b w=" + "\x1b[2J", "set " + q + " " + q, "nodes \x1b[2J"}
	for _, c := range consoleCommands() {
		switch {
		case c.most == 1:
			lines = append(lines, c.name+" "+q)
		case c.most == 0 && c.args == "":
			lines = append(lines, c.name)
		}
		if strings.Contains(c.args, "[on NODE]") {
			lines = append(lines, c.name+" "+strings.Repeat("vnode/1 ", c.least)+"on "+q)
		}
	}
	for _, line := range lines {
		for _, more := range [][]string{nil, {"--json"}} {
			r := node(t, "", append(append([]string{"console", "--yes", "--times=1", "--timeout=2s", "-e", line}, more...), at...)...)
			for _, c := range strings.ReplaceAll(r.out+r.err, "\n", "") {
				if c == unicode.ReplacementChar || !unicode.IsPrint(c) {
					t.Errorf("%.60q prints %q", line, c)
					break
				}
			}
		}
	}
}

// TestConsoleOutlivesItsNode: when the node that is asked is killed, the console goes on with another.
func TestConsoleOutlivesItsNode(t *testing.T) {
	all := processes(t, 3)
	config := client.Default()
	config.Nodes = []string{all[0].address}
	cl, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var out, problems bytes.Buffer
	x := &consoleSession{client: cl, streams: &streams{out: &out, err: &problems}, limit: 5 * time.Second}
	attached := ""
	if err := x.attach(t.Context(), &attached); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.name == attached {
			p.end(t, syscall.SIGKILL)
		}
	}
	if err := x.do(t.Context(), "nodes"); err != nil || !strings.Contains(out.String(), "says this") {
		t.Errorf("after %s was killed: %v\n%s", attached, err, out.String())
	}
	dead := attached
	if err := x.attach(t.Context(), &attached); err != nil || attached == dead {
		t.Errorf("attached to %s, %v", attached, err)
	}
}

package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/dynactor/dynactor/bootstrap"
	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
)

// controlled starts three nodes that operators may change, with a key that has two siblings, and
// returns the flags that reach them.
func controlled(t *testing.T) []string {
	t.Helper()
	c := clustertest.Start(t, clustertest.Options{Change: func(c *bootstrap.Config) { c.ConsoleControl = true }})
	config := client.Default()
	config.Cluster, config.Nodes = c.Name, c.Addresses[:1]
	cl, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ready(t.Context()); err != nil { // then the first replica coordinates both writes
		t.Fatal(err)
	}
	for _, value := range []string{"world", "moon"} {
		if _, err := cl.Bucket("default").Put(t.Context(), "hello", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--cluster=" + c.Name, "--node=" + c.Addresses[0]}
}

// masks hide what differs from run to run, in this order.
var masks = []struct {
	pattern *regexp.Regexp
	as      string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)?`), "TIME"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`), "TIME"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`\b[0-9a-f]{8}\.\d+\.\d+\b`), "DOT"},
	{regexp.MustCompile(`as n\d sees`), "as NODE sees"}, // whoever was connected first
	{regexp.MustCompile(` *says this`), ""},
	{regexp.MustCompile(`n\d( has no actor .*)n\d`), "NODE${1}NODE"},
	{regexp.MustCompile(`client-[0-9a-f]+`), "CLIENT"},
	{regexp.MustCompile(`\b[0-9a-f]{16,32}\b`), "HASH"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ns|µs|ms|s|m|h|kB|MB| B)([0-9.]+(s|m))?([0-9.]+s)?\b`), "N"},
	{regexp.MustCompile(`\b(idle|busy|waiting)  `), "STATE  "},
	{regexp.MustCompile(`  +`), "  "},
	{regexp.MustCompile(` +\n`), "\n"},
}

// loose also hides numbers that say how much was done so far.
var loose = regexp.MustCompile(`(^|[ (])\d[0-9.]*($|[ %).\n])`)

func masked(s string) string {
	for _, m := range masks {
		s = m.pattern.ReplaceAllString(s, m.as)
	}
	return s
}

// TestConsoleScripts is every command against a real cluster, as testdata/console.txt has it:
//
//	console [loose] [timeline] [slow] [grep=TEXT] [head=N]   a command of the console on each line; its text
//	node                                              an argument of the program on each line
//
// Refresh it with -rewrite, and read the difference.
func TestConsoleScripts(t *testing.T) {
	at := controlled(t)
	seen := map[string]bool{}
	datadriven.RunTest(t, "testdata/console.txt", func(t *testing.T, d *datadriven.TestData) string {
		lines := strings.Split(d.Input, "\n")
		args := append(slices.Clone(lines), at...)
		if d.Cmd == "console" {
			args = append([]string{"console", "--yes", "--times=1"}, at...)
			for _, line := range lines {
				args = append(args, "-e", line)
				seen[strings.Fields(line)[0]] = true
			}
		}
		r := node(t, "", args...)
		out := masked(r.out + r.err)
		if d.HasArg("loose") {
			for range 2 { // neighbours share a space
				out = loose.ReplaceAllString(out, "${1}N${2}")
			}
		}
		if d.HasArg("timeline") {
			out = anyOrder(out)
		}
		if d.HasArg("slow") {
			out = slowestIs.ReplaceAllString(out, "  N  STEP  n1  put/ID")
		}
		return part(t, d, out)
	})
	for _, c := range consoleCommands() {
		if !seen[c.name] {
			t.Errorf("%s is in no script", c.name)
		}
	}
}

// anyNode and spentOn differ from one timeline to the next.
var anyNode, spentOn = regexp.MustCompile(`\bn\d\b`), regexp.MustCompile(` \((waited|turn|reader|store|on the way) .*\)`)

// slowestIs differs from one request to the next.
var slowestIs = regexp.MustCompile(`  N  \S.*  n1  put/[0-9a-z]+`)

// anyOrder hides who coordinated, what replicas' time went for, and which answer came first.
func anyOrder(out string) string {
	out = spentOn.ReplaceAllString(anyNode.ReplaceAllString(out, "NODE"), " (SPENT)")
	return strings.Join(slices.Sorted(strings.Lines(out)), "")
}

// part is what the script wants of an output.
func part(t *testing.T, d *datadriven.TestData, out string) string {
	t.Helper()
	var grep string
	d.MaybeScanArgs(t, "grep", &grep)
	head := 0
	d.MaybeScanArgs(t, "head", &head)
	var kept []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, grep) && (head == 0 || len(kept) < head) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

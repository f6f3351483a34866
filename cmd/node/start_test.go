package main

import (
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartReportsEveryProblemOfAFile(t *testing.T) {
	file := writeFile(t, `name: "bad name"
cluster: c
listn: 127.0.0.1:7800
listen: nowhere
capacity: 0
timeout: soon
buckets:
  - name: b
    r: 9
  - nam: x
`)
	r := node(t, "", "start", "--config", file)
	if r.code != exitUsage {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	for _, want := range []string{file + ":3: listn: unknown setting", `:8: buckets: "b": r is out of range`, ":10: buckets", `"nam"`,
		file + ":1: name", file + ":4: listen", file + ":5: capacity", file + `:6: timeout: "soon" is not a time such as 5s`, "data-dir: must be set"} {
		if !strings.Contains(r.err, want) {
			t.Errorf("%q is missing in:\n%s", want, r.err)
		}
	}
	file = writeFile(t, "name: [\n")
	if r = node(t, "", "start", "--config", file); !strings.Contains(r.err, "(1)") {
		t.Errorf("more than the one problem of a file that cannot be read: %s", r.err)
	}
	file = writeFile(t, "name: 'bad name'\nlisten: nowhere\ncapacity: 0\n")
	r = node(t, "", "start", "--config", file)
	for _, want := range []string{file + ":1: name", file + ":2: listen", file + ":3: capacity", "data-dir: must be set"} {
		if r.code != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("exit status %d, %q is missing in:\n%s", r.code, want, r.err)
		}
	}
}

// TestFileKnowsEverySetting: what can be a flag of start can be in a file.
func TestFileKnowsEverySetting(t *testing.T) {
	for line := range strings.SplitSeq(node(t, "", "start", "--help").out, "\n") {
		_, flag, ok := strings.Cut(line, " --")
		if !ok || !strings.HasPrefix(strings.TrimLeft(line, " "), "-") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(flag, "[no-]"), "=")
		name, _, _ = strings.Cut(name, " ")
		if name == "help" || name == "config" {
			continue
		}
		r := node(t, "", "start", "--config", writeFile(t, name+": 'x y'\n"))
		if r.code != exitUsage || strings.Contains(r.err, "unknown setting") {
			t.Errorf("%s in a file: exit status %d, %s", name, r.code, r.err)
		}
	}
}

func TestPrecedenceOfSettings(t *testing.T) {
	file := writeFile(t, "name: from-file\nzone: from-file\ncapacity: 3\nseed: [10.0.0.1:1, 10.0.0.2:2]\n")
	t.Setenv("DYNACTOR_ZONE", "from-env")
	c := parseStart(t, "start", "--config", file, "--capacity", "5", "--data-dir", t.TempDir())
	config, _, err := c.config()
	if err != nil {
		t.Fatal(err)
	}
	if config.Name != "from-file" || config.Zone != "from-env" || config.Capacity != 5 || len(config.Seeds) != 2 || config.Partitions != 64 {
		t.Fatalf("%+v", config)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := node(t, "", "start", "--name=a", "--data-dir="+t.TempDir(), "--listen="+l.Addr().String())
	if r.code != exitFailed || !strings.Contains(r.err, "address already in use") || !strings.Contains(r.err, "--listen") {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
}

// parseStart parses a command line of node start without running it.
func parseStart(t *testing.T, args ...string) startCmd {
	t.Helper()
	var c cli
	parser, err := newParser(&c, args, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c.Start
}

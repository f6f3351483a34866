package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/bench"
	"github.com/dynactor/dynactor/bootstrap/clustertest"
)

// TestMain lets the test binary be the node binary: tests of whole processes
// run it with this variable set.
func TestMain(m *testing.M) {
	if os.Getenv("DYNACTOR_TEST_BE_NODE") != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// result is what a command line did.
type result struct {
	code     int
	out, err string
}

// node runs a command line in this process.
func node(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	code := run(ctx, args, &streams{in: strings.NewReader(stdin), out: &out, err: &err})
	return result{code: code, out: out.String(), err: err.String()}
}

// must runs a command line that is expected to succeed and returns its output.
func must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r := node(t, stdin, args...)
	if r.code != exitOK {
		t.Fatalf("node %v: exit status %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// cluster starts three nodes and returns the flags that reach them.
func cluster(t *testing.T) []string {
	c := clustertest.Start(t, clustertest.Options{})
	flags := []string{"--cluster=" + c.Name}
	for _, a := range c.Addresses {
		flags = append(flags, "--node="+a)
	}
	return flags
}

func contextOf(t *testing.T, out string) string {
	t.Helper()
	var v struct {
		Context string `json:"context"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return v.Context
}

func TestDataCommands(t *testing.T) {
	at := cluster(t)
	with := func(args ...string) []string { return append(args, at...) }
	if got := must(t, "", with("put", "hello", "world")...); !strings.HasPrefix(got, "ok: confirmed by ") || !strings.Contains(got, "context: ") {
		t.Fatalf("put printed %q", got)
	}
	if got := must(t, "", with("get", "hello")...); got != "world" {
		t.Fatalf("get printed %q", got)
	}
	must(t, "moon", with("put", "hello")...)
	must(t, "", with("put", "hello", "")...)
	siblings := must(t, "", with("get", "hello")...)
	for _, want := range []string{"3 siblings", "world", "moon", `. ""  written`, "context: "} {
		if !strings.Contains(siblings, want) {
			t.Errorf("get of siblings does not show %q:\n%s", want, siblings)
		}
	}
	var object jsonObject
	if err := json.Unmarshal([]byte(must(t, "", with("get", "hello", "--json")...)), &object); err != nil {
		t.Fatal(err)
	}
	if object.Siblings != 3 || len(object.Values) != 3 || object.Bucket != "default" || object.Key != "hello" ||
		object.Values[0].Encoding != "utf8" || object.Values[0].Dot == "" || object.Values[0].Time == "" {
		t.Fatalf("get --json: %+v", object)
	}
	if r := node(t, "", with("get", "hello", "--file", filepath.Join(t.TempDir(), "f"))...); r.code != exitConflict {
		t.Errorf("one value demanded of three: exit status %d, %s", r.code, r.err)
	}
	put := must(t, "", with("put", "hello", "mars", "--json", "--context", object.Context)...)
	if got := must(t, "", with("get", "hello")...); got != "mars" {
		t.Fatalf("after a put with the context of all: %q", got)
	}
	must(t, "", with("delete", "hello", "--context", contextOf(t, put))...)
	r := node(t, "", with("get", "hello", "--json")...)
	if r.code != exitNotFound || contextOf(t, r.out) == "" {
		t.Fatalf("a deleted key: exit status %d, %s", r.code, r.out)
	}
}

func TestValuesFromAndToFiles(t *testing.T) {
	at := cluster(t)
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	binary := []byte{0, 1, 0xff, '\n', 0x1b}
	if err := os.WriteFile(in, binary, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "", append([]string{"put", "k", "--file", in}, at...)...)
	must(t, "", append([]string{"get", "k", "--file", out}, at...)...)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, binary) {
		t.Fatalf("%q, %v", got, err)
	}
	var object jsonObject
	if err := json.Unmarshal([]byte(must(t, "", append([]string{"get", "k", "--json"}, at...)...)), &object); err != nil {
		t.Fatal(err)
	}
	if object.Values[0].Encoding != "base64" || object.Values[0].Value != "AAH/Chs=" {
		t.Fatalf("%+v", object)
	}
	must(t, "", append([]string{"put", "empty", ""}, at...)...)
	if got := must(t, "", append([]string{"get", "empty"}, at...)...); got != "" {
		t.Fatalf("an empty value came back as %q", got)
	}
}

func TestClearErrors(t *testing.T) {
	at := cluster(t)
	must(t, "", append([]string{"put", "other", "x"}, at...)...)
	foreign := contextOf(t, must(t, "", append([]string{"get", "other", "--json"}, at...)...))
	for _, tc := range []struct {
		name string
		args []string
		in   string
		code int
		want string
	}{
		{"not found", []string{"get", "nothing"}, "", exitNotFound, `"nothing" in bucket "default": not found`},
		{"delete of nothing", []string{"delete", "nothing"}, "", exitNotFound, "not found"},
		{"a context of another key", []string{"put", "k", "v", "--context", foreign}, "", exitFailed, "of another key"},
		{"no context at all", []string{"put", "k", "v", "--context", "!!!"}, "", exitFailed, "--context"},
		{"empty key", []string{"put", "", "v"}, "", exitFailed, "key is empty"},
		{"long key", []string{"put", strings.Repeat("k", 1025), "v"}, "", exitFailed, "1025 bytes, at most 1024"},
		{"long bucket", []string{"get", "k", "--bucket", strings.Repeat("b", 256)}, "", exitFailed, "256 bytes, at most 255"},
		{"oversized value", []string{"put", "k"}, strings.Repeat("v", 1<<20+1), exitFailed, "1048577 bytes, at most 1048576"},
		{"w above n", []string{"put", "k", "v", "--w", "4"}, "", exitFailed, "w is out of range: 4"},
		{"value and file", []string{"put", "k", "v", "--file", "main.go"}, "", exitUsage, "not both"},
		{"none in flight", []string{"import", "--bucket", "b", "--key", "id", "--in-flight", "0"}, "", exitUsage, "--in-flight"},
		{"bench of nothing", []string{"bench", "--clients", "0"}, "", exitUsage, "--clients"},
		{"no nodes", []string{"dev", "--nodes", "0"}, "", exitUsage, "--nodes is 0"},
		{"unknown flag", []string{"get", "k", "--nope"}, "", exitUsage, "unknown flag --nope"},
		{"unknown command", []string{"gte"}, "", exitUsage, "gte"},
		{"wrong cluster", []string{"get", "k", "--cluster", "elsewhere", "--timeout", "1s"}, "", exitUnavailable, "cluster"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := tc.args
			if tc.code != exitUsage {
				args = slices.Concat(tc.args[:1], at, tc.args[1:])
			}
			r := node(t, tc.in, args...)
			if r.code != tc.code || !strings.Contains(r.err, tc.want) {
				t.Fatalf("exit status %d, want %d; %q, want %q in it", r.code, tc.code, r.err, tc.want)
			}
		})
	}
}

func TestNoNodeReached(t *testing.T) {
	r := node(t, "", "get", "k", "--node", "127.0.0.1:1", "--timeout", "300ms")
	if r.code != exitUnavailable || !strings.Contains(r.err, "127.0.0.1:1") {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
}

func TestImportExport(t *testing.T) {
	at := cluster(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "in.jsonl")
	var lines []string
	for i := range 1500 {
		lines = append(lines, fmt.Sprintf(`{"id":"r%d","n":%d,"text":"é \"quoted\" %d"}`, i, i, i))
	}
	write := func(extra ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(append(slices.Clone(lines), extra...), "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	importArgs := append([]string{"import", "--bucket", "recs", "--key", "id", file}, at...)
	if got := must(t, "", importArgs...); got != "imported 1500, failed 0\n" {
		t.Fatalf("import printed %q", got)
	}
	check := func() {
		t.Helper()
		got := strings.Split(strings.TrimSuffix(must(t, "", append([]string{"export", "--bucket", "recs"}, at...)...), "\n"), "\n")
		want := slices.Clone(lines)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("exported %d lines that are not the %d imported", len(got), len(want))
		}
	}
	check()
	must(t, "", importArgs...) // again: replaces, makes no siblings
	check()

	write(`{"n":1}`, `not json`, `{"id":{}}`)
	r := node(t, "", importArgs...)
	if r.code != exitFailed || !strings.Contains(r.out, "imported 1500, failed 3") || !strings.Contains(r.err, ".failed") {
		t.Fatalf("exit status %d: %s%s", r.code, r.out, r.err)
	}
	failed, err := os.ReadFile(file + ".failed")
	if err != nil || len(strings.Split(strings.TrimSpace(string(failed)), "\n")) != 3 {
		t.Fatalf("failed records: %q, %v", failed, err)
	}
	if _, err := os.Stat(file + ".progress"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("an import that came to its end left a mark: %v", err)
	}
}

func TestBench(t *testing.T) {
	at := cluster(t)
	out := must(t, "", append([]string{
		"bench", "--json", "--mix", "a", "--clients", "4", "--keys", "50", "--duration", "300ms", "--warmup", "10ms",
	}, at...)...)
	var r bench.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if r.Operations == 0 || r.Failed != 0 || r.Gets.Count == 0 || r.Puts.Count == 0 || r.Gets.P999 < r.Gets.P50 || r.CPUMicros <= 0 {
		t.Fatalf("%+v", r)
	}
	text := must(t, "", append([]string{"bench", "--mix", "put", "--keys", "50", "--duration", "200ms", "--warmup", "0s", "--dist", "uniform"}, at...)...)
	for _, want := range []string{"ops/s", "p99.9", "us of CPU"} {
		if !strings.Contains(text, want) {
			t.Errorf("bench does not print %q:\n%s", want, text)
		}
	}
}

func TestCompletionAndHelp(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		got := must(t, "", "completion", shell)
		for _, want := range []string{"start", "import", "data-dir", "value-size"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s completion lacks %q", shell, want)
			}
		}
	}
	if r := node(t, "", "--help"); r.code != exitOK || !strings.Contains(r.out, "node dev") {
		t.Errorf("help: %d, %s", r.code, r.out)
	}
	if r := node(t, "", "bench", "--help"); strings.Contains(r.out, "%") {
		t.Errorf("a formatting directive in the help:\n%s", r.out)
	}
	if got := must(t, "", "version"); !strings.HasPrefix(got, "dynactor ") {
		t.Errorf("version printed %q", got)
	}
}

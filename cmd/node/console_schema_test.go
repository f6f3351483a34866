package main

import (
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schemaOf reads a command's schema.
func schemaOf(t *testing.T, command string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(filepath.Join("..", "..", "docs", "console", command+".schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// valid checks the values that a command has printed against its schema.
func valid(t *testing.T, line, out string) (values int) {
	t.Helper()
	s := schemaOf(t, strings.Fields(line)[0])
	for d := json.NewDecoder(strings.NewReader(out)); ; values++ {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return values
		} else if err != nil {
			t.Fatalf("%s: %v in\n%s", line, err, out)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
}

// TestConsoleSchemas: the JSON of every command is as docs/console says.
func TestConsoleSchemas(t *testing.T) {
	at := controlled(t)
	for _, args := range [][]string{{"bucket", "create", "b"}} {
		node(t, "", append(args, at...)...)
	}
	seen := map[string]bool{}
	for _, line := range []string{
		"nodes", "ring", "key default hello", "key default nothing", "actors", "inspect vnode/3 on n1", "inspect admission", "watch coordinator on n2", "top", "top waiting on n1",
		"hints", "transfers", "aae", "background", "buckets", "bucket set b r=1", "set", "set max-requests 5000 on n1",
		`trace put default "a key\x00" v`, `trace get default "a key\x00"`, "requests --slow", "requests --slow on n2",
		"restart vnode/1 on n1", "kill vnode/2 on n1", "errors", "inspect vnode/1 on n1", "logs", "help", "help kill",
	} {
		seen[strings.Fields(line)[0]] = true
		r := node(t, "", append([]string{"console", "--json", "--yes", "--times=1", "-e", line}, at...)...)
		if r.code != exitOK {
			t.Errorf("%s: exit status %d\n%s", line, r.code, r.err)
		}
		if n := valid(t, line, r.out); n != 1 && !strings.HasPrefix(line, "logs") || n == 0 {
			t.Errorf("%s: %d values", line, n)
		}
	}
	for _, c := range consoleCommands() {
		if !seen[c.name] {
			t.Errorf("the JSON of %s is not checked", c.name)
		}
	}
}

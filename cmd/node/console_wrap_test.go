package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestWrap(t *testing.T) {
	for _, tc := range []struct {
		text    string
		columns int
		want    string
	}{
		{"one two three", 0, "one two three"},
		{"one two three", 7, "one two\nthree"},
		{"one two three", 8, "one two\nthree"},
		{"one two three", 6, "one\ntwo\nthree"},
		{"  one two three\nfour", 9, "  one two\n  three\nfour"},
		{"set --console-control there", 20, "set\n--console-control\nthere"},
		{"a a-word-that-is-long b", 5, "a\na-word-that-is-long\nb"},
		{`"a  b" c`, 6, "\"a  b\"\nc"},
		{"größe größe", 11, "größe größe"},
		{"漢字 漢字", 8, "漢字\n漢字"},
		{"", 5, ""},
		{"a\n\nb", 5, "a\n\nb"},
	} {
		if got := wrap(tc.text, tc.columns); got != tc.want {
			t.Errorf("%q in %d columns is %q, want %q", tc.text, tc.columns, got, tc.want)
		}
	}
}

// TestHelpFits: at any width no word of the list of commands is lost, and only what is one word
// is longer than a line.
func TestHelpFits(t *testing.T) {
	var all []helpJSON
	for _, c := range consoleCommands() {
		all = append(all, helpJSON{Command: c.name, Args: c.args, Help: c.help})
	}
	words := func(columns int) (out string, fields []string) {
		var b bytes.Buffer
		if err := listCommands(&b, all, columns); err != nil {
			t.Fatal(err)
		}
		return b.String(), strings.Fields(b.String())
	}
	_, want := words(0)
	for columns := 20; columns < 200; columns++ {
		out, got := words(columns)
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("other words in %d columns:\n%s", columns, out)
		}
		for line := range strings.Lines(out) {
			if line = strings.TrimRight(line, " \n"); columns >= 40 && len(line) > columns {
				t.Errorf("more than %d columns: %q", columns, line)
			}
		}
	}
}

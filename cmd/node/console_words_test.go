package main

import (
	"strings"
	"testing"
	"unicode"
)

func TestSplit(t *testing.T) {
	for line, want := range map[string][]word{
		"":                         nil,
		" \t ":                     nil,
		"key b k":                  {{"key", false}, {"b", false}, {"k", false}},
		`key "a b" "\x00\xff\n" x`: {{"key", false}, {"a b", true}, {"\x00\xff\n", true}, {"x", false}},
		`a\b it's "on"`:            {{`a\b`, false}, {"it's", false}, {"on", true}},
		`"" "\""`:                  {{"", true}, {`"`, true}},
		"a\u00a0b":                 {{"a", false}, {"b", false}},
		`a"b c"`:                   {{`a"b`, false}, {`c"`, false}},
	} {
		got, err := split(line)
		if err != nil || len(got) != len(want) {
			t.Errorf("%q: %v, %v, want %v", line, got, err, want)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%q: word %d is %v, want %v", line, i, got[i], want[i])
			}
		}
	}
	for _, line := range []string{`"`, `key "a`, `"a"b`, `"\q"`, "\"a\nb\"", `"a""b"`} {
		if got, err := split(line); err == nil {
			t.Errorf("%q is taken as %v", line, got)
		}
	}
}

// FuzzSplit: any bytes can be written as words, and whatever is typed, what is said of it can
// be printed.
func FuzzSplit(f *testing.F) {
	f.Add("key b k", "x")
	f.Add(`"\x00" "`, "a b\xff\x1b[2J")
	f.Add("on", "on")
	f.Fuzz(func(t *testing.T, line, text string) {
		words, err := split(asWord(text) + "\t" + asWord(line))
		if err != nil || len(words) != 2 || words[0].text != text || words[1].text != line {
			t.Errorf("%q and %q come back as %v, %v", text, line, words, err)
		}
		words, err = split(line)
		if err != nil {
			for _, r := range err.Error() {
				if !unicode.IsPrint(r) {
					t.Errorf("said %q", err)
				}
			}
			return
		}
		var again []string
		for _, w := range words {
			if !w.quoted && strings.IndexFunc(w.text, unicode.IsSpace) >= 0 {
				t.Errorf("a space in %q", w.text)
			}
			again = append(again, asWord(w.text))
		}
		twice, err := split(strings.Join(again, " "))
		if err != nil || len(twice) != len(words) {
			t.Errorf("%q: %v, then %v, %v", line, words, twice, err)
		}
	})
}

package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestTopWithoutConsoles: the actor that answers a console is always busy with that; it is shown only
// to those who ask for it.
func TestTopWithoutConsoles(t *testing.T) {
	at := cluster(t)
	for line, want := range map[string]int{
		"top oldest": 0, "top waiting": 0, "top": 0, "top oldest on n2": 0,
		"top oldest console": 3, "top console waiting": 3, "top console": 3, "top console oldest on n2": 1,
	} {
		var rows []busyJSON
		if err := json.Unmarshal([]byte(must(t, "", append([]string{"console", "--json", "-e", line}, at...)...)), &rows); err != nil {
			t.Fatal(err)
		}
		consoles := 0
		for _, r := range rows {
			if r.Name == "console" {
				consoles++
			}
		}
		// Each node has a node, vnodes, coordinator, detector and more.
		if consoles != want || len(rows) < 20 || !slices.ContainsFunc(rows, func(r busyJSON) bool { return strings.HasPrefix(r.Name, "vnode/") }) {
			t.Errorf("%s: %d consoles among %d actors, want %d", line, consoles, len(rows), want)
		}
	}
	for _, line := range []string{"top console console", "top rate waiting", "top vnode/1", "top rate console waiting"} {
		if r := node(t, "", append([]string{"console", "-e", line}, at...)...); r.code != exitUsage || !strings.Contains(r.err, "usage: top [rate|waiting|oldest] [console] [on NODE]") {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

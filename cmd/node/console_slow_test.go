package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/messages"
)

// TestSlowestStep: it is what the client waited for longest, with what its time went for.
func TestSlowestStep(t *testing.T) {
	ms := time.Millisecond
	step := func(at int, what messages.StepKind, node string) client.Step {
		return client.Step{At: time.Duration(at) * ms, What: what, Node: node}
	}
	spent := func(s client.Step, p client.Spent) client.Step { s.Spent = p; return s }
	inner := func(s client.Step, t client.Timeline) client.Step { s.Inner = &t; return s }
	read := []client.Step{step(0, messages.StepAdmitted, ""), step(0, messages.StepAsked, "n1"), step(0, messages.StepAsked, "n2"), step(0, messages.StepAsked, "n3")}
	there := client.Timeline{Node: "n2", Steps: []client.Step{
		step(0, messages.StepAdmitted, ""), step(0, messages.StepCoordinated, "n2"), step(2, messages.StepPrepared, "n2"),
		spent(step(40, messages.StepDurable, "n2"), client.Spent{Store: 30 * ms, Waited: ms}), step(40, messages.StepReplied, ""),
	}}
	for name, c := range map[string]struct {
		steps []client.Step
		want  string
	}{
		"nothing":    {nil, ""},
		"at no time": {read, ""},
		"a replica": {append(read[:4:4], step(1, messages.StepAnswered, "n1"), spent(step(9, messages.StepAnswered, "n3"), client.Spent{Waited: 2 * ms, Reader: 5 * ms}),
			step(9, messages.StepReplied, "")), "answered n3 9ms (reader 5ms)"},
		"a straggler held up nobody": {append(read[:4:4], step(2, messages.StepAnswered, "n1"), step(3, messages.StepAnswered, "n2"), step(3, messages.StepReplied, ""),
			step(900, messages.StepAnswered, "n3")), "answered n2 3ms"},
		"silence": {append(read[:4:4], step(1, messages.StepAnswered, "n1"), step(500, messages.StepDue, ""), step(500, messages.StepReplied, "")), "no answer n2 n3 500ms"},
		"silence of one that was asked late": {append(read[:4:4], step(1, messages.StepAnswered, "n1"), step(1, messages.StepFailed, "n2"), step(1, messages.StepFailed, "n3"),
			step(100, messages.StepAsked, "n4"), step(150, messages.StepDue, ""), step(150, messages.StepReplied, "")), "asked n4 99ms"},
		"its own disk":           {there.Steps, "durable n2 38ms (store 30ms)"},
		"the coordinator's turn": {[]client.Step{step(70, messages.StepAdmitted, ""), step(70, messages.StepAsked, "n1"), step(80, messages.StepAnswered, "n1"), step(80, messages.StepReplied, "")}, "admitted 70ms"},
		"another coordinator": {[]client.Step{step(0, messages.StepAdmitted, ""), step(0, messages.StepPassed, "n2"), inner(step(50, messages.StepAnswered, "n2"), there), step(50, messages.StepReplied, "")},
			"answered n2 50ms: durable n2 38ms (store 30ms)"},
		"a silent coordinator": {[]client.Step{step(0, messages.StepAdmitted, ""), step(0, messages.StepPassed, "n2"), step(80, messages.StepDue, "n2"), step(80, messages.StepReplied, "")}, "no answer n2 80ms"},
		"the ring":             {append(read[:4:4], step(2, messages.StepFailed, "n2"), step(2, messages.StepOutdated, "n2"), step(300, messages.StepAdmitted, ""), step(300, messages.StepReplied, "")), "waits for the ring n2 298ms"},
	} {
		if got := slowestStep(client.Timeline{Steps: c.steps}).text(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestSlowText: one line for each request, whatever is in its key.
func TestSlowText(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e"
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	r := client.SlowRequest{ID: "get/1", Bucket: `"b"`, Key: `"k"`, Took: 5 * time.Second, Ago: time.Minute, Outcome: "unavailable", Timeline: client.Timeline{Kind: "get", Steps: []client.Step{
		{What: messages.StepAsked, Node: "n3"}, {At: 5 * time.Second, What: messages.StepDue},
	}}}
	hostile := client.SlowRequest{ID: evil, Bucket: evil, Key: evil, Outcome: evil, Timeline: client.Timeline{Kind: evil, Steps: []client.Step{{At: 1, What: messages.StepAsked, Node: evil}}}}
	var out bytes.Buffer
	if err := showAllSlow(&out, []slowRow{{"n1", r}, {evil, hostile}}, 3, now); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 5 || squeeze(lines[0]) != "TIME OP BUCKET KEY OUTCOME TOOK SLOWEST STEP NODE ID" ||
		squeeze(lines[1]) != `15:03:00 get "b" "k" unavailable 5s no answer n3 5s n1 get/1` ||
		lines[3] != "There are more: --limit 4 shows twice as many. requests --slow --id ID shows what happened to one." {
		t.Errorf("printed\n%s", out.String())
	}
	for _, r := range strings.ReplaceAll(out.String(), "\n", "") {
		if !unicode.IsPrint(r) {
			t.Fatalf("printed %q", r)
		}
	}
	out.Reset()
	if err := showAllSlow(&out, nil, 0, now); err != nil || out.String() != "No requests in the last minutes.\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestSlowRequests: an operator finds a slow request of a real cluster in a table, and then sees
// what happened to it; scripts get all that are kept.
func TestSlowRequests(t *testing.T) {
	at := cluster(t)
	const many = 15 // from each of two nodes, so that no node alone has more than are shown
	for _, to := range at[1:3] {
		for i := range many {
			must(t, "", "put", "--bucket=carts", fmt.Sprint("key", i), "v", at[0], to)
		}
	}
	console := func(line string, flags ...string) []string {
		return append(append([]string{"console", "-e", line}, flags...), at...)
	}
	table := func(line string) []string {
		return strings.Split(strings.TrimSuffix(must(t, "", console(line)...), "\n"), "\n")
	}
	row := regexp.MustCompile(`^\d\d:\d\d:\d\d (put|forward) "carts" "key\d+" done \S+ [a-z ]+( n\d)? [0-9.]+[mµ]?s.* n\d (put|forward)/[0-9a-z]+$`)
	all := table("requests --slow")
	if len(all) != shownSlow+2 || all[len(all)-1] != "There are more: --limit 40 shows twice as many. requests --slow --id ID shows what happened to one." {
		t.Errorf("%d lines, %q", len(all), all[len(all)-1])
	}
	for _, line := range all[1 : len(all)-1] {
		if !row.MatchString(squeeze(line)) {
			t.Errorf("a line %q", line)
		}
	}
	if some := table("requests --slow --limit 2 on n1"); len(some) != 4 || !strings.Contains(squeeze(some[1]), " n1 ") {
		t.Errorf("%q", some)
	}
	if more := table("requests --slow --limit 1000"); len(more) < 2*many+2 || strings.Contains(more[len(more)-1], "more") {
		t.Errorf("%d lines, %q", len(more), more[len(more)-1])
	}
	read := func(line string) (rows []slowJSON) {
		if err := json.Unmarshal([]byte(must(t, "", console(line, "--json")...)), &rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rows := read("requests --slow")
	if len(rows) < 2*many || rows[0].TookUS < rows[len(rows)-1].TookUS || len(rows[0].Timeline.Steps) == 0 || rows[0].Slowest == "" {
		t.Errorf("%d rows, %+v", len(rows), rows[0])
	}
	if some := read("requests --slow --limit 3"); len(some) != 3 {
		t.Errorf("%d rows", len(some))
	}
	id := rows[len(rows)-1].ID // none that the table shows
	if one := read("requests --slow --id " + id); len(one) != 1 || one[0].ID != id || len(one[0].Timeline.Steps) == 0 {
		t.Errorf("%+v", one)
	}
	out := must(t, "", console("requests --slow --id "+id)...)
	if strings.Count(out, " in bucket \"carts\", partition ") != 1 || strings.Count(out, "AT NODE") != 1 || !strings.Contains(out, "replied: done") {
		t.Errorf("printed\n%s", out)
	}
	if r := node(t, "", console("requests --slow --id get/none")...); r.code != exitFailed || !strings.Contains(r.err, `no request "get/none" among`) {
		t.Errorf("%+v", r)
	}
	for line, want := range map[string]int{"requests --slow --": 2, "requests --slow --limit ": 0, "requests --slow --i": 1} {
		if got := choices(&consoleSession{}, t.Context(), line); len(got) != want {
			t.Errorf("%q is completed by %v", line, got)
		}
	}
	for _, line := range []string{
		"requests", "requests --fast", "requests --slow --limit", "requests --slow --limit 0", "requests --slow --limit x", "requests --slow --id", `requests --slow --id ""`, "requests --slow 3 4", "requests --limit 3 --slow",
	} {
		if r := node(t, "", console(line)...); r.code != exitUsage || !strings.Contains(r.err, "usage: requests --slow [--limit N | --id ID]") {
			t.Errorf("%q: %+v", line, r)
		}
	}
}

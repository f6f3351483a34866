package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/messages"
)

// TestTrace: an operator sees what happens to a put and a get on a real cluster, and then finds
// them among the slow requests.
func TestTrace(t *testing.T) {
	at := cluster(t)
	console := func(commands ...string) []string {
		args := append([]string{"console"}, at...)
		for _, c := range commands {
			args = append(args, "-e", c)
		}
		return args
	}
	out := must(t, "", console("trace put carts alice bread", "trace put carts alice milk", "trace get carts alice", "trace get carts nobody")...)
	for want, times := range map[string]int{
		"AT NODE": 4, "asked n": 10, "admitted": 4, "asked to write n": 2, "prepared n": 2, "sent the record n": 4, "durable n": 6, "replied: done": 4, "waited ": 10, "on the way ": 8, "client   ended": 4,
	} {
		if n := strings.Count(out, want); n < times {
			t.Errorf("%d times %q, want %d, in\n%s", n, want, times, out)
		}
	}
	if got := must(t, "", append([]string{"get"}, append(at, "--bucket=carts", "alice")...)...); !strings.Contains(got, "milk") {
		t.Errorf("traced puts have left %s", got)
	}
	out = must(t, "", append(console("requests --slow"), "--json")...)
	if strings.Count(out, `\"alice\"`) < 3 || strings.Contains(out, "bread") || strings.Contains(out, "milk") {
		t.Errorf("traced requests are not among the slow ones, or values are shown:\n%s", out)
	}
	d := json.NewDecoder(strings.NewReader(must(t, "", append(console("trace put carts bob 1", "requests --slow"), "--json")...)))
	d.DisallowUnknownFields()
	var put timelineJSON
	var slow []slowJSON
	for _, v := range []any{&put, &slow} {
		if err := d.Decode(v); err != nil {
			t.Fatal(err)
		}
	}
	if len(put.Steps) != 3 || put.Node != "client" || put.Kind != "put" || put.Steps[1].Inner == nil || len(put.Steps[1].Inner.Steps) < 9 {
		t.Fatalf("%+v", put)
	}
	durable := slices.IndexFunc(put.Steps[1].Inner.Steps, func(s stepJSON) bool {
		return s.What == "durable" && s.Spent != nil && s.Spent.WaitedUS > 0 && s.Spent.StoreUS > 0
	})
	if durable < 0 {
		t.Errorf("no replica says what its time went for: %+v", put.Steps[1].Inner.Steps)
	}
	if len(slow) == 0 || slow[0].TookUS < slow[len(slow)-1].TookUS || len(slow[0].Timeline.Steps) == 0 {
		t.Errorf("%+v", slow)
	}
	for line, want := range map[string]string{
		"trace": "usage: trace", "trace get carts": "usage: trace get", "trace delete carts alice": "usage: trace get", "trace put carts alice": "usage: trace get",
	} {
		if r := node(t, "", console(line)...); r.code != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("%q: %+v", line, r)
		}
	}
	if r := node(t, "", console("requests --slow on nobody")...); r.code != exitFailed || !strings.Contains(r.err, "nobody") {
		t.Errorf("%+v", r)
	}
	long := strings.Repeat("k", 2000)
	if r := node(t, "", console("trace get carts "+long)...); r.code == exitOK || r.out != "" {
		t.Errorf("a key that is too long: %+v", r)
	}
}

// TestTimelineText: who waited for whom is read from top to bottom, and hostile texts do
// nothing to the terminal.
func TestTimelineText(t *testing.T) {
	ms := time.Millisecond
	const evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e"
	tl := client.Timeline{Kind: "put", Steps: []client.Step{
		{What: messages.StepAsked, Node: "n1"},
		{At: 20 * ms, What: messages.StepAnswered, Node: "n1", Inner: &client.Timeline{Node: "n1", Kind: "put", LeftOut: 2, Steps: []client.Step{
			{At: ms, What: messages.StepAdmitted},
			{At: 2 * ms, What: messages.StepReplicated, Node: "n4", StandsFor: "n3"},
			{At: 10 * ms, What: messages.StepDurable, Node: "n4", Spent: client.Spent{Waited: ms, Turn: 2 * ms, Store: 3 * ms}},
			{At: 16 * ms, What: messages.StepFailed, Node: evil, StandsFor: evil, Text: evil},
		}}},
		{At: 20 * ms, What: messages.StepEnded},
	}}
	const safely = `\x1b]0;owned\a\x1b[2J\r\n\u202e`
	want := strings.Join([]string{
		"AT           AT NODE  WHAT",
		"   0.000 ms  client   asked n1",
		"   3.000 ms  n1       admitted",
		"   4.000 ms  n1       sent the record n4 in place of n3",
		"  12.000 ms  n1       durable n4 (waited 1ms, turn 2ms, store 3ms, on the way 2ms)",
		"  18.000 ms  n1       failed " + safely + " in place of " + safely + ": " + safely,
		"             n1       2 more steps",
		"  20.000 ms  client   answered n1",
		"  20.000 ms  client   ended",
		"",
	}, "\n")
	var out bytes.Buffer
	if err := showTimeline(&out, "client", tl); err != nil || out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s%v", out.String(), want, err)
	}
	for _, r := range strings.ReplaceAll(out.String(), "\n", "") {
		if !unicode.IsPrint(r) {
			t.Fatalf("printed %q", r)
		}
	}
}

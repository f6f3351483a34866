package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/bootstrap/clustertest"
)

// TestClusterCommands: an operator looks, stages, plans, commits and clears.
func TestClusterCommands(t *testing.T) {
	at := cluster(t)[:2] // one node to talk to, so that it has what was said before
	with := func(args ...string) []string { return append(args, at...) }
	shows := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in\n%s", w, out)
			}
		}
	}
	shows(must(t, "", with("cluster", "status")...), "MEMBER", "n1", "n2", "n3", "up", "Nothing moves.")
	shows(must(t, "", with("cluster", "ring")...), "PARTITION", "settled")
	shows(must(t, "", with("cluster", "transfers")...), "Nothing has to be moved.")
	shows(must(t, "", with("cluster", "repair", "--wait")...), "pairs of replicas compared, 0 records mended, 0 could not be")
	shows(must(t, "", with("cluster", "repair", "--partition", "0")...), "3 pairs of replicas are compared now")
	shows(must(t, "", with("cluster", "repair", "--partition", "0", "--bucket", "b", "--wait")...), "3 of 3 pairs of replicas compared")
	var repaired struct{ Pairs, Complete, Failed int }
	if err := json.Unmarshal([]byte(must(t, "", with("cluster", "repair", "--wait", "--json")...)), &repaired); err != nil {
		t.Fatal(err)
	}
	if repaired.Pairs == 0 || repaired.Complete != repaired.Pairs || repaired.Failed != 0 {
		t.Errorf("repaired %+v", repaired)
	}
	shows(must(t, "", with("cluster", "aae")...), "REPLICAS", "n1", "equal", "the oldest, partition", "WAITING", "REAPED")
	var aae struct {
		OldestMS int64          `json:"oldest_unverified_ms"`
		Pairs    []exchangeJSON `json:"pairs"`
		Reaping  []reapingJSON  `json:"reaping"`
	}
	if err := json.Unmarshal([]byte(must(t, "", with("cluster", "aae", "--json")...)), &aae); err != nil {
		t.Fatal(err)
	}
	if len(aae.Pairs) != repaired.Pairs || aae.OldestMS > time.Minute.Milliseconds() || !aae.Pairs[0].Verified || aae.Pairs[0].Ended == 0 {
		t.Errorf("exchanges %+v", aae)
	}
	if len(aae.Reaping) != 3 || !aae.Reaping[0].On {
		t.Errorf("reaping %+v", aae.Reaping)
	}
	shows(must(t, "", with("cluster", "background")...), "SHARE", "n1", "few requests that it could harm", "KIND")
	var background []nodeBackgroundJSON
	if err := json.Unmarshal([]byte(must(t, "", with("cluster", "background", "--json")...)), &background); err != nil {
		t.Fatal(err)
	}
	if len(background) != 3 || background[0].Share != 1 || background[0].Floor != 0.05 || background[0].Parallel == 0 {
		t.Errorf("background %+v", background)
	}
	shows(must(t, "", with("cluster", "set-capacity", "n2", "3")...), "set-capacity n2 3", "node cluster plan")
	shows(must(t, "", with("cluster", "set-zone", "n3", "east")...), "set-capacity n2 3", "set-zone n3 east")
	shows(must(t, "", with("cluster", "leave", "n1")...), "leave n1")
	shows(must(t, "", with("cluster", "plan")...), "staged: leave n1", "before", "gets", "warning: 2 members hold at most 2 replicas", "node cluster commit --version")
	var plan struct {
		Version uint64   `json:"version"`
		Staged  []string `json:"staged"`
		Members []share  `json:"members"`
	}
	if err := json.Unmarshal([]byte(must(t, "", with("cluster", "plan", "--json")...)), &plan); err != nil {
		t.Fatal(err)
	}
	if len(plan.Members) != 3 || plan.Members[0].Before == 0 || plan.Members[0].After != 0 || !slices.Contains(plan.Staged, "leave n1") {
		t.Errorf("plan %+v", plan)
	}
	shows(must(t, "", with("cluster", "clear")...), "Nothing is staged")
	must(t, "", with("cluster", "set-capacity", "n2", "3")...)
	shows(must(t, "", with("cluster", "commit")...), "Committed")
	var status struct {
		Members []memberJSON `json:"members"`
		Staged  []string     `json:"staged"`
	}
	if err := json.Unmarshal([]byte(must(t, "", with("cluster", "members", "--json")...)), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Members) != 3 || status.Members[1].Capacity != 3 || len(status.Staged) != 0 {
		t.Errorf("status %+v", status)
	}
}

// TestClusterRefusesNonsense with a clear error, and changes nothing.
func TestClusterRefusesNonsense(t *testing.T) {
	at := cluster(t)[:2]
	members := func() string { // whoever says so
		return regexp.MustCompile(`"asked":"n."`).ReplaceAllString(must(t, "", append([]string{"cluster", "members", "--json"}, at...)...), "")
	}
	before := members()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"cluster leave n9", exitFailed, "no such member: n9"},
		{"cluster remove n9", exitFailed, "no such member: n9"},
		{"cluster replace n1 n2", exitFailed, "can be replaced only by a node that is new"},
		{"cluster replace n1 n9", exitFailed, "must be staged to join"},
		{"cluster set-capacity n1 0", exitUsage, "allowed are 1 to"},
		{"cluster set-capacity n9 1", exitFailed, "no such member: n9"},
		{"cluster plan", exitFailed, "nothing is staged"},
		{"cluster repair --partition 64", exitUsage, "partition 64, there are 0 to"},
		{"cluster commit", exitFailed, "nothing is staged"},
		{"cluster commit --version 77", exitFailed, "look at the plan again"},
		{"cluster clear", exitFailed, "nothing is staged"},
		{"cluster join", exitFailed, "is in the cluster"},
		{"cluster accept-loss --yes", exitFailed, "not lost: any partition; there is nothing to accept"},
		{"cluster accept-loss --partition 0 --yes", exitFailed, "not lost: partition 0; the cluster's status names those that are"},
		{"cluster accept-loss --partition 9999 --yes", exitFailed, "partition 9999; there are 0 to"},
		{"cluster accept-loss --partition=-1 --yes", exitFailed, "partition -1"},
		{"cluster remove n2 --yes", exitUsage, "--yes goes with --force"},
		{"cluster remove --force --yes", exitUsage, "expected"},
		{"cluster remove n2 n3 --force", exitFailed, "not confirmed; nothing was changed"},
		{"cluster remove n2 --force --yes", exitFailed, "are a majority: 2 of 3; remove without --force"},
		{"cluster remove n2 n3 --force --yes", exitFailed, "answers n1|ask a member that is left"},
		{"cluster remove n1 n2 --force --yes", exitFailed, "answers n3|ask a member that is left"},
		{"cluster remove n2 n9 --force --yes", exitFailed, "no such member: n9|ask a member that is left"},
		{"cluster remove n1 n2 n3 --force --yes", exitFailed, "ask a member that is left"},
		{"bucket set nosuch --w 1", exitFailed, "no such bucket"},
		{"bucket create b --n 9", exitUsage, "n"},
		{"bucket create b --durability some", exitUsage, "some"},
		{"bucket create b --conflicts most", exitUsage, "most"},
		{"bucket create b --w 4", exitUsage, "w"},
		{"cluster leave", exitUsage, "expected"},
	} {
		r := node(t, "", append(strings.Fields(c.args), at...)...)
		says := func(want string) bool { return strings.Contains(r.err, want) }
		// What is said depends on which node the client happens to ask.
		if r.code != c.code || !slices.ContainsFunc(strings.Split(c.want, "|"), says) {
			t.Errorf("node %s: exit status %d, %q; want %d and %q", c.args, r.code, r.err, c.code, c.want)
		}
	}
	if after := members(); after != before {
		t.Errorf("before %s\nafter %s", before, after)
	}
}

// TestRemoveByForce: it warns, asks, and is shown from then on.
func TestRemoveByForce(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	at := []string{"--cluster=" + c.Name, "--node=" + c.Addresses[0]}
	for _, n := range c.Nodes[1:] {
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	remove := append([]string{"cluster", "remove", "n2", "n3", "--force"}, at...)
	for _, answer := range []string{"", "no\n", "yess\n"} {
		if r := node(t, answer, remove...); r.code != exitFailed || !strings.Contains(r.err, "WARNING: n2, n3 will be removed by force") ||
			!strings.Contains(r.err, "not confirmed") {
			t.Errorf("answered %q: %d, %s", answer, r.code, r.err)
		}
	}
	var r result
	for until := time.Now().Add(clustertest.Patience); ; { // n1 may not have noticed yet that they are gone
		r = node(t, "yes\n", remove...)
		if r.code == exitOK || time.Now().After(until) {
			break
		}
	}
	if r.code != exitOK || !strings.Contains(r.out, "FORCED: version ") || !strings.Contains(r.out, "was made from version 1 without n2 n3.") {
		t.Fatalf("%d, %s%s", r.code, r.out, r.err)
	}
	if out := must(t, "", append([]string{"cluster", "status"}, at...)...); !strings.Contains(out, "without n2 n3.") {
		t.Errorf("status:\n%s", out)
	}
	var status struct {
		Forced []forcedJSON `json:"forced"`
	}
	if err := json.Unmarshal([]byte(must(t, "", append([]string{"cluster", "status", "--json"}, at...)...)), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Forced) != 1 || status.Forced[0].At != 1 || len(status.Forced[0].Lost) != 2 {
		t.Errorf("%+v", status)
	}
	must(t, "", append([]string{"bucket", "create", "after"}, at...)...)
}

// TestAcceptLoss: what only a member had that is removed keeps the ring from moving, which the status says,
// until an operator gives it up.
func TestAcceptLoss(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	at := []string{"--cluster=" + c.Name, "--node=" + c.Addresses[0]}
	with := func(args ...string) []string { return append(args, at...) }
	must(t, "", with("bucket", "create", "one", "--n", "1", "--r", "1", "--w", "1")...)
	if err := c.Nodes[2].Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, "", with("cluster", "remove", "n3")...)
	must(t, "", with("cluster", "commit")...)
	eventually := func(what string, args []string, holds func(string) bool) (out string) {
		t.Helper()
		for until := time.Now().Add(clustertest.Patience); ; {
			if out = must(t, "", args...); holds(out) {
				return out
			}
			if time.Now().After(until) {
				t.Fatalf("%s did not come:\n%s", what, out)
			}
		}
	}
	type lostStatus struct {
		Phases map[string]int `json:"partitions"`
		Lost   []lossJSON     `json:"lost"`
	}
	var s lostStatus
	eventually("all else is moved", with("cluster", "status", "--json"), func(out string) bool {
		s = lostStatus{}
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		return len(s.Lost) > 1 && s.Phases["joint"] == len(s.Lost)
	})
	first := fmt.Sprint("partition ", s.Lost[0].Partition, ", keys of buckets with n = 1; on ", s.Lost[0].Waiting[0])
	out := must(t, "", with("cluster", "status")...)
	if !strings.Contains(out, "LOST: no replica is left that has the data of\n  partition") || !strings.Contains(out, first) || !strings.Contains(out, "node cluster accept-loss\n") {
		t.Errorf("status:\n%s", out)
	}
	for _, answer := range []string{"", "no\n", "yess\n"} {
		r := node(t, answer, with("cluster", "accept-loss")...)
		if r.code != exitFailed || !strings.Contains(r.err, "WARNING: this gives up") || !strings.Contains(r.err, first) || !strings.Contains(r.err, "not confirmed") {
			t.Errorf("answered %q: %d, %s", answer, r.code, r.err)
		}
	}
	named := []string{"cluster", "accept-loss", "--partition", fmt.Sprint(s.Lost[0].Partition)}
	r := node(t, "no\n", with(append(named, named[2:]...)...)...) // the same twice
	if r.code != exitFailed || !strings.Contains(r.err, first) || !strings.Contains(r.err, "not confirmed") {
		t.Errorf("named twice: %d, %s%s", r.code, r.out, r.err)
	}
	r = node(t, "yes\n", with(named...)...)
	if r.code != exitOK || strings.Count(r.out, "Given up: ") != 1 || !strings.Contains(r.out, "Given up: "+first) || !strings.Contains(r.out, "LOST:") {
		t.Errorf("one: %d, %s%s", r.code, r.out, r.err)
	}
	// The movement goes on meanwhile, so that the version may not be the one that was looked at.
	for until := time.Now().Add(clustertest.Patience); ; {
		r = node(t, "", with("cluster", "accept-loss", "--yes")...)
		if r.code == exitOK || time.Now().After(until) {
			break
		}
	}
	if r.code != exitOK || strings.Count(r.out, "Given up: ") != len(s.Lost)-1 || strings.Contains(r.out, "LOST:") {
		t.Errorf("all: %d, %s%s", r.code, r.out, r.err)
	}
	eventually("the end", with("cluster", "status"), func(out string) bool { return strings.Contains(out, "Nothing moves.") })
}

// TestBucketCommands: a bucket is created, changed and listed; n and conflicts stay.
func TestBucketCommands(t *testing.T) {
	at := cluster(t)[:2]
	with := func(args ...string) []string { return append(args, at...) }
	must(t, "", with("bucket", "create", "sessions", "--conflicts", "lww", "--ttl", "30m", "--w", "1")...)
	must(t, "", with("bucket", "set", "sessions", "--w", "2", "--pr", "1")...)
	if r := node(t, "", with("bucket", "create", "sessions")...); r.code != exitFailed || !strings.Contains(r.err, "exists") {
		t.Errorf("created twice: %d, %s", r.code, r.err)
	}
	var all []bucketJSON
	if err := json.Unmarshal([]byte(must(t, "", with("bucket", "list", "--json")...)), &all); err != nil {
		t.Fatal(err)
	}
	want := bucketJSON{Name: "sessions", N: 3, R: 2, W: 2, PR: 1, Durability: "all", Conflicts: "lww", TTLMillis: 1800000}
	if !slices.Contains(all, want) {
		t.Errorf("%+v", all)
	}
	// Data of before the creation would not be found with another n.
	must(t, "", with("put", "--bucket", "old", "k", "v")...)
	if r := node(t, "", with("bucket", "create", "old", "--n", "1")...); r.code != exitFailed || !strings.Contains(r.err, "has keys") {
		t.Errorf("n of a bucket with keys: %d, %s", r.code, r.err)
	}
	must(t, "", with("bucket", "create", "old", "--w", "3")...)
	if got := must(t, "", with("get", "--bucket", "old", "k")...); got != "v" {
		t.Errorf("read %q", got)
	}
}

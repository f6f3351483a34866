package blackbox

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/test/journal"
	"github.com/dynactor/dynactor/test/load"
)

// TestGrowAndShrink takes a cluster from three nodes to five and back, under load:
// no request fails, no write is lost, every read shows what was acknowledged before
// it, the moves are few, and in the end each replica has the same, before any of
// them was read. DYNACTOR_GROW_KEYS is how many keys there are at the beginning;
// from 100,000 on the latency while data move is judged, too. DYNACTOR_GROW_EVERY is the
// pause of each of the eight clients between two requests.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	keys := 2000
	if s := os.Getenv("DYNACTOR_GROW_KEYS"); s != "" {
		var err error
		if keys, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	long := keys >= 100_000
	ns := newNodes(t, 3, newLoopback(t, 5), "--partitions=16")
	c := load.Config{Workers: 8, Keys: 200, PerKey: 50, Every: 3 * time.Millisecond, Seed: 1, Prefix: "g"}
	measured := time.Second
	if long { // less than would keep two cores busy with five nodes at rest: their contention is not what is judged
		c.Every, measured = 10*time.Millisecond, 20*time.Second
	}
	if s := os.Getenv("DYNACTOR_GROW_EVERY"); s != "" {
		var err error
		if c.Every, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	tr := newTrial(t, ns, c)
	began := time.Now()
	if err := tr.load.Fill(t.Context(), keys, 64); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d keys written in %v", keys, time.Since(began).Round(time.Millisecond))
	tr.load.Start()
	warm := tr.load.Now()
	eventually(t, "the load before", func() bool { return tr.load.Now() > warm+measured })

	ns.join()
	ns.join()
	tr.staged("n4", "n5")
	from := tr.load.Now()
	movesLittle(t, tr.commit())
	grown := tr.settledWith(5)
	grew := tr.load.Now()
	eventually(t, "the load between", func() bool { return tr.load.Now() > grew+measured })
	balanced(t, grown, "n1", "n2", "n3", "n4", "n5")

	for _, name := range []string{"n1", "n4"} { // a founder and one that joined
		if _, err := tr.operator.Cluster().Stage(t.Context(), member.Change{Kind: member.Leave, Node: dynamo.NodeID(name)}); err != nil {
			t.Fatal(err)
		}
	}
	tr.staged("n1", "n4")
	leaving := tr.load.Now()
	movesLittle(t, tr.commit())
	shrunk := tr.settledWith(3)
	to := tr.load.Now()
	balanced(t, shrunk, "n2", "n3", "n5")
	for _, name := range []string{"n1", "n4"} {
		p := ns.byName(name)
		p.signal(t, syscall.SIGTERM)
		if err := p.wait(t); err != nil {
			t.Errorf("%s, which has left, ends with %v\n%s", name, err, p.tail())
		}
	}
	tr.progress(500)
	ops := tr.stop()
	if n, first := tr.load.Failures(); n > 0 {
		t.Errorf("%d requests failed: %v", n, first)
		for _, p := range ns.all {
			t.Log(p.tail())
		}
	}
	tr.settle()
	replicas := tr.each(sampled(ops, long))
	tr.judge(append(replicas, tr.whole(keysOf(ops), 0)...), "-strict")
	t.Logf("3 to 5 nodes in %v, 5 to 3 in %v", (grew - from).Round(time.Millisecond), (to - leaving).Round(time.Millisecond))
	tr.latency(ops, []phase{{"3 nodes", warm, from, false}, {"3 to 5", from, grew, true}, {"5 nodes", grew, leaving, false}, {"5 to 3", leaving, to, true}}, long, 2)
}

// settledWith waits until the ring has so many nodes and nothing moves. With many
// keys that takes longer than the patience for anything else.
func (tr *trial) settledWith(count int) member.Document {
	tr.t.Helper()
	var d member.Document
	tr.waitLong("the ring has settled", func() bool {
		var err error
		d, err = tr.document()
		return err == nil && d.Next == nil && len(d.Settled.Nodes()) == count && !d.Unfinished()
	})
	return d
}

// waitLong is eventually for what may take nearly as long as the test.
func (tr *trial) waitLong(what string, holds func() bool) {
	tr.t.Helper()
	limit := time.Now().Add(40 * patience)
	if end, ok := tr.t.Deadline(); ok && end.Add(-20*time.Second).Before(limit) {
		limit = end.Add(-20 * time.Second)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for said := time.Now(); !holds(); <-tick.C {
		if time.Since(said) > 15*time.Second {
			said = time.Now()
			tr.t.Logf("waiting: %s; %s", what, tr.state())
		}
		if time.Now().After(limit) {
			tr.t.Fatalf("never happened: %s; %s", what, tr.state())
		}
	}
}

// state says how the load and the cluster are, for a test that waits.
func (tr *trial) state() string {
	n, first := tr.load.Failures()
	d, err := tr.document()
	facts := ""
	if status, err := tr.operator.Cluster().Status(tr.t.Context()); err == nil {
		for _, s := range status.Nodes {
			facts += fmt.Sprintf("\n  %s reachable=%v known=%d target=%d filled=%d idle=%v", s.Node, s.Reachable, s.Known, s.Target, len(s.Filled), s.Idle)
		}
	}
	return fmt.Sprintf("%d requests failed: %v; %v, movement %+v, staged %v, %v%s", n, first[:min(1, len(first))], d, d.Movement, d.Staged, err, facts)
}

// sampled are the keys of a journal; of many, all that the load has written, and a tenth
// of what was there before.
func sampled(ops []journal.Op, long bool) []string {
	all := keysOf(ops)
	if long {
		all = slices.DeleteFunc(all, func(key string) bool { return strings.Contains(key, "-fill-") && key[len(key)-1] != '0' })
	}
	return all
}

// phase is a part of the test, by the clock of the journal.
type phase struct {
	name     string
	from, to time.Duration
	// moving: data move.
	moving bool
}

// latency compares the latency of the phases in which data move with that of the first:
// judged, the 99.9th percentile must stay below limit times that. A phase at rest between them, with five nodes, tells what more nodes cost on
// one machine.
func (tr *trial) latency(ops []journal.Op, phases []phase, judged bool, limit float64) {
	tr.t.Helper()
	before, _ := percentile(ops, phases[0].from, phases[0].to, 0.999)
	for _, p := range phases {
		at := func(share float64) (d time.Duration) {
			d, _ = percentile(ops, p.from, p.to, share)
			return d.Round(10 * time.Microsecond)
		}
		_, n := percentile(ops, p.from, p.to, 0)
		last := at(0.999)
		if n < 1000 && judged {
			tr.t.Errorf("%s: %d operations say nothing", p.name, n)
		}
		tr.t.Logf("%-8s %7d operations, p50 %v, p99 %v, p99.9 %v", p.name, n, at(0.5), at(0.99), last)
		if judged && p.moving && float64(last) >= limit*float64(before) {
			tr.t.Errorf("%s: p99.9 is %v while data move, before it was %v: want below %v times that", p.name, last, before, limit)
		}
	}
}

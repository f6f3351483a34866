package blackbox

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/test/journal"
	"github.com/dynactor/dynactor/test/load"
)

// TestLostDisk deletes the data of a node under load: it gets everything back without an
// operator, and no request fails for it. DYNACTOR_LOST_KEYS is how many keys there are at
// the beginning; from 100,000 on the latency meanwhile is judged: the 99.9th percentile is
// at most 1.25 times that before. "unbounded" is the control experiment, in which
// background work takes all it can get.
func TestLostDisk(t *testing.T) {
	keys := 2000
	if s := os.Getenv("DYNACTOR_LOST_KEYS"); s != "" {
		var err error
		if keys, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	long := keys >= 100_000
	t.Run("admitted", func(t *testing.T) {
		if !long {
			t.Parallel()
		}
		losesDisk(t, keys, long)
	})
	t.Run("unbounded", func(t *testing.T) {
		if !long {
			t.Parallel()
		}
		losesDisk(t, keys, false, "--background-floor=100")
	})
}

func losesDisk(t *testing.T, keys int, judged bool, args ...string) {
	ns := newNodes(t, 3, newLoopback(t, 3), append(args, "--partitions=16")...)
	c := load.Config{Workers: 8, Keys: 200, PerKey: 50, Every: 10 * time.Millisecond, Seed: 1, Prefix: "l"}
	measured := time.Second
	if keys >= 100_000 {
		measured = 20 * time.Second
	}
	tr := newTrial(t, ns, c)
	if err := tr.load.Fill(t.Context(), keys, 64); err != nil {
		t.Fatal(err)
	}
	tr.load.Start()
	before := tr.load.Now()
	eventually(t, "the load before", func() bool { return tr.load.Now() > before+measured })
	victim := ns.all[2]
	d, err := tr.document()
	if err != nil {
		t.Fatal(err)
	}
	old, _ := d.Member("n3")
	down := tr.load.Now()
	victim.kill(t)
	// The control experiment for the others: what it costs that a replica is missing,
	// while nothing is healed.
	eventually(t, "the load without the node", func() bool { return tr.load.Now() > down+time.Second+measured })
	dead := tr.load.Now()
	if err := os.RemoveAll(filepath.Join(victim.dir, "data")); err != nil {
		t.Fatal(err)
	}
	victim.start(t)
	victim.waitReady(t)
	ready := tr.load.Now()
	tr.waitLong("the node is filled", func() bool {
		var err error
		d, err = tr.document()
		m, ok := d.Member("n3")
		return err == nil && ok && m.Status == member.Up && m.Store != old.Store && len(d.Movement.Filling) == 0
	})
	filled := tr.load.Now()
	after := tr.load.Now()
	eventually(t, "the load after", func() bool { return tr.load.Now() > after+measured })
	ops := tr.stop()
	for _, op := range ops {
		if op.Start > down+time.Second && op.Outcome != journal.OK {
			t.Errorf("failed though only one node is lost: %+v", op)
		}
	}
	tr.settle()
	// What the node coordinated when it died may lie on one replica.
	if done, err := tr.operator.Cluster().Repair(t.Context(), client.Scope{}, func(client.Repair) {}); err != nil || done.Failed > 0 {
		t.Errorf("%+v, %v", done, err)
	}
	t.Logf("filled in %v", (filled - ready).Round(time.Millisecond))
	tr.latency(ops, []phase{
		{"before", before, down, false}, {"dead", down + time.Second, dead, false}, {"healing", ready, filled, true}, {"after", after, tr.load.Now(), false},
	}, judged, 1.25)
	replicas := tr.each(sampled(ops, keys >= 100_000))
	tr.judge(append(replicas, tr.whole(keysOf(ops), 0)...), "-strict")
}

package blackbox

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/test/journal"
	"github.com/dynactor/dynactor/test/load"
)

// TestChaos harms a cluster of five under load in all ways that this machine
// allows, two nodes at a time, while members come and go and deletions are forgotten. Afterwards no
// acknowledged write is missing, nothing that failed for certain is there, nothing
// that was deleted is back, and all replicas of each key are equal.
//
// DYNACTOR_CHAOS is how long, for example 10m; DYNACTOR_CHAOS_SEED repeats the order
// of the harm.
func TestChaos(t *testing.T) {
	t.Parallel()
	if !isolated(t) {
		return
	}
	lasts, seed := chaosSettings(t)
	var net network = newLoopback(t, 40)
	var cuts *routed
	if os.Getenv(inside) != "" {
		cuts = newRouted(t)
		net = cuts
	}
	ns := newNodesOf(t, wrongClock, 5, net, "--partitions=16", "--hints-mb=64", "--aae-interval=5s")
	c := load.Config{Workers: 12, Keys: 100, PerKey: 60, Every: 10 * time.Millisecond, Seed: seed, Prefix: "c"}
	if lasts > time.Minute {
		c.Every = 30 * time.Millisecond
	}
	tr := newTrial(t, ns, c)
	tr.load.Start()
	tr.progress(500)
	n := newNemesis(tr, cuts, seed)
	n.run(lasts)
	n.finish()
	for _, p := range ns.all {
		if p.lives() {
			p.waitReady(t)
		}
	}
	tr.progress(500) // it goes on by itself
	keys := keysOf(tr.stop())
	tr.settle()
	failed, _ := tr.load.Failures()
	var all []client.Reaping
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("reaping: %+v", all)
		}
	})
	eventually(t, "what was deleted is forgotten", func() bool {
		var err error
		all, err = tr.operator.Cluster().Reaping(t.Context())
		var dropped, left uint64
		for _, x := range all {
			dropped, left = dropped+x.Reaped, left+x.Waiting+x.UnderWay
		}
		return err == nil && dropped > 0 && left == 0
	})
	records, _ := reaped(t, tr.operator)
	t.Logf("%d records were forgotten by the lives of the nodes that run now", records)
	t.Logf("seed %d: %d operations ended well, %d did not; harm:\n%s", seed, tr.load.OK(), failed, n)
	tr.judge(tr.equalized(keys))
}

func chaosSettings(t *testing.T) (lasts time.Duration, seed uint64) {
	t.Helper()
	seed = uint64(time.Now().UnixNano())
	if s := os.Getenv("DYNACTOR_CHAOS"); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("DYNACTOR_CHAOS_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	return lasts, seed
}

// equalized is what the cluster and what each replica has in the end. A write whose
// coordinator died half way left no hint: replicas differ until the key is read, and
// each key is, once, with all its primaries.
func (tr *trial) equalized(keys []string) []journal.Final {
	tr.t.Helper()
	before := differing(tr.each(keys))
	tr.settle()
	whole := tr.whole(keys, 3)
	tr.settle()
	after := tr.each(keys)
	tr.t.Logf("%d of %d keys differed between replicas before they were read, %d afterwards", before, len(keys), differing(after))
	return append(whole, after...)
}

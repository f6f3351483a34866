package blackbox

import (
	"os"
	"testing"
	"time"

	"github.com/dynactor/dynactor/test/journal"
	"github.com/dynactor/dynactor/test/load"
)

// TestDeadNode kills one of three nodes under load and leaves it dead for a while:
// after the first second no request fails and none takes longer than its timeout,
// and when the node is back its hints drain and all replicas are equal before any
// key is read. DYNACTOR_DEAD is how long it is dead, for example 1m.
func TestDeadNode(t *testing.T) {
	t.Parallel()
	lasts := 3 * time.Second
	if s := os.Getenv("DYNACTOR_DEAD"); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	ns := newNodes(t, 3, newLoopback(t, 3), "--partitions=16")
	tr := newTrial(t, ns, load.Config{Workers: 8, Keys: 100, PerKey: 10, Every: 5 * time.Millisecond, Seed: 1, Prefix: "d"})
	tr.load.Start()
	tr.progress(1000)
	ns.all[1].kill(t)
	killed := tr.load.Now()
	within(t, lasts+patience, "it was dead for a while", func() bool { return tr.load.Now() > killed+lasts })
	ns.all[1].start(t)
	ns.all[1].waitReady(t)
	tr.progress(500)
	ops := tr.stop()
	tr.settle()
	var after []journal.Op
	torn := map[string]bool{}
	for _, op := range ops {
		if op.Kind != journal.Get && op.Start <= killed && op.End >= killed {
			torn[op.Key] = true // what the node coordinated when it died may lie on one replica, without a hint
		}
		if op.Start > killed+time.Second {
			after = append(after, op)
			if op.Outcome != journal.OK {
				t.Errorf("failed though only one node is dead: %+v", op)
			}
		}
	}
	slowest, n := percentile(after, 0, tr.load.Now(), 1)
	t.Logf("dead for %v; of %d requests after the first second none took longer than %v", lasts, n, slowest)
	if slowest > 5*time.Second {
		t.Errorf("a request took %v", slowest)
	}
	replicas := tr.each(keysOf(ops))
	whole := tr.whole(keysOf(ops), 3)
	for _, f := range replicas {
		if !torn[f.Key] {
			whole = append(whole, f)
		}
	}
	tr.judge(whole)
}

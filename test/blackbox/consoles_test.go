package blackbox

import (
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/test/load"
)

// TestConsoles has many consoles look at the busiest actors of all nodes each second, as `top`
// does, while others do what they can: all of them get answers, and no request fails. It says what
// that costs, in pairs of times with consoles and without. The consoles run on the same machine, so
// that what they cost themselves is in it. DYNACTOR_CONSOLES is how many there are, 5 s for each time.
func TestConsoles(t *testing.T) {
	many, pairs, lasts := 5, 1, 1500*time.Millisecond
	if s := os.Getenv("DYNACTOR_CONSOLES"); s != "" {
		var err error
		if many, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		pairs, lasts = 8, 5*time.Second
	} else {
		t.Parallel()
	}
	ns := newNodes(t, 3, newLoopback(t, 3))
	tr := newTrial(t, ns, load.Config{Workers: 16, Keys: 2000, PerKey: 1 << 30, Seed: 1, Prefix: "c"})
	consoles := make([]*client.Client, many)
	for i := range consoles {
		consoles[i] = connect(t, ns.all...)
	}
	tr.load.Start()
	tr.progress(1000)
	var ratios []float64
	for range pairs {
		without := tr.rate(lasts)
		ctx, cancel := context.WithCancel(t.Context())
		var answers atomic.Int64
		var wg sync.WaitGroup
		for _, c := range consoles {
			wg.Go(func() { watchTop(ctx, t, c, &answers) })
		}
		with := tr.rate(lasts)
		eventually(t, "all consoles have answers", func() bool { return answers.Load() >= int64(many) })
		cancel()
		wg.Wait()
		ratios = append(ratios, with/without)
		t.Logf("%d consoles: %.0f requests a second without them, %.0f with, %d looks", many, without, with, answers.Load())
	}
	slices.Sort(ratios)
	t.Logf("with %d consoles to without, middle of %d pairs: %.3f", many, pairs, ratios[pairs/2])
	tr.stop()
	if n, first := tr.load.Failures(); n > 0 {
		t.Errorf("%d requests failed: %+v", n, first[0])
	}
}

// rate is how many requests a second end well while some time passes.
func (tr *trial) rate(lasts time.Duration) float64 {
	from, began := tr.load.OK(), tr.load.Now()
	within(tr.t, lasts+patience, "the time passes", func() bool { return tr.load.Now() > began+lasts })
	return float64(tr.load.OK()-from) / (tr.load.Now() - began).Seconds()
}

// topRows is how many actors of each node `top` asks for.
const topRows = 40

// watchTop asks what `top` asks, each second.
func watchTop(ctx context.Context, t *testing.T, c *client.Client, answers *atomic.Int64) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		status, err := c.Cluster().Status(ctx)
		var wg sync.WaitGroup
		for _, n := range status.Nodes {
			wg.Go(func() {
				busy, _, err := c.Cluster().Busiest(ctx, string(n.Node), client.ByRate, topRows)
				if ctx.Err() == nil && (err != nil || len(busy) != topRows) {
					t.Errorf("%s: %d actors, %v", n.Node, len(busy), err)
				}
			})
		}
		wg.Wait()
		if ctx.Err() != nil {
			return
		}
		if err != nil || len(status.Nodes) == 0 {
			t.Errorf("status: %v", err)
		}
		answers.Add(1)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

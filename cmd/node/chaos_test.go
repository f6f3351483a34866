package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nemesis harms processes, at most two of five at a time, until told to stop, and
// then brings all of them back.
type nemesis struct {
	t      *testing.T
	r      *rand.Rand
	nodes  []*process
	harmed map[*process]string
	counts map[string]int
}

// kinds of harm.
const (
	killed  = "killed"
	frozen  = "frozen"
	stopped = "stopped in order"
)

func (n *nemesis) run(ctx context.Context) {
	pause := time.NewTicker(300 * time.Millisecond)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			for p := range n.harmed {
				n.repair(p)
			}
			return
		case <-pause.C:
			n.step()
		}
	}
}

func (n *nemesis) step() {
	p := n.nodes[n.r.IntN(len(n.nodes))]
	switch {
	case n.harmed[p] != "":
		n.repair(p)
	case len(n.harmed) < 2:
		n.harm(p, []string{killed, frozen, stopped}[n.r.IntN(3)])
	}
}

func (n *nemesis) harm(p *process, kind string) {
	n.harmed[p] = kind
	n.counts[kind]++
	switch kind {
	case killed:
		p.end(n.t, syscall.SIGKILL)
	case frozen:
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			n.t.Error(err)
		}
	case stopped:
		if p.end(n.t, syscall.SIGTERM) != nil {
			n.counts["of these cut short"]++ // the disk may be busy with the others; nothing is lost
		}
	}
}

func (n *nemesis) repair(p *process) {
	kind := n.harmed[p]
	delete(n.harmed, p)
	if kind != frozen {
		p.start(n.t)
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		n.t.Error(err)
	}
}

// TestChaos harms a cluster of five under load: processes are killed, frozen and
// stopped. Afterwards every acknowledged write is there and nothing that failed for
// certain, and all hints are delivered. DYNACTOR_CHAOS is how long, for example 10m;
// DYNACTOR_CHAOS_SEED repeats the order of the harm.
func TestChaos(t *testing.T) {
	lasts := 4 * time.Second
	if s := os.Getenv("DYNACTOR_CHAOS"); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DYNACTOR_CHAOS_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	nodes := processes(t, 5)
	cl := connect(t, nodes...)
	l := &load{bucket: cl.Bucket("b"), journal: map[string][]string{}, definite: map[string]bool{}}
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var work sync.WaitGroup
	loaded, unload := context.WithCancel(t.Context())
	for range 8 {
		work.Go(func() { l.worker(loaded) })
	}
	n := &nemesis{t: t, r: rand.New(rand.NewPCG(seed, 1)), nodes: nodes, harmed: map[*process]string{}, counts: map[string]int{}}
	n.run(ctx)
	for _, p := range nodes {
		p.waitReady(t)
	}
	l.until(t, l.acked.Load()+200) // it goes on by itself
	unload()
	work.Wait()
	eventually(t, "all hints delivered", func() bool {
		return !slices.ContainsFunc(nodes, func(p *process) bool { return p.hints(t) > 0 })
	})
	lost, ghosts := l.missing(t)
	t.Logf("seed %d: %d writes acknowledged, %d failed for certain; harm: %v", seed, l.acked.Load(), len(l.definite), n.counts)
	if len(lost) > 0 || len(ghosts) > 0 {
		t.Errorf("lost: %s; failed for certain and there: %s", strings.Join(lost, " "), strings.Join(ghosts, " "))
	}
}

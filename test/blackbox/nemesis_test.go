package blackbox

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// harm is one kind of harm to a node; undo ends it.
type harm struct {
	name string
	do   func(*nemesis, *process)
	undo func(*nemesis, *process)
	// least is how long it lasts at least.
	least time.Duration
	// hits says which nodes it can be done to; nil: all.
	hits func(*process) bool
}

// freeze is longer than every timeout: of requests, links and transfers' probes.
const freeze = 6500 * time.Millisecond

var everywhere = []harm{
	{name: "kill -9", do: func(n *nemesis, p *process) { p.kill(n.t) }, undo: restart},
	{name: "orderly stop", do: (*nemesis).stop, undo: restart},
	{name: "freeze", do: pause, undo: goOn, least: freeze},
	{name: "short freeze", do: pause, undo: goOn},
	{name: "wrong clock", do: func(n *nemesis, p *process) { p.setClock(n.t, wrong[n.r.IntN(len(wrong))]) }, undo: func(n *nemesis, p *process) { p.setClock(n.t, 0) }},
}

var onNetwork = []harm{
	{name: "cut off", do: func(n *nemesis, p *process) { n.cut(p, true, true) }, undo: (*nemesis).mend},
	{name: "cut off for a while", do: func(n *nemesis, p *process) { n.cut(p, true, true) }, undo: (*nemesis).mend, least: freeze},
	{name: "cannot send", do: func(n *nemesis, p *process) { n.cut(p, true, false) }, undo: (*nemesis).mend},
	{name: "cannot receive", do: func(n *nemesis, p *process) { n.cut(p, false, true) }, undo: (*nemesis).mend},
	{name: "slow link", do: func(n *nemesis, p *process) { n.net.slow(p.number, "512kbit") }, undo: func(n *nemesis, p *process) { n.net.fast(p.number) }},
	{name: "disk full", do: (*nemesis).fill, undo: (*nemesis).empty, hits: func(p *process) bool { return p.number == smallDisk }},
}

// nemesis harms nodes, at most two at a time, and changes who is a member. It runs
// on the goroutine of the test, one step after the other.
type nemesis struct {
	t     *testing.T
	r     *rand.Rand
	trial *trial
	nodes *nodes
	// net is nil without namespaces.
	net    *routed
	kinds  []harm
	due    []harm
	harmed map[*process]*wound
	counts map[string]int
	change change
}

// wound is harm that was done.
type wound struct {
	harm  harm
	until time.Time
	// cuts are pairs of nodes.
	cuts [][2]int
}

func newNemesis(tr *trial, net *routed, seed uint64) *nemesis {
	n := &nemesis{
		t: tr.t, r: rand.New(rand.NewPCG(seed, 1)), trial: tr, nodes: tr.nodes, net: net, kinds: everywhere,
		harmed: map[*process]*wound{}, counts: map[string]int{},
	}
	if net != nil {
		n.kinds = slices.Concat(everywhere, onNetwork)
	}
	return n
}

// run harms until the time is over and everything was done once, lets the harm end,
// and restarts all nodes one after the other.
func (n *nemesis) run(lasts time.Duration) {
	n.due = slices.Clone(n.kinds)
	n.r.Shuffle(len(n.due), func(i, j int) { n.due[i], n.due[j] = n.due[j], n.due[i] })
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(lasts); ; <-tick.C {
		more := time.Now().Before(end) || len(n.due) > 0
		if !more && len(n.harmed) == 0 {
			break
		}
		n.step(more)
	}
	n.rolling()
}

// calm is for how long a change of members may be under way before it is left alone:
// it needs all members, and some would be harmed always.
const calm = 15 * time.Second

// step does what is due: repair, a change of members, now and then a rolling
// restart, and more harm.
func (n *nemesis) step(more bool) {
	for p, w := range n.harmed {
		if time.Now().After(w.until) {
			n.say("%s: no more %s", p.name, w.harm.name)
			w.harm.undo(n, p)
			delete(n.harmed, p)
		}
	}
	n.members()
	if !more || n.change.committed && len(n.due) == 0 && time.Since(n.change.began) > calm {
		return
	}
	if len(n.due) == 0 && len(n.harmed) == 0 && n.r.IntN(100) == 0 {
		n.rolling()
	}
	if len(n.harmed) < 2 && n.r.IntN(4) == 0 {
		n.more()
	}
}

// more does the next harm that is due, or any.
func (n *nemesis) more() {
	h := n.kinds[n.r.IntN(len(n.kinds))]
	if len(n.due) > 0 {
		h = n.due[0]
	}
	var can []*process
	for _, p := range n.nodes.all {
		if n.harmed[p] == nil && p.lives() && p.name != n.change.node && (h.hits == nil || h.hits(p)) {
			can = append(can, p)
		}
	}
	if len(n.due) > 0 {
		n.due = n.due[1:]
		if len(can) == 0 {
			n.due = append(n.due, h) // later
		}
	}
	if len(can) == 0 {
		return
	}
	p := can[n.r.IntN(len(can))]
	n.counts[h.name]++
	n.say("%s: %s", p.name, h.name)
	n.harmed[p] = &wound{harm: h, until: time.Now().Add(h.least + time.Duration(n.r.Int64N(int64(1500*time.Millisecond))))}
	h.do(n, p)
}

// say tells what happens and when, by the clock of the journal.
func (n *nemesis) say(format string, args ...any) {
	n.t.Logf("%8.3fs  %s", n.trial.load.Now().Seconds(), fmt.Sprintf(format, args...))
}

func restart(n *nemesis, p *process) { p.start(n.t) }

func pause(n *nemesis, p *process) { p.signal(n.t, syscall.SIGSTOP) }

func goOn(n *nemesis, p *process) { p.signal(n.t, syscall.SIGCONT) }

// stop stops in order; a node whose stop takes too long says so by its status, and
// nothing is lost.
func (n *nemesis) stop(p *process) {
	p.signal(n.t, syscall.SIGTERM)
	if p.wait(n.t) != nil {
		n.counts["orderly stop cut short"]++
	}
}

// rolling restarts all nodes, one after the other.
func (n *nemesis) rolling() {
	n.counts["rolling restart"]++
	n.say("rolling restart")
	for _, p := range n.nodes.all {
		if p.lives() && p.name != n.change.node && (p.name != n.change.joins || n.change.committed) { // before, it is never ready
			n.stop(p)
			p.start(n.t)
			p.waitReady(n.t)
		}
	}
}

// cut drops what goes from a node to the others, or to it, or both.
func (n *nemesis) cut(p *process, from, to bool) {
	w := n.harmed[p]
	for _, other := range n.nodes.all {
		if other == p {
			continue
		}
		if from {
			w.cuts = append(w.cuts, [2]int{p.number, other.number})
		}
		if to {
			w.cuts = append(w.cuts, [2]int{other.number, p.number})
		}
	}
	for _, c := range w.cuts {
		n.net.cut(p.number, c[0], c[1])
	}
}

func (n *nemesis) mend(p *process) {
	for _, c := range n.harmed[p].cuts {
		n.net.mend(p.number, c[0], c[1])
	}
}

// smallDisk is the node whose data are on a small disk of their own.
const smallDisk = 2

// mountSmallDisk gives a node's folder a disk that can be filled.
func mountSmallDisk(t *testing.T, p *process) {
	t.Helper()
	if err := syscall.Mount("tmpfs", p.dir, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(p.dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// ballast is the file that fills the disk.
func ballast(p *process) string { return filepath.Join(p.dir, "ballast") }

// fill leaves no space at all.
func (n *nemesis) fill(p *process) {
	f, err := os.Create(ballast(p))
	if err != nil {
		n.t.Error(err)
		return
	}
	defer f.Close()
	var size int64
	for step := int64(64 << 20); step >= 4096; step /= 2 { // until not one page has room
		for syscall.Fallocate(int(f.Fd()), 0, size, step) == nil {
			size += step
		}
	}
}

// empty makes space again; a node that could not write its log has ended, as it says
// it would.
func (n *nemesis) empty(p *process) {
	if err := os.Remove(ballast(p)); err != nil {
		n.t.Error(err)
	}
	if !p.lives() {
		n.counts["ended on a full disk"]++
		p.start(n.t)
	}
}

// String is the counts, for the log.
func (n *nemesis) String() string {
	out := ""
	for _, k := range slices.Sorted(keysOfMap(n.counts)) {
		out += fmt.Sprintf("  %-24s %d\n", k, n.counts[k])
	}
	return out
}

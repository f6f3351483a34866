// Command sim runs the simulation of package sim: many seeds on all cores, or
// one seed again with its trace.
//
//	sim -seeds 10000          seeds 1 to 10000
//	sim -from 500 -seeds 100  seeds 500 to 599
//	sim -seed 4711 [-trace]   one seed; with its whole trace
//
// In two of five seeds members and ring change, and in two of five of those stored objects become
// unreadable; in two of five seeds replicas are compared and tombstones reaped; a line each says how often. The last line on standard output is `sim: seeds=N acked=M violations=V`; the
// exit status is 1 unless V is 0. Progress and failures go to standard error.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/dynactor/dynactor/dynamo/sim"
)

// tail is how many lines of its trace a failing seed prints.
const tail = 60

func main() {
	seeds := flag.Int("seeds", 1000, "run so many seeds")
	from := flag.Uint64("from", 1, "the first seed")
	seed := flag.Uint64("seed", 0, "run this seed only")
	trace := flag.Bool("trace", false, "print the whole trace of -seed")
	flag.Parse()
	debug.SetGCPercent(1600) // seeds are short and make much garbage
	if flag.NArg() > 0 || *seeds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if *seed != 0 {
		*from, *seeds = *seed, 1
	}
	var t total
	switch {
	case *seed != 0 && *trace:
		t.add(sim.Run(*seed, func(line string) { fmt.Fprintln(os.Stderr, line) }))
	default:
		t.runAll(*from, *seeds)
	}
	fmt.Printf("sim: moving seeds=%d versions=%d rings=%d take-overs=%d removals=%d ruins=%d accepted-losses=%d replanned=%d\n",
		t.moving, t.moved.Versions, t.moved.Rings, t.moved.TakeOvers, t.moved.Removals, t.moved.Ruins, t.moved.Accepted, t.moved.Replans)
	fmt.Printf("sim: healing seeds=%d exchanges=%d mended=%d reaps=%d amid-faults=%d put-off=%d reaped=%d refused=%d restored=%d lost-replicas=%d renewed=%d\n",
		t.healing, t.healed.Exchanges, t.healed.Mended, t.healed.Reaps, t.healed.Amid, t.healed.PutOff, t.healed.Reaped, t.healed.Refused, t.healed.Restored,
		t.healed.Lost, t.healed.Renewed)
	fmt.Printf("sim: seeds=%d acked=%d violations=%d\n", t.seeds, t.acked, t.violations)
	if t.violations > 0 {
		os.Exit(1)
	}
}

// total adds up results.
type total struct {
	mu                       sync.Mutex
	seeds, acked, violations int
	// moving is in how many seeds members and ring changed, moved what happened there.
	moving int
	moved  sim.Moved
	// healing is in how many replicas were compared.
	healing int
	healed  sim.Healed
}

// runAll runs seeds on all cores, each seed on one.
func (t *total) runAll(from uint64, seeds int) {
	work := make(chan uint64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range work {
				t.add(sim.Run(seed, nil))
				t.progress(seeds)
			}
		})
	}
	for i := range seeds {
		work <- from + uint64(i)
	}
	close(work)
	wg.Wait()
}

// add takes a result into the sums, and reports a failure.
func (t *total) add(r sim.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seeds++
	t.acked += r.Acked
	if r.Moving {
		t.moving++
		t.moved.Add(r.Moved)
	}
	if r.Healing {
		t.healing++
	}
	t.healed.Add(r.Healed) // replicas are also lost where none are compared
	if r.Violation != nil {
		t.violations++
		report(r)
	}
}

// progress prints a line every tenth of the way, but not for small runs.
func (t *total) progress(seeds int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seeds >= 1000 && t.seeds%(seeds/10) == 0 {
		fmt.Fprintf(os.Stderr, "sim: %d of %d seeds, %d acknowledged writes, %d violations\n", t.seeds, seeds, t.acked, t.violations)
	}
}

// report prints a failing seed with the end of its trace, which a second run
// of the same seed gives.
func report(r sim.Result) {
	var lines []string
	sim.Run(r.Seed, func(line string) {
		if lines = append(lines, line); len(lines) > 2*tail {
			lines = append(lines[:0], lines[len(lines)-tail:]...)
		}
	})
	fmt.Fprintf(os.Stderr, "\nseed %d: %v\n%s\n", r.Seed, r.Violation, r.Plan)
	for _, line := range lines[max(0, len(lines)-tail):] {
		fmt.Fprintln(os.Stderr, line)
	}
	fmt.Fprintf(os.Stderr, "replay: make sim SEED=%d, or go run ./dynamo/sim/cmd/sim -seed %d -trace\n", r.Seed, r.Seed)
}

//go:build mutants

// Command mutants plants bugs in the simulated cluster, one after the other, and runs
// seeds until a check finds each: which one, and after how many seeds; with arguments, those
// of these names. The last line on
// standard output is `mutants: caught=N of=N`; the exit status is 1 unless all are
// caught. The simulator holds the bugs and no node does; this command and what it calls
// are behind the build tag mutants.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/dynactor/dynactor/dynamo/sim"
)

func main() {
	debug.SetGCPercent(400) // seeds are short and make much garbage
	all := slices.DeleteFunc(sim.Mutants(), func(m sim.Mutant) bool { return len(os.Args) > 1 && !slices.Contains(os.Args[1:], m.String()) })
	work := make(chan sim.Mutant)
	var wg sync.WaitGroup
	var mu sync.Mutex
	caught := 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for m := range work {
				seeds, found, ok := m.Hunt()
				mu.Lock()
				switch {
				case ok:
					caught++
					fmt.Printf("%-18s caught by %-3s after %4d seeds: %.160s\n", m, found.Invariant, seeds, found.Facts)
				case found != nil:
					fmt.Printf("%-18s NOT CAUGHT: %v\n", m, found)
				default:
					fmt.Printf("%-18s NOT CAUGHT in %d seeds\n", m, seeds)
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range all {
		work <- m
	}
	close(work)
	wg.Wait()
	fmt.Printf("mutants: caught=%d of=%d\n", caught, len(all))
	if caught < len(all) {
		os.Exit(1)
	}
}

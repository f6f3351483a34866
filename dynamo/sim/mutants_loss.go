package sim

import "time"

// losingMutants are those that show only when stored objects become unreadable.
func losingMutants() []mutant {
	return []mutant{
		{mutation: dropAlone, seeds: 400, breaks: []string{"R1", "A1"}, moves: true, loses: true, shape: crumbling},
		{mutation: salvageNothing, seeds: 20, breaks: []string{"R1", "A1", "I4"}, moves: true, loses: true, shape: crumbling},
		{mutation: dropKeepsName, seeds: 50, breaks: []string{"I1", "I2"}, moves: true, loses: true, shape: crumbling},
		{mutation: lostCounts, seeds: 100, breaks: []string{"R1"}, moves: true, loses: true, shape: crumbling},
		{mutation: filledBefore, seeds: 200, breaks: []string{"R1", "A1"}, moves: true, loses: true, shape: crumbling},
	}
}

// crumbling has reads ask for one answer of those that writes have had from all, of few
// partitions, so that what a replica lacks shows.
func crumbling(p *plan) {
	tight(p)
	only(faultCrash, faultHeal)(p)
	p.partitions, p.load.keys, p.net.mean = 1, 4, 5*time.Millisecond
}

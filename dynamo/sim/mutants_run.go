//go:build mutants

package sim

import "slices"

// Mutant is a planted bug.
type Mutant struct{ m mutant }

// Mutants are all planted bugs.
func Mutants() []Mutant {
	var out []Mutant
	for _, m := range mutants() {
		out = append(out, Mutant{m})
	}
	return out
}

// String is the bug's name.
func (m Mutant) String() string { return m.m.mutation.String() }

// Hunt runs seeds until a check finds the bug. It returns how many seeds that took, and
// what was found: caught only if it is what the bug breaks.
func (m Mutant) Hunt() (seeds uint64, found *Violation, caught bool) {
	seeds, found = m.m.hunt()
	return seeds, found, found != nil && slices.Contains(m.m.breaks, found.Invariant)
}

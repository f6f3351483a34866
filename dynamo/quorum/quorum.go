// Package quorum holds the numbers N, R, W, PR and PW of paper § 4.5 and the
// counting of answers against them.
//
// Params is checked in one place, Validate, so that no impossible combination
// reaches a request. A Tally counts answers by node: a node counts once, however
// many answers it sends and however many of its vnodes were asked, because two
// copies on one disk are one copy.
package quorum

import (
	"errors"
	"fmt"
)

// MaxN is the largest number of replicas that a bucket may ask for.
const MaxN = 7

// Problems that Validate reports, each wrapped with the numbers.
var (
	// ErrN: N is not between 1 and MaxN.
	ErrN = errors.New("n is out of range")
	// ErrR: R is not between 1 and N.
	ErrR = errors.New("r is out of range")
	// ErrW: W is not between 1 and N.
	ErrW = errors.New("w is out of range")
	// ErrPR: PR is not between 0 and N.
	ErrPR = errors.New("pr is out of range")
	// ErrPW: PW is not between 0 and N.
	ErrPW = errors.New("pw is out of range")
)

// Params says how many replicas a key has and how many must answer. R + W > N
// makes reads meet writes as long as primaries answer (§ 4.5); it is not
// demanded, since R = 1 or W = 1 are legitimate choices (§ 6).
type Params struct {
	// N is the number of replicas, 1 to MaxN.
	N int
	// R is how many nodes must answer a read, 1 to N.
	R int
	// W is how many nodes must confirm a write, 1 to N.
	W int
	// PR is how many primaries must be among those that answer a read, 0 to N.
	// It may exceed R; then PR answers are awaited.
	PR int
	// PW is how many primaries must be among those that confirm a write, 0 to
	// N. It may exceed W; then PW confirmations are awaited.
	PW int
}

// Default is the common setting of the paper's services (§ 6): (3, 2, 2), and
// no demand on primaries.
func Default() Params { return Params{N: 3, R: 2, W: 2} }

// Validate reports every problem at once, joined; nil when there is none.
func (p Params) Validate() error {
	var errs []error
	if p.N < 1 || p.N > MaxN {
		// The other limits derive from N, so judging them would mislead.
		return fmt.Errorf("%w: %d, allowed are 1 to %d", ErrN, p.N, MaxN)
	}
	check := func(sentinel error, v, least int) {
		if v < least || v > p.N {
			errs = append(errs, fmt.Errorf("%w: %d, allowed are %d to n = %d", sentinel, v, least, p.N))
		}
	}
	check(ErrR, p.R, 1)
	check(ErrW, p.W, 1)
	check(ErrPR, p.PR, 0)
	check(ErrPW, p.PW, 0)
	return errors.Join(errs...)
}

// Override replaces single numbers for one request. Zero keeps the bucket's
// number, so a request can not lower PR or PW to zero. N belongs to the bucket
// alone.
type Override struct {
	R, W, PR, PW int
}

// Override returns p with the non-zero numbers of o, validated.
func (p Params) Override(o Override) (Params, error) {
	set := func(dst *int, v int) {
		if v != 0 {
			*dst = v
		}
	}
	set(&p.R, o.R)
	set(&p.W, o.W)
	set(&p.PR, o.PR)
	set(&p.PW, o.PW)
	return p, p.Validate()
}

// String prints the numbers as they are set on a bucket.
func (p Params) String() string {
	return fmt.Sprintf("n=%d r=%d w=%d pr=%d pw=%d", p.N, p.R, p.W, p.PR, p.PW)
}

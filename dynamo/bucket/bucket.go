// Package bucket holds the properties of a bucket: a namespace of keys with
// its own quorum, durability, conflict rule and time to live (paper § 4.1 has
// one namespace, § 6 has services that differ in exactly these).
package bucket

import (
	"errors"
	"fmt"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// Problems that Validate and CheckChange report; those of the quorum are in
// package quorum.
var (
	// ErrDurability: the durability is not one of all, one and none.
	ErrDurability = errors.New("unknown durability")
	// ErrConflicts: the conflict rule is not one of siblings and lww.
	ErrConflicts = errors.New("unknown conflict rule")
	// ErrTTL: a time to live is zero (none) or a whole number of milliseconds
	// up to MaxTTL.
	ErrTTL = errors.New("bad time to live")
	// ErrFixed: n and the conflict rule stay as they were when the bucket was
	// created, because stored data depends on them.
	ErrFixed = errors.New("property is fixed when the bucket is created")
)

// MaxTTL is the longest time to live; an expiry beyond it could overflow the
// timestamps that it is added to.
const MaxTTL = 100 * 365 * 24 * time.Hour

// Properties are the settings of one bucket.
type Properties struct {
	// Quorum is how many replicas there are and how many must answer.
	Quorum quorum.Params
	// Durability says when a write counts as done.
	Durability dynamo.Durability
	// Conflicts says what becomes of concurrent versions.
	Conflicts dynamo.Conflicts
	// TTL is how long a version lives after it was written; 0 is for ever. It
	// applies to versions written after it was set.
	TTL time.Duration
}

// Default are the properties of a bucket that was never created.
func Default() Properties {
	return Properties{Quorum: quorum.Default(), Durability: dynamo.DurabilityAll, Conflicts: dynamo.Siblings}
}

// Validate reports every problem at once, joined; nil when there is none.
func (p Properties) Validate() error {
	errs := []error{p.Quorum.Validate()}
	if p.Durability > dynamo.DurabilityNone {
		errs = append(errs, fmt.Errorf("%w: %v", ErrDurability, p.Durability))
	}
	if p.Conflicts > dynamo.LastWriteWins {
		errs = append(errs, fmt.Errorf("%w: %v", ErrConflicts, p.Conflicts))
	}
	if p.TTL < 0 || p.TTL > MaxTTL || p.TTL%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("%w: %v, allowed are whole milliseconds from 0 to %v", ErrTTL, p.TTL, MaxTTL))
	}
	return errors.Join(errs...)
}

// CheckChange reports every reason why a bucket with properties p may not be
// given next; nil when it may.
func (p Properties) CheckChange(next Properties) error {
	errs := []error{next.Validate()}
	if p.Quorum.N != next.Quorum.N {
		errs = append(errs, fmt.Errorf("%w: n is %d", ErrFixed, p.Quorum.N))
	}
	if p.Conflicts != next.Conflicts {
		errs = append(errs, fmt.Errorf("%w: conflicts is %v", ErrFixed, p.Conflicts))
	}
	return errors.Join(errs...)
}

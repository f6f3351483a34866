// Package vnode decides what a vnode does with one key: which dot a write gets,
// what a put leaves of the record, what an incoming record changes (paper
// § 4.4, § 5). The vnode actor reads the store, asks this package, and writes
// the result; the simulator runs the same code.
//
// The rule that everything hangs on: a dot names one write for all time. A
// vnode that continues a counter after it lost a write gives the same dot to
// two writes, and the replicas then take the second for the first. So counters
// run within an epoch, and a vnode takes a new epoch, leased durably before its
// first use, whenever it may have forgotten something:
//
//  1. it has no record of the key;
//  2. a record or a context shows an entry of its own above what it stored: the
//     epoch of that entry is barred, and the mark is kept in the record;
//  3. the key's own entry lies below the epoch floor, which rises at each start
//     after anything but a clean stop and after any failed commit.
package vnode

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
)

// Why a write was not carried out. In each case nothing changed.
var (
	// ErrLease: no leased epoch is left; lease more and try again.
	ErrLease = errors.New("vnode: no leased epoch left")
	// ErrUnknown: a retry of a write that may have been carried out longer ago
	// than the record remembers.
	ErrUnknown = errors.New("vnode: outcome of the first attempt is not remembered")
	// ErrSiblings: the write would leave more concurrent versions, or more bytes
	// in them, than allowed; read, merge them and write with the context.
	ErrSiblings = errors.New("vnode: too many concurrent versions")
	// ErrClockAhead: a last-write-wins record carries a time too far ahead of
	// this node's clock.
	ErrClockAhead = errors.New("vnode: record's time is too far ahead")
	// ErrEpoch: a context or a record shows an own epoch far beyond those given
	// out. No dot under it can be told from a forged one, so this vnode makes
	// none for the key; another may.
	ErrEpoch = errors.New("vnode: a clock names an epoch that was never given out")
	// ErrBroken: one dot names two values. It must never happen; the vnode
	// stops serving rather than choose.
	ErrBroken = errors.New("vnode: one dot names two values")
)

const (
	// Remember is how long a carried-out request is remembered, at most.
	Remember = 10 * time.Minute
	// maxLeap is how far beyond the lease a seen epoch may lie: further than any
	// rolled-back store, and too near for forged contexts to use up the epochs,
	// which all keys of the vnode share.
	maxLeap = 1 << 32
	// Slack is how much younger than it is a retry may seem: its age leaves out
	// the time that its message was under way (a link that is silent for 2 s is
	// given up), and the clocks of the node that made the first attempt and of
	// the one that judges the retry differ.
	Slack = 3 * time.Second
	// MaxAhead is how far a last-write-wins record's time may be ahead of the
	// coordinating vnode's clock.
	MaxAhead = time.Minute
	// DefaultPrune is the number of clock entries past which a client's write
	// truncates the clock (§ 4.4).
	DefaultPrune = 50
)

// Stored is what a vnode keeps under a key.
type Stored struct {
	Record version.Record
	// Barred is the highest own epoch that must not be continued for this key;
	// 0 is none. It is this vnode's own mark and is never sent.
	Barred uint64
}

// IsZero reports whether there is nothing.
func (s Stored) IsZero() bool { return s.Record.IsZero() && s.Barred == 0 }

// State is what a vnode knows about itself apart from its keys. It is changed
// only by its methods.
type State struct {
	incarnation clock.Incarnation
	// next is the epoch to hand out next; limit is the end of the lease.
	next, limit uint64
	floor       uint64
}

// Open makes the state of a vnode that starts. Epochs in [from, to) are leased
// durably for it. clean says that it stopped in order with all writes durable;
// otherwise no key's old epoch is continued.
func Open(incarnation clock.Incarnation, from, to uint64, clean bool, floor uint64) *State {
	if from == 0 {
		from = 1 // epoch 0 is never used, so that 0 can mean none
	}
	s := &State{incarnation: incarnation, next: from, limit: max(from, to), floor: floor}
	if !clean {
		s.floor = max(floor, from)
	}
	return s
}

// Incarnation is the vnode's id in dots.
func (s *State) Incarnation() clock.Incarnation { return s.incarnation }

// Epoch is the one that the next key gets that needs a new one.
func (s *State) Epoch() uint64 { return s.next }

// Floor is the lowest epoch that may be continued.
func (s *State) Floor() uint64 { return s.floor }

// Left is how many leased epochs are unused. It is 0 also when a key asked for
// an epoch beyond the lease.
func (s *State) Left() uint64 { return s.limit - min(s.next, s.limit) }

// Lease returns the range that a further lease of n epochs should make durable:
// it ends at to. After it is durable, call Extend.
func (s *State) Lease(n uint64) (to uint64) { return max(s.limit, s.next) + n }

// Extend takes note that the epochs below to are leased durably.
func (s *State) Extend(to uint64) { s.limit = max(s.limit, to) }

// RaiseFloor is called after a failed commit: replicas may hold a dot whose
// local commit was lost, so no epoch that was in use is continued.
func (s *State) RaiseFloor() { s.floor = max(s.floor, s.next) }

// Put is a client's write as the coordinating vnode sees it.
type Put struct {
	Request dynamo.RequestID
	// Retry: this is not the first attempt; Age is the time since that one.
	Retry bool
	Age   time.Duration
	// Context is what the client has seen; zero: concurrent with everything.
	Context   version.Context
	Value     []byte
	Tombstone bool
	// TTL after which the value ends to exist; 0 never.
	TTL       time.Duration
	Conflicts dynamo.Conflicts
	// MaxSiblings and Prune are limits; 0 takes the defaults, a negative Prune
	// never truncates.
	MaxSiblings, Prune int
	// Slack is taken off the time at which a retry seems to have begun; 0 takes
	// the default.
	Slack time.Duration
	// Now is the coordinator's wall clock.
	Now dynamo.Timestamp
}

// Result is what Coordinate decided.
type Result struct {
	Stored Stored
	// Dot names the write.
	Dot clock.Dot
	// Known: the request had been carried out before; nothing is to be written,
	// unless Marked: then the record remembers from now on that it was retried.
	Known, Marked bool
	// Truncated is the number of clock entries dropped.
	Truncated int
	// NewEpoch: the write began a new epoch.
	NewEpoch bool
}

// Coordinate carries out a client's write on what is stored (zero if nothing):
// it drops what the context covers and adds the new version under a new dot.
func (s *State) Coordinate(stored Stored, p Put) (Result, error) {
	rec := stored.Record
	if dot, ok := rec.Known(p.Request); ok {
		res := Result{Stored: stored, Dot: dot, Known: true}
		if p.Retry {
			res.Stored.Record, res.Marked = rec.Retry(p.Request)
		}
		return res, nil
	}
	if err := remembered(rec, p); err != nil {
		return Result{}, err
	}
	at := max(p.Now, rec.Newest()+1)
	if p.Conflicts == dynamo.LastWriteWins && at.Sub(p.Now) > MaxAhead {
		return Result{}, fmt.Errorf("%w: by %v", ErrClockAhead, at.Sub(p.Now))
	}
	kept := rec.Unseen(p.Context.Clock)
	if err := checkSiblings(rec.Versions, kept, p); err != nil {
		return Result{}, err
	}
	barred := s.bar(stored, p.Context.Clock)
	dot, fresh, err := s.nextDot(rec.Clock, barred)
	if err != nil {
		return Result{}, err
	}
	res := Result{Dot: dot, NewEpoch: fresh}
	out := version.Record{
		Clock:     rec.Clock.Merge(p.Context.Clock.NotAfter(p.Now.Add(MaxAhead))).With(clock.Entry{Actor: dot.Actor, Counter: dot.Counter, Time: at}),
		Versions:  version.Insert(kept, newVersion(p, dot, at)),
		Recent:    rec.Recent,
		Forgotten: rec.Forgotten,
	}
	out = out.Remember(version.Applied{Request: p.Request, Dot: dot, Time: at, Retried: p.Retry}, p.Now.Add(-Remember))
	if len(kept) == 0 && !p.Context.IsZero() {
		out.Clock, res.Truncated = prune(out.Clock, dot.Actor, p.Prune)
	}
	res.Stored = Stored{Record: out, Barred: barred}
	return res, nil
}

// remembered refuses a retry whose first attempt the record may have forgotten:
// one that may have begun before the newest that was forgotten. So a retry is
// never written again unless its message and the clocks are off by more than
// the slack; on a key that forgets faster than that, a retry that is not known
// is always refused.
func remembered(rec version.Record, p Put) error {
	if !p.Retry || p.Request.IsZero() {
		return nil
	}
	began := p.Now.Add(-p.Age - cmp.Or(p.Slack, Slack))
	if p.Age >= Remember || began <= rec.Forgotten {
		return fmt.Errorf("%w: it began %v ago", ErrUnknown, p.Age)
	}
	return nil
}

// checkSiblings refuses a client's write over one of the limits unless it leaves
// less than there was, so that a crowded key can always be merged.
func checkSiblings(before, kept []version.Version, p Put) error {
	limit := cmp.Or(p.MaxSiblings, dynamo.MaxSiblings)
	if n := len(kept) + 1; n > limit && n >= len(before) {
		return fmt.Errorf("%w: %d, at most %d", ErrSiblings, n, limit)
	}
	n := size(kept) + len(p.Value)
	if len(kept) > 0 && n > dynamo.MaxSiblingBytes && n >= size(before) {
		return fmt.Errorf("%w: %d bytes in %d, at most %d", ErrSiblings, n, len(kept)+1, dynamo.MaxSiblingBytes)
	}
	return nil
}

// size is how many bytes the values of versions have.
func size(versions []version.Version) int {
	n := 0
	for _, v := range versions {
		n += len(v.Value)
	}
	return n
}

// bar returns the highest own epoch that must not be continued, after seeing
// own entries in a clock from outside.
func (s *State) bar(stored Stored, seen clock.Clock) uint64 {
	barred := stored.Barred
	for _, e := range seen.Entries() {
		if e.Actor.Incarnation == s.incarnation && e.Counter > stored.Record.Clock.Counter(e.Actor) {
			barred = max(barred, e.Actor.Epoch)
		}
	}
	return barred
}

// nextDot continues the key's latest own epoch, or begins a new one.
func (s *State) nextDot(c clock.Clock, barred uint64) (dot clock.Dot, fresh bool, err error) {
	own, ok := c.Latest(s.incarnation)
	if ok && own.Actor.Epoch >= s.floor && own.Actor.Epoch > barred {
		return clock.Dot{Actor: own.Actor, Counter: own.Counter + 1}, false, nil
	}
	// A new epoch lies above every own epoch ever seen, also if the lease was
	// rolled back.
	seen := barred
	if ok {
		seen = max(seen, own.Actor.Epoch)
	}
	if seen > s.limit && seen-s.limit > maxLeap {
		return clock.Dot{}, false, fmt.Errorf("%w: %d", ErrEpoch, seen)
	}
	epoch := max(s.next, seen+1)
	if epoch >= s.limit {
		s.next = max(s.next, epoch)
		return clock.Dot{}, false, ErrLease
	}
	s.next = epoch + 1
	return clock.Dot{Actor: clock.Actor{Incarnation: s.incarnation, Epoch: epoch}, Counter: 1}, true, nil
}

func newVersion(p Put, dot clock.Dot, at dynamo.Timestamp) version.Version {
	v := version.Version{Dot: dot, Request: p.Request, Time: at, Tombstone: p.Tombstone}
	if !p.Tombstone {
		v.Value = p.Value
		if p.TTL > 0 {
			v.Expires = p.Now.Add(p.TTL)
		}
	}
	return v
}

func prune(c clock.Clock, keep clock.Actor, limit int) (clock.Clock, int) {
	if limit == 0 {
		limit = DefaultPrune
	}
	return c.Prune(limit, func(a clock.Actor) bool { return a == keep })
}

// Accept merges a record that a coordinator, a repair or a transfer brought.
// changed is false when the vnode had all of it already.
func (s *State) Accept(stored Stored, in version.Record) (out Stored, changed bool, err error) {
	if dot, ok := clash(stored.Record, in); ok {
		return stored, false, fmt.Errorf("%w: %v", ErrBroken, dot)
	}
	out = Stored{Record: version.Merge(stored.Record, in), Barred: s.bar(stored, in.Clock)}
	changed = out.Barred != stored.Barred || !out.Record.Equal(stored.Record)
	return out, changed, nil
}

// clash finds a dot that both records hold with different values.
func clash(a, b version.Record) (clock.Dot, bool) {
	for i, j := 0, 0; i < len(a.Versions) && j < len(b.Versions); {
		x, y := a.Versions[i], b.Versions[j]
		switch r := x.Dot.Compare(y.Dot); {
		case r < 0:
			i++
		case r > 0:
			j++
		default:
			if !x.Omitted && !y.Omitted && (x.Tombstone != y.Tombstone || !bytes.Equal(x.Value, y.Value)) {
				return x.Dot, true
			}
			i, j = i+1, j+1
		}
	}
	return clock.Dot{}, false
}

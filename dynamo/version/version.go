// Package version is what the store keeps for one key: concurrent versions,
// their clock, and how records of several replicas become one (paper § 4.4).
//
// A Record is a dotted version vector set: a clock that covers every write the
// record knows, and the versions among them that no other write has superseded.
// A dot that the clock covers and that no version carries was superseded.
//
// Invariants:
//
//   - Merge is commutative, associative and idempotent, so replicas that have
//     seen the same writes hold the same record whatever the order.
//   - Replicas exchange whole merged records, never bare deltas; so an entry n
//     of the clock always means that the writes 1 to n are in the record or
//     superseded, also when messages are lost or reordered.
//   - Merge never drops a version that the other side has not superseded.
//   - Versions are sorted by dot, so equal records have equal encodings.
package version

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
)

// Version is one write's value.
type Version struct {
	Dot clock.Dot
	// Request is the id the client gave this write; zero if none.
	Request dynamo.RequestID
	// Time is the hybrid logical time of the write: the coordinator's clock,
	// pushed past every time in the record it wrote to.
	Time dynamo.Timestamp
	// Expires is when the value ends to exist for readers; 0 is never.
	Expires dynamo.Timestamp
	// Tombstone: the write deleted the key. Value is then empty.
	Tombstone bool
	// Omitted: the value was left out of an answer to save bytes; it is not
	// known here.
	Omitted bool
	Value   []byte
}

// Expired reports whether the version is past its end at now.
func (v Version) Expired(now dynamo.Timestamp) bool { return v.Expires != 0 && v.Expires <= now }

// Applied remembers that a request was carried out, also after its version was
// superseded, so that a retry is answered instead of written again.
type Applied struct {
	Request dynamo.RequestID
	Dot     clock.Dot
	// Time is the version's hybrid logical time: the requests of a record are in
	// their causal order, and a coordinator whose clock is behind does not see
	// its own forgotten first.
	Time dynamo.Timestamp
	// Retried: more than one attempt was seen, so that the write may have been
	// coordinated twice, by a node that cannot be reached now and is heard of much
	// later.
	Retried bool
}

const (
	// RecentRequests is how many carried-out requests a record remembers, whichever
	// they are.
	RecentRequests = 16
	// RetriedRequests is how many of those that were retried it remembers.
	RetriedRequests = 48
)

// Record is all that replicas keep of one key. The zero Record knows nothing.
// Records are values: no function changes one that it was given.
type Record struct {
	Clock    clock.Clock
	Versions []Version
	// Recent are the last carried-out requests, newest first, and behind them older
	// ones that were retried.
	Recent []Applied
	// Forgotten is the newest time of a request that Recent has dropped. Of an
	// attempt that began at or before it, unless Recent has it, the record cannot
	// tell whether it was carried out.
	Forgotten dynamo.Timestamp
}

// IsZero reports whether the record knows of no write.
func (r Record) IsZero() bool { return r.Clock.Len() == 0 && len(r.Versions) == 0 }

// Merge is syntactic reconciliation of two records (§ 4.4): it keeps the
// versions that neither side has superseded. If both sides hold one client
// write under two dots (a retry that was coordinated twice), one is kept; if one
// side has superseded that write under its dot, the other's goes with it, as
// long as the request is remembered.
func Merge(a, b Record) Record {
	if a.IsZero() && len(a.Recent) == 0 {
		return b
	}
	if b.IsZero() && len(b.Recent) == 0 {
		return a
	}
	out := Record{Clock: a.Clock.Merge(b.Clock)}
	out.Versions = dropTwins(survivors(a, b), a, b)
	out.Recent, out.Forgotten = mergeRecent(a, b)
	return out
}

// survivors merges two sorted sets of versions, without those that the other
// side covers and no longer holds.
func survivors(a, b Record) []Version {
	out := make([]Version, 0, len(a.Versions)+len(b.Versions))
	av, bv := a.Versions, b.Versions
	for len(av) > 0 || len(bv) > 0 {
		switch r := compareHeads(av, bv); {
		case r < 0:
			if !b.Clock.Covers(av[0].Dot) {
				out = append(out, av[0])
			}
			av = av[1:]
		case r > 0:
			if !a.Clock.Covers(bv[0].Dot) {
				out = append(out, bv[0])
			}
			bv = bv[1:]
		default:
			keep := av[0]
			if keep.Omitted {
				keep = bv[0]
			}
			out = append(out, keep)
			av, bv = av[1:], bv[1:]
		}
	}
	return out
}

func compareHeads(a, b []Version) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return a[0].Dot.Compare(b[0].Dot)
}

// mergeRecent keeps the newest requests of both sides. What it drops raises
// the forgotten time, and what lies at or before that time is dropped with it,
// so the result does not depend on the order of merges.
func mergeRecent(a, b Record) ([]Applied, dynamo.Timestamp) {
	forgotten := max(a.Forgotten, b.Forgotten)
	if a.Forgotten == b.Forgotten && slices.Equal(a.Recent, b.Recent) {
		return a.Recent, forgotten // replicas mostly agree
	}
	all := make([]Applied, 0, len(a.Recent)+len(b.Recent))
	all = append(append(all, a.Recent...), b.Recent...)
	return trimRecent(all, forgotten)
}

// trimRecent sorts newest first, makes one of doubles, and cuts to the limits.
func trimRecent(all []Applied, forgotten dynamo.Timestamp) ([]Applied, dynamo.Timestamp) {
	slices.SortFunc(all, compareApplied)
	all = slices.CompactFunc(all, Applied.same) // of doubles, one that was retried is first
	if len(all) > RecentRequests {
		forgotten = max(forgotten, all[RecentRequests].Time)
	}
	retried := 0
	all = slices.DeleteFunc(all, func(x Applied) bool {
		if x.Retried {
			retried++
		}
		return x.Time <= forgotten && (!x.Retried || retried > RetriedRequests)
	})
	if len(all) == 0 {
		all = nil
	}
	return all, forgotten
}

// same reports whether both are one request's one dot.
func (x Applied) same(y Applied) bool {
	return x.Dot == y.Dot && x.Request == y.Request && x.Time == y.Time
}

// compareApplied orders remembered requests, newest first.
func compareApplied(x, y Applied) int {
	if c := cmp.Compare(y.Time, x.Time); c != 0 {
		return c
	}
	if c := bytes.Compare(x.Request[:], y.Request[:]); c != 0 {
		return c
	}
	if c := x.Dot.Compare(y.Dot); c != 0 || x.Retried == y.Retried {
		return c
	}
	if x.Retried {
		return -1
	}
	return 1
}

// Descends reports whether r has seen all that o has, so that o adds nothing.
// Two records with one clock can differ in their versions after a write was
// coordinated twice; then neither descends from the other.
func (r Record) Descends(o Record) bool {
	if !r.Clock.Descends(o.Clock) {
		return false
	}
	for _, v := range r.Versions {
		if o.Clock.Covers(v.Dot) && !o.Has(v.Dot) {
			return false
		}
	}
	return true
}

// SameCausal reports whether both have seen the same writes and hold the same
// versions; values are not compared, for a dot names one value.
func (r Record) SameCausal(o Record) bool {
	return r.Clock.Equal(o.Clock) && slices.EqualFunc(r.Versions, o.Versions, func(a, b Version) bool {
		return a.Dot == b.Dot
	})
}

// HashSize is the length of a CausalHash.
const HashSize = 16

// CausalHash is the same for two records exactly when SameCausal is true of them
// (a clash of the hash function aside).
func (r Record) CausalHash() [HashSize]byte {
	var array [512]byte // most records fit, and cost no memory
	b := binary.AppendUvarint(array[:0], uint64(r.Clock.Len()))
	add := func(d clock.Dot) {
		b = append(b, d.Actor.Incarnation[:]...)
		b = binary.AppendUvarint(b, d.Actor.Epoch)
		b = binary.AppendUvarint(b, d.Counter)
	}
	for _, e := range r.Clock.Entries() {
		add(clock.Dot{Actor: e.Actor, Counter: e.Counter})
	}
	for _, v := range r.Versions {
		add(v.Dot)
	}
	sum := sha256.Sum256(b)
	return [HashSize]byte(sum[:])
}

// Has reports whether the record holds the version d.
func (r Record) Has(d clock.Dot) bool {
	_, ok := slices.BinarySearchFunc(r.Versions, d, func(v Version, d clock.Dot) int { return v.Dot.Compare(d) })
	return ok
}

// Live returns the versions that a reader sees at now: neither tombstones nor
// expired ones.
func (r Record) Live(now dynamo.Timestamp) []Version {
	var out []Version
	for _, v := range r.Versions {
		if !v.Tombstone && !v.Expired(now) {
			out = append(out, v)
		}
	}
	return out
}

// Latest returns the version that last-write-wins shows: the latest time, ties
// broken by dot (§ 6, timestamp based reconciliation). When the latest write is
// a tombstone or has expired there is none, also if an older one is still live.
func (r Record) Latest(now dynamo.Timestamp) (Version, bool) {
	var best Version
	for _, v := range r.Versions {
		if best.Dot.IsZero() || cmp.Or(cmp.Compare(v.Time, best.Time), v.Dot.Compare(best.Dot)) > 0 {
			best = v
		}
	}
	return best, !best.Dot.IsZero() && !best.Tombstone && !best.Expired(now)
}

// Known returns the dot under which a request was carried out, if the record
// holds its version or remembers it.
func (r Record) Known(id dynamo.RequestID) (clock.Dot, bool) {
	if id.IsZero() {
		return clock.Dot{}, false
	}
	for _, v := range r.Versions {
		if v.Request == id {
			return v.Dot, true
		}
	}
	for _, x := range r.Recent {
		if x.Request == id {
			return x.Dot, true
		}
	}
	return clock.Dot{}, false
}

// Retry returns the record with a request that it knows marked as retried, and
// whether that changed it.
func (r Record) Retry(id dynamo.RequestID) (Record, bool) {
	var x Applied
	if i := slices.IndexFunc(r.Recent, func(x Applied) bool { return x.Request == id }); i >= 0 {
		x = r.Recent[i]
	} else if i := slices.IndexFunc(r.Versions, func(v Version) bool { return v.Request == id }); i >= 0 {
		x = Applied{Request: id, Dot: r.Versions[i].Dot, Time: r.Versions[i].Time}
	}
	if x.Request.IsZero() || x.Retried {
		return r, false
	}
	x.Retried = true
	r.Recent, r.Forgotten = trimRecent(append(slices.Clone(r.Recent), x), r.Forgotten)
	return r, true
}

// Omit returns the record with the values longer than above bytes left out,
// and whether any was.
func (r Record) Omit(above int) (Record, bool) {
	if !slices.ContainsFunc(r.Versions, func(v Version) bool { return len(v.Value) > above }) {
		return r, false
	}
	out := r
	out.Versions = slices.Clone(r.Versions)
	for i := range out.Versions {
		if v := &out.Versions[i]; len(v.Value) > above {
			v.Omitted, v.Value = true, nil
		}
	}
	return out, true
}

// Missing returns the dots whose values were omitted.
func (r Record) Missing() []clock.Dot {
	var out []clock.Dot
	for _, v := range r.Versions {
		if v.Omitted {
			out = append(out, v.Dot)
		}
	}
	return out
}

// Newest is the latest time of any write that the record holds.
func (r Record) Newest() dynamo.Timestamp {
	var t dynamo.Timestamp
	for _, v := range r.Versions {
		t = max(t, v.Time)
	}
	for _, e := range r.Clock.Entries() {
		t = max(t, e.Time)
	}
	return t
}

// Insert returns the versions with v added in its place.
func Insert(versions []Version, v Version) []Version {
	i, _ := slices.BinarySearchFunc(versions, v.Dot, func(x Version, d clock.Dot) int { return x.Dot.Compare(d) })
	return slices.Insert(versions, i, v)
}

// Remember returns the record with a carried-out request added and with those
// carried out at or before horizon forgotten, but for retried ones: raising
// Forgotten would not have other replicas forget them. A zero request id adds nothing.
func (r Record) Remember(x Applied, horizon dynamo.Timestamp) Record {
	all := slices.Clone(r.Recent)
	if !x.Request.IsZero() {
		all = append(all, x)
	}
	all = slices.DeleteFunc(all, func(x Applied) bool {
		if x.Retried || x.Time > horizon {
			return false
		}
		r.Forgotten = max(r.Forgotten, x.Time)
		return true
	})
	r.Recent, r.Forgotten = trimRecent(all, r.Forgotten)
	return r
}

// Equal reports whether both records are the same in everything that is
// stored, the remembered requests included.
func (r Record) Equal(o Record) bool {
	return r.SameCausal(o) && r.Forgotten == o.Forgotten && slices.Equal(r.Recent, o.Recent)
}

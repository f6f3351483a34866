package link

import "time"

// bound is what a connection knows of the peer's clock: a stamp of this end, made when
// this end's clock said own, was answered when the peer's said peer. What happens at one
// moment of the peer's clock happens, by this end's, no earlier than as much after own
// (or before it) as the moment is after peer (or before it): the stamp was made before it
// was answered.
//
// The peer may have stood still before it answered, and the answer may have been under
// way for long: then dates come out too early, by the round trip at most, and a record
// counts as older than it is. It never counts as younger.
//
// Both clocks must run all the time, which is what rt.Clock is for, and at nearly the same
// rate (driftShare). Of a clock that stood still no choice among the answers makes up for
// it: by an answer from before, what comes after our clock stood still seems younger by
// as much; by one from after, what was dated before the peer's did. The last answer
// counts, for the dates that matter lie near it. A machine that is suspended for longer
// than Config.Silence loses its connections and what they know.
type bound struct{ own, peer time.Duration }

// driftShare bounds by how much two clocks can differ about a time: by one part in so
// many. Each is right to one in a thousand.
const driftShare = 256

// unknown is the date of what nothing is known of: decades ago.
const unknown = 1

// date translates a date of the peer's, in milliseconds, so that it is never later than
// the moment that is meant; 0 is none, and stays. Without a bound all is too old.
func (b bound) date(peer int64) int64 {
	switch {
	case peer == 0:
		return 0
	case peer < 0 || b == bound{}:
		return unknown
	}
	after := peer - (b.peer.Milliseconds() + 1) // rounded up
	drift := max(after, -after)/driftShare + 1
	return max(unknown, after-drift+b.own.Milliseconds())
}

// answers is the bound that the answer to a stamp of this end is, none if it is not one.
func (l *Links) answers(stamp, clock uint64) bound {
	own, peer := time.Duration(stamp), time.Duration(clock)
	if own <= 0 || own > l.clock() || peer <= 0 {
		return bound{}
	}
	return bound{own: own, peer: peer}
}

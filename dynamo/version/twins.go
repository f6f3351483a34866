package version

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
)

// Twins are the versions of one client write that two vnodes coordinated,
// because the client lost the first and tried the second under the same request
// id. They are one write: one of them is kept, and a write that supersedes one
// supersedes both. Records know of twins by the requests that they remember; of
// a forgotten one a twin may come back as a sibling, but none is ever dropped
// that no context covered.

// dropTwins keeps, of the versions of one request that a merge of a and b has
// left, the one with the smallest dot, and none if either side has superseded
// another of them. Versions are sorted by dot.
func dropTwins(versions []Version, a, b Record) []Version {
	if slices.Equal(a.Recent, b.Recent) && slices.EqualFunc(a.Versions, b.Versions, sameDot) {
		return versions // replicas mostly agree
	}
	var seen map[dynamo.RequestID]bool
	if len(versions) > 1 {
		seen = make(map[dynamo.RequestID]bool, len(versions))
	}
	return slices.DeleteFunc(versions, func(v Version) bool {
		if v.Request.IsZero() {
			return false
		}
		twin := seen[v.Request]
		if seen != nil {
			seen[v.Request] = true
		}
		return twin || a.overtook(v.Request, b) || b.overtook(v.Request, a)
	})
}

func sameDot(x, y Version) bool { return x.Dot == y.Dot }

// overtook reports whether r has superseded what a request wrote: it remembers
// the request and holds no version of it, or a context that it has taken covered
// a version that the other record remembers. It covers that version's dot then
// and has never heard of it; had it dropped it for a twin's sake, it would
// remember it.
func (r Record) overtook(id dynamo.RequestID, other Record) bool {
	of := func(x Applied) bool { return x.Request == id }
	if slices.ContainsFunc(r.Recent, of) && !slices.ContainsFunc(r.Versions, func(v Version) bool { return v.Request == id }) {
		return true
	}
	return slices.ContainsFunc(other.Recent, func(x Applied) bool {
		return of(x) && r.Clock.Covers(x.Dot) && !r.Has(x.Dot) && x.Time > r.Forgotten && !slices.ContainsFunc(r.Recent, x.same)
	})
}

// Unseen returns the versions that a client has not seen whose context covers
// seen: neither under their own dot nor under that of a twin.
func (r Record) Unseen(seen clock.Clock) []Version {
	return slices.DeleteFunc(slices.Clone(r.Versions), func(v Version) bool {
		return seen.Covers(v.Dot) || !v.Request.IsZero() && slices.ContainsFunc(r.Recent, func(x Applied) bool {
			return x.Request == v.Request && seen.Covers(x.Dot)
		})
	})
}

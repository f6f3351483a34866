package version

import (
	"encoding/binary"

	"github.com/dynactor/dynactor/dynamo"
)

// format is the first byte of every encoded record. A change of the encoding
// takes the next number; old ones stay readable. Format 1 does not say which
// requests were retried.
const format = 2

// Flags of an encoded version.
const (
	flagTombstone = 1 << iota
	flagOmitted
	flagRequest
	flagExpires
	flagsEnd
)

// Append encodes the record behind dst. The encoding is canonical: equal
// records have equal bytes, and decoding accepts no others.
func Append(dst []byte, r Record) []byte {
	dst = append(dst, format)
	dst = appendClock(dst, r.Clock)
	dst = binary.AppendUvarint(dst, uint64(len(r.Versions)))
	for _, v := range r.Versions {
		dst = appendVersion(dst, r, v)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Recent)))
	var retried uint64 // a bit for each
	for i, x := range r.Recent {
		dst = append(dst, x.Request[:]...)
		dst = appendDot(dst, r.Clock, x.Dot)
		dst = binary.AppendVarint(dst, int64(x.Time))
		if x.Retried {
			retried |= 1 << i
		}
	}
	dst = binary.AppendUvarint(dst, retried)
	return binary.AppendVarint(dst, int64(r.Forgotten))
}

func appendVersion(dst []byte, r Record, v Version) []byte {
	var flags byte
	if v.Tombstone {
		flags |= flagTombstone
	}
	if v.Omitted {
		flags |= flagOmitted
	}
	if !v.Request.IsZero() {
		flags |= flagRequest
	}
	if v.Expires != 0 {
		flags |= flagExpires
	}
	dst = append(dst, flags)
	dst = appendDot(dst, r.Clock, v.Dot)
	dst = binary.AppendVarint(dst, int64(v.Time))
	if flags&flagRequest != 0 {
		dst = append(dst, v.Request[:]...)
	}
	if flags&flagExpires != 0 {
		dst = binary.AppendVarint(dst, int64(v.Expires))
	}
	if flags&(flagTombstone|flagOmitted) == 0 {
		dst = binary.AppendUvarint(dst, uint64(len(v.Value)))
		dst = append(dst, v.Value...)
	}
	return dst
}

// Decode reads one record, which must fill b exactly. Values alias b. Errors
// are ErrCorrupt and ErrFormat.
func Decode(b []byte) (Record, error) {
	if len(b) == 0 {
		return Record{}, ErrCorrupt
	}
	if b[0] == 0 || b[0] > format {
		return Record{}, ErrFormat
	}
	r := reader{b: b[1:]}
	var rec Record
	rec.Clock = r.clock()
	rec.Versions = r.versions(rec)
	rec.Recent = r.recent(rec, b[0] > 1)
	rec.Forgotten = dynamo.Timestamp(r.varint())
	if r.err == nil && len(r.b) != 0 {
		r.fail()
	}
	if r.err == nil && !recentSorted(rec) {
		r.fail()
	}
	if r.err != nil {
		return Record{}, r.err
	}
	return rec, nil
}

func (r *reader) versions(rec Record) []Version {
	n := r.count(3)
	if n == 0 {
		return nil
	}
	out := make([]Version, 0, n)
	for i := range n {
		v := r.version(rec)
		covered := rec.Clock.Covers(v.Dot)
		if !covered || i > 0 && out[i-1].Dot.Compare(v.Dot) >= 0 {
			r.fail()
		}
		if r.err != nil {
			return nil
		}
		out = append(out, v)
	}
	return out
}

func (r *reader) version(rec Record) Version {
	var v Version
	head := r.take(1)
	if len(head) == 0 || head[0] >= flagsEnd {
		r.fail()
		return v
	}
	flags := head[0]
	v.Tombstone, v.Omitted = flags&flagTombstone != 0, flags&flagOmitted != 0
	v.Dot = r.dot(rec.Clock)
	v.Time = dynamo.Timestamp(r.varint())
	if flags&flagRequest != 0 {
		v.Request = r.id()
		if v.Request.IsZero() {
			r.fail()
		}
	}
	if flags&flagExpires != 0 {
		v.Expires = dynamo.Timestamp(r.varint())
		if v.Expires == 0 {
			r.fail()
		}
	}
	if v.Tombstone && v.Omitted {
		r.fail()
	}
	if !v.Tombstone && !v.Omitted {
		v.Value = r.take(r.uvarint())
	}
	return v
}

// recent reads the remembered requests, and, if marks follow, which were retried.
func (r *reader) recent(rec Record, marks bool) []Applied {
	n := r.count(18)
	if n > RecentRequests+RetriedRequests {
		r.fail()
	}
	if r.err != nil {
		return nil
	}
	var out []Applied
	if n > 0 {
		out = make([]Applied, n)
	}
	for i := range out {
		out[i] = Applied{Request: r.id(), Dot: r.dot(rec.Clock), Time: dynamo.Timestamp(r.varint())}
	}
	if !marks {
		return out
	}
	retried := r.uvarint()
	if retried>>n != 0 { // n is at most 64
		r.fail()
	}
	for i := range out {
		out[i].Retried = retried&(1<<i) != 0
	}
	return out
}

// recentSorted reports whether the remembered requests are as trimRecent
// leaves them.
func recentSorted(rec Record) bool {
	recent, retried := 0, 0
	for i, x := range rec.Recent {
		if x.Time > rec.Forgotten {
			recent++
		} else if !x.Retried {
			return false
		}
		if x.Retried {
			retried++
		}
		if i > 0 && (rec.Recent[i-1].same(x) || compareApplied(rec.Recent[i-1], x) >= 0) {
			return false
		}
	}
	return recent <= RecentRequests && retried <= RetriedRequests
}

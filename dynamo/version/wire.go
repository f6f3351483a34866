package version

import (
	"encoding/binary"
	"math/bits"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
)

// reader takes canonical fields off a byte slice. After the first error all
// further reads return zero values.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = ErrCorrupt
	}
	r.b = nil
}

// uvarint reads a minimally encoded number.
func (r *reader) uvarint() uint64 {
	x, n := binary.Uvarint(r.b)
	if n <= 0 || n != uvarintLen(x) {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return x
}

// varint reads a minimally encoded signed number.
func (r *reader) varint() int64 {
	u := r.uvarint()
	x := int64(u >> 1)
	if u&1 != 0 {
		x = ^x
	}
	return x
}

// count reads the number of items that follow, each at least size bytes long,
// so that a short input cannot ask for much memory.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

// take returns the next n bytes, aliasing the input.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) id() (id [16]byte) {
	copy(id[:], r.take(16))
	return id
}

func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

// appendClock writes the entries in order: incarnation, epoch, counter, time.
// An incarnation equal to the one before is written as a zero byte.
func appendClock(dst []byte, c clock.Clock) []byte {
	dst = binary.AppendUvarint(dst, uint64(c.Len()))
	var last clock.Incarnation
	for i, e := range c.Entries() {
		if i > 0 && e.Actor.Incarnation == last {
			dst = append(dst, 0)
		} else {
			dst = append(append(dst, 1), e.Actor.Incarnation[:]...)
			last = e.Actor.Incarnation
		}
		dst = binary.AppendUvarint(dst, e.Actor.Epoch)
		dst = binary.AppendUvarint(dst, e.Counter)
		dst = binary.AppendVarint(dst, int64(e.Time))
	}
	return dst
}

func (r *reader) clock() clock.Clock {
	n := r.count(4)
	entries := make([]clock.Entry, 0, n)
	for i := range n {
		e := r.entry(entries)
		if i > 0 && entries[i-1].Actor.Compare(e.Actor) >= 0 || e.Counter == 0 {
			r.fail()
		}
		if r.err != nil {
			return clock.Clock{}
		}
		entries = append(entries, e)
	}
	return clock.Sorted(entries)
}

func (r *reader) entry(before []clock.Entry) clock.Entry {
	var e clock.Entry
	switch fresh := r.take(1); {
	case len(fresh) == 0:
	case fresh[0] == 1:
		e.Actor.Incarnation = r.id()
		if len(before) > 0 && before[len(before)-1].Actor.Incarnation == e.Actor.Incarnation {
			r.fail() // not canonical
		}
	case fresh[0] == 0 && len(before) > 0:
		e.Actor.Incarnation = before[len(before)-1].Actor.Incarnation
	default:
		r.fail()
	}
	e.Actor.Epoch = r.uvarint()
	e.Counter = r.uvarint()
	e.Time = dynamo.Timestamp(r.varint())
	return e
}

// appendDot writes a dot as a place in the clock's entries and a distance from
// the entry's counter; a dot whose actor was truncated is written in full.
func appendDot(dst []byte, c clock.Clock, d clock.Dot) []byte {
	for i, e := range c.Entries() {
		if e.Actor == d.Actor && e.Counter >= d.Counter {
			dst = binary.AppendUvarint(dst, uint64(i)+1)
			return binary.AppendUvarint(dst, e.Counter-d.Counter)
		}
	}
	dst = append(dst, 0)
	dst = append(dst, d.Actor.Incarnation[:]...)
	dst = binary.AppendUvarint(dst, d.Actor.Epoch)
	return binary.AppendUvarint(dst, d.Counter)
}

func (r *reader) dot(c clock.Clock) clock.Dot {
	var d clock.Dot
	place := r.uvarint()
	switch {
	case place == 0:
		d.Actor.Incarnation = r.id()
		d.Actor.Epoch = r.uvarint()
		d.Counter = r.uvarint()
		if c.Covers(d) {
			r.fail() // not canonical
		}
	case place > uint64(c.Len()):
		r.fail()
	default:
		e := c.Entries()[place-1]
		behind := r.uvarint()
		if behind >= e.Counter {
			r.fail()
		}
		d = clock.Dot{Actor: e.Actor, Counter: e.Counter - behind}
	}
	if d.Counter == 0 {
		r.fail()
	}
	return d
}

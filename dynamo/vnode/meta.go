package vnode

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/dynactor/dynactor/dynamo/clock"
)

// Meta is what a vnode keeps durably about itself.
type Meta struct {
	Incarnation clock.Incarnation
	// Limit is the end of the leased epochs: none at or above it was used.
	Limit uint64
	// Floor is the epoch floor.
	Floor uint64
	// Clean: the vnode stopped in order, every write of it is durable and no
	// epoch at or above Next was used.
	Clean bool
	Next  uint64
}

const metaFormat = 1

const metaLen = 1 + 16 + 3*8 + 1 + 4

// Encode returns the bytes to store: format, fields of fixed length, checksum.
func (m Meta) Encode() []byte {
	b := make([]byte, 0, metaLen)
	b = append(b, metaFormat)
	b = append(b, m.Incarnation[:]...)
	b = binary.BigEndian.AppendUint64(b, m.Limit)
	b = binary.BigEndian.AppendUint64(b, m.Floor)
	b = binary.BigEndian.AppendUint64(b, m.Next)
	clean := byte(0)
	if m.Clean {
		clean = 1
	}
	b = append(b, clean)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// DecodeMeta reads what Encode wrote. Errors are ErrChecksum and ErrFormat.
func DecodeMeta(b []byte) (Meta, error) {
	if len(b) != metaLen || crc32.Checksum(b[:metaLen-4], castagnoli) != binary.BigEndian.Uint32(b[metaLen-4:]) {
		return Meta{}, ErrChecksum
	}
	if b[0] != metaFormat {
		return Meta{}, ErrFormat
	}
	m := Meta{
		Incarnation: clock.Incarnation(b[1:17]),
		Limit:       binary.BigEndian.Uint64(b[17:]),
		Floor:       binary.BigEndian.Uint64(b[25:]),
		Next:        binary.BigEndian.Uint64(b[33:]),
		Clean:       b[41] == 1,
	}
	return m, nil
}

// Start turns the stored meta of a vnode into its state for this run and the
// meta that must be durable before the state is used: a lease of n epochs, and
// no mark of a clean stop. A vnode that never ran has found false and takes
// incarnation, a fresh random id.
func Start(m Meta, found bool, incarnation clock.Incarnation, n uint64) (*State, Meta) {
	if !found {
		m = Meta{Incarnation: incarnation, Limit: 1, Next: 1, Clean: true}
	}
	from := m.Limit
	if m.Clean {
		from = m.Next
	}
	to := max(m.Limit, from) + n
	s := Open(m.Incarnation, from, to, m.Clean, m.Floor)
	return s, Meta{Incarnation: m.Incarnation, Limit: to, Floor: s.floor}
}

// Stop returns the meta to make durable at an orderly stop.
func (s *State) Stop() Meta {
	return Meta{Incarnation: s.incarnation, Limit: s.limit, Floor: s.floor, Clean: true, Next: s.next}
}

// Meta returns the meta for a lease that ends at to, or for a raised floor.
func (s *State) Meta(to uint64) Meta {
	return Meta{Incarnation: s.incarnation, Limit: max(to, s.limit), Floor: s.floor}
}

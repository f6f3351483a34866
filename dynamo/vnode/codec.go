package vnode

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/dynactor/dynactor/dynamo/version"
)

// Errors of decoding a stored value. Neither means that there is none.
var (
	// ErrChecksum: the bytes are not those that were written under this key.
	ErrChecksum = errors.New("vnode: stored value fails its checksum")
	// ErrFormat: a newer program wrote the value.
	ErrFormat = errors.New("vnode: stored value has an unknown format")
)

// storedFormat is the first byte of every stored value. All formats have the checksum
// of all but itself behind it, so that one that is not known and one that is damaged are
// two things; but not firstFormat, whose checksum leaves out the first byte.
const (
	storedFormat = 2
	firstFormat  = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendStored encodes behind dst what is stored under a storage key: format,
// checksum over the key, the format and all that follows, barred epoch, record.
func AppendStored(dst, key []byte, s Stored) []byte {
	start := len(dst)
	dst = append(dst, storedFormat, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, s.Barred)
	dst = version.Append(dst, s.Record)
	binary.BigEndian.PutUint32(dst[start+1:], storedSum(key, dst[start:start+1], dst[start+5:]))
	return dst
}

// DecodeStored reads what AppendStored wrote under the same storage key. Values
// alias b. Errors are ErrChecksum, ErrFormat and those of version.Decode.
func DecodeStored(key, b []byte) (Stored, error) {
	body, err := verify(key, b)
	if err != nil {
		return Stored{}, err
	}
	barred, n := binary.Uvarint(body)
	if n <= 0 {
		return Stored{}, ErrChecksum
	}
	rec, err := version.Decode(body[n:])
	if err != nil {
		return Stored{}, err
	}
	return Stored{Record: rec, Barred: barred}, nil
}

func storedSum(key, format, body []byte) uint32 {
	return crc32.Update(crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, format), castagnoli, body)
}

// StoredRecord returns the encoded record of a stored value as it is sent to
// coordinators, with values above digestAbove bytes left out (0 leaves none
// out). Without omissions the result aliases b.
func StoredRecord(key, b []byte, digestAbove int) ([]byte, error) {
	if digestAbove > 0 && len(b) > digestAbove {
		s, err := DecodeStored(key, b)
		if err != nil {
			return nil, err
		}
		rec, _ := s.Record.Omit(digestAbove)
		return version.Append(nil, rec), nil
	}
	body, err := verify(key, b)
	if err != nil {
		return nil, err
	}
	_, n := binary.Uvarint(body)
	if n <= 0 {
		return nil, ErrChecksum
	}
	return body[n:], nil
}

// verify checks format and checksum and returns what follows them.
func verify(key, b []byte) ([]byte, error) {
	if len(b) < 6 {
		return nil, ErrChecksum
	}
	format, body, sum := b[:1], b[5:], binary.BigEndian.Uint32(b[1:5])
	if format[0] == firstFormat {
		format = nil
	}
	switch {
	case storedSum(key, format, body) != sum:
		return nil, ErrChecksum
	case b[0] != storedFormat && b[0] != firstFormat:
		return nil, ErrFormat
	}
	return body, nil
}

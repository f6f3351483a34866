package version

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
)

// contextFormat is the first byte of every encoded context.
const contextFormat = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Context is what a client has seen of a key (§ 4.1): a get hands it out, a put
// brings it back and returns the next one. To clients it is opaque bytes.
type Context struct {
	// Clock covers all writes that the client has seen.
	Clock clock.Clock
	// Coordinator is the node that answered fastest; a following put is best
	// sent there (§ 5). Empty when not known.
	Coordinator dynamo.NodeID
}

// IsZero reports whether the client has seen nothing.
func (c Context) IsZero() bool { return c.Clock.Len() == 0 }

// Encode returns the bytes for the client: format, coordinator, clock, and a
// checksum over the key and all of it, so that a context that was cut, altered
// or taken from another key is refused. The zero context has no bytes.
func (c Context) Encode(key dynamo.Key) []byte {
	if c.IsZero() {
		return nil
	}
	out := make([]byte, 0, 32+len(c.Coordinator)+40*c.Clock.Len())
	out = append(out, contextFormat)
	out = binary.AppendUvarint(out, uint64(len(c.Coordinator)))
	out = append(out, c.Coordinator...)
	out = appendClock(out, c.Clock)
	return binary.BigEndian.AppendUint32(out, contextSum(key, out))
}

// DecodeContext reads a context of key; no bytes are the zero context. Errors
// are ErrContextSize, ErrFormat and ErrContext.
func DecodeContext(key dynamo.Key, b []byte) (Context, error) {
	if len(b) == 0 {
		return Context{}, nil
	}
	if len(b) > dynamo.MaxContext {
		return Context{}, ErrContextSize
	}
	body := len(b) - 4
	if body < 1 || contextSum(key, b[:body]) != binary.BigEndian.Uint32(b[body:]) {
		return Context{}, ErrContext
	}
	if b[0] != contextFormat {
		return Context{}, ErrFormat
	}
	r := reader{b: b[1:body]}
	c := Context{Coordinator: dynamo.NodeID(r.take(r.uvarint()))}
	c.Clock = r.clock()
	if r.err != nil || len(r.b) != 0 || c.IsZero() {
		return Context{}, ErrContext
	}
	return c, nil
}

// contextSum covers the length-prefixed bucket and key name, then the body.
func contextSum(key dynamo.Key, body []byte) uint32 {
	var head [binary.MaxVarintLen64]byte
	sum := crc32.Update(0, castagnoli, binary.AppendUvarint(head[:0], uint64(len(key.Bucket))))
	sum = crc32.Update(sum, castagnoli, []byte(key.Bucket))
	sum = crc32.Update(sum, castagnoli, binary.AppendUvarint(head[:0], uint64(len(key.Name))))
	sum = crc32.Update(sum, castagnoli, []byte(key.Name))
	return crc32.Update(sum, castagnoli, body)
}

// Context returns what a reader of the whole record has seen.
func (r Record) Context() Context { return Context{Clock: r.Clock} }

package link

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/dynactor/dynactor/messages"
)

// Kinds of frame: the first byte of the body.
const (
	kindHello     = 1 // the dialler's first frame
	kindWelcome   = 2 // the acceptor's answer: its own hello
	kindRefusal   = 3 // instead of a welcome, or as the last frame of a link
	kindPing      = 4 // 8 bytes that the other end sends back
	kindPong      = 5 // those, and 8 bytes of the answerer's clock
	kindEnvelopes = 6
)

const (
	// headerLen is length and checksum.
	headerLen = 8
	// maxHelloFrame is the longest body while nobody is authenticated.
	maxHelloFrame = 2048
	// readStep is how much memory a body may claim before it has arrived.
	readStep = 256 << 10
	// flagRequest marks an envelope whose sender expects an answer. It is on
	// the wire because a receiver cannot know it of a number it does not know.
	flagRequest = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// beginFrame appends the place of a header and the kind. The frame starts at
// the returned offset.
func beginFrame(dst []byte, kind byte) ([]byte, int) {
	start := len(dst)
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0, kind), start
}

// endFrame fills in the header of the frame that started at start.
func endFrame(dst []byte, start int) []byte {
	body := dst[start+headerLen:]
	binary.BigEndian.PutUint32(dst[start:], uint32(len(body)))
	binary.BigEndian.PutUint32(dst[start+4:], crc32.Checksum(body, castagnoli))
	return dst
}

// appendPing appends a ping frame.
func appendPing(dst []byte, stamp time.Duration) []byte {
	dst, start := beginFrame(dst, kindPing)
	return endFrame(binary.BigEndian.AppendUint64(dst, uint64(stamp)), start)
}

// appendPong appends the answer to a stamp.
func appendPong(dst []byte, stamp uint64, clock time.Duration) []byte {
	dst, start := beginFrame(dst, kindPong)
	dst = binary.BigEndian.AppendUint64(dst, stamp)
	return endFrame(binary.BigEndian.AppendUint64(dst, uint64(clock)), start)
}

// readFrame reads one frame of at most max bytes of body. It returns kind and
// the rest of the body, which is part of the returned buffer; the caller hands
// that buffer in again for the next frame.
func readFrame(r *bufio.Reader, limit int, buf []byte) (byte, []byte, []byte, error) {
	var header [headerLen]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, buf, err
	}
	length := binary.BigEndian.Uint32(header[:])
	if length == 0 {
		return 0, nil, buf, fmt.Errorf("%w: it is empty", ErrFrame)
	}
	if uint64(length) > uint64(limit) {
		return 0, nil, buf, fmt.Errorf("%w: %d bytes, at most %d", ErrFrameTooLong, length, limit)
	}
	body, err := readBody(r, int(length), buf[:0])
	if err != nil {
		return 0, nil, body, err
	}
	if sum := crc32.Checksum(body, castagnoli); sum != binary.BigEndian.Uint32(header[4:]) {
		return 0, nil, body, fmt.Errorf("%w: checksum of %d bytes differs", ErrFrame, length)
	}
	return body[0], body[1:], body, nil
}

// readBody reads length bytes, growing the buffer as they arrive: a length
// alone costs its sender nothing, so it must not cost the reader memory.
func readBody(r io.Reader, length int, buf []byte) ([]byte, error) {
	for len(buf) < length {
		from := len(buf)
		to := length
		if to > cap(buf) {
			to = min(length, max(cap(buf), from+readStep))
			if to > cap(buf) {
				grown := make([]byte, from, min(length, max(to, 2*from)))
				copy(grown, buf)
				buf = grown
			}
		}
		buf = buf[:to]
		if _, err := io.ReadFull(r, buf[from:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return buf, err
		}
	}
	return buf, nil
}

// envelope is one message on the wire. The sender's address is not in it: it
// is the identity of the connection.
type envelope struct {
	number  messages.Number
	request bool
	// ttl is how many milliseconds the sender still waits; 0 is no limit.
	ttl           uint32
	target        []byte
	targetRequest uint32
	// sender is empty if no answer is wanted.
	sender        []byte
	senderRequest uint32
	payload       []byte
}

// appendEnvelope appends an item's envelope with ttl milliseconds left.
func appendEnvelope(dst []byte, it *item, ttl uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(it.number))
	flags := byte(0)
	if it.request {
		flags |= flagRequest
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(ttl))
	dst = appendString(dst, it.target.Id)
	dst = binary.AppendUvarint(dst, uint64(it.target.RequestId))
	dst = appendString(dst, it.sender.GetId())
	dst = binary.AppendUvarint(dst, uint64(it.sender.GetRequestId()))
	dst = binary.AppendUvarint(dst, uint64(len(it.payload)))
	return append(dst, it.payload...)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// parseEnvelope reads the first envelope of b and returns what follows it. The
// envelope's slices are parts of b.
func parseEnvelope(b []byte) (envelope, []byte, error) {
	d := decoder{rest: b}
	var e envelope
	e.number = messages.Number(d.uvarint(1<<16 - 1))
	e.request = d.byte()&flagRequest != 0
	e.ttl = uint32(d.uvarint(1<<32 - 1))
	e.target = d.bytes(MaxActorID)
	e.targetRequest = uint32(d.uvarint(1<<32 - 1))
	e.sender = d.bytes(MaxActorID)
	e.senderRequest = uint32(d.uvarint(1<<32 - 1))
	e.payload = d.bytes(len(b))
	if d.bad {
		return envelope{}, nil, fmt.Errorf("%w: bad envelope with %d bytes left", ErrFrame, len(b))
	}
	return e, d.rest, nil
}

// decoder reads fields and remembers that one of them was bad, so that its
// user asks once. Unknown flag bits and what follows the last field it asks
// for are left to newer versions.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > limit {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) fixed(n int) []byte {
	if len(d.rest) < n {
		d.fail()
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.fixed(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.fixed(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) bytes(limit int) []byte {
	return d.fixed(int(d.uvarint(uint64(limit))))
}

func (d *decoder) fail() { d.bad, d.rest = true, nil }

package messages

import (
	"encoding/hex"
	"math/rand/v2"
)

// TraceContext names a span of a distributed trace (W3C Trace Context). Zero is none.
type TraceContext struct {
	Trace [16]byte
	Span  [8]byte
	// Sampled: whoever made it records it, and so does who takes part.
	Sampled bool
}

// Valid reports whether it is one.
func (c TraceContext) Valid() bool { return c.Trace != [16]byte{} && c.Span != [8]byte{} }

// Child is a new span below this one; without one, it begins a trace.
func (c TraceContext) Child() TraceContext {
	for c.Trace == [16]byte{} {
		random(c.Trace[:])
	}
	for c.Span = [8]byte{}; c.Span == [8]byte{}; {
		random(c.Span[:])
	}
	c.Sampled = true
	return c
}

func random(b []byte) {
	for ; len(b) > 0; b = b[8:] {
		n := rand.Uint64()
		for i := range 8 {
			b[i] = byte(n >> (8 * i))
		}
	}
}

// traceParentSize is the length of a traceparent of version 00.
const traceParentSize = 2 + 1 + 32 + 1 + 16 + 1 + 2

// Header is a traceparent header; nil for none.
func (c TraceContext) Header() []byte {
	if !c.Valid() {
		return nil
	}
	flags := byte(0)
	if c.Sampled {
		flags = 1
	}
	out := append(make([]byte, 0, traceParentSize), "00-"...)
	out = append(hex.AppendEncode(out, c.Trace[:]), '-')
	out = append(hex.AppendEncode(out, c.Span[:]), '-')
	return hex.AppendEncode(out, []byte{flags})
}

// ToTraceContext reads a traceparent header; what is malformed is none. A later version may
// have more after a dash.
func ToTraceContext(header []byte) TraceContext {
	var (
		c              TraceContext
		version, flags [1]byte
	)
	if len(header) < traceParentSize || header[2] != '-' || header[35] != '-' || header[52] != '-' ||
		!unhex(version[:], header[:2]) || !unhex(c.Trace[:], header[3:35]) || !unhex(c.Span[:], header[36:52]) || !unhex(flags[:], header[53:55]) {
		return TraceContext{}
	}
	longer := len(header) > traceParentSize
	if version[0] == 0xff || longer && (version[0] == 0 || header[traceParentSize] != '-') || !c.Valid() {
		return TraceContext{}
	}
	c.Sampled = flags[0]&1 != 0
	return c
}

// unhex decodes lower case only, as the header must have it.
func unhex(dst, src []byte) bool {
	for _, b := range src {
		if b >= 'A' && b <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(dst, src)
	return err == nil
}

package link

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/messages"
)

func reader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }

func drawItem(t *rapid.T) *item {
	id := rapid.StringN(0, 60, MaxActorID)
	return &item{
		number:  messages.Number(rapid.Uint16().Draw(t, "number")),
		request: rapid.Bool().Draw(t, "request"),
		target:  &actor.PID{Id: id.Draw(t, "target"), RequestId: rapid.Uint32().Draw(t, "target request")},
		sender:  &actor.PID{Id: id.Draw(t, "sender"), RequestId: rapid.Uint32().Draw(t, "sender request")},
		payload: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload"),
	}
}

// What goes into a frame comes out of it, whatever it is.
func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var items []*item
		var ttls []uint32
		frame, start := beginFrame(nil, kindEnvelopes)
		for range rapid.IntRange(1, 5).Draw(t, "envelopes") {
			it, ttl := drawItem(t), rapid.Uint32().Draw(t, "ttl")
			items, ttls = append(items, it), append(ttls, ttl)
			before := len(frame)
			frame = appendEnvelope(frame, it, ttl)
			if len(frame)-before > len(it.payload)+envelopeOverhead {
				t.Fatalf("an envelope takes %d bytes besides its payload", len(frame)-before-len(it.payload))
			}
		}
		frame = endFrame(frame, start)
		kind, body, _, err := readFrame(reader(frame), len(frame), nil)
		if err != nil || kind != kindEnvelopes {
			t.Fatalf("kind %d, error %v", kind, err)
		}
		for i, it := range items {
			var e envelope
			if e, body, err = parseEnvelope(body); err != nil {
				t.Fatal(err)
			}
			same := e.number == it.number && e.request == it.request && e.ttl == ttls[i] && string(e.target) == it.target.Id &&
				e.targetRequest == it.target.RequestId && string(e.sender) == it.sender.Id &&
				e.senderRequest == it.sender.RequestId && bytes.Equal(e.payload, it.payload)
			if !same {
				t.Fatalf("envelope %d: %+v became %+v", i, it, e)
			}
		}
		if len(body) != 0 {
			t.Fatalf("%d bytes left", len(body))
		}
	})
}

// One changed bit anywhere is noticed.
func TestFrameDamage(t *testing.T) {
	it := &item{number: 10, target: &actor.PID{Id: "vnode/1"}, sender: &actor.PID{Id: "get/1"}, payload: []byte("payload")}
	frame, start := beginFrame(nil, kindEnvelopes)
	frame = endFrame(appendEnvelope(frame, it, 0), start)
	for bit := range 8 * len(frame) {
		bad := bytes.Clone(frame)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, _, _, err := readFrame(reader(bad), 1<<20, nil); err == nil {
			t.Errorf("bit %d changed and nothing noticed", bit)
		}
	}
	for n := range frame {
		if _, _, _, err := readFrame(reader(frame[:n]), 1<<20, nil); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

// A length is checked before memory is taken, and an allowed one takes memory
// only as bytes arrive.
func TestFrameLengthTakesNoMemory(t *testing.T) {
	header := func(length uint32) []byte { return binary.BigEndian.AppendUint32(nil, length) }
	for _, length := range []uint32{1<<20 + 1, math.MaxInt32, math.MaxUint32} {
		_, _, buf, err := readFrame(reader(append(header(length), 0, 0, 0, 0, kindEnvelopes)), 1<<20, nil)
		if !errors.Is(err, ErrFrameTooLong) || cap(buf) != 0 {
			t.Errorf("length %d: %v, %d bytes taken", length, err, cap(buf))
		}
	}
	if _, _, _, err := readFrame(reader(append(header(0), 0, 0, 0, 0)), 1<<20, nil); !errors.Is(err, ErrFrame) {
		t.Errorf("an empty frame: %v", err)
	}
	arrived := append(header(32<<20), 0, 0, 0, 0, kindEnvelopes, 1, 2, 3)
	_, _, buf, err := readFrame(reader(arrived), 32<<20, nil)
	if !errors.Is(err, io.ErrUnexpectedEOF) || cap(buf) > readStep {
		t.Errorf("%v; 4 bytes of 32 MiB arrived and %d were taken", err, cap(buf))
	}
}

func TestLongBodyIsReadInSteps(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789"), 300<<10)
	frame, start := beginFrame(nil, kindEnvelopes)
	frame = endFrame(append(frame, payload...), start)
	var buf []byte
	for range 2 { // the second time the buffer is there already
		_, body, used, err := readFrame(reader(frame), len(frame), buf)
		if err != nil || !bytes.Equal(body, payload) {
			t.Fatalf("%v, %d bytes of %d", err, len(body), len(payload))
		}
		buf = used
	}
}

func FuzzFrame(f *testing.F) {
	it := &item{number: 10, request: true, target: &actor.PID{Id: "vnode/1"}, sender: &actor.PID{Id: "get/1"}, payload: []byte("x")}
	frame, start := beginFrame(nil, kindEnvelopes)
	f.Add(endFrame(appendEnvelope(frame, it, 500), start))
	f.Add(appendPing(nil, 7))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 6})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, buf, err := readFrame(reader(b), 1<<20, nil)
		if err != nil && cap(buf) > max(2*len(b), readStep) {
			t.Fatalf("%d bytes took %d", len(b), cap(buf))
		}
		// The body alone, as if the checksum had been right.
		for rest := b; len(rest) > 0; {
			e, after, err := parseEnvelope(rest)
			if err != nil {
				return
			}
			if len(after) >= len(rest) {
				t.Fatal("an envelope took no bytes")
			}
			again := appendEnvelope(nil, &item{
				number: e.number, request: e.request, payload: e.payload,
				target: &actor.PID{Id: string(e.target), RequestId: e.targetRequest},
				sender: &actor.PID{Id: string(e.sender), RequestId: e.senderRequest},
			}, e.ttl)
			if f, left, err := parseEnvelope(again); err != nil || len(left) != 0 || !bytes.Equal(f.payload, e.payload) {
				t.Fatalf("what was decoded does not encode: %v", err)
			}
			rest = after
		}
	})
}

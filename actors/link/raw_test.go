package link

import (
	"bufio"
	"net"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/messages"
)

// raw is a hand-driven end of a connection, which does what no Links would.
type raw struct {
	t testing.TB
	net.Conn
	br *bufio.Reader
}

func dialRaw(t testing.TB, address string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &raw{t: t, Conn: c, br: bufio.NewReader(c)}
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// hello is an acceptable one.
func rawHello(id string, role messages.Role, lane uint8) Hello {
	return Hello{
		MinVersion: minVersion, MaxVersion: maxVersion, Role: role, Lane: lane, Start: 1, Sequence: 1,
		Cluster: "test", ClusterID: []byte("cluster-1"), NodeID: id,
	}
}

// greet says hello and returns the kind and body of the answer.
func (r *raw) greet(h Hello) (byte, []byte) {
	r.t.Helper()
	r.write(appendHello(nil, kindHello, &h))
	return r.read()
}

func (r *raw) read() (byte, []byte) {
	r.t.Helper()
	kind, body, _, err := readFrame(r.br, 1<<20, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return kind, body
}

// join makes an accepted connection of a lane.
func join(t testing.TB, address, id string, role messages.Role, lane uint8) *raw {
	t.Helper()
	r := dialRaw(t, address)
	if kind, body := r.greet(rawHello(id, role, lane)); kind != kindWelcome {
		t.Fatalf("answered with kind %d: %s", kind, body)
	}
	return r
}

// closed waits until the other end has closed the connection. Heartbeats may
// come before.
func (r *raw) closed() {
	r.t.Helper()
	for {
		if _, _, _, err := readFrame(r.br, 1<<20, nil); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				r.t.Fatal("the connection was never closed")
			}
			return
		}
	}
}

// envelopes returns the next envelope that arrives.
func (r *raw) envelope() envelope {
	r.t.Helper()
	for {
		kind, body := r.read()
		switch kind {
		case kindEnvelopes:
			e, _, err := parseEnvelope(body)
			if err != nil {
				r.t.Fatal(err)
			}
			return e
		case kindPing:
			r.write(append(appendPong(nil, 0, 0), appendPing(nil, 0)...))
		}
	}
}

// frameOf is a frame with one envelope.
func frameOf(number messages.Number, request bool, to, from string, payload []byte) []byte {
	it := &item{number: number, request: request, target: &actor.PID{Id: to}, payload: payload}
	if from != "" {
		it.sender = &actor.PID{Id: from}
	}
	frame, start := beginFrame(nil, kindEnvelopes)
	return endFrame(appendEnvelope(frame, it, 0), start)
}

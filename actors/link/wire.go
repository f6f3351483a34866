package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/dynactor/dynactor/messages"
)

// readBuffer is what one connection reads ahead. Long frames are read past it,
// straight into their place.
const readBuffer = 16 << 10

// writeStep is how much is given to the socket at once, so that progress can
// be told from a stall.
const writeStep = 256 << 10

// wire is a connection with its read buffer, before and after its hello.
type wire struct {
	net.Conn
	br      *bufio.Reader
	dialled bool

	// idle, once set, is how long a read may wait for the next byte. Setting
	// a deadline costs more than a read of few bytes, so it is renewed only
	// when a quarter of it has passed.
	idle    time.Duration
	renewed time.Time
}

// wrap makes a wire and lists its connection.
func (l *Links) wrap(c net.Conn, dialled bool) *wire {
	w := &wire{Conn: c, dialled: dialled}
	w.br = bufio.NewReaderSize(readerFunc(w.read), readBuffer)
	return w
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func (w *wire) read(b []byte) (int, error) {
	began := time.Now()
	if w.idle > 0 && began.Sub(w.renewed) > w.idle/4 {
		if err := w.SetReadDeadline(began.Add(w.idle)); err != nil {
			return 0, err
		}
		w.renewed = began
	}
	n, err := w.Conn.Read(b)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return n, fmt.Errorf("%w: %w", ErrSilence, err)
	}
	// A process that stood still finds what was sent to it before, and the deadline
	// has had no chance. The peer has given the connection up long ago and has sent it
	// elsewhere; a write that is carried out now would be carried out twice.
	if w.idle > 0 && err == nil && time.Since(began) > w.idle {
		return 0, fmt.Errorf("%w: this process stood still", ErrSilence)
	}
	return n, err
}

// write writes all of b, and fails when the peer takes nothing for stall.
func (w *wire) write(b []byte, stall time.Duration) error {
	for len(b) > 0 {
		if err := w.SetWriteDeadline(time.Now().Add(stall)); err != nil {
			return err
		}
		n, err := w.Conn.Write(b[:min(len(b), writeStep)])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("%w: %w", ErrStalled, err)
			}
			return err
		}
		b = b[n:]
	}
	return nil
}

// own is this end's hello for a lane, to target if it is known.
func (l *Links) own(lane uint8, sequence uint64, target string) Hello {
	return Hello{
		MinVersion: minVersion, MaxVersion: maxVersion,
		Role: l.config.Role, Lane: lane, Start: l.config.Start, Sequence: sequence,
		Cluster: l.config.ClusterName, ClusterID: l.config.clusterID(),
		NodeID: l.config.NodeID, Target: target, Advertise: l.config.Advertise, Store: l.config.Store,
		Process: l.process, Stamp: uint64(l.clock()),
	}
}

// dial connects and, with TLS, shakes hands.
func (l *Links) dial(ctx context.Context, address string) (*wire, error) {
	dialCtx, cancel := context.WithTimeout(ctx, l.config.DialTimeout)
	defer cancel()
	c, err := l.config.Dial(dialCtx, address)
	if err != nil {
		return nil, err
	}
	if !l.track(c) {
		return nil, ErrStopped
	}
	if l.config.TLS == nil {
		return l.wrap(c, true), nil
	}
	t := tls.Client(c, clientTLS(l.config.TLS))
	helloCtx, cancelHello := context.WithTimeout(ctx, l.config.HelloTimeout)
	defer cancelHello()
	if err := t.HandshakeContext(helloCtx); err != nil {
		l.close(c)
		return nil, err
	}
	return l.wrap(t, true), nil
}

// greet says hello on a dialled connection and returns the welcome. A refusal,
// by either end, is an error of type *Refusal.
func (l *Links) greet(ctx context.Context, w *wire, own *Hello) (Hello, error) {
	// Closing is what ends a read or write when the attempt is abandoned.
	stop := context.AfterFunc(ctx, func() { l.closeWire(w) })
	defer stop()
	deadline := time.Now().Add(l.config.HelloTimeout)
	if err := w.SetDeadline(deadline); err != nil {
		return Hello{}, err
	}
	if _, err := w.Write(appendHello(nil, kindHello, own)); err != nil {
		return Hello{}, fmt.Errorf("saying hello: %w", err)
	}
	kind, body, _, err := readFrame(w.br, maxHelloFrame, nil)
	if err != nil {
		return Hello{}, fmt.Errorf("waiting for a welcome: %w (is there a node at %s, and does it use TLS or not as this end does?)", err, w.RemoteAddr())
	}
	switch kind {
	case kindRefusal:
		r, err := parseRefusal(body)
		if err != nil {
			return Hello{}, err
		}
		r.Peer, r.Address = own.Target, w.RemoteAddr().String()
		return Hello{}, r
	case kindWelcome:
	default:
		return Hello{}, fmt.Errorf("%w: a frame of kind %d instead of a welcome", ErrHello, kind)
	}
	their, err := parseHello(body)
	if err != nil {
		return Hello{}, err
	}
	if r := l.judgeWelcome(w, own, &their); r != nil {
		// The acceptor holds the connection for up by now: tell it why not.
		return Hello{}, errors.Join(r, w.refuse(r))
	}
	return their, w.SetDeadline(time.Time{})
}

// judgeWelcome is the dialler's side of judge.
func (l *Links) judgeWelcome(w *wire, own, their *Hello) *Refusal {
	seen := *their
	seen.Target = "" // the acceptor's target is us by construction
	r := judge(own, &seen)
	switch {
	case r != nil:
	case own.Target != "" && their.NodeID != own.Target:
		r = &Refusal{Code: RefusedTarget, Text: fmt.Sprintf("the address belongs to %s, not %s", their.NodeID, own.Target), Ours: true}
	case their.Role != messages.RoleNode:
		r = &Refusal{Code: RefusedRole, Text: "only nodes accept connections", Ours: true}
	default:
		if r = l.authorize(w, their); r == nil {
			r = l.judgeMember(their)
		}
	}
	if r != nil {
		r.Peer, r.Address = their.NodeID, w.RemoteAddr().String()
	}
	return r
}

// refuse writes a refusal; the connection is closed by the caller.
func (w *wire) refuse(r *Refusal) error {
	return w.write(appendRefusal(nil, r), time.Second)
}

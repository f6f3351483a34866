package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// track lists a dialled connection, or closes it if the links are stopping.
func (l *Links) track(c net.Conn) bool {
	l.mu.Lock()
	ok := !l.stopping
	if ok {
		l.open[c] = false
	}
	l.mu.Unlock()
	if !ok {
		l.close(c)
	}
	return ok
}

// admit lists an accepted connection if the limits allow.
func (l *Links) admit(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping || l.accepted >= l.config.MaxConnections || l.greeting >= l.config.MaxUnauthenticated {
		return false
	}
	l.open[c] = true
	l.accepted++
	l.greeting++
	return true
}

// close closes a connection and takes it off the list; again is harmless.
func (l *Links) close(c net.Conn) {
	l.mu.Lock()
	accepted, listed := l.open[c]
	delete(l.open, c)
	if listed && accepted {
		l.accepted--
	}
	l.mu.Unlock()
	// The peer may have closed it before; there is nobody to tell.
	_ = c.Close()
}

// closeWire closes a wire's socket. With TLS too the socket is closed at once:
// a polite end would wait for a peer that does not read.
func (l *Links) closeWire(w *wire) {
	if t, ok := w.Conn.(*tls.Conn); ok {
		l.close(t.NetConn())
		return
	}
	l.close(w.Conn)
}

// closeAll cuts every connection there is.
func (l *Links) closeAll() {
	l.mu.Lock()
	all := make([]net.Conn, 0, len(l.open))
	for c := range l.open {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		l.close(c)
	}
}

// accept takes connections until the listener is closed.
func (l *Links) accept() {
	pause := time.Duration(0)
	for {
		c, err := l.config.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || l.isStopping() {
				return
			}
			// Out of descriptors, most likely: it passes.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.logger.Warn("accepting a connection failed", "error", err, "pause", pause)
			select {
			case <-time.After(pause):
				continue
			case <-l.ended:
				return
			}
		}
		pause = 0
		if !l.admit(c) {
			l.rejected.Add(1)
			_ = c.Close() // over a limit: not worth a word
			continue
		}
		l.accepts.Go(func() { l.meet(c) })
	}
}

func (l *Links) isStopping() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopping
}

// meet reads an accepted connection's hello and hands it to its peer's actor.
func (l *Links) meet(c net.Conn) {
	w, hello, err := l.hear(c)
	l.mu.Lock()
	l.greeting--
	l.mu.Unlock()
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		refusal.Address = c.RemoteAddr().String()
		if werr := w.refuse(refusal); werr != nil {
			l.logger.Debug("refusing failed", "peer", refusal.Peer, "error", werr)
		}
		l.refused(refusal)
		l.close(c)
	case err != nil:
		l.refusals.Add(1)
		l.logger.Debug("no hello", "address", c.RemoteAddr(), "error", err)
		l.close(c)
	case hello.Lane == laneProbe:
		own := l.own(laneProbe, 0, hello.NodeID)
		own.Echo = hello.Stamp
		if err := w.write(appendHello(nil, kindWelcome, &own), l.config.HelloTimeout); err != nil {
			l.logger.Debug("answering a probe failed", "peer", hello.NodeID, "error", err)
		}
		l.close(c)
	default:
		l.tell(&inbound{wire: w, hello: hello})
	}
}

// hear reads and judges a hello. The wire is there even if an error is.
func (l *Links) hear(c net.Conn) (*wire, Hello, error) {
	w := l.wrap(c, false)
	if err := c.SetDeadline(time.Now().Add(l.config.HelloTimeout)); err != nil {
		return w, Hello{}, err
	}
	if l.config.TLS != nil {
		t := tls.Server(c, serverTLS(l.config.TLS))
		if err := t.HandshakeContext(context.Background()); err != nil {
			return w, Hello{}, fmt.Errorf("TLS handshake: %w", err)
		}
		w = l.wrap(t, false)
	}
	kind, body, _, err := readFrame(w.br, maxHelloFrame, nil)
	if err != nil {
		return w, Hello{}, err
	}
	if kind != kindHello {
		return w, Hello{}, fmt.Errorf("%w: the first frame is of kind %d", ErrHello, kind)
	}
	their, err := parseHello(body)
	if err != nil {
		return w, Hello{}, err
	}
	own := l.own(their.Lane, 0, their.NodeID)
	r := judge(&own, &their)
	if r == nil {
		r = l.authorize(w, &their)
	}
	if r == nil {
		r = l.judgeMember(&their)
	}
	if r != nil {
		return w, their, r
	}
	return w, their, nil
}

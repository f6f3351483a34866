package link

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// slowConn gives a byte after a while, whatever its deadline: as to a process that
// stood still meanwhile.
type slowConn struct {
	net.Conn
	after time.Duration
}

func (c slowConn) Read(b []byte) (int, error) {
	time.Sleep(c.after) // of the bubble: no time passes
	b[0] = 7
	return 1, nil
}

func (slowConn) SetReadDeadline(time.Time) error { return nil }

// TestStoodStill: what comes when the time for it is long over is not believed.
func TestStoodStill(t *testing.T) {
	for after, silent := range map[time.Duration]bool{0: false, time.Second: false, 2 * time.Second: false, 7 * time.Second: true} {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{Conn: slowConn{after: after}, idle: 2 * time.Second}
			n, err := w.read(make([]byte, 8))
			if errors.Is(err, ErrSilence) != silent || silent && n != 0 || !silent && (n != 1 || err != nil) {
				t.Errorf("after %v: %d bytes, %v", after, n, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // before the hello another limit holds
		if n, err := (&wire{Conn: slowConn{after: time.Minute}}).read(make([]byte, 8)); n != 1 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

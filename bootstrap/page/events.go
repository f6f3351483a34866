package page

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/dynactor/dynactor/client"
)

const (
	// kept is how many points of the plots a page begins with: the last five minutes.
	kept = 300
	// lookWait is how long one look at the cluster may take.
	lookWait = 4 * time.Second
	// sendWait is how long a browser may take to accept what it is sent.
	sendWait = 5 * time.Second
)

// stream is what all viewers are shown. Page.mu guards it. A viewer that is slow skips
// snapshots, but sees the newest, and the newest ring.
type stream struct {
	watching bool
	viewers  int
	history  []Point
	// snapshot and ring are events; ring was made by the look of that number.
	snapshot, ring []byte
	ringAt         int
	// changed is closed and replaced with each look.
	changed chan struct{}
	looks   int
}

// event is a server-sent event.
func event(name string, data any) ([]byte, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, b), nil
}

// events streams to a browser, until either side ends it.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	if err := p.join(); err != nil {
		p.fail(w, http.StatusServiceUnavailable, err)
		return
	}
	defer p.leave()
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Time{}); err != nil { // the server's is for requests
		p.fail(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	for seen := -1; ; {
		b, changed, at := p.since(seen)
		if err := send(c, w, b); err != nil {
			p.config.Log.Debug("http client went away", slog.Any("error", err))
			return
		}
		seen = at
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-p.life.Done():
			return
		}
	}
}

func send(c *http.ResponseController, w http.ResponseWriter, b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(sendWait)); err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return c.Flush()
}

// since is what a viewer has to be sent that has seen so many looks, -1 none, and what is
// closed when there is more.
func (p *Page) since(seen int) (b []byte, changed <-chan struct{}, at int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.stream
	if seen < 0 {
		history, err := event("history", append([]Point{}, s.history...))
		if err != nil { // numbers that are no numbers
			p.config.Log.Error("page", slog.Any("error", err))
		}
		b = append(b, history...)
	}
	if s.ringAt > seen {
		b = append(b, s.ring...)
	}
	if s.looks > seen {
		b = append(b, s.snapshot...)
	}
	return b, s.changed, s.looks
}

// join adds a viewer; with the first one the node begins to look.
func (p *Page) join() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream.viewers >= maxViewers {
		return fmt.Errorf("%d pages are open already", maxViewers)
	}
	c, err := p.use()
	if err != nil {
		return err
	}
	p.stream.viewers++
	if !p.stream.watching {
		p.stream.watching = true
		p.users++
		p.wg.Add(1)
		go p.watch(c)
	}
	return nil
}

// leave is the end of a viewer.
func (p *Page) leave() {
	p.mu.Lock()
	p.stream.viewers--
	p.mu.Unlock()
	p.release()
}

// watch looks at the cluster as long as somebody watches.
func (p *Page) watch(c *client.Client) {
	defer p.release()
	l := looker{self: p.config.Self, cluster: c.Cluster()}
	tick := time.NewTicker(p.config.Every)
	defer tick.Stop()
	for p.watched() {
		ctx, cancel := context.WithTimeout(p.life, lookWait)
		s, r := l.look(ctx, time.Now())
		cancel()
		if err := p.publish(s, r); err != nil {
			p.config.Log.Error("page", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-p.life.Done():
			return
		}
	}
}

// watched reports whether somebody watches, and forgets what was for those who did.
func (p *Page) watched() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream.viewers > 0 {
		return true
	}
	p.stream = stream{changed: p.stream.changed}
	return false
}

// publish tells all viewers.
func (p *Page) publish(s Snapshot, r *Ring) error {
	snapshot, err := event("snapshot", s)
	if err != nil {
		return err
	}
	var drawn []byte
	if r != nil {
		if drawn, err = event("ring", r); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	to := &p.stream
	to.history = append(to.history[max(0, len(to.history)+1-kept):], s.Sum)
	to.snapshot = snapshot
	to.looks++
	if r != nil && !bytes.Equal(drawn, to.ring) {
		to.ring, to.ringAt = drawn, to.looks
	}
	close(to.changed)
	to.changed = make(chan struct{})
	return nil
}

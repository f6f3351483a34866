package sim

import (
	"math"
	"time"

	"github.com/dynactor/dynactor/dynamo/request"
)

// network carries messages between endpoints: the nodes by their index, and
// behind them the clients.
type network struct {
	c *cluster
	// cut holds since when nothing passes from one endpoint to another, -1 for
	// a link that is whole; clogged until when messages are held up; last when
	// the last message arrives, for links that keep the order.
	cut, clogged, last [][]time.Duration
}

const whole = time.Duration(-1)

func newNetwork(c *cluster, endpoints int) *network {
	w := &network{c: c}
	for range endpoints {
		row := make([]time.Duration, endpoints)
		for i := range row {
			row[i] = whole
		}
		w.cut = append(w.cut, row)
		w.clogged = append(w.clogged, make([]time.Duration, endpoints))
		w.last = append(w.last, make([]time.Duration, endpoints))
	}
	return w
}

func (w *network) isCut(from, to int) bool { return w.cut[from][to] != whole }

func (w *network) setCut(from, to int, on bool) {
	switch {
	case !on:
		w.cut[from][to] = whole
		w.c.wakeHandoffs()
	case w.cut[from][to] == whole:
		w.cut[from][to] = w.c.now
	}
}

// known reports whether the sender's link to an endpoint is known to be down:
// messages come back instead of being lost.
func (w *network) known(from, to int) bool {
	detect := w.c.plan.net.detect
	// A link is one connection: a cut in either direction breaks it.
	for _, since := range []time.Duration{w.cut[from][to], w.cut[to][from]} {
		if since != whole && w.c.now-since >= detect {
			return true
		}
	}
	if to < len(w.c.nodes) {
		n := w.c.nodes[to]
		return !n.up && w.c.now-n.downSince >= detect
	}
	return false
}

// cutSince is since when nothing passes between two endpoints in one of the directions.
func (w *network) cutSince(a, b int) time.Duration {
	return max(w.cut[a][b], w.cut[b][a])
}

// send carries a message: arrive is run at the other end, never, once, or
// twice. undelivered, if not nil, is run at the sender when the message
// certainly was not sent.
func (w *network) send(from, to int, arrive func(), undelivered func(request.Reason)) {
	if w.sendOnce(from, to, arrive, undelivered) && chance(w.c.random.net, w.c.plan.net.twice) {
		w.carry(from, to, arrive)
	}
}

// sendOnce is send for messages that a connection never doubles: clients'
// requests, whose repetition would be a retry. It reports whether the message
// left for another endpoint.
func (w *network) sendOnce(from, to int, arrive func(), undelivered func(request.Reason)) bool {
	r, p := w.c.random.net, &w.c.plan.net
	if from == to {
		w.c.after(w.local(), arrive)
		return false
	}
	if w.known(from, to) {
		if undelivered != nil {
			w.c.after(w.local(), func() { undelivered(request.Unreachable) })
		}
		return false
	}
	lost := chance(r, p.loss)
	if w.isCut(from, to) || lost && !w.c.calm {
		w.c.tracef("lost %s -> %s", w.c.name(from), w.c.name(to))
		return false
	}
	w.carry(from, to, arrive)
	return true
}

func (w *network) carry(from, to int, arrive func()) {
	r, p := w.c.random.net, &w.c.plan.net
	d := p.least + time.Duration(min(r.ExpFloat64(), 20)*float64(p.mean))
	if p.late > 0 && !w.c.calm && chance(r, p.late) {
		d += scale(2*r.Float64(), w.c.plan.heal.life)
	}
	at := max(w.c.now+d, w.clogged[from][to])
	if p.inOrder {
		at = max(at, w.last[from][to]+1)
		w.last[from][to] = at
	}
	w.c.after(at-w.c.now, arrive)
}

// local is how long a message takes inside a node.
func (w *network) local() time.Duration {
	return time.Duration(math.Sqrt(w.c.random.net.Float64()) * float64(20*time.Microsecond))
}

// heal makes all links whole and free.
func (w *network) heal() {
	for i := range w.cut {
		for j := range w.cut[i] {
			w.cut[i][j], w.clogged[i][j] = whole, 0
		}
	}
	w.c.wakeHandoffs()
}

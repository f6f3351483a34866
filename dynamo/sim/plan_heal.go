package sim

import (
	"math/rand/v2"
	"time"

	"github.com/dynactor/dynactor/dynamo/reap"
)

// healPlan is how a cluster heals itself and forgets; zero in a run in which it does
// neither.
type healPlan struct {
	// interval is how often two replicas are compared.
	interval time.Duration
	// life is reap.MessageLife, pause reap.Pause, and skew reap.Skew, all scaled down so
	// that reapings end within a run; 0: nothing is reaped.
	life, pause, skew time.Duration
	// turn is how long the clients use a third of the keys before they leave them alone
	// for twice as long.
	turn time.Duration
	// ttl is the share of writes that expire, within life.
	ttl float64
	// restores is the mean time between two restores of an old backup; 0: never.
	restores time.Duration
}

// heals reports whether replicas are compared in the run.
func (p *plan) heals() bool { return p.heal.interval > 0 }

// reaps reports whether tombstones are reaped in the run.
func (p *plan) reaps() bool { return p.heal.life > 0 }

// rots reports whether stored values are harmed behind the system's back.
func (p *plan) rots() bool {
	return p.fault.weights[faultCorrupt]+p.fault.weights[faultForget] > 0
}

// drawHeal has the replicas of a plan compared, and in most of them tombstones reaped.
func drawHeal(p *plan, r *rand.Rand) {
	drawCompare(p, r)
	if chance(r, 0.75) {
		drawReap(p, r)
	}
}

func drawCompare(p *plan, r *rand.Rand) {
	p.heal.interval = between(r, 150*time.Millisecond, 1500*time.Millisecond)
	p.queue, p.inFlight = 64, 64
}

func drawReap(p *plan, r *rand.Rand) {
	h := &p.heal
	// The clients' requests end within a third of a message's life, as those of real
	// ones do, so that no write is carried out again after its key was reaped.
	h.life = 200*time.Millisecond + between(r, 0, 600*time.Millisecond)
	h.pause = scale(float64(reap.Pause)/float64(reap.MessageLife), h.life)
	h.turn = h.pause + scale(2*r.Float64(), h.pause)
	h.ttl = 0.3 * r.Float64()
	p.fault.skew = min(p.fault.skew, between(r, 0, 100*time.Millisecond))
	h.skew = 4 * p.fault.skew
	p.net.mean, p.net.loss = min(p.net.mean, 3*time.Millisecond), min(p.net.loss, 0.03)
	if p.net.inOrder = chance(r, 0.2); !p.net.inOrder {
		p.net.late = 0.06 * r.Float64()
	}
	l := &p.load
	l.timeout = (h.life * 2 / 7).Truncate(time.Millisecond)
	l.keys, l.operations, l.clients = 4+r.IntN(8), 300+r.IntN(300), 2+r.IntN(4)
	l.think = between(r, 15*time.Millisecond, 60*time.Millisecond)
	l.puts, l.deletes, l.updates, l.undo, l.blind, l.old = 0.15, 0.1, 0.45, 0.6, 0.2, 0.25
	p.fault.every = max(p.fault.every, between(r, 200*time.Millisecond, 2*time.Second))
	if p.moves() {
		p.move.every = max(p.move.every, h.pause+scale(3*r.Float64(), h.pause))
		if p.fault.weights[faultWipe] > 0 && p.move.ruins == 0 && chance(r, 0.5) {
			h.restores = 2 * time.Second
		}
		return
	}
	for _, k := range []faultKind{faultCorrupt, faultForget} {
		p.fault.weights[k] = min(p.fault.weights[k], 0.3)
	}
}

// drawKey picks the key of a client's next operation.
func (c *cluster) drawKey(r *rand.Rand) *keyInfo {
	if !c.plan.reaps() {
		return &c.keys[r.IntN(len(c.keys))]
	}
	third, count := int(c.now/c.plan.heal.turn)%3, len(c.keys)
	return &c.keys[third+3*r.IntN((count+2-third)/3)]
}

// drawTTL draws the time to live of a client's write; 0: the bucket's.
func (c *cluster) drawTTL() time.Duration {
	h := &c.plan.heal
	if !c.plan.reaps() || c.calm || !chance(c.random.heal, h.ttl) {
		return 0
	}
	return between(c.random.heal, 20*time.Millisecond, h.life).Truncate(time.Millisecond)
}

// timely is what a client's request has done where it arrives, as long as whoever sent
// it waits: nodes measure how long a request was under way.
func (c *cluster) timely(wait time.Duration, take func()) func() {
	until := c.now + wait
	return func() {
		if !c.plan.reaps() || c.now <= until {
			take()
		}
	}
}

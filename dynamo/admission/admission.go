// Package admission decides how much of a node background work gets (paper § 6.5:
// the admission controller that hands time slices to background tasks, by feedback
// from what foreground requests experience).
//
// Work is done in slices: a worker asks for one, does a bounded piece of work, and
// says how long it took. A few run at once, and all together take a share of the time
// that they could, and the share follows the latency of clients' requests: it falls when their 99th
// percentile while slices are handed out is more than Limit times that while none
// are, and rises again when it is not. To know the latter while there is much to do,
// all work rests for a while in each cycle; on all nodes at the same time, as far as
// their clocks agree, for the work of one is felt by the requests of others. The two
// are compared side by side, so whatever else makes requests slow counts in both. A
// queue that is full counts as late, at once.
//
// The share never falls below a floor, so healing does not starve; when there are
// too few requests to tell, nobody is harmed, and slices may take all the time.
package admission

import (
	"fmt"
	"slices"
	"time"
)

// Config has the limits. Default gives those of a node.
type Config struct {
	// Floor is the least share, Start that which work begins with whose harm is not
	// known yet.
	Floor, Start float64
	// Limit is how many times its 99th percentile without slices that with them may be.
	Limit float64
	// Cycle is how long one comparison takes, Rest the part of it without slices.
	Cycle, Rest time.Duration
	// Enough is how many requests of each kind it takes to compare.
	Enough float64
	// Parallel is how many slices are handed out at once, and Longest how long one may
	// take before its worker is taken for lost.
	Parallel int
	Longest  time.Duration
}

// Default is what a node uses.
func Default() Config {
	return Config{Floor: 0.05, Start: 0.1, Limit: 1.25, Cycle: 5 * time.Second, Rest: time.Second, Enough: 100, Parallel: 2, Longest: 30 * time.Second}
}

const (
	// In one cycle the share falls to so much of what it was, or rises to that much
	// and a little.
	fall, rise, little = 0.6, 1.25, 0.02
	// memory is how much of what was counted is kept for the next cycle.
	memory = 0.5
	// burst is what unused slices are saved up to: little, for a few requests that meet
	// many slices at once are what the 99th percentile shows.
	burst = 20 * time.Millisecond
	// debt is the most that is made up for: a slice waits for other nodes, too, and all
	// must not starve because one is slow.
	debt = time.Second
	// fading is how much of the recent requests is kept at a tick; with fewer than few
	// of them nobody is harmed.
	fading, few = 0.8, 20
)

// Worker names who works.
type Worker string

// Event is what happened: Want, Done, Gone or Tick.
type Event interface{ event() }

type (
	// Want asks for a slice; one at a time.
	Want struct{ Worker Worker }
	// Done ends a slice that took so long.
	Done struct {
		Worker Worker
		Took   time.Duration
	}
	// Gone: the worker ended, with a slice or without.
	Gone struct{ Worker Worker }
	// Tick has what clients' requests took since the last tick, how many this node
	// took part in, for whichever coordinator, and how many were refused because a
	// queue was full. Ticks come several times in a Rest.
	Tick struct {
		Requests Histogram
		Served   int
		Refused  int
	}
)

func (Want) event() {}
func (Done) event() {}
func (Gone) event() {}
func (Tick) event() {}

// Grant is the effect: the worker may do one slice.
type Grant struct{ Worker Worker }

// Controller hands out slices. It belongs to one goroutine.
type Controller struct {
	config  Config
	share   float64
	why     string
	now     time.Duration
	credit  time.Duration
	waiting []Worker
	working map[Worker]time.Duration // since when
	// cycle is the number of the cycle; quiet and busy are the requests without and with
	// slices, worked says that slices were handed out in this cycle.
	cycle       int64
	quiet, busy Histogram
	worked      bool
	late        bool
	refused     bool
	recent      float64
	used        time.Duration // by slices, in this cycle
	last        time.Duration // used in the cycle before
	changed     time.Duration // when the share did
}

// New makes a controller. Zero values of the configuration
// take the defaults.
func New(c Config) *Controller {
	d := Default()
	for _, x := range []struct{ v, d *float64 }{{&c.Floor, &d.Floor}, {&c.Start, &d.Start}, {&c.Limit, &d.Limit}, {&c.Enough, &d.Enough}} {
		if *x.v == 0 {
			*x.v = *x.d
		}
	}
	if c.Cycle == 0 {
		c.Cycle, c.Rest = d.Cycle, d.Rest
	}
	if c.Parallel == 0 {
		c.Parallel = d.Parallel
	}
	if c.Longest == 0 {
		c.Longest = d.Longest
	}
	return &Controller{config: c, share: max(c.Start, c.Floor), why: "nothing was measured yet", working: map[Worker]time.Duration{}}
}

// Step takes an event at a time since a beginning that all nodes share, and says
// which slices are handed out. A clock that is set only disturbs a cycle.
func (c *Controller) Step(now time.Duration, e Event) []Grant {
	passed := min(max(0, now-c.now), c.config.Cycle)
	c.now = now
	most := burst // and what slices under way will cost
	for _, since := range c.working {
		most += max(0, now-since)
	}
	c.credit = min(most, c.credit+time.Duration(float64(passed)*c.allowed()*float64(c.config.Parallel)))
	switch e := e.(type) {
	case Want:
		if _, has := c.working[e.Worker]; !has && !slices.Contains(c.waiting, e.Worker) {
			c.waiting = append(c.waiting, e.Worker)
		}
	case Done:
		if _, has := c.working[e.Worker]; has {
			c.spend(e.Worker, e.Took)
		}
	case Gone:
		if since, has := c.working[e.Worker]; has {
			c.spend(e.Worker, max(0, now-since))
		}
		c.waiting = slices.DeleteFunc(c.waiting, func(w Worker) bool { return w == e.Worker })
	case Tick:
		c.tick(e)
	}
	return c.grant()
}

// spend ends a worker's slice, which took so long.
func (c *Controller) spend(w Worker, took time.Duration) {
	delete(c.working, w)
	c.credit = max(c.credit-took, -debt)
	c.used += took
}

// grant hands slices to those who have waited longest, as long as there is credit.
func (c *Controller) grant() []Grant {
	var out []Grant
	for len(c.waiting) > 0 && len(c.working) < c.config.Parallel && c.credit > 0 && !c.resting() {
		w := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.working[w] = c.now
		c.worked = true
		out = append(out, Grant{w})
	}
	return out
}

// Wake is after how long a slice may be handed out to one who waits; false if that
// depends on something else.
func (c *Controller) Wake() (after time.Duration, ok bool) {
	switch {
	case len(c.waiting) == 0 || len(c.working) >= c.config.Parallel:
		return 0, false
	case c.resting():
		return c.config.Rest - c.now%c.config.Cycle, true
	}
	return time.Duration(float64(-c.credit)/(c.allowed()*float64(c.config.Parallel))) + 10*time.Microsecond, true
}

// resting reports whether this is the part of the cycle without slices. There is none
// where nothing is decided.
func (c *Controller) resting() bool {
	return !c.alone() && c.config.Floor < 1 && c.now%c.config.Cycle < c.config.Rest
}

// alone reports whether there are too few requests to harm.
func (c *Controller) alone() bool { return c.recent < few }

// allowed is the share that slices may take now.
func (c *Controller) allowed() float64 {
	if c.alone() {
		return 1
	}
	return c.share
}

// tick counts requests on the side they belong to and, at the end of a cycle,
// decides.
func (c *Controller) tick(t Tick) {
	c.recent = fading*c.recent + t.Requests.Count() + float64(t.Served)
	switch {
	case c.worked:
		c.busy.add(&t.Requests)
	case !c.late: // else they met slices that began before the rest
		c.quiet.add(&t.Requests)
	}
	c.late = len(c.working) > 0
	c.worked = c.worked || c.late && !c.resting()
	if t.Refused > 0 && !c.refused {
		c.refused = true
		c.set(c.share*fall, fmt.Sprintf("%d requests found a queue full", t.Refused))
	}
	if int64(c.now/c.config.Cycle) == c.cycle {
		return
	}
	for w, since := range c.working {
		if c.now-since > c.config.Longest || since > c.now {
			delete(c.working, w)
		}
	}
	if !c.refused {
		c.decide()
	}
	c.cycle, c.refused, c.worked = int64(c.now/c.config.Cycle), false, false
	c.last, c.used = c.used, 0
	c.quiet.fade(memory)
	c.busy.fade(memory)
}

// decide compares the requests of the two sides.
func (c *Controller) decide() {
	switch {
	case !c.worked && len(c.waiting) == 0:
		c.set(min(c.share, c.config.Start), "nothing was done")
		return
	case c.busy.Count() < c.config.Enough, c.quiet.Count() < c.config.Enough:
		return // not known yet
	}
	with, without := c.busy.Percentile(0.99), c.quiet.Percentile(0.99)
	why := fmt.Sprintf("99 of 100 requests take %v with it and %v without", with, without)
	if float64(with) > c.config.Limit*float64(without) {
		c.set(c.share*fall, why)
		return
	}
	c.set(rise*c.share+little, why)
}

func (c *Controller) set(share float64, why string) {
	if share = min(max(share, c.config.Floor), 1); share != c.share {
		c.share, c.changed = share, c.now
	}
	c.why = why
}

// Status is how a controller stands.
type Status struct {
	// Share is the part of the time that slices may take, 1 when as many as may run at
	// once always do, Used what they took in the last cycle, and Why is why the share is what it is.
	Share, Used float64
	Why         string
	// Working have a slice, Waiting wait for one, longest first.
	Working, Waiting []Worker
	// With and Without are the 99th percentiles of requests.
	With, Without time.Duration
	// Floor is what the share never falls below, Parallel how many may work at once.
	Floor    float64
	Parallel int
	// Changed is when the share was set to what it is, 0 if it never was.
	Changed time.Duration
}

// Status says how it stands.
func (c *Controller) Status() Status {
	s := Status{
		Share: c.allowed(), Used: float64(c.last) / float64(c.config.Cycle) / float64(c.config.Parallel), Why: c.why, Waiting: slices.Clone(c.waiting),
		With: c.busy.Percentile(0.99), Without: c.quiet.Percentile(0.99), Floor: c.config.Floor, Parallel: c.config.Parallel, Changed: c.changed,
	}
	if c.alone() {
		s.Why = "there are few requests that it could harm"
	}
	for w := range c.working {
		s.Working = append(s.Working, w)
	}
	slices.Sort(s.Working)
	return s
}

package admission

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestHistogram(t *testing.T) {
	var h Histogram
	if h.Percentile(0.99) != 0 {
		t.Fatal("a percentile of nothing")
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		d := time.Duration(r.Int64N(int64(20*time.Second))) >> r.IntN(24)
		i := Bucket(d)
		if b := bound(i); d > b && i < Buckets-1 || i > 0 && d < bound(i-1) {
			t.Fatalf("%v is in bucket %d, up to %v, from %v", d, i, b, bound(i-1))
		}
	}
	for i := 1; i < Buckets; i++ {
		if a, b := bound(i-1), bound(i); b <= a || float64(b) > 1.126*float64(a) {
			t.Fatalf("bucket %d is from %v to %v", i, a, b)
		}
	}
	for i := range 1000 {
		h[Bucket(time.Duration(i)*ms)]++
	}
	for share, want := range map[float64]time.Duration{0.5: 500 * ms, 0.99: 990 * ms, 1: 999 * ms} {
		if got := h.Percentile(share); got < want || float64(got) > 1.13*float64(want) {
			t.Errorf("%v of 0 to 999 ms is %v, want about %v", share, got, want)
		}
	}
}

func TestSlices(t *testing.T) {
	type step struct {
		at    time.Duration
		event Event
		want  string
	}
	for name, steps := range map[string][]step{
		"who waits longest is first":     {{1000 * ms, Want{"a"}, "a"}, {1001 * ms, Want{"b"}, "b"}, {1002 * ms, Want{"c"}, ""}, {1003 * ms, Want{"d"}, ""}, {1004 * ms, Done{"b", 0}, "c"}, {1005 * ms, Done{"a", 0}, "d"}},
		"asking twice is asking once":    {{1000 * ms, Want{"a"}, "a"}, {1001 * ms, Want{"a"}, ""}, {1002 * ms, Done{"a", 0}, ""}},
		"what took long is made up for":  {{1000 * ms, Want{"a"}, "a"}, {1050 * ms, Done{"a", 200 * ms}, ""}, {1060 * ms, Want{"a"}, ""}, {1350 * ms, Tick{}, ""}, {1370 * ms, Tick{}, "a"}},
		"one that ends gives way":        {{1000 * ms, Want{"a"}, "a"}, {1001 * ms, Want{"b"}, "b"}, {1002 * ms, Want{"c"}, ""}, {1003 * ms, Want{"d"}, ""}, {1004 * ms, Gone{"c"}, ""}, {1005 * ms, Gone{"a"}, "d"}, {1006 * ms, Done{"a", time.Hour}, ""}, {1007 * ms, Want{"e"}, ""}, {1008 * ms, Done{"b", 0}, "e"}},
		"all rest at the same time":      {{1900 * ms, Want{"a"}, "a"}, {2000 * ms, Done{"a", 0}, ""}, {2001 * ms, Want{"a"}, ""}, {2499 * ms, Tick{}, ""}, {2500 * ms, Tick{}, "a"}},
		"a clock that is set is no harm": {{9000 * ms, Want{"a"}, "a"}, {1000 * ms, Done{"a", 0}, ""}, {1001 * ms, Want{"a"}, "a"}, {time.Hour + time.Second, Done{"a", 0}, ""}, {time.Hour + time.Second, Want{"a"}, "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := New(Config{Floor: 0.25, Start: 0.25, Cycle: 2 * time.Second, Rest: 500 * ms})
			var many Tick
			many.Requests[20] = 1000
			c.Step(900*ms, many)
			for _, s := range steps {
				got := []string{}
				for _, g := range c.Step(s.at, s.event) {
					got = append(got, string(g.Worker))
				}
				if strings.Join(got, " ") != s.want {
					t.Fatalf("at %v %+v: granted %q, want %q", s.at, s.event, got, s.want)
				}
				if after, ok := c.Wake(); ok {
					early, late := *c, *c
					early.working, late.working = maps.Clone(c.working), maps.Clone(c.working)
					if len(early.Step(s.at+after-ms, Gone{})) > 0 || len(late.Step(s.at+after, Gone{})) == 0 {
						t.Fatalf("at %v %+v: the next slice is not %v later", s.at, s.event, after)
					}
				}
			}
		})
	}
}

// plant is a node whose requests take longer the more of the time slices take.
type plant struct {
	c        *Controller
	r        *rand.Rand
	now      time.Duration
	requests int     // in a tick
	harm     float64 // how many times longer with slices all the time
	noise    float64
	used     time.Duration
	granted  bool
}

// run lets time pass, in ticks of 100 ms, for a worker that always has something to
// do in slices of a millisecond.
func (p *plant) run(lasts time.Duration) {
	for end := p.now + lasts; p.now < end; {
		used := time.Duration(0)
		for range 100 {
			p.now += ms
			if p.granted {
				p.used, used, p.granted = p.used+ms, used+ms, false
				p.c.Step(p.now, Done{"w", ms})
			}
			p.granted = len(p.c.Step(p.now, Want{"w"})) > 0
		}
		var t Tick
		for range p.requests {
			slow := 1 + p.harm*float64(used)/float64(100*ms) + p.noise*p.r.Float64()
			t.Requests[Bucket(time.Duration(slow*float64(4*ms)*(0.5+p.r.Float64()/2)))]++
		}
		if len(p.c.Step(p.now, t)) > 0 {
			p.granted = true
		}
	}
}

func newPlant(requests int, harm, noise float64) *plant {
	return &plant{c: New(Config{}), r: rand.New(rand.NewPCG(1, 2)), requests: requests, harm: harm, noise: noise}
}

// TestShareFollowsLatency: the share settles where requests take about as much longer
// as is allowed, whatever else makes them slow, and comes back when the harm is gone.
func TestShareFollowsLatency(t *testing.T) {
	for _, noise := range []float64{0, 3} {
		p := newPlant(200, 1, noise)
		p.run(5 * time.Minute)
		began, used := p.now, p.used
		p.run(5 * time.Minute)
		share := float64(p.used-used) / float64(p.now-began)
		// 1.25 times is a quarter of the time where nothing else is slow, and all of it
		// where requests take up to four times as long anyway.
		if least, most := 0.12*(1+noise), 0.35*(1+noise); share < least || share > most {
			t.Errorf("noise %v: slices take %.3f of the time, want %.3f to %.3f; %+v", noise, share, least, most, p.c.Status())
		}
		p.harm = 0
		p.run(2 * time.Minute)
		if s := p.c.Status(); s.Share != 1 {
			t.Errorf("noise %v: the share is %v two minutes after the harm has ended: %s", noise, s.Share, s.Why)
		}
		p.harm = 1000
		p.run(2 * time.Minute)
		if s := p.c.Status(); s.Share > 3*Default().Floor {
			t.Errorf("noise %v: the share is %v with great harm: %s", noise, s.Share, s.Why)
		}
		used = p.used
		p.run(time.Minute)
		if share := float64(p.used-used) / float64(time.Minute); share < 0.7*Default().Floor {
			t.Errorf("noise %v: slices starve, they take %v", noise, share)
		}
	}
}

func TestNobodyToHarm(t *testing.T) {
	p := newPlant(0, 0, 0)
	p.run(2 * time.Minute)
	if s := p.c.Status(); s.Share != 1 || s.Used < 0.3 || len(s.Working)+len(s.Waiting) > 1 {
		t.Errorf("%+v", s)
	}
	p.requests = 200
	p.run(20 * time.Second)
	before := p.c.Status().Share
	p.c.Step(p.now, Tick{Refused: 3})
	if s := p.c.Status(); s.Share >= before || !strings.Contains(s.Why, "3 requests found a queue full") {
		t.Errorf("a queue was full: %+v", s)
	}
	after := p.c.Status().Share
	p.c.Step(p.now, Tick{Refused: 3})
	if s := p.c.Status(); s.Share != after {
		t.Errorf("the share falls twice in a cycle: %v, then %v", after, s.Share)
	}
}

// TestNeverMoreThanTheShare: in any stretch of time slices begin only while there is
// credit for them.
func TestNeverMoreThanTheShare(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := New(Config{Floor: 1.0 / 15, Start: 1.0 / 15, Parallel: 3})
		c.recent = 1000
		working := map[Worker]time.Duration{} // until when
		var now, used, longest time.Duration
		for now < time.Minute {
			now += time.Duration(r.Int64N(int64(20 * ms)))
			w := Worker(fmt.Sprint(r.IntN(6)))
			var e Event = Want{w}
			if began, ok := working[w]; ok {
				e = Done{w, now - began}
				used, longest = used+now-began, max(longest, now-began)
				delete(working, w)
			}
			for _, g := range c.Step(now, e) {
				if _, ok := working[g.Worker]; ok || len(working) == 3 || c.resting() {
					t.Fatalf("seed %d, %v: %s has a slice with %v", seed, now, g.Worker, working)
				}
				working[g.Worker] = now
			}
		}
		if most := time.Duration(0.2*float64(now)) + burst + 3*longest; used > most || used < most/4 {
			t.Errorf("seed %d: slices took %v of %v, at most %v is right", seed, used, now, most)
		}
	}
}

// TestLongSlices: slices that outlast the rest, as on a slow disk, do not hide how
// requests are without any.
func TestLongSlices(t *testing.T) {
	for _, slice := range []time.Duration{50 * ms, 400 * ms, 1100 * ms} {
		c, begun := New(Config{}), map[Worker]time.Duration{}
		for now := 10 * ms; now < 5*time.Minute; now += 10 * ms {
			step := func(e Event) {
				for _, g := range c.Step(now, e) {
					begun[g.Worker] = now
				}
			}
			for _, w := range []Worker{"a", "b"} {
				if at, has := begun[w]; has && now-at >= slice {
					delete(begun, w)
					step(Done{w, now - at})
				}
				if _, has := begun[w]; !has {
					step(Want{w})
				}
			}
			if now%(200*ms) == 100*ms {
				var t Tick
				t.Requests[Bucket(4*ms*time.Duration(1+99*min(1, len(begun))))] = 200
				step(t)
			}
		}
		if s := c.Status(); s.Share > 2*Default().Floor {
			t.Errorf("slices of %v: requests take a hundred times as long with them, and their share is %+v", slice, s)
		}
	}
}

// TestSlowSliceStarvesNobody: one that waited for another node for long does not cost
// all others as much.
func TestSlowSliceStarvesNobody(t *testing.T) {
	for _, end := range []Event{Done{"a", 25 * time.Second}, Gone{"a"}} {
		c := New(Config{Start: Default().Floor})
		c.recent = 1000
		c.Step(time.Second, Want{"a"})
		c.Step(26*time.Second, end)
		if got := c.Step(26*time.Second, Want{"b"}); len(got) > 0 {
			t.Fatalf("%+v is not made up for", end)
		}
		if after, ok := c.Wake(); !ok || after > 15*time.Second {
			t.Errorf("after %+v the next slice is %v later, %v", end, after, ok)
		}
	}
}

// TestReplicasAreNotAlone: a node that coordinates nothing and serves others harms
// requests, too.
func TestReplicasAreNotAlone(t *testing.T) {
	c := New(Config{})
	c.Step(time.Second, Tick{Served: 1000})
	if s := c.Status(); s.Share != Default().Start {
		t.Errorf("%+v", s)
	}
}

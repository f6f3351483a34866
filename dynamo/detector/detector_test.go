package detector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

const ms = time.Millisecond

// plain is a configuration with round numbers.
func plain() Config {
	return Config{
		Misses:     3,
		ProbePause: 100 * ms, ProbePauseMax: 400 * ms, ProbeTimeout: 50 * ms,
		FlapWindow: time.Minute, FlapPause: time.Second, FlapPauseMax: 4 * time.Second,
		SlowFactor: 4, SlowFloor: 20 * ms, SlowProbe: 500 * ms,
	}
}

// show writes effects as words.
func show(effects []Effect) string {
	var out []string
	for _, e := range effects {
		switch e := e.(type) {
		case Probe:
			out = append(out, fmt.Sprintf("probe %s %d", e.Node, e.Number))
		case Changed:
			s := fmt.Sprintf("%s %v", e.Node, e.Opinion)
			if e.Slow {
				s += " slow"
			}
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}

// step is one event of a scenario, and what must come of it.
type step struct {
	at    time.Duration
	event Event
	want  string
}

func run(t *testing.T, steps []step) *Detector {
	t.Helper()
	d := New(plain())
	for i, s := range steps {
		if got := show(d.Step(s.at, s.event)); got != s.want {
			t.Fatalf("step %d, %v at %v: %q, want %q", i, s.event, s.at, got, s.want)
		}
	}
	return d
}

func answer(node dynamo.NodeID, took time.Duration) Event { return Answered{Node: node, Took: took} }

// TestPaper_4_8_3_LocalOpinion: who answers is up, without asking anybody else.
func TestPaper_4_8_3_LocalOpinion(t *testing.T) {
	d := run(t, []step{
		{0, Answered{Node: "a"}, ""}, // not known
		{0, Linked{"a"}, "a up"},
		{1, answer("a", ms), ""},
		{2, Unlinked{"a"}, "a down"},
		{3, answer("a", ms), ""}, // from before
		{4, Unlinked{"a"}, ""},
		{5, Linked{"a"}, "a up"},
		{6, Forgotten{"a"}, ""},
	})
	if o, slow := d.Opinion("a"); o != Down || slow {
		t.Errorf("a forgotten node is %v", o)
	}
}

// A node whose link stands while requests go unanswered is suspected; probes,
// at growing intervals, or any answer clear it.
func TestSuspicion(t *testing.T) {
	t.Run("cleared by a probe", func(t *testing.T) {
		run(t, []step{
			{0, Linked{"a"}, "a up"},
			{1 * ms, Missed{Node: "a"}, ""},
			{2 * ms, Missed{Node: "a"}, ""},
			{3 * ms, answer("a", ms), ""}, // counts from the beginning
			{4 * ms, Missed{Node: "a"}, ""},
			{5 * ms, Missed{Node: "a"}, ""},
			{6 * ms, Missed{Node: "a"}, "a suspected, probe a 1"},
			{7 * ms, Missed{Node: "a"}, ""},
			{40 * ms, Tick{}, ""}, // the probe is out
			{56 * ms, Tick{}, ""}, // it is over; the next one at +100
			{100 * ms, Tick{}, ""},
			{156 * ms, Tick{}, "probe a 2"},
			{160 * ms, ProbeAnswered{"a", 1}, ""}, // an old one
			{206 * ms, Tick{}, ""},                // over; the next one at +200
			{306 * ms, Tick{}, ""},
			{406 * ms, Tick{}, "probe a 3"},
			{410 * ms, ProbeAnswered{"a", 3}, "a up"},
			{411 * ms, ProbeAnswered{"a", 3}, ""},
		})
	})
	t.Run("cleared by an answer", func(t *testing.T) {
		run(t, []step{
			{0, Linked{"a"}, "a up"},
			{1 * ms, Missed{Node: "a"}, ""},
			{2 * ms, Missed{Node: "a"}, ""},
			{3 * ms, Missed{Node: "a"}, "a suspected, probe a 1"},
			{4 * ms, answer("a", ms), "a up"},
			{5 * ms, ProbeAnswered{"a", 1}, ""},
		})
	})
	t.Run("of its disk is not cleared by what it has in memory", func(t *testing.T) {
		read := Answered{Node: "a", Took: ms, Memory: true}
		run(t, []step{
			{0, Linked{"a"}, "a up"},
			{1 * ms, Missed{Node: "a", Write: true}, ""},
			{2 * ms, read, ""},
			{3 * ms, Missed{Node: "a", Write: true}, ""},
			{4 * ms, Missed{Node: "a"}, "a suspected, probe a 1"},
			{5 * ms, read, ""},
			{6 * ms, ProbeAnswered{"a", 1}, "a up"},
			{7 * ms, Missed{Node: "a"}, ""},
			{8 * ms, Missed{Node: "a"}, ""},
			{9 * ms, Missed{Node: "a"}, "a suspected, probe a 2"},
			{10 * ms, read, "a up"}, // only reads were missed
		})
	})
	t.Run("ended by a broken link", func(t *testing.T) {
		run(t, []step{
			{0, Linked{"a"}, "a up"},
			{1 * ms, Missed{Node: "a"}, ""},
			{2 * ms, Missed{Node: "a"}, ""},
			{3 * ms, Missed{Node: "a"}, "a suspected, probe a 1"},
			{4 * ms, Unlinked{"a"}, "a down"},
			{5 * ms, ProbeAnswered{"a", 1}, ""},
			{6 * ms, Missed{Node: "a"}, ""},
			{900 * ms, Tick{}, ""},
		})
	})
}

// A node that comes and goes must stay for a while before it is believed, each
// time longer; after a quiet minute it is believed at once again.
func TestFlapping(t *testing.T) {
	s := time.Second
	run(t, []step{
		{0, Linked{"a"}, "a up"},
		{1 * s, Unlinked{"a"}, "a down"},
		{1 * s, Linked{"a"}, "a up"}, // once is nothing
		{2 * s, Unlinked{"a"}, "a down"},
		{2 * s, Linked{"a"}, "a suspected"},
		{2*s + 500*ms, answer("a", ms), ""}, // alive, but not believed yet
		{2*s + 900*ms, Tick{}, ""},
		{3 * s, Tick{}, "probe a 1"},
		{3*s + ms, ProbeAnswered{"a", 1}, "a up"},
		{4 * s, Unlinked{"a"}, "a down"}, // 2 s
		{4 * s, Linked{"a"}, "a suspected"},
		{5 * s, Unlinked{"a"}, "a down"}, // 4 s
		{6 * s, Linked{"a"}, "a suspected"},
		{6 * s, Unlinked{"a"}, "a down"}, // 4 s, the longest
		{7 * s, Linked{"a"}, "a suspected"},
		{9*s + 999*ms, Tick{}, ""},
		{10 * s, answer("a", ms), "a up"},
		{90 * s, Unlinked{"a"}, "a down"},
		{90 * s, Linked{"a"}, "a up"},
	})
}

// A node that answers, but much later than others, is slow; probes find out
// when it no longer is.
func TestSlow(t *testing.T) {
	d := New(plain())
	for _, n := range []dynamo.NodeID{"a", "b", "c"} {
		d.Step(0, Linked{n})
	}
	feed := func(n dynamo.NodeID, took time.Duration) {
		for range 40 {
			if got := show(d.Step(0, answer(n, took))); got != "" {
				t.Fatalf("an answer alone decides: %s", got)
			}
		}
	}
	feed("a", 2*ms)
	feed("b", 4*ms)
	if got := show(d.Step(250*ms, Tick{})); got != "" {
		t.Errorf("%q, want nothing", got)
	}
	feed("c", 19*ms) // more than four times the median, yet below the floor
	if got := show(d.Step(500*ms, Tick{})); got != "" {
		t.Errorf("%q, want nothing", got)
	}
	feed("c", 30*ms)
	if got := show(d.Step(750*ms, Tick{})); got != "c up slow" {
		t.Errorf("%q, want c slow", got)
	}
	if got := show(d.Step(760*ms, Tick{})); got != "probe c 1" {
		t.Errorf("%q, want a probe", got)
	}
	if o, slow := d.Opinion("c"); o != Up || !slow {
		t.Errorf("c is %v, slow %v", o, slow)
	}
	if got := show(d.Step(765*ms, ProbeAnswered{"c", 1})); got != "" {
		t.Errorf("%q: one quick answer is not enough", got)
	}
	if got := show(d.Step(1000*ms, Tick{})); got != "" {
		t.Errorf("%q: the next probe is not due", got)
	}
	feed("c", 2*ms)
	if got := show(d.Step(1250*ms, Tick{})); got != "c up" {
		t.Errorf("%q, want c no longer slow", got)
	}
}

// Nobody is slow where there is nobody to compare with, or all are alike.
func TestSlowComparesWithOthers(t *testing.T) {
	d := New(plain())
	d.Step(0, Linked{"a"})
	for range 20 {
		d.Step(0, answer("a", time.Second))
	}
	if got := show(d.Step(time.Second, Tick{})); got != "" {
		t.Errorf("alone: %q", got)
	}
	d.Step(0, Linked{"b"})
	for range 20 {
		d.Step(0, answer("b", time.Second+100*ms))
	}
	if got := show(d.Step(2*time.Second, Tick{})); got != "" {
		t.Errorf("both alike: %q", got)
	}
}

func TestStatus(t *testing.T) {
	d := run(t, []step{
		{0, Linked{"b"}, "b up"},
		{0, Linked{"a"}, "a up"},
		{1 * ms, answer("b", 4*ms), ""},
		{2 * ms, Unlinked{"a"}, "a down"},
		{3 * ms, Missed{Node: "b"}, ""},
	})
	want := []Status{
		{Node: "a", Opinion: Down, Breaks: 1},
		{Node: "b", Opinion: Up, Misses: 1, Usual: 4 * ms},
	}
	if got := d.Nodes(4 * ms); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for o, word := range map[Opinion]string{Down: "down", Suspected: "suspected", Up: "up", 9: "unknown(9)"} {
		if o.String() != word {
			t.Errorf("%q, want %q", o, word)
		}
	}
}

// TestAnyOrder: whatever happens, a node without a link is down, no more than
// one probe of a node is out, a node that stays linked and answers ends up, and
// a change is told exactly when there is one.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := New(plain())
		nodes := []dynamo.NodeID{"a", "b", "c"}
		linked := map[dynamo.NodeID]bool{}
		told := map[dynamo.NodeID]Changed{}
		probes := map[dynamo.NodeID]uint64{}
		var now time.Duration
		apply := func(e Event) {
			for _, fx := range d.Step(now, e) {
				switch fx := fx.(type) {
				case Changed:
					if told[fx.Node] == fx {
						t.Fatalf("%v told twice", fx)
					}
					told[fx.Node] = fx
				case Probe:
					if !linked[fx.Node] || fx.Number <= probes[fx.Node] {
						t.Fatalf("%v, linked %v", fx, linked[fx.Node])
					}
					probes[fx.Node] = fx.Number
				}
			}
			for _, n := range nodes {
				o, slow := d.Opinion(n)
				if linked[n] != (o != Down) || told[n].Opinion != o || told[n].Slow != slow {
					t.Fatalf("%s is %v, slow %v, linked %v, told %v", n, o, slow, linked[n], told[n])
				}
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "events") {
			now += time.Duration(rapid.IntRange(0, 3000).Draw(t, "pause")) * ms
			n := rapid.SampledFrom(nodes).Draw(t, "node")
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				linked[n] = true
				apply(Linked{n})
			case 1:
				linked[n] = false
				apply(Unlinked{n})
			case 2:
				apply(answer(n, time.Duration(rapid.IntRange(0, 500).Draw(t, "took"))*ms))
			case 3:
				apply(Missed{Node: n})
			case 4:
				apply(ProbeAnswered{n, probes[n]})
			case 5:
				apply(Tick{})
			}
		}
		for _, n := range nodes {
			linked[n] = true
			apply(Linked{n})
		}
		for range 200 { // quiet, and everything is answered at once
			now += 100 * ms
			apply(Tick{})
			for _, n := range nodes {
				apply(ProbeAnswered{n, probes[n]})
				apply(answer(n, ms))
			}
		}
		for _, n := range nodes {
			if o, slow := d.Opinion(n); o != Up || slow {
				t.Fatalf("%s stays %v, slow %v", n, o, slow)
			}
		}
	})
}

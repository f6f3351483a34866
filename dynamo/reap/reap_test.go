package reap

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

func show(effects []Effect) string {
	var out []string
	for _, e := range effects {
		switch e := e.(type) {
		case Ask:
			out = append(out, fmt.Sprintf("ask %s %d %v", e.Node, e.Round, e.Keys))
		case Wait:
			out = append(out, fmt.Sprintf("wait %d", e.Round))
		case Drop:
			out = append(out, fmt.Sprintf("drop %s %d %v", e.Node, e.Round, e.Keys))
		case Finish:
			o := e.Outcome
			out = append(out, strings.TrimSpace(fmt.Sprintf("finish complete=%v keys=%d dropped=%d %s", o.Complete, o.Keys, o.Dropped, o.Reason)))
		}
	}
	return strings.Join(out, ", ")
}

func held(keys ...int) Answer { return Answer{Version: 7, Clear: true, Held: keys} }

func with(a Answer, change func(*Answer)) Answer {
	change(&a)
	return a
}

type step struct {
	event Event
	want  string
}

func TestSteps(t *testing.T) {
	plan := Plan{Version: 7, Primaries: []dynamo.NodeID{"a", "b"}, Members: []dynamo.NodeID{"a", "b", "c"}, Keys: 3}
	first := []step{
		{Answered{1, "a", held(0, 2)}, ""},
		{Answered{1, "a", held()}, ""}, // again
		{Answered{1, "x", held()}, ""}, // was not asked
		{Answered{1, "c", held()}, ""},
		{Answered{1, "b", held(0, 1, 2)}, "wait 1"},
		{Answered{1, "b", held()}, ""},
		{Failed{1, "b", "late"}, ""},
		{Waited{0}, ""},
		{Waited{1}, "ask a 2 [0 2], ask b 2 [0 2], ask c 2 []"},
		{Answered{1, "a", held()}, ""},
		{Waited{1}, ""},
	}
	after := func(more ...step) []step { return append(append([]step(nil), first...), more...) }
	const no = "finish complete=false keys=0 dropped=0 "
	for name, steps := range map[string][]step{
		"all": after(
			step{Answered{2, "a", held(0, 2)}, ""}, step{Answered{2, "b", held(2)}, ""}, step{Answered{2, "c", held()}, "drop a 3 [2], drop b 3 [2]"},
			step{Dropped{2, "a", 1}, ""}, step{Dropped{3, "a", 1}, ""}, step{Dropped{3, "a", 1}, ""}, step{Dropped{3, "c", 1}, ""},
			step{Dropped{3, "b", 0}, "finish complete=true keys=1 dropped=1"}, step{Broken{}, ""},
		),
		"a primary does not say that it dropped": after(
			step{Answered{2, "a", held(0)}, ""}, step{Answered{2, "b", held(0)}, ""}, step{Answered{2, "c", held()}, "drop a 3 [0], drop b 3 [0]"},
			step{Dropped{3, "a", 1}, ""}, step{Failed{3, "b", "late"}, "finish complete=false keys=1 dropped=1 b: late"},
		),
		"written meanwhile":      after(step{Answered{2, "b", held()}, no + "not all primaries hold the records"}),
		"a hint came and went":   after(step{Answered{2, "c", with(held(), func(a *Answer) { a.Mark[1] = 1 })}, no + "c: had copies of the partition apart meanwhile, or was started anew"}),
		"a process started":      after(step{Answered{2, "a", with(held(0), func(a *Answer) { a.Mark[0] = 1 })}, no + "a: had copies of the partition apart meanwhile, or was started anew"}),
		"a lost disk":            after(step{Answered{2, "a", with(held(0), func(a *Answer) { a.Incarnation[0] = 1 })}, no + "a: has lost its store"}),
		"the ring changed":       after(step{Broken{"another ring"}, no + "another ring"}, step{Answered{2, "a", held(0)}, ""}),
		"a hint":                 {{Answered{1, "c", with(held(), func(a *Answer) { a.Clear = false })}, no + "c: has copies of the partition apart, or moves it"}},
		"another life":           {{Answered{1, "c", with(held(), func(a *Answer) { a.Life = time.Hour })}, no + "c: takes messages that are up to 1h0m0s old, not 0s"}},
		"another document":       {{Answered{1, "c", with(held(), func(a *Answer) { a.Version = 8 })}, no + "c: knows version 8 of the cluster document, not 7"}},
		"a member is away":       {{Failed{1, "c", "unreachable"}, no + "c: unreachable"}},
		"nobody has the records": {{Answered{1, "a", held()}, no + "not all primaries hold the records"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(plan, 0)
			if got := r.Step(Broken{}); got != nil {
				t.Errorf("before the start: %s", show(got))
			}
			if got := show(r.Start()); got != "ask a 1 [0 1 2], ask b 1 [0 1 2], ask c 1 []" {
				t.Errorf("it begins with %s", got)
			}
			for i, s := range steps {
				if got := show(r.Step(s.event)); got != s.want {
					t.Fatalf("step %d, %+v: %q, want %q", i, s.event, got, s.want)
				}
			}
		})
	}
	for _, keys := range []int{0, MaxKeys + 1} {
		bad := plan
		bad.Keys = keys
		if got := show(New(bad, 0).Start()); !strings.HasPrefix(got, no) {
			t.Errorf("%d keys: %s", keys, got)
		}
	}
}

func TestReapable(t *testing.T) {
	now := dynamo.Timestamp(0).Add(time.Hour)
	v := func(dead bool, expires dynamo.Timestamp) version.Version {
		return version.Version{Dot: clock.Dot{Counter: 1}, Tombstone: dead, Expires: expires}
	}
	for name, tc := range map[string]struct {
		versions []version.Version
		want     bool
	}{
		"nothing":          {nil, false},
		"a tombstone":      {[]version.Version{v(true, 0)}, true},
		"and a value":      {[]version.Version{v(true, 0), v(false, 0)}, false},
		"expired":          {[]version.Version{v(false, now.Add(-Skew))}, true},
		"just expired":     {[]version.Version{v(false, now.Add(1-Skew))}, false},
		"both":             {[]version.Version{v(true, 0), v(false, 1)}, true},
		"of now":           {[]version.Version{{Dot: clock.Dot{Counter: 1}, Tombstone: true, Time: now}}, true},
		"of the future":    {[]version.Version{{Dot: clock.Dot{Counter: 1}, Tombstone: true, Time: now + 1}}, false},
		"expires later on": {[]version.Version{v(false, now.Add(time.Hour))}, false},
	} {
		if got := Reapable(version.Record{Versions: tc.versions}, now); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, tc := range map[string]struct {
		versions []version.Version
		at       dynamo.Timestamp
		ok       bool
	}{
		"nothing":               {nil, 0, false},
		"a value":               {[]version.Version{v(false, 0)}, 0, false},
		"a tombstone":           {[]version.Version{v(true, 0)}, 0, true},
		"one of two expires":    {[]version.Version{v(false, 7), v(false, 0)}, 0, false},
		"the last that expires": {[]version.Version{v(false, 7), v(true, 0), v(false, 9), v(false, 8)}, 9, true},
		"a newest time":         {[]version.Version{{Dot: clock.Dot{Counter: 1}, Tombstone: true, Time: now}}, now.Add(-Skew), true},
		"expired, but newer":    {[]version.Version{{Dot: clock.Dot{Counter: 1}, Time: now, Expires: 9}}, now.Add(-Skew), true},
		"a time before time":    {[]version.Version{v(false, -7)}, 0, true},
	} {
		if at, ok := Due(version.Record{Versions: tc.versions}); at != tc.at || ok != tc.ok {
			t.Errorf("%s is due at %d, %v", name, at, ok)
		}
	}
}

// TestPauseIsLongEnough: with a record goes what it remembers of requests. A retry of one
// that is forgotten by then must be refused for its age.
func TestPauseIsLongEnough(t *testing.T) {
	if PauseOf(MessageLife) != Pause {
		t.Error("two pauses")
	}
	if Pause <= vnode.Remember+vnode.Slack {
		t.Errorf("after a pause of %v a retry that is %v old could be written again", Pause, vnode.Remember)
	}
}

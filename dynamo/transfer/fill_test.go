package transfer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

// showFill writes effects as words.
func showFill(effects []Effect) string {
	var out []string
	for _, e := range effects {
		switch e := e.(type) {
		case Ask:
			what := "all"
			switch {
			case e.Wanted > 0:
				what = fmt.Sprintf("wanted %d", e.Wanted)
			case e.Digests:
				what = "hashes"
			}
			out = append(out, fmt.Sprintf("ask %s/%d %d %s from %q", e.Source, e.N, e.Batch, what, e.Cursor))
		case Compare:
			out = append(out, fmt.Sprintf("compare %d", e.Batch))
		case Merge:
			out = append(out, fmt.Sprintf("merge %d", e.Batch))
		case Seal:
			out = append(out, fmt.Sprintf("seal %d", e.Batch))
		case Rest:
			o := e.Outcome
			out = append(out, strings.TrimSpace(fmt.Sprintf("rest complete=%v merged=%d damaged=%d %s", o.Complete, o.Merged, o.Damaged, o.Reason)))
		}
	}
	return strings.Join(out, ", ")
}

// start begins another run, in a table of steps.
type start []Stream

func (start) event() {}

func TestFill(t *testing.T) {
	two := []Stream{{3, "a"}, {3, "b"}}
	again := start(two)
	for name, steps := range map[string][]step{
		"two sources": {
			{again, `ask a/3 1 all from ""`},
			{again, ""}, // is under way
			{Page{Node: "a", Batch: 1, Cursor: []byte("k"), More: true, Records: 2}, "merge 1"},
			{Page{Node: "a", Batch: 1, Records: 2}, ""}, // again
			{Merged{1}, `ask a/3 2 all from "k"`},
			{Merged{1}, ""},
			{Page{Node: "a", Batch: 1, Records: 2}, ""},
			{Page{Node: "b", Batch: 2}, ""}, // was not asked
			{Page{Node: "a", Batch: 2, Records: 1, Damaged: 1}, "merge 2"},
			{Merged{2}, `ask b/3 3 hashes from ""`},
			{Page{Node: "b", Batch: 3, Cursor: []byte("k"), More: true, Digests: true}, "compare 3"},
			{Compared{3, 0}, `ask b/3 4 hashes from "k"`},
			{Page{Node: "b", Batch: 4, Digests: true}, "compare 4"},
			{Compared{3, 9}, ""},
			{Compared{4, 3}, `ask b/3 5 wanted 3 from "k"`},
			{Page{Node: "b", Batch: 5, Records: 1, Handled: 2}, "merge 5"},
			{Merged{5}, `ask b/3 6 wanted 1 from "k"`},
			{Page{Node: "b", Batch: 6, Records: 1, Handled: 1}, "merge 6"},
			{Merged{6}, "seal 7"},
			{Merged{6}, ""},
			{Merged{7}, "rest complete=true merged=5 damaged=1"},
			{Merged{7}, ""},
		},
		"nothing lacks": {{start{}, "seal 1"}, {Merged{1}, "rest complete=true merged=0 damaged=0"}},
		"nothing there": {
			{start{{3, "a"}}, `ask a/3 1 all from ""`}, {Page{Node: "a", Batch: 1}, "seal 2"}, {Merged{2}, "rest complete=true merged=0 damaged=0"},
		},
		"a source fails and comes back": {
			{again, `ask a/3 1 all from ""`},
			{Page{Node: "a", Batch: 1, Cursor: []byte("k"), More: true, Records: 2}, "merge 1"},
			{Failed{Node: "a", Batch: 1, Reason: "late"}, ""},
			{Merged{1}, `ask a/3 2 all from "k"`},
			{Failed{Node: "b", Batch: 2}, ""},
			{Failed{Node: "a", Batch: 1}, ""},
			{Failed{Node: "a", Batch: 2, Reason: "gone"}, `ask b/3 3 all from ""`},
			{Page{Node: "b", Batch: 3}, "rest complete=false merged=2 damaged=0 a: gone"},
			{again, `ask a/3 4 hashes from "k"`},
			{Page{Node: "a", Batch: 4, Digests: true}, "compare 4"},
			{Compared{4, 0}, "seal 5"},
			{Merged{5}, "rest complete=true merged=2 damaged=0"},
		},
		"a source that fails is not asked for another n": {
			{start{{1, "a"}, {2, "a"}, {2, "b"}}, `ask a/1 1 all from ""`},
			{Failed{Node: "a", Batch: 1, Reason: "gone"}, `ask b/2 2 all from ""`},
			{Failed{Node: "b", Batch: 2, Reason: "too"}, "rest complete=false merged=0 damaged=0 a: gone; b: too"},
		},
		"other sources than before": {
			{again, `ask a/3 1 all from ""`}, {Page{Node: "a", Batch: 1}, `ask b/3 2 hashes from ""`},
			{Failed{Node: "b", Batch: 2, Reason: "gone"}, "rest complete=false merged=0 damaged=0 b: gone"},
			{start{{3, "a"}, {3, "c"}}, `ask c/3 3 hashes from ""`},
			{Page{Node: "c", Batch: 3, Digests: true}, "compare 3"}, {Compared{3, 0}, "seal 4"},
			{Merged{4}, "rest complete=true merged=0 damaged=0"},
			{again, `ask b/3 5 hashes from ""`}, {Broken{"stopped"}, "rest complete=false merged=0 damaged=0 stopped"},
		},
		"answers that do not go on": {
			{start{{3, "a"}}, `ask a/3 1 all from ""`},
			{Page{Node: "a", Batch: 1, More: true, Records: 1}, "rest complete=false merged=0 damaged=0 a: its answer does not go on"},
			{start{{3, "a"}, {3, "b"}}, `ask a/3 2 all from ""`}, {Page{Node: "a", Batch: 2}, `ask b/3 3 hashes from ""`},
			{Page{Node: "b", Batch: 3, Digests: true}, "compare 3"}, {Compared{3, 2}, `ask b/3 4 wanted 2 from ""`},
			{Page{Node: "b", Batch: 4, Records: 2}, "rest complete=false merged=0 damaged=0 b: its answer does not go on"},
		},
		"this node's store breaks": {
			{again, `ask a/3 1 all from ""`}, {Page{Node: "a", Batch: 1, Records: 1}, "merge 1"},
			{Broken{"disk"}, "rest complete=false merged=0 damaged=0 disk"}, {Merged{1}, ""},
			{again, `ask a/3 2 all from ""`}, // what was not merged comes again
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := NewFill(0)
			if got := f.Step(Merged{}); len(got) != 0 || f.State() != Resting {
				t.Errorf("before the start: %s", showFill(got))
			}
			for i, s := range steps {
				var got string
				if streams, ok := s.event.(start); ok {
					got = showFill(f.Start(streams))
				} else {
					got = showFill(f.Step(s.event))
				}
				if got != s.want {
					t.Fatalf("step %d, %+v: %q, want %q", i, s.event, got, s.want)
				}
			}
		})
	}
}

// world is sources and a replica that fills, whose messages are lost, repeated and
// late. Records are numbered; each source has some of them, in its order.
type world struct {
	t       *rapid.T
	f       *Fill
	streams []Stream
	has     map[Stream][]int
	merged  map[Stream]map[int]bool // what the disk here has of each source
	here    map[int]bool            // all that was merged, by n*100 + record
	held    map[uint64][]int        // and its records
	ask     Ask
	digests []int    // of the last page that was compared, those that differ
	found   []func() // what is here and perhaps not durable
	commits []commit
	flying  []Event
	rest    *FillOutcome
}

func (w *world) take(effects []Effect) {
	for _, e := range slices.Clone(effects) {
		switch e := e.(type) {
		case Ask:
			w.ask = e
			w.flying = append(w.flying, w.answer(e), Failed{Node: e.Source, Batch: e.Batch, Reason: "failed"})
		case Compare:
			w.digests = nil
			for _, r := range w.held[e.Batch] {
				if !w.here[w.ask.N*100+r] {
					w.digests = append(w.digests, r)
				}
			}
			for _, r := range w.held[e.Batch] {
				if w.here[w.ask.N*100+r] {
					w.found = append(w.found, w.seer(r))
				}
			}
			w.flying = append(w.flying, Compared{e.Batch, len(w.digests)})
		case Merge:
			for _, r := range w.held[e.Batch] {
				w.found = append(w.found, w.seer(r))
			}
			w.commits = append(w.commits, commit{e.Batch, w.found})
			w.found = nil
			w.flying = append(w.flying, Merged(e))
		case Seal:
			w.commits = append(w.commits, commit{e.Batch, w.found})
			w.found = nil
			w.flying = append(w.flying, Merged(e))
		case Rest:
			o := e.Outcome
			w.rest = &o
		}
	}
}

// commit makes durable what was found here or merged before.
type commit struct {
	batch uint64
	all   []func()
}

// sync has the disk finish all commits up to one.
func (w *world) sync(batch uint64) {
	for len(w.commits) > 0 && w.commits[0].batch <= batch {
		for _, see := range w.commits[0].all {
			see()
		}
		w.commits = w.commits[1:]
	}
}

func (w *world) seer(record int) func() {
	of := w.ask.Stream
	return func() { w.see(of, []int{record}) }
}

func (w *world) see(s Stream, records []int) {
	for _, r := range records {
		w.merged[s][r] = true
		w.here[s.N*100+r] = true
	}
}

// answer is what the source says.
func (w *world) answer(a Ask) Page {
	p := Page{Node: a.Source, Batch: a.Batch, Digests: a.Digests}
	if a.Wanted > 0 {
		if a.Wanted > len(w.digests) {
			w.t.Fatalf("%d of %d are wanted", a.Wanted, len(w.digests))
		}
		wanted := w.digests[len(w.digests)-a.Wanted:]
		p.Handled = rapid.IntRange(1, a.Wanted).Draw(w.t, "handled")
		p.Records = p.Handled
		w.held[a.Batch] = wanted[:p.Handled]
		return p
	}
	all := w.has[a.Stream]
	from := 0
	if len(a.Cursor) > 0 {
		from = int(a.Cursor[0])
	}
	to := min(len(all), from+rapid.IntRange(1, 3).Draw(w.t, "page"))
	w.held[a.Batch] = all[min(from, to):to]
	p.More, p.Cursor = to < len(all), []byte{byte(to)}
	if !p.Digests {
		p.Records = len(w.held[a.Batch])
	}
	return p
}

// TestFillHasEverything: whatever is lost, repeated, late or fails, and in whatever
// order it comes, a fill is complete only when the disk here has every record of
// every source; and it is complete when it is tried again without failures.
func TestFillHasEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, f: NewFill(0), has: map[Stream][]int{}, merged: map[Stream]map[int]bool{}, here: map[int]bool{}, held: map[uint64][]int{}}
		for n := 1; n <= 2; n++ {
			for _, node := range []dynamo.NodeID{"a", "b", "c"} {
				s := Stream{n, node}
				w.streams = append(w.streams, s)
				w.merged[s] = map[int]bool{}
				for r := range 7 {
					if rapid.Bool().Draw(t, "has") {
						w.has[s] = append(w.has[s], r)
					}
				}
			}
		}
		w.streams = w.streams[:rapid.IntRange(0, len(w.streams)).Draw(t, "streams")]
		w.take(w.f.Start(w.streams))
		step := func(e Event) {
			if m, ok := e.(Merged); ok {
				w.sync(m.Batch)
			}
			w.take(w.f.Step(e))
			if w.rest == nil {
				return
			}
			if w.rest.Complete && !w.f.Covers(w.streams) {
				t.Fatal("complete, and it does not say so")
			}
			if w.rest.Complete && !w.complete() {
				t.Fatalf("complete, and on the disk is only %v of %v", w.merged, w.has)
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
			case w.rest != nil:
				w.rest = nil
				w.take(w.f.Start(w.streams))
			case kind == 0:
				step(Broken{"broken"})
			case len(w.flying) > 0: // any that was ever sent, again and again
				step(rapid.SampledFrom(w.flying).Draw(t, "event"))
			}
		}
		for range 1000 { // nothing fails any more
			if w.rest != nil {
				if w.rest.Complete {
					return
				}
				w.rest, w.flying = nil, nil
				w.take(w.f.Start(w.streams))
				continue
			}
			last := len(w.flying) - 1
			if _, failed := w.flying[last].(Failed); failed {
				last--
			}
			step(w.flying[last])
		}
		t.Fatalf("never complete: %v", w.f.State())
	})
}

// complete: the disk has every record of every stream.
func (w *world) complete() bool {
	return !slices.ContainsFunc(w.streams, func(s Stream) bool {
		return slices.ContainsFunc(w.has[s], func(r int) bool { return !w.merged[s][r] })
	})
}

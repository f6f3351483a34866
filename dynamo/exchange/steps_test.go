package exchange

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// digests are 16 of them, all alike but for some.
func digests(other ...int) []uint32 {
	out := make([]uint32, 16)
	for _, i := range other {
		out[i] = 1
	}
	return out
}

func show(effects []Effect) string {
	var out []string
	for _, e := range effects {
		switch e := e.(type) {
		case Greet:
			out = append(out, fmt.Sprintf("greet %d", e.Batch))
		case Compare:
			out = append(out, fmt.Sprintf("compare %d: %d/%d to %d", e.Batch, e.Index, e.Bits, e.To))
		case List:
			out = append(out, fmt.Sprintf("list %d: %d/%d from %q", e.Batch, e.Index, e.Bits, e.From))
		case Pull:
			out = append(out, fmt.Sprintf("pull %d: %d", e.Batch, e.Items))
		case Merge:
			out = append(out, fmt.Sprintf("merge %d", e.Batch))
		case Push:
			out = append(out, fmt.Sprintf("push %d: %d", e.Batch, e.Items))
		case Recheck:
			out = append(out, fmt.Sprintf("recheck %v", e.Leaf))
		case Finish:
			o := e.Outcome
			out = append(out, strings.TrimSpace(fmt.Sprintf("finish complete=%v equal=%v in=%d out=%d changed=%d damaged=%d %s",
				o.Complete, o.Equal, o.In, o.Out, o.Changed, o.Damaged, o.Reason)))
		}
	}
	return strings.Join(out, ", ")
}

type step struct {
	event Event
	want  string
}

// listing gets an exchange to where it lists leaves 3 and 5 of 64.
var listing = []step{
	{Met{Batch: 1, Bits: 6, Own: digests(), Peer: digests(0, 1)}, "compare 2: [0 1]/4 to 6"},
	{Compared{Batch: 2, Own: make([]uint32, 8), Peer: []uint32{0, 0, 0, 1, 0, 1, 0, 0}}, `list 3: [3 5]/6 from ""`},
}

func TestSteps(t *testing.T) {
	const stays = "finish complete=false equal=false in=0 out=0 changed=0 damaged=0 the answer does not go on"
	const foreign = "finish complete=false equal=false in=0 out=0 changed=0 damaged=0 the answer is not about the "
	for name, steps := range map[string][]step{
		"equal": {
			{Met{Batch: 0, Equal: true}, ""}, // of an earlier exchange
			{Compared{Batch: 1}, ""},
			{Met{Batch: 1, Equal: true}, "finish complete=true equal=true in=0 out=0 changed=0 damaged=0"},
		},
		"a write was faster": {{Met{Batch: 1, Bits: 6, Own: digests(), Peer: digests()}, "finish complete=true equal=false in=0 out=0 changed=0 damaged=0"}},
		"no answer":          {{Failed{Batch: 1, Reason: "late"}, "finish complete=false equal=false in=0 out=0 changed=0 damaged=0 late"}, {Met{Batch: 1, Equal: true}, ""}},
		"both ways": append(slices.Clone(listing),
			step{Listed{Batch: 2, Own: [][]uint64{{1}}, Peer: [][]uint64{{}}}, ""},
			// 11 and 21 are one key in two versions, 12 only here, 22 only there.
			step{Listed{Batch: 3, Own: [][]uint64{{10, 11, 12}, {}}, Peer: [][]uint64{{10, 21}, {22}}}, "pull 4: [{3 21} {5 22}]"},
			step{Failed{Batch: 3}, ""},
			step{Page{Batch: 4, Handled: 1, Records: 1}, "merge 4"},
			step{Page{Batch: 4, Handled: 1, Records: 1}, ""},
			step{Merged{Batch: 4, Records: []Result{{3, 21, 11, 31}}}, "pull 5: [{5 22}]"},
			step{Merged{Batch: 4}, ""},
			step{Page{Batch: 5, Handled: 1, Records: 1}, "merge 5"},
			step{Merged{Batch: 5, Records: []Result{{5, 22, 0, 22}}}, "push 6: [{3 12} {3 31}]"},
			step{Pushed{Batch: 6, Handled: 1, Records: 1}, "push 7: [{3 31}]"},
			step{Pushed{Batch: 7, Handled: 1}, "finish complete=true equal=false in=2 out=1 changed=1 damaged=0"},
		),
		"what the peer has is more": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{11}, {7}}, Peer: [][]uint64{{21}, {7}}}, "recheck 5/6, pull 4: [{3 21}]"},
			step{Page{Batch: 4, Handled: 1, Records: 1}, "merge 4"},
			step{Merged{Batch: 4, Records: []Result{{3, 21, 11, 21}}}, "finish complete=true equal=false in=1 out=0 changed=0 damaged=0"},
		),
		"what is here is more": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{11}}, Peer: [][]uint64{{21}}}, "pull 4: [{3 21}]"},
			step{Page{Batch: 4, Handled: 1, Records: 1}, "merge 4"},
			step{Merged{Batch: 4, Records: []Result{{3, 21, 11, 11}}}, "push 5: [{3 11}]"},
			step{Pushed{Batch: 5, Handled: 1, Damaged: 1}, `list 6: [5]/6 from ""`},
			step{Listed{Batch: 6, Own: [][]uint64{{}}, Peer: [][]uint64{{}}}, "recheck 5/6, finish complete=true equal=false in=0 out=0 changed=0 damaged=1"},
		),
		"a long leaf": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{1}}, Peer: [][]uint64{{1}}, Next: []byte("k")}, `list 4: [3 5]/6 from "k"`},
			step{Listed{Batch: 4, Own: [][]uint64{{2}}, Peer: [][]uint64{{2}}, Next: []byte("m")}, `list 5: [3 5]/6 from "m"`},
			step{Listed{Batch: 5, Own: [][]uint64{{3}, {4}}, Peer: [][]uint64{{3}, {}}, Next: []byte("z")}, "recheck 3/6, push 6: [{5 4}]"},
			step{Pushed{Batch: 6, Handled: 1, Records: 1}, `list 7: [5]/6 from "z"`},
			step{Listed{Batch: 7, Own: [][]uint64{{5}}, Peer: [][]uint64{{5}}}, "finish complete=true equal=false in=0 out=1 changed=0 damaged=0"},
		),
		"a long leaf, and one that agrees": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{1}}, Peer: [][]uint64{{}}, Next: []byte("k")}, "push 4: [{3 1}]"},
			step{Pushed{Batch: 4, Handled: 1, Records: 1}, `list 5: [3 5]/6 from "k"`},
			step{Listed{Batch: 5, Own: [][]uint64{{2}}, Peer: [][]uint64{{2}}}, `list 6: [5]/6 from ""`},
			step{Listed{Batch: 6, Own: [][]uint64{{2}}, Peer: [][]uint64{{2}}}, "recheck 5/6, finish complete=true equal=false in=0 out=1 changed=0 damaged=0"},
		),
		"cannot be read or merged": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{}, {}}, Peer: [][]uint64{{1, 2, 3}, {4}}}, "pull 4: [{3 1} {3 2} {3 3} {5 4}]"},
			step{Page{Batch: 4, Handled: 2, Damaged: 1}, "pull 5: [{3 3} {5 4}]"},
			step{Page{Batch: 5, Handled: 2, Records: 2}, "merge 5"},
			step{Merged{Batch: 5, Damaged: 1, Records: []Result{{5, 4, 0, 4}}}, "finish complete=true equal=false in=1 out=0 changed=1 damaged=2"},
		),
		"a leaf cannot be read to its end": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{1}, {4}}, Peer: [][]uint64{{1}, {4}}, Damaged: 1}, "finish complete=true equal=false in=0 out=0 changed=0 damaged=1"},
		),
		"the ring changed": append(slices.Clone(listing),
			step{Broken{"another ring"}, "finish complete=false equal=false in=0 out=0 changed=0 damaged=0 another ring"},
			step{Listed{Batch: 3}, ""},
		),
		"digests of something else": {{Met{Batch: 1, Bits: 6, Own: digests(), Peer: digests()[1:]}, foreign + "nodes asked for"}},
		"no leaves in common":       {{Met{Batch: 1, Bits: 3}, "finish complete=false equal=false in=0 out=0 changed=0 damaged=0 trees of 3 bits are not compared"}},
		"too many lists":            append(slices.Clone(listing), step{Listed{Batch: 3, Own: make([][]uint64, 3), Peer: make([][]uint64, 3)}, foreign + "leaves asked for"}),
		"other lists":               append(slices.Clone(listing), step{Listed{Batch: 3, Own: make([][]uint64, 1), Peer: make([][]uint64, 2)}, foreign + "leaves asked for"}),
		"too many keys":             append(slices.Clone(listing), step{Listed{Batch: 3, Own: [][]uint64{nil}, Peer: [][]uint64{make([]uint64, MaxKeys+1)}}, foreign + "leaves asked for"}),
		"no lists":                  append(slices.Clone(listing), step{Listed{Batch: 3}, stays}),
		"the same part again": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{1}}, Peer: [][]uint64{{1}}, Next: []byte("k")}, `list 4: [3 5]/6 from "k"`},
			step{Listed{Batch: 4, Own: [][]uint64{{1}}, Peer: [][]uint64{{1}}, Next: []byte("k")}, stays},
		),
		"a page of nothing": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{}}, Peer: [][]uint64{{1}}}, "pull 4: [{3 1}]"}, step{Page{Batch: 4}, stays}),
		"a push of nothing": append(slices.Clone(listing),
			step{Listed{Batch: 3, Own: [][]uint64{{1}}, Peer: [][]uint64{{}}}, "push 4: [{3 1}]"}, step{Pushed{Batch: 4, Handled: 2}, stays}),
	} {
		t.Run(name, func(t *testing.T) {
			x := New(0, 0)
			if got := x.Step(Broken{}); got != nil {
				t.Errorf("before the start: %s", show(got))
			}
			if got := show(x.Start()); got != "greet 1" {
				t.Errorf("it begins with %s", got)
			}
			if got := x.Start(); got != nil {
				t.Errorf("it begins twice: %s", show(got))
			}
			for i, s := range steps {
				if got := show(x.Step(s.event)); got != s.want {
					t.Fatalf("step %d, %+v: %q, want %q", i, s.event, got, s.want)
				}
			}
		})
	}
}

// TestDepthFirst: however much differs, only a part of it is held.
func TestDepthFirst(t *testing.T) {
	x := New(0, 0)
	x.Start()
	all := make([]uint32, MaxNodes)
	for i := range all {
		all[i] = 1
	}
	effects := x.Step(Met{Batch: 1, Bits: 22, Own: digests(), Peer: all[:16]})
	most, last := 0, uint32(0)
	for range 2000 {
		switch e := effects[0].(type) {
		case Compare:
			n := len(e.Index) << (e.To - e.Bits)
			if n > MaxNodes {
				t.Fatalf("%d digests at once", n)
			}
			effects = x.Step(Compared{Batch: e.Batch, Own: make([]uint32, n), Peer: all[:n]})
		case List:
			if len(e.Index) > MaxLeaves || e.Index[0] < last {
				t.Fatalf("%d leaves from %d after %d", len(e.Index), e.Index[0], last)
			}
			last = e.Index[len(e.Index)-1]
			lists := make([][]uint64, len(e.Index))
			effects = x.Step(Listed{Batch: e.Batch, Own: lists, Peer: lists})
			effects = effects[len(effects)-1:]
		}
		most = max(most, len(x.todo))
	}
	if most > 6*MaxNodes || last == 0 {
		t.Errorf("%d nodes are held, the last leaf is %d", most, last)
	}
}

// TestHolding: one message lists what has room, and both sides' lists end at one key.
func TestHolding(t *testing.T) {
	list := func(sizes ...int) (*Holding, int) {
		l, key := &Holding{}, 0
		for leaf, n := range sizes {
			if !l.Leaf() {
				return l, leaf
			}
			for range n {
				if key++; !l.Add(fmt.Appendf(nil, "%04d", key), uint64(key), 1) {
					return l, leaf
				}
			}
		}
		return l, len(sizes)
	}
	shape := func(l *Holding) string {
		var out string
		for _, x := range l.Lists {
			out += fmt.Sprint(len(x), " ")
		}
		return out + string(l.Next)
	}
	for _, tc := range []struct {
		sizes  []int
		want   string
		leaves int
		next   string
		cut    string
	}{
		{[]int{3, 0, 4}, "3 0 4 ", 3, "", "3 0 4 "},
		{[]int{3, 0, 4}, "3 0 4 ", 2, "", "3 0 "},
		{[]int{3, 0, 4}, "3 0 4 ", 3, "0006", "3 0 2 0006"},
		{[]int{3, 0, 4}, "3 0 4 ", 1, "0002", "1 0002"},
		{[]int{3, 0, 4}, "3 0 4 ", 0, "", ""},
		{[]int{300, 300, 4}, "300 212 0513", 2, "", "300 212 0513"},
		{[]int{300, 300, 4}, "300 212 0513", 1, "", "300 "},
		{[]int{300, 300, 4}, "300 212 0513", 2, "0301", "300 0 0301"},
		{[]int{500, 12, 4}, "500 12 ", 2, "", "500 12 "},
		{[]int{600}, "512 0513", 1, "", "512 0513"},
	} {
		l, _ := list(tc.sizes...)
		if got := shape(l); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.sizes, got, tc.want)
		}
		var next []byte
		if tc.next != "" {
			next = []byte(tc.next)
		}
		l.Cut(tc.leaves, next)
		if got := shape(l); got != tc.cut {
			t.Errorf("%v cut to %d before %q: %q, want %q", tc.sizes, tc.leaves, tc.next, got, tc.cut)
		}
	}
}

// TestHoldingIsBoundedInBytes: a list ends when enough was read, and has at least one entry.
func TestHoldingIsBoundedInBytes(t *testing.T) {
	for size, want := range map[int]int{MaxReadBytes / 3: 4, MaxReadBytes: 1, 2 * MaxReadBytes: 1} {
		l, n := &Holding{}, 0
		l.Leaf()
		for l.Add([]byte{byte(n)}, uint64(n), size) {
			n++
		}
		if n != want || len(l.Lists[0]) != want || !slices.Equal(l.Next, []byte{byte(n)}) || l.Leaf() {
			t.Errorf("%d entries of %d bytes, the next is %x", n, size, l.Next)
		}
	}
}

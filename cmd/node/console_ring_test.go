package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// ringFor is a ring of some partitions in which every tenth moves and one node is away.
func ringFor(partitions int) ringJSON {
	r := ringJSON{Cluster: "dynactor", Asked: "n1"}
	for i := range 5 {
		r.Nodes = append(r.Nodes, ringNodeJSON{Node: fmt.Sprint("n", i), Letter: letters[i : i+1], Reachable: i != 3})
	}
	for q := range partitions {
		p := ringPartitionJSON{Partition: q, Replicas: []string{fmt.Sprint("n", q*7%5)}}
		if q%10 == 0 {
			p.Filling = []string{"n1"}
		}
		r.Partitions = append(r.Partitions, p)
	}
	return r
}

// TestDrawRing: each partition has its letter and mark, within the width, in rows without gaps.
func TestDrawRing(t *testing.T) {
	for _, columns := range []int{20, 40, 80, 200} {
		for partitions := 1; partitions <= mostDrawn; partitions++ {
			r := ringFor(partitions)
			var out bytes.Buffer
			if err := drawRing(&out, r, columns, false); err != nil {
				t.Fatal(err)
			}
			drawing, _, _ := strings.Cut(out.String(), "\n\n")
			want, got := map[rune]int{}, map[rune]int{}
			for _, p := range r.Partitions {
				for _, c := range r.letter(p, r.mark(p), false) {
					want[c]++
				}
			}
			middle := fmt.Sprintf("dynactor: %d partitions", partitions)
			for _, c := range strings.Join(strings.Fields(strings.Replace(drawing, middle, "", 1)), "") {
				got[c]++
			}
			if !maps.Equal(want, got) {
				t.Fatalf("%d partitions in %d columns: letters %v, want %v\n%s", partitions, columns, got, want, drawing)
			}
			for i, line := range strings.Split(drawing, "\n") {
				if strings.TrimSpace(line) == "" || len(line) > columns {
					t.Fatalf("%d partitions in %d columns: row %d is %q\n%s", partitions, columns, i, line, drawing)
				}
			}
		}
	}
}

// TestOutline: the way around begins at the top, goes clockwise, and leaves room for marks.
func TestOutline(t *testing.T) {
	for half := 1; half <= 40; half++ {
		for _, columns := range []int{10, 40, 80, 200} {
			all := outline(half, columns)
			if all[0].y != -half || all[0].x != 0 {
				t.Fatalf("half %d: begins at %+v", half, all[0])
			}
			for _, p := range all {
				if p.x < 1-columns/2 || p.x > columns/2-1 || slices.ContainsFunc(all, func(o spot) bool { return o.y == p.y && o.x == p.x+1 }) {
					t.Fatalf("half %d, %d columns: no room at %+v", half, columns, p)
				}
			}
			for i := 1; i < len(all); i++ { // angles from the top grow
				if turn(all[i]) <= turn(all[i-1]) {
					t.Fatalf("half %d, %d columns: %+v follows %+v", half, columns, all[i], all[i-1])
				}
			}
		}
	}
}

// turn is how far around a place is, from the top.
func turn(p spot) float64 {
	return math.Mod(math.Atan2(float64(p.x), -float64(p.y))+2*math.Pi, 2*math.Pi)
}

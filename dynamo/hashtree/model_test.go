package hashtree

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// disk is what a crash leaves: batches become durable in their order, and some of the
// last may be lost.
type disk struct {
	records data
	parts   map[Prefix][]byte
	marks   map[Prefix]bool
}

func (d disk) clone() disk {
	return disk{maps.Clone(d.records), maps.Clone(d.parts), maps.Clone(d.marks)}
}

// world is a vnode's tree and store, with a reader at work.
type world struct {
	t       *rapid.T
	tree    *Tree
	now     disk
	history []disk // the states since the last one that is surely durable
	check   *Check
	read    []Entry
	cursor  [16]byte
	begun   bool
}

func (w *world) commit() {
	w.history = append(w.history, w.now.clone())
	if len(w.history) > 5 {
		w.history = w.history[1:]
	}
}

func (w *world) write(p [16]byte, h Hash) {
	mark, needed := w.tree.Mark(p)
	if needed {
		w.now.marks[mark] = true
	}
	old := w.now.records[p]
	w.now.records.set(p, h)
	w.commit()
	w.tree.Update(p, old, h)
}

// damage: the stored value cannot be read, so nobody knows its hash; it is removed.
func (w *world) damage(p [16]byte) {
	if mark, needed := w.tree.Mark(p); needed {
		w.now.marks[mark] = true
	}
	w.now.records.set(p, Hash{})
	w.commit()
	w.tree.Update(p, Hash{}, Hash{})
	w.tree.Doubt(w.tree.Leaf(p))
}

// begin, goOn and end are the reader: it reads a few entries at a time, each at its
// own instant.
func (w *world) begin(p Prefix) {
	if w.check != nil {
		w.tree.Abandon(w.check)
	}
	w.check, w.read, w.begun = w.tree.Check(p), nil, false
}

func (w *world) goOn(n int) {
	if w.check == nil {
		return
	}
	first, last := w.tree.Range(w.check.Prefix())
	for _, e := range w.now.records.between(first, last) {
		if n > 0 && (!w.begun || bytes.Compare(e.Position[:], w.cursor[:]) > 0) {
			w.read, w.cursor, w.begun = append(w.read, e), e.Position, true
			n--
		}
	}
}

func (w *world) end() {
	w.goOn(1 << 30)
	if w.check != nil {
		if _, err := w.tree.Mend(w.check, w.read); err != nil {
			w.t.Fatal(err)
		}
		w.check = nil
	}
}

func (w *world) save(from uint32) {
	p, ok := w.tree.Unsaved(from)
	if !ok {
		return
	}
	maps.DeleteFunc(w.now.parts, func(o Prefix, _ []byte) bool { return o.Bits != p.Bits })
	maps.DeleteFunc(w.now.marks, func(m Prefix, _ bool) bool { return p.Contains(m) })
	w.now.parts[p] = w.tree.Encode(p)
	w.commit()
	w.tree.Saved(p)
}

// crash goes back to one of the last states and opens the tree from it.
func (w *world) crash(lost int) {
	if n := len(w.history); n > 0 {
		w.now = w.history[max(0, n-1-lost)].clone()
	}
	w.history, w.check = []disk{w.now.clone()}, nil
	tree, err := Load(testPartitions, testPartition, slices.Collect(maps.Values(w.now.parts)))
	if err != nil {
		w.t.Fatal(err)
	}
	marks := slices.SortedFunc(maps.Keys(w.now.marks), func(a, b Prefix) int { return int(a.Index) - int(b.Index) })
	for _, p := range marks {
		tree.Doubt(p)
	}
	tree.Marked(marks)
	w.tree = tree
}

// invariant: whatever is not in doubt is the tree of the data.
func (w *world) invariant(what string) {
	sound(w.t, what, w.tree.serving)
	truth := w.now.records.built(w.tree.Bits())
	for i := range uint32(1) << w.tree.Bits() {
		p := Prefix{w.tree.Bits(), i}
		in := slices.ContainsFunc(w.tree.doubts, func(d Prefix) bool { return d.Contains(p) })
		if a, b := w.tree.Node(p), truth.Node(p); a != b && !in {
			w.t.Fatalf("%s: leaf %v is %v, should be %v, and is not in doubt", what, p, a, b)
		}
	}
}

// TestTreeIsTheTreeOfTheData runs random histories of writes, deletes, damage,
// reads that take their time, growing, checkpoints and crashes.
func TestTreeIsTheTreeOfTheData(t *testing.T) {
	grown := 0
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, tree: New(testPartitions, testPartition), now: disk{records: data{}, parts: map[Prefix][]byte{}, marks: map[Prefix]bool{}}}
		w.commit()
		if rapid.Bool().Draw(t, "large") {
			for i := range 1200 {
				w.write(spread(i), hashed(spread(i), 1))
			}
		}
		position := rapid.Custom(func(t *rapid.T) [16]byte { return spread(rapid.IntRange(0, 40).Draw(t, "key")) })
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			what := rapid.SampledFrom([]string{"write", "write", "write", "read", "read", "work", "work", "end", "range", "damage", "save", "crash"}).Draw(t, "what")
			switch what {
			case "write":
				p := position.Draw(t, "position")
				w.write(p, hashed(p, rapid.IntRange(0, 3).Draw(t, "version")))
			case "damage":
				w.damage(position.Draw(t, "position"))
			case "work":
				w.end()
				if p, ok := w.tree.Work(); ok {
					w.begin(p)
				}
			case "range":
				b := rapid.Uint8Range(0, 12).Draw(t, "bits")
				w.begin(Prefix{b, rapid.Uint32Range(0, 1<<b-1).Draw(t, "index")})
			case "read":
				w.goOn(rapid.IntRange(1, 30).Draw(t, "entries"))
			case "end":
				w.end()
			case "save":
				w.save(rapid.Uint32Range(0, 5).Draw(t, "from"))
			case "crash":
				w.crash(rapid.IntRange(0, 3).Draw(t, "lost"))
			}
			w.invariant(what)
		}
		w.end()
		w.now.records.settle(t, w.tree)
		w.invariant("settled")
		same(t, "in the end", w.tree, w.now.records.built(9))
		if w.tree.Bits() > MinBits {
			grown++
		}
	})
	if grown == 0 {
		t.Error("no tree ever grew")
	}
}

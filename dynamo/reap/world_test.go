package reap

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

// life is MessageLife in the steps of the world's clock.
const life = 10

// A mutation is a mistake that the world must catch.
type mutation uint8

const (
	sound mutation = iota
	noWait
	noMarks
	noClear
	noHeld
	oneRound
	eternal
)

// rec is a record of the one key: the writes it has seen, and those of them that are
// its versions. Sixty writes are numbered; some are tombstones.
type rec struct{ seen, live uint64 }

func merge(a, b rec) rec {
	return rec{a.seen | b.seen, a.live&b.live | a.live&^b.seen | b.live&^a.seen}
}

// message is anything under way. carries says that it has a record, read at born.
type message struct {
	carries bool
	born    int
	after   int
	rec     rec
	do      func()
}

// world is three primaries and two other nodes, clients, and messages that come in
// any order, late, twice or not at all.
type world struct {
	*rand.Rand
	mutation mutation
	now      int
	store    [3]rec
	hints    [5]map[int]rec // what a node keeps for which primary
	marks    [5]uint64
	starts   [5]uint64
	under    []message
	seen     []uint64 // contexts that clients have
	writes   int
	dead     uint64 // writes that are tombstones
	gone     uint64 // covered by a tombstone that was dropped anywhere
	reap     *Reap
	target   rec
	rounds   uint64
	complete int
	verbose  bool // keeps the log
	log      []string
}

func newWorld(seed uint64, m mutation) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), mutation: m, seen: []uint64{0}}
	for i := range w.hints {
		w.hints[i] = map[int]rec{}
	}
	return w
}

func (w *world) note(format string, args ...any) {
	if !w.verbose {
		return
	}
	w.log = append(w.log, fmt.Sprintf("%3d ", w.now)+fmt.Sprintf(format, args...))
}

func (w *world) send(r rec, from, to int, what string, arrive func()) {
	w.note("%s from %d to %d: %x/%x", what, from, to, r.seen, r.live)
	m := message{carries: true, born: w.now, rec: r, do: arrive}
	if w.IntN(3) == 0 {
		m.after = w.now + w.IntN(life+4) // slow, and maybe too late
	}
	w.under = append(w.under, m)
}

func (w *world) tell(do func()) { w.under = append(w.under, message{do: do}) }

// put is a client's write or delete at a primary. The others get it, or somebody keeps
// it for them.
func (w *world) put() {
	p, bit := w.IntN(3), uint64(1)<<w.writes
	w.writes++
	context := w.seen[w.IntN(len(w.seen))]
	if w.IntN(3) > 0 {
		context = w.store[p].seen
	}
	if w.IntN(2) == 0 {
		w.dead |= bit
	}
	s := w.store[p]
	w.store[p] = rec{s.seen | context | bit, s.live&^context | bit}
	w.seen = append(w.seen, w.store[p].seen)
	w.note("put %x at %d: %x/%x", bit, p, w.store[p].seen, w.store[p].live)
	for q := range w.store {
		if q != p {
			w.replicate(w.store[p], p, q)
		}
	}
}

func (w *world) replicate(r rec, p, q int) {
	if w.IntN(3) > 0 {
		w.send(r, p, q, "replicate", func() { w.store[q] = merge(w.store[q], r) })
		return
	}
	f := 3 + w.IntN(2)
	w.send(r, p, f, "hint", func() {
		w.hints[f][q] = merge(w.hints[f][q], r)
		w.marks[f]++
	})
}

// handOff sends a hint where it belongs, and drops it when it got there unchanged.
func (w *world) handOff() {
	f, q := 3+w.IntN(2), w.IntN(3)
	h, ok := w.hints[f][q]
	if !ok {
		return
	}
	w.send(h, f, q, "hand off", func() {
		w.store[q] = merge(w.store[q], h)
		w.tell(func() {
			if w.hints[f][q] == h {
				delete(w.hints[f], q)
				w.marks[f]++
				w.note("%d dropped its hint for %d", f, q)
			}
		})
	})
}

// repair sends what one primary has to another one.
func (w *world) repair() {
	p, q := w.IntN(3), w.IntN(3)
	if r := w.store[p]; p != q && r != (rec{}) {
		w.send(r, p, q, "repair", func() { w.store[q] = merge(w.store[q], r) })
	}
}

// deliver, or lose, or deliver twice, any message.
func (w *world) deliver() {
	if len(w.under) == 0 {
		return
	}
	i := w.IntN(len(w.under))
	if w.IntN(4) > 0 { // mostly the latest, so that some get old
		i = len(w.under) - 1 - w.IntN(min(len(w.under), 6))
	}
	m := w.under[i]
	if m.after > w.now {
		return
	}
	w.under = slices.Delete(w.under, i, i+1)
	if m.carries && w.IntN(4) == 0 { // it comes again, later
		m.after = w.now + w.IntN(life)
		w.under = append(w.under, m)
	}
	if w.IntN(50) == 0 || m.carries && w.expired(m) {
		return
	}
	m.do()
}

func (w *world) expired(m message) bool { return w.mutation != eternal && w.now-m.born >= life }

// begin begins a reaping; one that was under way is forgotten, its messages are not.
func (w *world) begin() {
	t := w.store[w.IntN(3)]
	if t.live == 0 || t.live&^w.dead != 0 {
		return
	}
	w.target = t
	w.note("reap %x/%x", t.seen, t.live)
	nodes := []dynamo.NodeID{"0", "1", "2", "3", "4"}
	w.reap = New(Plan{Version: 1, Primaries: nodes[:3], Members: nodes, Keys: 1}, w.rounds)
	w.carryOut(w.reap, t, w.reap.Start())
}

func (w *world) step(r *Reap, t rec, e Event) { w.carryOut(r, t, r.Step(e)) }

func (w *world) carryOut(r *Reap, t rec, effects []Effect) {
	effects = slices.Clone(effects)
	w.rounds = max(w.rounds, r.Round())
	for _, e := range effects {
		switch e := e.(type) {
		case Ask:
			w.tell(func() {
				a := w.answer(int(e.Node[0]-'0'), t)
				w.tell(func() { w.step(r, t, Answered{e.Round, e.Node, a}) })
			})
		case Wait:
			m := message{after: w.now + life, do: func() { w.step(r, t, Waited(e)) }}
			if w.mutation == noWait {
				m.after = w.now
			}
			w.under = append(w.under, m)
			if w.mutation == oneRound {
				r.reset()
				w.carryOut(r, t, r.drop())
				return
			}
		case Drop:
			w.gone |= t.seen &^ t.live
			p := int(e.Node[0] - '0')
			w.tell(func() {
				if w.store[p] == t {
					w.store[p] = rec{}
					w.note("%d drops %x/%x", p, t.seen, t.live)
				}
				w.tell(func() { w.step(r, t, Dropped{e.Round, e.Node, 1}) })
			})
		case Finish:
			if e.Outcome.Complete {
				w.complete++
			}
		}
	}
}

func (w *world) answer(node int, t rec) Answer {
	a := Answer{Version: 1, Clear: len(w.hints[node]) == 0 || w.mutation == noClear, Mark: [2]uint64{w.starts[node], w.marks[node]}}
	if w.mutation == noMarks {
		a.Mark = [2]uint64{}
	}
	if node < 3 && (w.store[node] == t || w.mutation == noHeld) {
		a.Held = []int{0}
	}
	w.note("%d answers %+v", node, a)
	return a
}

// resurrected finds what a dropped tombstone had covered.
func (w *world) resurrected() string {
	for i, r := range w.store {
		if x := r.live & w.gone; x != 0 {
			return fmt.Sprintf("primary %d has %x again", i, x)
		}
	}
	for i, hints := range w.hints {
		for q, r := range hints {
			if x := r.live & w.gone; x != 0 {
				return fmt.Sprintf("%d keeps %x for %d", i, x, q)
			}
		}
	}
	for _, m := range w.under {
		if x := m.rec.live & w.gone; x != 0 && m.carries && !w.expired(m) {
			return fmt.Sprintf("%x is under way since %d", x, m.born)
		}
	}
	return ""
}

// run lets the world go for a while, and returns what must never be.
func (w *world) run(steps int) string {
	busy := true
	for range steps {
		switch n := w.IntN(1000); {
		case n < 10:
			busy = w.IntN(3) == 0 // clients come and go
		case n < 50:
			if busy && w.writes < 60 {
				w.put()
			}
		case n < 80:
			w.handOff()
		case n < 100:
			w.repair()
		case n < 180:
			w.now++
		case n < 220:
			if w.reap == nil || w.reap.State() == Done || w.IntN(20) == 0 {
				w.begin()
			}
		case n < 221:
			w.starts[w.IntN(5)]++
		default:
			w.deliver()
		}
		if bad := w.resurrected(); bad != "" {
			return bad
		}
	}
	return ""
}

func TestNeverResurrects(t *testing.T) {
	complete := 0
	for seed := range uint64(2000) {
		w := newWorld(seed, sound)
		if bad := w.run(1000); bad != "" {
			w = newWorld(seed, sound)
			w.verbose = true
			w.run(1000)
			for _, line := range w.log {
				t.Log(line)
			}
			t.Fatalf("seed %d: %s", seed, bad)
		}
		complete += w.complete
	}
	if t.Logf("%d reapings were complete", complete); complete < 5 {
		t.Errorf("only %d reapings were complete", complete)
	}
}

// TestTheWorldCatches: every mistake leads to a resurrection in some run.
func TestTheWorldCatches(t *testing.T) {
	for m, name := range map[mutation]string{
		noWait: "no wait", noMarks: "no marks", noClear: "hints are not asked for", noHeld: "records are not asked for",
		oneRound: "one round", eternal: "old messages are taken",
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(40_000) {
				w := newWorld(seed, m)
				if w.run(1000) != "" {
					t.Logf("seed %d", seed)
					return
				}
			}
			t.Error("nothing came of it")
		})
	}
}

package actors

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/faulty"
	"github.com/dynactor/dynactor/storage/memory"
)

// TestDropTogetherSparesOthers: what lies between two partitions that are dropped together and has no
// vnode was not copied aside.
func TestDropTogetherSparesOthers(t *testing.T) {
	r := start(t, setup{nodes: 3, partitions: 4})
	place(t, r, 1)
	between := place(t, r, 2)
	place(t, r, 3)
	lower, upper := vnode.ObjectRange(1)
	r.engine.Damage(lower, append(slices.Clone(upper), 0)) // also what comes next, but no object of it
	r.s.vnodes.gone(vnodeName(2), "failed too often")
	r.s.losses.hold(1)
	r.s.losses.hold(3)
	if err := r.s.dropObjects(1, true); err != nil {
		t.Errorf("it is not deleted: %v", err)
	}
	if _, err := r.engine.Get(nil, between); err != nil {
		t.Errorf("the one between: %v", err)
	}
}

// endless is a store of which a range cannot be read, also when nothing is left in it: its end is
// within a damaged block.
type endless struct {
	storage.Engine
	upper   []byte
	damaged atomic.Bool
}

func (e *endless) Scan(lower, upper []byte, visit func(key, value []byte) bool) error {
	if e.damaged.Load() && bytes.Equal(upper, e.upper) {
		return storage.ErrDamaged
	}
	return e.Engine.Scan(lower, upper, visit)
}

// TestDropThatDoesNotHelp is none: what was put back could not be read, and would be lost the next time.
func TestDropThatDoesNotHelp(t *testing.T) {
	lower, upper := vnode.ObjectRange(1)
	disk := &endless{Engine: memory.New(), upper: upper}
	r := start(t, setup{nodes: 3, partitions: 4, engine: disk})
	r.engine.Damage(lower, append(slices.Clone(upper), 0))
	r.s.losses.hold(1)
	disk.damaged.Store(true)
	err := r.s.dropObjects(1, false)
	disk.damaged.Store(false)
	if !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("dropped: %v", err)
	}
}

// TestAsideIsKept: what was copied aside comes back when a vnode puts it back, so a reaping waits.
func TestAsideIsKept(t *testing.T) {
	r := start(t, setup{nodes: 3})
	if some, err := r.s.misplacedIn(&r.doc, 0); some || err != nil {
		t.Fatalf("%v, %v", some, err)
	}
	b := r.engine.NewBatch()
	b.Set(vnode.SalvageKey(objectKey("k")), []byte("v"))
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	if some, err := r.s.misplacedIn(&r.doc, 0); !some || err != nil {
		t.Errorf("%v, %v", some, err)
	}
}

// TestMaybeLostIsSaid when what cannot be read may be nowhere else, and only then; once.
func TestMaybeLostIsSaid(t *testing.T) {
	both := func(d member.Document) member.Document {
		d, err := lostIn(d).LoseReplica(0, "n2", member.StoreID{2}, d.Version)
		if err != nil {
			panic(err)
		}
		return d
	}
	for name, tc := range map[string]struct {
		document func(member.Document) member.Document
		bad      bool
		want     int
	}{
		"the others have it":             {lostIn, true, 0},
		"only one other is whole":        {both, true, 1},
		"everything of it could be read": {both, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			before := start(t, setup{nodes: 3})
			before.written("k", "v", none)
			disk := faulty.New(keep{copied(t, before.engine)})
			if key := objectKey("k"); tc.bad {
				disk.Damage(key, append(slices.Clone(key), 0))
			}
			r := start(t, setup{nodes: 3, engine: disk, document: tc.document})
			if n := r.node.Counters().MaybeLost.Load(); int(n) != tc.want {
				t.Errorf("counted %d", n)
			}
			if d := r.node.Health().Damage; d.MaybeLost != tc.want {
				t.Errorf("health: %+v", d)
			}
			r.s.maybeLost(0, r.s.lossOf(0)) // done again after a failure
			if tc.want > 0 && r.node.Counters().MaybeLost.Load() != 1 {
				t.Error("said twice")
			}
		})
	}
}

// TestRenewedRefuses: a vnode that opens lost lets nobody wait until it is put back, which takes long.
func TestRenewedRefuses(t *testing.T) {
	before := start(t, setup{nodes: 3})
	before.written("k", "v", none)
	r := start(t, setup{nodes: 3, engine: keep{copied(t, before.engine)}, document: lostIn, hold: true})
	actortest.Eventually(t, "it is copied", func() bool {
		l := &r.s.losses
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.busy[0]
	})
	reaping := &messages.ReapRequest{N: 3}
	for name, m := range map[string]any{
		"a read": readOf(0, "k", 0), "a listing": &messages.KeysRequest{Bucket: bucketB, TimeoutMs: 10_000}, "a reaping": reaping,
		"the end of a transfer": &dropHints{}, "what is handed over": &messages.HandoffRequest{N: 3, ReadMs: readNow(), Records: handed("k", elsewhere(t, 9, "v"))},
	} {
		r.probe.Ask(r.pid(), m)
		if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeNotReady {
			t.Errorf("%s: %v", name, f)
		}
	}
	r.engine.ReleaseSyncs()
	actortest.Eventually(t, "it serves", func() bool { return r.s.vnodes.has(0) })
}

// TestLostAndMovedAway: a fill of what this node is no replica of any more ends, too.
func TestLostAndMovedAway(t *testing.T) {
	var f member.Fill
	r := start(t, setup{nodes: 9, partitions: 16, document: func(d member.Document) member.Document {
		for slices.Contains(d.Vnodes("n1"), f.Partition) {
			f.Partition++
		}
		if int(f.Partition) >= d.Settled.Partitions() {
			t.Fatal("n1 is on all lists")
		}
		f.Node, f.Whole, f.Since = "n1", true, d.Version
		d.Movement.Filling = append(d.Movement.Filling, f)
		return d
	}})
	actortest.Eventually(t, "it is dropped, so that the fill may end", func() bool { return !r.s.losses.pending(f) })
}

// TestRenewals: few at a time, for each keeps a reader busy.
func TestRenewals(t *testing.T) {
	l := newLossTable()
	for p := range dynamo.Partition(maxRenewed) {
		if !l.begin(p) || l.begin(p) {
			t.Errorf("partition %d", p)
		}
	}
	if l.begin(maxRenewed) {
		t.Error("one more")
	}
	l.end(0)
	if !l.begin(maxRenewed) {
		t.Error("one after the other")
	}
}

// TestPauses: what does not help is done ever less often.
func TestPauses(t *testing.T) {
	pause := time.Duration(0)
	for i := range 20 {
		next := nextPause(pause, pause+time.Second)
		if next < lossPause || next > lossPauseMax || next < lossPauseMax && i > 0 && next != 2*pause {
			t.Errorf("%v after %v", next, pause)
		}
		pause = next
	}
	if pause != lossPauseMax || nextPause(pause, 3*lossPauseMax) != lossPause {
		t.Errorf("%v at last", pause)
	}
	if failedPause(1) != damagePause || failedPause(dropPatience) != damagePause || failedPause(dropPatience+1) != 2*damagePause || failedPause(1000) != damagePauseMax {
		t.Error("pauses of drops that fail")
	}
}

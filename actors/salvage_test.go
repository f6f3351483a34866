package actors

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
)

// objectsOf reads a range.
func objectsOf(t *testing.T, e storage.Engine, lower, upper []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	if err := e.Scan(lower, upper, func(k, v []byte) bool { out[string(k)] = bytes.Clone(v); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRenewKeepsWhatCanBeRead, whatever is damaged and wherever it is interrupted.
func TestRenewKeepsWhatCanBeRead(t *testing.T) {
	r := start(t, setup{nodes: 3})
	value := string(make([]byte, 30_000)) // several batches
	for i := range 100 {
		r.written(fmt.Sprint("k", i), value, none)
	}
	gone := elsewhere(t, 9, "v")
	gone.Versions[0] = version.Version{Dot: gone.Versions[0].Dot, Time: 1, Tombstone: true}
	put(t, r.engine, 0, "gone", gone)
	lower, upper := vnode.ObjectRange(0)
	whole := objectsOf(t, r.engine, lower, upper)
	keys := slices.Sorted(maps.Keys(whole))
	bad := map[string]bool{}
	for _, hole := range [][2]int{{0, 3}, {10, 11}, {40, 50}, {75, 76}, {len(keys) - 2, len(keys)}} {
		for _, k := range keys[hole[0]:hole[1]] {
			bad[k] = k != string(objectKey("gone"))
			if bad[k] {
				r.engine.Damage([]byte(k), append([]byte(k), 0))
			}
		}
	}
	boom := errors.New("boom")
	for after := 0; ; after++ {
		r.engine.FailCommitsAfter(after, boom)
		err := r.s.renew(0, true, true, vnode.Loss{Dropped: 2})
		r.engine.Heal()
		if err == nil && after > 5 {
			break
		}
		if err != nil && !errors.Is(err, boom) || after > 100 {
			t.Fatalf("after %d commits: %v", after, err)
		}
	}
	got := objectsOf(t, r.engine, lower, upper)
	for k, v := range whole {
		if have, ok := got[k]; ok == bad[k] || ok && !bytes.Equal(have, v) {
			t.Errorf("%q: %d bytes, damaged %v", k, len(have), bad[k])
		}
	}
	if some := objectsOf(t, r.engine, []byte{'s'}, []byte{'s' + 1}); len(some) > 0 {
		t.Errorf("%d are left aside", len(some))
	}
	index := objectsOf(t, r.engine, []byte{'r'}, []byte{'r' + 1})
	if len(index) != 1 {
		t.Errorf("the index has %d entries", len(index))
	}
}

// TestTreesDoNotOutliveTheirObjects: when nothing could be copied aside, nothing tells the next start that a
// renewal was interrupted; what the vnode said of its objects is gone before they are.
func TestTreesDoNotOutliveTheirObjects(t *testing.T) {
	r := start(t, setup{nodes: 3, change: paced(upkeepPace{tick: time.Millisecond, sample: time.Hour, checkpoint: time.Millisecond})})
	r.written("k", "v", none)
	lower, upper := vnode.TreeRange(0, 3)
	actortest.Eventually(t, "there is a checkpoint", func() bool { return len(objectsOf(t, r.engine, lower, upper)) > 0 })
	from, to := vnode.ObjectRange(0)
	r.engine.Damage(from, to)
	boom := errors.New("boom")
	r.engine.FailCommitsAfter(2, boom) // of nothing copied aside, of what is removed; not of what is put back
	if err := r.s.renew(0, true, true, vnode.Loss{Dropped: 2}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	r.engine.Heal()
	if some := objectsOf(t, r.engine, from, to); len(some) > 0 {
		t.Fatalf("%d objects were not dropped", len(some))
	}
	for _, own := range vnode.OwnRanges(0) {
		if some := objectsOf(t, r.engine, own[0], own[1]); len(some) > 0 {
			t.Errorf("left without its objects: %x", slices.Collect(maps.Keys(some)))
		}
	}
}

// TestBeyond: a hole ends where it does, however wide it is and whatever lies behind it.
func TestBeyond(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		after := rapid.Uint64().Draw(t, "after")
		end := rapid.Uint64Min(after).Draw(t, "end")
		last := rapid.Uint64Range(after, end).Draw(t, "the hole's last position")
		read := 0
		got, some, err := beyond(after, end, func(p uint64) (bool, error) { read++; return p > last, nil })
		if read > 45 {
			t.Fatalf("%d reads", read)
		}
		if err != nil || some != (last < end) || some && (got <= last || got-last > max(1, (end-after)>>20)) {
			t.Fatalf("%d, %v, %v", got, some, err)
		}
	})
	boom := errors.New("boom")
	if _, _, err := beyond(0, rand.Uint64()|1, func(uint64) (bool, error) { return false, boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}

package pebbledb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/dynactor/dynactor/storage"
)

// droppable is a store of three ranges, a, b and c, in one table of many blocks.
type droppable struct {
	e      *Engine
	dir    string
	values map[string]string
}

func newDroppable(t *testing.T) *droppable {
	d := &droppable{dir: t.TempDir(), values: map[string]string{}}
	d.open(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for _, head := range "abc" {
		for i := range 400 {
			value := make([]byte, 100)
			for j := range value {
				value[j] = byte(rng.Uint32()) // does not compress
			}
			key := fmt.Sprintf("%c%04d", head, i)
			d.values[key] = string(value)
			b := d.e.NewBatch()
			b.Set([]byte(key), value)
			if err := b.Commit(storage.Applied, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.e.flush(); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *droppable) open(t *testing.T) {
	t.Helper()
	o := Default()
	o.tune = func(p *pebble.Options) { // Pebble looks long for the flipped bit of a large block
		for i := range p.Levels {
			p.Levels[i].BlockSize = 1 << 10
		}
	}
	d.e = open(t, d.dir, o)
}

func (d *droppable) close(t *testing.T) {
	t.Helper()
	if err := d.e.Close(); err != nil {
		t.Fatal(err)
	}
}

// flip changes a byte of the only table while nobody has the store open.
func (d *droppable) flip(t *testing.T, at int64) {
	t.Helper()
	name := one(t, d.dir, "*.sst")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 0x10
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// look counts what can be read of a range, what is damaged and what is not there.
func (d *droppable) look(t *testing.T, head byte) (read, unreadable, missing int) {
	t.Helper()
	for key, want := range d.values {
		if key[0] != head {
			continue
		}
		v, err := d.e.Get(nil, []byte(key))
		switch {
		case err == nil && string(v) == want:
			read++
		case errors.Is(err, storage.ErrDamaged):
			unreadable++
		case errors.Is(err, storage.ErrNotFound):
			missing++
		default:
			t.Fatalf("get %s: %v", key, err)
		}
	}
	return read, unreadable, missing
}

// scans reports whether a range can be read.
func (d *droppable) scans(lower, upper string) bool {
	return d.e.Scan([]byte(lower), []byte(upper), func(_, _ []byte) bool { return true }) == nil
}

// boundary reports whether one range may end there in the table, and the next one begin.
func boundary(at int64) bool { return at > 45_000 && at < 49_000 || at > 92_000 && at < 96_000 }

// TestDropOfWhatIsDamaged damages one block after the other of a table. Whichever it is, a
// drop of the middle range removes that and nothing else, or says that it cannot and removes
// nothing; then all three ranges together can be dropped. What was dropped is gone after the
// store was opened again, and a compaction of the rest succeeds if nothing there is damaged.
func TestDropOfWhatIsDamaged(t *testing.T) {
	dropped, refused, compacted := 0, 0, 0
	step := int64(9000)
	for at := int64(100); ; at += step {
		if step = 9000; boundary(at) { // where one range ends and the next begins
			step = 400
		}
		d := newDroppable(t)
		d.close(t)
		info, err := os.Stat(one(t, d.dir, "*.sst"))
		if err != nil {
			t.Fatal(err)
		}
		if at >= info.Size()-3000 { // what comes after the blocks of keys
			break
		}
		d.flip(t, at)
		d.open(t)
		err = d.e.Drop([]byte("b"), []byte("c"))
		for _, again := range []bool{false, true} {
			if again {
				d.close(t)
				d.open(t)
			}
			if _, _, missing := d.look(t, 'a'); missing > 0 {
				t.Errorf("byte %d: %d keys before the range are lost; again %v", at, missing, again)
			}
			if _, _, missing := d.look(t, 'c'); missing > 0 {
				t.Errorf("byte %d: %d keys after the range are lost; again %v", at, missing, again)
			}
			read, unreadable, missing := d.look(t, 'b')
			if err == nil && read+unreadable > 0 || err != nil && missing > 0 {
				t.Errorf("byte %d: drop: %v; then %d keys of the range are read, %d damaged, %d missing", at, err, read, unreadable, missing)
			}
		}
		_, lostA, _ := d.look(t, 'a')
		_, lostC, _ := d.look(t, 'c')
		switch {
		case err == nil:
			dropped++
			if lostA+lostC == 0 {
				compacted++
				if err := d.e.db.Compact(t.Context(), []byte("a"), []byte("d"), false); err != nil {
					t.Errorf("byte %d: compaction: %v", at, err)
				}
			}
		case errors.Is(err, storage.ErrDamaged):
			refused++
			if d.scans("a", "b") && d.scans("c", "d") { // of a neighbour a scan meets it
				t.Errorf("byte %d: refused although nothing outside is damaged", at)
			}
		default:
			t.Fatal(err)
		}
		if err := d.e.Drop([]byte("a"), []byte("d")); err != nil {
			t.Errorf("byte %d: drop of all: %v", at, err)
		}
		if got, err := contents(d.e); err != nil || len(got) > 0 {
			t.Errorf("byte %d: %d keys are left, %v", at, len(got), err)
		}
		d.close(t)
	}
	if dropped < 10 || refused < 4 || compacted < 5 {
		t.Errorf("%d dropped, %d refused, %d compacted", dropped, refused, compacted)
	}
}

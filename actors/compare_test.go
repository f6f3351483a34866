package actors

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// badSector fails reads of one key, as a damaged block of a file does.
type badSector struct {
	storage.Engine
	key []byte
	on  atomic.Bool
}

func (e *badSector) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	bad := false
	err := e.Engine.Scan(lower, upper, func(k, v []byte) bool {
		if bad = e.on.Load() && bytes.Equal(k, e.key); bad {
			return false
		}
		return visit(k, v)
	})
	if bad {
		return errors.New("bad sector")
	}
	return err
}

func (e *badSector) Get(dst, k []byte) ([]byte, error) {
	if e.on.Load() && bytes.Equal(k, e.key) {
		return dst, errors.New("bad sector")
	}
	return e.Engine.Get(dst, k)
}

// TestExchangeBesideABadSector: one block that cannot be read does not keep the rest of a
// partition from being mended.
func TestExchangeBesideABadSector(t *testing.T) {
	t.Parallel()
	const keys = 3000
	a, b := diskOf(t), diskOf(t)
	bad := &badSector{Engine: b}
	for i := range keys {
		name := fmt.Sprint("k", i)
		put(t, a, 0, name, elsewhere(t, 9, name))
		if i%3 != 0 { // a third is lost at b
			put(t, b, 0, name, elsewhere(t, 9, name))
			if k := object(0, name); bad.key == nil || bytes.Compare(k, bad.key) < 0 {
				bad.key = k // the first one
			}
		}
	}
	x := startTwins(t, keep{a}, keep{bad}, nil)
	x.one.root()
	x.two.root()
	bad.on.Store(true)
	reply := x.repair()
	if reply.GetComplete() != 1 || reply.GetDamaged() == 0 {
		t.Errorf("repaired: %v", reply)
	}
	if have := len(all(t, b)); have < keys*99/100 {
		t.Errorf("one bad sector: %d of %d records are there after a repair: %v", have, keys, reply)
	}
}

// countingEngine counts what is read.
type countingEngine struct {
	storage.Engine
	visited, bytes atomic.Int64
}

func (e *countingEngine) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	return e.Engine.Scan(lower, upper, func(k, v []byte) bool {
		e.visited.Add(1)
		e.bytes.Add(int64(len(v)))
		return visit(k, v)
	})
}

// crowdedRig has so many records of so many bytes, in one leaf (of 0 bits).
func crowdedRig(t *testing.T, records, size int) (*rig, *countingEngine) {
	e := memory.New()
	for i := range records {
		state := vnode.Open([16]byte{9}, 1, 1000, true, 0)
		r, err := state.Coordinate(vnode.Stored{}, vnode.Put{Value: make([]byte, size), Now: 1})
		if err != nil {
			t.Fatal(err)
		}
		put(t, e, 0, fmt.Sprint("k", i), r.Stored.Record)
	}
	c := &countingEngine{Engine: e}
	r := start(t, setup{nodes: 2, engine: c, change: paced(quietPace)})
	r.root() // nothing else reads from here on
	c.visited.Store(0)
	c.bytes.Store(0)
	return r, c
}

// TestListAndPageAreBoundedInBytes: neither a list nor a page of records reads all of a leaf.
func TestListAndPageAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	r, c := crowdedRig(t, 128, 256<<10)
	h, err := r.s.list(0, 3, messages.Leaves{List: aae.List{Bits: 0, Index: []uint32{0}}})
	if err != nil {
		t.Fatal(err)
	}
	if n := c.bytes.Swap(0); n > 16<<20 {
		t.Errorf("a list of %d hashes read %d MB", len(h.Lists[0]), n>>20)
	}
	var items []aae.Item
	for _, x := range h.Lists[0] {
		items = append(items, aae.Item{Hash: x})
	}
	page, _, err := r.s.find(0, 3, aae.Pull{Items: items, Until: h.Next})
	if err != nil {
		t.Fatal(err)
	}
	if n := c.bytes.Swap(0); n > 16<<20 {
		t.Errorf("a page of %d records read %d MB and held them", len(page.GetRecords()), n>>20)
	}
}

// TestPagesOfALeafReadItOnce: moving all of a leaf does not read it once for each page.
func TestPagesOfALeafReadItOnce(t *testing.T) {
	t.Parallel()
	const records = 16 << 10
	r, c := crowdedRig(t, records, 10)
	l := messages.Leaves{List: aae.List{Bits: 0, Index: []uint32{0}}}
	found := 0
	for {
		h, err := r.s.list(0, 3, l)
		if err != nil {
			t.Fatal(err)
		}
		var items []aae.Item
		for _, x := range h.Lists[0] {
			items = append(items, aae.Item{Hash: x})
		}
		page, _, err := r.s.find(0, 3, aae.Pull{Items: items, From: l.From, Until: h.Next})
		if err != nil {
			t.Fatal(err)
		}
		if found += len(page.GetRecords()); h.Next == nil {
			break
		}
		l.From = h.Next
	}
	if n := c.visited.Load(); found != records || n > 4*records {
		t.Errorf("%d records were found by looking at %d", found, n)
	}
}

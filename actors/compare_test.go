package actors

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/dynactor/dynactor/storage"
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

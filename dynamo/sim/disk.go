package sim

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// What a disk can fail with.
var (
	errFull   = errors.New("sim: disk full")
	errBroken = errors.New("sim: disk failed")
	errRead   = errors.New("sim: read error")
	errHole   = errors.New("sim: damaged block")
)

// write is one key of a batch; a nil value removes it.
type write struct {
	key   string
	value []byte
}

// batch is what a commit applies together: all of it survives a crash, or none.
type batch struct {
	writes []write
	sync   bool
	done   func(error)
}

// disk is a node's store as the storage engine promises it: a commit shows at
// once to reads, becomes durable later and in order, and after a failed sync
// nothing is reported as done any more.
type disk struct {
	n                 *node
	volatile, durable map[string][]byte
	pending           []batch
	syncing           bool
	// slow is added to each sync.
	slow time.Duration
	// full refuses commits; failNext fails the next sync, and then the disk is
	// broken until the node restarts.
	full, failNext, broken bool
}

func newDisk(n *node) *disk {
	return &disk{n: n, volatile: map[string][]byte{}, durable: map[string][]byte{}}
}

// get returns the bytes stored under a key as reads see them. They must not be
// changed.
func (d *disk) get(key []byte) (value []byte, found bool, err error) {
	if p := d.n.c.plan.disk.readError; p > 0 && chance(d.n.c.random.disk, p) && !d.n.c.calm {
		return nil, false, errRead
	}
	value, found = d.volatile[string(key)]
	if isHole(value) {
		return nil, true, errHole
	}
	return value, found, nil
}

// commit applies a batch. done is called when it is durable, if sync is set, or
// else at once; or with the error. If commit itself fails nothing was applied.
func (d *disk) commit(b batch) error {
	switch {
	case d.full:
		return errFull
	case d.broken:
		return errBroken
	}
	apply(d.volatile, b.writes)
	for _, w := range b.writes {
		d.n.c.check.wrote(d.n, w.key)
	}
	d.pending = append(d.pending, b)
	if b.sync {
		d.flush()
		return nil
	}
	if b.done != nil {
		d.n.after(0, func() { b.done(nil) })
	}
	d.n.after(d.n.c.plan.disk.flush, d.flush)
	return nil
}

func apply(store map[string][]byte, writes []write) {
	for _, w := range writes {
		if w.value == nil {
			delete(store, w.key)
			continue
		}
		store[w.key] = w.value
	}
}

// flush syncs all that is pending; what is committed meanwhile waits for the
// next sync.
func (d *disk) flush() {
	if d.syncing || d.broken || len(d.pending) == 0 {
		return
	}
	d.syncing = true
	n := len(d.pending)
	took := d.n.c.plan.disk.sync + d.slow
	d.n.after(took/2+scale(d.n.c.random.disk.Float64(), took), func() { d.synced(n) })
}

// synced ends the sync of the first n pending batches.
func (d *disk) synced(n int) {
	d.syncing = false
	if d.failNext {
		d.fail()
		return
	}
	group := slices.Clone(d.pending[:n])
	d.harden(n)
	for _, b := range group {
		if b.sync && b.done != nil {
			b.done(nil)
		}
	}
	if slices.ContainsFunc(d.pending, func(b batch) bool { return b.sync }) {
		d.flush()
	}
}

// fail breaks the disk: whoever waits for it is told, the oldest first.
func (d *disk) fail() {
	d.broken, d.failNext = true, false
	for _, b := range slices.Clone(d.pending) {
		if b.sync && b.done != nil {
			b.done(errBroken)
		}
	}
}

// harden makes the first n pending batches durable.
func (d *disk) harden(n int) {
	for _, b := range d.pending[:n] {
		apply(d.durable, b.writes)
	}
	d.pending = slices.Delete(d.pending, 0, n)
}

// crash keeps the first keep pending batches, which the machine may have
// written already, and loses the others. It returns the keys that lost
// something, sorted.
func (d *disk) crash(keep int) []string {
	d.harden(keep)
	var lost []string
	for _, b := range d.pending {
		for _, w := range b.writes {
			lost = append(lost, w.key)
			d.n.c.check.wrote(d.n, w.key)
		}
	}
	slices.Sort(lost)
	d.pending, d.syncing, d.failNext, d.broken = nil, false, false, false
	d.volatile = maps.Clone(d.durable)
	return slices.Compact(lost)
}

// touches reports whether a batch that is not durable yet writes the key.
func (d *disk) touches(key string) bool {
	return slices.ContainsFunc(d.pending, func(b batch) bool {
		return slices.ContainsFunc(b.writes, func(w write) bool { return w.key == key })
	})
}

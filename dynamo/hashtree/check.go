package hashtree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

var (
	// ErrBusy: more writes came to the range than are noted while it is read. Nothing
	// was changed; check it again, or a narrower one.
	ErrBusy = errors.New("hashtree: too many writes while the range was read")
	// ErrOver: the check was closed before, or is of another tree.
	ErrOver = errors.New("hashtree: the check is over")
	// ErrEntries: the entries are not in order, or not of the range. Nothing was
	// changed.
	ErrEntries = errors.New("hashtree: not the entries of the range")
)

// maxNoted is how many written positions a check notes.
const maxNoted = 1 << 16

// Entry is one key of the store as the tree sees it.
type Entry struct {
	Position [16]byte
	Hash     Hash
}

// Check notes the writes to a range while it is read.
type Check struct {
	tree   *Tree
	prefix Prefix
	// written has the last write of each position.
	written map[[16]byte]Hash
	busy    bool
}

// Prefix is the range to be read.
func (c *Check) Prefix() Prefix { return c.prefix }

// Check begins to note the writes to a range, or to the leaf that contains it.
// Whatever is read of the range from now on will do for Mend. Each check ends with
// Mend or Abandon.
func (t *Tree) Check(p Prefix) *Check {
	c := &Check{tree: t, prefix: p.Parent(min(p.Bits, t.serving.bits)), written: map[[16]byte]Hash{}}
	t.checks = append(t.checks, c)
	return c
}

// Abandon ends a check whose range could not be read. If it is in doubt, the other ranges
// that are come first: it may never be read.
func (t *Tree) Abandon(c *Check) bool {
	if i := slices.Index(t.doubts, c.prefix); i >= 0 {
		t.doubts = append(slices.Delete(t.doubts, i, i+1), c.prefix)
	}
	return t.end(c)
}

func (t *Tree) end(c *Check) bool {
	i := slices.Index(t.checks, c)
	if i >= 0 {
		t.checks = slices.Delete(t.checks, i, i+1)
	}
	return i >= 0
}

func (c *Check) note(position [16]byte, h Hash) {
	if c.busy || c.tree.Prefix(position, c.prefix.Bits) != c.prefix {
		return
	}
	c.written[position] = h
	if len(c.written) > maxNoted {
		c.busy, c.written = true, nil
	}
}

// Mended is what a check found.
type Mended struct {
	// Leaves is how many leaves were looked at, Wrong how many of them were not what
	// the store holds, and are now.
	Leaves, Wrong int
	// Entries is how many entries the range holds.
	Entries int
}

// Mend ends a check: it sets the leaves of the range to the entries that were read
// from the store, in key order. A record that could not be read is none of them.
func (t *Tree) Mend(c *Check, entries []Entry) (Mended, error) {
	if !t.end(c) {
		return Mended{}, ErrOver
	}
	if c.busy {
		return Mended{}, ErrBusy
	}
	if err := t.verify(c.prefix, entries); err != nil {
		return Mended{}, err
	}
	sums, n := t.sums(c, entries, t.serving.bits)
	m := Mended{Leaves: len(sums), Entries: n, Wrong: t.serving.set(c.prefix, sums)}
	if m.Wrong > 0 {
		t.unsave(c.prefix)
	}
	if t.growing != nil {
		sums, _ = t.sums(c, entries, t.growing.bits)
		t.growing.set(c.prefix, sums)
	}
	t.mended(c.prefix)
	return m, nil
}

// verify refuses what was read wrongly. Two keys may have one position, but not one
// hash.
func (t *Tree) verify(p Prefix, entries []Entry) error {
	first, last := t.Range(p)
	for i, e := range entries {
		if bytes.Compare(e.Position[:], first[:]) < 0 || bytes.Compare(e.Position[:], last[:]) > 0 {
			return fmt.Errorf("%w: %x is not under %v", ErrEntries, e.Position, p)
		}
		if i > 0 && (entries[i-1] == e || bytes.Compare(entries[i-1].Position[:], e.Position[:]) > 0) {
			return fmt.Errorf("%w: %x is out of order", ErrEntries, e.Position)
		}
	}
	return nil
}

// sums are the leaves of the range in a tree of so many bits: what was read where
// nothing was written, and what was written.
func (t *Tree) sums(c *Check, entries []Entry, bits uint8) (sums []Node, total int) {
	sums = make([]Node, 1<<(bits-c.prefix.Bits))
	first := c.prefix.Index << (bits - c.prefix.Bits)
	add := func(position [16]byte, h Hash) {
		sums[t.Prefix(position, bits).Index-first].add(single(h))
		if !h.IsZero() {
			total++
		}
	}
	for _, e := range entries {
		if _, written := c.written[e.Position]; !written {
			add(e.Position, e.Hash)
		}
	}
	for position, h := range c.written {
		add(position, h)
	}
	return sums, total
}

package pebbledb

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/dynactor/dynactor/storage"
)

// batch collects writes in Pebble's own format: they go to the log as they are.
type batch struct {
	e   *Engine
	b   *pebble.Batch // nil after Commit and Discard
	err error         // first error of a write
}

// open returns Pebble's batch, for one more write.
func (b *batch) open() *pebble.Batch {
	if b.b == nil {
		panic("pebbledb: batch used after Commit or Discard")
	}
	return b.b
}

func (b *batch) note(err error) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("storage: batch: %w", err)
	}
}

// Set implements storage.Batch.
func (b *batch) Set(key, value []byte) { b.note(b.open().Set(key, value, nil)) }

// Delete implements storage.Batch.
func (b *batch) Delete(key []byte) { b.note(b.open().Delete(key, nil)) }

// DeleteRange implements storage.Batch.
func (b *batch) DeleteRange(lower, upper []byte) {
	p := b.open()
	if bytes.Compare(lower, upper) < 0 {
		b.note(p.DeleteRange(lower, upper, nil))
	}
}

// Len implements storage.Batch.
func (b *batch) Len() int {
	if b.b == nil {
		return 0
	}
	return int(b.b.Count())
}

// Discard implements storage.Batch.
func (b *batch) Discard() {
	if b.b != nil {
		_ = b.b.Close() // fails only when closed twice
		b.b = nil
	}
}

// Commit implements storage.Batch.
func (b *batch) Commit(d storage.Durability, done func(error)) error {
	p := b.open()
	b.b = nil
	err := b.err
	if err == nil {
		err = b.e.commit(p, d, done)
	}
	if err != nil {
		_ = p.Close() // as above
	}
	return err
}

// Package cached wraps a storage.Engine and keeps the values that were read or
// written lately in memory (paper § 6.1: the object buffer that reads look into
// first). An engine's own cache holds blocks, and what was written lately lies
// in an ordered table that a read has to search; here a read of a popular key
// is one look into a map.
//
// It is coherent: after Commit has returned, no read gives what was there
// before. While a commit is under way its keys are not in the cache and nothing
// can put them there, so reads of them go to the engine inside. A read that
// began before a commit of its key does not fill the cache.
package cached

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/dynactor/dynactor/storage"
)

const (
	// shards is how many locks share the load; a power of two.
	shards = 16
	// entryOverhead is about what an entry takes besides its key and value.
	entryOverhead = 200
	// maxShare: a value larger than this part of its shard is not kept, so
	// that one does not push out all others.
	maxShare = 16
)

// Engine is an engine with a cache before it. All methods may be called from
// any goroutine.
type Engine struct {
	inner  storage.Engine
	seed   maphash.Seed
	shards [shards]shard
	closed atomic.Bool
}

var (
	_ storage.Engine = (*Engine)(nil)
	_ storage.Peeker = (*Engine)(nil)
)

// New wraps inner, which it closes in the end. bytes is what the cache takes at
// most, keys and its own structures included; with 0 nothing is kept.
func New(inner storage.Engine, bytes int64) *Engine {
	e := &Engine{inner: inner, seed: maphash.MakeSeed()}
	for i := range e.shards {
		e.shards[i].init(bytes / shards)
	}
	return e
}

func (e *Engine) shard(key []byte) *shard {
	return &e.shards[maphash.Bytes(e.seed, key)%shards]
}

// Get implements storage.Engine.
func (e *Engine) Get(dst, key []byte) ([]byte, error) {
	if e.closed.Load() {
		return dst, storage.ErrClosed
	}
	s := e.shard(key)
	value, fill := s.look(key)
	if value != nil {
		return append(dst, value...), nil
	}
	if fill == nil {
		return e.inner.Get(dst, key)
	}
	kept := false
	defer func() {
		if !kept {
			s.fill(fill, nil)
		}
	}()
	out, err := e.inner.Get(dst, key)
	if err == nil {
		kept = true
		s.fill(fill, out[len(dst):])
	}
	return out, err
}

// Peek implements storage.Peeker.
func (e *Engine) Peek(key []byte) ([]byte, bool) {
	if e.closed.Load() {
		return nil, false
	}
	return e.shard(key).peek(key)
}

// Scan implements storage.Engine; it neither uses nor fills the cache.
func (e *Engine) Scan(lower, upper []byte, visit func(key, value []byte) bool) error {
	return e.inner.Scan(lower, upper, visit)
}

// Drop implements storage.Engine; all of the cache goes.
func (e *Engine) Drop(lower, upper []byte) error {
	for i := range e.shards {
		e.shards[i].beginRange()
	}
	defer func() {
		for i := range e.shards {
			e.shards[i].endRange()
		}
	}()
	return e.inner.Drop(lower, upper)
}

// NewBatch implements storage.Engine.
func (e *Engine) NewBatch() storage.Batch {
	return &batch{engine: e, inner: e.inner.NewBatch()}
}

// Stats implements storage.Engine; the cache counts as memory.
func (e *Engine) Stats() storage.Stats {
	s := e.inner.Stats()
	for i := range e.shards {
		bytes, hits, misses := e.shards[i].figures()
		s.MemoryBytes += uint64(bytes)
		s.Records.Hits += hits
		s.Records.Misses += misses
	}
	return s
}

// Close implements storage.Engine.
func (e *Engine) Close() error {
	e.closed.Store(true)
	return e.inner.Close()
}

// batch remembers what it writes, to renew the cache when it is applied. A key
// that it writes twice is not kept.
type batch struct {
	engine *Engine
	inner  storage.Batch
	writes []write
	// ranges: it deletes a range, so all of the cache goes.
	ranges bool
}

// write is one key's change; a nil value is none that the cache could keep.
type write struct {
	key   string
	value []byte
}

func (b *batch) Set(key, value []byte) {
	b.inner.Set(key, value)
	w := write{key: string(key)}
	if b.engine.shards[0].fits(len(key), len(value)) { // all have one limit
		w.value = clone(value)
	}
	b.writes = append(b.writes, w)
}

func (b *batch) Delete(key []byte) {
	b.inner.Delete(key)
	b.writes = append(b.writes, write{key: string(key)})
}

func (b *batch) DeleteRange(lower, upper []byte) {
	b.inner.DeleteRange(lower, upper)
	b.ranges = true
}

func (b *batch) Len() int { return b.inner.Len() }

func (b *batch) Discard() { b.inner.Discard() }

// Commit implements storage.Batch.
func (b *batch) Commit(d storage.Durability, done func(error)) error {
	b.begin()
	applied := false
	defer func() { b.end(applied) }() // also when the engine panics
	err := b.inner.Commit(d, done)
	applied = err == nil
	return err
}

// begin takes out of the cache what the batch changes, and keeps it out.
func (b *batch) begin() {
	if b.ranges {
		for i := range b.engine.shards {
			b.engine.shards[i].beginRange()
		}
	}
	for i := range b.writes {
		b.engine.shards[b.shardOf(i)].begin(b.writes[i].key)
	}
}

// end lets the keys in again, with the values written last if those are what a
// read would find.
func (b *batch) end(applied bool) {
	for i := range b.writes {
		w := &b.writes[i]
		if !applied || b.ranges {
			w.value = nil
		}
		b.engine.shards[b.shardOf(i)].end(w.key, w.value)
	}
	if b.ranges {
		for i := range b.engine.shards {
			b.engine.shards[i].endRange()
		}
	}
	b.writes, b.ranges = nil, false
}

func (b *batch) shardOf(i int) uint64 {
	return maphash.String(b.engine.seed, b.writes[i].key) % shards
}

// clone copies a value; the copy of an empty one is not nil.
func clone(v []byte) []byte { return append(make([]byte, 0, len(v)), v...) }

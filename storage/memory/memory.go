// Package memory is a storage.Engine that keeps everything in memory, for tests
// and for simulated clusters. It keeps every promise of the contract but one:
// what is durable here lasts only as long as the engine.
package memory

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/internal/inorder"
)

// entry is one key with its value; it is never changed once in the tree.
type entry struct{ key, value []byte }

func before(a, b entry) bool { return bytes.Compare(a.key, b.key) < 0 }

// Engine is a copy-on-write tree behind a lock. A scan walks a snapshot of the
// tree, so it neither sees nor holds up the writes that follow.
type Engine struct {
	mu    sync.RWMutex
	tree  *btree.BTreeG[entry]
	bytes uint64 // keys and values held

	ops     *inorder.Gate
	queue   *inorder.Queue[func(error)]
	drained chan struct{}
	commits atomic.Uint64
	pending atomic.Int64
}

var _ storage.Engine = (*Engine)(nil)

// New returns an empty engine. Close ends its goroutine.
func New() *Engine {
	e := &Engine{
		tree:    btree.NewBTreeGOptions(before, btree.Options{NoLocks: true}),
		ops:     inorder.NewGate(),
		queue:   inorder.New[func(error)](),
		drained: make(chan struct{}),
	}
	go e.report()
	return e
}

// report calls the done functions, in order.
func (e *Engine) report() {
	defer close(e.drained)
	var buf []func(error)
	for {
		var ok bool
		if buf, ok = e.queue.Take(buf); !ok {
			return
		}
		for _, done := range buf {
			e.pending.Add(-1)
			if done != nil {
				done(nil)
			}
		}
	}
}

// Get implements storage.Engine.
func (e *Engine) Get(dst, key []byte) ([]byte, error) {
	if !e.ops.Enter() {
		return dst, storage.ErrClosed
	}
	defer e.ops.Leave()
	e.mu.RLock()
	found, ok := e.tree.Get(entry{key: key})
	e.mu.RUnlock()
	if !ok {
		return dst, storage.ErrNotFound
	}
	return append(dst, found.value...), nil
}

// Scan implements storage.Engine.
func (e *Engine) Scan(lower, upper []byte, visit func(key, value []byte) bool) error {
	if !e.ops.Enter() {
		return storage.ErrClosed
	}
	defer e.ops.Leave()
	e.mu.Lock()
	snapshot := e.tree.IsoCopy()
	e.mu.Unlock()
	ascend(snapshot, lower, upper, func(it entry) bool { return visit(it.key, it.value) })
	return nil
}

// ascend visits the entries of [lower, upper); an empty upper is the end.
func ascend(t *btree.BTreeG[entry], lower, upper []byte, visit func(entry) bool) {
	t.Ascend(entry{key: lower}, func(it entry) bool {
		if len(upper) > 0 && bytes.Compare(it.key, upper) >= 0 {
			return false
		}
		return visit(it)
	})
}

// Drop implements storage.Engine.
func (e *Engine) Drop(lower, upper []byte) error {
	if !e.ops.Enter() {
		return storage.ErrClosed
	}
	defer e.ops.Leave()
	if bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.apply(&op{opDeleteRange, lower, upper})
	return nil
}

// NewBatch implements storage.Engine.
func (e *Engine) NewBatch() storage.Batch { return &batch{e: e} }

// Stats implements storage.Engine. There is no log, so each commit counts as a
// sync of its own.
func (e *Engine) Stats() storage.Stats {
	e.mu.RLock()
	held := e.bytes
	e.mu.RUnlock()
	n := e.commits.Load()
	return storage.Stats{
		Engine: "memory", MemoryBytes: held,
		Commits: n, Syncs: n, Pending: int(e.pending.Load()),
	}
}

// Close implements storage.Engine.
func (e *Engine) Close() error {
	if !e.ops.Shut() {
		return storage.ErrClosed
	}
	<-e.ops.Idle()
	e.queue.Close()
	<-e.drained
	return nil
}

// op is one collected write. A delete has no value, a range has an upper end.
type op struct {
	kind         opKind
	key, operand []byte
}

type opKind uint8

const (
	opSet opKind = iota
	opDelete
	opDeleteRange
)

type batch struct {
	e    *Engine
	ops  []op
	used bool
}

func (b *batch) add(kind opKind, key, operand []byte) {
	if b.used {
		panic("memory: batch used after Commit or Discard")
	}
	b.ops = append(b.ops, op{kind, bytes.Clone(key), bytes.Clone(operand)})
}

// Set implements storage.Batch.
func (b *batch) Set(key, value []byte) { b.add(opSet, key, value) }

// Delete implements storage.Batch.
func (b *batch) Delete(key []byte) { b.add(opDelete, key, nil) }

// DeleteRange implements storage.Batch.
func (b *batch) DeleteRange(lower, upper []byte) {
	if bytes.Compare(lower, upper) < 0 {
		b.add(opDeleteRange, lower, upper)
	}
}

// Len implements storage.Batch.
func (b *batch) Len() int { return len(b.ops) }

// Discard implements storage.Batch.
func (b *batch) Discard() { b.used, b.ops = true, nil }

// Commit implements storage.Batch.
func (b *batch) Commit(_ storage.Durability, done func(error)) error {
	if b.used {
		panic("memory: batch used after Commit or Discard")
	}
	b.used = true
	e := b.e
	if !e.ops.Enter() {
		return storage.ErrClosed
	}
	defer e.ops.Leave()
	e.mu.Lock()
	for i := range b.ops {
		e.apply(&b.ops[i])
	}
	e.commits.Add(1)
	e.pending.Add(1)
	// Under the lock, so that done is called in the order of application.
	e.queue.Push(done)
	e.mu.Unlock()
	b.ops = nil
	return nil
}

// apply carries out one write; e.mu is held.
func (e *Engine) apply(o *op) {
	switch o.kind {
	case opSet:
		e.remove(o.key)
		e.tree.Set(entry{o.key, o.operand})
		e.bytes += uint64(len(o.key) + len(o.operand))
	case opDelete:
		e.remove(o.key)
	case opDeleteRange:
		var doomed [][]byte
		ascend(e.tree, o.key, o.operand, func(it entry) bool {
			doomed = append(doomed, it.key)
			return true
		})
		for _, key := range doomed {
			e.remove(key)
		}
	}
}

func (e *Engine) remove(key []byte) {
	if old, ok := e.tree.Delete(entry{key: key}); ok {
		e.bytes -= uint64(len(old.key) + len(old.value))
	}
}

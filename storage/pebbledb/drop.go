package pebbledb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/dynactor/dynactor/storage"
)

// dropAttempts is how often the tables are listed again because a compaction has replaced
// one of them meanwhile.
const dropAttempts = 10

// Drop implements storage.Engine: Pebble cuts the range out of its tables, and forgets
// tables that lie within it without a look into them. Of a table that reaches beyond, it
// looks for the last key before the range and the first one after it, and takes an error
// there for "no such key": it would lose all that the table has on that side. So this
// looks first, and drops nothing if a cut would go through what cannot be read.
func (e *Engine) Drop(lower, upper []byte) error {
	if !e.ops.Enter() {
		return storage.ErrClosed
	}
	defer e.ops.Leave()
	if bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	// What is in memory goes to tables first, so that the excision need not wait for that
	// within the commit pipeline, where it would hold up all who write.
	if err := e.flush(); err != nil {
		return fmt.Errorf("storage: drop: %w", err)
	}
	if err := e.cuttable(lower, upper); err != nil {
		return fmt.Errorf("storage: drop: %w", damaged(err))
	}
	err := e.excise(pebble.KeyRange{Start: bytes.Clone(lower), End: bytes.Clone(upper)})
	if failed := e.failure.err(); failed != nil {
		return failed // also if Pebble was told otherwise: see guard
	}
	if err != nil {
		return fmt.Errorf("storage: drop: %w", damaged(err))
	}
	return nil
}

// excise has Pebble cut a range out. Should it panic, it does so under its locks, as in apply.
func (e *Engine) excise(span pebble.KeyRange) (err error) {
	defer func() {
		if r := recover(); r != nil {
			e.wrecked.Store(true)
			e.failure.fail(fmt.Errorf("pebble panicked in a drop: %v", r))
		}
	}()
	return e.db.Excise(context.Background(), span)
}

// flush writes what is in memory to tables.
func (e *Engine) flush() error {
	if err := e.failure.err(); err != nil {
		return err
	}
	flushed, err := e.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
		return nil
	case <-e.failure.thrown:
		return e.failure.err()
	case <-e.stop:
		return storage.ErrClosed
	}
}

// cuttable reads what Pebble will read to cut the range out.
func (e *Engine) cuttable(lower, upper []byte) error {
	for attempt := 1; ; attempt++ {
		levels, err := e.db.SSTables()
		if err != nil {
			return err
		}
		for _, level := range levels {
			for _, t := range level {
				if err = e.readEdges(t, lower, upper); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		if !errors.Is(err, fs.ErrNotExist) || attempt == dropAttempts {
			return err
		}
	}
}

// readEdges reads the last key of a table before the range and the first one after it, if
// the table has keys in the range and there.
func (e *Engine) readEdges(t pebble.SSTableInfo, lower, upper []byte) (err error) {
	first, last := t.Smallest.UserKey, t.Largest.UserKey
	left, right := bytes.Compare(first, lower) < 0, bytes.Compare(last, upper) >= 0
	if bytes.Compare(last, lower) < 0 || bytes.Compare(first, upper) >= 0 || !left && !right {
		return nil
	}
	f, err := e.opts.FS.Open(e.opts.FS.PathJoin(e.dir, fmt.Sprintf("%06d.sst", uint64(t.BackingSSTNum))))
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{})
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if left && it.SeekLT(lower, 0) == nil && it.Error() != nil {
		return it.Error()
	}
	if right && it.SeekGE(upper, 0) == nil && it.Error() != nil {
		return it.Error()
	}
	return nil
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// mark follows how far an import has come: the end of the last record before
// which all are done. It is written to a file once a second, so that an
// interrupted import can go on.
type mark struct {
	path string

	mu      sync.Mutex
	pending map[int64]bool  // lines begun and not done
	ends    map[int64]int64 // line → offset behind it
	next    int64           // first line that is not known to be done
	last    int64           // last line begun
	offset  int64
	written time.Time
}

// place is what the file holds.
type place struct {
	Bucket string `json:"bucket"`
	Offset int64  `json:"offset"`
}

func newMark(path string) *mark {
	return &mark{path: path, pending: map[int64]bool{}, ends: map[int64]int64{}, next: 1}
}

// read returns where an earlier run stopped, 0 if there was none.
func (m *mark) read(bucket string) (int64, error) {
	if m.path == "" {
		return 0, nil
	}
	raw, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var p place
	if err := json.Unmarshal(raw, &p); err != nil || p.Offset < 0 {
		return 0, fmt.Errorf("%s is not the mark of an import (%w); remove it or use --restart", m.path, err)
	}
	if p.Bucket != bucket {
		return 0, fmt.Errorf("%s is of an import into bucket %q; remove it or use --restart", m.path, p.Bucket)
	}
	m.offset = p.Offset
	return p.Offset, nil
}

// begin notes that a line is on its way.
func (m *mark) begin(line, end int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending[line], m.ends[line], m.last = true, end, line
}

// done notes that a line needs no more work.
func (m *mark) done(line int64, bucket string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pending, line)
	for m.next <= m.last && !m.pending[m.next] {
		if end, ok := m.ends[m.next]; ok {
			m.offset = end
			delete(m.ends, m.next)
		}
		m.next++
	}
	if m.path == "" || time.Since(m.written) < time.Second {
		return
	}
	m.written = time.Now()
	m.write(bucket)
}

// write replaces the file. A mark that cannot be written only means that an
// interrupted import begins earlier, so the import goes on.
func (m *mark) write(bucket string) {
	raw, err := json.Marshal(place{Bucket: bucket, Offset: m.offset})
	if err != nil {
		return
	}
	tmp := m.path + ".tmp"
	if os.WriteFile(tmp, raw, 0o600) == nil {
		_ = os.Rename(tmp, m.path)
	}
}

// remove takes the file away when the import is complete.
func (m *mark) remove() error {
	if m.path == "" {
		return nil
	}
	if err := os.Remove(m.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

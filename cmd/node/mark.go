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

// mark follows how far an import has come: the last record before which all are
// written or in the file of failed ones. It is kept in a file once a second, so
// that an interrupted import can go on.
type mark struct {
	path string

	mu      sync.Mutex
	place   place
	begun   []begun        // records from the first that is under way on
	settled map[int64]bool // lines that are done, and whether they failed
	written time.Time
}

// begun is a record that was handed out.
type begun struct{ line, end int64 }

// place is what the file holds: of which import, and how far it has come.
type place struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	// Size and Modified are the input's: a mark of other records leads nowhere.
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	// Line and the Offset behind it end what needs no more work: so many records
	// were written, and so many failed and are in the file for these.
	Line   int64  `json:"line"`
	Offset int64  `json:"offset"`
	Done   uint64 `json:"done"`
	Failed uint64 `json:"failed"`
}

// newMark makes the mark of an import that has not begun.
func newMark(path string, of place) *mark {
	return &mark{path: path, place: of, settled: map[int64]bool{}}
}

// read takes the place where an earlier run stopped, if there was one.
func (m *mark) read() error {
	if m.path == "" {
		return nil
	}
	raw, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var p place
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("%s is not the mark of an import (%w); remove it or use --restart", m.path, err)
	}
	switch of := m.place; {
	case p.Bucket != of.Bucket || p.Key != of.Key:
		return fmt.Errorf("%s is of an interrupted import with --bucket %q --key %q; finish that, or use --restart", m.path, p.Bucket, p.Key)
	case p.Size != of.Size || !p.Modified.Equal(of.Modified) || p.Offset < 0 || p.Offset > p.Size:
		return fmt.Errorf("the records have changed since the import that left %s was interrupted; use --restart", m.path)
	}
	m.place = p
	return nil
}

// begin notes that a line is on its way.
func (m *mark) begin(line, end int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun = append(m.begun, begun{line, end})
}

// done notes that a line needs no more work: it is written, or among the failed.
func (m *mark) done(line int64, failed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settled[line] = failed
	for len(m.begun) > 0 {
		first := m.begun[0]
		failed, ok := m.settled[first.line]
		if !ok {
			break
		}
		delete(m.settled, first.line)
		m.begun = m.begun[1:]
		m.place.Line, m.place.Offset = first.line, first.end
		if failed {
			m.place.Failed++
		} else {
			m.place.Done++
		}
	}
	if time.Since(m.written) >= time.Second {
		m.write()
	}
}

// save keeps the place of an import that ends before its end.
func (m *mark) save() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.write()
}

// write replaces the file. A mark that cannot be written only means that an
// interrupted import begins earlier, so the import goes on.
func (m *mark) write() {
	m.written = time.Now()
	raw, err := json.Marshal(m.place)
	if err != nil || m.path == "" {
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

// Package journal is what a load writes down of its operations and of what it
// found in the end, and what the checker reads: files with one JSON object a line.
package journal

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Kind is what an operation did.
type Kind string

// The kinds of operations.
const (
	Put    Kind = "put"
	Delete Kind = "delete"
	Get    Kind = "get"
)

// Outcome is how an operation ended.
type Outcome string

// The outcomes: a write that failed was not done for certain, one that is unknown
// may take effect, now or later.
const (
	OK      Outcome = "ok"
	Unknown Outcome = "unknown"
	Failed  Outcome = "failed"
)

// Op is one operation on one key.
type Op struct {
	Kind Kind   `json:"kind"`
	Key  string `json:"key"`
	// ID names a write: it is the value that was put, and never used again. A
	// delete has one, too.
	ID string `json:"id,omitempty"`
	// Context tells whether the write had one, Saw the values that the
	// read showed which it came from.
	Context bool     `json:"context,omitempty"`
	Saw     []string `json:"saw,omitempty"`
	// Read are the values that a get showed.
	Read []string `json:"read,omitempty"`
	// Start and End are the time since the journal began.
	Start   time.Duration `json:"start"`
	End     time.Duration `json:"end"`
	Outcome Outcome       `json:"outcome"`
	Error   string        `json:"error,omitempty"`
}

// Final is what a key had at the end.
type Final struct {
	Key string `json:"key"`
	// Replica is the node that was asked alone; empty: the cluster was asked.
	Replica string `json:"replica,omitempty"`
	// Values are those of the key, Dots what the store calls the writes that made
	// them, in the same order.
	Values []string `json:"values"`
	Dots   []string `json:"dots,omitempty"`
}

// Writer writes lines, from any goroutine.
type Writer[T any] struct {
	mu   sync.Mutex
	file *os.File
	buf  *bufio.Writer
	enc  *json.Encoder
	err  error
}

// Create makes a file.
func Create[T any](path string) (*Writer[T], error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	w := &Writer[T]{file: f, buf: bufio.NewWriterSize(f, 1<<16)}
	w.enc = json.NewEncoder(w.buf)
	return w, nil
}

// Write adds a line. What goes wrong is what Close returns.
func (w *Writer[T]) Write(line T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.enc.Encode(line)
	}
}

// Close completes the file.
func (w *Writer[T]) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.buf.Flush()
	}
	if err := w.file.Close(); w.err == nil {
		w.err = err
	}
	return w.err
}

// Read reads all lines of a file.
func Read[T any](path string) ([]T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []T
	for d := json.NewDecoder(bufio.NewReaderSize(f, 1<<16)); ; {
		var line T
		if err := d.Decode(&line); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s, entry %d: %w", path, len(out)+1, err)
		}
		out = append(out, line)
	}
}

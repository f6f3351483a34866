package pebbledb

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/dynactor/dynactor/storage"
)

// script is a file that takes a few bytes at a time and then says err.
type script struct {
	vfs.File
	steps []step
	got   bytes.Buffer
}

type step struct {
	take int
	err  error
}

func (s *script) Write(p []byte) (int, error) {
	if len(s.steps) == 0 {
		return s.got.Write(p)
	}
	now := s.steps[0]
	s.steps = s.steps[1:]
	n := min(now.take, len(p))
	s.got.Write(p[:n])
	return n, now.err
}

func newTestGuard() *guard {
	o := small(vfs.NewMem()).withDefaults()
	o.spaceInterval = time.Microsecond
	g := newGuard(&o, newFailure(o.Logger, nil), make(chan struct{}))
	g.space = newSpace(&o, func() (uint64, uint64, error) { return 0, 0, errors.ErrUnsupported }, func() {})
	return g
}

// TestPartialWrites: what a full disk did not take is written when there is room,
// once and in order; any other error is final and writes nothing more.
func TestPartialWrites(t *testing.T) {
	const text = "0123456789"
	for _, c := range []struct {
		name   string
		steps  []step
		want   string
		failed bool
	}{
		{"whole", nil, text + text, false},
		{"full at once", []step{{0, syscall.ENOSPC}}, text + text, false},
		{"full in the middle, twice", []step{{4, syscall.ENOSPC}, {3, syscall.EDQUOT}}, text + text, false},
		{"broken", []step{{0, errDisk}}, "", true},
		{"full, then broken", []step{{4, syscall.ENOSPC}, {2, errDisk}}, "012345", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for kind, wrap := range map[string]func(*guard, vfs.File) vfs.File{
				"log": func(g *guard, f vfs.File) vfs.File { return &logFile{File: f, g: g} },
				"manifest": func(g *guard, f vfs.File) vfs.File {
					return &manifestFile{tableFile: tableFile{File: f, g: g}}
				},
			} {
				g := newTestGuard()
				s := &script{steps: c.steps}
				f := wrap(g, s)
				for range 2 {
					n, err := f.Write([]byte(text))
					if logLies := kind == "log"; (logLies || !c.failed) && (n != len(text) || err != nil) {
						t.Errorf("%s: write = %d, %v", kind, n, err)
					}
				}
				if got := s.got.String(); got != c.want {
					t.Errorf("%s: wrote %q, want %q", kind, got, c.want)
				}
				if err := g.failure.err(); errors.Is(err, storage.ErrFailed) != c.failed {
					t.Errorf("%s: failed = %v", kind, err)
				}
			}
		})
	}
}

package pebbledb

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dynactor/dynactor/storage"
)

// Limits of the reserve that is picked when none is given.
const (
	minReserve = 64 << 20
	maxReserve = 8 << 30
)

// space watches the free space and refuses writes before the disk is full. A
// full disk is worse than a refused write: Pebble then retries flushes without
// pause and treats a log it cannot write as the end.
//
// It looks at most once per interval, or earlier when the writes since the last
// look could have used up a part of the reserve. There is no goroutine: a refused
// writer who tries again makes the look that lets it in.
type space struct {
	probe    func() (free, total uint64, err error)
	reserve  uint64 // 0: automatic
	interval time.Duration
	start    time.Time

	budget  atomic.Int64          // bytes that may be written before the next look
	next    atomic.Int64          // time of the next look, since start
	refusal atomic.Pointer[error] // non-nil while writes are refused
	vital   atomic.Bool           // while they are refused, whether vital ones are not
	mu      sync.Mutex            // held by the one who looks
	lookErr error                 // result of the last look, guarded by mu
	onError func(error)           // told when the free space is not known
	onFull  func()                // told when the disk refused a write
}

func newSpace(o *Options, probe func() (free, total uint64, err error), onFull func()) *space {
	s := &space{
		probe: probe, onFull: onFull,
		reserve: o.ReserveBytes, interval: o.spaceInterval, start: time.Now(),
	}
	log := o.Logger
	s.onError = func(err error) {
		log.Warn("free disk space is not known; writes are not limited by it", "err", err)
	}
	return s
}

// admit returns nil or ErrFull for a write of n bytes.
func (s *space) admit(n int, vital bool) error {
	if s.budget.Add(-int64(n)) < 0 || int64(time.Since(s.start)) >= s.next.Load() {
		s.look()
	}
	if p := s.refusal.Load(); p != nil && !(vital && s.vital.Load()) {
		return *p
	}
	return nil
}

// full says whether writes were refused at the last look.
func (s *space) full() bool { return s.refusal.Load() != nil }

// reserveOf returns the bytes to keep free on a disk of that size.
func (s *space) reserveOf(total uint64) uint64 {
	if s.reserve > 0 {
		return s.reserve
	}
	return min(max(total/20, minReserve), maxReserve, total/4)
}

// look measures, unless somebody else does so right now.
func (s *space) look() {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	free, total, err := s.probe()
	if err != nil && s.lookErr == nil && !errors.Is(err, errors.ErrUnsupported) {
		s.onError(err)
	}
	s.lookErr = err
	s.next.Store(int64(time.Since(s.start) + s.interval))
	if err != nil {
		s.budget.Store(minReserve)
		s.refusal.Store(nil)
		return
	}
	reserve := s.reserveOf(total)
	s.budget.Store(int64(reserve / 16))
	// Once refused, some more than the reserve must be free, or writes would be
	// let in and refused by turns.
	need := reserve
	if s.full() {
		need += reserve / 8
	}
	if free >= need {
		s.refusal.Store(nil)
		return
	}
	s.refuse(free >= reserve/2, fmt.Errorf("%w: %d bytes free of %d, reserve %d", storage.ErrFull, free, total, need))
}

// sawFull notes that the disk refused a write, whatever it says is free. Writes
// are refused until a look one second or more from now.
func (s *space) sawFull() {
	hold := max(s.interval, min(time.Second, 4*s.interval))
	s.next.Store(int64(time.Since(s.start) + hold))
	s.budget.Store(1 << 62)
	s.refuse(false, fmt.Errorf("%w: the file system refused a write", storage.ErrFull))
	s.onFull()
}

func (s *space) refuse(vital bool, err error) {
	s.vital.Store(vital)
	s.refusal.Store(&err)
}

// isFull says whether err means that the disk, or our share of it, is full.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

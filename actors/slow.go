package actors

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/messages"
)

const (
	// slowKept is how many of the requests of one minute are kept.
	slowKept = 32
	// slowMinutes is for how many minutes, besides the one that runs.
	slowMinutes = 5
)

// slowRequests keeps the slowest requests of each of the last minutes. Any goroutine may use it.
type slowRequests struct {
	// began is when its first minute did.
	began time.Time
	// floor is what a request must be above to be kept in the minute that runs, which ends
	// until after began: a fast one compares with both, and that is all.
	floor, until atomic.Int64

	mu      sync.Mutex
	minutes [slowMinutes + 1]slowMinute
}

// slowMinute has the slowest requests that began in one minute.
type slowMinute struct {
	number int64
	kept   []slowEntry
}

type slowEntry struct {
	messages.SlowRequest
	ended time.Time
}

func newSlowRequests(now time.Time) *slowRequests { return &slowRequests{began: now} }

// takes reports whether a request that began at some time would be kept.
func (s *slowRequests) takes(took time.Duration, began time.Time) bool {
	return int64(took) > s.floor.Load() || int64(began.Sub(s.began)) >= s.until.Load()
}

// add keeps a request, in the place of the fastest if there is no other.
func (s *slowRequests) add(began time.Time, r messages.SlowRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number := int64(max(began.Sub(s.began), 0) / time.Minute)
	m := &s.minutes[number%int64(len(s.minutes))]
	switch {
	case number < m.number:
		return // it took longer than the minutes that are kept
	case number > m.number:
		*m = slowMinute{number: number}
	}
	e := slowEntry{r, began.Add(r.Took)}
	if len(m.kept) < slowKept {
		m.kept = append(m.kept, e)
	} else if i := m.fastest(); m.kept[i].Took < r.Took {
		m.kept[i] = e
	}
	until := int64(time.Duration(number+1) * time.Minute)
	if until < s.until.Load() {
		return // of a minute before
	}
	s.until.Store(until)
	s.floor.Store(0)
	if len(m.kept) == slowKept {
		s.floor.Store(int64(m.kept[m.fastest()].Took))
	}
}

func (m *slowMinute) fastest() int {
	best := 0
	for i := range m.kept {
		if m.kept[i].Took < m.kept[best].Took {
			best = i
		}
	}
	return best
}

// list is what is kept, slowest first.
func (s *slowRequests) list(limit int, now time.Time) []messages.SlowRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := int64(now.Sub(s.began)/time.Minute) - slowMinutes
	var out []messages.SlowRequest
	for _, m := range s.minutes {
		if m.number < oldest {
			continue
		}
		for _, e := range m.kept {
			e.Ago = max(now.Sub(e.ended), 0)
			out = append(out, e.SlowRequest)
		}
	}
	slices.SortStableFunc(out, func(a, b messages.SlowRequest) int { return cmp.Compare(b.Took, a.Took) })
	return out[:min(limit, len(out))]
}

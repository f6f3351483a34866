package cached

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// shard is a part of the cache with its lock.
type shard struct {
	mu    sync.Mutex
	limit int64
	bytes int64
	lru   *simplelru.LRU[string, []byte]
	// busy are the keys that are being read from the engine or written to it.
	busy map[string]*busy
	// ranges is how many commits that delete a range are under way.
	ranges int
	// hits and misses count what was asked for.
	hits, misses uint64
}

// busy is what goes on with one key in the engine inside.
type busy struct {
	key string
	// writers is how many commits under way change the key; overlapping, that
	// another one, or one that deletes a range, began meanwhile: the cache
	// cannot tell which of them is last.
	writers     int
	overlapping bool
	// filling: a read is under way that may put into the cache what it finds.
	filling bool
}

func (s *shard) init(limit int64) {
	s.limit, s.busy = limit, make(map[string]*busy)
	// Bounded by bytes here, not by entries there; the error is for size 0.
	s.lru, _ = simplelru.NewLRU(math.MaxInt, func(key string, value []byte) {
		s.bytes -= weight(len(key), len(value))
	})
}

func weight(key, value int) int64 { return int64(key) + int64(value) + entryOverhead }

// fits reports whether the shard would keep an entry of these lengths.
func (s *shard) fits(key, value int) bool { return weight(key, value) <= s.limit/maxShare }

// figures are what the shard takes, in bytes, and what it was asked.
func (s *shard) figures() (bytes int64, hits, misses uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.hits, s.misses
}

// peek returns the value if the shard has it.
func (s *shard) peek(key []byte) ([]byte, bool) {
	k := string(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.lru.Get(k)
	if ok { // a miss is asked again, by look
		s.hits++
	}
	return value, ok
}

// look returns the value, which is never nil; or, if the shard has none, the
// right to fill it in, nil if somebody else is at the key.
func (s *shard) look(key []byte) ([]byte, *busy) {
	k := string(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if value, ok := s.lru.Get(k); ok {
		s.hits++
		return value, nil
	}
	s.misses++
	if s.busy[k] != nil || s.ranges > 0 || s.limit == 0 {
		return nil, nil
	}
	f := &busy{key: k, filling: true}
	s.busy[k] = f
	return nil, f
}

// fill gives the right of look back, with the value found or nil for none. The
// value is kept unless a commit has taken the right away.
func (s *shard) fill(f *busy, value []byte) {
	if value != nil && s.fits(len(f.key), len(value)) {
		value = clone(value)
	} else {
		value = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[f.key] != f || !f.filling {
		return
	}
	delete(s.busy, f.key)
	if value != nil {
		s.add(f.key, value)
	}
}

// begin keeps a key out of the cache until end.
func (s *shard) begin(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(key)
	b := s.busy[key]
	if b == nil || b.filling { // a read that began before must not fill
		b = &busy{key: key}
		s.busy[key] = b
	}
	b.writers++
	b.overlapping = b.overlapping || b.writers > 1 || s.ranges > 0
}

// end lets the key in again, with its value if it is known.
func (s *shard) end(key string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.busy[key]
	if b.writers--; b.writers > 0 {
		return
	}
	delete(s.busy, key)
	if !b.overlapping && value != nil {
		s.add(key, value)
	}
}

// beginRange empties the shard and keeps reads from filling it until endRange.
func (s *shard) beginRange() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ranges++
	s.lru.Purge()
	for key, b := range s.busy {
		if b.filling {
			delete(s.busy, key)
			continue
		}
		b.overlapping = true
	}
}

func (s *shard) endRange() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ranges--
}

// add keeps a value and makes room for it.
func (s *shard) add(key string, value []byte) {
	s.lru.Add(key, value)
	s.bytes += weight(len(key), len(value))
	for s.bytes > s.limit {
		s.lru.RemoveOldest()
	}
}

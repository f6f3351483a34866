package rt

import (
	"testing"
	"time"
)

// TestClock: it is positive, never goes back, and goes as fast as the runtime's.
func TestClock(t *testing.T) {
	first, began := Clock(), time.Now()
	if first < decades || first > decades+24*time.Hour {
		t.Errorf("the process started %v before", first-decades)
	}
	last := first
	eventually(t, "20 ms have passed", func() bool {
		now := Clock()
		if now < last {
			t.Errorf("%v after %v", now, last)
		}
		last = now
		return time.Since(began) > 20*time.Millisecond
	})
	took := time.Since(began)
	if passed := Clock() - first; passed < 19*time.Millisecond || passed > took+time.Second {
		t.Errorf("%v by this clock, %v by the runtime's", passed, took)
	}
}

func BenchmarkClock(b *testing.B) {
	for b.Loop() {
		Clock()
	}
}

package actors

import (
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo/admission"
	"github.com/dynactor/dynactor/messages"
)

// TestRecent: requests are in the percentiles for the time that these are of, and in no later ones.
func TestRecent(t *testing.T) {
	var r recent
	said := func() (requests messages.Count, slowest time.Duration) {
		t.Helper()
		f := r.inspect(nil)
		if len(f) != 1 || f[0].Name != "requests of the last 10s" {
			t.Fatalf("%+v", f)
		}
		for _, x := range f[0].Value.(messages.List).Fields {
			switch x.Name {
			case "requests":
				requests = x.Value.(messages.Count)
			case "p99.9":
				slowest = x.Value.(time.Duration)
			}
		}
		return requests, slowest
	}
	slow, fast := admission.Histogram{}, admission.Histogram{}
	slow[admission.Bucket(time.Second)], fast[admission.Bucket(time.Millisecond)] = 1, 2
	r.add(&slow)
	ticks := int(recentFor / admissionTick)
	for range ticks - 1 {
		r.add(&fast)
	}
	if n, p := said(); n != messages.Count(1+2*(ticks-1)) || p < time.Second || p > 2*time.Second {
		t.Errorf("%d requests, the slowest %v", n, p)
	}
	for range slotTicks {
		r.add(&fast)
	}
	if n, p := said(); n != messages.Count(2*ticks) || p < time.Millisecond || p > 2*time.Millisecond {
		t.Errorf("after 10 s %d requests, the slowest %v", n, p)
	}
	for range ticks {
		r.add(&admission.Histogram{})
	}
	if n, p := said(); n != 0 || p != 0 {
		t.Errorf("after 10 s of nothing %d requests, the slowest %v", n, p)
	}
}

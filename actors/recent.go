package actors

import (
	"fmt"
	"time"

	"github.com/dynactor/dynactor/dynamo/admission"
	"github.com/dynactor/dynactor/messages"
)

const (
	// recentFor is how far back operators see how long requests take, recentSlots in how many
	// parts that time is kept.
	recentFor   = 10 * time.Second
	recentSlots = 10
	slotTicks   = int(recentFor / recentSlots / admissionTick)
)

// recent is how long the requests of the last seconds took. It belongs to one actor.
type recent struct {
	slots [recentSlots]admission.Histogram
	ticks int
}

// add takes the requests of one tick in.
func (r *recent) add(h *admission.Histogram) {
	slot := &r.slots[r.ticks/slotTicks%recentSlots]
	if r.ticks%slotTicks == 0 {
		*slot = admission.Histogram{}
	}
	r.ticks++
	for i, n := range h {
		slot[i] += n
	}
}

// inspect says it with percentiles, which are off by at most an eighth.
func (r *recent) inspect(f messages.Fields) messages.Fields {
	var all admission.Histogram
	for _, slot := range r.slots {
		for i, n := range slot {
			all[i] += n
		}
	}
	return f.Add(fmt.Sprintf("requests of the last %v", recentFor), messages.Fields{}.Add("requests", uint64(all.Count())).
		Add("p50", all.Percentile(0.5)).Add("p99", all.Percentile(0.99)).Add("p99.9", all.Percentile(0.999)))
}

package actors

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/messages"
)

// counted is what was counted of an operation on a bucket.
func (r *rig) counted(bucket string, op Operation) RequestFigures {
	all, _ := r.node.Requests()
	for _, f := range all {
		if f.Bucket == bucket && f.Operation == op {
			return f
		}
	}
	return RequestFigures{}
}

func total(h *Histogram) (n uint64) {
	if h != nil {
		for _, c := range h.Counts {
			n += c
		}
	}
	return n
}

// TestRequestsAreCounted by bucket, operation and outcome, each once.
func TestRequestsAreCounted(t *testing.T) {
	r := start(t, setup{nodes: 3, buckets: []member.Bucket{{Name: "b", Properties: bucket.Default()}}})
	r.replicas("n2", "n3")
	r.put(putOf("k", "one", nil))
	r.put(putOf("k", "two", nil))
	deletion := putOf("l", "", nil)
	deletion.Delete = true
	r.put(deletion)
	r.shown("k")
	r.shown("k")
	r.shown("l")
	unknown := &messages.GetRequest{Bucket: []byte("made up"), Key: []byte("never")}
	r.probe.Ask(r.coordinator(), unknown)
	actortest.Next[*messages.GetReply](t, r.probe)
	r.probe.Ask(r.coordinator(), &messages.GetRequest{Bucket: bucketB, Key: []byte("k"), Quorum: &messages.Quorum{R: 9}})
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeInvalid {
		t.Fatal(f)
	}
	for _, c := range []struct {
		bucket   string
		op       Operation
		outcomes map[string]uint64
		measured uint64
	}{
		{"b", Get, map[string]uint64{"found": 2, "not_found": 1, "invalid": 1}, 3},
		{"b", Put, map[string]uint64{"done": 2}, 2},
		{"b", Delete, map[string]uint64{"done": 1}, 1},
		{"other", Get, map[string]uint64{"not_found": 1}, 1},
		{"made up", Get, nil, 0},
	} {
		f := r.counted(c.bucket, c.op)
		if !maps.Equal(f.Outcomes, c.outcomes) || total(f.Latency) != c.measured {
			t.Errorf("%v of %s: %v, %d measured", c.op, c.bucket, f.Outcomes, total(f.Latency))
		}
		if c.measured > 0 && (f.Latency.Sum <= 0 || f.Latency.Sum > actortest.Patience.Seconds()) {
			t.Errorf("%v of %s took %v s", c.op, c.bucket, f.Latency.Sum)
		}
	}
	siblings := r.counted("b", Get).Siblings
	if total(siblings) != 2 || siblings.Sum != 4 || siblings.Bounds[1] != 2 || siblings.Counts[1] != 2 {
		t.Errorf("siblings: %+v", siblings)
	}
	_, replicas := r.node.Requests()
	for op, n := range map[Operation]uint64{Get: 4, Put: 2, Delete: 1} {
		h := replicas[op]
		if total(&h) != n || h.Counts[2] != n { // two answers are enough
			t.Errorf("replicas of %v: %+v", op, h)
		}
	}
}

// TestRefusedRequestsAreCounted: those that a full node does not let in.
func TestRefusedRequestsAreCounted(t *testing.T) {
	r := start(t, setup{nodes: 3, change: func(c *Config) { c.MaxRequests = 1 }})
	h := r.held("n2", "n3")
	r.probe.Ask(r.coordinator(), getOf("k"))
	r.probe.Ask(r.coordinator(), getOf("k"))
	actortest.Next[*messages.Failure](t, r.probe)
	r.s.shed(nil, putOf("k", "v", nil))
	r.s.expired(nil, &order{request: getOf("k")})
	want := map[string]uint64{"overloaded": 1, "expired": 1}
	if f := r.counted("other", Get); !maps.Equal(f.Outcomes, want) || f.Latency != nil {
		t.Errorf("%+v", f)
	}
	if f := r.counted("other", Put); !maps.Equal(f.Outcomes, map[string]uint64{"overloaded": 1}) {
		t.Errorf("%+v", f)
	}
	if n := r.node.Figures().InFlight; n != 1 {
		t.Errorf("%d in flight", n)
	}
	h.release()
	actortest.Next[*messages.GetReply](t, r.probe)
}

// TestArrival: what a request waited before its turn is part of what it took.
func TestArrival(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.replicas("n2", "n3")
	began := time.Now().Add(-time.Minute)
	r.probe.Ask(r.coordinator(), getOf("k"))
	actortest.Next[*messages.GetReply](t, r.probe)
	r.s.System.Root.Send(r.coordinator(), &order{request: getOf("k"), client: r.probe.PID, arrived: began})
	actortest.Next[*messages.GetReply](t, r.probe)
	if h := r.counted("other", Get).Latency; h.Sum < 60 || h.Sum > 60+2*actortest.Patience.Seconds() || h.Counts[slices.Index(h.Bounds, 120)] != 1 {
		t.Errorf("%+v", h)
	}
}

// TestMeasuredBuckets: names that anybody can make up do not cost memory, and those that are counted
// stay when others come.
func TestMeasuredBuckets(t *testing.T) {
	var table requestTable
	doc := member.Document{Buckets: []member.Bucket{{Name: "first"}, {Name: otherBuckets}}}
	table.know(&doc)
	first := table.of("first")
	for i := range 2 * maxMeasured {
		doc.Buckets = append([]member.Bucket{{Name: fmt.Sprint("b", i)}}, doc.Buckets...)
	}
	table.know(&doc)
	rows := *table.rows.Load()
	if len(rows) != maxMeasured || table.of("first") != first || rows[otherBuckets] != nil || table.of("none") != &table.other {
		t.Errorf("%d rows", len(rows))
	}
	for _, bucket := range []string{"first", "none", "nobody"} {
		table.answered(bucket, Get, &messages.GetReply{}, 0)
	}
	if all := table.figures(); len(all) != 2 || all[0].Bucket != "other" || all[0].Outcomes["not_found"] != 2 {
		t.Errorf("%+v", all)
	}
}

// TestBounds: fine enough for the last percentiles, from what the fastest request takes to what the slowest may.
func TestBounds(t *testing.T) {
	if b := latencyBounds; b[0] != int64(100*time.Microsecond) || time.Duration(b[len(b)-1]) != messages.MaxTimeout || len(b) > maxBounds {
		t.Errorf("%v", b)
	}
	for i := range len(latencyBounds) - 1 {
		if a, b := latencyBounds[i], latencyBounds[i+1]; b <= a || 2*b > 5*a || a < int64(10*time.Second) && 3*b > 5*a {
			t.Errorf("%v is followed by %v", time.Duration(a), time.Duration(b))
		}
	}
	var d distribution
	for _, v := range []int64{0, 1, 2, 3, 26, 25, 1000} {
		d.add(siblingBounds, v)
	}
	h, _ := d.histogram(siblingBounds, 1)
	if want := []uint64{2, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1}; !slices.Equal(h.Counts, want) || h.Sum != 1057 {
		t.Errorf("%+v", h)
	}
}

// TestOutcomes: every code of a failure has a word of its own.
func TestOutcomes(t *testing.T) {
	seen := map[string]bool{}
	for c := messages.CodeInternal; c <= messages.CodeTooOld; c++ {
		seen[outcomeOf(messages.Fail(c, "")).String()] = true
	}
	if len(seen) != int(messages.CodeTooOld) || !seen["outcome_unknown"] || outcomeOf(messages.Fail(1<<31, "")) != outcomes-1 {
		t.Errorf("%v", seen)
	}
}

// measured counts one read, as a request does.
func measured() func() {
	var table requestTable
	doc := member.Document{Buckets: []member.Bucket{{Name: "b"}}}
	table.know(&doc)
	reply := &messages.GetReply{Values: []*messages.Value{{}}}
	return func() {
		table.answered("b", Get, reply, 300*time.Microsecond)
		table.met(Get, 2)
		table.found("b", 1)
	}
}

// TestMeasuringAllocatesNothing on the way of a request.
func TestMeasuringAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, measured()); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkMeasure is what counting costs a request, alone and with all processors counting the same.
func BenchmarkMeasure(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		count := measured()
		for b.Loop() {
			count()
		}
	})
	b.Run("all", func(b *testing.B) {
		count := measured()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				count()
			}
		})
	})
}

// BenchmarkMeasuredGets compares reads of a node that counts its requests with those of one that does not, in short
// turns: "on/off" is the middle of the ratios of their throughputs. There is one replica, in memory, and no network,
// so that a read costs as little as it can besides.
func BenchmarkMeasuredGets(b *testing.B) {
	const turnLength = 250 * time.Millisecond
	var sides [2]*rig
	for i := range sides {
		properties := bucket.Default()
		properties.Quorum = quorum.Params{N: 1, R: 1, W: 1}
		sides[i] = start(b, setup{
			partitions: 16, buckets: []member.Bucket{{Name: string(bucketB), Properties: properties}},
			change: func(c *Config) { c.unmeasured = i == 1 },
		})
		sides[i].probe.Ask(sides[i].coordinator(), putOf("k", "v", nil))
		actortest.Next[*messages.PutReply](b, sides[i].probe)
		sides[i].gets(b, time.Second)
	}
	var ratios, on []float64
	b.ResetTimer()
	for i := range b.N {
		var rate [2]float64
		for j := range sides {
			k := (i + j) % 2
			rate[k] = sides[k].gets(b, turnLength)
		}
		ratios, on = append(ratios, rate[0]/rate[1]), append(on, rate[0])
	}
	for name, all := range map[string][]float64{"on/off": ratios, "on-gets/s": on} {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], name)
	}
}

// gets reads a key with 16 readers for so long, and returns how many times a second that was.
func (r *rig) gets(b *testing.B, d time.Duration) float64 {
	began := time.Now()
	var all sync.WaitGroup
	counts := make([]int, 16)
	for i := range counts {
		all.Go(func() {
			for probe := actortest.NewProbe(r.system); time.Since(began) < d; counts[i]++ {
				probe.Ask(r.coordinator(), getOf("k"))
				actortest.Next[*messages.GetReply](b, probe)
			}
		})
	}
	all.Wait()
	n := 0
	for _, c := range counts {
		n += c
	}
	return float64(n) / time.Since(began).Seconds()
}

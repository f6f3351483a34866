package actors

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// Operation is what a request asks for, as it is measured.
type Operation uint8

// The operations. A write that is passed on to a node which may coordinate it is a Forward on the
// node that passes it on, and a Put or Delete on the other.
const (
	Get Operation = iota
	Put
	Delete
	Forward
	operations
)

// String is the operation's name in metrics.
func (o Operation) String() string { return [...]string{"get", "put", "delete", "forward"}[o] }

// outcome is how a request was answered: found, notFound or done, or failed and the failure's code.
type outcome uint8

const (
	found outcome = iota
	notFound
	done
	failed
	// outcomes is more than there are codes.
	outcomes outcome = 32
)

// String is the outcome's name in metrics.
func (o outcome) String() string {
	if o < failed {
		return [...]string{"found", "not_found", "done"}[o]
	}
	return strings.ReplaceAll(messages.CodeName(uint32(o-failed)), " ", "_")
}

func outcomeOf(reply any) outcome {
	switch m := reply.(type) {
	case *messages.GetReply:
		if len(m.GetValues()) == 0 {
			return notFound
		}
		return found
	case *messages.Failure:
		return failed + outcome(min(m.GetCode(), uint32(outcomes-1-failed)))
	}
	return done
}

// The bounds of histograms: each counts what is at most so much.
var (
	// latencyBounds are from 100 µs to what no request may take longer than, and at most two
	// thirds as much again apart up to where most timeouts are.
	latencyBounds = func() (out []int64) {
		for decade := 100 * time.Microsecond; decade < 10*time.Second; decade *= 10 {
			for _, tenths := range []time.Duration{10, 15, 20, 30, 50, 70} {
				out = append(out, int64(decade*tenths/10))
			}
		}
		return append(out, int64(10*time.Second), int64(15*time.Second), int64(30*time.Second), int64(time.Minute), int64(2*time.Minute), int64(messages.MaxTimeout))
	}()
	siblingBounds = []int64{1, 2, 3, 4, 5, 8, 10, 15, 25, 50, 75, 100}
	replicaBounds = []int64{0, 1, 2, 3, 4, 5, 6, 8, 10}
)

// maxBounds is how many bounds a histogram has at most.
const maxBounds = 40

// distribution counts values between bounds. To count one is two atomic additions.
type distribution struct {
	counts [maxBounds + 1]atomic.Uint64
	sum    atomic.Int64
}

func (d *distribution) add(bounds []int64, value int64) {
	i, _ := slices.BinarySearch(bounds, value)
	d.counts[i].Add(1)
	d.sum.Add(value)
}

// Histogram is how often values were at most each bound, and above the one before.
type Histogram struct {
	Bounds []float64
	// Counts has one more than Bounds, of what is above all of them.
	Counts []uint64
	Sum    float64
}

// histogram reads a distribution, in units of so much; false if nothing was counted.
func (d *distribution) histogram(bounds []int64, unit float64) (h Histogram, ok bool) {
	h = Histogram{Sum: float64(d.sum.Load()) / unit}
	for i := range len(bounds) + 1 {
		n := d.counts[i].Load()
		h.Counts = append(h.Counts, n)
		ok = ok || n > 0
	}
	for _, b := range bounds {
		h.Bounds = append(h.Bounds, float64(b)/unit)
	}
	return h, ok
}

// measures are what was counted of the requests to one bucket.
type measures struct {
	outcomes [operations][outcomes]atomic.Uint64
	// latency is from arrival to answer, of requests that were let in.
	latency  [operations]distribution
	siblings distribution
}

const (
	// maxMeasured is how many buckets are counted apart.
	maxMeasured = 100
	// otherBuckets is what the others are counted as. No bucket has the name, or it would be
	// one of them.
	otherBuckets = "other"
)

// requestTable counts requests by bucket. Buckets that the cluster document does not name, which anybody
// can make up, are counted together. A nil table counts nothing.
type requestTable struct {
	rows  atomic.Pointer[map[string]*measures]
	other measures
	// replicas is how many replicas had answered when the client was.
	replicas [operations]distribution
}

// know has the buckets of a document counted apart, as long as there are not too many; those that are
// counted stay. It is called by one goroutine at a time.
func (t *requestTable) know(doc *member.Document) {
	if t == nil {
		return
	}
	rows := map[string]*measures{}
	if old := t.rows.Load(); old != nil {
		for name, m := range *old {
			rows[name] = m
		}
	}
	for _, b := range doc.Buckets {
		if rows[b.Name] == nil && len(rows) < maxMeasured && b.Name != otherBuckets {
			rows[b.Name] = &measures{}
		}
	}
	t.rows.Store(&rows)
}

func (t *requestTable) of(bucket string) *measures {
	if rows := t.rows.Load(); rows != nil {
		if m := (*rows)[bucket]; m != nil {
			return m
		}
	}
	return &t.other
}

// answered counts a request that was let in.
func (t *requestTable) answered(bucket string, op Operation, reply any, took time.Duration) {
	if t == nil {
		return
	}
	m := t.of(bucket)
	m.outcomes[op][outcomeOf(reply)].Add(1)
	m.latency[op].add(latencyBounds, int64(took))
}

// met counts how many replicas had answered when the client is.
func (t *requestTable) met(op Operation, replicas int) {
	if t != nil {
		t.replicas[op].add(replicaBounds, int64(replicas))
	}
}

// found counts how many versions a read has found.
func (t *requestTable) found(bucket string, versions int) {
	if t != nil {
		t.of(bucket).siblings.add(siblingBounds, int64(versions))
	}
}

// refused counts a request that was not let in, if the message is one.
func (t *requestTable) refused(message any, f *messages.Failure) {
	if t == nil {
		return
	}
	if o, ok := message.(*order); ok {
		message = o.request
	}
	switch m := message.(type) {
	case *messages.GetRequest:
		t.of(string(m.GetBucket())).outcomes[Get][outcomeOf(f)].Add(1)
	case *messages.PutRequest:
		t.of(string(m.GetBucket())).outcomes[writing(m.GetDelete())][outcomeOf(f)].Add(1)
	}
}

func writing(deletes bool) Operation {
	if deletes {
		return Delete
	}
	return Put
}

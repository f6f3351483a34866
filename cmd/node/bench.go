package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/dynactor/dynactor/bench"
	"github.com/dynactor/dynactor/client"
)

// benchCmd is node bench.
type benchCmd struct {
	connection
	Clients   int           `help:"Requests under way at once (closed loop)." default:"64"`
	Duration  time.Duration `help:"How long to measure." default:"10s"`
	Warmup    time.Duration `help:"How long to run before measuring." default:"2s"`
	Mix       string        `help:"What to do: put, get, a (half gets, half puts) or b (95 of 100 are gets)." enum:"put,get,a,b" default:"a"`
	Dist      string        `help:"How keys are drawn: zipf (0.99, scattered) or uniform." enum:"zipf,uniform" default:"zipf"`
	Keys      int           `help:"Number of keys." default:"100000"`
	ValueSize int           `help:"Bytes of a value." default:"100"`
	Bucket    string        `help:"Bucket to work in." default:"bench"`
	NoLoad    bool          `help:"Do not write all keys first (they are written unless the mix is put)."`
	CPUOf     []int         `name:"cpu-of" help:"Process ids whose CPU time to count, beside this one's." placeholder:"PID"`
	JSON      bool          `name:"json" help:"Print the result as JSON."`
}

// benchRun is a run.
type benchRun struct {
	*benchCmd
	bucket *client.Bucket
	value  []byte
	zipf   *bench.Zipf
	// contexts holds the last context seen for each key, so that puts replace
	// what they have seen, as an application's do.
	contexts []atomic.Pointer[client.Context]
	done     atomic.Uint64
	failed   atomic.Uint64
	mu       sync.Mutex
	firstErr error
	live     *hdrhistogram.Histogram // of the last second
	gets     *hdrhistogram.Histogram
	puts     *hdrhistogram.Histogram
	measure  atomic.Bool
}

// Run loads the keys, warms up, measures and prints.
func (c *benchCmd) Run(ctx context.Context, s *streams) error {
	if c.Clients < 1 || c.Keys < 2 || c.ValueSize < 1 || c.Duration <= 0 {
		return usageError("--clients, --value-size and --duration must be positive, --keys at least 2")
	}
	for _, pid := range c.CPUOf {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/stat", pid)); err != nil {
			return usageError(fmt.Sprintf("--cpu-of %d: no such process, or no /proc to read its time from", pid))
		}
	}
	return c.one(func(cl *client.Client) error {
		if err := c.ready(ctx, cl); err != nil {
			return err
		}
		b := &benchRun{
			benchCmd: c, bucket: cl.Bucket(c.Bucket), value: bench.Value(c.ValueSize),
			contexts: make([]atomic.Pointer[client.Context], c.Keys),
			live:     bench.NewHistogram(), gets: bench.NewHistogram(), puts: bench.NewHistogram(),
		}
		if c.Dist == "zipf" {
			b.zipf = bench.NewZipf(uint64(c.Keys), 0.99)
		}
		return b.run(ctx, s)
	})
}

func (b *benchRun) run(ctx context.Context, s *streams) error {
	if b.Mix != "put" && !b.NoLoad {
		if err := b.load(ctx, s); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i := range b.Clients {
		wg.Go(func() { b.worker(ctx, uint64(i)) })
	}
	wait(ctx, b.Warmup)
	b.reset()
	cpu, started := bench.CPU(b.CPUOf), time.Now()
	b.measure.Store(true)
	b.watch(ctx, s, b.Duration)
	b.measure.Store(false)
	r := b.result(time.Since(started), bench.CPU(b.CPUOf)-cpu)
	cancel()
	wg.Wait()
	if err := r.print(s, b.JSON); err != nil {
		return err
	}
	if r.Operations == 0 {
		return fmt.Errorf("no request was answered: %w", b.firstErr)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// load writes every key once.
func (b *benchRun) load(ctx context.Context, s *streams) error {
	fmt.Fprintf(s.err, "loading %d keys ...\n", b.Keys)
	p := newProgress(s.err, "loading", int64(b.Keys))
	defer p.end()
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range b.Clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= uint64(b.Keys) {
					return
				}
				if b.put(ctx, i) != nil {
					p.failed.Add(1)
				} else {
					p.done.Add(1)
				}
				p.advance(int64(i))
			}
		})
	}
	wg.Wait()
	if n := b.failed.Load(); n > 0 {
		return fmt.Errorf("loading failed for %d keys, first: %w", n, b.firstErr)
	}
	return ctx.Err()
}

func (b *benchRun) worker(ctx context.Context, id uint64) {
	r := rand.New(rand.NewPCG(rand.Uint64(), id))
	for ctx.Err() == nil {
		key := r.Uint64N(uint64(b.Keys))
		if b.zipf != nil {
			key = b.zipf.Draw(r)
		}
		started := time.Now()
		put := b.isPut(r)
		var err error
		if put {
			err = b.put(ctx, key)
		} else {
			_, err = b.bucket.Get(ctx, bench.Key(key))
			b.note(ctx, err)
		}
		if err == nil && b.measure.Load() {
			b.record(put, time.Since(started))
		}
	}
}

func (b *benchRun) isPut(r *rand.Rand) bool {
	switch b.Mix {
	case "put":
		return true
	case "a":
		return r.IntN(2) == 0
	case "b":
		return r.IntN(20) == 0
	}
	return false
}

// put writes with the last context seen; a key that has gathered too many
// siblings is read first.
func (b *benchRun) put(ctx context.Context, i uint64) error {
	var opts []client.Option
	if c := b.contexts[i].Load(); c != nil {
		opts = append(opts, client.After(*c))
	}
	w, err := b.bucket.Put(ctx, bench.Key(i), b.value, opts...)
	if errors.Is(err, client.ErrSiblings) {
		o, getErr := b.bucket.Get(ctx, bench.Key(i))
		if getErr == nil {
			w, err = b.bucket.Put(ctx, bench.Key(i), b.value, client.After(o.Context))
		}
	}
	if err == nil {
		b.contexts[i].Store(&w.Context)
	}
	b.note(ctx, err)
	return err
}

// note counts a failure, and keeps the first for the report.
func (b *benchRun) note(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	b.failed.Add(1)
	b.mu.Lock()
	if b.firstErr == nil {
		b.firstErr = err
	}
	b.mu.Unlock()
}

func (b *benchRun) record(put bool, took time.Duration) {
	b.done.Add(1)
	us := max(1, took.Microseconds())
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.gets
	if put {
		h = b.puts
	}
	for _, h := range []*hdrhistogram.Histogram{h, b.live} {
		if err := h.RecordValue(us); err != nil && b.firstErr == nil {
			b.firstErr = err
		}
	}
}

func (b *benchRun) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed.Store(0)
	b.firstErr = nil
}

// watch prints a line a second while the measurement runs.
func (b *benchRun) watch(ctx context.Context, s *streams, d time.Duration) {
	end := time.After(d)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last uint64
	for second := 1; ; second++ {
		select {
		case <-end:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := b.done.Load()
		b.mu.Lock()
		p50, p99, p999 := b.live.ValueAtQuantile(50), b.live.ValueAtQuantile(99), b.live.ValueAtQuantile(99.9)
		b.live.Reset()
		b.mu.Unlock()
		fmt.Fprintf(s.err, "%4ds %8d ops/s   p50 %s   p99 %s   p99.9 %s   failed %d\n",
			second, now-last, ms(p50), ms(p99), ms(p999), b.failed.Load())
		last = now
	}
}

func ms(us int64) string { return strconv.FormatFloat(float64(us)/1000, 'f', 2, 64) + " ms" }

// report is what node bench prints.
type report struct {
	bench.Result
	distribution *hdrhistogram.Histogram
}

func (b *benchRun) result(took time.Duration, cpu int64) report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := report{Result: bench.Result{
		Store: "dynactor", Mix: b.Mix, Dist: b.Dist, Clients: b.Clients, Keys: b.Keys, ValueSize: b.ValueSize,
		Operations: b.done.Load(), Failed: b.failed.Load(), Gets: bench.LatencyOf(b.gets), Puts: bench.LatencyOf(b.puts),
	}}
	r.Rates(took, cpu)
	if b.firstErr != nil {
		r.FirstError = b.firstErr.Error()
	}
	r.distribution = bench.NewHistogram()
	r.distribution.Merge(b.gets)
	r.distribution.Merge(b.puts)
	return r
}

func (r report) print(s *streams, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(s.out).Encode(r.Result)
	}
	fmt.Fprintf(s.out, "\n%s, %s, %d clients, %d keys, %d-byte values, %.1f s\n", r.Mix, r.Dist, r.Clients, r.Keys, r.ValueSize, r.Seconds)
	fmt.Fprintf(s.out, "%.0f ops/s, %.0f us of CPU per operation, %d failed\n", r.PerSecond, r.CPUMicros, r.Failed)
	if r.FirstError != "" {
		fmt.Fprintf(s.out, "first error: %s\n", r.FirstError)
	}
	for _, x := range []struct {
		name string
		l    bench.Latency
	}{{"get", r.Gets}, {"put", r.Puts}} {
		if x.l.Count > 0 {
			fmt.Fprintf(s.out, "%s: %d, p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, max %.2f ms\n", x.name, x.l.Count, x.l.P50, x.l.P99, x.l.P999, x.l.Max)
		}
	}
	return r.histogram(s)
}

// histogram draws the latencies in buckets that double.
func (r report) histogram(s *streams) error {
	total := r.distribution.TotalCount()
	if total == 0 {
		return nil
	}
	var counts []int64
	for _, bar := range r.distribution.Distribution() {
		i := 0
		for limit := int64(128); bar.From >= limit; limit *= 2 {
			i++
		}
		for len(counts) <= i {
			counts = append(counts, 0)
		}
		counts[i] += bar.Count
	}
	for i, n := range counts {
		share := float64(n) / float64(total)
		_, err := fmt.Fprintf(s.out, "  < %9s %6.2f %% %s\n", ms(128<<i), 100*share, strings.Repeat("#", int(50*share+0.5)))
		if err != nil {
			return err
		}
	}
	return nil
}

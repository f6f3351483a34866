// Command load drives an etcd cluster exactly as "node bench" drives ours:
// closed loop, the same keys, values and distribution, the same figures.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynactor/dynactor/bench"
)

type run struct {
	client   *clientv3.Client
	mix      string
	keys     uint64
	value    string
	zipf     *bench.Zipf
	measure  atomic.Bool
	done     atomic.Uint64
	failed   atomic.Uint64
	mu       sync.Mutex
	firstErr error
	gets     *hdrhistogram.Histogram
	puts     *hdrhistogram.Histogram
}

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "addresses, with commas")
	mix := flag.String("mix", "put", "put, get, a or b")
	clients := flag.Int("clients", 64, "requests under way at once")
	keys := flag.Uint64("keys", 100_000, "number of keys")
	size := flag.Int("value-size", 100, "bytes of a value")
	warmup := flag.Duration("warmup", 2*time.Second, "time before measuring")
	duration := flag.Duration("duration", 10*time.Second, "time to measure")
	cpuOf := flag.String("cpu-of", "", "process ids whose CPU time to count, with commas")
	load := flag.Bool("load", false, "write all keys once and end")
	flag.Parse()
	if err := measure(strings.Split(*endpoints, ","), *mix, *clients, *keys, *size, *warmup, *duration, *cpuOf, *load); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func measure(endpoints []string, mix string, clients int, keys uint64, size int, warmup, duration time.Duration, cpuOf string, load bool) error {
	var pids []int
	for _, p := range strings.FieldsFunc(cpuOf, func(r rune) bool { return r == ',' }) {
		pid, err := strconv.Atoi(p)
		if err != nil {
			return err
		}
		pids = append(pids, pid)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	r := &run{
		client: c, mix: mix, keys: keys, value: string(bench.Value(size)), zipf: bench.NewZipf(keys, 0.99),
		gets: bench.NewHistogram(), puts: bench.NewHistogram(),
	}
	if load {
		return r.load(clients)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { r.worker(ctx, uint64(i)) })
	}
	time.Sleep(warmup)
	cpu, started := bench.CPU(pids), time.Now()
	r.measure.Store(true)
	time.Sleep(duration)
	r.measure.Store(false)
	took, used := time.Since(started), bench.CPU(pids)-cpu
	cancel()
	wg.Wait()
	out := bench.Result{
		Store: "etcd", Mix: mix, Dist: "zipf", Clients: clients, Keys: int(keys), ValueSize: size, Operations: r.done.Load(),
		Failed: r.failed.Load(), Gets: bench.LatencyOf(r.gets), Puts: bench.LatencyOf(r.puts),
	}
	out.Rates(took, used)
	if r.firstErr != nil {
		out.FirstError = r.firstErr.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// load writes every key once.
func (r *run) load(clients int) error {
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= r.keys {
					return
				}
				if _, err := r.client.Put(context.Background(), bench.Key(i), r.value); err != nil {
					r.note(err)
				}
			}
		})
	}
	wg.Wait()
	return r.firstErr
}

func (r *run) note(err error) {
	r.failed.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.firstErr == nil {
		r.firstErr = err
	}
}

func (r *run) worker(ctx context.Context, id uint64) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), id))
	for ctx.Err() == nil {
		key := bench.Key(r.zipf.Draw(rng))
		put := r.mix == "put" || r.mix == "a" && rng.IntN(2) == 0 || r.mix == "b" && rng.IntN(20) == 0
		started := time.Now()
		var err error
		if put {
			_, err = r.client.Put(ctx, key, r.value)
		} else {
			_, err = r.client.Get(ctx, key)
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			r.note(err)
		case r.measure.Load():
			r.record(put, time.Since(started))
		}
	}
}

func (r *run) record(put bool, took time.Duration) {
	r.done.Add(1)
	h := r.gets
	if put {
		h = r.puts
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := h.RecordValue(max(1, took.Microseconds())); err != nil && r.firstErr == nil {
		r.firstErr = err
	}
}

package pebbledb

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/dynactor/dynactor/storage"
)

const benchValueBytes = 100

// writer is one closed loop: it returns when its write is durable.
type writer func(key, value []byte)

// BenchmarkDurableWriters measures the group commit: writers in closed loops on a
// real disk, each waiting for its own write to be durable before the next. Pebble
// alone, with its own blocking commit, is the reference in the same run.
//
//	go test -run xxx -bench DurableWriters ./storage/pebbledb
func BenchmarkDurableWriters(b *testing.B) {
	for _, subject := range []struct {
		name string
		open func(b *testing.B) func() writer
	}{
		{"engine", openEngineWriters},
		{"pebble", openPebbleWriters},
	} {
		rates := map[int]float64{}
		for _, n := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/writers=%d", subject.name, n), func(b *testing.B) {
				rates[n] = runWriters(b, n, subject.open(b))
			})
		}
		if rates[1] > 0 && rates[64] > 0 {
			fmt.Fprintf(os.Stderr, "durable writers (%s): 1 -> %.0f/s, 64 -> %.0f/s, ratio %.1f\n",
				subject.name, rates[1], rates[64], rates[64]/rates[1])
		}
	}
}

// runWriters makes b.N durable writes with n writers and returns writes/s.
func runWriters(b *testing.B, n int, newWriter func() writer) float64 {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	start, cpu := time.Now(), cpuTime(b)
	for w := range n {
		write := newWriter()
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			key, value := make([]byte, 16), make([]byte, benchValueBytes)
			for next.Add(1) <= int64(b.N) {
				binary.BigEndian.PutUint64(key, rng.Uint64())
				binary.BigEndian.PutUint64(value, rng.Uint64())
				write(key, value)
			}
		})
	}
	wg.Wait()
	rate := float64(b.N) / time.Since(start).Seconds()
	b.StopTimer()
	b.ReportMetric(rate, "commits/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
	return rate
}

// cpuTime is what this process has used on all cores.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func openEngineWriters(b *testing.B) func() writer {
	var e storage.Engine = open(b, b.TempDir(), Default())
	b.Cleanup(func() {
		s := e.Stats()
		b.ReportMetric(float64(s.Commits)/float64(max(s.Syncs, 1)), "commits/sync")
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	})
	return func() writer {
		durable := make(chan error, 1)
		done := func(err error) { durable <- err }
		return func(key, value []byte) {
			batch := e.NewBatch()
			batch.Set(key, value)
			if err := batch.Commit(storage.Synced, done); err != nil {
				b.Error(err)
				return
			}
			if err := <-durable; err != nil {
				b.Error(err)
			}
		}
	}
}

func openPebbleWriters(b *testing.B) func() writer {
	o := Default().withDefaults()
	db, err := pebble.Open(b.TempDir(), o.pebble(o.FS, logger{newFailure(o.Logger, nil)}, nil))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return func() writer {
		return func(key, value []byte) {
			if err := db.Set(key, value, pebble.Sync); err != nil {
				b.Error(err)
			}
		}
	}
}

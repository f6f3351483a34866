// Package bench is what load programs share: how keys are drawn, how latencies
// are kept, and what CPU time processes took. Dynactor's own bench and those
// that drive other stores beside it draw the same keys and count the same way.
package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Key is the name of the i-th key, 16 bytes long.
func Key(i uint64) string { return fmt.Sprintf("key%013d", i) }

// Value is n incompressible printable bytes.
func Value(n int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	out := make([]byte, n)
	for i := range out {
		out[i] = letters[rand.N(len(letters))]
	}
	return out
}

// NewHistogram records microseconds, up to a minute, with three digits.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
}

// Latency are percentiles in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p99_9_ms"`
	Max   float64 `json:"max_ms"`
}

// LatencyOf reads the percentiles of a histogram of microseconds.
func LatencyOf(h *hdrhistogram.Histogram) Latency {
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
	return Latency{Count: h.TotalCount(), P50: at(50), P99: at(99), P999: at(99.9), Max: float64(h.Max()) / 1000}
}

// Result is a measurement, as load programs print it.
type Result struct {
	Store      string  `json:"store"`
	Mix        string  `json:"mix"`
	Dist       string  `json:"dist"`
	Clients    int     `json:"clients"`
	Keys       int     `json:"keys"`
	ValueSize  int     `json:"value_size"`
	Seconds    float64 `json:"seconds"`
	Operations uint64  `json:"operations"`
	Failed     uint64  `json:"failed"`
	FirstError string  `json:"first_error,omitempty"`
	PerSecond  float64 `json:"ops_per_second"`
	// CPUMicros is per operation, over the client and the processes named.
	CPUMicros float64 `json:"cpu_us_per_op"`
	Gets      Latency `json:"gets"`
	Puts      Latency `json:"puts"`
}

// Rates fills in what follows from the counts: cpu is in microseconds.
func (r *Result) Rates(took time.Duration, cpu int64) {
	r.Seconds = took.Seconds()
	r.PerSecond = float64(r.Operations) / r.Seconds
	if r.Operations > 0 {
		r.CPUMicros = float64(cpu) / float64(r.Operations)
	}
}

// CPU is the user and system time of this process and of others, in
// microseconds, from Linux's account in steps of 10 ms. A process that has gone
// counts nothing.
func CPU(pids []int) int64 {
	total := processCPU(os.Getpid())
	for _, pid := range pids {
		total += processCPU(pid)
	}
	return total
}

func processCPU(pid int) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold spaces; fields count from behind it.
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	if userErr != nil || systemErr != nil {
		return 0
	}
	return (user + system) * 10_000
}

package actors

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage/pebbledb"
)

// BenchmarkTreeUpkeep compares durable puts of a node that keeps its hash trees with those
// of one that does not, in short turns: "on/off" is the middle of the ratios of their
// throughputs. There is one replica and no network, so all that a put costs otherwise
// is as little as it can be.
func BenchmarkTreeUpkeep(b *testing.B) {
	const turnLength = 250 * time.Millisecond
	var sides [2]*putter
	for i := range sides {
		engine, err := pebbledb.Open(b.TempDir(), pebbledb.Default())
		if err != nil {
			b.Fatal(err)
		}
		properties := bucket.Default()
		properties.Quorum = quorum.Params{N: 1, R: 1, W: 1}
		sides[i] = &putter{rig: start(b, setup{
			engine: engine, partitions: 16, buckets: []member.Bucket{{Name: string(bucketB), Properties: properties}},
			change: func(c *Config) { c.pace.none = i == 1 },
		})}
	}
	for _, s := range sides {
		s.puts(b, 2*time.Second) // the tables and the trees exist
	}
	var ratios []float64
	var rates [2][]float64
	b.ResetTimer()
	for i := range b.N {
		var rate [2]float64
		for j := range sides {
			k := (i + j) % 2
			rate[k] = sides[k].puts(b, turnLength)
			rates[k] = append(rates[k], rate[k])
		}
		ratios = append(ratios, rate[0]/rate[1])
	}
	for name, all := range map[string][]float64{"on/off": ratios, "on-puts/s": rates[0], "off-puts/s": rates[1]} {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], name)
	}
}

// putter writes to one node.
type putter struct {
	*rig
	written int
}

// puts writes 100 bytes to keys of 100,000 with 64 writers for so long, and returns how
// many puts a second that were.
func (p *putter) puts(b *testing.B, d time.Duration) float64 {
	const writers, keys = 64, 100_000
	value := string(make([]byte, 100))
	began := time.Now()
	var all sync.WaitGroup
	counts := make([]int, writers)
	for w := range writers {
		all.Go(func() {
			probe := actortest.NewProbe(p.system)
			for time.Since(began) < d {
				key := (p.written + counts[w]*writers + w) * 7919 % keys
				probe.Ask(p.coordinator(), putOf(fmt.Sprintf("key-%06d", key), value, nil))
				if r, ok := actortest.Next[any](b, probe).(*messages.PutReply); !ok {
					b.Errorf("answered %v", r)
					return
				}
				counts[w]++
			}
		})
	}
	all.Wait()
	took, n := time.Since(began), 0
	for _, c := range counts {
		n += c
	}
	p.written += n
	return float64(n) / took.Seconds()
}

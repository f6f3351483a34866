package pebbledb

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// randomOptions draws options that must not change what the store holds.
func randomOptions(rng *rand.Rand, fs vfs.FS) (Options, string) {
	o := Default()
	o.FS = fs
	o.MemTableBytes = minMemTableBytes << rng.IntN(4)
	o.CacheBytes = minCacheBytes << rng.IntN(5)
	o.Compactions = 1 + rng.IntN(3)
	block := 32 << rng.IntN(10)
	l0 := 1 + rng.IntN(4)
	filter, compress, synced := rng.IntN(2) == 0, rng.IntN(2) == 0, rng.IntN(3) == 0
	o.tune = func(p *pebble.Options) {
		p.L0CompactionThreshold = l0
		p.FlushDelayDeleteRange = 0
		p.LBaseMaxBytes = 128 << 10
		p.TargetFileSizes[0] = 16 << 10
		if synced {
			p.WALBytesPerSync = 4 << 10
		}
		for i := range p.Levels {
			p.Levels[i].BlockSize, p.Levels[i].IndexBlockSize = block, block
			if !filter {
				p.Levels[i].FilterPolicy = pebble.NoFilterPolicy
			}
			if !compress {
				p.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
			}
		}
	}
	return o, fmt.Sprintf("memtable=%d cache=%d compactions=%d block=%d l0=%d filter=%v compress=%v walsync=%v",
		o.MemTableBytes, o.CacheBytes, o.Compactions, block, l0, filter, compress, synced)
}

// TestMetamorphic plays one history under several random options, with restarts
// and changes of the options in between: the results are all the same.
func TestMetamorphic(t *testing.T) {
	for _, seed := range crashSeeds(t, 3) {
		h := newHistory(seed, 500).withDrops()
		want := h.state(len(h.batches))
		rng := rand.New(rand.NewPCG(seed, 19))
		for variant := range 4 {
			fs := vfs.NewMem()
			o, label := randomOptions(rng, fs)
			e := open(t, "db", o)
			for n := range len(h.batches) {
				if err := h.commit(e, n+1); err != nil {
					t.Fatal(err)
				}
				if rng.IntN(200) == 0 {
					if err := e.Close(); err != nil {
						t.Fatal(err)
					}
					o, label = randomOptions(rng, fs)
					e = open(t, "db", o)
				}
			}
			got, err := contents(e)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got, want) {
				t.Errorf("seed %d, variant %d (%s): contents differ", seed, variant, label)
			}
			for k := range 40 {
				key := fmt.Sprintf("k%02d", k)
				v, err := e.Get(nil, []byte(key))
				if value, ok := want[key]; ok != (err == nil) || string(v) != value {
					t.Errorf("seed %d (%s): get %s = %.20q, %v", seed, label, key, v, err)
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

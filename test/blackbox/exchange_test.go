package blackbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/pebbledb"
	"github.com/dynactor/dynactor/test/load"
)

// TestExchangeCost measures what comparing replicas costs, by the number of keys that
// differ and by the number that there are: keys are taken from the store of a node that
// is down, and its hash trees with them, and a repair is to find and mend all in one
// round. It checks bytes, which are the same on any machine, and logs times.
// DYNACTOR_AAE_KEYS is how many keys there are.
func TestExchangeCost(t *testing.T) {
	t.Parallel()
	keys := 3000
	if s := os.Getenv("DYNACTOR_AAE_KEYS"); s != "" {
		var err error
		if keys, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	ns := newNodes(t, 3, newLoopback(t, 3), "--partitions=16", "--aae-interval=0s")
	tr := newTrial(t, ns, load.Config{Keys: 1, Prefix: "x"})
	if err := tr.load.Fill(t.Context(), keys, 64); err != nil {
		t.Fatal(err)
	}
	tr.stop()
	tr.settle()
	tr.compare() // as far as writes left differences: W = 2
	equal := tr.compare()
	if equal.mended != 0 {
		t.Errorf("%d records mended after all were", equal.mended)
	}
	for pair, n := range equal.byNodes {
		if n >= 100<<10 {
			t.Errorf("%s: a round in which all is equal takes %d bytes, want less than 100 KiB", pair, n)
		}
	}
	rows := []string{equal.row(keys, 0, 0)}
	victim := ns.all[2]
	for differ := 1; differ <= min(keys/3, 10_000); differ *= 10 {
		victim.signal(t, syscall.SIGTERM)
		if err := victim.wait(t); err != nil {
			t.Fatal(err)
		}
		taken, size := victim.lose(t, differ)
		victim.start(t)
		ns.linked()
		got := tr.compare()
		rows = append(rows, got.row(keys, differ, size))
		// Two pairs find the same keys at once, so some are sent twice.
		if got.mended < differ || got.granted == 0 {
			t.Errorf("%d records were mended in %d slices, %d differed", got.mended, got.granted, differ)
		}
		if limit := 3*size + 64*differ; differ >= 1000 && got.bytes-equal.bytes > limit {
			t.Errorf("%d keys that differ took %d bytes, want at most %d more than the %d of a round without", differ, got.bytes, limit, equal.bytes)
		}
		if again := tr.compare(); again.mended != 0 {
			t.Errorf("%d records were left for a second round", again.mended)
		}
		victim.signal(t, syscall.SIGTERM)
		if err := victim.wait(t); err != nil {
			t.Fatal(err)
		}
		victim.has(t, taken)
		victim.start(t)
		ns.linked()
	}
	t.Logf("\n| keys | differ | mended | object bytes | bytes sent | of one pair of nodes, most | round | in slices |\n|---|---|---|---|---|---|---|---|\n%s", strings.Join(rows, "\n"))
}

// round is what comparing all pairs of replicas took.
type round struct {
	mended, bytes int
	granted       uint64 // slices
	byNodes       map[string]int
	took, slices  time.Duration
}

func (r round) row(keys, differ, size int) string {
	most := 0
	for _, n := range r.byNodes {
		most = max(most, n)
	}
	return fmt.Sprintf("| %d | %d | %d | %d | %d | %d | %v | %v |", keys, differ, r.mended, size, r.bytes, most, r.took.Round(time.Millisecond), r.slices.Round(time.Millisecond))
}

// compare has all pairs compared once.
func (tr *trial) compare() round {
	tr.t.Helper()
	ctx, cluster := tr.t.Context(), tr.operator.Cluster()
	slices := func() (sum time.Duration, granted uint64) {
		all, err := cluster.Background(ctx)
		if err != nil {
			tr.t.Fatal(err)
		}
		for _, b := range all {
			for _, w := range b.Work {
				if w.Kind == "exchange" {
					sum, granted = sum+w.Took, granted+w.Slices
				}
			}
		}
		return sum, granted
	}
	spent, had := slices()
	began := time.Now()
	done, err := cluster.Repair(ctx, client.Scope{}, func(client.Repair) {})
	if err != nil || done.Failed > 0 || done.Complete != done.Pairs {
		tr.t.Fatalf("%+v, %v", done, err)
	}
	r := round{mended: int(done.Mended), byNodes: map[string]int{}, took: time.Since(began)}
	r.slices, r.granted = slices()
	r.slices, r.granted = r.slices-spent, r.granted-had
	all, err := cluster.Exchanges(ctx)
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, x := range all {
		r.bytes += int(x.Bytes)
		r.byNodes[min(x.Node, x.With)+" "+max(x.Node, x.With)] += int(x.Bytes)
	}
	return r
}

// engine opens the store of a process that has ended.
func (p *process) engine(t *testing.T) storage.Engine {
	t.Helper()
	e, err := pebbledb.Open(filepath.Join(p.dir, "data", "store"), pebbledb.Default())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// lose takes so many objects, from everywhere, out of the store of a process that has
// ended, and its hash trees, which would tell. It returns their storage keys and how many
// bytes they and their values have.
func (p *process) lose(t *testing.T, count int) (taken [][]byte, size int) {
	t.Helper()
	e := p.engine(t)
	lower, upper := vnode.Objects()
	all := 0
	if err := e.Scan(lower, upper, func(_, _ []byte) bool { all++; return true }); err != nil {
		t.Fatal(err)
	}
	b, i := e.NewBatch(), 0
	partitions := map[dynamo.Partition]bool{}
	err := e.Scan(lower, upper, func(key, value []byte) bool {
		if i*count/all != (i+1)*count/all {
			b.Delete(key)
			taken = append(taken, append([]byte{}, key...))
			size += len(key) + len(value)
			at, _, _ := vnode.ParseObjectKey(key)
			partitions[at] = true
		}
		i++
		return true
	})
	if err != nil || len(taken) != count {
		t.Fatalf("%d of %d objects taken, want %d: %v", len(taken), all, count, err)
	}
	for at := range partitions {
		b.DeleteRange(vnode.TreeRange(at, 3))
	}
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return taken, size
}

// has checks that objects are in the store of a process that has ended.
func (p *process) has(t *testing.T, keys [][]byte) {
	t.Helper()
	e := p.engine(t)
	for _, key := range keys {
		if _, err := e.Get(nil, key); err != nil {
			t.Fatalf("%s: %x: %v", p.name, key, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

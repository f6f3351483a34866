package blackbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynactor/dynactor/test/journal"
	"github.com/dynactor/dynactor/test/load"
)

// flipTables changes a byte in each large table of a node's store, where its objects are.
func (p *process) flipTables(t *testing.T) (flipped int) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(p.dir, "data", "store", "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if at := info.Size() * 2 / 3; info.Size() > 50_000 {
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 0x10
			if _, err := f.WriteAt(b, at); err != nil {
				t.Fatal(err)
			}
			flipped++
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return flipped
}

// said counts the lines of a node's log that have a text.
func (p *process) said(t *testing.T, text string) int {
	t.Helper()
	out, err := os.ReadFile(p.logPath)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(out), text)
}

// TestDamagedTable flips bytes in tables of a node that runs, and of one that does not, under
// load: what cannot be read costs those nodes a partition or two, which the others give back.
// No request fails, no read is wrong, the nodes never end, and all replicas are equal then.
// It is not run beside other tests: to read what is damaged takes so much of two cores, as the store looks
// for the bit that has changed, that nodes seem to be down beside more.
func TestDamagedTable(t *testing.T) {
	ns := newNodes(t, 3, newLoopback(t, 3), "--partitions=16")
	tr := newTrial(t, ns, load.Config{Workers: 4, Keys: 100, PerKey: 50, Every: 5 * time.Millisecond, Seed: 1, Prefix: "d"})
	const keys = 3000
	if err := tr.load.Fill(t.Context(), keys, 64); err != nil {
		t.Fatal(err)
	}
	b := tr.operator.Bucket(bucket)
	restart := func(p *process) {
		p.signal(t, syscall.SIGTERM)
		if err := p.wait(t); err != nil {
			t.Errorf("%s ends with %v", p.name, err)
		}
	}
	for _, p := range []*process{ns.all[2], ns.all[1]} { // what is in the log comes to tables
		restart(p)
		p.start(t)
		ns.linked()
	}
	tr.load.Start()
	tr.progress(200)
	from := tr.load.Now()
	for i, p := range []*process{ns.all[2], ns.all[1]} {
		stopped := i == 1
		down := tr.load.Now()
		if stopped {
			restart(p)
		}
		if n := p.flipTables(t); n == 0 {
			t.Fatalf("%s has no table", p.name)
		}
		if stopped {
			p.start(t)
			ns.linked()
		}
		const gone = "a damaged partition was dropped"
		tr.waitLong(p.name+" drops what is damaged", func() bool {
			for i := range keys { // until somebody meets it
				if _, err := b.Get(t.Context(), fmt.Sprintf("d-fill-%d", i+1)); err != nil {
					t.Fatal(err)
				}
			}
			return p.said(t, gone) > 0
		})
		tr.waitLong(p.name+" is whole", func() bool {
			d, err := tr.document()
			h, healthErr := p.health(t.Context())
			return err == nil && healthErr == nil && len(d.Movement.Filling) == 0 && h.Health.Ready && h.Health.Damage.Partitions == 0
		})
		t.Logf("%s: %d partitions dropped in %v", p.name, p.said(t, gone), (tr.load.Now() - down).Round(time.Millisecond))
		if n := p.said(t, gone); n > 8 {
			t.Errorf("%s has dropped %d partitions", p.name, n)
		}
	}
	tr.progress(200)
	for _, p := range ns.all {
		if !p.lives() {
			t.Errorf("%s has ended\n%s", p.name, p.tail())
		}
	}
	ops := tr.stop()
	for _, op := range ops {
		if op.Start > from && op.Outcome != journal.OK {
			t.Errorf("failed: %+v", op)
		}
	}
	tr.settle()
	all := sampled(ops, false)
	tr.judge(append(tr.each(all), tr.whole(all, 0)...), "-strict")
}

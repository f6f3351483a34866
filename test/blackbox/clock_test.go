package blackbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	buckets "github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
)

// wrongClock is the program of a node whose clock can be set; others run the one that
// users get.
const wrongClock = "node-wrongclock"

// wrong is what clocks are off by. One that is ahead by ten minutes has records
// forget the requests that they have seen (Known limits in docs/architecture.md).
var wrong = []time.Duration{-time.Hour, -30 * time.Second, -time.Second, time.Second, 30 * time.Second, 5 * time.Minute}

// clock is the file that says by how much the node's clock is wrong.
func (p *process) clock() string { return filepath.Join(p.dir, "clock") }

// setClock has the node's clock be wrong soon.
func (p *process) setClock(t *testing.T, by time.Duration) {
	t.Helper()
	if by == 0 {
		if err := os.Remove(p.clock()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		return
	}
	next := p.clock() + ".next" // the node never reads half of it
	if err := os.WriteFile(next, []byte(by.String()), 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(next, p.clock()); err != nil {
		t.Error(err)
	}
}

// TestWrongClocks: the clocks of the nodes can be set, a value's end is judged by
// them, and a value that was gone by a clock that was ahead is there again when it
// is set right.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	ns := newNodesOf(t, wrongClock, 3, newLoopback(t, 3), "--partitions=8")
	c := connect(t, ns.all...)
	carts := member.Bucket{Name: "carts", Properties: buckets.Default()}
	carts.Properties.TTL = time.Hour
	made, err := c.Cluster().CreateBucket(t.Context(), carts)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all nodes know the bucket", func() bool {
		s, err := c.Cluster().Status(t.Context())
		return err == nil && !slices.ContainsFunc(s.Nodes, func(n client.NodeStatus) bool { return n.Known < made.Document.Version })
	})
	b := c.Bucket(carts.Name)
	if _, err := b.Put(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		v, err := b.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		return v.Exists()
	}
	for _, by := range []time.Duration{0, 2 * time.Hour, 30 * time.Minute, -2 * time.Hour, 2 * time.Hour, 0} {
		for _, p := range ns.all {
			p.setClock(t, by)
		}
		eventually(t, "the value is there as the clock says, "+by.String(), func() bool { return there() == (by < time.Hour) })
	}
}

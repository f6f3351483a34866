package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	buckets "github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
)

// kept are the keys of which the nodes keep anything, deletions included.
func kept(t *testing.T, b *client.Bucket) []string {
	t.Helper()
	var out []string
	if err := b.Keys(t.Context(), func(key string) error { out = append(out, key); return nil }); err != nil {
		t.Logf("keys: %v", err) // a node is down
		return []string{"?"}
	}
	return out
}

// reaped is what all nodes have dropped since they were started, and why something was put
// off.
func reaped(t *testing.T, c *client.Client) (records uint64, reasons string) {
	t.Helper()
	all, err := c.Cluster().Reaping(t.Context())
	if err != nil && len(all) == 0 {
		t.Fatal(err)
	}
	for _, x := range all {
		records += x.Reaped
		reasons += x.Reason + "\n"
	}
	return records, reasons
}

// TestReaping: what was deleted or has expired is forgotten by all nodes, but not while one
// of them is away; and nothing of it comes back.
func TestReaping(t *testing.T) {
	t.Parallel()
	const keys = 200
	ns := newNodesOf(t, wrongClock, 3, newLoopback(t, 3), "--partitions=8", "--aae-interval=1s")
	c := connect(t, ns.all...)
	sessions := member.Bucket{Name: "sessions", Properties: buckets.Default()}
	sessions.Properties.TTL = time.Hour
	if _, err := c.Cluster().CreateBucket(t.Context(), sessions); err != nil {
		t.Fatal(err)
	}
	plain, expiring := c.Bucket("plain"), c.Bucket(sessions.Name)
	name := func(i int) string { return fmt.Sprint("k", i) }
	for i := range keys {
		for _, b := range []*client.Bucket{plain, expiring} {
			if _, err := b.Put(t.Context(), name(i), []byte("old")); err != nil {
				t.Fatal(err)
			}
		}
	}

	// One is down when the first half is deleted: it has the old values.
	down := ns.all[2]
	down.kill(t)
	remove := func(from, to int) {
		for i := from; i < to; i++ {
			o, err := plain.Get(t.Context(), name(i))
			if err == nil {
				_, err = plain.Delete(t.Context(), name(i), client.After(o.Context))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	remove(0, keys/2)
	eventually(t, "it is put off", func() bool {
		_, reasons := reaped(t, c)
		return strings.Contains(reasons, "n3 cannot be reached")
	})
	if n, _ := reaped(t, c); n > 0 {
		t.Fatalf("%d records were forgotten while a node was down", n)
	}
	down.start(t)
	down.waitReady(t)
	remove(keys/2, keys)
	eventually(t, "all that was deleted is forgotten", func() bool {
		n, _ := reaped(t, c)
		return n >= 3*keys && len(kept(t, plain)) == 0
	})

	// What expires by all clocks does not come back when they are set right.
	for _, p := range ns.all {
		p.setClock(t, 2*time.Hour)
	}
	eventually(t, "all that has expired is forgotten", func() bool { return len(kept(t, expiring)) == 0 })
	for _, p := range ns.all {
		p.setClock(t, 0)
	}
	if _, err := plain.Put(t.Context(), name(0), []byte("new")); err != nil {
		t.Fatal(err)
	}
	repaired, err := c.Cluster().Repair(t.Context(), client.Scope{}, func(client.Repair) {})
	if err != nil || repaired.Failed > 0 {
		t.Fatalf("repair: %+v, %v", repaired, err)
	}
	for i := range keys {
		for _, b := range []*client.Bucket{plain, expiring} {
			o, err := b.Get(t.Context(), name(i))
			if err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, v := range o.Values {
				got = append(got, string(v.Value))
			}
			want := []string{}
			if i == 0 && b == plain {
				want = []string{"new"}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s of %d is %v, want %v", name(i), keys, got, want)
			}
		}
	}
}

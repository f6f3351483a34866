package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// TestAcceptLoss: of a bucket with one replica the data of a lost disk is nowhere. Reads of it say so, writes
// go on, all other data is filled; once an operator has accepted the loss, everything serves.
func TestAcceptLoss(t *testing.T) {
	const keys = 40
	configs := onDisk(t, seeded(t, 3))
	one := member.Bucket{Name: "one", Properties: bucket.Default()}
	one.Properties.Quorum = quorum.Params{N: 1, R: 1, W: 1}
	configs[0].Buckets = []member.Bucket{one}
	nodes := startAll(t, configs)
	fill(t, keys, nodes...)
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	single := newClient(t, nodes...).Bucket("one")
	d := nodes[0].Document()
	mine := d.Settled.PartitionsOf("n3", 1)
	var lost, kept []string
	for i := range keys {
		key := fmt.Sprintf("k%d", i)
		if _, err := single.Put(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
		p := ring.PartitionOf(ring.Hash(dynamo.Key{Bucket: "one", Name: key}), d.Settled.Partitions())
		if slices.Contains(mine, p) {
			lost = append(lost, key)
		} else {
			kept = append(kept, key)
		}
	}
	if len(lost) < 2 || len(kept) == 0 {
		t.Fatalf("%d keys on n3, %d elsewhere", len(lost), len(kept))
	}
	want := nodes[0].objects()
	nodes[2].stop()
	empty(t, configs[2])
	nodes[2] = start(t, configs[2])
	nodes[2].ready()
	c := newClient(t, nodes...)
	single = c.Bucket("one")
	waiting := func() (out []dynamo.Partition) {
		m, _ := nodes[0].Document().Member("n3")
		if m.Store != member.StoreID(nodes[2].identity.StoreID()) {
			return nil
		}
		for _, f := range nodes[0].Document().Movement.Filling {
			out = append(out, f.Partition)
		}
		return out
	}
	eventually(t, "all else filled", func() bool { return slices.Equal(waiting(), mine) })
	for _, n := range nodes {
		eventually(t, "it is told", func() bool { h := n.Health(); return h.Lost != nil && slices.Equal(h.Lost.Partitions, mine) })
		if b, err := json.Marshal(n.status()); err != nil || !n.Health().Ready || !bytes.Contains(b, []byte("node cluster accept-loss")) {
			t.Errorf("%s, %v", b, err)
		}
	}
	var e *client.Error
	short, end := context.WithTimeout(ctx, 2*time.Second) // it is asked for again and again
	defer end()
	if _, err := single.Get(short, lost[0]); !errors.Is(err, client.ErrUnavailable) || !errors.As(err, &e) || !strings.Contains(e.Text, "node cluster accept-loss") {
		t.Errorf("a key that is lost: %v", err)
	}
	if _, err := single.Put(ctx, lost[1], []byte("new")); err != nil {
		t.Errorf("a write to a partition that is lost: %v", err)
	}
	got, some := nodes[2].objects(), 0
	for key, value := range want {
		if strings.Contains(key, "one") {
			continue // others' own
		}
		some++
		if got[key] != value {
			t.Errorf("%q was not filled", key)
		}
	}
	if some < keys {
		t.Errorf("%d objects to be filled", some)
	}
	if _, err := c.Cluster().AcceptLoss(ctx, 1); !errors.Is(err, client.ErrChanged) {
		t.Errorf("for an older version: %v", err)
	}
	status, err := c.Cluster().Status(ctx)
	if err == nil {
		_, err = c.Cluster().AcceptLoss(ctx, status.Document.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.filled(nodes[2].identity.StoreID())
		eventually(t, "nothing is lost any more", func() bool { return n.Health().Lost == nil })
	}
	if o, err := single.Get(ctx, lost[0]); err != nil || o.Exists() {
		t.Errorf("a key that was given up: %v, %v", o, err)
	}
	for key, value := range map[string]string{lost[1]: "new", kept[0]: kept[0]} {
		o, err := single.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := o.One(); err != nil || string(got) != value {
			t.Errorf("%s is %q, %v, want %q", key, got, err, value)
		}
	}
	serves(t, nodes...)
	if n := strings.Count(nodes[0].log.String(), "no replica is left"); n != len(mine) {
		t.Errorf("n1 told %d times of %d partitions", n, len(mine))
	}
}

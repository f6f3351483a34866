package actors

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
)

// TestReadLargeValue: one replica sends the value, the others their clocks; when
// that one lacks it, exactly one other is asked for it.
func TestReadLargeValue(t *testing.T) {
	large := strings.Repeat("v", 5000) // above the rig's DigestAbove
	r := start(t, setup{nodes: 3})
	x := r.replicas("n2", "n3")
	r.put(putOf("here", large, nil))
	r.quiet()
	all := getOf("here") // with R = N this node's own answer is among those that count
	all.Quorum = &messages.Quorum{R: 3}
	if m, ok := r.ask(all).(*messages.GetReply); !ok || len(m.GetValues()) != 1 || string(m.GetValues()[0].GetValue()) != large {
		t.Errorf("read %v", m)
	}
	r.quiet()
	for name, n := range x {
		if reads, whole, _ := n.counts(); reads != 1 || whole != 0 {
			t.Errorf("%s: %d reads, %d of them with values; the value was here", name, reads, whole)
		}
	}
	rec := elsewhere(t, 9, large)
	x["n2"].set("there", rec)
	x["n3"].set("there", rec)
	if got, _ := r.shown("there"); !slices.Equal(got, []string{large}) {
		t.Errorf("read %d values", len(got))
	}
	r.quiet()
	_, two, _ := x["n2"].counts()
	_, three, _ := x["n3"].counts()
	if two+three != 1 {
		t.Errorf("the value was fetched %d times", two+three)
	}
	// This node was stale and has been repaired with the value.
	actortest.Eventually(t, "the repair", func() bool { return len(values(t, r.read("there").GetRecord())) == 1 })
	if got := values(t, r.read("there").GetRecord()); got[0] != large {
		t.Errorf("repaired with %d bytes", len(got[0]))
	}
}

// TestReadRepair: a primary that was behind gets the merged record, one that has
// lost all of it too, and the one that reads it here; then reading writes
// nothing any more.
func TestReadRepair(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := r.replicas("n2", "n3")
	c := r.put(putOf("k", "one", nil))
	r.quiet()
	old := x["n3"].holds("k")
	r.put(putOf("k", "two", c))
	r.quiet()
	x["n2"].set("k", version.Record{})
	x["n3"].set("k", old)
	r.damage(objectKey("k")) // and this node's own copy is damaged
	latest := elsewhere(t, 9, "three")
	x["n2"].set("k", latest)
	all := getOf("k")
	all.Quorum = &messages.Quorum{R: 2}
	r.ask(all)
	r.quiet()
	want := version.Merge(old, latest)
	for name, n := range x {
		if got := n.holds("k"); !got.SameCausal(want) {
			t.Errorf("%s holds %v, want %v", name, got, want)
		}
	}
	actortest.Eventually(t, "this node is repaired", func() bool {
		rec, err := version.Decode(r.read("k").GetRecord())
		return err == nil && rec.SameCausal(want)
	})
	if n := r.node.Counters().Repairs.Load(); n != 3 {
		t.Errorf("%d repairs, want one for each", n)
	}
	commits := r.engine.Stats().Commits
	_, _, two := x["n2"].counts()
	_, _, three := x["n3"].counts()
	for range 20 {
		r.ask(all)
	}
	r.quiet()
	_, _, twoNow := x["n2"].counts()
	_, _, threeNow := x["n3"].counts()
	if r.engine.Stats().Commits != commits || twoNow != two || threeNow != three || r.node.Counters().Repairs.Load() != 3 {
		t.Error("reads of a key that all replicas agree on caused writes")
	}
}

// TestLastWriteWins: a reader sees the latest only; the store keeps the others
// until a write supersedes them.
func TestLastWriteWins(t *testing.T) {
	r := start(t, setup{nodes: 3, buckets: bucketOf(func(p *bucket.Properties) { p.Conflicts = dynamo.LastWriteWins })})
	r.replicas("n2", "n3")
	r.put(putOf("k", "first", nil))
	r.clock.Add(int64(time.Second))
	r.put(putOf("k", "second", nil))
	got, m := r.shown("k")
	if !slices.Equal(got, []string{"second"}) || len(values(t, r.read("k").GetRecord())) != 2 {
		t.Errorf("shown %v", got)
	}
	deletion := putOf("k", "", nil)
	deletion.Delete = true
	r.clock.Add(int64(time.Second))
	r.put(deletion)
	if got, m := r.shown("k"); len(got) != 0 || len(m.GetContext()) == 0 {
		t.Errorf("the latest write is a deletion; shown %v", got)
	}
	r.clock.Add(-int64(time.Hour) / 2)
	if answer := r.ask(putOf("k", "from the past", m.GetContext())); code(answer) != messages.CodeClockAhead {
		t.Errorf("a clock half an hour behind the record: %v", answer)
	}
}

// TestExpiry: a value ends to exist at its time, by the clock of the node that
// reads; its context stays.
func TestExpiry(t *testing.T) {
	r := start(t, setup{nodes: 3, buckets: bucketOf(func(p *bucket.Properties) { p.TTL = time.Minute })})
	r.replicas("n2", "n3")
	r.put(putOf("k", "v", nil))
	got, m := r.shown("k")
	if !slices.Equal(got, []string{"v"}) || m.GetValues()[0].GetExpiresNs() != r.clock.Load()+int64(time.Minute) {
		t.Errorf("shown %v", m)
	}
	r.clock.Add(int64(time.Minute))
	got, m = r.shown("k")
	if len(got) != 0 || len(m.GetContext()) == 0 {
		t.Errorf("after its time: %v", m)
	}
	r.put(putOf("k", "w", m.GetContext()))
	if got, _ := r.shown("k"); !slices.Equal(got, []string{"w"}) {
		t.Errorf("written again: %v", got)
	}
}

// TestRetryIsOneWrite: the same request id, five times, is one version.
func TestRetryIsOneWrite(t *testing.T) {
	r := start(t, setup{nodes: 3})
	x := r.replicas("n2", "n3")
	for range 5 {
		m := putOf("k", "v", nil)
		m.RequestId = bytes.Repeat([]byte{7}, 16)
		r.put(m)
	}
	r.quiet()
	if got, _ := r.shown("k"); len(got) != 1 || len(x["n2"].holds("k").Versions) != 1 || r.node.Counters().Repeated.Load() != 4 {
		t.Errorf("%v", got)
	}
	old := putOf("k", "v", nil)
	old.RequestId, old.Retry, old.AgeMs = bytes.Repeat([]byte{8}, 16), true, uint32((11 * time.Minute).Milliseconds())
	if answer := r.ask(old); code(answer) != messages.CodeForgotten {
		t.Errorf("an attempt older than what is remembered: %v", answer)
	}
}

// TestTooManySiblings: a client that never reads is stopped, and can merge.
func TestTooManySiblings(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.replicas("n2", "n3")
	var last any
	for i := range dynamo.MaxSiblings + 1 {
		last = r.ask(putOf("k", fmt.Sprint(i), nil))
	}
	if code(last) != messages.CodeSiblings {
		t.Errorf("the %dth sibling: %v", dynamo.MaxSiblings+1, last)
	}
	_, m := r.shown("k")
	r.put(putOf("k", "merged", m.GetContext()))
	if got, _ := r.shown("k"); !slices.Equal(got, []string{"merged"}) {
		t.Errorf("shown %v", got)
	}
	if r.node.Counters().Crowded.Load() != 1 {
		t.Error("the crowded read was not counted")
	}
}

// TestKeys pages through a partition: every key of the bucket once, in the order
// of positions, tombstones included, nothing of other buckets.
func TestKeys(t *testing.T) {
	r := start(t, setup{})
	want := map[string]bool{}
	for i := range 25 {
		name := fmt.Sprint("key", i)
		want[name] = true
		r.written(name, "v", none)
	}
	other := dynamo.Key{Bucket: "other", Name: "stranger"}
	r.probe.Ask(r.pid(), &coordinate{key: other, n: 3, position: ring.Hash(other).Bytes(), sync: true, plan: 1})
	actortest.Next[*durable](t, r.probe)
	page := func(cursor []byte, limit uint32) *messages.KeysReply {
		r.probe.Ask(r.pid(), &messages.KeysRequest{Bucket: bucketB, Cursor: cursor, Limit: limit})
		return actortest.Next[*messages.KeysReply](t, r.probe)
	}
	for _, limit := range []uint32{0, 1, 10, 25, 5000} {
		got := map[string]bool{}
		var cursor []byte
		for {
			m := page(cursor, limit)
			for _, k := range m.GetKeys() {
				if got[string(k)] {
					t.Fatalf("limit %d: %q twice", limit, k)
				}
				got[string(k)] = true
			}
			if limit > 0 && len(m.GetKeys()) > int(limit) {
				t.Fatalf("limit %d: a page of %d", limit, len(m.GetKeys()))
			}
			if cursor = m.GetCursor(); len(cursor) == 0 {
				break
			}
		}
		if len(got) != len(want) {
			t.Errorf("limit %d: %d keys, want %d", limit, len(got), len(want))
		}
	}
	r.engine.FailReads(errTest)
	r.probe.Ask(r.pid(), &messages.KeysRequest{Bucket: bucketB})
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeStorage {
		t.Errorf("a listing that cannot be read: %v", f)
	}
}

// TestListingThatWouldLackKeys: who lost its disk and is being filled refuses to list;
// another one that is filled does not keep it from that.
func TestListingThatWouldLackKeys(t *testing.T) {
	r := start(t, setup{nodes: 3})
	r.written("k", "v", none)
	for lost, refuses := range map[dynamo.NodeID]bool{"n1": true, "n2": false} {
		doc := r.doc
		doc.Movement.Filling = []member.Fill{{Node: lost, Whole: true}}
		r.enforce(doc)
		p := actortest.NewProbe(r.system)
		p.Ask(r.pid(), &messages.KeysRequest{Bucket: bucketB})
		switch m := actortest.Next[any](t, p).(type) {
		case *messages.Failure:
			if !refuses || m.GetCode() != messages.CodeStale {
				t.Errorf("%s lost its disk: %v", lost, m)
			}
		case *messages.KeysReply:
			if refuses || len(m.GetKeys()) != 1 {
				t.Errorf("%s lost its disk, listed: %q", lost, m.GetKeys())
			}
		}
	}
}

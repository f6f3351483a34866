package member

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// givenUp ends the movement with an operator who accepts what is lost.
func givenUp(t testing.TB, d Document) Document {
	t.Helper()
	for range 5 {
		if d = ended(t, d); len(d.Losses()) == 0 {
			return d
		}
		var err error
		if d, err = d.AcceptLoss(nil, d.Version); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("there is always something lost: %v", d.Losses())
	return d
}

// losing is a cluster of five with one partition of a-e and some buckets' n besides the default.
func losing(t testing.TB, sizes ...int) (Document, []dynamo.NodeID) {
	t.Helper()
	f := Founding{ClusterID: ClusterID{1}, ClusterName: "test", Partitions: 2}
	for i := range 5 {
		f.Members = append(f.Members, Member{ID: dynamo.NodeID(rune('a' + i)), Capacity: 1, Store: StoreID{byte(i + 1)}, Start: 1})
	}
	for _, n := range sizes {
		b := Bucket{Name: fmt.Sprint("n", n), Properties: bucket.Default()}
		b.Properties.Quorum = quorum.Params{N: n, R: 1, W: 1}
		f.Buckets = append(f.Buckets, b)
	}
	d, _, err := Found(f)
	if err != nil {
		t.Fatal(err)
	}
	return d, d.Settled.Replicas(0)
}

// wiped has nodes lose their disks, one after the other.
func wiped(t testing.TB, d Document, nodes ...dynamo.NodeID) Document {
	t.Helper()
	for _, id := range nodes {
		m, _ := d.Member(id)
		var err error
		if d, err = d.TakeOver(id, m.Store, StoreID{byte(d.Version), 9, id[0]}, m.Start+1, m.Address); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func damaged(t testing.TB, d Document, id dynamo.NodeID) Document {
	t.Helper()
	m, _ := d.Member(id)
	out, err := d.LoseReplica(0, id, m.Store, d.Version)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func accepted(t testing.TB, d Document, partitions ...dynamo.Partition) Document {
	t.Helper()
	out, err := d.AcceptLoss(partitions, d.Version)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// removed gives up members, without another ring.
func removed(d Document, nodes ...dynamo.NodeID) Document {
	d = d.successor()
	for _, id := range nodes {
		i, _ := d.index(id)
		d.Members[i].Removed = true
	}
	d.waive()
	return d
}

// TestLosses: what is lost of partition 0, and whose fills stay, whatever the nodes say of them.
func TestLosses(t *testing.T) {
	d, l := losing(t)
	with, _ := losing(t, 1, 5)
	one, _ := losing(t, 1)
	four, _ := losing(t, 4)
	three := wiped(t, d, l[0], l[1], l[2])
	left := removed(damaged(t, d, l[0]), l[1], l[2])
	for name, c := range map[string]struct {
		d       Document
		n       []int
		waiting []dynamo.NodeID
	}{
		"nothing":                      {d, nil, nil},
		"one disk":                     {wiped(t, d, l[0]), nil, nil},
		"two disks":                    {wiped(t, d, l[0], l[1]), nil, nil},
		"all three":                    {three, []int{3}, l[:3]},
		"only that which had n = 1":    {wiped(t, one, l[0]), []int{1}, l[:1]},
		"one that is not of n = 1":     {wiped(t, one, l[1]), nil, nil},
		"n = 1 and 3, not 5":           {wiped(t, with, l[0], l[1], l[2]), []int{1, 3}, l[:3]},
		"three of four replicas":       {wiped(t, four, l[0], l[1], l[2]), []int{3}, l[:3]},
		"the others are removed":       {removed(wiped(t, d, l[0]), l[1], l[2]), []int{3}, l[:1]},
		"damaged, the others removed":  {left, []int{3}, l[:1]},
		"all damaged":                  {damaged(t, damaged(t, damaged(t, d, l[0]), l[1]), l[2]), nil, nil},
		"damaged, the others empty":    {wiped(t, damaged(t, d, l[0]), l[1], l[2]), nil, nil},
		"damaged after it was emptied": {damaged(t, three, l[0]), []int{3}, l[:3]},
		"accepted":                     {accepted(t, three), nil, nil},
		"accepted and emptied again":   {wiped(t, accepted(t, three), l[1]), []int{3}, l[1:2]},
		"accepted and damaged then":    {damaged(t, accepted(t, three), l[1]), []int{3}, l[1:2]},
	} {
		var got Loss
		for _, x := range c.d.Losses() {
			if x.Partition == 0 {
				got = x
			}
		}
		want := map[dynamo.NodeID]bool{}
		for _, id := range c.waiting {
			want[id] = true
		}
		if !reflect.DeepEqual(got.N, c.n) || len(got.Waiting) != len(want) {
			t.Errorf("%s: %+v, want n = %v on %v", name, got, c.n, c.waiting)
		}
		end := c.d // what was accepted is so until there is a source: in one step
		end, _ = end.Advance(perfect(end))
		for _, f := range end.Movement.Filling {
			if f.Partition == 0 && !want[f.Node] {
				t.Errorf("%s: %+v stays", name, f)
			}
			delete(want, f.Node)
		}
		for _, id := range c.waiting {
			if _, stays := end.Filling(0, id); !stays {
				t.Errorf("%s: %s is filled with nothing", name, id)
			}
		}
	}
}

// TestAcceptLoss: what is accepted is exactly what is lost now, and none of it ends a fill that
// has a source.
func TestAcceptLoss(t *testing.T) {
	d, l := losing(t, 4)
	three := wiped(t, d, l[0], l[1], l[2])
	for name, c := range map[string]struct {
		d          Document
		partitions []dynamo.Partition
		version    uint64
		want       error
	}{
		"all":                  {three, nil, three.Version, nil},
		"by name":              {three, []dynamo.Partition{0}, three.Version, nil},
		"an older version":     {three, nil, three.Version - 1, ErrPlanChanged},
		"no partition":         {three, []dynamo.Partition{0, 2}, three.Version, ErrValue},
		"nothing is lost":      {d, nil, d.Version, ErrNotLost},
		"one that is not lost": {wiped(t, d, l[0]), []dynamo.Partition{0}, d.Version + 1, ErrNotLost},
		"twice":                {accepted(t, three), []dynamo.Partition{0}, three.Version + 1, ErrNotLost},
	} {
		out, err := c.d.AcceptLoss(c.partitions, c.version)
		if !errors.Is(err, c.want) || err != nil && !out.Equal(c.d) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if f, _ := out.Filling(0, l[0]); err == nil && (f.Accepted&bit(3) == 0 || f.Accepted&bit(4) != 0 || out.Version != c.version+1) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	given := accepted(t, three, 0)
	if next, changed := given.Advance(nil); changed {
		t.Errorf("filled without a word of the nodes: %+v", next.Movement)
	}
	// The first is filled, and is a source again: what was accepted counts no more.
	said := perfect(given)
	next, _ := given.Advance(map[dynamo.NodeID]Facts{l[1]: said[l[1]]})
	_, lacks := next.Filling(0, l[0])
	if _, waits := next.Filling(0, l[1]); waits || !lacks {
		t.Errorf("%+v", next.Movement)
	}
	again := wiped(t, next, l[1])
	if left, _ := again.Filling(0, l[0]); len(again.Losses()) == 0 || left.Accepted&bit(3) != 0 {
		t.Errorf("the next loss is taken for the one that was accepted: %+v", again.Movement)
	}
	// A fill of the next ring waits, too: its partition is not switched.
	moving := committed(t, d, of(Remove, l[0]), of(Remove, l[1]), of(Remove, l[2]))
	for range 10 {
		moving, _ = moving.Advance(perfect(moving))
	}
	if moving.Next == nil || len(moving.Losses()) == 0 {
		t.Fatalf("%+v", moving.Movement)
	}
	if end := givenUp(t, moving); end.Next != nil || len(end.Movement.Filling) > 0 {
		t.Errorf("it ends with %+v", end.Movement)
	}
}

// TestNewSizeIsNotLost: keys with an n that no bucket had were never written, so a fill does not wait
// for them; a disk that is lost after the bucket was created has lost its keys.
func TestNewSizeIsNotLost(t *testing.T) {
	d, l := losing(t)
	one := Bucket{Name: "one", Properties: bucket.Default()}
	one.Properties.Quorum = quorum.Params{N: 1, R: 1, W: 1}
	created, err := wiped(t, d, l[0]).CreateBucket(one, false)
	if err != nil {
		t.Fatal(err)
	}
	if lost := created.Losses(); len(lost) > 0 {
		t.Errorf("%+v", lost)
	}
	other := one
	other.Name = "other"
	again, err := wiped(t, created, l[0]).CreateBucket(other, false)
	if err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string]Document{"lost after it was created": wiped(t, created, l[0]), "another of that n": again} {
		if !x.LostFor(0, 1) {
			t.Errorf("%s: %+v", what, x.Losses())
		}
	}
}

// TestNewReplicaHasNothing: one that the next ring has made a replica and that reports damage before it
// was filled does not pass for one that has most of the data.
func TestNewReplicaHasNothing(t *testing.T) {
	d, l := losing(t)
	d = committed(t, d, of(Remove, l[0]))
	d, _ = d.Advance(perfect(d)) // all know of it, and it is joint
	var fresh dynamo.NodeID
	for _, f := range d.Movement.Filling {
		if from, to := d.FillRange(f); f.Partition == 0 && from <= 3 && 3 <= to {
			fresh = f.Node
		}
	}
	if fresh == "" || d.Movement.Joint == 0 {
		t.Fatalf("%+v", d.Movement)
	}
	d = damaged(t, wiped(t, d, l[1], l[2]), fresh)
	if f, _ := d.Filling(0, fresh); !d.Lost(f) {
		t.Errorf("%+v is filled with nothing: %+v", f, d.Losses())
	}
}

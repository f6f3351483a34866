package member

import (
	"errors"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
)

func TestLoseReplica(t *testing.T) {
	f := Founding{ClusterID: ClusterID{1}, ClusterName: "test", Partitions: 2}
	for i := range 4 {
		f.Members = append(f.Members, Member{ID: dynamo.NodeID(rune('a' + i)), Capacity: 1, Store: StoreID{byte(i + 1)}, Start: 1})
	}
	d, _, err := Found(f)
	if err != nil {
		t.Fatal(err)
	}
	list := d.Settled.Primaries(0, 3)
	store := func(id dynamo.NodeID) StoreID { m, _ := d.Member(id); return m.Store }
	lost, err := d.LoseReplica(0, list[0], store(list[0]), 1)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := lost.Filling(0, list[0]); !ok || !f.Whole || f.Since != 2 || lost.Version != 2 || !lost.Moved(&d, 0) || lost.Moved(&d, 1) {
		t.Errorf("%+v, version %d", lost.Movement, lost.Version)
	}
	n1 := bucket.Default()
	n1.Quorum.N, n1.Quorum.R, n1.Quorum.W = 1, 1, 1
	single, err := d.CreateBucket(Bucket{Name: "one", Properties: n1}, false)
	if err != nil {
		t.Fatal(err)
	}
	both, err := lost.LoseReplica(0, list[1], store(list[1]), 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		d       Document
		node    dynamo.NodeID
		store   StoreID
		known   uint64
		err     error
		version uint64
	}{
		"again, found before":       {lost, list[0], store(list[0]), 1, nil, 2},
		"again, found since":        {lost, list[0], store(list[0]), 2, nil, 3},
		"another one besides":       {lost, list[1], store(list[1]), 2, nil, 3},
		"the last one, too":         {both, list[2], store(list[2]), 3, nil, 4},
		"another store":             {d, list[0], StoreID{9}, 1, ErrPlanChanged, 1},
		"no member":                 {d, "z", StoreID{9}, 1, ErrUnknownMember, 1},
		"the only copy of n = 1":    {single, list[0], store(list[0]), 2, ErrOnlyCopy, 2},
		"not the replica for n = 1": {single, list[1], store(list[1]), 2, nil, 3},
	} {
		got, err := tc.d.LoseReplica(0, tc.node, tc.store, tc.known)
		if !errors.Is(err, tc.err) || got.Version != tc.version {
			t.Errorf("%s: version %d, %v", name, got.Version, err)
		}
	}
	said := map[dynamo.NodeID]Facts{list[0]: {Store: store(list[0]), Known: 1, Target: lost.Target(), Filled: []dynamo.Partition{0}}}
	if _, changed := lost.Advance(said); changed {
		t.Error("what was said before the loss confirms the fill")
	}
	said[list[0]] = Facts{Store: store(list[0]), Known: 2, Target: lost.Target(), Filled: []dynamo.Partition{0}}
	if next, changed := lost.Advance(said); !changed || len(next.Movement.Filling) > 0 {
		t.Error("the fill is not confirmed")
	}
}

// TestMaybeLost: by how many of the replicas lack data, for the bucket that confirms writes the soonest.
func TestMaybeLost(t *testing.T) {
	f := Founding{ClusterID: ClusterID{1}, ClusterName: "test", Partitions: 2}
	for i := range 5 {
		f.Members = append(f.Members, Member{ID: dynamo.NodeID(rune('a' + i)), Capacity: 1, Store: StoreID{byte(i + 1)}, Start: 1})
	}
	d, _, err := Found(f)
	if err != nil {
		t.Fatal(err)
	}
	soon := bucket.Default()
	soon.Quorum.N, soon.Quorum.W = 5, 1
	list := d.Settled.Primaries(0, 5)
	lost := func(d Document, nodes ...int) Document {
		for _, i := range nodes {
			m, _ := d.Member(list[i])
			if d, err = d.LoseReplica(0, m.ID, m.Store, d.Version); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	with, err := d.CreateBucket(Bucket{Name: "soon", Properties: soon}, false)
	if err != nil {
		t.Fatal(err)
	}
	removed := lost(d, 0)
	for i := range removed.Members {
		m := &removed.Members[i]
		m.Removed = m.Removed || m.ID == list[1]
	}
	for name, tc := range map[string]struct {
		d    Document
		node int
		want bool
	}{
		"one of three":                    {lost(d, 0), 0, false},
		"two of three":                    {lost(d, 1, 0), 0, true},
		"one and a removed one":           {removed, 0, true},
		"another one is no replica":       {lost(d, 3, 0), 0, false},
		"this one is no replica":          {lost(d, 0, 1, 3), 3, false},
		"one confirms":                    {lost(with, 0), 0, true},
		"one confirms, for that n alone":  {lost(with, 4), 4, true},
		"other partitions are not at all": {d, 0, false},
	} {
		if got := tc.d.MaybeLost(0, list[tc.node]); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

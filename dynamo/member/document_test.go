package member

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// founding is a cluster of three plain nodes.
func founding() Founding {
	f := Founding{ClusterID: ClusterID{1}, ClusterName: "test", Partitions: 16}
	for i, id := range []dynamo.NodeID{"c", "a", "b"} {
		f.Members = append(f.Members, Member{ID: id, Capacity: 1, Store: StoreID{byte(i + 1)}, Start: 1, Address: string(id) + ":7800"})
	}
	return f
}

func found(t testing.TB, f Founding) Document {
	t.Helper()
	d, _, err := Found(f)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestFound(t *testing.T) {
	d, report, err := Found(founding())
	if err != nil || len(report.Warnings) != 0 {
		t.Fatalf("found: %v, warnings %v", err, report.Warnings)
	}
	if d.Version != 1 || d.Settled.Version() != 1 || d.Settled.Partitions() != 16 || d.Settled.Depth() != 3 || d.Next != nil {
		t.Errorf("founded %v", d)
	}
	for i, want := range []dynamo.NodeID{"a", "b", "c"} {
		if m := d.Members[i]; m.ID != want || m.Status != Up {
			t.Errorf("member %d is %+v", i, m)
		}
	}
	f := founding()
	slices.Reverse(f.Members)
	if again := found(t, f); !again.Equal(d) {
		t.Error("the order of founders matters")
	}
	f.Partitions = 0
	if got := found(t, f).Settled.Partitions(); got != ring.DefaultPartitions {
		t.Errorf("founded with %d partitions by default", got)
	}
	if _, report, err := Found(Founding{ClusterID: ClusterID{1}, ClusterName: "one", Members: founding().Members[:1]}); err != nil ||
		len(report.Warnings) != 1 || report.Warnings[0].Kind != ring.FewNodes {
		t.Errorf("a cluster of one: %v, warnings %v", err, report.Warnings)
	}
}

func TestFoundRefuses(t *testing.T) {
	cases := map[string]struct {
		change func(*Founding)
		want   error
	}{
		"no members":        {func(f *Founding) { f.Members = nil }, ring.ErrNoMembers},
		"no id":             {func(f *Founding) { f.ClusterID = ClusterID{} }, ErrCluster},
		"no name":           {func(f *Founding) { f.ClusterName = "" }, ErrCluster},
		"bad name":          {func(f *Founding) { f.ClusterName = "a/b" }, ErrCluster},
		"long name":         {func(f *Founding) { f.ClusterName = strings.Repeat("n", 65) }, ErrCluster},
		"odd partitions":    {func(f *Founding) { f.Partitions = 12 }, ring.ErrPartitions},
		"shallow":           {func(f *Founding) { f.Depth = 3 }, ErrDepth},
		"same name twice":   {func(f *Founding) { f.Members[0].ID = "a" }, ring.ErrMember},
		"same store twice":  {func(f *Founding) { f.Members[0].Store = f.Members[1].Store }, ErrMember},
		"no store":          {func(f *Founding) { f.Members[0].Store = StoreID{} }, ErrMember},
		"capacity of zero":  {func(f *Founding) { f.Members[0].Capacity = 0 }, ring.ErrCapacity},
		"address too long":  {func(f *Founding) { f.Members[0].Address = strings.Repeat("a", MaxAddress+1) }, ErrMember},
		"malformed node id": {func(f *Founding) { f.Members[0].ID = "a b" }, dynamo.ErrNodeName},
	}
	for name, c := range cases {
		f := founding()
		c.change(&f)
		if d, _, err := Found(f); !errors.Is(err, c.want) || d.Version != 0 {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestBucket(t *testing.T) {
	d := found(t, founding())
	lww := bucket.Default()
	lww.Conflicts = dynamo.LastWriteWins
	d.Buckets = []Bucket{{"carts", bucket.Default()}, {"sessions", lww}}
	if got, created := d.Bucket("sessions"); got != lww || !created {
		t.Errorf("sessions: %+v, created %v", got, created)
	}
	if got, created := d.Bucket("other"); got != bucket.Default() || created {
		t.Errorf("a bucket that was never created: %+v, created %v", got, created)
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	stranger, _, err := ring.Claim(ring.Ring{}, []ring.Member{{ID: "stranger", Capacity: 1}}, 8, 3)
	if err != nil {
		t.Fatal(err)
	}
	bad := bucket.Default()
	bad.Quorum.R = 9
	d := found(t, founding())
	d.ClusterID, d.ClusterName, d.Version, d.Depth = ClusterID{}, "", 0, 2
	d.Members[2].Status, d.Members[2].Capacity, d.Members[1].ID = 9, -1, "a"
	d.Next = &stranger
	d.Buckets = []Bucket{{"x", bad}, {"", bucket.Default()}}
	err = d.Validate()
	for _, want := range []error{ErrCluster, ErrVersion, ErrDepth, ErrMember, ErrRing, ErrBucket, quorum.ErrR} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not reported", want)
		}
	}
	for _, want := range []string{
		"id is missing", "letters, digits", "capacity -1", "unknown(9)", "ids must ascend", "names must ascend",
		`"stranger", which is no member`, "next has 8 partitions", "lists of 3", "r is out of range", "name of 0 bytes",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if err := (Document{}).Validate(); !errors.Is(err, ErrRing) || !errors.Is(err, ErrMember) {
		t.Errorf("the zero document: %v", err)
	}
}

func TestMembersAndClaimants(t *testing.T) {
	d := found(t, founding())
	d.Members[0].Status, d.Members[1].Status = Leaving, Joining
	var got []string
	for _, m := range d.Claimants() {
		got = append(got, string(m.ID))
	}
	if strings.Join(got, "") != "bc" {
		t.Errorf("claimants %v, want b and c: a is leaving", got)
	}
	if m, ok := d.Member("b"); !ok || m.Status.String() != "joining" {
		t.Errorf("member b: %+v", m)
	}
	if _, ok := d.Member("bb"); ok {
		t.Error("bb is no member")
	}
	d.Members[2].Status = Gone
	if err := d.Validate(); !errors.Is(err, ErrRing) {
		t.Errorf("a ring that names a member that is gone: %v", err)
	}
}

// TestEqual changes each field in turn: every change must show.
func TestEqual(t *testing.T) {
	next, _, err := ring.Claim(found(t, founding()).Settled, found(t, founding()).Claimants(), 16, 7)
	if err != nil {
		t.Fatal(err)
	}
	moved := next
	changes := map[string]func(*Document){
		"id":      func(d *Document) { d.ClusterID[3]++ },
		"name":    func(d *Document) { d.ClusterName += "x" },
		"version": func(d *Document) { d.Version++ },
		"member":  func(d *Document) { d.Members[1].Start++ },
		"settled": func(d *Document) { d.Settled = next },
		"next":    func(d *Document) { d.Next = &moved },
		"bucket":  func(d *Document) { d.Buckets = []Bucket{{"b", bucket.Default()}} },
		"depth":   func(d *Document) { d.Depth++ },
	}
	base := found(t, founding())
	if !base.Equal(found(t, founding())) {
		t.Fatal("the same founding gives different documents")
	}
	for name, change := range changes {
		d := found(t, founding())
		change(&d)
		if d.Equal(base) || base.Equal(d) {
			t.Errorf("a change of %s does not show", name)
		}
		if !d.Equal(d) {
			t.Errorf("%s: a document differs from itself", name)
		}
	}
}

package messages

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// drawBuckets draws valid buckets, names of any bytes among them.
func drawBuckets(t *rapid.T) []member.Bucket {
	var out []member.Bucket
	for _, name := range rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), 1, 12), 0, 4, func(b []byte) string { return string(b) }).Draw(t, "buckets") {
		n := rapid.IntRange(1, quorum.MaxN).Draw(t, "n")
		upTo := func(least int) int { return rapid.IntRange(least, n).Draw(t, "of n") }
		out = append(out, member.Bucket{Name: string(name), Properties: bucket.Properties{
			Quorum:     quorum.Params{N: n, R: upTo(1), W: upTo(1), PR: upTo(0), PW: upTo(0)},
			Durability: dynamo.Durability(rapid.IntRange(0, 2).Draw(t, "durability")),
			Conflicts:  dynamo.Conflicts(rapid.IntRange(0, 1).Draw(t, "conflicts")),
			TTL:        time.Duration(rapid.Int64Range(0, bucket.MaxTTL.Milliseconds()).Draw(t, "ttl")) * time.Millisecond,
		}})
	}
	return out
}

// drawDocument draws a cluster that was founded, and maybe has a next ring.
func drawDocument(t *rapid.T) member.Document {
	f := member.Founding{
		ClusterID: member.ClusterID{1}, ClusterName: rapid.StringMatching(`[a-zA-Z0-9._-]{1,20}`).Draw(t, "name"),
		Partitions: 1 << rapid.IntRange(0, 5).Draw(t, "log q"), Buckets: drawBuckets(t),
	}
	for i := range rapid.IntRange(1, 9).Draw(t, "nodes") {
		f.Members = append(f.Members, member.Member{
			ID: dynamo.NodeID(fmt.Sprintf("n%d", i)), Zone: rapid.SampledFrom([]string{"", "east", "west"}).Draw(t, "zone"),
			Capacity: rapid.IntRange(1, 4).Draw(t, "capacity"), Store: member.StoreID{byte(i + 1)}, Start: rapid.Uint64().Draw(t, "start"),
			Address: rapid.SampledFrom([]string{"", "10.0.0.1:7800", "[::1]:1"}).Draw(t, "address"),
		})
	}
	d, _, err := member.Found(f)
	if err != nil {
		t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "staged") {
		d = drawStaged(t, d)
	}
	if len(d.Staged) > 0 && rapid.Bool().Draw(t, "moving") {
		d = drawMovement(t, d)
	}
	if rapid.Bool().Draw(t, "forced") {
		if next, err := d.Force([]dynamo.NodeID{d.Members[0].ID, "n1", "n2"}, 0); err == nil {
			d = next
		}
	}
	return d
}

// drawStaged stages one change of each kind that the document takes.
func drawStaged(t *rapid.T, d member.Document) member.Document {
	some := func() dynamo.NodeID { return rapid.SampledFrom(d.Members).Draw(t, "whom").ID }
	joins := member.Member{ID: "new", Capacity: 1, Store: member.StoreID{99}, Start: 1, Address: "10.0.0.9:1"}
	for _, c := range []member.Change{
		{Kind: member.Join, Node: joins.ID, Member: joins},
		{Kind: member.Replace, Node: some(), With: joins.ID, Dead: rapid.Bool().Draw(t, "dead")},
		{Kind: member.Leave, Node: some()},
		{Kind: member.Remove, Node: some()},
		{Kind: member.SetCapacity, Node: some(), Capacity: rapid.IntRange(1, 4).Draw(t, "capacity")},
		{Kind: member.SetZone, Node: some(), Zone: "north"},
	} {
		if next, err := d.Stage(c); err == nil && rapid.Bool().Draw(t, "stage") {
			d = next
		}
	}
	return d
}

// drawMovement commits what is staged and takes the movement some way.
func drawMovement(t *rapid.T, d member.Document) member.Document {
	d, err := d.Commit(d.Version)
	if err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(0, 4).Draw(t, "steps") {
		facts := map[dynamo.NodeID]member.Facts{}
		for _, m := range d.Members {
			f := member.Facts{Store: m.Store, Known: d.Version, Target: d.Target(), Idle: rapid.Bool().Draw(t, "idle")}
			for _, fill := range d.FillsOf(m.ID) {
				if rapid.Bool().Draw(t, "filled") {
					f.Filled = append(f.Filled, fill.Partition)
				}
			}
			facts[m.ID] = f
		}
		d, _ = d.Advance(facts)
	}
	return d
}

// TestForceRoundTrip: so does what forcing asks and is answered.
func TestForceRoundTrip(t *testing.T) {
	p := member.Prepare{
		Cluster: member.ClusterID{1}, Version: 1 << 46, Ballot: member.Ballot{Round: 1, Node: "a", Start: 1}, Base: 7, Lost: []dynamo.NodeID{"b", "c"},
	}
	got, accept, err := ToRegister(FromPrepare(p))
	if err != nil || accept != nil || !reflect.DeepEqual(*got, p) {
		t.Errorf("%+v became %+v, %v", p, got, err)
	}
	bad := FromPrepare(p)
	bad.Lost[1] = "a b"
	if _, _, err := ToRegister(bad); !errors.Is(err, dynamo.ErrNodeName) {
		t.Errorf("a bad name: %v", err)
	}
	if r, err := ToReply(FromReply(member.Opposed{Why: "x"})); r != (member.Opposed{Why: "x"}) || err != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := ToNames(make([]string, member.MaxMembers+1)); !errors.Is(err, ErrBounds) {
		t.Errorf("too many names: %v", err)
	}
}

// TestDocumentRoundTrip: what is sent, or stored, is what arrives.
func TestDocumentRoundTrip(t *testing.T) {
	moving := 0
	rapid.Check(t, func(t *rapid.T) {
		d := drawDocument(t)
		wire, err := proto.Marshal(FromDocument(d))
		if err != nil {
			t.Fatal(err)
		}
		var m Document
		if err := proto.Unmarshal(wire, &m); err != nil {
			t.Fatal(err)
		}
		got, err := ToDocument(&m)
		if err != nil {
			t.Fatalf("%v\n%+v", err, d)
		}
		if !got.Equal(d) {
			t.Fatalf("%+v became %+v", d, got)
		}
		if d.Next != nil {
			moving++
		}
	})
	if moving == 0 {
		t.Error("no document had a next ring")
	}
}

func plainDocument(t testing.TB) *Document {
	t.Helper()
	f := member.Founding{ClusterID: member.ClusterID{1}, ClusterName: "test", Partitions: 4, Buckets: []member.Bucket{{Name: "b", Properties: bucket.Default()}}}
	for i := range 3 {
		f.Members = append(f.Members, member.Member{ID: dynamo.NodeID(fmt.Sprintf("n%d", i)), Capacity: 1, Store: member.StoreID{byte(i + 1)}})
	}
	d, _, err := member.Found(f)
	if err != nil {
		t.Fatal(err)
	}
	return FromDocument(d)
}

// TestToDocumentRefuses everything that is out of range, before it is converted
// to a type in which it might look right.
func TestToDocumentRefuses(t *testing.T) {
	if _, err := ToDocument(plainDocument(t)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Document)
		want   error
	}{
		"no cluster id":       {func(m *Document) { m.ClusterId = nil }, ErrBounds},
		"long cluster id":     {func(m *Document) { m.ClusterId = make([]byte, 17) }, ErrBounds},
		"zero cluster id":     {func(m *Document) { m.ClusterId = make([]byte, 16) }, member.ErrCluster},
		"no name":             {func(m *Document) { m.ClusterName = "" }, member.ErrCluster},
		"version 0":           {func(m *Document) { m.Version = 0 }, member.ErrVersion},
		"depth":               {func(m *Document) { m.Depth = 1<<32 - 1 }, member.ErrDepth},
		"too many members":    {func(m *Document) { m.Members = make([]*Member, member.MaxMembers+1) }, ErrBounds},
		"too many buckets":    {func(m *Document) { m.Buckets = make([]*Bucket, member.MaxBuckets+1) }, ErrBounds},
		"no members":          {func(m *Document) { m.Members = nil }, member.ErrMember},
		"capacity":            {func(m *Document) { m.Members[0].Capacity = ring.MaxCapacity + 1 }, ErrBounds},
		"status that wraps":   {func(m *Document) { m.Members[0].Status = 256 + uint32(member.Up) }, ErrBounds},
		"short store id":      {func(m *Document) { m.Members[0].Store = m.Members[0].Store[:15] }, ErrBounds},
		"member's name":       {func(m *Document) { m.Members[0].Id = "a b" }, member.ErrMember},
		"same store":          {func(m *Document) { m.Members[1].Store = m.Members[0].Store }, member.ErrMember},
		"no ring":             {func(m *Document) { m.Settled = nil }, ErrBounds},
		"empty next":          {func(m *Document) { m.Next = &Ring{} }, ErrBounds},
		"next as old":         {func(m *Document) { m.Next = m.Settled }, member.ErrRing},
		"too many partitions": {func(m *Document) { m.Settled.Lists = make([]*ReplicaList, ring.MaxPartitions+1) }, ErrBounds},
		"too many nodes":      {func(m *Document) { m.Settled.Nodes = make([]string, member.MaxMembers+1) }, ErrBounds},
		"3 partitions":        {func(m *Document) { m.Settled.Lists = m.Settled.Lists[:3] }, ring.ErrPartitions},
		"node out of range":   {func(m *Document) { m.Settled.Lists[2].Nodes[0] = 3 }, ErrBounds},
		"node far out":        {func(m *Document) { m.Settled.Lists[2].Nodes[0] = 1<<32 - 1 }, ErrBounds},
		"long replica list":   {func(m *Document) { m.Settled.Lists[0].Nodes = make([]uint32, ring.MaxDepth+1) }, ErrBounds},
		"node twice":          {func(m *Document) { m.Settled.Lists[0].Nodes = []uint32{1, 1, 2} }, ring.ErrRepeated},
		"stranger in ring":    {func(m *Document) { m.Settled.Nodes[0] = "stranger" }, member.ErrRing},
		"n of 8":              {func(m *Document) { m.Buckets[0].N = 8 }, ErrBounds},
		"r that wraps":        {func(m *Document) { m.Buckets[0].R = 1<<32 - 1 }, ErrBounds},
		"w over n":            {func(m *Document) { m.Buckets[0].W = 4 }, member.ErrBucket},
		"durability":          {func(m *Document) { m.Buckets[0].Durability = 256 }, ErrBounds},
		"conflicts":           {func(m *Document) { m.Buckets[0].Conflicts = 2 }, ErrBounds},
		"ttl":                 {func(m *Document) { m.Buckets[0].TtlMs = 1 << 63 }, ErrBounds},
		"ttl over the max":    {func(m *Document) { m.Buckets[0].TtlMs = uint64(bucket.MaxTTL.Milliseconds()) + 1 }, member.ErrBucket},
		"bucket without name": {func(m *Document) { m.Buckets[0].Name = nil }, member.ErrBucket},
	} {
		t.Run(name, func(t *testing.T) {
			m := plainDocument(t)
			c.change(m)
			if d, err := ToDocument(m); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v\n%+v", err, c.want, d)
			}
		})
	}
}

func TestToIdentity(t *testing.T) {
	good := func() *IdentityReply {
		return &IdentityReply{
			Node: "n1", Store: bytes.Repeat([]byte{7}, 16), Start: 5, Zone: "east", Capacity: 2, Address: "h:1", Founding: true, Partitions: 64,
		}
	}
	who, doc, err := ToIdentity(good())
	want := founding.Candidate{
		ID: "n1", Store: [16]byte(bytes.Repeat([]byte{7}, 16)), Start: 5, Zone: "east", Capacity: 2, Address: "h:1", Founding: true, Partitions: 64,
	}
	if err != nil || doc != nil || who != want {
		t.Errorf("%+v, %v, %v", who, doc, err)
	}
	m := good()
	m.Document = plainDocument(t)
	if _, doc, err := ToIdentity(m); err != nil || doc == nil || doc.ClusterName != "test" {
		t.Errorf("with a document: %v, %v", doc, err)
	}
	for name, c := range map[string]struct {
		change func(*IdentityReply)
		want   error
	}{
		"no name":      {func(m *IdentityReply) { m.Node = "" }, dynamo.ErrNodeName},
		"bad name":     {func(m *IdentityReply) { m.Node = "a/b" }, dynamo.ErrNodeName},
		"short store":  {func(m *IdentityReply) { m.Store = nil }, ErrBounds},
		"no capacity":  {func(m *IdentityReply) { m.Capacity = 0 }, ErrBounds},
		"capacity":     {func(m *IdentityReply) { m.Capacity = ring.MaxCapacity + 1 }, ErrBounds},
		"long address": {func(m *IdentityReply) { m.Address = string(make([]byte, member.MaxAddress+1)) }, ErrBounds},
		"long zone":    {func(m *IdentityReply) { m.Zone = string(make([]byte, dynamo.MaxNodeName+1)) }, ErrBounds},
		"bad document": {func(m *IdentityReply) { m.Document = &Document{} }, ErrBounds},
	} {
		m := good()
		c.change(m)
		if _, _, err := ToIdentity(m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

package messages

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/version"
)

// fuzz feeds a conversion with whatever bytes decode to a message of its type.
// What it accepts must be within every limit.
func fuzz[M any, P interface {
	*M
	proto.Message
}](f *testing.F, seeds []P, check func(testing.TB, P)) {
	for _, s := range seeds {
		b, err := proto.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := P(new(M))
		if proto.Unmarshal(b, m) == nil {
			check(t, m)
		}
	})
}

func FuzzToPut(f *testing.F) {
	const maxValue = 1000
	seeds := []*PutRequest{
		{Bucket: []byte("b"), Key: []byte("k"), Value: []byte("v"), Context: someRecord().Context().Encode(key), RequestId: make([]byte, 16)},
		{Bucket: []byte("b"), Key: []byte("k"), Delete: true, Retry: true, AgeMs: 1<<32 - 1},
	}
	fuzz(f, seeds, func(t testing.TB, m *PutRequest) {
		p, err := ToPut(m, maxValue)
		if err == nil && (p.Key.Validate() != nil || len(p.Value) > maxValue || p.Age < 0) {
			t.Errorf("accepted %+v", p)
		}
		if again := p.Context.Encode(p.Key); err == nil && len(again) > dynamo.MaxContext {
			t.Errorf("accepted a context of %d bytes", len(again))
		}
	})
}

func FuzzToRead(f *testing.F) {
	seeds := []*ReadRequest{{Bucket: []byte("b"), Key: []byte("k"), N: 3, DigestAbove: 1 << 31}}
	fuzz(f, seeds, func(t testing.TB, m *ReadRequest) {
		if r, err := ToRead(m); err == nil && (r.Key.Validate() != nil || r.N < 1 || r.N > quorum.MaxN || r.DigestAbove < 0) {
			t.Errorf("accepted %+v", r)
		}
	})
}

func FuzzToReplicate(f *testing.F) {
	seeds := []*ReplicateRequest{{Bucket: []byte("b"), Key: []byte("k"), N: 3, Record: version.Append(nil, someRecord())},
		{Bucket: []byte("b"), Key: []byte("k"), N: 3, Record: version.Append(nil, someRecord()), HintFor: "n1"}}
	fuzz(f, seeds, func(t testing.TB, m *ReplicateRequest) {
		r, err := ToReplicate(m)
		if err != nil {
			return
		}
		if r.Key.Validate() != nil || r.N < 1 || r.N > quorum.MaxN || r.HintFor != "" && r.HintFor.Validate() != nil {
			t.Errorf("accepted %+v", r)
		}
		if again := version.Append(nil, r.Record); string(again) != string(m.GetRecord()) {
			t.Errorf("the record has two encodings: %x and %x", m.GetRecord(), again)
		}
	})
}

func FuzzToHandoff(f *testing.F) {
	some := &HandoffRecord{Bucket: []byte("b"), Key: []byte("k"), Record: version.Append(nil, someRecord())}
	fuzz(f, []*HandoffRequest{{N: 3, Records: []*HandoffRecord{some, some}}}, func(t testing.TB, m *HandoffRequest) {
		all, err := ToHandoff(m)
		if err == nil && len(all) != len(m.GetRecords()) {
			t.Errorf("%d of %d records", len(all), len(m.GetRecords()))
		}
		for _, r := range all {
			if r.Key.Validate() != nil || r.N < 1 || r.N > quorum.MaxN || len(r.Record.Missing()) > 0 {
				t.Errorf("accepted %+v", r)
			}
		}
	})
}

func FuzzToRecord(f *testing.F) {
	fuzz(f, []*ReadReply{{Record: version.Append(nil, someRecord()), Authoritative: true}}, func(t testing.TB, m *ReadReply) {
		rec, found, err := ToRecord(m)
		if found != (err == nil && len(m.GetRecord()) > 0) {
			t.Errorf("found %v with %d bytes and %v", found, len(m.GetRecord()), err)
		}
		if found && string(version.Append(nil, rec)) != string(m.GetRecord()) {
			t.Errorf("the record has two encodings: %x", m.GetRecord())
		}
	})
}

func FuzzToOverride(f *testing.F) {
	fuzz(f, []*Quorum{{R: 1, W: 2, Pr: 3, Pw: 1<<32 - 1}}, func(t testing.TB, m *Quorum) {
		if p, err := quorum.Default().Override(ToOverride(m)); err == nil && p.Validate() != nil {
			t.Errorf("accepted %v", p)
		}
	})
}

func FuzzToDocument(f *testing.F) {
	fuzz(f, []*Document{plainDocument(f)}, func(t testing.TB, m *Document) { checkDocument(t, m) })
}

// checkDocument wants what is accepted to be valid, and to survive the way back.
func checkDocument(t testing.TB, m *Document) {
	d, err := ToDocument(m)
	if err != nil {
		return
	}
	if err := d.Validate(); err != nil {
		t.Errorf("accepted: %v", err)
	}
	if again, err := ToDocument(FromDocument(d)); err != nil || !again.Equal(d) {
		t.Errorf("%+v became %+v, %v", d, again, err)
	}
}

func FuzzToIdentity(f *testing.F) {
	seeds := []*IdentityReply{{Node: "n1", Store: make([]byte, 16), Capacity: 1, Document: plainDocument(f)}}
	fuzz(f, seeds, func(t testing.TB, m *IdentityReply) {
		who, doc, err := ToIdentity(m)
		if err != nil {
			return
		}
		if who.ID.Validate() != nil || who.Capacity < 1 || len(who.Address) > member.MaxAddress || who.Partitions < 0 {
			t.Errorf("accepted %+v", who)
		}
		if doc != nil {
			checkDocument(t, m.GetDocument())
		}
	})
}

func FuzzToFill(f *testing.F) {
	seeds := []*FillRequest{{N: 3, Cursor: []byte("o"), Digests: true, Wanted: []*FillKey{{Bucket: []byte("b"), Key: []byte("k")}}}}
	fuzz(f, seeds, func(t testing.TB, m *FillRequest) {
		r, err := ToFill(m)
		if err == nil && (r.N < 1 || r.N > quorum.MaxN || len(r.Wanted) > MaxWanted) {
			t.Errorf("accepted %+v", r)
		}
		for _, k := range r.Wanted {
			if k.Validate() != nil {
				t.Errorf("accepted %+v", k)
			}
		}
	})
}

func FuzzToDigests(f *testing.F) {
	seeds := []*FillReply{{Digests: []*FillDigest{{Bucket: []byte("b"), Key: []byte("k"), Hash: make([]byte, version.HashSize)}}}}
	fuzz(f, seeds, func(t testing.TB, m *FillReply) {
		all, err := ToDigests(m)
		if err == nil && len(all) != len(m.GetDigests()) || len(all) > MaxWanted {
			t.Errorf("%d of %d accepted", len(all), len(m.GetDigests()))
		}
		for _, d := range all {
			if d.Key.Validate() != nil {
				t.Errorf("accepted %+v", d)
			}
		}
	})
}

// FuzzToExchange: what is accepted no tree can be harmed with.
func FuzzToExchange(f *testing.F) {
	seeds := []*ExchangeRequest{
		{N: 3, Question: &ExchangeRequest_Root{Root: &TreeRoot{}}},
		{N: 3, Question: &ExchangeRequest_Root{Root: &TreeRoot{Hash: make([]byte, 16), Bits: 6}}},
		{N: 3, Question: &ExchangeRequest_Nodes{Nodes: &TreeNodes{Bits: 4, Index: []uint32{1, 15}, To: 6}}},
		{N: 3, Question: &ExchangeRequest_Leaves{Leaves: &TreeLeaves{Bits: 6, Index: []uint32{0, 63}, From: []byte("a"), Until: []byte("b")}}},
		{N: 3, Question: &ExchangeRequest_Recheck{Recheck: &TreeLeaves{Bits: 22, Index: []uint32{1<<22 - 1}}}},
		{N: 3, Question: &ExchangeRequest_Pull{Pull: &RecordNames{Bits: 6, Leaf: []uint32{7}, Hash: []uint64{1 << 63}}}},
		{N: 7, Question: &ExchangeRequest_Push{Push: &RecordPage{Records: []*HandoffRecord{
			{Bucket: []byte("b"), Key: []byte("k"), Record: version.Append(nil, someRecord())}, {Record: []byte("bad")},
		}}}},
	}
	fuzz(f, seeds, func(t testing.TB, m *ExchangeRequest) {
		n, question, err := ToExchange(m)
		if err != nil {
			return
		}
		tree := hashtree.New(4, 3)
		switch q := question.(type) {
		case Root:
			if _, bits, digests, err := exchange.Meet(tree, q.Hash, q.Bits, m.GetRound()); err == nil && len(digests) != 0 && bits > tree.Bits() {
				t.Errorf("%d digests of %d bits", len(digests), bits)
			}
		case exchange.Compare:
			if digests, err := exchange.Digests(tree, q); err == nil && (len(digests) == 0 || len(digests) > exchange.MaxNodes) {
				t.Errorf("%d digests", len(digests))
			}
		case Leaves:
			for _, i := range q.Index {
				tree.Range(hashtree.Prefix{Bits: q.Bits, Index: i})
			}
		case Recheck:
			for _, p := range q.Leaves {
				tree.Doubt(p)
			}
			if p, ok := tree.Work(); !ok || p.Index >= 1<<p.Bits {
				t.Errorf("%v is to be read", p)
			}
		case exchange.Pull:
			if len(q.Items) == 0 || len(q.Items) > exchange.MaxKeys || q.Items[0].Leaf >= 1<<q.Bits {
				t.Errorf("accepted %v", q)
			}
		case Push:
			if n < 1 || n > quorum.MaxN || len(q.Records)+q.Damaged != len(m.GetPush().GetRecords()) {
				t.Errorf("%d records and %d damaged, n is %d", len(q.Records), q.Damaged, n)
			}
		default:
			t.Errorf("accepted %T", q)
		}
	})
}

// TestTooWideLeaves: nobody may ask for leaves that no tree has, which might be all of a
// partition.
func TestTooWideLeaves(t *testing.T) {
	for bits := range uint32(hashtree.MinBits + 1) {
		leaves := &TreeLeaves{Bits: bits, Index: []uint32{0}}
		for _, m := range []*ExchangeRequest{
			{N: 3, Question: &ExchangeRequest_Leaves{Leaves: leaves}},
			{N: 3, Question: &ExchangeRequest_Recheck{Recheck: leaves}},
			{N: 3, Question: &ExchangeRequest_Pull{Pull: &RecordNames{Bits: bits, Leaf: []uint32{0}, Hash: []uint64{1}}}},
		} {
			if _, _, err := ToExchange(m); (err == nil) != (bits == hashtree.MinBits) {
				t.Errorf("%v: %v", m, err)
			}
		}
	}
}

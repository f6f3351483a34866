package messages

import (
	"fmt"

	"github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/hashtree"
)

// What an ExchangeRequest can ask. A question is one of these, an exchange.Compare, or
// an exchange.Pull.
type (
	// Root compares a root; Ask asks for the own one.
	Root struct {
		Hash hashtree.Hash
		Bits uint8
		Ask  bool
	}
	// Leaves lists what is in leaves, up to the storage key Until if there is one.
	Leaves struct {
		exchange.List
		Until []byte
	}
	// Push has records to merge, and how many of those sent cannot be.
	Push struct {
		Records []Replicate
		Damaged int
	}
	// Recheck names leaves to be read again.
	Recheck struct{ Leaves []hashtree.Prefix }
)

// ToExchange checks and converts a question about the hash tree of one n. Whether a tree
// can answer it is not checked.
func ToExchange(m *ExchangeRequest) (n int, question any, err error) {
	if n, err = toN(m.GetN()); err != nil {
		return 0, nil, err
	}
	switch q := m.GetQuestion().(type) {
	case *ExchangeRequest_Root:
		question, err = toRoot(q.Root)
	case *ExchangeRequest_Nodes:
		c := exchange.Compare{Round: m.GetRound(), Index: q.Nodes.GetIndex()}
		if c.Bits, err = toBits(q.Nodes.GetBits()); err == nil {
			c.To, err = toBits(q.Nodes.GetTo())
		}
		question = c
	case *ExchangeRequest_Leaves:
		question, err = toLeaves(q.Leaves)
	case *ExchangeRequest_Recheck:
		var l Leaves
		l, err = toLeaves(q.Recheck)
		var out Recheck
		for _, i := range l.Index {
			out.Leaves = append(out.Leaves, hashtree.Prefix{Bits: l.Bits, Index: i})
		}
		question = out
	case *ExchangeRequest_Pull:
		question, err = toPull(q.Pull)
	case *ExchangeRequest_Push:
		question = ToRecords(n, q.Push.GetRecords())
	default:
		err = fmt.Errorf("%w: no question", ErrBounds)
	}
	return n, question, err
}

func toBits(x uint32) (uint8, error) {
	if x > hashtree.MaxBits {
		return 0, fmt.Errorf("%w: %d bits of a tree", ErrBounds, x)
	}
	return uint8(x), nil
}

func toRoot(m *TreeRoot) (Root, error) {
	if len(m.GetHash()) == 0 {
		return Root{Ask: true}, nil
	}
	bits, err := toBits(m.GetBits())
	if err == nil && len(m.GetHash()) != len(hashtree.Hash{}) {
		err = fmt.Errorf("%w: a root of %d bytes", ErrBounds, len(m.GetHash()))
	}
	if err != nil {
		return Root{}, err
	}
	return Root{Hash: hashtree.Hash(m.GetHash()), Bits: bits}, nil
}

// toLeafBits wants leaves: no tree has fewer of them than the smallest, and reading wider
// ranges would hold up a reader.
func toLeafBits(x uint32) (uint8, error) {
	if x < hashtree.MinBits {
		return 0, fmt.Errorf("%w: leaves of %d bits", ErrBounds, x)
	}
	return toBits(x)
}

func toLeaves(m *TreeLeaves) (Leaves, error) {
	bits, err := toLeafBits(m.GetBits())
	out := Leaves{List: exchange.List{Bits: bits, Index: m.GetIndex(), From: m.GetFrom()}, Until: m.GetUntil()}
	if err == nil {
		err = out.Check()
	}
	return out, err
}

func toPull(m *RecordNames) (exchange.Pull, error) {
	bits, err := toLeafBits(m.GetBits())
	out := exchange.Pull{Bits: bits, From: m.GetFrom(), Until: m.GetUntil()}
	if err == nil && (len(m.GetLeaf()) != len(m.GetHash()) || len(m.GetLeaf()) == 0 || len(m.GetLeaf()) > exchange.MaxKeys) {
		err = fmt.Errorf("%w: %d records are named by %d hashes", ErrBounds, len(m.GetLeaf()), len(m.GetHash()))
	}
	for i, leaf := range m.GetLeaf() {
		if err == nil && leaf >= 1<<bits {
			err = fmt.Errorf("%w: leaf %d of %d bits", ErrBounds, leaf, bits)
		}
		if err != nil {
			return exchange.Pull{}, err
		}
		out.Items = append(out.Items, exchange.Item{Leaf: leaf, Hash: m.GetHash()[i]})
	}
	return out, err
}

// ToRecords checks and converts records one by one: one that is bad must not keep the
// others from being merged. Values alias the messages.
func ToRecords(n int, all []*HandoffRecord) Push {
	var out Push
	for _, r := range all {
		x, err := toReplicate(uint32(n), r.GetBucket(), r.GetKey(), r.GetRecord())
		if err != nil {
			out.Damaged++
			continue
		}
		out.Records = append(out.Records, x)
	}
	return out
}

package exchange

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo/hashtree"
)

// Item names a record: the leaf it lies in, and the first bytes of its entry's hash
// (hashtree.Hash.Short).
type Item struct {
	Leaf uint32
	Hash uint64
}

// Event is what happened: Met, Compared, Listed, Page, Merged, Pushed, Failed,
// Broken. Each but the last answers the effect with its batch's number; what answers
// another one is ignored. Bytes are those of the messages in both directions,
// RecordBytes those of the records in them.
type Event interface{ batch() uint64 }

type (
	// Met: the roots were compared, and unless they are Equal, with all 16 bytes, the
	// digests of their 16 children. Bits is the lower of the two trees' Bits.
	Met struct {
		Batch     uint64
		Equal     bool
		Bits      uint8
		Own, Peer []uint32
		Bytes     int
	}
	// Compared has the digests of the children asked for, in order, of both trees.
	Compared struct {
		Batch     uint64
		Own, Peer []uint32
		Bytes     int
	}
	// Listed has for the first of the leaves asked for what each side holds there. If
	// Next is not nil, the last of these lists ends before it on both sides. Damaged ones
	// could not be read to their end, and list what could be.
	Listed struct {
		Batch          uint64
		Own, Peer      [][]uint64
		Next           []byte
		Damaged, Bytes int
	}
	// Page is about the first Handled of the items to be pulled: so many Records came,
	// so many the peer could not read; the rest have changed.
	Page struct {
		Batch                     uint64
		Handled, Records, Damaged int
		Bytes, RecordBytes        int
	}
	// Merged: the records of the last page are merged into those here, except for
	// Damaged ones, which this vnode could not merge.
	Merged struct {
		Batch   uint64
		Records []Result
		Damaged int
	}
	// Pushed is about the first Handled of the items to be pushed: the peer has merged
	// so many Records; so many could not be read here, or merged there; the rest have
	// changed.
	Pushed struct {
		Batch                     uint64
		Handled, Records, Damaged int
		Bytes, RecordBytes        int
	}
	// Failed: there was no answer in time, or the peer refused.
	Failed struct {
		Batch  uint64
		Reason string
	}
	// Broken: the ring or an incarnation changed, the store here broke, or the time is
	// over.
	Broken struct{ Reason string }
)

func (e Met) batch() uint64      { return e.Batch }
func (e Compared) batch() uint64 { return e.Batch }
func (e Listed) batch() uint64   { return e.Batch }
func (e Page) batch() uint64     { return e.Batch }
func (e Merged) batch() uint64   { return e.Batch }
func (e Pushed) batch() uint64   { return e.Batch }
func (e Failed) batch() uint64   { return e.Batch }
func (Broken) batch() uint64     { return 0 }

// Result is what became of one record of the peer: its hash there, and the hashes
// of the record here before and after the merge; 0 is none.
type Result struct {
	Leaf                uint32
	Peer, Before, After uint64
}

// Effect is what to do: Greet, Compare, List, Pull, Merge, Push, Recheck, Finish.
type Effect interface{ effect() }

type (
	// Greet compares the roots: it sends the peer the own root and Bits, and is answered
	// with Met.
	Greet struct {
		Batch, Round uint64
	}
	// Compare gets the digests of the children, of To bits, of some nodes of Bits bits,
	// from the peer and from the own tree: Compared.
	Compare struct {
		Batch, Round uint64
		Bits         uint8
		Index        []uint32
		To           uint8
	}
	// List gets what both sides hold in some leaves, in the first one from a cursor on:
	// Listed. See Holding.
	List struct {
		Batch uint64
		Bits  uint8
		Index []uint32
		From  []byte
	}
	// Pull asks the peer for records: Page. They lie between the cursors that they were
	// listed between; nil is none. See Batch.
	Pull struct {
		Batch       uint64
		Bits        uint8
		Items       []Item
		From, Until []byte
	}
	// Merge has the vnode here merge the records of the last page: Merged.
	Merge struct{ Batch uint64 }
	// Push sends records from here for the peer to merge: Pushed. They lie as those of a
	// Pull do.
	Push struct {
		Batch       uint64
		Bits        uint8
		Items       []Item
		From, Until []byte
	}
	// Recheck tells both sides to doubt a leaf of their trees. Nothing is answered.
	Recheck struct{ Leaf hashtree.Prefix }
	// Finish ends the exchange.
	Finish struct{ Outcome Outcome }
)

func (Greet) effect()   {}
func (Compare) effect() {}
func (List) effect()    {}
func (Pull) effect()    {}
func (Merge) effect()   {}
func (Push) effect()    {}
func (Recheck) effect() {}
func (Finish) effect()  {}

// difference is what only a has and what only b has; each hash once.
func difference(a, b []uint64) (onlyA, onlyB []uint64) {
	only := func(x, y []uint64) []uint64 {
		in := make(map[uint64]bool, len(y))
		for _, h := range y {
			in[h] = true
		}
		var out []uint64
		for _, h := range x {
			if !in[h] {
				out = append(out, h)
				in[h] = true
			}
		}
		return out
	}
	return only(a, b), only(b, a)
}

func appendItems(items []Item, leaf uint32, hashes []uint64) []Item {
	for _, h := range hashes {
		items = append(items, Item{leaf, h})
	}
	return items
}

func without(items []Item, x Item) []Item {
	return slices.DeleteFunc(items, func(i Item) bool { return i == x })
}

func tooMany(lists [][]uint64) bool {
	n := 0
	for _, l := range lists {
		n += len(l)
	}
	return n > MaxKeys
}

package transfer

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// Stream is all that one replica, the source, has of a partition's records with
// one n.
type Stream struct {
	N      int
	Source dynamo.NodeID
}

// FillState is what a fill awaits.
type FillState uint8

const (
	// Resting: Start was not called, or the last run is over.
	Resting FillState = iota
	// Asking: a source is to answer.
	Asking
	// Comparing: the records here are compared with the source's hashes.
	Comparing
	// Merging: records are on their way to the disk.
	Merging
	// Sealing: all that was found here already is on its way to the disk.
	Sealing
)

var fillNames = [...]string{"resting", "asking", "comparing", "merging", "sealing"}

// String is the state's word in the console.
func (s FillState) String() string {
	if int(s) < len(fillNames) {
		return fillNames[s]
	}
	return fmt.Sprintf("unknown(%d)", uint8(s))
}

// Events of a fill, besides Failed and Broken. Each names the batch that it is
// about.
type (
	// Page is a source's answer.
	Page struct {
		Node  dynamo.NodeID
		Batch uint64
		// Cursor is where the next page begins, and More whether there may be one.
		// Neither counts in an answer to wanted keys.
		Cursor []byte
		More   bool
		// Digests: it has hashes, not records.
		Digests bool
		// Records is how many records it has, Handled how many of the wanted keys it
		// is about, and Damaged how many records the source could not read.
		Records, Handled, Damaged int
	}
	// Compared: so many records of the page differ from those here.
	Compared struct {
		Batch  uint64
		Wanted int
	}
	// Merged: the disk has the page's records, and all that was here before.
	Merged struct{ Batch uint64 }
)

func (Page) event()     {}
func (Compared) event() {}
func (Merged) event()   {}

// Effects of a fill.
type (
	// Ask asks a source for the page that begins at Cursor: for hashes, or for
	// records; or for the first Wanted of the keys that a comparison found and
	// that were not handled yet, if that is not 0.
	Ask struct {
		Stream
		Batch   uint64
		Cursor  []byte
		Digests bool
		Wanted  int
	}
	// Compare looks which records of the last page differ from those here.
	Compare struct{ Batch uint64 }
	// Merge merges the last page's records into those here, and makes them and all
	// that was here before durable.
	Merge struct{ Batch uint64 }
	// Seal makes all that is here durable.
	Seal struct{ Batch uint64 }
	// Rest ends the run. The fill can be started again and goes on where it is.
	Rest struct{ Outcome FillOutcome }
)

func (Ask) effect()     {}
func (Compare) effect() {}
func (Merge) effect()   {}
func (Seal) effect()    {}
func (Rest) effect()    {}

// FillOutcome is how a run of a fill ended, and what was done since the fill began.
type FillOutcome struct {
	// Complete: every source was streamed to its end, and all of it is durable.
	Complete bool
	// Merged is how many records were taken, Damaged how many a source could not
	// read. There it is no proof of anything; the other sources make up for it.
	Merged, Damaged int
	// Reason says why the fill is not complete.
	Reason string
}

// stream is how far one source was streamed.
type stream struct {
	Stream
	cursor []byte
	done   bool
	// failed: the source is not asked again in this run.
	failed bool
}

// Fill gets a replica the data of a partition that it lacks: it streams the
// records of every n that it lacks from every source. It is complete only when all
// of them were streamed to their end. A write was acknowledged by W of the
// replicas, and any W of them: each single source may have missed it, and a read
// quorum that counts the new replica in the place of one that has it would not see
// it. All sources together have it.
//
// The sources are streamed one after the other, the records of only one of them
// whole: of the others come hashes first, and then the records that differ.
//
// Cursors live as long as the Fill. It belongs to one goroutine at a time.
type Fill struct {
	state   FillState
	streams []*stream
	current *stream
	number  uint64
	page    Page // of which the wanted records are asked for
	wanted  int  // of them, still to be handled
	outcome FillOutcome
	out     []Effect
}

// NewFill plans a fill. Its batches are numbered from number + 1 on, so that late
// answers to an earlier fill of the partition are not taken for answers to this
// one.
func NewFill(number uint64) *Fill { return &Fill{number: number} }

// State says what is awaited.
func (f *Fill) State() FillState { return f.state }

// Number is that of the batch that was asked for last.
func (f *Fill) Number() uint64 { return f.number }

// Source is who was asked last.
func (f *Fill) Source() dynamo.NodeID {
	if f.current == nil {
		return ""
	}
	return f.current.Source
}

// Progress is what was done so far.
func (f *Fill) Progress() FillOutcome { return f.outcome }

// Covers reports whether each of the streams was streamed to its end.
func (f *Fill) Covers(streams []Stream) bool {
	return !slices.ContainsFunc(streams, func(s Stream) bool { x := f.find(s); return x == nil || !x.done })
}

func (f *Fill) find(s Stream) *stream {
	if i := slices.IndexFunc(f.streams, func(x *stream) bool { return x.Stream == s }); i >= 0 {
		return f.streams[i]
	}
	return nil
}

// Start begins a run over the streams, which need not be those of the last run: of
// those that it knows it goes on at their cursors. The effects are valid until the
// next call.
func (f *Fill) Start(streams []Stream) []Effect {
	f.reset()
	if f.state != Resting {
		return nil
	}
	all := make([]*stream, len(streams))
	for i, s := range streams {
		if all[i] = f.find(s); all[i] == nil {
			all[i] = &stream{Stream: s}
		}
		all[i].failed = false
	}
	f.streams, f.current, f.outcome.Reason, f.outcome.Complete = all, nil, "", false
	return f.next()
}

// Step takes one event and returns what to do; the slice is valid until the next
// call.
func (f *Fill) Step(e Event) []Effect {
	f.reset()
	if f.state == Resting {
		return nil
	}
	switch e := e.(type) {
	case Broken:
		return f.rest(e.Reason)
	case Failed:
		if f.state == Asking && e.Batch == f.number && e.Node == f.current.Source {
			return f.failed(e.Reason)
		}
	case Page:
		if f.state == Asking && e.Batch == f.number && e.Node == f.current.Source {
			return f.answered(e)
		}
	case Compared:
		if f.state == Comparing && e.Batch == f.number {
			f.wanted = e.Wanted
			return f.ask()
		}
	case Merged:
		if e.Batch == f.number && (f.state == Merging || f.state == Sealing) {
			return f.merged()
		}
	}
	return nil
}

func (f *Fill) reset() {
	clear(f.out)
	f.out = f.out[:0]
}

// next goes on with the first stream that is not at its end, and whose source has
// not failed in this run.
func (f *Fill) next() []Effect {
	f.page, f.wanted, f.current = Page{}, 0, nil
	left := false
	for _, s := range f.streams {
		left = left || !s.done
		if !s.done && !s.failed {
			f.current = s
			return f.ask()
		}
	}
	if left {
		return f.rest(f.outcome.Reason)
	}
	// A record that was found here already may not be on the disk yet.
	f.number++
	f.state = Sealing
	return f.emit(Seal{f.number})
}

// ask asks for the wanted records of a page that was compared, or else goes on
// behind it.
func (f *Fill) ask() []Effect {
	if f.page.Digests && f.wanted == 0 {
		return f.advance(f.page)
	}
	f.number++
	f.state = Asking
	return f.emit(Ask{Stream: f.current.Stream, Batch: f.number, Cursor: f.current.cursor, Digests: f.wanted == 0 && f.filled(f.current.N), Wanted: f.wanted})
}

// filled reports whether a source of n was streamed whole, so that those that
// follow are expected to have the same.
func (f *Fill) filled(n int) bool {
	return slices.ContainsFunc(f.streams, func(s *stream) bool { return s.N == n && s.done })
}

func (f *Fill) answered(p Page) []Effect {
	switch {
	case f.wanted > 0 && (p.Digests || p.Handled < 1 || p.Handled > f.wanted),
		f.wanted == 0 && p.More && bytes.Compare(p.Cursor, f.current.cursor) <= 0:
		// It would go round for ever.
		return f.failed("its answer does not go on")
	}
	f.outcome.Damaged += p.Damaged
	switch {
	case f.wanted > 0:
		f.wanted -= p.Handled
		f.page.Records = p.Records // merged counts them
		f.state = Merging
		return f.emit(Merge{f.number})
	case p.Digests:
		f.page, f.state = p, Comparing
		return f.emit(Compare{f.number})
	case p.Records > 0:
		f.page, f.state = p, Merging
		return f.emit(Merge{f.number})
	}
	return f.advance(p)
}

func (f *Fill) merged() []Effect {
	if f.state == Sealing {
		f.outcome.Complete = true
		return f.rest("")
	}
	f.outcome.Merged += f.page.Records
	if f.page.Digests {
		return f.ask()
	}
	return f.advance(f.page)
}

// advance goes on behind a page of which everything is here.
func (f *Fill) advance(p Page) []Effect {
	f.page = Page{}
	if !p.More {
		f.current.done, f.current.cursor = true, nil
		return f.next()
	}
	f.current.cursor = p.Cursor
	return f.ask()
}

// failed leaves a source for this run.
func (f *Fill) failed(reason string) []Effect {
	for _, s := range f.streams {
		s.failed = s.failed || s.Source == f.current.Source
	}
	if f.outcome.Reason != "" {
		f.outcome.Reason += "; "
	}
	f.outcome.Reason += string(f.current.Source) + ": " + reason
	return f.next()
}

func (f *Fill) rest(reason string) []Effect {
	f.state, f.outcome.Reason = Resting, reason
	return f.emit(Rest{f.outcome})
}

func (f *Fill) emit(e Effect) []Effect {
	f.out = append(f.out, e)
	return f.out
}

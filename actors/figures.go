package actors

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/storage"
)

// Figures are what a node is right now and has counted, for metrics: whoever asks, as often as may be,
// no actor is asked and none waits.
type Figures struct {
	Storage storage.Stats
	// Version is that of the cluster document, 0 before there is one; LostPartitions are those of it that no
	// replica has the data of.
	Version        uint64
	LostPartitions int
	// InFlight are requests that owe their client an answer, Timers those that are armed, and WaitingReads reads of the
	// store that wait for a reader.
	InFlight, Timers, WaitingReads int
	// HintSlots is how many pairs of node and partition hints are kept for, MisplacedPartitions of how many partitions objects
	// lie here that belong elsewhere, and FillsLeft how many this node has to fill.
	HintSlots, MisplacedPartitions, FillsLeft int
	// HintLimit is how many bytes of hints are kept at most.
	HintLimit int64
	// Peers are the other members.
	Peers []PeerFigures
	// Pairs is how many pairs of replicas this node compares, and Unverified for how long the one that has
	// waited longest was not found equal or mended; Interval is what it should be below, 0 if nothing is.
	Pairs                int
	Unverified, Interval time.Duration
	// Reapable is how many records the last looks have found that nobody sees any more.
	Reapable  int
	Admission AdmissionFigures
}

// RequestFigures are what was counted of one operation on a bucket.
type RequestFigures struct {
	// Bucket is its name, "other" for all that the document does not name, or too many.
	Bucket    string
	Operation Operation
	// Outcomes counts answers by how they went: found, not_found or done, or the failure in a word.
	Outcomes map[string]uint64
	// Latency is in seconds, Siblings in versions that a read found; nil: there was none.
	Latency, Siblings *Histogram
}

// PeerFigures are what this node thinks of another member.
type PeerFigures struct {
	Node dynamo.NodeID
	// Reachable: it is asked; Slow: after others.
	Reachable, Slow bool
}

// AdmissionFigures are how the work in the background stands.
type AdmissionFigures struct {
	// Share is the part of the time that slices may take, Floor the least, Used what they took.
	Share, Floor, Used float64
	// Kinds are by kind of worker.
	Kinds map[string]WorkFigures
}

// WorkFigures are one kind of work.
type WorkFigures struct {
	// Working have a slice, Waiting wait for one.
	Working, Waiting int
	// Slices were had, which took so long.
	Slices uint64
	Took   time.Duration
}

// published is what actors have put there for metrics, each its own.
type published struct {
	admission atomic.Pointer[AdmissionFigures]
	pairs     atomic.Int64
	// unverified is when the pair that waits longest was verified, or became known.
	unverified atomic.Pointer[time.Time]
	reapable   atomic.Int64
}

// Figures are how the node is right now.
func (n *Node) Figures() Figures {
	s := n.services
	f := Figures{
		Storage:  s.Engine.Stats(),
		InFlight: int(max(0, s.unanswered.Load())), Timers: s.Wheel.Armed(), WaitingReads: s.Readers.Waiting(),
		HintSlots: len(s.hints.slots()), MisplacedPartitions: len(s.misplaced.list()), HintLimit: s.hintBytes.Load(),
		Pairs: int(s.published.pairs.Load()), Interval: s.ExchangeInterval, Reapable: int(s.published.reapable.Load()),
	}
	if at := s.published.unverified.Load(); f.Pairs > 0 && at != nil {
		f.Unverified = time.Since(*at)
	}
	if a := s.published.admission.Load(); a != nil {
		f.Admission = *a
	}
	doc := s.Document()
	if doc == nil {
		return f
	}
	f.Version, f.LostPartitions, f.FillsLeft = doc.Version, len(doc.Losses()), len(doc.FillsOf(s.Self))
	for _, node := range doc.Voters() {
		if node != s.Self {
			f.Peers = append(f.Peers, PeerFigures{Node: node, Reachable: s.reachable(node), Slow: s.opinion(node).slow})
		}
	}
	return f
}

// Requests are what was counted of requests, by bucket, then operation; and how many replicas had answered
// when the client was.
func (n *Node) Requests() ([]RequestFigures, map[Operation]Histogram) {
	t, replicas := n.services.requests, map[Operation]Histogram{}
	for op := range operations {
		if h, ok := t.replicas[op].histogram(replicaBounds, 1); ok {
			replicas[op] = h
		}
	}
	return t.figures(), replicas
}

func (t *requestTable) figures() []RequestFigures {
	out := t.other.figures(nil, otherBuckets)
	if rows := t.rows.Load(); rows != nil {
		for _, name := range slices.Sorted(maps.Keys(*rows)) {
			out = (*rows)[name].figures(out, name)
		}
	}
	return out
}

func (m *measures) figures(out []RequestFigures, bucket string) []RequestFigures {
	for op := range operations {
		f := RequestFigures{Bucket: bucket, Operation: op, Outcomes: map[string]uint64{}}
		for o := range outcomes {
			if n := m.outcomes[op][o].Load(); n > 0 {
				f.Outcomes[o.String()] += n
			}
		}
		if len(f.Outcomes) == 0 {
			continue
		}
		if h, ok := m.latency[op].histogram(latencyBounds, float64(time.Second)); ok {
			f.Latency = &h
		}
		if h, ok := m.siblings.histogram(siblingBounds, 1); ok && op == Get {
			f.Siblings = &h
		}
		out = append(out, f)
	}
	return out
}

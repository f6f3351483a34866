package messages

import (
	"fmt"
	"math"
	"time"
)

// Limits of timelines. What is longer is cut when it is sent, and refused when it comes.
const (
	// MaxSteps is how many steps a timeline has.
	MaxSteps = 256
	// MaxTimelineDepth is how deep timelines lie in timelines: a client's has that of the
	// coordinator, which may have passed the request on.
	MaxTimelineDepth = 4
	// MaxStepText is in bytes.
	MaxStepText = 512
	// MaxSlow is how many slow requests are in one answer, MaxSlowKey how long a quoted key or
	// bucket is, in bytes.
	MaxSlow, MaxSlowKey = 256, 256
)

// Timeline is what happened to a request at one place.
type Timeline struct {
	// Node is the place; empty: the client.
	Node string
	// Kind is get, put, delete, or forward: a write that was passed on.
	Kind  string
	Steps []Step
	// LeftOut is how many steps there was no room for.
	LeftOut int
}

// Step is one thing that happened to a request.
type Step struct {
	// At is when, since the request came to this place.
	At   time.Duration
	What StepKind
	// Node is who was asked or has answered, StandsFor the primary in whose place it is asked.
	Node, StandsFor string
	// Text is more of it, for people.
	Text string
	// Spent is what the time went for at Node, as that says.
	Spent Spent
	// Inner is what happened at Node, if it is a coordinator that has answered.
	Inner *Timeline
}

// Spent is what the time went for at a replica.
type Spent struct {
	// Waited: for the vnode's turn. Turn: in it, with what else it served. Reader: for a
	// reader of the store. Store: until it was read there, or was as durable as asked.
	Waited, Turn, Reader, Store time.Duration
}

// Total is all of it.
func (s Spent) Total() time.Duration { return s.Waited + s.Turn + s.Reader + s.Store }

// StepKind says what happened. Numbers are never reused.
type StepKind uint8

// What happens to requests.
const (
	// StepAdmitted: the coordinator began with it. Before, it waited for that.
	StepAdmitted StepKind = iota + 1
	// StepAsked: a node was asked for its record, or by the client to coordinate.
	StepAsked
	// StepFetched: a replica that has answered was asked again, for values.
	StepFetched
	// StepCoordinated: the local vnode was asked to make the dot and write.
	StepCoordinated
	// StepReplicated: a replica was sent the record.
	StepReplicated
	// StepPassed: the request was passed on to another coordinator.
	StepPassed
	// StepAnswered: an answer came.
	StepAnswered
	// StepPrepared: the local vnode has made the dot, and reads see the write.
	StepPrepared
	// StepDurable: a replica has the record, as durably as asked.
	StepDurable
	// StepFailed: a replica did not and will not do what it was asked.
	StepFailed
	// StepReplied: the client was answered.
	StepReplied
	// StepRepaired: a replica that was stale was sent the merged record.
	StepRepaired
	// StepHinted: the local vnode keeps the record for a primary that lacks it.
	StepHinted
	// StepOutdated: a replica knows a newer cluster document; the request waits for that.
	StepOutdated
	// StepDue: the time is over.
	StepDue
	// StepEnded: nothing is awaited any more.
	StepEnded
)

var stepNames = [...]string{
	"unknown", "admitted", "asked", "asked again", "asked to write", "sent the record", "passed on", "answered", "prepared", "durable", "failed", "replied",
	"repaired", "kept a hint", "waits for the ring", "time is over", "ended",
}

// String is the step's word.
func (k StepKind) String() string {
	if int(k) < len(stepNames) {
		return stepNames[k]
	}
	return stepNames[0]
}

// SlowRequest is a request that took long.
type SlowRequest struct {
	// ID is the name of the actor that has carried it out.
	ID string
	// Bucket and Key are quoted, and maybe cut.
	Bucket, Key string
	Partition   uint32
	// Client is who asked.
	Client string
	// Took is the time until the client had its answer, Ago for how long it has that.
	Took, Ago time.Duration
	// Outcome is "done", or why not.
	Outcome string
	Timeline
}

// FromTimeline converts a timeline for the wire.
func FromTimeline(t Timeline) *TimelineRecord { return fromTimeline(t, 1) }

func fromTimeline(t Timeline, depth int) *TimelineRecord {
	kept := t.Steps[:min(len(t.Steps), MaxSteps)]
	out := &TimelineRecord{
		Node: cut(t.Node, MaxActorName), Kind: cut(t.Kind, MaxActorName), LeftOut: toCount(t.LeftOut + len(t.Steps) - len(kept)), Steps: make([]*TimelineStep, len(kept)),
	}
	for i, s := range kept {
		w := &TimelineStep{
			AtUs: micros(s.At), What: uint32(s.What), Node: cut(s.Node, MaxActorName), StandsFor: cut(s.StandsFor, MaxActorName), Text: cut(s.Text, MaxStepText),
			WaitedUs: Micros(s.Spent.Waited), TurnUs: Micros(s.Spent.Turn), ReaderUs: Micros(s.Spent.Reader), StoreUs: Micros(s.Spent.Store),
		}
		if s.Inner != nil && depth < MaxTimelineDepth {
			w.Inner = fromTimeline(*s.Inner, depth+1)
		}
		out.Steps[i] = w
	}
	return out
}

func toCount(n int) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

// Micros is a duration in microseconds, rounded up, as far as it fits.
func Micros(d time.Duration) uint32 { return uint32(min(micros(d), math.MaxUint32)) }

// ToTimeline checks and converts a timeline; nil is none.
func ToTimeline(m *TimelineRecord) (*Timeline, error) { return toTimeline(m, 1) }

func toTimeline(m *TimelineRecord, depth int) (*Timeline, error) {
	switch {
	case m == nil:
		return nil, nil
	case depth > MaxTimelineDepth || len(m.GetSteps()) > MaxSteps:
		return nil, fmt.Errorf("%w: a timeline of %d steps at depth %d", ErrBounds, len(m.GetSteps()), depth)
	case len(m.GetNode()) > MaxActorName || len(m.GetKind()) > MaxActorName:
		return nil, fmt.Errorf("%w: names of %d and %d bytes", ErrBounds, len(m.GetNode()), len(m.GetKind()))
	}
	out := &Timeline{Node: m.GetNode(), Kind: m.GetKind(), LeftOut: int(m.GetLeftOut())}
	for _, w := range m.GetSteps() {
		if len(w.GetNode()) > MaxActorName || len(w.GetStandsFor()) > MaxActorName || len(w.GetText()) > MaxStepText {
			return nil, fmt.Errorf("%w: a step of %d, %d and %d bytes", ErrBounds, len(w.GetNode()), len(w.GetStandsFor()), len(w.GetText()))
		}
		s := Step{
			At: toDuration(w.GetAtUs()), What: StepKind(min(w.GetWhat(), math.MaxUint8)), Node: w.GetNode(), StandsFor: w.GetStandsFor(), Text: w.GetText(),
			Spent: toSpent(w.GetWaitedUs(), w.GetTurnUs(), w.GetReaderUs(), w.GetStoreUs()),
		}
		var err error
		if s.Inner, err = toTimeline(w.GetInner(), depth+1); err != nil {
			return nil, err
		}
		out.Steps = append(out.Steps, s)
	}
	return out, nil
}

func toSpent(waited, turn, reader, store uint32) Spent {
	us := func(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
	return Spent{Waited: us(waited), Turn: us(turn), Reader: us(reader), Store: us(store)}
}

// FromSlow converts slow requests for the wire.
func FromSlow(all []SlowRequest) *SlowRequestsReply {
	out := &SlowRequestsReply{}
	for _, r := range all[:min(len(all), MaxSlow)] {
		out.Requests = append(out.Requests, &SlowRequestRecord{
			Id: cut(r.ID, MaxActorName), Bucket: cut(r.Bucket, MaxSlowKey), Key: cut(r.Key, MaxSlowKey), Partition: r.Partition, Client: cut(r.Client, MaxActorName), TookUs: micros(r.Took),
			AgoUs: micros(r.Ago), Outcome: cut(r.Outcome, MaxActorName), Timeline: FromTimeline(r.Timeline),
		})
	}
	return out
}

// ToSlowLimit is how many slow requests an answer may have.
func ToSlowLimit(m *SlowRequestsRequest) int { return atMost(m.GetLimit(), MaxSlow) }

// ToSlow checks and converts slow requests.
func ToSlow(m *SlowRequestsReply) ([]SlowRequest, error) {
	if len(m.GetRequests()) > MaxSlow {
		return nil, fmt.Errorf("%w: %d requests", ErrBounds, len(m.GetRequests()))
	}
	var out []SlowRequest
	for _, w := range m.GetRequests() {
		for _, s := range []string{w.GetId(), w.GetBucket(), w.GetKey(), w.GetClient(), w.GetOutcome()} {
			if len(s) > max(MaxSlowKey, MaxActorName) {
				return nil, fmt.Errorf("%w: a text of %d bytes", ErrBounds, len(s))
			}
		}
		t, err := ToTimeline(w.GetTimeline())
		if err != nil {
			return nil, err
		}
		r := SlowRequest{
			ID: w.GetId(), Bucket: w.GetBucket(), Key: w.GetKey(), Partition: w.GetPartition(), Client: w.GetClient(), Took: toDuration(w.GetTookUs()),
			Ago: toDuration(w.GetAgoUs()), Outcome: w.GetOutcome(),
		}
		if t != nil {
			r.Timeline = *t
		}
		out = append(out, r)
	}
	return out, nil
}

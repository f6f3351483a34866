package messages

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Limits of what a console answers.
const (
	// MaxActors is how many actors are in one answer.
	MaxActors = 1000
	// MaxActorName and MaxPattern are in bytes.
	MaxActorName, MaxPattern = 512, 512
	// MaxErrors is how many errors are in one answer.
	MaxErrors = 256
	// maxReason bounds the reason of a panic in bytes, maxStack where it was.
	maxReason, maxStack = 512, 16 << 10
)

// Actor is an actor as its node sees it from outside.
type Actor struct {
	// Name and Parent: who it is, and who supervises it; Parent is empty for the first ones.
	Name, Parent string
	// Queued and Control are the messages that wait; those of Control overtake. Bytes is
	// what Queued weighs.
	Queued, Control, Bytes uint64
	// Processed, Shed and Expired count messages since it was spawned: handled, refused, and
	// dropped because their time was over.
	Processed, Shed, Expired uint64
	Restarts                 uint64
	Age                      time.Duration
	// Oldest is for how long the oldest message has waited, InHandler for how long one is
	// being handled; 0: none.
	Oldest, InHandler time.Duration
	// Suspended: it has failed, and its supervisor has not decided yet.
	Suspended bool
	// Panic is its last failure, nil if it never failed.
	Panic *ActorFault
}

// ActorFault is a panic of an actor.
type ActorFault struct {
	Reason string
	// Message is the type of what it handled; empty: nothing.
	Message string
	Ago     time.Duration
	// Stack is where in the program; empty in lists.
	Stack string
}

// Kind is the part of an actor's name before the slash: that of vnode/17 is vnode.
func (a *Actor) Kind() string {
	kind, _, _ := strings.Cut(a.Name, "/")
	return kind
}

// State is what an actor does, in a word.
func (a *Actor) State() string {
	switch {
	case a.Suspended:
		return "failed"
	case a.InHandler > 0:
		return "busy"
	case a.Queued+a.Control > 0:
		return "waiting"
	}
	return "idle"
}

// Inspection is an actor and what it says of itself.
type Inspection struct {
	Actor
	List
	// NoAnswer is why it says nothing; empty: it does.
	NoAnswer string
}

// NodeFault is something that went wrong on a node.
type NodeFault struct {
	At time.Time
	// Actor is who panicked; empty: it was logged.
	Actor string
	Text  string
	// Times is how often it happened in a row.
	Times uint64
}

// FromActor converts an actor for the wire.
func FromActor(a Actor) *ActorState {
	out := &ActorState{
		Name: cut(a.Name, MaxActorName), Parent: cut(a.Parent, MaxActorName), Queued: a.Queued, QueuedBytes: a.Bytes, Control: a.Control,
		Processed: a.Processed, Shed: a.Shed, Expired: a.Expired, Restarts: a.Restarts, AgeUs: micros(a.Age), OldestUs: micros(a.Oldest),
		InHandlerUs: micros(a.InHandler), Suspended: a.Suspended,
	}
	if p := a.Panic; p != nil {
		out.LastPanic = &ActorPanic{Reason: cut(p.Reason, maxReason), Message: cut(p.Message, MaxActorName), AgoUs: micros(p.Ago), Stack: cut(p.Stack, maxStack)}
	}
	return out
}

// micros rounds up, so that what has begun is not nothing.
func micros(d time.Duration) uint64 {
	us := uint64(max(d, 0) / time.Microsecond)
	if d%time.Microsecond > 0 {
		us++
	}
	return us
}

// toDuration takes what is more than a duration can be for that.
func toDuration(us uint64) time.Duration {
	return time.Duration(min(us, uint64(math.MaxInt64/time.Microsecond))) * time.Microsecond
}

func toActor(m *ActorState) (Actor, error) {
	a := Actor{
		Name: m.GetName(), Parent: m.GetParent(), Queued: m.GetQueued(), Bytes: m.GetQueuedBytes(), Control: m.GetControl(),
		Processed: m.GetProcessed(), Shed: m.GetShed(), Expired: m.GetExpired(), Restarts: m.GetRestarts(), Age: toDuration(m.GetAgeUs()),
		Oldest: toDuration(m.GetOldestUs()), InHandler: toDuration(m.GetInHandlerUs()), Suspended: m.GetSuspended(),
	}
	if a.Name == "" || len(a.Name) > MaxActorName || len(a.Parent) > MaxActorName {
		return Actor{}, fmt.Errorf("%w: names of %d and %d bytes", ErrBounds, len(a.Name), len(a.Parent))
	}
	if p := m.GetLastPanic(); p != nil {
		a.Panic = &ActorFault{Reason: p.GetReason(), Message: p.GetMessage(), Ago: toDuration(p.GetAgoUs()), Stack: p.GetStack()}
		if len(a.Panic.Reason) > maxReason || len(a.Panic.Message) > MaxActorName || len(a.Panic.Stack) > maxStack {
			return Actor{}, fmt.Errorf("%w: the panic of %q is too long", ErrBounds, a.Name)
		}
	}
	return a, nil
}

// ToActorsRequest checks a request; limit is what the answer may have.
func ToActorsRequest(m *ActorsRequest) (limit int, err error) {
	if len(m.GetPattern()) > MaxPattern || len(m.GetAfter()) > MaxActorName {
		return 0, fmt.Errorf("%w: a pattern of %d bytes, after a name of %d", ErrBounds, len(m.GetPattern()), len(m.GetAfter()))
	}
	return atMost(m.GetLimit(), MaxActors), nil
}

// ToErrorsLimit is how many errors an answer may have.
func ToErrorsLimit(m *ErrorsRequest) int { return atMost(m.GetLimit(), MaxErrors) }

// atMost takes a limit from a request: 0 is the most there may be.
func atMost(asked uint32, limit int) int {
	if asked == 0 {
		return limit
	}
	return int(min(asked, uint32(limit)))
}

// ToActors checks and converts a part of a list: that after a name, which was asked for.
func ToActors(m *ActorsReply, after string) (all []Actor, left int, err error) {
	if len(m.GetActors()) > MaxActors {
		return nil, 0, fmt.Errorf("%w: %d actors", ErrBounds, len(m.GetActors()))
	}
	for _, row := range m.GetActors() {
		a, err := toActor(row)
		if err != nil {
			return nil, 0, err
		}
		if a.Name <= after { // the next part would be this one again
			return nil, 0, fmt.Errorf("%w: %q comes after %q", ErrBounds, a.Name, after)
		}
		after = a.Name
		all = append(all, a)
	}
	if len(all) == 0 && m.GetLeft() > 0 {
		return nil, 0, fmt.Errorf("%w: no actors of %d", ErrBounds, m.GetLeft())
	}
	return all, int(min(m.GetLeft(), math.MaxInt32)), nil
}

// FromInspection converts an inspection for the wire.
func FromInspection(i Inspection) *InspectReply {
	return &InspectReply{Actor: FromActor(i.Actor), Fields: FromFields(i.Fields), NoAnswer: cut(i.NoAnswer, MaxFieldText)}
}

// ToInspection checks and converts an inspection.
func ToInspection(m *InspectReply) (Inspection, error) {
	out := Inspection{NoAnswer: m.GetNoAnswer()}
	if len(out.NoAnswer) > MaxFieldText {
		return Inspection{}, fmt.Errorf("%w: a text of %d bytes", ErrBounds, len(out.NoAnswer))
	}
	var err error
	if out.Actor, err = toActor(m.GetActor()); err == nil {
		out.List, err = ToFields(m.GetFields())
	}
	if err != nil {
		return Inspection{}, err
	}
	return out, nil
}

// FromFaults converts what went wrong for the wire.
func FromFaults(all []NodeFault, more uint64) *ErrorsReply {
	out := &ErrorsReply{More: more}
	for _, f := range all[:min(len(all), MaxErrors)] {
		out.Errors = append(out.Errors, &NodeError{TimeMs: f.At.UnixMilli(), Actor: cut(f.Actor, MaxActorName), Text: cut(f.Text, MaxFieldText), Times: f.Times})
	}
	return out
}

// ToFaults checks and converts what went wrong.
func ToFaults(m *ErrorsReply) ([]NodeFault, error) {
	if len(m.GetErrors()) > MaxErrors {
		return nil, fmt.Errorf("%w: %d errors", ErrBounds, len(m.GetErrors()))
	}
	var out []NodeFault
	for _, e := range m.GetErrors() {
		at, err := toTime(e.GetTimeMs())
		if err != nil {
			return nil, err
		}
		if len(e.GetActor()) > MaxActorName || len(e.GetText()) > MaxFieldText {
			return nil, fmt.Errorf("%w: an error of %d bytes, of an actor with a name of %d", ErrBounds, len(e.GetText()), len(e.GetActor()))
		}
		out = append(out, NodeFault{At: at, Actor: e.GetActor(), Text: e.GetText(), Times: e.GetTimes()})
	}
	return out, nil
}

package actors

import (
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/messages"
)

// A request notes what happens to it in an array of its own: that costs no allocation, and
// one reading of the clock for each message. It becomes a messages.Timeline only for those
// who want to see it, when the request ends: a client that has asked for it, the list of slow
// requests, and a trace.

// maxMarks is how many steps are kept, besides that the client was answered. A write to three
// replicas has eight, one to six (the partition moves) fourteen.
const maxMarks = 14

// marks are the steps of a request, oldest first.
type marks struct {
	// all has room for the answer to the client, and at last for what is not kept.
	all     [maxMarks + 2]mark
	kept    uint8
	leftOut uint16
}

// mark is one step. The times are in microseconds: at since the request came to this node,
// spent as in messages.Spent.
type mark struct {
	at    uint32
	what  messages.StepKind
	node  uint8 // see place
	why   request.Reason
	spent [4]uint32
}

// add makes the next mark. That the client was answered always has a place.
func (m *marks) add(what messages.StepKind) *mark {
	i := m.kept
	switch {
	case i < maxMarks, i == maxMarks && what == messages.StepReplied:
		m.kept++
	default:
		m.leftOut++
		i = maxMarks + 1
	}
	m.all[i] = mark{what: what}
	return &m.all[i]
}

// tick reads the clock for a message, and all that is done because of it.
func (x *exchange) tick() { x.at = time.Since(x.started) }

// note marks a step in the timeline; node may be empty.
func (x *exchange) note(what messages.StepKind, node dynamo.NodeID) *mark {
	m := x.marks.add(what)
	m.at, m.node = messages.Micros(x.lead+x.at), x.plan.place(node)
	return m
}

// noteFailed marks that a node did not do what it was asked. A link may break to one that was
// not.
func (x *exchange) noteFailed(node dynamo.NodeID, why request.Reason) {
	if x.awaits(node) {
		x.note(messages.StepFailed, node).why = why
	}
}

// awaits reports whether a node was asked and has not answered.
func (x *exchange) awaits(node dynamo.NodeID) bool {
	at := x.plan.place(node)
	for i := int(x.marks.kept) - 1; i >= 0 && at > 0; i-- {
		if m := &x.marks.all[i]; m.node == at {
			switch m.what {
			case messages.StepAsked, messages.StepFetched, messages.StepCoordinated, messages.StepReplicated, messages.StepPassed, messages.StepPrepared:
				return true
			}
			return false
		}
	}
	return false
}

// Places of the nodes of a plan in a mark: in the first list, in the second, and as the one
// for whom another stands in, in either. 0 is none.
const placesEach = 64

// place finds a node.
func (p *plan) place(node dynamo.NodeID) uint8 {
	if node == "" {
		return 0
	}
	for list, replicas := range [...][]dynamo.Replica{p.candidates, p.also} {
		for i := range replicas[:min(len(replicas), placesEach-1)] {
			switch node {
			case replicas[i].Node:
				return uint8(list*placesEach + i + 1)
			case replicas[i].For:
				return uint8((list+2)*placesEach + i + 1)
			}
		}
	}
	return 0
}

// at is the node at a place, and for whom it stands in.
func (p *plan) at(place uint8) (node, standsFor dynamo.NodeID) {
	list, i := int(place)/placesEach, int(place)%placesEach-1
	if i < 0 {
		return "", ""
	}
	r := [...][]dynamo.Replica{p.candidates, p.also}[list%2][i]
	if list >= 2 {
		return r.For, ""
	}
	return r.Node, r.For
}

// kind is the request's word in timelines.
func (x *exchange) kind() string {
	put, write := x.plan.request.(*messages.PutRequest)
	switch {
	case x.op == Forward:
		return "forward"
	case !write:
		return "get"
	case put.GetDelete():
		return "delete"
	}
	return "put"
}

// timeline is what has happened so far. Rounds before (order) come first.
func (x *exchange) timeline() messages.Timeline {
	out := messages.Timeline{Node: string(x.s.Self), Kind: x.kind(), LeftOut: x.plan.leftOut + int(x.marks.leftOut)}
	out.Steps = make([]messages.Step, len(x.plan.earlier), len(x.plan.earlier)+int(x.marks.kept)+2)
	copy(out.Steps, x.plan.earlier)
	out.Steps = append(out.Steps, messages.Step{At: x.lead, What: messages.StepAdmitted})
	us := func(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
	for i := range x.marks.all[:x.marks.kept] {
		m := &x.marks.all[i]
		s := messages.Step{
			At: us(m.at), What: m.what, Spent: messages.Spent{Waited: us(m.spent[0]), Turn: us(m.spent[1]), Reader: us(m.spent[2]), Store: us(m.spent[3])},
			Inner: x.inner[i],
		}
		node, standsFor := x.plan.at(m.node)
		s.Node, s.StandsFor = string(node), string(standsFor)
		switch {
		case m.what == messages.StepReplied:
			s.Text = x.outcome
		case m.why != request.NoReason:
			s.Text = m.why.String()
		}
		out.Steps = append(out.Steps, s)
	}
	return out
}

// keepInner keeps what a coordinator says happened there, with the last step.
func (x *exchange) keepInner(t *messages.TimelineRecord) {
	inner, err := messages.ToTimeline(t)
	if inner == nil || err != nil || x.marks.kept == 0 || x.marks.leftOut > 0 {
		return // what a timeline lacks changes nothing
	}
	if x.inner == nil {
		x.inner = map[int]*messages.Timeline{}
	}
	x.inner[int(x.marks.kept)-1] = inner
}

// over is the end of the request: who wanted to know what has happened is told.
func (x *exchange) over() {
	if x.ended {
		return
	}
	x.ended = true
	slow := x.s.slow.takes(x.took, x.plan.arrived)
	if x.held == nil && x.plan.trace == nil && !slow {
		return
	}
	t := x.timeline()
	t.Steps = append(t.Steps, messages.Step{At: x.lead + x.at, What: messages.StepEnded})
	if x.held != nil {
		x.s.answer(x.plan.client, x.self, withTimeline(x.held, t))
	}
	if slow {
		x.s.slow.add(x.plan.arrived, messages.SlowRequest{
			ID: x.self.GetId(), Bucket: quotedShort(x.plan.key.Bucket), Key: quotedShort(x.plan.key.Name), Partition: uint32(x.plan.partition), Client: x.plan.client.GetAddress(),
			Took: x.took, Outcome: x.outcome, Timeline: t,
		})
	}
	if trace := x.plan.trace; trace != nil {
		x.s.Spans.Request(RequestSpan{
			Parent: trace.parent, Self: trace.self, Start: x.plan.arrived, Took: x.took, Key: x.plan.key, Partition: x.plan.partition,
			Quorum: x.plan.params, Outcome: x.outcome, Timeline: t,
		})
	}
}

// quotedShort quotes the beginning of a key.
func quotedShort(s string) string {
	const most = 60
	if len(s) <= most {
		return quoted(s)
	}
	return quoted(s[:most]) + "…"
}

// withTimeline is an answer with what happened. The answer itself may be another
// coordinator's message, and stays as it is.
func withTimeline(answer any, t messages.Timeline) any {
	switch m := answer.(type) {
	case *messages.GetReply:
		return &messages.GetReply{Values: m.GetValues(), Context: m.GetContext(), Timeline: messages.FromTimeline(t)}
	case *messages.PutReply:
		return &messages.PutReply{Context: m.GetContext(), Replicas: m.GetReplicas(), Timeline: messages.FromTimeline(t)}
	case *messages.Failure:
		return &messages.Failure{
			Code: m.GetCode(), Text: m.GetText(), RetryAfterMs: m.GetRetryAfterMs(), Answered: m.GetAnswered(), Needed: m.GetNeeded(),
			PrimariesAnswered: m.GetPrimariesAnswered(), PrimariesNeeded: m.GetPrimariesNeeded(), DocumentVersion: m.GetDocumentVersion(),
			Timeline: messages.FromTimeline(t),
		}
	}
	return answer
}

// header is what messages of the request carry for traces. One that is not traced here passes
// on what it came with: who asked may have decided against it.
func (x *exchange) header() []byte {
	if x.plan.trace != nil {
		return x.plan.trace.header
	}
	return nil
}

// passedHeader is the same for another coordinator.
func (x *exchange) passedHeader(came []byte) []byte {
	if h := x.header(); h != nil {
		return h
	}
	return came
}

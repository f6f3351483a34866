package actors

import (
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/messages"
)

// Spans records what requests did for distributed traces. Calls come from message handlers
// and from the store's callbacks: they must not block.
type Spans interface {
	// Begin decides whether a request is traced that came with a context, or with none, and
	// names its span; zero: it is not.
	Begin(parent messages.TraceContext) messages.TraceContext
	// Request: a request that is traced has ended.
	Request(RequestSpan)
	// Replica: a vnode has done its part of a request that is traced.
	Replica(ReplicaSpan)
}

// RequestSpan is a coordinator's part of a traced request.
type RequestSpan struct {
	Parent, Self messages.TraceContext
	// Start is when it came to this node, Took the time until its client was answered.
	Start time.Time
	Took  time.Duration

	Key       dynamo.Key
	Partition dynamo.Partition
	Quorum    quorum.Params
	// Outcome is "done", or why not.
	Outcome  string
	Timeline messages.Timeline
}

// ReplicaSpan is a vnode's part of a traced request.
type ReplicaSpan struct {
	Parent messages.TraceContext
	// Kind is read or write.
	Kind string
	// Start is when the vnode was asked.
	Start     time.Time
	Spent     messages.Spent
	Key       dynamo.Key
	Partition dynamo.Partition
	// Outcome is "done", or why not.
	Outcome string
}

// tracing is the span of a request that is traced.
type tracing struct {
	parent, self messages.TraceContext
	header       []byte // of self
}

// traced decides whether a request is traced, nil: not. One that was passed on belongs to the
// trace of who passed it on, or to none.
func (s *Services) traced(header []byte, passed bool) *tracing {
	if s.Spans == nil || passed && len(header) == 0 {
		return nil
	}
	parent := messages.ToTraceContext(header)
	self := s.Spans.Begin(parent)
	if !self.Valid() {
		return nil
	}
	return &tracing{parent: parent, self: self, header: self.Header()}
}

// replicaSpan begins a vnode's part of a request, nil if it is not traced.
func (s *Services) replicaSpan(header []byte, kind string, p dynamo.Partition, key dynamo.Key, start time.Time) *ReplicaSpan {
	if s.Spans == nil || len(header) == 0 {
		return nil
	}
	parent := messages.ToTraceContext(header)
	if !parent.Sampled {
		return nil
	}
	return &ReplicaSpan{Parent: parent, Kind: kind, Start: start, Key: key, Partition: p}
}

// spanned reports a vnode's part of a request, if it is traced.
func (s *Services) spanned(span *ReplicaSpan, spent messages.Spent, answer any) {
	if span != nil {
		span.Spent, span.Outcome = spent, replyName(answer)
		s.Spans.Replica(*span)
	}
}

package actors

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/messages"
)

// recorder keeps spans. It takes part in traces, and begins one if all is set.
type recorder struct {
	all bool

	mu       sync.Mutex
	requests []RequestSpan
	replicas []ReplicaSpan
}

func (r *recorder) Begin(parent messages.TraceContext) messages.TraceContext {
	if !parent.Sampled && (parent.Valid() || !r.all) {
		return messages.TraceContext{}
	}
	return parent.Child()
}

func (r *recorder) Request(s RequestSpan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, s)
}

func (r *recorder) Replica(s ReplicaSpan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replicas = append(r.replicas, s)
}

// take returns and forgets what was recorded.
func (r *recorder) take() ([]RequestSpan, []ReplicaSpan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	requests, replicas := r.requests, r.replicas
	r.requests, r.replicas = nil, nil
	return requests, replicas
}

// TestSpans: a request that is traced has a span below that of its client, and its part at
// each replica one below that; one that is not has none.
func TestSpans(t *testing.T) {
	spans := &recorder{}
	r := start(t, setup{nodes: 3, change: func(c *Config) { c.Spans = spans }})
	x := r.replicas("n2", "n3")
	headers := make(chan string, 100)
	for name, n := range x {
		r.peers.Handle(name, func(m actortest.Received) {
			switch m := m.Message.(type) {
			case *messages.ReadRequest:
				headers <- string(m.GetTraceParent())
			case *messages.ReplicateRequest:
				headers <- string(m.GetTraceParent())
			}
			n.receive(m)
		})
	}
	heard := func() (all []string) {
		for range 2 {
			all = append(all, <-headers)
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	client := messages.TraceContext{}.Child()
	unsampled := client
	unsampled.Sampled = false
	for name, header := range map[string][]byte{"none": nil, "malformed": []byte("00-zz"), "unsampled": unsampled.Header()} {
		m := putOf("k", "v", nil)
		m.TraceParent = header
		r.ask(m)
		r.quiet()
		if got := heard(); !slices.Equal(got, []string{""}) {
			t.Errorf("%s: replicas were told %q", name, got)
		}
		if requests, replicas := spans.take(); len(requests)+len(replicas) > 0 {
			t.Errorf("%s: %+v %+v", name, requests, replicas)
		}
	}
	put, get := putOf("k", "v", nil), getOf("k")
	put.TraceParent, get.TraceParent = client.Header(), client.Header()
	put.TimeoutMs = 60_000
	get.Quorum = &messages.Quorum{R: 3}
	for kind, m := range map[string]any{"put": put, "get": get} {
		r.ask(m)
		r.quiet()
		requests, replicas := spans.take()
		if len(requests) != 1 || len(replicas) != 1 {
			t.Fatalf("%s: %+v, %+v", kind, requests, replicas)
		}
		s, v := requests[0], replicas[0]
		if s.Parent != client || s.Self.Trace != client.Trace || s.Self.Span == client.Span || s.Outcome != "done" || s.Key != keyOf("k") || s.Quorum.N != 3 ||
			s.Timeline.Kind != kind || s.Timeline.Steps[len(s.Timeline.Steps)-1].What != messages.StepEnded || s.Took <= 0 || time.Since(s.Start) > time.Minute {
			t.Errorf("%s: %+v", kind, s)
		}
		if v.Parent != s.Self || v.Kind != map[string]string{"put": "write", "get": "read"}[kind] || v.Key != keyOf("k") || v.Outcome != "done" || v.Spent.Total() <= 0 || v.Start.Before(s.Start) {
			t.Errorf("%s: %+v", kind, v)
		}
		if got := heard(); !slices.Equal(got, []string{string(s.Self.Header())}) {
			t.Errorf("%s: replicas were told %q", kind, got)
		}
	}
	spans.all = true
	passed := putOf("k", "v", nil)
	passed.Hops = 1
	r.ask(passed)
	r.quiet()
	if requests, replicas := spans.take(); len(requests)+len(replicas) > 0 {
		t.Errorf("a write that was passed on and is not traced begins a trace: %+v %+v", requests, replicas)
	}
	r.ask(getOf("k"))
	r.quiet()
	if requests, _ := spans.take(); len(requests) != 1 || requests[0].Parent.Valid() || !requests[0].Self.Valid() {
		t.Errorf("a trace begins with %+v", requests)
	}
	for _, n := range x {
		n.fail(messages.Fail(messages.CodeStorage, "no disk"))
	}
	r.ask(get)
	r.quiet()
	if requests, _ := spans.take(); len(requests) != 1 || requests[0].Outcome != "unavailable" {
		t.Errorf("a read that fails: %+v", requests)
	}
}

// TestSpansOfForward: who coordinates a write that was passed on is below who passed it on.
// Who decided against a trace is heard there, too.
func TestSpansOfForward(t *testing.T) {
	spans := &recorder{}
	r := start(t, setup{nodes: 6, partitions: 64, change: func(c *Config) { c.Spans = spans }})
	name, primaries := r.outside()
	headers := make(chan string, 10)
	r.peers.Handle(string(primaries[0]), puts(func(m actortest.Received) {
		headers <- string(m.Message.(*messages.PutRequest).GetTraceParent())
		r.peers.Answer(m, &messages.PutReply{Replicas: 2})
	}))
	client := messages.TraceContext{}.Child()
	m := putOf(name, "v", nil)
	m.TraceParent = client.Header()
	r.ask(m)
	r.quiet()
	requests, _ := spans.take()
	if len(requests) != 1 || requests[0].Parent != client || requests[0].Timeline.Kind != "forward" {
		t.Fatalf("%+v", requests)
	}
	if got := <-headers; got != string(requests[0].Self.Header()) {
		t.Errorf("passed on with %q, want %q", got, requests[0].Self.Header())
	}
	client.Sampled = false
	m = putOf(name, "v", nil)
	m.TraceParent = client.Header()
	r.ask(m)
	if got := <-headers; got != string(client.Header()) {
		t.Errorf("passed on with %q, want %q", got, client.Header())
	}
}

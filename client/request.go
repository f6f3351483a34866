package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
)

// Pauses between attempts: the first, and the longest.
const (
	firstPause   = 20 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

// Bucket is a namespace of keys with properties of its own.
type Bucket struct {
	client *Client
	name   string
}

// Bucket names a bucket; one that was never created has the defaults.
func (c *Client) Bucket(name string) *Bucket { return &Bucket{client: c, name: name} }

// Get reads a key (§ 4.1). A key without value is an Object without values and
// no error; its context remembers a deletion.
func (b *Bucket) Get(ctx context.Context, key string, opts ...Option) (Object, error) {
	o := apply(opts)
	m := &messages.GetRequest{Bucket: []byte(b.name), Key: []byte(key), Quorum: o.quorum()}
	reply, err := b.client.do(ctx, o, dynamo.Key{Bucket: b.name, Name: key}, m)
	if err != nil {
		return Object{}, err
	}
	got, ok := reply.message.(*messages.GetReply)
	if !ok {
		return Object{}, &Error{Kind: ErrInternal, Node: reply.node, Text: fmt.Sprintf("unexpected answer %T", reply.message)}
	}
	out := Object{Context: got.GetContext()}
	for _, v := range got.GetValues() {
		value := Value{Value: v.GetValue(), Dot: v.GetDot(), Time: time.Unix(0, v.GetTimeNs()).UTC()}
		if value.Value == nil {
			value.Value = []byte{} // empty, which is not the same as none
		}
		if v.GetExpiresNs() != 0 {
			value.Expires = time.Unix(0, v.GetExpiresNs()).UTC()
		}
		out.Values = append(out.Values, value)
	}
	return out, nil
}

// Put writes a value. With After it replaces what that context has seen;
// without, it is concurrent with everything.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, opts ...Option) (Written, error) {
	return b.write(ctx, key, opts, &messages.PutRequest{Value: value})
}

// Delete writes a tombstone, which replaces what the context of After has seen.
// Without After it is concurrent with everything, and so deletes nothing.
func (b *Bucket) Delete(ctx context.Context, key string, opts ...Option) (Written, error) {
	return b.write(ctx, key, opts, &messages.PutRequest{Delete: true})
}

func (b *Bucket) write(ctx context.Context, key string, opts []Option, m *messages.PutRequest) (Written, error) {
	o := apply(opts)
	m.Bucket, m.Key, m.Context, m.Quorum = []byte(b.name), []byte(key), o.context, o.quorum()
	m.RequestId = make([]byte, len(dynamo.RequestID{}))
	rand.Read(m.RequestId) // never fails: crypto/rand ends the process instead
	reply, err := b.client.do(ctx, o, dynamo.Key{Bucket: b.name, Name: key}, m)
	if err != nil {
		return Written{}, err
	}
	got, ok := reply.message.(*messages.PutReply)
	if !ok {
		return Written{}, &Error{Kind: ErrInternal, Node: reply.node, Text: fmt.Sprintf("unexpected answer %T", reply.message)}
	}
	return Written{Context: got.GetContext(), Replicas: int(got.GetReplicas())}, nil
}

// Resolver merges concurrent values into one (§ 4.4, semantic reconciliation).
// It gets them all, at least two, and must not depend on their order.
type Resolver func(siblings []Value) ([]byte, error)

// Update reads a key, merges its values with resolve, lets change make the new
// one, and writes it with the context of the read. old is nil when there is no
// value; a nil result of change deletes the key. If another client writes in
// between, both values stay and the next Update merges them. change must not be
// nil: ErrInvalid.
func (b *Bucket) Update(ctx context.Context, key string, resolve Resolver, change func(old []byte) ([]byte, error), opts ...Option) (Written, error) {
	if change == nil {
		return Written{}, &Error{Kind: ErrInvalid, Text: "Update without a function that makes the new value"}
	}
	got, err := b.Get(ctx, key, opts...)
	if err != nil {
		return Written{}, err
	}
	var old []byte
	switch len(got.Values) {
	case 0:
	case 1:
		old = got.Values[0].Value
	default:
		if resolve == nil {
			return Written{}, ErrConflict
		}
		if old, err = resolve(got.Values); err != nil {
			return Written{}, fmt.Errorf("client: resolve: %w", err)
		}
	}
	value, err := change(old)
	if err != nil {
		return Written{}, fmt.Errorf("client: change: %w", err)
	}
	opts = append(append([]Option(nil), opts...), After(got.Context))
	if value == nil {
		return b.Delete(ctx, key, opts...)
	}
	return b.Put(ctx, key, value, opts...)
}

func apply(opts []Option) options {
	var o options
	for _, f := range opts {
		f(&o)
	}
	return o
}

func (o options) quorum() *messages.Quorum {
	if o.r|o.w|o.pr|o.pw == 0 {
		return nil
	}
	u := func(n int) uint32 {
		if n < 0 {
			return 1 << 16 // refused by the node, with its own words
		}
		return uint32(n)
	}
	return &messages.Quorum{R: u(o.r), W: u(o.w), Pr: u(o.pr), Pw: u(o.pw)}
}

// do carries out a request: it goes from node to node until one has done it,
// none can, or the time is over.
func (c *Client) do(ctx context.Context, o options, key dynamo.Key, m messages.Timed) (answered, error) {
	if err := key.Validate(); err != nil {
		return answered{}, &Error{Kind: ErrInvalid, Text: err.Error()}
	}
	seen, err := version.DecodeContext(key, o.context)
	if err != nil {
		return answered{}, &Error{Kind: ErrContext, Text: err.Error()}
	}
	if put, ok := m.(*messages.PutRequest); ok && len(put.GetValue()) > dynamo.CeilingMaxValue {
		// It may not even fit into a frame; no node is worth asking.
		return answered{}, &Error{Kind: ErrTooLarge, Text: fmt.Sprintf("%d bytes, no cluster takes more than %d", len(put.GetValue()), dynamo.CeilingMaxValue)}
	}
	if _, ok := ctx.Deadline(); !ok && o.timeout == 0 {
		o.timeout = c.config.Timeout
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	t := &try{client: c, key: key, seen: seen, message: m, started: time.Now(), pause: firstPause, timeline: o.timeline}
	if t.timeline != nil {
		*t.timeline = Timeline{Kind: kind(m)}
	}
	var got answered
	if c.tracer != nil {
		got, err = t.traced(ctx)
	} else {
		got, err = t.run(ctx)
	}
	t.note(Step{What: messages.StepEnded})
	return got, err
}

// kind is a request's word in timelines and traces.
func kind(m messages.Timed) string {
	put, write := m.(*messages.PutRequest)
	switch {
	case !write:
		return "get"
	case put.GetDelete():
		return "delete"
	}
	return "put"
}

// try is one request on its way through its attempts.
type try struct {
	client  *Client
	key     dynamo.Key
	seen    version.Context
	message messages.Timed
	started time.Time
	pause   time.Duration
	// unknown: an attempt may have been carried out.
	unknown bool
	last    *Error
	// timeline is what the application wants to see of the request, or nil.
	timeline *Timeline
	// trace is the traceparent of the request's span, nil if it has none.
	trace []byte
}

func (t *try) run(ctx context.Context) (answered, error) {
	for attempt := 0; ; {
		nodes, err := t.nodes(ctx)
		if err != nil {
			return answered{}, t.give(err)
		}
		reply, v, err := t.once(ctx, nodes[attempt%len(nodes)])
		if err != nil {
			return answered{}, t.give(err)
		}
		switch v {
		case done:
			return reply, nil
		case final:
			return answered{}, t.refused()
		}
		// A write that may have been carried out is repeated where it was: that
		// node remembers it. If the node is gone, order does not list it.
		if v == nextNode {
			attempt++
		}
		if v == sameAgain || attempt%len(nodes) == 0 {
			if err := t.wait(ctx); err != nil {
				return answered{}, t.give(err)
			}
		}
	}
}

// nodes are where to send the request, best first. It waits for the ring and
// for a connection if need be.
func (t *try) nodes(ctx context.Context) ([]string, error) {
	for {
		if err := t.client.Ready(ctx); err != nil {
			return nil, err
		}
		if nodes := t.client.routes.order(t.key, t.seen); len(nodes) > 0 {
			return nodes, nil
		}
		if _, err := t.client.connected(ctx); err != nil {
			return nil, err
		}
	}
}

// done extends the verdicts: the request was carried out.
const done verdict = 255

// once makes one attempt at a node.
func (t *try) once(ctx context.Context, node string) (answered, verdict, error) {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	if left <= 0 || ctx.Err() != nil {
		return answered{}, final, cmp.Or(ctx.Err(), context.DeadlineExceeded)
	}
	m := t.prepare(left)
	_, write := m.(*messages.PutRequest)
	var reply answered
	var err error
	t.note(Step{What: messages.StepAsked, Node: node})
	if write || t.client.config.HedgeAfter == 0 || t.timeline != nil {
		reply, err = t.client.ask(ctx, node, messages.TargetCoordinator, m)
	} else {
		reply, err = t.client.askEither(ctx, node, func() string { return t.client.routes.other(t.key, t.seen, node) }, m)
	}
	if err != nil {
		t.unknown = t.unknown || write && !errors.Is(err, errNotSent)
		return reply, final, err
	}
	t.noteAnswer(reply)
	f, failed := reply.message.(*messages.Failure)
	if !failed {
		return reply, done, nil
	}
	t.last = fromFailure(reply.node, f)
	if f.GetCode() == messages.CodeStale {
		t.client.stale()
	}
	if d := time.Duration(f.GetRetryAfterMs()) * time.Millisecond; d > t.pause {
		t.pause = d
	}
	v := judge(f.GetCode(), write)
	if v == sameAgain {
		t.unknown = true
	}
	return reply, v, nil
}

// prepare makes the message of an attempt. A message that was sent is never
// changed, so each attempt has its own.
func (t *try) prepare(left time.Duration) any {
	ms := uint32(max(1, min(left, messages.MaxTimeout).Milliseconds()))
	switch m := t.message.(type) {
	case *messages.GetRequest:
		return &messages.GetRequest{Bucket: m.GetBucket(), Key: m.GetKey(), Quorum: m.GetQuorum(), TimeoutMs: ms, Timeline: t.timeline != nil, TraceParent: t.trace}
	case *messages.PutRequest:
		return &messages.PutRequest{
			Bucket: m.GetBucket(), Key: m.GetKey(), Value: m.GetValue(), Context: m.GetContext(), Delete: m.GetDelete(),
			Quorum: m.GetQuorum(), RequestId: m.GetRequestId(), TimeoutMs: ms, Retry: t.unknown,
			AgeMs: uint32(time.Since(t.started).Milliseconds()), Timeline: t.timeline != nil, TraceParent: t.trace,
		}
	}
	panic(fmt.Sprintf("client: no request: %T", t.message))
}

// wait pauses between attempts, longer each time.
func (t *try) wait(ctx context.Context) error {
	d := t.pause
	t.pause = min(2*t.pause, longestPause)
	return t.client.pause(ctx, d)
}

// refused is the error of a request that a node refused for good. If an earlier
// attempt of a write may have been carried out, the refusal of this one does not
// say that it was not.
func (t *try) refused() error {
	if !t.unknown {
		return t.last
	}
	e := *t.last
	e.Kind, e.Text = ErrUnknown, "an earlier attempt may have been carried out; last: "+t.last.Error()
	return &e
}

// give ends a request that can not go on because of cause: the client was
// closed, or the time is over. It is unknown if an attempt may have been carried
// out; else it failed with the last node's word, or with what kept it from
// reaching any.
func (t *try) give(cause error) error {
	var local *Error
	switch {
	case errors.Is(cause, ErrClosed) && t.unknown:
		return &Error{Kind: ErrUnknown, Text: "the client was closed while the write was under way", Cause: ErrClosed}
	case errors.Is(cause, ErrClosed):
		return ErrClosed
	case errors.As(cause, &local): // no node could be reached
	case errors.Is(cause, context.Canceled):
		local = &Error{Kind: ErrUnavailable, Text: "the request was cancelled", Cause: cause}
	default:
		local = &Error{Kind: ErrUnavailable, Text: "the time is over", Cause: cause}
	}
	e := *local
	if t.last != nil {
		e = *t.last
		e.Text, e.Cause = fmt.Sprintf("%s; last: %s", local.Text, t.last.Text), local.Cause
	}
	if t.unknown {
		e.Kind = ErrUnknown
	}
	return &e
}

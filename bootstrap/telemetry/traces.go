package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/dynactor/dynactor/actors"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/messages"
)

const (
	// exportTimeout is how long a collector may take for a batch of spans, and stopTimeout
	// how long a stop of the node waits for the last one.
	exportTimeout, stopTimeout = 5 * time.Second, 2 * time.Second
	// complainEvery is how often the log says that spans cannot be delivered.
	complainEvery = time.Minute
)

// TraceConfig is where traces go.
type TraceConfig struct {
	// Endpoint is the URL of an OTLP collector (HTTP with protobuf); /v1/traces is appended.
	Endpoint string
	// Sample is the share of requests that are traced, 0 to 1, of those whose client does not
	// say whether they are.
	Sample float64
	// Node is who sends them, Cluster where it is.
	Node, Cluster string
	Log           *slog.Logger
}

// Validate reports what is wrong with where traces go.
func (c TraceConfig) Validate() error {
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil: // without the URL, which may have a password in it
		var bad *url.Error
		if errors.As(err, &bad) {
			err = bad.Err
		}
		return fmt.Errorf("it is no URL: %w", err)
	case u.User != nil:
		return fmt.Errorf("%s has a name or password, which no collector would get: put it into OTEL_EXPORTER_OTLP_HEADERS", u.Redacted())
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return fmt.Errorf("%q is not http://HOST:PORT or https://HOST:PORT", c.Endpoint)
	}
	return nil
}

// Traces sends the spans of requests to a collector, in the background and as far as there is
// room: neither requests nor the node's stop wait for a collector that is slow or away. It
// implements actors.Spans.
type Traces struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	sample   float64
	node     attribute.KeyValue
}

// NewTraces starts sending. Nothing is connected before there is a span.
func NewTraces(c TraceConfig) (*Traces, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, err
	}
	out, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(u.JoinPath("v1/traces").String()),
		otlptracehttp.WithTimeout(exportTimeout), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}))
	if err != nil {
		return nil, fmt.Errorf("traces to %s: %w", c.Endpoint, err)
	}
	t := &Traces{sample: c.Sample, node: attribute.String("dynactor.node", c.Node)}
	t.provider = sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // Begin has decided
		sdk.WithIDGenerator(named{}),
		sdk.WithBatcher(&quiet{SpanExporter: out, log: c.Log, to: c.Endpoint}, sdk.WithExportTimeout(exportTimeout)),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "dynactor"), attribute.String("service.instance.id", c.Node),
			attribute.String("dynactor.cluster", c.Cluster))))
	t.tracer = t.provider.Tracer("github.com/dynactor/dynactor")
	return t, nil
}

// Stop sends what is left, for a short time.
func (t *Traces) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("traces: %w", err)
	}
	return nil // spans that no collector takes in time are lost, and the node stops all the same
}

// Begin implements actors.Spans: who has begun a trace decides; without one the share does.
func (t *Traces) Begin(parent messages.TraceContext) messages.TraceContext {
	if !parent.Sampled && (parent.Valid() || t.sample == 0 || rand.Float64() >= t.sample) {
		return messages.TraceContext{}
	}
	return parent.Child()
}

// Request implements actors.Spans. Steps of the timeline are events of the span.
func (t *Traces) Request(r actors.RequestSpan) {
	span := t.begin(r.Self, r.Parent, "coordinator "+r.Timeline.Kind, trace.SpanKindServer, r.Start, append(t.about(r.Key, r.Partition),
		attribute.Int("dynactor.n", r.Quorum.N), attribute.Int("dynactor.r", r.Quorum.R), attribute.Int("dynactor.w", r.Quorum.W), attribute.String("dynactor.outcome", r.Outcome)))
	for _, s := range r.Timeline.Steps {
		var more []attribute.KeyValue
		for _, a := range [...]attribute.KeyValue{attribute.String("dynactor.peer", s.Node), attribute.String("dynactor.stands_for", s.StandsFor), attribute.String("dynactor.text", s.Text)} {
			if a.Value.AsString() != "" {
				more = append(more, a)
			}
		}
		span.AddEvent(s.What.String(), trace.WithTimestamp(r.Start.Add(s.At)), trace.WithAttributes(more...))
	}
	// The client has its answer; the rest are replicas that answer later.
	end(span, r.Outcome, r.Start.Add(r.Took))
}

// Replica implements actors.Spans.
func (t *Traces) Replica(r actors.ReplicaSpan) {
	self := r.Parent.Child()
	span := t.begin(self, r.Parent, "vnode "+r.Kind, trace.SpanKindServer, r.Start, append(t.about(r.Key, r.Partition),
		attribute.Int64("dynactor.waited_us", r.Spent.Waited.Microseconds()), attribute.Int64("dynactor.turn_us", r.Spent.Turn.Microseconds()),
		attribute.Int64("dynactor.reader_us", r.Spent.Reader.Microseconds()), attribute.String("dynactor.outcome", r.Outcome)))
	over := r.Start.Add(r.Spent.Total())
	if r.Spent.Store > 0 { // the last of it; else it was in memory
		name := map[string]string{"read": "store read", "write": "store commit"}[r.Kind]
		store := t.begin(self.Child(), self, name, trace.SpanKindInternal, over.Add(-r.Spent.Store), []attribute.KeyValue{t.node, attribute.Int("dynactor.partition", int(r.Partition))})
		end(store, r.Outcome, over)
	}
	end(span, r.Outcome, over)
}

// about are attributes of a key. Keys may be long and may be secret: there is only a hash.
func (t *Traces) about(key dynamo.Key, p dynamo.Partition) []attribute.KeyValue {
	return []attribute.KeyValue{
		t.node, attribute.String("dynactor.bucket", key.Bucket), attribute.String("dynactor.key_hash", ring.Hash(key).String()), attribute.Int("dynactor.partition", int(p)),
	}
}

// begin makes a span that has a name already.
func (t *Traces) begin(self, parent messages.TraceContext, name string, kind trace.SpanKind, start time.Time, about []attribute.KeyValue) trace.Span {
	ctx := context.WithValue(context.Background(), nameKey{}, self)
	if parent.Valid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: parent.Trace, SpanID: parent.Span, TraceFlags: trace.FlagsSampled, Remote: true}))
	}
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithTimestamp(start), trace.WithAttributes(about...))
	return span
}

func end(span trace.Span, outcome string, at time.Time) {
	if outcome != "done" {
		span.SetStatus(codes.Error, outcome)
	}
	span.End(trace.WithTimestamp(at))
}

// named gives spans the names that they were announced under to other nodes.
type named struct{}

// nameKey is under which a context has a span's name.
type nameKey struct{}

// NewIDs implements sdk.IDGenerator.
func (named) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	self, ok := ctx.Value(nameKey{}).(messages.TraceContext)
	if !ok {
		self = messages.TraceContext{}.Child()
	}
	return self.Trace, self.Span
}

// NewSpanID implements sdk.IDGenerator.
func (n named) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	_, id := n.NewIDs(ctx)
	return id
}

// quiet is an exporter whose failures are logged, now and then. Its provider makes one call at
// a time.
type quiet struct {
	sdk.SpanExporter
	log *slog.Logger
	to  string
	// next is when a failure is logged again, lost how many spans were not delivered since.
	next time.Time
	lost int
}

// ExportSpans implements sdk.SpanExporter.
func (q *quiet) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := q.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	q.lost += len(spans)
	if now := time.Now(); now.After(q.next) {
		q.log.Warn("traces cannot be delivered", slog.String("to", q.to), slog.Int("spans", q.lost), slog.Any("error", err))
		q.next, q.lost = now.Add(complainEvery), 0
	}
	return nil // it is logged
}

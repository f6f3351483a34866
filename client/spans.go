package client

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/messages"
)

// tracerName is under which the client makes its spans.
const tracerName = "github.com/dynactor/dynactor/client"

// traced carries out a request within a span, which nodes learn of from the attempts.
func (t *try) traced(ctx context.Context) (answered, error) {
	ctx, span := t.client.tracer.Start(ctx, "dynactor "+kind(t.message), trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(t.started),
		trace.WithAttributes(attribute.String("dynactor.bucket", t.key.Bucket), attribute.String("dynactor.key_hash", ring.Hash(t.key).String())))
	defer span.End()
	c := span.SpanContext()
	t.trace = messages.TraceContext{Trace: c.TraceID(), Span: c.SpanID(), Sampled: c.IsSampled()}.Header()
	got, err := t.run(ctx)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		return got, err
	}
	span.SetAttributes(attribute.String("dynactor.coordinator", got.node))
	return got, nil
}

package telemetry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors"
	"github.com/dynactor/dynactor/bootstrap"
	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/bootstrap/telemetry"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/messages"
)

// sink is a collector in this process.
type sink struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span
	raw   bytes.Buffer
	err   error
}

func newSink(t *testing.T) *sink {
	s := &sink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		m := new(collector.ExportTraceServiceRequest)
		if err == nil {
			err = proto.Unmarshal(body, m)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.URL.Path != "/v1/traces" || err != nil {
			s.err = fmt.Errorf("%s: %w", r.URL, err)
		}
		s.raw.Write(body)
		for _, resource := range m.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				s.spans = append(s.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// take is what came, after all nodes have stopped.
func (s *sink) take(t *testing.T, c *clustertest.Cluster) []*otlp.Span {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Patience)
	defer cancel()
	for _, n := range c.Nodes {
		if err := n.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		t.Error(s.err)
	}
	return s.spans
}

// named are the spans with a name.
func named(all []*otlp.Span, name string) []*otlp.Span {
	return slices.DeleteFunc(slices.Clone(all), func(s *otlp.Span) bool { return s.GetName() != name })
}

func attribute(s *otlp.Span, key string) string {
	i := slices.IndexFunc(s.GetAttributes(), func(a *common.KeyValue) bool { return a.GetKey() == key })
	if i < 0 {
		return ""
	}
	switch v := s.GetAttributes()[i].GetValue().GetValue().(type) {
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	}
	return "?"
}

// tracing is a cluster whose nodes trace such a share of requests.
func tracing(t *testing.T, endpoint string, share float64) *clustertest.Cluster {
	return clustertest.Start(t, clustertest.Options{Change: func(c *bootstrap.Config) { c.OTLPEndpoint, c.TraceSample = endpoint, share }})
}

func connect(t *testing.T, c *clustertest.Cluster, provider *sdk.TracerProvider) *client.Client {
	t.Helper()
	config := client.Default()
	config.Nodes, config.Cluster = c.Addresses, c.Name
	if provider != nil {
		config.TracerProvider = provider
	}
	cl, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Patience)
	defer cancel()
	if err := cl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return cl
}

const secret = "a-key-that-nobody-should-see"

// use writes a key and reads it from all replicas.
func use(t *testing.T, cl *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Patience)
	defer cancel()
	b := cl.Bucket("carts")
	if _, err := b.Put(ctx, secret, []byte("a-value-neither"), client.W(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, secret, client.R(3)); err != nil {
		t.Fatal(err)
	}
}

// TestTracesOfACluster: the spans of a put and of a get are one trace each: the client's, below
// that the coordinator's, below that one of each replica, with what its store did.
func TestTracesOfACluster(t *testing.T) {
	at := newSink(t)
	c := tracing(t, at.URL, 0) // the client decides
	ours := tracetest.NewSpanRecorder()
	use(t, connect(t, c, sdk.NewTracerProvider(sdk.WithSpanProcessor(ours))))
	all := at.take(t, c)
	key := dynamo.Key{Bucket: "carts", Name: secret}
	for _, mine := range ours.Ended() {
		kind, _ := strings.CutPrefix(mine.Name(), "dynactor ")
		part := map[string]string{"put": "write", "get": "read"}[kind]
		trace := mine.SpanContext().TraceID()
		spans := slices.DeleteFunc(slices.Clone(all), func(s *otlp.Span) bool { return !bytes.Equal(s.GetTraceId(), trace[:]) })
		coordinators, vnodes := named(spans, "coordinator "+kind), named(spans, "vnode "+part)
		stores := slices.Concat(named(spans, "store read"), named(spans, "store commit"))
		if len(coordinators) != 1 || len(vnodes) != 3 || len(spans) != 4+len(stores) || kind == "put" && len(stores) != 3 {
			t.Fatalf("%s: of %d spans of %d, %d, %d and %d", kind, len(all), len(spans), len(coordinators), len(vnodes), len(stores))
		}
		top := coordinators[0]
		parent := mine.SpanContext().SpanID()
		if !bytes.Equal(top.GetParentSpanId(), parent[:]) {
			t.Errorf("%s: the coordinator's parent is %x, the client's span %v", kind, top.GetParentSpanId(), parent)
		}
		wanted := map[string]string{"dynactor.bucket": "carts", "dynactor.key_hash": ring.Hash(key).String(), "dynactor.partition": fmt.Sprint(ring.PartitionOf(ring.Hash(key), 16))}
		quorum := map[string]string{"dynactor.n": "3", "dynactor.outcome": "done", map[string]string{"put": "dynactor.w", "get": "dynactor.r"}[kind]: "3"}
		for _, s := range append(vnodes, top) {
			for k, want := range wanted {
				if got := attribute(s, k); got != want {
					t.Errorf("%s: %s of %s is %q, want %q", kind, k, s.GetName(), got, want)
				}
			}
		}
		for k, want := range quorum {
			if got := attribute(top, k); got != want {
				t.Errorf("%s: %s is %q, want %q", kind, k, got, want)
			}
		}
		var nodes, events []string
		for _, s := range vnodes {
			nodes = append(nodes, attribute(s, "dynactor.node"))
			if !bytes.Equal(s.GetParentSpanId(), top.GetSpanId()) || s.GetStartTimeUnixNano() < top.GetStartTimeUnixNano() || s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
				t.Errorf("%s: %v is not within %v", kind, s, top)
			}
		}
		slices.Sort(nodes)
		if !slices.Equal(nodes, []string{"n1", "n2", "n3"}) || !slices.Contains(nodes, attribute(top, "dynactor.node")) {
			t.Errorf("%s: replicas on %v, coordinated on %s", kind, nodes, attribute(top, "dynactor.node"))
		}
		for _, s := range stores {
			of := slices.IndexFunc(vnodes, func(v *otlp.Span) bool { return bytes.Equal(v.GetSpanId(), s.GetParentSpanId()) })
			if of < 0 || attribute(s, "dynactor.node") != attribute(vnodes[of], "dynactor.node") || s.GetEndTimeUnixNano() > vnodes[of].GetEndTimeUnixNano() {
				t.Errorf("%s: %v is of no vnode", kind, s)
			}
		}
		for _, e := range top.GetEvents() {
			events = append(events, e.GetName())
		}
		for _, want := range []string{"admitted", "replied", "ended"} {
			if !slices.Contains(events, want) {
				t.Errorf("%s: events %v", kind, events)
			}
		}
	}
	if len(ours.Ended()) != 2 {
		t.Errorf("the client made %d spans", len(ours.Ended()))
	}
	if raw := at.raw.String(); strings.Contains(raw, secret) || strings.Contains(raw, "a-value-neither") || !strings.Contains(raw, "dynactor.cluster") {
		t.Errorf("sent: %q", raw)
	}
}

// TestSampling: without a word of the client the share decides; a client that decides against
// a trace is heard; without an endpoint there is nothing.
func TestSampling(t *testing.T) {
	for name, test := range map[string]struct {
		off   bool
		share float64
		never bool
		want  int // traces
	}{
		"all": {share: 1, want: 2}, "none": {}, "the client does not want it": {share: 1, never: true}, "off": {off: true, share: 1},
	} {
		t.Run(name, func(t *testing.T) {
			at := newSink(t)
			endpoint := at.URL
			if test.off {
				endpoint = ""
			}
			c := tracing(t, endpoint, test.share)
			var provider *sdk.TracerProvider
			if test.never {
				provider = sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))
			}
			use(t, connect(t, c, provider))
			traces := map[string]bool{}
			for _, s := range at.take(t, c) {
				traces[string(s.GetTraceId())] = true
			}
			if len(traces) != test.want {
				t.Errorf("%d traces, want %d", len(traces), test.want)
			}
		})
	}
}

// TestShare: about the share of requests is traced.
func TestShare(t *testing.T) {
	tr, err := telemetry.NewTraces(telemetry.TraceConfig{Endpoint: "http://127.0.0.1:1", Sample: 0.25, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	traced := 0
	for range 10_000 {
		if tr.Begin(messages.TraceContext{}).Valid() {
			traced++
		}
	}
	if traced < 2000 || traced > 3000 {
		t.Errorf("%d of 10000 are traced, want about 2500", traced)
	}
	if err := tr.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// lines counts log lines.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(b))
	return len(b), nil
}

// TestCollectorsThatFail: a collector that is away, refuses, or never answers costs a log
// line, and holds up neither requests nor the stop.
func TestCollectorsThatFail(t *testing.T) {
	serve := func(f http.HandlerFunc) string {
		s := httptest.NewServer(f)
		t.Cleanup(s.Close)
		return s.URL
	}
	away := httptest.NewServer(nil)
	away.Close()
	for name, endpoint := range map[string]string{
		"away": away.URL, "refuses": serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }),
		"hangs": serve(func(_ http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				<-r.Context().Done()
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			var log lines
			tr, err := telemetry.NewTraces(telemetry.TraceConfig{Endpoint: endpoint, Sample: 1, Node: "n1", Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for range 5000 { // more than are kept
				tr.Request(actors.RequestSpan{Self: messages.TraceContext{}.Child(), Start: began, Outcome: "done"})
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("5000 requests took %v", took)
			}
			stopping := time.Now()
			if err := tr.Stop(context.Background()); err != nil {
				t.Error(err)
			}
			if took := time.Since(stopping); took > 4*time.Second {
				t.Errorf("the stop took %v", took)
			}
			log.mu.Lock()
			defer log.mu.Unlock()
			if n := len(log.all); n > 1 || name != "hangs" && n != 1 || n == 1 && !strings.Contains(log.all[0], "traces cannot be delivered") {
				t.Errorf("%d lines: %q", n, log.all)
			}
		})
	}
}

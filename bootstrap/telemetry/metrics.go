package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/dynactor/dynactor/actors"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
)

const (
	// scrapeTime is how long a scrape may take, maxScrapes how many may be under way.
	scrapeTime = 4 * time.Second
	maxScrapes = 4
)

// scope names what measures.
const scope = "github.com/dynactor/dynactor"

// Source is where metrics come from. All of it may be asked from any goroutine, at any time, also
// when the node stops, and blocks nobody.
type Source struct {
	// Node, Cluster and Zone say which node it is, Version which program.
	Node, Cluster, Zone, Version string

	Health   func() actors.Health
	Figures  func() actors.Figures
	Requests func() ([]actors.RequestFigures, map[actors.Operation]actors.Histogram)
	Counters *actors.Counters
	Kinds    func() []rt.KindStats
	Peers    func() []link.PeerStatus
	Links    func() link.Totals
	// Logged is how many events were logged, by level, and how many of them were only counted.
	Logged func() (byLevel map[string]uint64, suppressed uint64)
	// Log is told what goes wrong with a scrape.
	Log *slog.Logger
}

// Metrics are a node's, for whoever scrapes.
type Metrics struct {
	source   Source
	provider *sdk.MeterProvider
	registry *prometheus.Registry
}

// NewMetrics makes a node's metrics. Nothing is global, so that nodes of one process do not meet.
func NewMetrics(s Source) (*Metrics, error) {
	m := &Metrics{source: s, registry: prometheus.NewRegistry()}
	// The names of the table are those that are scraped: they are searched for.
	reader, err := exporter.New(exporter.WithRegisterer(m.registry), exporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithoutSuffixes),
		exporter.WithoutScopeInfo(), exporter.WithoutTargetInfo(), exporter.WithProducer(histograms{s}))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	// How many series there are is bounded where labels are made.
	m.provider = sdk.NewMeterProvider(sdk.WithReader(reader), sdk.WithCardinalityLimit(0))
	if err := m.observe(m.provider.Meter(scope)); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m, nil
}

// observe has each instrument of the table read when somebody scrapes, all from one look.
func (m *Metrics) observe(meter metric.Meter) error {
	all := make([]metric.Float64Observable, len(instruments))
	asked := make([]metric.Observable, len(instruments))
	for i, in := range instruments {
		var err error
		if in.Type == counter {
			all[i], err = meter.Float64ObservableCounter(in.Name, metric.WithDescription(in.Help))
		} else {
			all[i], err = meter.Float64ObservableGauge(in.Name, metric.WithDescription(in.Help))
		}
		if err != nil {
			return err
		}
		asked[i] = all[i]
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		look := m.source.look()
		for i, in := range instruments {
			in.read(look, func(value float64, labels ...string) {
				o.ObserveFloat64(all[i], value, metric.WithAttributeSet(in.attributes(labels)))
			})
		}
		return nil
	}, asked...)
	return err
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Timeout: scrapeTime, MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError, ErrorLog: scrapeLog{m.source.Log},
	})
}

// Registry is what a scrape gathers.
func (m *Metrics) Registry() prometheus.Gatherer { return m.registry }

// Stop ends the metrics; who scrapes afterwards finds only those of the process.
func (m *Metrics) Stop(ctx context.Context) error { return m.provider.Shutdown(ctx) }

// scrapeLog takes what Prometheus' library has to say.
type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	l.log.Warn("metrics are not complete", slog.String("error", strings.TrimSpace(fmt.Sprintln(v...))))
}

// look is a node at one moment.
type look struct {
	Source
	health     actors.Health
	figures    actors.Figures
	requests   []actors.RequestFigures
	kinds      []rt.KindStats
	peers      []peer
	clients    int
	links      link.Totals
	logged     map[string]uint64
	suppressed uint64
}

// peer is another member; its link is empty while there is none.
type peer struct {
	actors.PeerFigures
	link link.PeerStatus
}

func (s Source) look() *look {
	l := &look{Source: s, health: s.Health(), figures: s.Figures(), kinds: s.Kinds(), links: s.Links()}
	l.requests, _ = s.Requests()
	l.logged, l.suppressed = s.Logged()
	linked := map[string]link.PeerStatus{}
	for _, p := range s.Peers() {
		linked[p.ID] = p
		if isClient(p) {
			l.clients++
		}
	}
	for _, p := range l.figures.Peers {
		l.peers = append(l.peers, peer{p, linked[string(p.Node)]})
	}
	return l
}

// attributes are an instrument's labels with values.
func (d Description) attributes(values []string) attribute.Set {
	all := make([]attribute.KeyValue, len(values))
	for i, v := range values {
		all[i] = attribute.String(d.Labels[i], label(v))
	}
	return attribute.NewSet(all...)
}

// label makes a value that may be scraped of a name that may have any bytes. Two names never become one.
func label(name string) string {
	if utf8.ValidString(name) && !strings.HasPrefix(name, `"`) {
		return name
	}
	return strconv.Quote(name)
}

// histograms are what was measured on the way of requests.
type histograms struct{ Source }

// Produce implements sdk.Producer.
func (h histograms) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	requests, replicas := h.Requests()
	data := make([]metricdata.Histogram[float64], len(distributions))
	add := func(i int, from actors.Histogram, labels ...string) {
		data[i].DataPoints = append(data[i].DataPoints, point(from, distributions[i].attributes(labels)))
	}
	for _, r := range requests {
		if r.Latency != nil {
			add(0, *r.Latency, r.Operation.String(), r.Bucket)
		}
		if r.Siblings != nil {
			add(1, *r.Siblings, r.Bucket)
		}
	}
	for op, r := range replicas {
		add(2, r, op.String())
	}
	out := metricdata.ScopeMetrics{}
	out.Scope.Name = scope
	for i, d := range distributions {
		data[i].Temporality = metricdata.CumulativeTemporality
		if len(data[i].DataPoints) > 0 {
			out.Metrics = append(out.Metrics, metricdata.Metrics{Name: d.Name, Description: d.Help, Data: data[i]})
		}
	}
	return []metricdata.ScopeMetrics{out}, nil
}

func point(h actors.Histogram, labels attribute.Set) metricdata.HistogramDataPoint[float64] {
	p := metricdata.HistogramDataPoint[float64]{Attributes: labels, Bounds: h.Bounds, BucketCounts: h.Counts, Sum: h.Sum, Time: time.Now()}
	for _, n := range h.Counts {
		p.Count += n
	}
	return p
}

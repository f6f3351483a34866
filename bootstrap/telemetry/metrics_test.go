package telemetry_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/bootstrap"
	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/bootstrap/telemetry"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/pebbledb"
)

var rewrite = flag.Bool("rewrite", false, "write the table of metrics in docs/operations.md")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/asynkron/protoactor-go/actor.NewThrottle.func1"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"))
}

// families are what one scrape gives, by name.
type families map[string]*dto.MetricFamily

// scrape asks a node as Prometheus does.
func scrape(t *testing.T, n *bootstrap.Node) families {
	t.Helper()
	resp, err := http.Get("http://" + n.HTTPAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", resp.Status, err, body)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	all, err := p.TextToMetricFamilies(strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// labelsOf are the labels of one series.
func labelsOf(m *dto.Metric) map[string]string {
	out := map[string]string{}
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

// value is that of one series, a histogram's count; the sum of those that have all labels.
func (f families) value(name string, want map[string]string) (sum float64) {
	for _, m := range f[name].GetMetric() {
		have := labelsOf(m)
		if maps.Equal(intersect(have, want), want) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

func intersect(have, want map[string]string) map[string]string {
	out := map[string]string{}
	for k := range want {
		if v, ok := have[k]; ok {
			out[k] = v
		}
	}
	return out
}

// hostile is a bucket that somebody created to break what shows it.
const hostile = "b\xff\n\"}\x1b[2J"

type cluster struct {
	*clustertest.Cluster
	client *client.Client
}

// start starts three real nodes, on stores with all that Pebble has.
func start(t *testing.T) cluster {
	t.Helper()
	buckets := []member.Bucket{{Name: "carts", Properties: bucket.Default()}, {Name: hostile, Properties: bucket.Default()}}
	c := clustertest.Start(t, clustertest.Options{
		Buckets: buckets, Change: func(c *bootstrap.Config) { c.HTTP, c.Zone = "127.0.0.1:0", c.Name+"'s" },
		Engine: func(string) storage.Engine {
			e, err := pebbledb.Open(t.TempDir(), pebbledb.Default())
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
	})
	config := client.Default()
	config.Nodes, config.Cluster, config.HedgeAfter = c.Addresses, c.Name, 0
	cl, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster{c, cl}
}

// What load does.
const (
	puts, deletes, found, missing, unknown = 40, 7, 30, 11, 5
)

func (c cluster) load(t *testing.T) {
	t.Helper()
	ctx, carts := t.Context(), c.client.Bucket("carts")
	check := func(err error, allowed error) {
		t.Helper()
		if !errors.Is(err, allowed) {
			t.Fatal(err)
		}
	}
	for i := range puts {
		_, err := carts.Put(ctx, fmt.Sprint(i), []byte("v"))
		check(err, nil)
	}
	for i := range found {
		_, err := carts.Get(ctx, fmt.Sprint(i))
		check(err, nil)
	}
	for i := range deletes {
		_, err := carts.Delete(ctx, fmt.Sprint("d", i))
		check(err, nil)
	}
	for i := range missing {
		o, err := carts.Get(ctx, fmt.Sprint("none", i))
		check(err, err)
		if len(o.Values) > 0 {
			t.Fatal("there is none")
		}
	}
	for i := range unknown {
		_, err := c.client.Bucket(fmt.Sprint("made up ", i)).Put(ctx, "k", []byte("v"))
		check(err, nil)
	}
	_, err := c.client.Bucket(hostile).Put(ctx, "k", []byte("v"))
	check(err, nil)
}

// all sums series over the nodes.
func all(scrapes []families, name string, want map[string]string) (sum float64) {
	for _, f := range scrapes {
		sum += f.value(name, want)
	}
	return sum
}

func (c cluster) scrape(t *testing.T) (out []families) {
	t.Helper()
	for _, n := range c.Nodes {
		out = append(out, scrape(t, n))
	}
	return out
}

func TestMetrics(t *testing.T) {
	c := start(t)
	before := c.scrape(t)
	c.load(t)
	// What is told only after the client has its answer.
	eventually(t, "admission has told what it does", func() bool {
		return before[0]["dynactor_background_working"] != nil || c.told(t, "dynactor_background_working")
	})
	after := c.scrape(t)
	t.Run("counts", func(t *testing.T) { counts(t, before, after) })
	t.Run("conventions", func(t *testing.T) { conventions(t, after) })
	t.Run("described", func(t *testing.T) { described(t, after) })
	t.Run("dashboard", func(t *testing.T) { queries(t, after, dashboard(t)) })
	t.Run("alerts", func(t *testing.T) { queries(t, after, alerts(t)) })
	t.Run("at once", func(t *testing.T) { atOnce(t, c.Nodes[0]) })
	t.Run("stopping", func(t *testing.T) { stopping(t, c.Nodes[2]) })
}

func (c cluster) told(t *testing.T, name string) bool {
	return !slices.ContainsFunc(c.scrape(t), func(f families) bool { return f[name] == nil })
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(clustertest.Patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// counts: what was done is counted, each once, on one node or another.
func counts(t *testing.T, before, after []families) {
	const requests, latency = "dynactor_requests_total", "dynactor_request_duration_seconds"
	for _, x := range []struct {
		name   string
		labels map[string]string
		want   float64
	}{
		{requests, map[string]string{"operation": "put", "bucket": "carts", "outcome": "done"}, puts},
		{requests, map[string]string{"operation": "put", "bucket": "carts"}, puts},
		{requests, map[string]string{"operation": "delete", "bucket": "carts", "outcome": "done"}, deletes},
		{requests, map[string]string{"operation": "get", "bucket": "carts", "outcome": "found"}, found},
		{requests, map[string]string{"operation": "get", "bucket": "carts", "outcome": "not_found"}, missing},
		{requests, map[string]string{"bucket": "other"}, unknown},
		{requests, map[string]string{"bucket": `"b\xff\n\"}\x1b[2J"`}, 1},
		{latency, map[string]string{"operation": "get", "bucket": "carts"}, found + missing},
		{latency, map[string]string{"operation": "put", "bucket": "carts"}, puts},
		{"dynactor_read_siblings", map[string]string{"bucket": "carts"}, found},
		{"dynactor_request_replicas", map[string]string{"operation": "delete"}, deletes},
		{"dynactor_partitions_lost", nil, 0}, {"dynactor_storage_failed", nil, 0}, {"dynactor_values_corrupt_total", nil, 0},
	} {
		if got := all(after, x.name, x.labels) - all(before, x.name, x.labels); got != x.want {
			t.Errorf("%s%v grew by %v, want %v", x.name, x.labels, got, x.want)
		}
	}
	for _, name := range []string{"dynactor_storage_commits_total", "dynactor_storage_wal_written_bytes_total", "dynactor_peer_sent_bytes_total", "dynactor_mailbox_handled_total"} {
		for i := range after {
			if after[i].value(name, nil) <= before[i].value(name, nil) {
				t.Errorf("%s of node %d has not grown", name, i+1)
			}
		}
	}
	for i, f := range after {
		name := fmt.Sprint("n", i+1)
		if f.value("dynactor_ready", nil) != 1 || f.value("dynactor_document_version", nil) < 1 || f.value("dynactor_partitions_serving", nil) != 16 ||
			f.value("dynactor_node_info", map[string]string{"node": name, "cluster": "test", "zone": name + "'s"}) != 1 {
			t.Errorf("%s: %v", name, f["dynactor_node_info"])
		}
		if n := f.value("dynactor_peer_reachable", nil); n != 2 || len(f["dynactor_peer_reachable"].GetMetric()) != 2 {
			t.Errorf("%s reaches %v peers", name, n)
		}
	}
}

// conventions: help for each, names by Prometheus' rules, and labels that nobody can make more of.
func conventions(t *testing.T, after []families) {
	for _, f := range after {
		var ours []*dto.MetricFamily
		for name, family := range f {
			if family.GetHelp() == "" {
				t.Errorf("%s has no help", name)
			}
			if strings.HasPrefix(name, "dynactor_") {
				ours = append(ours, family)
			}
		}
		problems, err := promlint.NewWithMetricFamilies(ours).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("%v %v", problems, err)
		}
		if n := len(f["process_open_fds"].GetMetric()) + len(f["go_goroutines"].GetMetric()); n != 2 {
			t.Error("nothing is told of the process")
		}
		for _, family := range ours {
			for _, m := range family.GetMetric() {
				for name, v := range labelsOf(m) {
					bounded(t, f, family.GetName(), name, v)
				}
			}
		}
	}
}

// known are the values of labels.
var known = map[string][]string{
	"bucket": {"carts", `"b\xff\n\"}\x1b[2J"`, "other"}, "operation": {"get", "put", "delete", "forward"}, "peer": {"n1", "n2", "n3"},
	"node": {"n1", "n2", "n3"}, "cluster": {"test"}, "zone": {"n1's", "n2's", "n3's"}, "version": {"unknown"}, "cache": {"records", "blocks"},
	"level":   {"debug", "info", "warn", "error"},
	"outcome": {"found", "not_found", "done", "stale_ring", "complete", "incomplete", "equal", "different", "failed", "put_off"},
	"kind": {
		"vnode", "vnodes", "node", "get", "put", "forward", "coordinator", "detector", "membership", "transfers", "transfer", "fill", "exchanges", "exchange",
		"reaps", "reap", "admission", "console", "links", "handover", "other",
	},
}

func bounded(t *testing.T, f families, metric, label, value string) {
	t.Helper()
	all, checked := known[label]
	if checked && !slices.Contains(all, value) || !checked && label != "reason" && label != "go_version" {
		t.Errorf("%s: %s=%q", metric, label, value)
	}
}

// described: what is scraped is what the program says there is, and what the documentation says, too.
func described(t *testing.T, after []families) {
	var table strings.Builder
	table.WriteString("| metric | type | labels | |\n|---|---|---|---|\n")
	types := map[string]telemetry.Description{}
	for _, d := range telemetry.Descriptions() {
		if _, twice := types[d.Name]; twice {
			t.Errorf("%s is there twice", d.Name)
		}
		types[d.Name] = d
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", d.Name, d.Type, strings.Join(d.Labels, ", "), d.Help)
	}
	scraped := map[string]bool{}
	for _, f := range after {
		for name, family := range f {
			scraped[name] = true
			d, ok := types[name]
			if !strings.HasPrefix(name, "dynactor_") {
				continue
			}
			if !ok || d.Help != family.GetHelp() || d.Type != strings.ToLower(family.GetType().String()) {
				t.Errorf("%s (%v) is not described: %+v", name, family.GetType(), d)
			}
			for _, m := range family.GetMetric() {
				if have := slices.Sorted(maps.Keys(labelsOf(m))); !slices.Equal(have, slices.Sorted(slices.Values(d.Labels))) {
					t.Errorf("%s has the labels %v, described are %v", name, have, d.Labels)
				}
			}
		}
	}
	for name := range types {
		if !scraped[name] && !strings.HasPrefix(name, "dynactor_background_") {
			t.Errorf("%s is described and was not scraped", name)
		}
	}
	documented(t, table.String())
}

func documented(t *testing.T, table string) {
	const path, begin, end = "../../docs/operations.md", "<!-- metrics -->\n", "<!-- end of metrics -->\n"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(raw), begin)
	old, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", path)
	}
	if old == table {
		return
	}
	if !*rewrite {
		t.Fatalf("%s does not have the metrics that there are; go test ./bootstrap/telemetry -rewrite writes them", path)
	}
	if err := os.WriteFile(path, []byte(head+begin+table+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// atOnce: any number of scrapes at the same time; who is one too many is told so.
func atOnce(t *testing.T, n *bootstrap.Node) {
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			resp, err := http.Get("http://" + n.HTTPAddr() + "/metrics")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			whole := resp.StatusCode == http.StatusOK && strings.Contains(string(body), "\ndynactor_ready 1\n")
			if err != nil || !whole && resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%s, %v", resp.Status, err)
			}
		})
	}
	wg.Wait()
}

// stopping: what is scraped while the node stops is answered, or refused, and the node stops in order.
func stopping(t *testing.T, n *bootstrap.Node) {
	gather := n.Metrics()
	done, wg := make(chan struct{}), sync.WaitGroup{}
	for range 2 {
		wg.Go(func() {
			for {
				if _, err := gather.Gather(); err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	close(done)
	wg.Wait()
	if all, err := gather.Gather(); err != nil || slices.ContainsFunc(all, func(f *dto.MetricFamily) bool { return f.GetName() == "dynactor_ready" }) {
		t.Errorf("a node that has stopped: %v", err)
	}
}

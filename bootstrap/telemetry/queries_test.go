package telemetry_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

// dashboard are the queries of the dashboard.
func dashboard(t *testing.T) (out []string) {
	raw, err := os.ReadFile("../../deploy/grafana/dynactor.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Definition string } }
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %s shows nothing", p.Title)
		}
		for _, x := range p.Targets {
			out = append(out, strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(x.Expr))
		}
	}
	for _, v := range d.Templating.List {
		if inner, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			out = append(out, strings.TrimSuffix(inner, ", instance)"))
		}
	}
	if len(out) < 40 {
		t.Fatalf("only %d queries", len(out))
	}
	return out
}

func alerts(t *testing.T) (out []string) {
	raw, err := os.ReadFile("../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				For         model.Duration
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(strings.NewReader(string(raw)))
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s says too little", r.Alert)
			}
			out = append(out, r.Expr)
		}
	}
	if len(out) < 12 {
		t.Fatalf("only %d rules", len(out))
	}
	return out
}

// scraper are the labels that Prometheus adds.
var scraper = []string{"instance", "job"}

// queries: each is one, and the metrics, labels and values that it names were scraped.
func queries(t *testing.T, after []families, all []string) {
	p := parser.NewParser(parser.Options{})
	for _, q := range all {
		expr, err := p.ParseExpr(q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		var has []string // labels of the metrics in the query
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			if v, ok := node.(*parser.VectorSelector); ok {
				has = append(has, selects(t, after, q, v)...)
			}
			return nil
		})
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			if a, ok := node.(*parser.AggregateExpr); ok {
				for _, l := range a.Grouping {
					if !slices.Contains(has, l) && !slices.Contains(scraper, l) {
						t.Errorf("%s: no metric has the label %s", q, l)
					}
				}
			}
			return nil
		})
	}
}

// selects checks one metric of a query, and returns its labels.
func selects(t *testing.T, after []families, q string, v *parser.VectorSelector) (has []string) {
	t.Helper()
	name, family := v.Name, (*dto.MetricFamily)(nil)
	for _, f := range after {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			if x := f[strings.TrimSuffix(name, suffix)]; x != nil && (suffix == "" || x.GetType() == dto.MetricType_HISTOGRAM) {
				family = x
				if suffix == "_bucket" {
					has = append(has, "le")
				}
			}
		}
	}
	if family == nil {
		t.Errorf("%s: nobody scrapes %s", q, name)
		return nil
	}
	for l := range labelsOf(family.GetMetric()[0]) {
		has = append(has, l)
	}
	for _, m := range v.LabelMatchers {
		if m.Name == model.MetricNameLabel || slices.Contains(scraper, m.Name) {
			continue
		}
		if !slices.Contains(has, m.Name) {
			t.Errorf("%s: %s has no label %s", q, name, m.Name)
		}
		if m.Type == labels.MatchEqual && m.Name != "le" && !slices.Contains(known[m.Name], m.Value) {
			t.Errorf("%s: %s=%q is never scraped", q, m.Name, m.Value)
		}
	}
	return has
}

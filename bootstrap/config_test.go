package bootstrap

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
)

func TestDefaultNeedsOnlyNameAndFolder(t *testing.T) {
	c := Default()
	var p *Problems
	if err := c.Validate(); !errors.As(err, &p) || len(p.List) != 2 {
		t.Errorf("the default: %v", err)
	}
	c.Name, c.DataDir = "n1", "data"
	if err := c.Validate(); err != nil {
		t.Errorf("with name and folder: %v", err)
	}
}

// TestValidateNamesEveryProblem checks that each problem is found, and that
// all come at once.
func TestValidateNamesEveryProblem(t *testing.T) {
	bad := bucket.Default()
	bad.Quorum.R = 9
	cases := []struct {
		setting, text string
		change        func(*Config)
	}{
		{"name", "", func(c *Config) { c.Name = "a b" }},
		{"cluster", "", func(c *Config) { c.Cluster = "" }},
		{"listen", "not host:port", func(c *Config) { c.Listen = "here" }},
		{"listen", "set advertise", func(c *Config) { c.Listen = ":7800" }},
		{"listen", "has no port", func(c *Config) { c.Listen = "h:" }},
		{"advertise", "no host that others can reach", func(c *Config) { c.Advertise = "0.0.0.0:1" }},
		{"http", "not host:port", func(c *Config) { c.HTTP = "h" }},
		{"seed", "not host:port", func(c *Config) { c.Seeds = []string{"h:1", "h"} }},
		{"seed", `":1" names no host that others can reach`, func(c *Config) { c.Seeds = []string{":1"} }},
		{"consul", "not both", func(c *Config) { c.Seeds, c.Consul = []string{"h:1"}, "h:8500" }},
		{"consul", "not host:port", func(c *Config) { c.Consul = "h" }},
		{"data-dir", "must be set", func(c *Config) { c.DataDir = "" }},
		{"expect", "not within", func(c *Config) { c.Expect = -1 }},
		{"expect", "two clusters", func(c *Config) { c.Found, c.Expect, c.Seeds = true, 2, []string{"a:1", "b:1", "b:1"} }},
		{"capacity", "not within", func(c *Config) { c.Capacity = 0 }},
		{"partitions", "power of two", func(c *Config) { c.Partitions = 12 }},
		{"partitions", "power of two", func(c *Config) { c.Partitions = 0 }},
		{"max-value", "not within", func(c *Config) { c.MaxValue = dynamo.CeilingMaxValue + 1 }},
		{"max-requests", "not within", func(c *Config) { c.MaxRequests = 0 }},
		{"timeout", "not within", func(c *Config) { c.Timeout = time.Hour }},
		{"hints-mb", "not within", func(c *Config) { c.HintsMB = -1 }},
		{"aae-interval", "neither 0 nor", func(c *Config) { c.AAEInterval = time.Millisecond }},
		{"background-floor", "not within 1 to 100", func(c *Config) { c.BackgroundFloor = 0 }},
		{"otlp-endpoint", "is not http", func(c *Config) { c.OTLPEndpoint = "localhost:4318" }},
		{"otlp-endpoint", "http://ann:xxxxx@collector:4318 has a name or password", func(c *Config) { c.OTLPEndpoint = "http://ann:secret@collector:4318" }},
		{"otlp-endpoint", `invalid character " " in host name`, func(c *Config) { c.OTLPEndpoint = "http://ann:secret@a b" }},
		{"otlp-endpoint", "is no URL", func(c *Config) { c.OTLPEndpoint = "http://[::1" }},
		{"trace-sample", "not within", func(c *Config) { c.TraceSample = -0.1 }},
		{"trace-sample", "not within", func(c *Config) { c.TraceSample = math.NaN() }},
		{"reap", "not on or off", func(c *Config) { c.Reap = "yes" }},
		{"cache-mb", "not within", func(c *Config) { c.CacheMB = 1 }},
		{"tls-cert", "or none", func(c *Config) { c.TLSCA = "ca" }},
		{"log-level", "not debug", func(c *Config) { c.LogLevel = "loud" }},
		{"log-format", "not text or json", func(c *Config) { c.LogFormat = "xml" }},
		{"buckets", "r is out of range", func(c *Config) { c.Buckets = []member.Bucket{{Name: "b", Properties: bad}} }},
		{"buckets", `"b" is there twice`, func(c *Config) {
			c.Buckets = []member.Bucket{{Name: "b", Properties: bucket.Default()}, {Name: "b", Properties: bucket.Default()}}
		}},
	}
	for _, tc := range cases {
		c := testConfig("n1")
		tc.change(&c)
		var p *Problems
		if err := c.Validate(); !errors.As(err, &p) || len(p.List) != 1 || p.List[0].Setting != tc.setting || !strings.Contains(p.List[0].Text, tc.text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s %s: %v", tc.setting, tc.text, err)
		}
	}
	c := testConfig("a b")
	c.Cluster, c.Listen, c.Capacity, c.LogLevel, c.TLSKey = "", "here", 0, "loud", "key"
	var p *Problems
	if err := c.Validate(); !errors.As(err, &p) || len(p.List) != 6 || strings.Count(err.Error(), "\n") != 6 {
		t.Errorf("six problems: %v", err)
	}
}

// TestValidateLetsFoundingBe: what can found one cluster only is allowed.
func TestValidateLetsFoundingBe(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"all seeds":           func(c *Config) { c.Found, c.Expect, c.Seeds = true, 3, []string{"a:1", "b:1"} },
		"more than the seeds": func(c *Config) { c.Found, c.Expect, c.Seeds = true, 4, []string{"a:1", "b:1"} },
		"itself among them": func(c *Config) {
			c.Found, c.Expect, c.Advertise, c.Seeds = true, 3, "a:1", []string{"a:1", "b:1", "c:1", c.Listen}
		},
		"not a founder": func(c *Config) { c.Expect, c.Seeds = 2, []string{"a:1", "b:1"} },
		"consul elects": func(c *Config) { c.Found, c.Expect, c.Consul = true, 1, "h:8500" },
	} {
		c := testConfig("n1")
		if change(&c); c.Validate() != nil {
			t.Errorf("%s: %v", name, c.Validate())
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadFile(t *testing.T) {
	f, err := ReadFile(write(t, `# a node
name: n1
data_dir: /data
seed:
  - a:1
  - b:2
expect: 3
found: true
buckets:
  - name: carts
    n: 5
    r: 3
    w: 3
    pr: 1
    pw: 2
    durability: one
    ttl: 1h
  - {name: sessions, conflicts: lww}
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"name": "n1", "data-dir": "/data", "seed": "a:1,b:2", "expect": "3", "found": "true"} {
		if got := strings.Join(f.Settings[name].Values, ","); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if f.Settings["expect"].Line != 7 || len(f.Buckets) != 2 {
		t.Errorf("expect in line %d, %d buckets", f.Settings["expect"].Line, len(f.Buckets))
	}
	p := f.Buckets[0].Properties
	if q := p.Quorum; q.N != 5 || q.R != 3 || q.W != 3 || q.PR != 1 || q.PW != 2 || p.TTL != time.Hour || p.Durability.String() != "one" {
		t.Errorf("carts: %+v", p)
	}
	if s := f.Buckets[1].Properties; s.Conflicts != dynamo.LastWriteWins || s.Quorum != bucket.Default().Quorum {
		t.Errorf("sessions: %+v", s)
	}
}

func TestReadFileNamesEveryProblem(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string // of the error, in any order
	}{
		{"unknown and twice", "name: a\nnam: b\nname: c\n", []string{":2: nam: unknown setting", ":3: name: set twice, first in line 1", "(2)"}},
		{"syntax", "name: a\n\tb: c\n", []string{":2: ", "tab character"}},
		{"not settings", "- a\n- b\n", []string{":1: the file is not a list of settings"}},
		{"wrong shapes", "name: [a, b]\nlisten:\n  a: b\nbuckets: x\n", []string{
			":1: name: takes one value", ":3: listen: takes a value", ":4: buckets: takes a list"}},
		{"list of groups", "seed:\n  - a:1\n  - x: y\n", []string{":3: seed: takes a list of values"}},
		{"buckets", "buckets:\n  - name: ok\n  - name: b\n    r: 9\n  - name: c\n    w: many\n  - name: d\n    rr: 1\n  - e\n  - n: 3\n", []string{
			`:3: buckets: "b": `, ":5: buckets: ", `:7: buckets: line 8: unknown property "rr"`, ":9: buckets: a bucket is a group", ":10: buckets: ", "(5)"}},
		{"bad words", "buckets:\n  - name: b\n    durability: perhaps\n    conflicts: no\n    ttl: soon\n", []string{"perhaps", "no", "buckets: \"b\": ttl \"soon\"", "(3)"}},
		{"bucket twice", "buckets:\n  - name: b\n  - name: b\n", []string{":3: buckets: ", `"b" is there twice`}},
		{"second document", "name: a\n---\nname: b\n", []string{":2: the file is more than one document"}},
	} {
		f, err := ReadFile(write(t, tc.text))
		var p *Problems
		if !errors.As(err, &p) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is missing in:\n%v", tc.name, want, err)
			}
		}
		if p.File != f.Path {
			t.Errorf("%s: file %q", tc.name, p.File)
		}
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if f, err := ReadFile(write(t, "# nothing\n")); err != nil || len(f.Settings) != 0 {
		t.Errorf("an empty file: %v", err)
	}
}

func TestWithLines(t *testing.T) {
	f, err := ReadFile(write(t, "name: n1\n\ncapacity: 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig("n1")
	c.Capacity, c.Partitions = 0, 3
	got := WithLines(c.Validate(), f).Error()
	if !strings.Contains(got, f.Path+":3: capacity: 0") || !strings.Contains(got, "\n  partitions: 3") {
		t.Errorf("got:\n%s", got)
	}
	if WithLines(nil, f) != nil {
		t.Error("no error became one")
	}
}

func TestLoggerRefuses(t *testing.T) {
	for _, tc := range [][2]string{{"loud", "text"}, {"info", "xml"}} {
		if _, err := NewLogger(&testLog{}, tc[0], tc[1]); err == nil {
			t.Errorf("%v is taken", tc)
		}
	}
	log := &testLog{}
	l, err := NewLogger(log, "warn", "json")
	if err != nil {
		t.Fatal(err)
	}
	l.Info("quiet")
	l.Warn("loud")
	if s := log.String(); strings.Contains(s, "quiet") || !strings.HasPrefix(s, "{") || !strings.Contains(s, "loud") {
		t.Errorf("log %q", s)
	}
}

// What counts at the founding only and differs from the cluster is named.
func TestIgnoredSettings(t *testing.T) {
	doc, _, err := member.Found(member.Founding{
		ClusterID: member.ClusterID{1}, ClusterName: "test", Partitions: 16,
		Members: []member.Member{{ID: "n1", Capacity: 1, Store: member.StoreID{1}, Start: 1}},
		Buckets: []member.Bucket{{Name: "carts", Properties: bucket.Default()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Buckets = []member.Bucket{{Name: "carts", Properties: bucket.Default()}}
	if got := c.ignored(doc); len(got) != 0 {
		t.Errorf("the same and defaults: %q", got)
	}
	lww := bucket.Default()
	lww.Conflicts = dynamo.LastWriteWins
	c.Partitions = 128
	c.Buckets = []member.Bucket{{Name: "carts", Properties: lww}, {Name: "sessions", Properties: lww}}
	got := c.ignored(doc)
	if len(got) != 3 {
		t.Fatalf("%q", got)
	}
	for i, word := range []string{"128 is ignored, the cluster was founded with 16", `bucket "carts"`, `bucket "sessions" is ignored`} {
		if !strings.Contains(got[i], word) {
			t.Errorf("%q does not say %q", got[i], word)
		}
	}
}

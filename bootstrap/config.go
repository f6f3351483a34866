package bootstrap

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/admission"
	"github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// Config is all that a node must be told. Flags, environment and file say the
// same things under the same names.
type Config struct {
	// Name is the node's name in its cluster: letters, digits and . _ -
	Name string
	// Cluster is the cluster's name; nodes of another one are refused.
	Cluster string
	// Listen is where nodes and clients connect, host:port.
	Listen string
	// Advertise is the address that others reach this node under; empty is
	// Listen.
	Advertise string
	// HTTP is where /healthz, /readyz and /metrics are served, host:port; empty
	// serves none.
	HTTP string
	// DataDir is the folder that holds the node's data. It belongs to one node
	// of one cluster.
	DataDir string
	// Seeds are addresses of other nodes, host:port.
	Seeds []string
	// Consul is the address of the local agent, host:port or a URL; empty does
	// without Consul. Token and TLS come from the usual CONSUL_HTTP_… environment.
	Consul string
	// Found lets this node found a cluster if there is none yet.
	Found bool
	// Expect is how many nodes found the cluster together; 0 is 1 + the number
	// of Seeds, or 3 with Consul. A node that may found with a list of Seeds must
	// expect them all: two groups of a list could else found two clusters.
	Expect int
	// AutoJoin: the cluster, when this node founds it, takes every node that asks to
	// join, without an operator's commit.
	AutoJoin bool
	// Zone is a group of nodes that fail together; empty is none.
	Zone string
	// Capacity is this node's weight against the others'.
	Capacity int
	// Partitions is Q, fixed when the cluster is founded; a power of two.
	Partitions int
	// Buckets are created when this node founds the cluster.
	Buckets []member.Bucket
	// MaxValue is the largest value that a client may write, in bytes.
	MaxValue int
	// MaxRequests is how many requests may be in flight on this node.
	MaxRequests int
	// Timeout is how long a request may take if it does not say so itself.
	Timeout time.Duration
	// CacheMB is the size of the store's caches in MiB: half for the records
	// used last, half for blocks of its tables.
	CacheMB int
	// HintsMB is how much the node keeps for others that cannot be reached, in
	// MiB; then it refuses to keep more.
	HintsMB int
	// AAEInterval is how often two replicas are compared, at least; 0: only when an
	// operator says so.
	AAEInterval time.Duration
	// BackgroundFloor is the least part of the time that transfers, fills, exchanges and
	// the building of hash trees get, in percent, however much clients' requests suffer;
	// 100 lets them do what they can.
	BackgroundFloor int
	// Reap is on or off: whether this node reaps tombstones and expired values where it is
	// the first of their replicas.
	Reap string
	// TLSCert, TLSKey, TLSCA are files in PEM form; with them, links use TLS
	// 1.3 and nodes show certificates to each other. All three or none.
	TLSCert, TLSKey, TLSCA string
	// OTLPEndpoint is the URL of a collector of traces (OTLP over HTTP); empty sends none.
	OTLPEndpoint string
	// TraceSample is the share of requests that are traced, 0 to 1, of those whose client
	// does not say whether they are.
	TraceSample float64
	// ConsoleControl lets operators change settings, restart and kill actors while the node
	// runs; with TLS only those whose certificate names an operator.
	ConsoleControl bool
	// LogLevel is debug, info, warn or error; LogFormat text or json, empty is text on a
	// terminal and json elsewhere.
	LogLevel, LogFormat string
}

// Default is the configuration where nothing is said. Name and DataDir have
// none.
func Default() Config {
	return Config{
		Cluster:     "dynactor",
		Listen:      "127.0.0.1:7800",
		Capacity:    1,
		Partitions:  ring.DefaultPartitions,
		MaxValue:    dynamo.DefaultMaxValue,
		MaxRequests: 4096,
		Timeout:     5 * time.Second,
		CacheMB:     64,
		HintsMB:     1024,
		AAEInterval: exchange.DefaultInterval,
		Reap:        "on",
		TraceSample: 0.01,
		LogLevel:    "info",

		BackgroundFloor: int(100 * admission.Default().Floor),
	}
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Setting is its name, as in flags and files.
	Setting string
	// Line is where the file says it; 0 when it does not come from the file.
	Line int
	// Text says what is wrong and what is allowed.
	Text string
}

// Problems is every problem of a configuration at once.
type Problems struct {
	// File is the configuration file, if there was one.
	File string
	List []Problem
}

// Error lists the problems, one a line.
func (p *Problems) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "bad configuration (%d)", len(p.List))
	for _, x := range p.List {
		b.WriteString("\n  ")
		if x.Line > 0 {
			fmt.Fprintf(&b, "%s:%d: ", p.File, x.Line)
		}
		if x.Setting != "" {
			b.WriteString(x.Setting + ": ")
		}
		b.WriteString(x.Text)
	}
	return b.String()
}

// Validate reports every problem at once, as *Problems.
func (c Config) Validate() error {
	var p Problems
	bad := func(setting, format string, args ...any) {
		p.List = append(p.List, Problem{Setting: setting, Text: fmt.Sprintf(format, args...)})
	}
	if err := dynamo.NodeID(c.Name).Validate(); err != nil {
		bad("name", "%v", err)
	}
	if err := dynamo.NodeID(c.Cluster).Validate(); err != nil {
		bad("cluster", "%v", err)
	}
	c.checkAddresses(bad)
	c.checkNumbers(bad)
	c.checkFounding(bad)
	c.checkTLS(bad)
	c.checkTraces(bad)
	named := map[string]bool{}
	for _, b := range c.Buckets {
		if err := b.Validate(); err != nil {
			bad("buckets", "%v", err)
		}
		if named[b.Name] {
			bad("buckets", "%q is there twice", b.Name)
		}
		named[b.Name] = true
	}
	if len(p.List) == 0 {
		return nil
	}
	return &p
}

func (c Config) checkAddresses(bad func(string, string, ...any)) {
	check := func(setting, address string, needHost bool) {
		host, port, err := net.SplitHostPort(address)
		switch {
		case err != nil:
			bad(setting, "%q is not host:port: %v", address, err)
		case port == "":
			bad(setting, "%q has no port", address)
		case needHost && (host == "" || host == "0.0.0.0" || host == "::"):
			advice := ""
			if setting == "listen" {
				advice = "; set advertise"
			}
			bad(setting, "%q names no host that others can reach%s", address, advice)
		}
	}
	check("listen", c.Listen, c.Advertise == "")
	if c.Advertise != "" {
		check("advertise", c.Advertise, true)
	}
	if c.HTTP != "" {
		check("http", c.HTTP, false)
	}
	for _, s := range c.Seeds {
		check("seed", s, true)
	}
	if c.DataDir == "" {
		bad("data-dir", "must be set: the folder that holds this node's data")
	}
	if c.Consul != "" {
		if err := checkConsulAddress(c.Consul); err != nil {
			bad("consul", "%v", err)
		}
	}
	if c.Consul != "" && len(c.Seeds) > 0 {
		bad("consul", "set either consul or seed, not both")
	}
}

func (c Config) checkNumbers(bad func(string, string, ...any)) {
	within := func(setting string, value, low, high int) {
		if value < low || value > high {
			bad(setting, "%d is not within %d to %d", value, low, high)
		}
	}
	within("capacity", c.Capacity, 1, ring.MaxCapacity)
	within("expect", c.Expect, 0, 1000)
	within("max-value", c.MaxValue, 1, dynamo.CeilingMaxValue)
	within("max-requests", c.MaxRequests, 1, 1<<20)
	within("cache-mb", c.CacheMB, 2, 1<<20)
	within("hints-mb", c.HintsMB, 0, 1<<20)
	within("background-floor", c.BackgroundFloor, 1, 100)
	if q := c.Partitions; q < 1 || q > ring.MaxPartitions || q&(q-1) != 0 {
		bad("partitions", "%d is not a power of two within 1 to %d", q, ring.MaxPartitions)
	}
	if d := c.AAEInterval; d != 0 && (d < time.Second || d > 30*24*time.Hour) {
		bad("aae-interval", "%v is neither 0 nor within 1s to 720h", d)
	}
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		bad("timeout", "%v is not within 1ms to 1m", c.Timeout)
	}
}

// checkFounding refuses what could found two clusters: a list elects nobody, so
// only a founder that has heard of every seed knows that no other group founds.
func (c Config) checkFounding(bad func(string, string, ...any)) {
	all := 1 + c.otherSeeds()
	if !c.Found || c.Consul != "" || c.Expect <= 0 || c.Expect >= all {
		return
	}
	bad("expect", "%d is less than this node and its %d seeds: nodes that do not see each other could found two clusters; "+
		"leave expect out (it is then %d), or list fewer seeds (this node's own address is not counted if the list writes it as listen or advertise does)",
		c.Expect, all-1, all)
}

// otherSeeds is how many of the seeds are not this node itself.
func (c Config) otherSeeds() int {
	others := map[string]bool{}
	for _, s := range c.Seeds {
		if s != c.Listen && s != c.Advertise {
			others[s] = true
		}
	}
	return len(others)
}

func (c Config) checkTLS(bad func(string, string, ...any)) {
	set := 0
	for _, f := range []string{c.TLSCert, c.TLSKey, c.TLSCA} {
		if f != "" {
			set++
		}
	}
	if set != 0 && set != 3 {
		bad("tls-cert", "set tls-cert, tls-key and tls-ca, or none of them")
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		bad("log-level", "%v", err)
	}
	if c.Reap != "on" && c.Reap != "off" {
		bad("reap", "%q is not on or off", c.Reap)
	}
	if c.LogFormat != "" && c.LogFormat != "text" && c.LogFormat != "json" {
		bad("log-format", "%q is not text or json", c.LogFormat)
	}
}

// WithLines adds to each problem of an error of Validate the line of the file that said the setting.
func WithLines(err error, f File) error {
	var p *Problems
	if !errors.As(err, &p) {
		return err
	}
	p.File = f.Path
	for i := range p.List {
		if s, ok := f.Settings[p.List[i].Setting]; ok && p.List[i].Line == 0 {
			p.List[i].Line = s.Line
		}
	}
	return p
}

// ignored names what the configuration asks for and a cluster that exists does
// not have: settings that count when it is founded, and never again.
func (c Config) ignored(doc member.Document) []string {
	var out []string
	if q := doc.Settled.Partitions(); c.Partitions != Default().Partitions && c.Partitions != q {
		out = append(out, fmt.Sprintf("partitions: %d is ignored, the cluster was founded with %d", c.Partitions, q))
	}
	if c.AutoJoin && !doc.AutoJoin {
		out = append(out, "auto-join is ignored: the cluster was founded without it")
	}
	for _, b := range c.Buckets {
		there, created := doc.Bucket(b.Name)
		switch {
		case !created:
			out = append(out, fmt.Sprintf("bucket %q is ignored: the cluster does not have it, so it has the defaults; see node bucket create", b.Name))
		case there != b.Properties:
			out = append(out, fmt.Sprintf("properties of bucket %q are ignored where they differ from those that the cluster was founded with: %v", b.Name, there))
		}
	}
	return out
}

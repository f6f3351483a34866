package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.opentelemetry.io/otel/trace"
)

// Config says how a client reaches the store. Begin with Default.
type Config struct {
	// Nodes are addresses of nodes, host:port; one that answers is enough, the
	// others are learned from it.
	Nodes []string
	// Cluster is the cluster's name.
	Cluster string
	// System is the application's actor system; nil makes one. It must not use
	// an address of its own (protoactor's remote).
	System *actor.ActorSystem
	// Timeout bounds a request whose context has no deadline.
	Timeout time.Duration
	// HedgeAfter is how long a get waits for a node before it asks another one
	// too; the first answer counts. At most one get in twenty, over time, is asked
	// twice. 0 never asks twice.
	HedgeAfter time.Duration
	// RingInterval is how often the ring is asked for.
	RingInterval time.Duration
	// TLS encrypts; nil is plaintext.
	TLS *tls.Config
	// Logger gets what an operator should see; nil discards.
	Logger *slog.Logger
	// TracerProvider gets a span of each request, which nodes that trace (--otlp-endpoint)
	// join theirs to; nil: none.
	TracerProvider trace.TracerProvider
}

// Default is a configuration for a node on this machine.
func Default() Config {
	return Config{
		Nodes: []string{"127.0.0.1:7800"}, Cluster: "dynactor", Timeout: 5 * time.Second, RingInterval: 10 * time.Second,
		HedgeAfter: 100 * time.Millisecond,
	}
}

// Validate reports every problem, joined.
func (c Config) Validate() error {
	var problems []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			problems = append(problems, fmt.Errorf("client: "+format, args...))
		}
	}
	add(len(c.Nodes) == 0, "no node is named; set Nodes")
	for _, n := range c.Nodes {
		_, _, err := net.SplitHostPort(n)
		add(err != nil, "node %q is not host:port: %v", n, err)
	}
	add(c.Cluster == "", "Cluster is empty")
	add(c.Timeout <= 0, "Timeout is %v, must be positive", c.Timeout)
	add(c.HedgeAfter < 0, "HedgeAfter is %v, must not be negative", c.HedgeAfter)
	add(c.RingInterval <= 0, "RingInterval is %v, must be positive", c.RingInterval)
	return errors.Join(problems...)
}

// Option changes one request.
type Option func(*options)

type options struct {
	r, w, pr, pw int
	context      Context
	timeout      time.Duration
	timeline     *Timeline
}

// R is how many replicas must answer a read.
func R(n int) Option { return func(o *options) { o.r = n } }

// W is how many replicas must confirm a write.
func W(n int) Option { return func(o *options) { o.w = n } }

// PR is how many primaries must be among those that answer a read.
func PR(n int) Option { return func(o *options) { o.pr = n } }

// PW is how many primaries must be among those that confirm a write.
func PW(n int) Option { return func(o *options) { o.pw = n } }

// After makes a write replace what the context has seen: that of a get, or of
// an earlier put. Without it a write is concurrent with everything.
func After(c Context) Option { return func(o *options) { o.context = c } }

// Timeout bounds one request, beside the deadline of its context.Context.
func Timeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

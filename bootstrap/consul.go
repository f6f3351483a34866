package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// What can be wrong with Consul, each wrapped with the facts.
var (
	// ErrConsulDenied: the token is missing, unknown, or may not do this.
	ErrConsulDenied = errors.New("permission denied (see CONSUL_HTTP_TOKEN)")
	// ErrConsulHidden: the list of instances lacks this node, which is
	// registered; so it may lack others.
	ErrConsulHidden = errors.New("the list of instances does not show this node")
	// ErrConsulEntry: the founder's key holds something else.
	ErrConsulEntry = errors.New("the founder's key is not readable")
	// ErrFoundedElsewhere: the founder's key names another cluster than the one
	// that this node is in.
	ErrFoundedElsewhere = errors.New("consul names another cluster of this name")
)

// consulTimes are the intervals of a registration.
type consulTimes struct {
	// ttl is how long the check stays passing without a beat, beat the time
	// between two.
	ttl, beat time.Duration
	// call bounds a call that should answer at once.
	call time.Duration
	// wait is how long a blocking query waits for a change.
	wait time.Duration
	// backoffMin and backoffMax bound the pause after a failure.
	backoffMin, backoffMax time.Duration
	// settle is how long this node must have been listed before the list counts
	// as complete, since nodes that lost their registration put it back within
	// backoffMax or beat; and how long it may be registered and not listed
	// before that is a problem.
	settle time.Duration
	// leave bounds taking the registration back.
	leave time.Duration
}

// defaultConsulTimes hold for every node.
func defaultConsulTimes() consulTimes {
	return consulTimes{
		ttl: 5 * time.Second, beat: time.Second, call: 2 * time.Second, wait: 20 * time.Second,
		backoffMin: 50 * time.Millisecond, backoffMax: time.Second, settle: 2 * time.Second, leave: 2 * time.Second,
	}
}

// criticalFor is after how long Consul itself drops the registration of a node
// that is gone without a word.
const criticalFor = "10m"

// consul is discovery with a Consul agent. Three loops run side by side, each
// of which goes on for ever whatever fails: one keeps the registration, one
// watches the list of instances, and one keeps the founder's key.
type consul struct {
	log              *slog.Logger
	agent            string // the agent's address
	client           atomic.Pointer[consulClient]
	service, id, key string
	node, store      string
	address, host    string
	port             int
	times            consulTimes
	confirmed        chan struct{} // closed once Confirm was called

	mu        sync.Mutex
	wanted    founderEntry
	attempted bool      // a registration may exist
	since     time.Time // since when the registration has stood; zero: it does not
	current   listing
	visible   time.Time // since when the list has shown this node; zero: it does not
	problems  map[string]problem
}

// problem is what is wrong with one of the loops.
type problem struct {
	kind, text string
}

// Topics of problems, in the order in which they explain each other.
const (
	topicRegistration = "registration"
	topicList         = "list of instances"
	topicFounder      = "founder's key"
)

// newConsul prepares discovery; an error is one of configuration. c.Advertise
// is set.
func newConsul(c Config, id Identity, log *slog.Logger) (*consul, error) {
	client, err := newConsulClient(c.Consul)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	host, portText, err := net.SplitHostPort(c.Advertise)
	if err != nil {
		return nil, fmt.Errorf("consul: advertise: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("consul: advertise: port %q is not a number", portText)
	}
	service := "dynactor-" + c.Cluster
	out := &consul{
		log: log.With(slog.String("consul", c.Consul)), agent: c.Consul,
		service: service, id: service + "-" + c.Name, key: "dynactor/" + c.Cluster + "/founder",
		node: c.Name, store: id.Store, address: net.JoinHostPort(host, strconv.Itoa(port)), host: host, port: port,
		times: defaultConsulTimes(), confirmed: make(chan struct{}), problems: map[string]problem{},
	}
	out.client.Store(client)
	return out, nil
}

// Run implements Discovery.
func (c *consul) Run(ctx context.Context, seeds func([]string)) error {
	var loops sync.WaitGroup
	loops.Go(func() { c.keepRegistration(ctx) })
	loops.Go(func() { c.watchInstances(ctx, seeds) })
	loops.Go(func() { c.keepFounder(ctx) })
	loops.Wait()
	c.leave()
	c.client.Load().http.CloseIdleConnections()
	return nil
}

// keepRegistration registers the node and keeps its check passing. An agent
// that lost its data answers a beat with 404; then the node registers again.
func (c *consul) keepRegistration(ctx context.Context) {
	registered := false
	for failures := 0; ctx.Err() == nil; {
		err := c.register(ctx, registered)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			registered, failures = true, 0
			c.stands(true)
			c.report(topicRegistration, nil)
			wait(ctx, c.times.beat)
			continue
		case isStatus(err, http.StatusNotFound):
			registered = false
		case errors.Is(err, ErrConsulDenied):
			c.renew()
		}
		c.stands(false)
		c.report(topicRegistration, err)
		wait(ctx, c.backoff(failures))
		failures++
	}
}

// register brings the registration about, unless it is there, and makes its
// check pass.
func (c *consul) register(ctx context.Context, registered bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.times.call)
	defer cancel()
	client := c.client.Load()
	if !registered {
		c.mu.Lock()
		c.attempted = true
		c.mu.Unlock()
		err := client.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
			ID: c.id, Name: c.service, Address: c.host, Port: c.port,
			Meta: map[string]string{"node": c.node, "store": c.store, "version": "1"},
			Check: &api.AgentServiceCheck{
				CheckID: c.id, Name: "node " + c.node + " runs", TTL: c.times.ttl.String(), DeregisterCriticalServiceAfter: criticalFor,
			},
		}, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
		if err != nil {
			return client.explain(err)
		}
	}
	o := (&api.QueryOptions{}).WithContext(ctx)
	return client.explain(client.Agent().UpdateTTLOpts(c.id, "", api.HealthPassing, o))
}

// stands notes whether the agent has the registration.
func (c *consul) stands(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !yes:
		c.since = time.Time{}
	case c.since.IsZero():
		c.since = time.Now()
	}
}

// renew reads the token's file again: tokens are replaced while nodes run.
func (c *consul) renew() {
	old := c.client.Load()
	if !old.rotates {
		return
	}
	client, err := newConsulClient(c.agent)
	if err != nil {
		c.log.Warn("consul's token could not be read again", slog.Any("error", err))
		return
	}
	client.secrets = append(client.secrets, old.secrets...)
	if len(client.secrets) > 16 {
		client.secrets = client.secrets[:16]
	}
	c.client.Store(client)
	old.http.CloseIdleConnections()
}

// isStatus reports whether Consul answered with the code.
func isStatus(err error, code int) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == code
}

// leave takes the registration back. It is not the node's problem when that
// fails: the check goes critical, and no node believes Consul over a link.
func (c *consul) leave() {
	c.mu.Lock()
	attempted := c.attempted
	c.mu.Unlock()
	if !attempted {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.times.leave)
	defer cancel()
	client := c.client.Load()
	err := client.explain(client.Agent().ServiceDeregisterOpts(c.id, (&api.QueryOptions{}).WithContext(ctx)))
	if err != nil && !isStatus(err, http.StatusNotFound) {
		c.log.Warn("the registration could not be taken back from consul; its check goes critical", slog.Any("error", err))
	}
}

// Status implements Discovery.
func (c *consul) Status() RegistryStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := RegistryStatus{Kind: "consul", Listed: c.current.addresses}
	for _, topic := range []string{topicRegistration, topicList, topicFounder} {
		if p := c.problems[topic]; p.text != "" {
			s.Problem = topic + ": " + p.text
			break
		}
	}
	switch {
	case c.visible.IsZero() && s.Problem != "":
		s.Incomplete = s.Problem
	case c.visible.IsZero():
		s.Incomplete = "waiting for consul to show this node"
	case time.Since(c.visible) < c.times.settle:
		s.Incomplete = "waiting for others to show up in consul"
	case c.current.more:
		s.Incomplete = fmt.Sprintf("consul lists more than %d nodes", maxListed)
	}
	return s
}

// report notes what is wrong, and tells the log about changes only.
func (c *consul) report(topic string, err error) {
	var now problem
	if err != nil {
		now = problem{kind: kind(err), text: err.Error()}
	}
	c.mu.Lock()
	before := c.problems[topic]
	changed := before.kind != now.kind
	if changed {
		c.problems[topic] = now
	}
	c.mu.Unlock()
	switch {
	case !changed:
	case err == nil:
		c.log.Info("consul works again", slog.String("what", topic))
	case errors.Is(err, ErrConsulDenied) || errors.Is(err, ErrFoundedElsewhere) || errors.Is(err, ErrConsulEntry):
		c.log.Error("consul", slog.String("what", topic), slog.Any("error", err))
	default:
		c.log.Warn("consul", slog.String("what", topic), slog.Any("error", err))
	}
}

// backoff is the jittered pause after so many failures.
func (c *consul) backoff(failures int) time.Duration {
	pause := min(c.times.backoffMin<<min(failures, 20), c.times.backoffMax)
	return pause/2 + rand.N(pause/2+1)
}

// wait pauses until the time is over or ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

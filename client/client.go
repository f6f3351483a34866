package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.opentelemetry.io/otel/trace"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

// noAddress is the address of an actor system that talks to nobody.
const noAddress = "nonhost"

// Client is a client of one cluster, safe for use by many goroutines. Close it
// when it is not needed any more.
type Client struct {
	config  Config
	id      string
	log     *slog.Logger
	system  *actor.ActorSystem
	own     bool // the system was made here
	links   *link.Links
	routes  *routes
	pending *pending
	budget  *budget
	tracer  trace.Tracer // nil: requests are not traced
	front   *actor.PID
	refresh chan struct{}
	closed  chan struct{} // closed by Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	closing sync.Once
	// operator says which node operators' requests go to.
	operator struct {
		sync.Mutex
		node string
	}
}

// New starts a client. It connects in the background: requests wait for the
// first node within their own time.
func New(config Config) (*Client, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	var suffix [8]byte
	rand.Read(suffix[:]) // never fails: crypto/rand ends the process instead
	c := &Client{
		config: config, id: "client-" + hex.EncodeToString(suffix[:]), log: config.Logger, routes: newRoutes(), budget: newBudget(),
		refresh: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if p := config.TracerProvider; p != nil {
		c.tracer = p.Tracer(tracerName)
	}
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Client) start() error {
	c.system = c.config.System
	switch {
	case c.system == nil:
		c.own, c.system = true, rt.NewSystem(c.id, c.config.Logger)
	case c.system.Address() == noAddress:
		c.system.ProcessRegistry.Address = c.id
	default:
		return fmt.Errorf("%w: the actor system has the address %q already, from a remote or from another client; leave System nil",
			ErrInvalid, c.system.Address())
	}
	lc := link.Default()
	lc.NodeID, lc.Role, lc.ClusterName, lc.TLS, lc.Logger = c.id, messages.RoleClient, c.config.Cluster, c.config.TLS, c.log
	lc.Start = uint64(time.Now().UnixNano())
	lc.Observer = link.Observer{
		Up: func(p link.Peer) { c.routes.setUp(p.ID, true) },
		Down: func(p link.Peer, why error) {
			c.routes.setUp(p.ID, false)
			c.pending.lost(p.ID, why)
		},
	}
	c.pending = newPending(c.system, "client/requests")
	var err error
	if c.links, err = link.New(c.system, lc); err != nil {
		return err
	}
	if err := c.links.Start(); err != nil {
		return err
	}
	for _, n := range c.config.Nodes {
		if err := c.links.Connect(n); err != nil {
			return err
		}
	}
	if c.front, err = c.system.Root.SpawnNamed(newFront(c), "client/front"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.wg.Go(func() { c.pollRing(ctx) })
	return nil
}

// PID is the actor that takes Get, Put and Delete as messages.
func (c *Client) PID() *actor.PID { return c.front }

// Close ends the client. Requests under way fail with ErrClosed. The
// application's own actor system goes on; it can not get another client. Close
// must not be called from an actor that the client waits for.
func (c *Client) Close() error {
	var err error
	c.closing.Do(func() { err = c.close() })
	return err
}

// close takes back what start did, also if that came half way only.
func (c *Client) close() error {
	var err error
	close(c.closed)
	if c.cancel != nil {
		c.cancel()
	}
	if c.pending != nil {
		c.pending.close()
	}
	if c.front != nil {
		err = c.system.Root.StopFuture(c.front).Wait() // it starts no more requests
	}
	if c.links != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, c.links.Stop(ctx))
	}
	c.wg.Wait()
	if c.pending != nil {
		c.system.ProcessRegistry.Remove(c.pending.pid)
	}
	if c.own {
		c.system.Shutdown()
	}
	return err
}

// Nodes lists the nodes that are connected.
func (c *Client) Nodes() []string {
	var out []string
	for _, p := range c.links.Peers() {
		if p.ID != "" && p.Up() {
			out = append(out, p.ID)
		}
	}
	return out
}

// Ready waits until the client knows the ring, or ctx ends; then the error
// says what keeps it.
func (c *Client) Ready(ctx context.Context) error {
	for c.routes.version() == 0 {
		node, err := c.connected(ctx)
		if err != nil {
			return err
		}
		if err := c.fetchRing(ctx, node); err != nil {
			if pauseErr := c.pause(ctx, ringRetry); pauseErr != nil {
				return c.ended(pauseErr, strings.TrimPrefix(err.Error(), ErrUnavailable.Error()+": "))
			}
		}
	}
	return nil
}

// connected waits for a node to be connected, and returns one.
func (c *Client) connected(ctx context.Context) (string, error) {
	for {
		node, changed := c.routes.any()
		if node != "" {
			return node, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", c.ended(ctx.Err(), c.unreachable())
		case <-c.closed:
			return "", ErrClosed
		}
	}
}

// operated is the node that operators' requests go to.
func (c *Client) operated(ctx context.Context) (string, error) {
	c.operator.Lock()
	defer c.operator.Unlock()
	if up, _ := c.routes.isUp(c.operator.node); up {
		return c.operator.node, nil
	}
	node, err := c.connected(ctx)
	c.operator.node = node
	return node, err
}

// operatedBesides has operators' requests go to a connected node that has not refused them;
// empty if there is none.
func (c *Client) operatedBesides(refused []string) string {
	c.operator.Lock()
	defer c.operator.Unlock()
	c.operator.node = c.routes.besides(refused)
	return c.operator.node
}

// leaveOperated has the next request of an operator go to any connected node instead of this one every time.
func (c *Client) leaveOperated(node string) {
	c.operator.Lock()
	defer c.operator.Unlock()
	if c.operator.node == node {
		c.operator.node = ""
	}
}

// connectedTo waits for a node to be connected.
func (c *Client) connectedTo(ctx context.Context, node string) error {
	for {
		up, changed := c.routes.isUp(node)
		if up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &Error{Kind: ErrUnavailable, Node: node, Text: "it cannot be reached", Cause: ctx.Err()}
		case <-c.closed:
			return ErrClosed
		}
	}
}

// pause waits, or returns why it did not: ErrClosed, or the error of ctx.
func (c *Client) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return ErrClosed
	}
}

// ended is the error of what was given up without an answer because of cause.
func (c *Client) ended(cause error, text string) error {
	if errors.Is(cause, ErrClosed) {
		return ErrClosed
	}
	return &Error{Kind: ErrUnavailable, Text: text, Cause: cause}
}

// ringRetry is the pause before a node that knows no ring yet is asked again.
const ringRetry = 100 * time.Millisecond

// unreachable tells why no node is connected.
func (c *Client) unreachable() string {
	text := "no node could be reached"
	for _, p := range c.links.Peers() {
		if p.LastError != "" {
			text += fmt.Sprintf("; %s: %s", p.Address, p.LastError)
		}
	}
	return text
}

// pollRing asks for the ring at once, then at each interval, and when told.
func (c *Client) pollRing(ctx context.Context) {
	if err := c.Ready(ctx); err != nil {
		return // the client was closed
	}
	ticker := time.NewTicker(c.config.RingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.refresh:
		case <-ctx.Done():
			return
		}
		if node, _ := c.routes.any(); node != "" {
			if err := c.fetchRing(ctx, node); err != nil && ctx.Err() == nil {
				c.log.Debug("ring", slog.String("node", node), slog.Any("error", err))
			}
		}
	}
}

// stale asks for the ring soon.
func (c *Client) stale() {
	select {
	case c.refresh <- struct{}{}:
	default:
	}
}

func (c *Client) fetchRing(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	reply, err := c.ask(ctx, node, messages.TargetMembership, &messages.RingRequest{
		Version: c.routes.version(), TimeoutMs: 2000,
	})
	if err != nil {
		return err
	}
	switch m := reply.message.(type) {
	case *messages.RingReply:
		return c.routes.learn(c.links, m)
	case *messages.Failure:
		return fromFailure(reply.node, m)
	}
	return &Error{Kind: ErrInternal, Node: reply.node, Text: fmt.Sprintf("unexpected answer %T", reply.message)}
}

// errNotSent: the client was closed before the message was sent.
var errNotSent = fmt.Errorf("%w before the request was sent", ErrClosed)

// ask sends one message to an actor of a node and waits for the answer.
func (c *Client) ask(ctx context.Context, node, name string, message any) (answered, error) {
	a, self := c.pending.open(node)
	if a == nil {
		return answered{}, errNotSent
	}
	c.system.Root.RequestWithCustomSender(actor.NewPID(node, name), message, self)
	select {
	case got := <-a.done:
		return received(got)
	case <-ctx.Done():
		c.pending.drop(self)
		return answered{node: node}, ctx.Err()
	}
}

package bootstrap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/pebbledb"
)

// StopTimeout is how long an orderly stop may take.
const StopTimeout = 10 * time.Second

// digestAbove is the value size from which a read takes the value from one
// replica only.
const digestAbove = 4 << 10

// readers is how many reads of the store run at once on a node.
const readers = 16

// Node is a running node.
type Node struct {
	config    Config
	log       *slog.Logger
	engine    storage.Engine
	identity  Identity
	system    *actor.ActorSystem
	links     *link.Links
	actors    *actors.Node
	discovery Discovery
	listener  net.Listener
	http      *http.Server
	httpAddr  string
	document  atomic.Pointer[member.Document]
	fatal     chan error
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	// undo are the steps that take back what Start did, in the order done.
	undo []func(context.Context) error
	stop sync.Once
}

// Options replace parts of a node, for tests and for embedding.
type Options struct {
	// Engine is the store; nil opens Pebble in the data directory. The node
	// closes it.
	Engine storage.Engine
	// Listener takes the place of listening on Config.Listen.
	Listener net.Listener
	// LogTo is where the log goes; nil is standard error.
	LogTo io.Writer
}

// Start starts a node; it runs when Start returns, and WaitReady tells when it
// serves. On an error everything is taken back.
func Start(c Config, o Options) (*Node, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if o.LogTo == nil {
		o.LogTo = os.Stderr
	}
	log, err := NewLogger(o.LogTo, c.LogLevel, c.LogFormat)
	if err != nil {
		return nil, err
	}
	n := &Node{config: c, log: log.With(slog.String("node", c.Name)), fatal: make(chan error, 1)}
	for _, step := range []func(Options) error{n.openStore, n.listen, n.startLinks, n.startActors, n.startHTTP, n.startDiscovery} {
		if err := step(o); err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), StopTimeout)
			defer cancel()
			return nil, errors.Join(err, n.Stop(ctx))
		}
	}
	return n, nil
}

// onStop adds a step to take back.
func (n *Node) onStop(undo func(context.Context) error) { n.undo = append(n.undo, undo) }

// openStore opens and locks the data directory and checks whose it is.
func (n *Node) openStore(o Options) error {
	n.engine = o.Engine
	if n.engine == nil {
		if err := os.MkdirAll(n.config.DataDir, 0o700); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		options := pebbledb.Default()
		options.CacheBytes = int64(n.config.CacheMB) << 20
		options.Logger = n.log
		options.OnFatal = n.fail
		e, err := pebbledb.Open(filepath.Join(n.config.DataDir, "store"), options)
		if err != nil {
			return err
		}
		n.engine = e
	}
	n.onStop(func(context.Context) error { return n.engine.Close() })
	id, err := claimStore(n.engine, n.config.Name, n.config.Cluster)
	if err != nil {
		return fmt.Errorf("%s: %w", n.config.DataDir, err)
	}
	n.identity = id
	return nil
}

// fail reports what the node cannot go on without; the first one counts.
func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

// Fatal delivers the error after which the process must end: the store failed.
func (n *Node) Fatal() <-chan error { return n.fatal }

func (n *Node) listen(o Options) error {
	n.listener = o.Listener
	if n.listener == nil {
		l, err := net.Listen("tcp", n.config.Listen)
		if err != nil {
			return fmt.Errorf("listen on %s: %w (is another node running there? choose another with --listen)", n.config.Listen, err)
		}
		n.listener = l
	}
	if n.config.Advertise == "" {
		n.config.Advertise = n.listener.Addr().String()
	}
	n.onStop(func(context.Context) error {
		if err := n.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return nil
}

func (n *Node) startLinks(Options) error {
	n.system = rt.NewSystem(n.config.Name, n.log)
	n.onStop(func(context.Context) error { n.system.Shutdown(); return nil })
	c := link.Default()
	c.NodeID, c.ClusterName = n.config.Name, n.config.Cluster
	c.ClusterID = n.clusterID
	c.Start = n.identity.Start
	c.Listener, c.Advertise = n.listener, n.config.Advertise
	c.Logger = n.log
	tls, err := loadTLS(n.config)
	if err != nil {
		return err
	}
	c.TLS = tls
	if n.links, err = link.New(n.system, c); err != nil {
		return err
	}
	n.onStop(n.links.Stop)
	return nil
}

// clusterID is empty before the node is in a cluster.
func (n *Node) clusterID() []byte {
	if doc := n.document.Load(); doc != nil {
		return doc.ClusterID[:]
	}
	return nil
}

func (n *Node) startActors(Options) error {
	f, err := n.founding()
	if err != nil {
		return err
	}
	n.actors = actors.NewNode(actors.Config{
		Self: dynamo.NodeID(n.config.Name), System: n.system, Engine: n.engine, Log: n.log,
		Now:       func() dynamo.Timestamp { return dynamo.Timestamp(time.Now().UnixNano()) },
		Reachable: n.reachable, MaxValue: n.config.MaxValue, MaxRequests: n.config.MaxRequests, Timeout: n.config.Timeout,
		DigestAbove: digestAbove, ReaderCount: readers, OnDocument: n.onDocument, Founding: f,
	})
	n.onStop(n.actors.Stop)
	if err := n.actors.Start(); err != nil {
		return err
	}
	// Named actors exist before anybody can address them.
	return n.links.Start()
}

// founding tells the membership actor how to come into a cluster.
func (n *Node) founding() (actors.Founding, error) {
	doc, found, err := readDocument(n.engine)
	if err != nil {
		return actors.Founding{}, err
	}
	intent, durable, err := n.readIntent()
	if err != nil {
		return actors.Founding{}, err
	}
	n.discovery = n.newDiscovery()
	f := actors.Founding{
		Config: founding.Config{
			Self: founding.Candidate{
				ID: dynamo.NodeID(n.config.Name), Store: n.identity.StoreID(), Start: n.identity.Start, Zone: n.config.Zone,
				Capacity: n.config.Capacity, Address: n.config.Advertise, Founding: n.config.Found, Partitions: n.config.Partitions,
			},
			Expect: n.expect(), Elect: n.discovery.Elects(), Intent: intent, IntentDurable: durable,
		},
		ClusterName: n.config.Cluster, Buckets: n.config.Buckets, Peers: n.peers, Addresses: n.addresses,
		StoreDocument: n.storeDocument, StoreIntent: n.storeIntent, Elect: n.elect,
	}
	if found {
		f.Document = &doc
	}
	return f, nil
}

// expect is how many nodes found the cluster together.
func (n *Node) expect() int {
	switch {
	case n.config.Expect > 0:
		return n.config.Expect
	case n.config.Consul != "":
		return 3
	}
	others := map[string]bool{}
	for _, s := range n.config.Seeds {
		if s != n.config.Listen && s != n.config.Advertise {
			others[s] = true
		}
	}
	return 1 + len(others)
}

var intentKey = vnode.NodeKey("intent")

// readIntent returns the cluster id that this node meant to found, or a fresh
// one.
func (n *Node) readIntent() (id founding.ClusterID, durable bool, err error) {
	b, err := readFact(n.engine, intentKey)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		rand.Read(id[:]) // never fails: crypto/rand ends the process instead
		return id, false, nil
	case err != nil:
		return id, false, err
	case len(b) != len(id):
		return id, false, fmt.Errorf("%w: intent of %d bytes", ErrDamaged, len(b))
	}
	copy(id[:], b)
	return id, true, nil
}

func (n *Node) storeIntent(id founding.ClusterID, done func(error)) { n.store(intentKey, id[:], done) }

func (n *Node) storeDocument(doc member.Document, done func(error)) {
	raw, err := encodeDocument(doc)
	if err != nil {
		done(err)
		return
	}
	n.store(documentKey, raw, done)
}

// store makes a fact durable without waiting.
func (n *Node) store(key, value []byte, done func(error)) {
	b := n.engine.NewBatch()
	b.Set(key, factBytes(value))
	if err := b.Commit(storage.Synced, done); err != nil {
		done(err)
	}
}

func (n *Node) elect(id founding.ClusterID, done func(bool, dynamo.NodeID, error)) {
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), electTimeout)
		defer cancel()
		done(n.discovery.Elect(ctx, id))
	})
}

// electTimeout bounds one question to the registry.
const electTimeout = 5 * time.Second

// onDocument puts a cluster document into force at the links.
func (n *Node) onDocument(doc member.Document) {
	n.document.Store(&doc)
	n.links.ClusterChanged()
	for _, m := range doc.Members {
		if string(m.ID) == n.config.Name || m.Address == "" {
			continue
		}
		if err := n.links.SetPeer(string(m.ID), m.Address); err != nil {
			n.log.Error("member's address", slog.String("member", string(m.ID)), slog.Any("error", err))
		}
	}
}

// peers are the nodes that are connected.
func (n *Node) peers() []dynamo.NodeID {
	var out []dynamo.NodeID
	for _, p := range n.links.Peers() {
		if p.ID != "" && p.Role == messages.RoleNode && p.Up() {
			out = append(out, dynamo.NodeID(p.ID))
		}
	}
	return out
}

func (n *Node) reachable(id dynamo.NodeID) bool {
	if string(id) == n.config.Name {
		return true
	}
	p, ok := n.links.Peer(string(id))
	return ok && p.Up()
}

// addresses tells clients where members are.
func (n *Node) addresses() []*messages.Address {
	doc := n.document.Load()
	if doc == nil {
		return nil
	}
	var out []*messages.Address
	for _, m := range doc.Members {
		a := &messages.Address{Node: string(m.ID), Address: m.Address, Reachable: n.reachable(m.ID)}
		if string(m.ID) == n.config.Name {
			a.Address = n.config.Advertise
		} else if p, ok := n.links.Peer(string(m.ID)); ok && p.Address != "" {
			a.Address = p.Address
		}
		out = append(out, a)
	}
	return out
}

func (n *Node) startHTTP(Options) error {
	if n.config.HTTP == "" {
		return nil
	}
	l, err := net.Listen("tcp", n.config.HTTP)
	if err != nil {
		return fmt.Errorf("listen on %s for http: %w (choose another with --http)", n.config.HTTP, err)
	}
	n.httpAddr = l.Addr().String()
	n.http = n.serveHTTP(l)
	n.onStop(n.http.Shutdown)
	return nil
}

// newDiscovery picks Consul or the list.
func (n *Node) newDiscovery() Discovery {
	if n.config.Consul != "" {
		return newConsul(n.config, n.identity, n.log)
	}
	return static{addresses: n.config.Seeds}
}

// startDiscovery looks for the others until the node stops.
func (n *Node) startDiscovery(Options) error {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	done := make(chan error, 1)
	go func() { done <- n.discovery.Run(ctx, n.connect) }()
	n.onStop(func(stop context.Context) error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-stop.Done():
			return fmt.Errorf("leaving the registry: %w", stop.Err())
		}
	})
	return nil
}

// connect dials seeds; those of this node itself are refused by the link.
func (n *Node) connect(addresses []string) {
	for _, a := range addresses {
		if a == n.config.Advertise {
			continue
		}
		if err := n.links.Connect(a); err != nil {
			n.log.Warn("seed", slog.String("address", a), slog.Any("error", err))
		}
	}
}

// WaitReady returns once the node serves, or with the reason why it does not
// when ctx ends.
func (n *Node) WaitReady(ctx context.Context) error { return n.actors.WaitReady(ctx) }

// Addr is the address that others reach the node under.
func (n *Node) Addr() string { return n.config.Advertise }

// HTTPAddr is where health is served; empty if nowhere.
func (n *Node) HTTPAddr() string { return n.httpAddr }

// Document is the cluster document in force, nil before there is one.
func (n *Node) Document() *member.Document { return n.document.Load() }

// Health is what the node says of itself.
func (n *Node) Health() actors.Health { return n.actors.Health() }

// Counters are what the node has done since it started.
func (n *Node) Counters() *actors.Counters { return n.actors.Counters() }

// Stop ends the node in order: the registry forgets it, what is in flight
// finishes, vnodes mark their clean stop, links close, the store closes. ctx
// bounds it all; what did not finish in time is in the error.
func (n *Node) Stop(ctx context.Context) error {
	var err error
	n.stop.Do(func() {
		for i := len(n.undo) - 1; i >= 0; i-- {
			err = errors.Join(err, n.undo[i](ctx))
		}
		n.wg.Wait()
	})
	return err
}

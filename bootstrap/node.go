package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/bootstrap/page"
	"github.com/dynactor/dynactor/bootstrap/telemetry"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/cached"
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
	events    *Log         // what log ends in
	registry  *rt.Registry // of all actors, those of links too
	failures  *rt.Failures // what went wrong lately
	lines     *rt.Lines    // what was logged lately
	spans     actors.Spans // nil: requests are not traced
	engine    storage.Engine
	identity  Identity
	system    *actor.ActorSystem
	links     *link.Links
	actors    *actors.Node
	discovery Discovery
	listener  net.Listener
	http      *http.Server
	page      *page.Page
	metrics   *telemetry.Metrics
	httpAddr  string
	document  atomic.Pointer[member.Document]
	fatal     chan error
	linked    *linkGate
	// life ends when the node stops, by cancel.
	life   context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// connected are the seeds that are dialled.
	connected map[string]bool
	// undo are the steps that take back what Start did, in the order done.
	undo []func(context.Context) error
	stop sync.Once
}

// Options replace parts of a node, for tests and for embedding. The node owns
// what it is given: it closes engine and listener when it stops, and when it
// does not start.
type Options struct {
	// Engine is the store; nil opens Pebble in the data directory.
	Engine storage.Engine
	// Listener takes the place of listening on Config.Listen.
	Listener net.Listener
	// Version is that of the program; empty is unknown.
	Version string
	// LogTo is where the log goes; nil is standard error.
	LogTo io.Writer
	// Now is the wall clock; nil is the machine's.
	Now func() time.Time
	// MessageLife is how old a record in a message may be; 0 is the default. All nodes of a
	// cluster must have the same.
	MessageLife time.Duration
}

// Start starts a node; it runs when Start returns, and WaitReady tells when it
// serves. On an error everything is taken back.
func Start(c Config, o Options) (*Node, error) {
	if err := c.Validate(); err != nil {
		return nil, errors.Join(err, o.close())
	}
	if o.LogTo == nil {
		o.LogTo = os.Stderr
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	events, err := NewLogger(o.LogTo, c.LogLevel, c.LogFormat)
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	n := &Node{
		config: c, events: events, registry: rt.NewRegistry(), failures: &rt.Failures{}, lines: &rt.Lines{}, fatal: make(chan error, 1), linked: newLinkGate(), connected: map[string]bool{},
	}
	n.log = slog.New(n.failures.Handler(n.lines.Handler(events.With(slog.String("node", c.Name)).Handler())))
	n.onStop(func(context.Context) error { events.Close(); return nil })
	n.life, n.cancel = context.WithCancel(context.Background())
	for _, step := range []func(Options) error{n.own, n.listen, n.openStore, n.startLinks, n.startTraces, n.startActors, n.startMetrics, n.startHTTP, n.startDiscovery} {
		if err := step(o); err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), StopTimeout)
			defer cancel()
			return nil, errors.Join(err, n.Stop(ctx))
		}
	}
	return n, nil
}

// close frees what a node that does not start was given.
func (o Options) close() error {
	var err error
	if o.Engine != nil {
		err = o.Engine.Close()
	}
	if o.Listener != nil {
		err = errors.Join(err, o.Listener.Close())
	}
	return err
}

// onStop adds a step to take back.
func (n *Node) onStop(undo func(context.Context) error) { n.undo = append(n.undo, undo) }

// own takes over the listener that was given; it may never be used.
func (n *Node) own(o Options) error {
	if o.Listener != nil {
		n.listener = o.Listener
		n.onStop(n.closeListener)
	}
	return nil
}

// closeListener closes the listener unless the links have.
func (n *Node) closeListener(context.Context) error {
	if err := n.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// openStore opens and locks the data directory and checks whose it is.
func (n *Node) openStore(o Options) error {
	cache := int64(n.config.CacheMB) << 20
	e := o.Engine
	if e == nil {
		if err := os.MkdirAll(n.config.DataDir, 0o700); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		options := pebbledb.Default()
		options.CacheBytes = cache / 2
		options.Logger = n.log
		options.OnFatal = n.fail
		var err error
		if e, err = n.openDisk(options); err != nil {
			return err
		}
	}
	n.engine = cached.New(e, cache/2)
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

func (n *Node) listen(Options) error {
	if n.listener == nil {
		l, err := net.Listen("tcp", n.config.Listen)
		if err != nil {
			return fmt.Errorf("listen on %s: %w (is another node running there? choose another with --listen)", n.config.Listen, err)
		}
		n.listener = l
		n.onStop(n.closeListener)
	}
	if n.config.Advertise == "" {
		n.config.Advertise = n.listener.Addr().String()
	}
	return nil
}

func (n *Node) startLinks(Options) error {
	n.system = rt.NewSystem(n.config.Name, n.log)
	n.onStop(func(context.Context) error { n.system.Shutdown(); return nil })
	c := link.Default()
	c.NodeID, c.ClusterName = n.config.Name, n.config.Cluster
	c.ClusterID = n.clusterID
	store := n.identity.StoreID()
	c.Start, c.Store, c.Admit = n.identity.Start, store[:], n.admit
	c.Listener, c.Advertise = n.listener, n.config.Advertise
	c.Logger, c.Registry = n.log, n.registry
	c.Observer.Up, c.Observer.Down, c.Observer.Refused = n.peerUp, n.peerDown, n.refused
	// A link that is refused may be up for a moment; nobody answers on it.
	c.Observer.Heard = func(peer string, _ time.Duration) { n.actors.Welcomed(dynamo.NodeID(peer)) }
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

// peerUp is called by the links.
func (n *Node) peerUp(p link.Peer) {
	if p.Role == messages.RoleNode && !p.FoundingOnly {
		n.linked.set(dynamo.NodeID(p.ID), true)
		n.actors.PeerUp(dynamo.NodeID(p.ID))
	}
}

// peerDown is called by the links. They carry nothing before the actors are
// there.
func (n *Node) peerDown(p link.Peer, why error) {
	if r := new(link.Refusal); errors.As(why, &r) {
		n.refused(*r)
	}
	if p.Role == messages.RoleNode {
		n.linked.set(dynamo.NodeID(p.ID), false)
		n.actors.PeerDown(dynamo.NodeID(p.ID))
	}
}

// refused is called by the links: a member may know better whose name this is.
func (n *Node) refused(r link.Refusal) {
	doc := n.document.Load()
	if r.Ours || doc == nil || r.Peer == n.config.Name {
		return
	}
	// One that is no member here is believed, too, if this history was given up by force.
	if !member.Overrules(r.Document, doc.Version) && !slices.Contains(doc.Voters(), dynamo.NodeID(r.Peer)) {
		return
	}
	switch r.Code {
	case link.RefusedMember, link.RefusedStart, link.RefusedDuplicate:
		n.actors.Refused(dynamo.NodeID(r.Peer), r.Text)
	}
}

// clusterID is empty before the node is in a cluster.
func (n *Node) clusterID() []byte {
	if doc := n.document.Load(); doc != nil {
		return doc.ClusterID[:]
	}
	return nil
}

// admit refuses those that were members once, and stores that are not the member's:
// a disk that was lost and found again, or a copy of another one (H49).
func (n *Node) admit(h link.Hello) (version uint64, err error) {
	doc := n.document.Load()
	if doc == nil {
		return 0, nil
	}
	return doc.Version, belongs(doc, h)
}

func belongs(doc *member.Document, h link.Hello) error {
	m, known := doc.Member(dynamo.NodeID(h.NodeID))
	switch {
	case !known:
	case m.Out():
		return fmt.Errorf("%s is no member of %s any more; empty its data directory to let it join as a new node", h.NodeID, doc.ClusterName)
	case !bytes.Equal(h.Store, m.Store[:]):
		return fmt.Errorf("%s shows the store %x, the member has %v: another disk has taken its place, or this is a copy; empty its data directory",
			h.NodeID, h.Store, m.Store)
	case h.Start < m.Start:
		return fmt.Errorf("%s shows its start %d, it became a member with start %d: its data directory was rolled back; empty it",
			h.NodeID, h.Start, m.Start)
	}
	return nil
}

func (n *Node) startActors(o Options) error {
	f, err := n.founding()
	if err != nil {
		return err
	}
	n.actors = actors.NewNode(actors.Config{
		Self: dynamo.NodeID(n.config.Name), System: n.system, Engine: n.engine, Log: n.log, Registry: n.registry, Failures: n.failures, Spans: n.spans, Lines: n.lines, LogLevel: n.events.Level, MayControl: n.mayControl(),
		Now:       func() dynamo.Timestamp { return dynamo.Timestamp(o.Now().UnixNano()) },
		HintBytes: int64(n.config.HintsMB) << 20, MaxValue: n.config.MaxValue, MaxRequests: n.config.MaxRequests, Timeout: n.config.Timeout,
		ExchangeInterval: n.config.AAEInterval, BackgroundFloor: float64(n.config.BackgroundFloor) / 100, Reap: n.config.Reap == "on", MessageLife: o.MessageLife,
		DigestAbove: digestAbove, ReaderCount: readers, OnDocument: n.onDocument, Founding: f,
	})
	n.onStop(n.actors.Stop)
	if err := n.actors.Start(); err != nil {
		return err
	}
	// Named actors exist before anybody can address them.
	return n.links.Start()
}

// onDocument puts a cluster document into force at the links.
func (n *Node) onDocument(doc member.Document) {
	before := n.document.Swap(&doc)
	if before == nil {
		for _, w := range n.config.ignored(doc) {
			n.log.Warn(w)
		}
		n.discovery.Confirm(founding.ClusterID(doc.ClusterID), doc.Members[0].ID)
		n.links.ClusterChanged()
	}
	var others []dynamo.NodeID
	for _, m := range doc.Members {
		if string(m.ID) == n.config.Name || m.Address == "" {
			continue
		}
		was, known := member.Member{}, false
		if before != nil {
			was, known = before.Member(m.ID)
		}
		switch {
		case m.Out() && (!known || !was.Out()):
			n.links.Remove(string(m.ID))
		case m.Out():
		default:
			others = append(others, m.ID)
			replaced := known && was.Store != m.Store
			if replaced { // the process that had its name, and the number of its start
				n.links.Remove(string(m.ID))
			}
			if !known || replaced || was.Address != m.Address || was.Out() { // gossip may know better by now
				n.moved(m.ID, m.Address)
			}
		}
	}
	n.linked.await(others, linkWait, func(lacking string) {
		n.log.Warn("ready without links to all members", slog.String("lacking", lacking))
	})
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
	return ok && p.Up() && !p.FoundingOnly
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

// newDiscovery picks Consul or the list.
func (n *Node) newDiscovery() (Discovery, error) {
	if n.config.Consul != "" {
		return newConsul(n.config, n.identity, n.log)
	}
	return static{addresses: n.config.Seeds}, nil
}

// startDiscovery looks for the others until the node stops.
func (n *Node) startDiscovery(Options) error {
	done := make(chan error, 1)
	go func() { done <- n.discovery.Run(n.life, n.connect) }()
	n.onStop(func(stop context.Context) error {
		n.cancel()
		select {
		case err := <-done:
			return err
		case <-stop.Done():
			return fmt.Errorf("leaving the registry: %w", stop.Err())
		}
	})
	return nil
}

// connect dials seeds, and gives those up that are no longer among them; links
// to nodes that were found there stay. The node's own address, if it is there
// under another name, is refused by the link. Discovery's goroutine calls it.
func (n *Node) connect(addresses []string) {
	now := make(map[string]bool, len(addresses))
	for _, a := range addresses {
		if a == n.config.Advertise {
			continue
		}
		now[a] = true
		if n.connected[a] {
			continue
		}
		if err := n.links.Connect(a); err != nil {
			n.log.Warn("seed", slog.String("address", a), slog.Any("error", err))
		}
	}
	for a := range n.connected {
		if !now[a] {
			n.links.Disconnect(a)
		}
	}
	n.connected = now
}

// Connected are the nodes that this one can send requests to right now.
func (n *Node) Connected() []dynamo.NodeID {
	var out []dynamo.NodeID
	for _, p := range n.links.Peers() {
		if p.ID != "" && p.Role == messages.RoleNode && p.Up() && !p.FoundingOnly {
			out = append(out, dynamo.NodeID(p.ID))
		}
	}
	return out
}

// Addr is the address that others reach the node under.
func (n *Node) Addr() string { return n.config.Advertise }

// HTTPAddr is where health is served; empty if nowhere.
func (n *Node) HTTPAddr() string { return n.httpAddr }

// Document is the cluster document in force, nil before there is one.
func (n *Node) Document() *member.Document { return n.document.Load() }

// Counters are what the node has done since it started.
func (n *Node) Counters() *actors.Counters { return n.actors.Counters() }

// Stop ends the node in order: the registry forgets it, what is in flight
// finishes, vnodes mark their clean stop, links close, the store closes. ctx
// bounds it all; what did not finish in time is in the error.
func (n *Node) Stop(ctx context.Context) error {
	var err error
	n.stop.Do(func() {
		n.cancel()
		n.linked.stop()
		for i := len(n.undo) - 1; i >= 0; i-- {
			err = errors.Join(err, n.undo[i](ctx))
		}
		n.wg.Wait()
	})
	return err
}

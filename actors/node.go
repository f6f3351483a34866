package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/reap"
)

// Node is the actor tree of one node. Start it once; Stop it once.
type Node struct {
	services *Services
	root     *actor.PID
	coord    *actor.PID
	// unwatch ends the watch for actors that fail; nil before Start.
	unwatch func()
}

// nodeActor starts the others in order; stopping it stops them in reverse.
type nodeActor struct {
	s     *Services
	ready chan<- error
}

// NewNode makes a node that does nothing yet.
func NewNode(c Config) *Node {
	c.MessageLife = cmp.Or(c.MessageLife, reap.MessageLife)
	if c.Clock == nil {
		c.Clock = rt.Clock
	}
	if c.Registry == nil {
		c.Registry = rt.NewRegistry()
	}
	if c.Failures == nil {
		c.Failures = &rt.Failures{}
		c.Log = slog.New(c.Failures.Handler(c.Log.Handler()))
	}
	if c.Lines == nil {
		c.Lines = &rt.Lines{}
		c.Log = slog.New(c.Lines.Handler(c.Log.Handler()))
	}
	s := &Services{
		Config: c, Counters: &Counters{}, requests: &requestTable{}, run: rand.Uint64(), losses: newLossTable(), slow: newSlowRequests(time.Now()),
		Wheel: rt.NewWheel(c.System, 0), Readers: rt.NewWorkers(c.ReaderCount, readerQueue, func(reason any) { c.Log.Error("a read of the store panicked", "reason", reason) }),
	}
	s.maxRequests.Store(int64(c.MaxRequests))
	s.hintBytes.Store(c.HintBytes)
	if c.unmeasured {
		s.requests = nil
	}
	return &Node{services: s}
}

// readerQueue is how many reads may wait for a reader before vnodes shed.
const readerQueue = 4096

// Start spawns the actors. They are there when it returns; Ready tells when
// they serve.
func (n *Node) Start() error {
	if err := n.services.countHints(); err != nil {
		return fmt.Errorf("counting what is kept for other nodes: %w", err)
	}
	n.unwatch = n.services.Failures.Watch(n.services.System)
	ready := make(chan error, 1)
	props := actor.PropsFromProducer(func() actor.Actor { return &nodeActor{s: n.services, ready: ready} },
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: n.services.Registry})),
		actor.WithSupervisor(rt.RestartWithBackoff(10*time.Millisecond, time.Second)))
	root, err := n.services.System.Root.SpawnNamed(props, nameNode)
	if err != nil {
		return fmt.Errorf("spawn %s: %w", nameNode, err)
	}
	n.root = root
	n.coord = actor.NewPID(string(n.services.Self), nameCoordinator)
	return <-ready
}

// Receive spawns the children when the node starts.
func (n *nodeActor) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); !ok {
		return
	}
	var err error
	for _, child := range []struct {
		name  string
		props *actor.Props
	}{
		{nameVnodes, newVnodes(n.s)},
		{nameCoordinator, newCoordinator(n.s)},
		{nameDetector, newDetector(n.s)},
		{nameMembership, newMembership(n.s)},
		{nameAdmission, newAdmission(n.s)},
		{nameTransfers, newTransfers(n.s)},
		{nameExchanges, newExchanges(n.s)},
		{nameReaps, newReaps(n.s)},
		{nameConsole, newConsole(n.s)},
	} {
		if _, spawnErr := ctx.SpawnNamed(child.props, child.name); spawnErr != nil {
			err = errors.Join(err, fmt.Errorf("spawn %s: %w", child.name, spawnErr))
		}
	}
	select {
	case n.ready <- err:
	default: // a restart; nobody waits any more
	}
}

// Health is what a node says of itself.
type Health struct {
	// Ready: it is in a cluster and every partition of it serves. A running node
	// waits for its links too; see bootstrap.
	Ready bool `json:"ready"`
	// Reason says what is missing when it is not ready.
	Reason string `json:"reason,omitempty"`
	// Serving of Partitions vnodes read and write.
	Serving    int `json:"serving"`
	Partitions int `json:"partitions"`
	// Hints is what is kept for other nodes.
	Hints HintCount `json:"hints"`
	// Damage is what could not be read of the store.
	Damage Damage `json:"damage"`
	// Lost is what no replica of the cluster has any more, nil if nothing.
	Lost *Lost `json:"lost,omitempty"`
}

// Health tells how the node is right now.
func (n *Node) Health() Health {
	h, _ := n.services.health()
	return h
}

// Reachable is the node's opinion of another one (§ 4.8.3).
func (n *Node) Reachable(other dynamo.NodeID) bool { return n.services.reachable(other) }

func (s *Services) health() (Health, <-chan struct{}) {
	up, all, problem, changed := s.vnodes.serving()
	h := Health{Serving: up, Partitions: all, Hints: s.hints.count()}
	doc := s.Document()
	h.Damage, h.Lost = s.damage(doc), lost(doc)
	if doc != nil {
		// Vnodes that are still to be started have no row.
		h.Partitions = max(all, len(doc.Vnodes(s.Self)))
		h.Ready = up == h.Partitions
	}
	why := s.quarantined()
	switch {
	case why != "":
		h.Ready, h.Reason = false, why
	case doc == nil:
		h.Reason = "not in a cluster yet"
		if note := s.foundingNote.Load(); note != nil && *note != "" {
			h.Reason += ": " + *note
		}
	case !h.Ready:
		h.Reason = fmt.Sprintf("%d of %d partitions serve", up, h.Partitions)
		if problem != "" {
			h.Reason += ": " + problem
		}
	}
	return h, changed
}

// WaitReady returns once the node is ready, or with the reason why it is not
// when ctx ends.
func (n *Node) WaitReady(ctx context.Context) error {
	for {
		h, changed := n.services.health()
		if h.Ready {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(refusedFor / 10): // a quarantine ends by time
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", ctx.Err(), h.Reason)
		}
	}
}

// PeerUp tells the failure detector that the link to a node came up. It never
// blocks.
func (n *Node) PeerUp(id dynamo.NodeID) {
	n.services.System.Root.Send(actor.NewPID(string(n.services.Self), nameDetector), &linkChanged{node: id, up: true})
}

// Refused notes that a node does not take this process for the member of its name:
// it must not serve then. It never blocks.
func (n *Node) Refused(by dynamo.NodeID, why string) { n.services.refusedBy(by, why) }

// Welcomed notes that a node takes this process. It never blocks.
func (n *Node) Welcomed(by dynamo.NodeID) { n.services.welcomed(by) }

// PeerDown tells the requests under way that the link to a node broke: answers
// to what they sent there will not come. It never blocks.
func (n *Node) PeerDown(id dynamo.NodeID) {
	n.services.System.Root.Send(actor.NewPID(string(n.services.Self), nameDetector), &linkChanged{node: id})
	n.services.System.Root.Send(n.coord, &peerDown{node: id, at: time.Now()})
}

// Counters are what the node has done since it started.
func (n *Node) Counters() *Counters { return n.services.Counters }

// Registry lists the node's mailboxes.
func (n *Node) Registry() *rt.Registry { return n.services.Registry }

// Stop ends the node in order: no more requests are taken, those in flight
// finish, every vnode marks its clean stop, then the actors end. When ctx ends
// first the rest is cut short, which costs new epochs at the next start and
// loses nothing; the error says what did not finish.
func (n *Node) Stop(ctx context.Context) error {
	var err error
	if n.root != nil {
		err = errors.Join(n.finishRequests(ctx), n.drain(ctx))
		f := n.services.System.Root.StopFuture(n.root)
		done := make(chan error, 1)
		go func() { done <- f.Wait() }()
		select {
		case stopErr := <-done:
			err = errors.Join(err, stopErr)
		case <-ctx.Done():
			err = errors.Join(err, fmt.Errorf("stopping the actors: %w", ctx.Err()))
		}
	}
	if n.unwatch != nil {
		n.unwatch()
	}
	n.services.Readers.Stop()
	n.services.Wheel.Stop()
	return err
}

func (n *Node) finishRequests(ctx context.Context) error {
	done := make(chan struct{})
	var once sync.Once
	n.services.System.Root.Send(n.coord, &finishRequests{done: func() { once.Do(func() { close(done) }) }})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("requests in flight: %w", ctx.Err())
	}
}

func (n *Node) drain(ctx context.Context) error {
	type result struct {
		p   dynamo.Partition
		err error
	}
	left, changed := n.services.vnodes.drain()
	results := make(chan result, len(left))
	for p := range left {
		pid := actor.NewPID(string(n.services.Self), vnodeName(p))
		n.services.System.Root.Send(pid, &drain{done: func(err error) { results <- result{p, err} }})
	}
	var all error
	for len(left) > 0 {
		select {
		case r := <-results:
			delete(left, r.p)
			all = errors.Join(all, r.err)
		case <-changed: // a vnode that has stopped for good may not answer
			var live map[dynamo.Partition]bool
			live, changed = n.services.vnodes.live()
			maps.DeleteFunc(left, func(p dynamo.Partition, _ bool) bool { return !live[p] })
		case <-ctx.Done():
			return errors.Join(all, fmt.Errorf("draining %d vnodes: %w", len(left), ctx.Err()))
		}
	}
	return all
}

// drain lists the vnodes whose actors live, as the last ones: one that an operator kills now
// is not started again, and nobody waits for it.
func (t *vnodeTable) drain() (map[dynamo.Partition]bool, <-chan struct{}) {
	t.mu.Lock()
	t.draining = true
	t.mu.Unlock()
	return t.live()
}

// live lists the vnodes whose actors live; the channel is closed at the next
// change.
func (t *vnodeTable) live() (map[dynamo.Partition]bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	out := map[dynamo.Partition]bool{}
	for p, row := range t.rows {
		if !row.stopped {
			out[p] = true
		}
	}
	return out, t.changed
}

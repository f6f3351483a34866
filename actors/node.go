package actors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
)

// Node is the actor tree of one node. Start it once; Stop it once.
type Node struct {
	services *Services
	root     *actor.PID
	coord    *actor.PID
}

// nodeActor starts the others in order; stopping it stops them in reverse.
type nodeActor struct {
	s     *Services
	ready chan<- error
}

// NewNode makes a node that does nothing yet.
func NewNode(c Config) *Node {
	s := &Services{
		Config: c, Counters: &Counters{}, Registry: rt.NewRegistry(),
		Wheel: rt.NewWheel(c.System, 0), Readers: rt.NewWorkers(c.ReaderCount, readerQueue, func(reason any) { c.Log.Error("a read of the store panicked", "reason", reason) }),
	}
	return &Node{services: s}
}

// readerQueue is how many reads may wait for a reader before vnodes shed.
const readerQueue = 4096

// Start spawns the actors. They are there when it returns; Ready tells when
// they serve.
func (n *Node) Start() error {
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
		{nameMembership, newMembership(n.s)},
	} {
		if _, spawnErr := ctx.SpawnNamed(child.props, child.name); spawnErr != nil {
			err = errors.Join(err, fmt.Errorf("spawn %s: %w", child.name, spawnErr))
		}
	}
	n.ready <- err
}

// Health is what a node says of itself.
type Health struct {
	// Ready: it is in a cluster and every partition of it serves.
	Ready bool `json:"ready"`
	// Reason says what is missing when it is not ready.
	Reason string `json:"reason,omitempty"`
	// Serving of Partitions vnodes read and write.
	Serving    int `json:"serving"`
	Partitions int `json:"partitions"`
}

// Health tells how the node is right now.
func (n *Node) Health() Health {
	h, _ := n.services.health()
	return h
}

func (s *Services) health() (Health, <-chan struct{}) {
	up, all, problem, changed := s.vnodes.serving()
	h := Health{Serving: up, Partitions: all, Ready: up == all && all > 0}
	switch {
	case s.Document() == nil:
		h.Ready, h.Reason = false, "not in a cluster yet"
		if note := s.foundingNote.Load(); note != nil && *note != "" {
			h.Reason += ": " + *note
		}
	case !h.Ready:
		h.Reason = fmt.Sprintf("%d of %d partitions serve: %s", up, all, problem)
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
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", ctx.Err(), h.Reason)
		}
	}
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
	err := errors.Join(n.finishRequests(ctx), n.drain(ctx))
	if n.root != nil {
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
	partitions := n.services.vnodes.partitions()
	results := make(chan error, len(partitions))
	for _, p := range partitions {
		n.services.System.Root.Send(actor.NewPID(string(n.services.Self), vnodeName(p)), &drain{done: func(err error) { results <- err }})
	}
	var all error
	for range partitions {
		select {
		case err := <-results:
			all = errors.Join(all, err)
		case <-ctx.Done():
			return errors.Join(all, fmt.Errorf("draining vnodes: %w", ctx.Err()))
		}
	}
	return all
}

// partitions lists the vnodes whose actors live.
func (t *vnodeTable) partitions() []dynamo.Partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []dynamo.Partition
	for p, row := range t.rows {
		if !row.stopped {
			out = append(out, p)
		}
	}
	return out
}

package actors

import (
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// A vnode that panics restarts from storage; one that does so more often than
// vnodeRestarts in a minute is given up and its partition reported as failed.
const vnodeRestarts = 10

// vnodesActor starts a vnode for each partition that the cluster document
// gives this node, and restarts those that fail.
type vnodesActor struct {
	s *Services
}

// document tells an actor of a cluster document that came into force.
type document struct{ doc member.Document }

// RuntimeControl lets the document overtake requests planned with it.
func (*document) RuntimeControl() {}

func newVnodes(s *Services) *actor.Props {
	strategy := rt.RestartWithLimit(vnodeRestarts, time.Minute, func(child *actor.PID, reason any) {
		s.Log.Error("vnode failed too often and stays down", slog.String("actor", child.Id), slog.Any("reason", reason))
	})
	return actor.PropsFromProducer(func() actor.Actor { return &vnodesActor{s: s} }, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: s.Registry})),
		actor.WithSupervisor(strategy))
}

// Receive starts vnodes.
func (v *vnodesActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *document:
		v.start(ctx, m.doc)
	case *actor.Terminated:
		v.s.vnodes.gone(m.GetWho().GetId())
	}
}

func (v *vnodesActor) start(ctx actor.Context, doc member.Document) {
	for _, p := range doc.Settled.PartitionsOf(v.s.Self, doc.Settled.Depth()) {
		if !v.s.vnodes.add(p) {
			continue
		}
		if _, err := ctx.SpawnNamed(newVnode(v.s, p), vnodeName(p)); err != nil {
			v.s.Log.Error("vnode does not start", slog.Uint64("partition", uint64(p)), slog.Any("error", err))
			v.s.vnodeDown(p, "start", err)
		}
	}
}

// VnodeStatus is what the node knows of one of its partitions.
type VnodeStatus struct {
	Partition dynamo.Partition
	// Serving: it reads and writes. Otherwise Problem says why not.
	Serving bool
	Problem string
	// stopped: its actor is gone.
	stopped bool
}

// vnodeTable lists this node's vnodes for health and the coordinator.
type vnodeTable struct {
	mu   sync.Mutex
	rows map[dynamo.Partition]VnodeStatus
	// changed is closed and replaced whenever a row changes.
	changed chan struct{}
}

// add makes a row for a vnode that starts; false if there is one.
func (t *vnodeTable) add(p dynamo.Partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.rows[p]; ok {
		return false
	}
	t.put(VnodeStatus{Partition: p, Problem: "opening"})
	return true
}

func (t *vnodeTable) set(row VnodeStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(row)
}

func (t *vnodeTable) put(row VnodeStatus) {
	if t.rows == nil {
		t.rows = make(map[dynamo.Partition]VnodeStatus)
	}
	t.rows[row.Partition] = row
	if t.changed != nil {
		close(t.changed)
	}
	t.changed = make(chan struct{})
}

// gone notes that a vnode's actor has stopped for good.
func (t *vnodeTable) gone(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, row := range t.rows {
		if vnodeName(p) == name {
			row.Serving, row.stopped, row.Problem = false, true, "stopped: "+row.Problem
			t.put(row)
		}
	}
}

// serving returns how many of the rows serve, a problem of one that does not,
// and a channel that is closed at the next change.
func (t *vnodeTable) serving() (up, all int, problem string, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	for _, row := range t.rows {
		if row.Serving {
			up++
		} else {
			problem = row.Problem
		}
	}
	return up, len(t.rows), problem, t.changed
}

// has reports whether this node has a vnode for the partition that serves.
func (t *vnodeTable) has(p dynamo.Partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rows[p].Serving
}

func (s *Services) vnodeUp(p dynamo.Partition) {
	s.vnodes.set(VnodeStatus{Partition: p, Serving: true})
}

// vnodeDown records that a vnode cannot serve and why.
func (s *Services) vnodeDown(p dynamo.Partition, doing string, err error) {
	s.vnodes.set(VnodeStatus{Partition: p, Problem: doing + ": " + err.Error()})
	s.Log.Error("vnode stopped serving", slog.Uint64("partition", uint64(p)), slog.String("doing", doing), slog.Any("error", err))
}

// commitFailed tells a vnode that a batch it applied did not become durable.
type commitFailed struct{ err error }

// RuntimeControl lets the news overtake further writes.
func (*commitFailed) RuntimeControl() {}

// committed answers those who waited for a turn's writes to be on the disk. It
// runs on the engine's goroutine.
func (s *Services) committed(vnodePID *actor.PID, p dynamo.Partition, waiting []answer, err error) {
	if err == nil {
		for _, a := range waiting {
			s.answer(a.to, vnodePID, a.message)
		}
		return
	}
	failure := messages.Fail(messages.CodeStorage, "partition %d on %s: commit: %v", p, s.Self, err)
	for _, a := range waiting {
		s.answer(a.to, vnodePID, failure)
	}
	s.System.Root.Send(vnodePID, &commitFailed{err: err})
}

package actors

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
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
	// stopping: a child spawned now would be told by nobody to stop.
	stopping bool
	// again are the vnodes that stop because an operator has killed them, as those are to look
	// that come after them.
	again map[string]*rt.Stats
}

// document tells an actor of a cluster document that came into force.
type document struct{ doc member.Document }

// RuntimeControl lets the document overtake requests planned with it.
func (*document) RuntimeControl() {}

func newVnodes(s *Services) *actor.Props {
	strategy := rt.RestartWithLimit(vnodeRestarts, time.Minute, func(child *actor.PID, reason any) {
		s.Log.Error("vnode failed too often and stays down", slog.String("actor", child.Id), slog.Any("reason", reason))
		s.vnodes.gone(child.Id, fmt.Sprintf("failed more than %d times in a minute: %v", vnodeRestarts, reason))
	})
	return actor.PropsFromProducer(func() actor.Actor { return &vnodesActor{s: s, again: map[string]*rt.Stats{}} }, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Registry: s.Registry})),
		actor.WithSupervisor(strategy))
}

// Receive starts vnodes.
func (v *vnodesActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started: // after a restart, which has stopped the children
		if doc := v.s.Document(); doc != nil {
			v.start(ctx, *doc)
		}
	case *document:
		if !v.stopping {
			v.start(ctx, m.doc)
		}
	case *leftovers:
		if !v.stopping {
			v.spawn(ctx, m.partitions)
		}
	case *actor.Stopping, *actor.Restarting: // what starts next is the next instance's
		v.stopping = true
	case *killVnode:
		v.kill(ctx, m)
	case *actor.Terminated:
		v.ended(ctx, m.GetWho().GetId())
	}
}

func (v *vnodesActor) start(ctx actor.Context, doc member.Document) {
	// Only a vnode can say that a lost replica was dropped, also where it has moved away since.
	var lost []dynamo.Partition
	for _, f := range doc.Movement.Filling {
		if f.Node == v.s.Self && f.Since > 0 {
			lost = append(lost, f.Partition)
		}
	}
	v.spawn(ctx, append(doc.Vnodes(v.s.Self), lost...))
	for _, p := range lost {
		ctx.Send(on(v.s.Self, vnodeName(p)), &lostNow{})
	}
	v.s.vnodes.notify() // a node without partitions is ready now
}

// spawn starts the vnodes that do not run yet.
func (v *vnodesActor) spawn(ctx actor.Context, partitions []dynamo.Partition) {
	// All are listed before the first starts: a node is ready when all that are
	// listed serve.
	var fresh []dynamo.Partition
	for _, p := range partitions {
		if v.s.vnodes.add(p) {
			fresh = append(fresh, p)
		}
	}
	for _, p := range fresh {
		after := v.again[vnodeName(p)]
		delete(v.again, vnodeName(p))
		if _, err := ctx.SpawnNamed(newVnode(v.s, p, after), vnodeName(p)); err != nil {
			v.s.vnodeDown(p, "start", err)
			v.s.vnodes.gone(vnodeName(p), "start: "+err.Error())
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
	// draining: the node stops, and no vnode starts any more.
	draining bool
	// changed is closed and replaced whenever a row changes.
	changed chan struct{}
}

// add makes a row for a vnode that starts; false if there is one that lives, or none may start.
func (t *vnodeTable) add(p dynamo.Partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if row, ok := t.rows[p]; t.draining || ok && !row.stopped {
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
	t.wake()
}

// wake tells those who wait for a change; the lock is held.
func (t *vnodeTable) wake() {
	if t.changed != nil {
		close(t.changed)
	}
	t.changed = make(chan struct{})
}

// notify wakes those who wait for a change that is not in the table.
func (t *vnodeTable) notify() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wake()
}

// gone notes that a vnode's actor has stopped for good. The first reason given
// stands.
func (t *vnodeTable) gone(name, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, row := range t.rows {
		if vnodeName(p) == name && !row.stopped {
			row.Serving, row.stopped, row.Problem = false, true, why
			t.put(row)
		}
	}
}

// serving returns how many of the rows serve, the problem of the first that does
// not, and a channel that is closed at the next change.
func (t *vnodeTable) serving() (up, all int, problem string, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	for _, p := range slices.Sorted(maps.Keys(t.rows)) {
		if row := t.rows[p]; row.Serving {
			up++
		} else if problem == "" {
			problem = fmt.Sprintf("partition %d: %s", p, row.Problem)
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

// partitions are all that have a row, ascending.
func (t *vnodeTable) partitions() []dynamo.Partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.rows))
}

// all are the partitions that have a vnode, ascending: what lies in the store is theirs.
func (t *vnodeTable) all() []dynamo.Partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []dynamo.Partition
	for p, row := range t.rows {
		if !row.stopped {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// listed reports whether this node has, or had, a vnode for the partition.
func (t *vnodeTable) listed(p dynamo.Partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.rows[p]
	return ok
}

// vnodeUp records that a vnode serves; again, if it had failed.
func (s *Services) vnodeUp(p dynamo.Partition, again bool) {
	s.vnodes.set(VnodeStatus{Partition: p, Serving: true})
	if again {
		s.Log.Info("vnode serves again", slog.Uint64("partition", uint64(p)))
	}
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
func (s *Services) committed(vnodePID *actor.PID, p dynamo.Partition, waiting []answer, committing time.Time, err error) {
	if err == nil {
		took := time.Since(committing)
		for _, a := range waiting {
			a.stored(s, took)
			s.answer(a.to, vnodePID, a.message)
		}
		return
	}
	// Not CodeStorage, which says that nothing was written: the batch was
	// applied, and replicas may have its records by now.
	failure := messages.Fail(messages.CodeInternal, "partition %d on %s: commit: %v", p, s.Self, err)
	for _, a := range waiting {
		if _, coordinated := a.message.(*durable); coordinated {
			s.answer(a.to, vnodePID, &notDurable{})
			continue
		}
		s.answer(a.to, vnodePID, failure)
	}
	s.System.Root.Send(vnodePID, &commitFailed{err: err})
}

package rt

import (
	"reflect"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// States of a mailbox. It starts as unborn: the library puts an actor into the
// registry before it tells the mailbox whom to invoke, so messages can come
// when nobody can be run. They wait; the library's own mailboxes crash the
// sender there.
const (
	unborn int32 = iota
	idle
	running
)

// NewMailbox makes mailboxes for actor.WithMailbox. All mailboxes of one
// producer share the options and nothing else.
//
// Order: system messages come first and are looked for between any two user
// messages; then control messages; then ordinary ones, first in first out per
// sender. The library's MessageBatch is not unpacked.
//
// Panics of the actor are recovered and go to the supervisor, as with the
// library's mailbox: the message is dropped, and nothing is handled until the
// supervisor has decided.
func NewMailbox(options MailboxOptions) actor.MailboxProducer {
	options = options.withDefaults()
	return func() actor.Mailbox {
		m := &mailbox{options: &options, born: time.Now()}
		m.follow(options.After)
		m.system = m.first[:0]
		m.user.init()
		return m
	}
}

type mailbox struct {
	options *MailboxOptions
	born    time.Time

	state      atomic.Int32
	suspended  atomic.Bool
	systems    atomic.Int32 // system messages waiting
	controls   atomic.Int32 // control messages waiting
	queued     atomic.Int64 // ordinary messages waiting
	bytes      atomic.Int64 // their weight
	inSince    atomic.Int64 // arrival of the oldest in the sender's buffer
	outSince   atomic.Int64 // the same of the actor's buffer
	handlingAt atomic.Int64 // start of the handler that runs now, or 0

	processed, shed, expired atomic.Uint64
	restarts                 atomic.Uint64
	lastPanic                atomic.Pointer[Panic]

	mu      sync.Mutex
	system  []any
	first   [2]any // room for the first of them: actors of requests get no more
	control []entry
	user    lane
	stopped bool

	// Set by RegisterHandlers, before the state leaves unborn.
	invoker    actor.MessageInvoker
	dispatcher actor.Dispatcher
	runner     func()
	self       selfInvoker
	process    actor.Process
	place      *atomic.Pointer[mailbox] // in the registry, of a brief actor

	// Owned by the running goroutine.
	current  any
	batch    Batch
	pill     any // a PoisonPill that ended a batch
	stopSeen bool
}

// selfInvoker is what an invoker also is: the actor's context. It gives name,
// parent and type without a cost for each spawn.
type selfInvoker interface {
	Self() *actor.PID
	Parent() *actor.PID
	Actor() actor.Actor
	ActorSystem() *actor.ActorSystem
}

// PostUserMessage implements actor.Mailbox: it queues or sheds.
func (m *mailbox) PostUserMessage(posted any) {
	message, sender := unwrap(posted)
	e := entry{message: posted}
	if m.options.Size != nil {
		e.size = max(m.options.Size(message), 0)
	}
	if m.options.TTL != nil {
		if ttl := m.options.TTL(message); ttl > 0 {
			e.deadline = m.now() + int64(ttl)
		}
	}
	_, isControl := message.(Control)
	m.mu.Lock()
	if !m.admit(message, &e, isControl) {
		m.mu.Unlock()
		m.refuse(sender, message)
		return
	}
	if isControl {
		m.control = append(m.control, e)
		m.controls.Add(1)
	} else {
		if m.user.push(e) {
			m.inSince.Store(m.now())
		}
		m.queued.Add(1)
		m.bytes.Add(int64(e.size))
	}
	m.mu.Unlock()
	m.schedule()
}

// admit applies the bounds; the lock is held. The library's PoisonPill passes
// always: it is how an actor is asked to stop when it is done, and comes from
// this process alone.
func (m *mailbox) admit(message any, e *entry, isControl bool) bool {
	if m.stopped {
		return false
	}
	if _, ok := message.(*actor.PoisonPill); ok {
		return true
	}
	if isControl {
		return len(m.control) < m.options.MaxControl
	}
	queued := m.queued.Load()
	if queued >= int64(m.options.MaxMessages) {
		return false
	}
	return queued == 0 || m.bytes.Load()+int64(e.size) <= int64(m.options.MaxBytes)
}

func (m *mailbox) refuse(sender *actor.PID, message any) {
	switch v := message.(type) {
	case *Visit:
		v.Missed(nil)
		return
	case *failNow:
		return // it has ended, or has more important things to do
	}
	m.shed.Add(1)
	m.totals().shed.Add(1)
	if m.options.Shed != nil {
		m.options.Shed(sender, message)
	}
}

// PostSystemMessage implements actor.Mailbox. System messages are the
// supervisor's and are few; they are not bounded.
func (m *mailbox) PostSystemMessage(message any) {
	m.mu.Lock()
	m.system = append(m.system, message)
	m.systems.Add(1)
	m.mu.Unlock()
	m.schedule()
}

// RegisterHandlers implements actor.Mailbox.
func (m *mailbox) RegisterHandlers(invoker actor.MessageInvoker, dispatcher actor.Dispatcher) {
	m.invoker = invoker
	m.dispatcher = dispatcher
	m.runner = m.processMessages
	if self, ok := invoker.(selfInvoker); ok && self.Self() != nil {
		m.mu.Lock() // a message that is refused already may ask whose it is
		m.self = self
		m.mu.Unlock()
		m.process, _ = self.ActorSystem().ProcessRegistry.GetLocal(self.Self().Id)
		m.options.Registry.add(self, m)
		m.countFollower()
	}
}

// Start implements actor.Mailbox. The library calls it when it has posted
// Started, so nothing is handled before that message.
func (m *mailbox) Start() {
	m.state.Store(idle)
	m.schedule()
}

// UserMessageCount implements actor.Mailbox.
func (m *mailbox) UserMessageCount() int {
	return int(m.queued.Load()) + int(m.controls.Load())
}

func (m *mailbox) schedule() {
	if m.state.CompareAndSwap(idle, running) {
		m.dispatcher.Schedule(m.runner)
	}
}

// processMessages runs until nothing is left. A message that comes between the
// last look and the change to idle is seen by the second look.
func (m *mailbox) processMessages() {
	for {
		m.run()
		m.state.Store(idle)
		if !m.pending() || !m.state.CompareAndSwap(idle, running) {
			return
		}
	}
}

func (m *mailbox) pending() bool {
	if m.systems.Load() > 0 {
		return true
	}
	return !m.suspended.Load() && (m.controls.Load() > 0 || m.queued.Load() > 0)
}

// run handles messages until there is none, the mailbox is suspended, or the
// actor panics.
func (m *mailbox) run() {
	defer m.escalate()
	handled, throughput := 0, m.dispatcher.Throughput()
	for {
		if handled > throughput {
			handled = 0
			runtime.Gosched()
		}
		handled++
		if m.systems.Load() > 0 {
			m.runSystem()
			continue
		}
		if m.suspended.Load() {
			return
		}
		if m.controls.Load() > 0 {
			m.runControl()
			continue
		}
		if !m.runUser() {
			return
		}
	}
}

// escalate is deferred by run: it recovers a panic of the actor and tells its
// supervisor, with the library's own protocol.
func (m *mailbox) escalate() {
	reason := recover()
	if reason == nil {
		return
	}
	m.handlingAt.Store(0)
	failed := m.current
	m.current = nil
	inner, _ := unwrap(failed)
	if order, told := reason.(*Order); told {
		m.lastPanic.Store(failureBy(order))
	} else {
		m.lastPanic.Store(&Panic{Reason: reason, Stack: string(debug.Stack()), Message: reflect.TypeOf(inner), At: time.Now()})
		m.totals().panics.Add(1)
	}
	m.invoker.EscalateFailure(reason, failed)
	m.tellFailed(failed)
	m.clearBatch()
}

func (m *mailbox) tellFailed(failed any) {
	if m.options.Failed == nil || failed == nil {
		return
	}
	message, sender := unwrap(failed)
	switch b := message.(type) {
	case *Batch:
		for _, e := range b.Envelopes {
			m.options.Failed(e.Sender, e.Message)
		}
	case actor.SystemMessage, actor.AutoReceiveMessage:
	default:
		m.options.Failed(sender, message)
	}
}

func (m *mailbox) runSystem() {
	m.mu.Lock()
	if len(m.system) == 0 {
		m.mu.Unlock()
		return
	}
	message := m.system[0]
	m.system[0] = nil
	if m.system = m.system[1:]; len(m.system) == 0 {
		m.system = m.first[:0]
	}
	m.systems.Add(-1)
	m.mu.Unlock()

	m.current = message
	switch message.(type) {
	case *actor.SuspendMailbox:
		m.suspended.Store(true)
	case *actor.ResumeMailbox:
		m.suspended.Store(false)
	case *actor.Stop:
		m.stopSeen = true
		m.invokeSystem(message)
	case *actor.Restart:
		m.restarts.Add(1)
		m.totals().restarts.Add(1)
		m.invokeSystem(message)
	default:
		m.invokeSystem(message)
	}
	m.current = nil
	if m.stopSeen {
		m.finishIfStopped()
	}
}

func (m *mailbox) invokeSystem(message any) {
	m.handlingAt.Store(m.now())
	m.invoker.InvokeSystemMessage(message)
	m.handlingAt.Store(0)
}

func (m *mailbox) runControl() {
	m.mu.Lock()
	if len(m.control) == 0 {
		m.mu.Unlock()
		return
	}
	e := m.control[0]
	m.control[0] = entry{}
	if m.control = m.control[1:]; len(m.control) == 0 {
		m.control = nil
	}
	m.controls.Add(-1)
	m.mu.Unlock()
	switch v := e.message.(type) {
	case *Visit:
		m.visit(v)
		return
	case *failNow:
		panic(v.order) // see escalate
	}
	if !m.drop(&e) {
		m.invoke(e.message)
	}
}

// next takes the oldest ordinary message that is still worth handling.
func (m *mailbox) next() (entry, bool) {
	for {
		e, ok := m.user.pop()
		if !ok {
			m.mu.Lock()
			more := m.user.swap()
			m.outSince.Store(m.inSince.Swap(0))
			m.mu.Unlock()
			if !more {
				return entry{}, false
			}
			continue
		}
		if m.user.used() {
			m.outSince.Store(0)
		}
		m.queued.Add(-1)
		if e.size > 0 {
			m.bytes.Add(-int64(e.size))
		}
		if !m.drop(&e) {
			return e, true
		}
	}
}

// drop reports and tells of a message whose time is over.
func (m *mailbox) drop(e *entry) bool {
	message, sender := unwrap(e.message)
	late := e.deadline != 0 && m.now() > e.deadline
	if !late {
		if x, ok := message.(Expirer); ok {
			late = x.Expired(time.Now())
		}
	}
	if !late {
		return false
	}
	m.expired.Add(1)
	m.totals().expired.Add(1)
	if m.options.Expired != nil {
		m.options.Expired(sender, message)
	}
	return true
}

// until is an entry's deadline as an instant, zero if it has none.
func (m *mailbox) until(e *entry) time.Time {
	if e.deadline == 0 {
		return time.Time{}
	}
	return m.born.Add(time.Duration(e.deadline))
}

// runUser handles one message, or one batch; false if nothing was waiting.
func (m *mailbox) runUser() bool {
	if pill := m.pill; pill != nil {
		m.pill = nil
		m.invoke(pill)
		return true
	}
	e, ok := m.next()
	if !ok {
		return false
	}
	if m.options.Batch <= 0 || isPill(e.message) {
		m.invoke(e.message)
		return true
	}
	for ok {
		message, sender := unwrap(e.message)
		m.batch.Envelopes = append(m.batch.Envelopes, Envelope{Message: message, Sender: sender, Until: m.until(&e)})
		if len(m.batch.Envelopes) >= m.options.Batch {
			break
		}
		if e, ok = m.next(); ok && isPill(e.message) {
			m.pill = e.message
			break
		}
	}
	m.invoke(&m.batch)
	m.processed.Add(uint64(len(m.batch.Envelopes)) - 1)
	m.clearBatch()
	return true
}

// clearBatch forgets the messages, so that an idle actor does not keep its
// last batch alive.
func (m *mailbox) clearBatch() {
	clear(m.batch.Envelopes)
	m.batch.Envelopes = m.batch.Envelopes[:0]
}

func isPill(posted any) bool {
	message, _ := unwrap(posted)
	_, ok := message.(*actor.PoisonPill)
	return ok
}

func (m *mailbox) invoke(posted any) {
	m.current = posted
	m.handlingAt.Store(m.now())
	m.processed.Add(1)
	m.invoker.InvokeUserMessage(posted)
	m.handlingAt.Store(0)
	m.current = nil
}

// finishIfStopped sheds what is left once the actor has left the registry
// under its own process: the library would swallow it in silence. Before that
// (children still stopping) the actor goes on handling messages.
func (m *mailbox) finishIfStopped() {
	if m.self == nil {
		return
	}
	pid := m.self.Self()
	if p, ok := m.self.ActorSystem().ProcessRegistry.GetLocal(pid.Id); ok && p == m.process {
		return
	}
	m.mu.Lock()
	if m.stopped { // by another who told it to stop
		m.mu.Unlock()
		return
	}
	m.stopped = true
	left := append([]entry(nil), m.control...)
	left = m.user.drain(left)
	m.control = nil
	m.controls.Store(0)
	m.queued.Store(0)
	m.bytes.Store(0)
	m.outSince.Store(0)
	m.inSince.Store(0)
	m.mu.Unlock()
	m.options.Registry.remove(m)
	for _, e := range left {
		message, sender := unwrap(e.message)
		if !isPill(message) {
			m.refuse(sender, message)
		}
	}
}

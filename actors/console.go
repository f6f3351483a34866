package actors

import (
	"fmt"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

const (
	// inspectWait is how long an actor may take to say how it is.
	inspectWait = time.Second
	// maxInspections is how many may be under way at once.
	maxInspections = 64
)

// inspector is an actor that says how it is. It is asked on its own goroutine, between two
// messages: what is returned must not be changed later, for others read it.
type inspector interface{ Inspect() messages.Fields }

// consoleActor answers operators. What it lists it knows without asking anybody, so that a
// stuck actor is seen and holds up nobody. Only who looks at a single actor waits for that
// one's own word, for a bounded time.
type consoleActor struct {
	s    *Services
	self *actor.PID
	open map[*inspection]bool
	// asked is how many actors were asked since the console has started, silent how many of
	// them did not answer in time.
	asked, silent uint64
	busiest       busiest
}

// inspection is one look at an actor that is under way.
type inspection struct {
	actor  string
	sender *actor.PID
	wait   time.Duration
	timer  *rt.Timer
	// before is how the actor looked from outside when it was asked.
	before rt.Stats
}

// What comes of an inspection: inspected is the actor's own word, missed that there is none
// (rt.Visit.Missed), inspectDue the end of the wait.
type (
	inspected struct {
		of     *inspection
		fields messages.Fields
	}
	missed struct {
		of       *inspection
		panicked any
	}
	inspectDue struct{ of *inspection }
)

// RuntimeControl lets it overtake the questions that wait.
func (*inspected) RuntimeControl() {}

// RuntimeControl lets it overtake the questions that wait.
func (*missed) RuntimeControl() {}

// RuntimeControl lets it overtake the questions that wait.
func (*inspectDue) RuntimeControl() {}

func newConsole(s *Services) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor { return &consoleActor{s: s, open: map[*inspection]bool{}} }, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{
			Size: messageSize, TTL: messageTTL, Shed: s.shed, Expired: s.expired, Failed: s.failed, Registry: s.Registry,
		})))
}

// Receive answers operators.
func (c *consoleActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		c.self = ctx.Self()
	case *messages.ActorsRequest:
		c.s.answer(ctx.Sender(), c.self, c.list(m))
	case *messages.InspectRequest:
		c.inspect(ctx.Sender(), m)
	case *messages.ErrorsRequest:
		c.s.answer(ctx.Sender(), c.self, c.errors(m))
	case *messages.LookupRequest:
		c.s.lookup(rt.Envelope{Message: m, Sender: ctx.Sender()}, c.self)
	case *messages.BusiestRequest:
		c.s.answer(ctx.Sender(), c.self, c.busiest.answer(c.s.Registry, m))
	case *messages.LogRequest:
		c.s.answer(ctx.Sender(), c.self, c.s.logged(m))
	case *messages.SettingsRequest:
		c.s.answer(ctx.Sender(), c.self, c.s.set(ctx.Sender(), m))
	case *messages.ControlRequest:
		c.s.control(ctx.Sender(), c.self, m)
	case *messages.SlowRequestsRequest:
		c.s.answer(ctx.Sender(), c.self, messages.FromSlow(c.s.slow.list(messages.ToSlowLimit(m), time.Now())))
	case *inspected:
		c.inspected(m)
	case *missed:
		c.missed(m)
	case *inspectDue:
		c.due(m)
	case *actor.Stopping, *actor.Restarting:
		for i := range c.open {
			c.end(i, messages.Fail(messages.CodeNotReady, "the console of %s stops or starts over", c.s.Self))
		}
	}
}

// Inspect says what the console does.
func (c *consoleActor) Inspect() messages.Fields {
	looks := messages.Fields{}
	for i := range c.open {
		looks = looks.Add(i.actor, "asked")
	}
	faults, older := c.s.Failures.List(0)
	return messages.Fields{}.Add("node", string(c.s.Self)).Add("actors asked", c.asked).Add("without an answer", c.silent).Add("asking now", looks.Sorted()).
		Add("errors noted", uint64(len(faults))+older).Add("requests not listed", c.s.Registry.Unlisted())
}

func (c *consoleActor) list(m *messages.ActorsRequest) any {
	limit, err := messages.ToActorsRequest(m)
	if err != nil {
		return messages.Fail(messages.CodeInvalid, "%v", err)
	}
	all, more := c.s.Registry.List(func(id string) bool { return id > m.GetAfter() && matches(m.GetPattern(), id) }, limit)
	out := &messages.ActorsReply{Left: uint32(more)}
	for _, s := range all {
		a := actorOf(s)
		if a.Panic != nil {
			a.Panic.Stack = ""
		}
		out.Actors = append(out.Actors, messages.FromActor(a))
	}
	return out
}

// matches reports whether a name has a pattern in it; one with * must fit the whole name, and
// each * stands for any characters.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return strings.Contains(name, pattern)
	}
	name, ok := strings.CutPrefix(name, parts[0])
	for _, part := range parts[1:last] {
		i := strings.Index(name, part)
		ok = ok && i >= 0
		if !ok {
			return false
		}
		name = name[i+len(part):]
	}
	return ok && strings.HasSuffix(name, parts[last])
}

// actorOf converts what is seen of an actor from outside.
func actorOf(s rt.Stats) messages.Actor {
	a := messages.Actor{
		Name: s.ID, Parent: s.Parent, Queued: uint64(s.Queued), Control: uint64(s.Control), Bytes: uint64(s.Bytes), Processed: s.Processed, Shed: s.Shed,
		Expired: s.Expired, Restarts: s.Restarts, Age: s.Age, Oldest: s.OldestAge, InHandler: s.InHandler, Suspended: s.Suspended,
	}
	if p := s.LastPanic; p != nil {
		a.Panic = &messages.ActorFault{Reason: fmt.Sprint(p.Reason), Ago: time.Since(p.At), Stack: p.Stack}
		if p.Message != nil {
			a.Panic.Message = p.Message.String()
		}
	}
	return a
}

func (c *consoleActor) errors(m *messages.ErrorsRequest) any {
	all, more := c.s.Failures.List(messages.ToErrorsLimit(m))
	out := make([]messages.NodeFault, len(all))
	for i, f := range all {
		out[i] = messages.NodeFault{At: f.At, Actor: f.Actor, Text: f.Text, Times: f.Times}
	}
	return messages.FromFaults(out, more)
}

// inspect asks an actor how it is.
func (c *consoleActor) inspect(sender *actor.PID, m *messages.InspectRequest) {
	if len(c.open) >= maxInspections {
		f := messages.Fail(messages.CodeOverloaded, "%s asks %d actors already; try again", c.s.Self, maxInspections)
		f.RetryAfterMs = 50
		c.s.answer(sender, c.self, f)
		return
	}
	i := &inspection{actor: m.GetActor(), sender: sender, wait: inspectWait}
	if ms := m.GetTimeoutMs(); ms > 0 {
		i.wait = min(i.wait, time.Duration(ms)*time.Millisecond)
	}
	c.open[i] = true
	i.timer = c.s.Wheel.Send(c.self, &inspectDue{of: i}, i.wait)
	self, root := c.self, c.s.System.Root
	var found bool
	i.before, found = c.s.Registry.Visit(i.actor, &rt.Visit{
		Look: func(a actor.Actor) {
			out := &inspected{of: i}
			if x, ok := a.(inspector); ok {
				out.fields = x.Inspect()
			}
			root.Send(self, out)
		},
		Missed: func(panicked any) { root.Send(self, &missed{of: i, panicked: panicked}) },
	})
	if !found {
		c.end(i, c.unknown(i))
		return
	}
	c.asked++
}

func (c *consoleActor) unknown(i *inspection) *messages.Failure {
	return messages.Fail(messages.CodeUnreachable, "%s has no actor %q; it may have ended", c.s.Self, i.actor)
}

// inspected passes on what an actor says, with how it looked before it was disturbed.
func (c *consoleActor) inspected(m *inspected) {
	if !c.open[m.of] {
		return
	}
	c.end(m.of, messages.FromInspection(messages.Inspection{Actor: actorOf(m.of.before), List: messages.List{Fields: m.fields}}))
}

func (c *consoleActor) missed(m *missed) {
	why := "it has as many control messages as it may"
	if m.panicked != nil {
		why = fmt.Sprintf("its answer panicked: %v", m.panicked)
	}
	c.without(m.of, why)
}

func (c *consoleActor) due(m *inspectDue) {
	s, _ := c.s.Registry.Find(m.of.actor)
	why := fmt.Sprintf("its turn did not come within %v", m.of.wait)
	switch {
	case s.Suspended:
		why = "it has failed, and its supervisor has not decided yet"
	case s.InHandler > 0:
		why = fmt.Sprintf("in a handler for %v", s.InHandler.Round(100*time.Millisecond))
	}
	c.without(m.of, why)
}

// without answers with what is seen from outside.
func (c *consoleActor) without(i *inspection, why string) {
	if !c.open[i] {
		return
	}
	s, there := c.s.Registry.Find(i.actor)
	if !there {
		c.end(i, c.unknown(i))
		return
	}
	c.silent++
	c.end(i, messages.FromInspection(messages.Inspection{Actor: actorOf(s), NoAnswer: why}))
}

// end answers whoever asked.
func (c *consoleActor) end(i *inspection, answer any) {
	delete(c.open, i)
	i.timer.Stop()
	c.s.answer(i.sender, c.self, answer)
}

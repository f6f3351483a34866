package actors

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/messages"
)

// What operators change of a running node (settings, restart, kill) is refused unless the
// node was started to allow it, and is logged with who asked.

// mayNot is the refusal of a client that may not control the node, nil if it may.
func (s *Services) mayNot(sender *actor.PID) *messages.Failure {
	if s.MayControl == nil {
		return messages.Fail(messages.CodeRefused, "%s does not let its actors and settings be changed: it was not started with --console-control", s.Self)
	}
	if err := s.MayControl(sender.GetAddress()); err != nil {
		return messages.Fail(messages.CodeRefused, "%v", err)
	}
	return nil
}

// audit logs what an operator does, whatever level was set: nobody hides it by that.
func (s *Services) audit(sender *actor.PID, what string, more ...any) {
	level := slog.LevelWarn
	if !s.Log.Enabled(context.Background(), level) {
		level = slog.LevelError
	}
	s.Log.Log(context.Background(), level, "an operator changes the node", append([]any{slog.String("by", sender.GetAddress()), slog.String("what", what)}, more...)...)
}

// setting is one that can change while the node runs.
type setting struct {
	name, help string
	get        func() string
	set        func(string) error
}

func (s *Services) settings() []setting {
	out := []setting{
		{
			"hints-mb", "MiB to keep at most for other nodes while they cannot be reached",
			func() string { return strconv.FormatInt(s.hintBytes.Load()>>20, 10) },
			func(v string) error {
				n, err := number(v, 0, 1<<30)
				if err == nil {
					s.hintBytes.Store(n << 20)
				}
				return err
			},
		},
		{
			"max-requests", "requests in flight before this node answers overloaded",
			func() string { return strconv.FormatInt(s.maxRequests.Load(), 10) },
			func(v string) error {
				n, err := number(v, 1, 1<<20)
				if err == nil {
					s.maxRequests.Store(n)
				}
				return err
			},
		},
	}
	if level := s.LogLevel; level != nil {
		out = append(out, setting{
			"log-level", "debug, info, warn or error",
			func() string { return strings.ToLower(level.Level().String()) },
			func(v string) error {
				l, ok := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[v]
				if !ok {
					return fmt.Errorf("%q is not debug, info, warn or error", v)
				}
				level.Set(l)
				return nil
			},
		})
	}
	slices.SortFunc(out, func(a, b setting) int { return cmp.Compare(a.name, b.name) })
	return out
}

// number reads a whole number within bounds.
func number(v string, from, to int64) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < from || n > to {
		return 0, fmt.Errorf("%q is no number from %d to %d", v, from, to)
	}
	return n, nil
}

// set changes a setting if one is named, and answers how all of them are.
func (s *Services) set(sender *actor.PID, m *messages.SettingsRequest) any {
	all := s.settings()
	if name := m.GetName(); name != "" {
		if f := s.mayNot(sender); f != nil {
			return f
		}
		i := slices.IndexFunc(all, func(x setting) bool { return x.name == name })
		if i < 0 {
			return messages.Fail(messages.CodeInvalid, "%q is no setting that can change while a node runs", name)
		}
		was := all[i].get()
		if err := all[i].set(m.GetValue()); err != nil {
			return messages.Fail(messages.CodeInvalid, "%s: %v", name, err)
		}
		s.audit(sender, "set", slog.String("setting", name), slog.String("was", was), slog.String("is", all[i].get()))
	}
	var out []messages.NodeSetting
	for _, x := range all {
		out = append(out, messages.NodeSetting{Name: x.name, Value: x.get(), Help: x.help})
	}
	return messages.FromSettings(out)
}

// logged answers what was logged lately.
func (s *Services) logged(m *messages.LogRequest) any {
	after, run := m.GetAfter(), s.Lines.Run()
	if m.GetRun() != run {
		after = 0 // that was another life of this node
	}
	lines, lost := s.Lines.Since(after, messages.ToLogLimit(m))
	out := make([]messages.Line, len(lines))
	for i, l := range lines {
		out[i] = messages.Line{Number: l.Number, At: l.At, Level: l.Level.String(), Text: l.Text}
	}
	return messages.FromLines(out, run, lost)
}

// fates say what becomes of actors that an operator restarts or kills, by kind. An empty one
// is refused: nothing would bring the actor back, or too much would go with it.
var fates = map[string]struct{ restart, kill string }{
	"vnode": {
		"it fails, and its supervisor restarts it: it opens its partition from the store again, and who waits for it is told to try again; " +
			"after more than " + strconv.Itoa(vnodeRestarts) + " failures in a minute it stays down",
		"it stops, and what waits for it is refused; its supervisor starts another one, which opens the partition from the store",
	},
	nameVnodes:      {"it fails, and its supervisor restarts it: all vnodes of the node stop, and are started again", ""},
	nameCoordinator: {"it fails, and its supervisor restarts it: the requests that the node coordinates end, and their clients are told", ""},
	nameDetector:    {"it fails, and its supervisor restarts it: it forms its opinion of the other nodes anew", ""},
	nameMembership:  {"it fails, and its supervisor restarts it: it reads the cluster document from the store again", ""},
	nameAdmission:   {"it fails, and its supervisor restarts it: background work asks for its slices of time again", ""},
	nameTransfers:   {"it fails, and its supervisor restarts it: transfers and fills that run are stopped, and begun again", ""},
	nameExchanges:   {"it fails, and its supervisor restarts it: exchanges that run are stopped, and begun again", ""},
	nameReaps:       {"it fails, and its supervisor restarts it: reapings that run are stopped, and begun again", ""},
	nameConsole:     {"it fails, and its supervisor restarts it: consoles that wait for an answer are told to ask again", ""},
	"get":           {endsRequest, endsRequest}, "put": {endsRequest, endsRequest}, "forward": {endsRequest, endsRequest},
	"transfer": {endsWork, endsWork}, "fill": {endsWork, endsWork}, "exchange": {endsWork, endsWork}, "reap": {endsWork, endsWork},
}

const (
	endsRequest = "it ends, and its client is told; requests are never restarted"
	endsWork    = "it ends; its supervisor begins again what is left of its work when that is due"
)

// control restarts or kills an actor.
func (s *Services) control(sender, self *actor.PID, m *messages.ControlRequest) {
	if f := s.mayNot(sender); f != nil {
		s.answer(sender, self, f)
		return
	}
	name := m.GetActor()
	kind, _, _ := strings.Cut(name, "/")
	verb, fate, order := "restart", fates[kind].restart, &rt.Order{Done: "restarted", By: sender.GetAddress()}
	if m.GetKill() {
		verb, fate, order.Done = "kill", fates[kind].kill, "killed"
	}
	_, there := s.Registry.Find(name)
	switch {
	case !there:
		s.answer(sender, self, messages.Fail(messages.CodeUnreachable, "%s has no actor %q; it may have ended", s.Self, name))
		return
	case fate == "" && fates[kind].restart != "":
		s.answer(sender, self, messages.Fail(messages.CodeInvalid, "%s is not killed: nothing would start it again; restart it", name))
		return
	case fate == "":
		s.answer(sender, self, messages.Fail(messages.CodeInvalid, "%q is not restarted or killed while the node runs", name))
		return
	}
	if !m.GetAsk() {
		s.audit(sender, verb, slog.String("actor", name))
		s.carryOut(name, kind, order)
	}
	// This may be the actor: it fails between two messages, after this one.
	s.answer(sender, self, &messages.ControlReply{Consequence: fate})
}

// carryOut has an actor end or fail. Either is among what went wrong: a failure when the supervisor
// tells of it, an end now.
func (s *Services) carryOut(name, kind string, order *rt.Order) {
	request := fates[kind].kill == endsRequest
	if order.Done == "restarted" && !request {
		s.Registry.Fail(name, order)
		return
	}
	s.Failures.Ordered(name, order)
	switch {
	case request:
		s.System.Root.Send(on(s.Self, name), &endRequest{order})
	case kind == "vnode":
		s.System.Root.Send(on(s.Self, nameVnodes), &killVnode{name, order})
	default:
		s.System.Root.Stop(on(s.Self, name))
	}
}

// endRequest ends a request that an operator does not want any more.
type endRequest struct{ order *rt.Order }

// RuntimeControl lets it overtake what replicas say.
func (*endRequest) RuntimeControl() {}

// IgnoreDeadLetterLogging: the request may end by itself meanwhile.
func (*endRequest) IgnoreDeadLetterLogging() {}

// giveUp ends a request because of an order, and tells the client so. What is under way is not
// called back: a write may still appear.
func (x *exchange) giveUp(ctx actor.Context, m *endRequest) {
	if !x.answered {
		x.failures().Add(1)
	}
	x.fail(x.givenUp(m.order.Error()))
	ctx.Stop(x.self)
}

// givenUp is the answer to the client of a request that ends for a reason of this node's.
func (x *exchange) givenUp(why string) *messages.Failure {
	if _, write := x.plan.request.(*messages.PutRequest); write {
		return messages.Fail(messages.CodeUnknown, "the write was %s on %s; it may still appear", why, x.s.Self)
	}
	return messages.Fail(messages.CodeUnavailable, "the read was %s on %s", why, x.s.Self)
}

// killVnode stops a vnode because of an order, and starts another one when it has ended.
type killVnode struct {
	name  string
	order *rt.Order
}

// kill stops a vnode that an operator does not want any more.
func (v *vnodesActor) kill(ctx actor.Context, m *killVnode) {
	for _, child := range ctx.Children() {
		if child.GetId() == m.name && !v.stopping {
			before, _ := v.s.Registry.Find(m.name)
			v.again[m.name] = before.Replaced(m.order)
			ctx.Stop(child)
		}
	}
}

// ended notes that a vnode has stopped, and starts another one if an operator has killed it.
func (v *vnodesActor) ended(ctx actor.Context, name string) {
	v.s.vnodes.gone(name, "stopped")
	if v.again[name] == nil || v.stopping {
		return
	}
	defer delete(v.again, name) // also where the partition has gone meanwhile
	for _, p := range v.s.vnodes.partitions() {
		if vnodeName(p) == name {
			v.spawn(ctx, []dynamo.Partition{p})
		}
	}
}

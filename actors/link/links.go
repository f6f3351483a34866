package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

// recentRefusals is how many refusals are kept for the console.
const recentRefusals = 32

// maxLogLines is how many refusals a second reach the log.
const maxLogLines = 10

// maxStarts bounds the start numbers that are remembered.
const maxStarts = 1 << 16

// startSeen is the latest start of a node. Each store counts its own; which of them
// is the member's is a question for Config.Admit.
type startSeen struct {
	store string
	start uint64
}

// Links are all connections of one actor system. There is one per system: the
// library has no way to take an address resolver back.
type Links struct {
	config Config
	system *actor.ActorSystem
	logger *slog.Logger
	base   time.Time
	// process tells this process from others under its name.
	process uint64
	root    *actor.PID
	ended   chan struct{} // the root actor is gone

	outlets  sync.Map // peer id → *outlet
	drops    [reasons]atomic.Uint64
	refusals atomic.Uint64
	rejected atomic.Uint64
	accepts  sync.WaitGroup

	mu        sync.Mutex
	started   bool
	stopping  bool
	wanted    map[string]string    // peer id → address
	prospects map[string]*prospect // address → who is there
	starts    map[string]startSeen // node id → latest start seen
	open      map[net.Conn]bool    // every connection → accepted
	accepted  int
	greeting  int
	recent    []Refusal
	logged    map[string]bool // refusals told to the log
	logSecond int64           // the second of the last log line
	logLines  int             // log lines in that second
}

// New checks the configuration and registers the resolver: from here on a
// message to another node comes back as not connected. Start opens the links.
func New(system *actor.ActorSystem, config Config) (*Links, error) {
	problem := config.Validate()
	if system.Address() != config.NodeID {
		problem = errors.Join(problem, fmt.Errorf("link: the actor system's address is %q, the node id %q", system.Address(), config.NodeID))
	}
	if problem != nil {
		return nil, problem
	}
	l := &Links{
		config: config, system: system, logger: config.Logger, base: time.Now(), process: rand.Uint64(), ended: make(chan struct{}),
		wanted: make(map[string]string), prospects: make(map[string]*prospect), starts: make(map[string]startSeen),
		open: make(map[net.Conn]bool), logged: make(map[string]bool),
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if l.config.Clock == nil {
		l.config.Clock = rt.Clock
	}
	if l.config.Dial == nil {
		dialer := &net.Dialer{}
		l.config.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	system.ProcessRegistry.RegisterAddressResolver(l.resolve)
	return l, nil
}

// now is the links' clock in nanoseconds.
func (l *Links) now() int64 { return int64(time.Since(l.base)) }

// clock is the clock of dates, and of the stamps that translate them.
func (l *Links) clock() time.Duration { return l.config.Clock() }

// Start spawns the link actors and accepts connections. It may be called once.
func (l *Links) Start() error {
	l.mu.Lock()
	if l.started || l.stopping {
		l.mu.Unlock()
		return errors.New("link: started before")
	}
	l.started = true
	l.mu.Unlock()
	root, err := l.system.Root.SpawnNamed(l.props(func() actor.Actor { return &root{links: l} },
		actor.WithSupervisor(rt.RestartWithBackoff(l.config.BackoffMin, l.config.BackoffMax))), "links")
	if err != nil {
		return fmt.Errorf("link: spawning links: %w", err)
	}
	l.mu.Lock()
	l.root = root
	l.mu.Unlock()
	l.reconcile()
	if l.config.Listener != nil {
		l.accepts.Go(l.accept)
	}
	return nil
}

// props are those of every actor here. What is shed may hold a connection.
func (l *Links) props(producer actor.Producer, more ...actor.PropsOption) *actor.Props {
	mailbox := rt.NewMailbox(rt.MailboxOptions{
		Registry: l.config.Registry,
		Shed: func(_ *actor.PID, message any) {
			if h, ok := message.(interface{ held() *wire }); ok && h.held() != nil {
				l.closeWire(h.held())
			}
		},
	})
	return actor.PropsFromProducer(producer, append(more, actor.WithMailbox(mailbox))...)
}

// Stop ends every link: what is queued is written as far as the peers take it
// within DrainTimeout, then connections close and the actors end. When ctx
// ends first, connections are cut. Nothing is left behind once it returns nil.
// It must not be called from an actor.
func (l *Links) Stop(ctx context.Context) error {
	l.mu.Lock()
	first := !l.stopping
	l.stopping = true
	root := l.root
	l.mu.Unlock()
	if first {
		if l.config.Listener != nil {
			if err := l.config.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				l.logger.Warn("closing the listener failed", "error", err)
			}
		}
		if root != nil {
			l.system.Root.Stop(root)
		} else {
			close(l.ended)
		}
	}
	done := make(chan struct{})
	go func() {
		<-l.ended
		l.closeAll()
		l.accepts.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		l.closeAll()
		return fmt.Errorf("link: stopping: %w", ctx.Err())
	}
}

// SetPeer holds a link to a node: it is dialled until it is up and again when
// it breaks, for ever. Another address for the same node replaces the former
// one at the next attempt.
func (l *Links) SetPeer(id, address string) error {
	if !validID(id) || id == l.config.NodeID {
		return fmt.Errorf("link: %q cannot be a peer of %s", id, l.config.NodeID)
	}
	if address == "" || len(address) > MaxText {
		return fmt.Errorf("link: address of %s has %d bytes, want 1 to %d", id, len(address), MaxText)
	}
	l.mu.Lock()
	l.wanted[id] = address
	l.mu.Unlock()
	l.reconcile()
	return nil
}

// Connect holds a link to whatever node is at the address: it asks until it
// learns the node's id and goes on as SetPeer. It is for seeds.
func (l *Links) Connect(address string) error {
	if address == "" || len(address) > MaxText {
		return fmt.Errorf("link: address has %d bytes, want 1 to %d", len(address), MaxText)
	}
	l.mu.Lock()
	if l.prospects[address] == nil {
		l.prospects[address] = &prospect{links: l, address: address}
	}
	l.mu.Unlock()
	l.reconcile()
	return nil
}

// Remove ends the link to a node and forgets its address and which start of it was
// seen. The node may still call.
func (l *Links) Remove(id string) {
	l.mu.Lock()
	delete(l.wanted, id)
	delete(l.starts, id)
	for address, p := range l.prospects {
		if p.known() == id {
			delete(l.prospects, address)
		}
	}
	l.mu.Unlock()
	l.tell(&removed{id: id})
}

// Disconnect forgets an address given to Connect; the link to the node that
// was found there stays until Remove.
func (l *Links) Disconnect(address string) {
	l.mu.Lock()
	delete(l.prospects, address)
	l.mu.Unlock()
	l.reconcile()
}

// ClusterChanged says that Config.ClusterID returns something else now: the
// connections that were made under the former id are made anew at once
// (without this call at the next heartbeat).
func (l *Links) ClusterChanged() { l.tell(&clusterChanged{}) }

// Refusals lists the latest refusals by either end, oldest first.
func (l *Links) Refusals() []Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Refusal(nil), l.recent...)
}

func (l *Links) reconcile() { l.tell(&reconcile{}) }

// rootPID is the actor "links"; nil before Start.
func (l *Links) rootPID() *actor.PID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.root
}

func (l *Links) tell(message any) {
	if root := l.rootPID(); root != nil {
		l.system.Root.Send(root, message)
	}
}

// plan is what the root actor should bring about.
func (l *Links) plan() (peers map[string]string, prospects map[string]*prospect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.wanted), maps.Clone(l.prospects)
}

func (l *Links) addressOf(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted[id]
}

// found is called by a prospect that has learned who is at its address. An
// address given with SetPeer has precedence.
func (l *Links) found(p *prospect, id string) {
	l.mu.Lock()
	_, has := l.wanted[id]
	current := l.prospects[p.address] == p
	if current && !has {
		l.wanted[id] = p.address
	}
	l.mu.Unlock()
	if current {
		l.reconcile()
	}
}

// misplaced is called when the node at an address turns out to be another one:
// whoever asked for the address asks again.
func (l *Links) misplaced(id, address string) {
	l.mu.Lock()
	p := l.prospects[address]
	if p != nil && l.wanted[id] == address {
		delete(l.wanted, id)
	}
	l.mu.Unlock()
	if p != nil {
		p.forget()
		l.tell(&unwanted{id: id})
		l.tell(&askAgain{address: address})
	}
}

func (l *Links) outlet(id string) *outlet {
	if v, ok := l.outlets.Load(id); ok {
		return v.(*outlet)
	}
	return nil
}

// judgeMember refuses nodes that Config.Admit does not want, and a node of which a
// later start has been seen: it is the process that the later one replaced. One that
// is in no cluster yet may have lost what it was.
func (l *Links) judgeMember(h *Hello) *Refusal {
	if h.Role != messages.RoleNode || len(h.ClusterID) == 0 {
		return nil
	}
	if l.config.Admit != nil {
		if version, err := l.config.Admit(*h); err != nil {
			return &Refusal{Peer: h.NodeID, Code: RefusedMember, Text: err.Error(), Document: version, Ours: true}
		}
	}
	l.mu.Lock()
	seen := l.starts[h.NodeID]
	l.mu.Unlock()
	if h.Start >= seen.start || string(h.Store) != seen.store {
		return nil
	}
	return &Refusal{Peer: h.NodeID, Code: RefusedStart, Ours: true,
		Text: fmt.Sprintf("%s has been started since: this is start %d, the latest is %d", h.NodeID, h.Start, seen.start)}
}

func (l *Links) noteStart(h *Hello) {
	if h.Role != messages.RoleNode || len(h.ClusterID) == 0 {
		return
	}
	l.mu.Lock()
	seen, known := l.starts[h.NodeID]
	if (known || len(l.starts) < maxStarts) && (string(h.Store) != seen.store || h.Start > seen.start) {
		l.starts[h.NodeID] = startSeen{string(h.Store), h.Start}
	}
	l.mu.Unlock()
}

// worthLogging reports whether a refusal is new, and bounds the lines a second,
// since strangers choose what is refused. The lock is held.
func (l *Links) worthLogging(key string) bool {
	if l.logged[key] {
		return false
	}
	if second := l.now() / int64(time.Second); second != l.logSecond {
		l.logSecond, l.logLines = second, 0
	}
	if l.logLines++; l.logLines > maxLogLines {
		return false
	}
	if len(l.logged) > 1024 {
		clear(l.logged)
	}
	l.logged[key] = true
	return true
}

// refused tells of a refusal by either end. The log gets each kind of refusal
// once per peer, since an attempt is repeated for ever.
func (l *Links) refused(r *Refusal) {
	if r.Code.normal() {
		return
	}
	if r.Ours {
		l.refusals.Add(1)
	}
	key := fmt.Sprintf("%s/%d/%v", r.Peer, r.Code, r.Ours)
	l.mu.Lock()
	l.recent = append(l.recent, *r)
	if over := len(l.recent) - recentRefusals; over > 0 {
		l.recent = append([]Refusal(nil), l.recent[over:]...)
	}
	worth := l.worthLogging(key)
	l.mu.Unlock()
	if worth {
		l.logger.Warn("link refused", "peer", r.Peer, "address", r.Address, "by_us", r.Ours, "code", r.Code.String(), "text", r.Text)
	}
	if o := l.outlet(r.Peer); o != nil {
		o.lastRefusal.Store(r)
	}
	if l.config.Observer.Refused != nil {
		l.config.Observer.Refused(*r)
	}
}

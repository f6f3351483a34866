package bootstrap

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/dynactor/dynactor/actors"
	"github.com/dynactor/dynactor/dynamo"
)

// linkWait is how long a node that is in a cluster waits for its links to the
// other members before it says that it is ready without them. After a founding
// the links are made anew under the cluster's id, which takes a moment; a member
// that is down must not keep the others from serving.
const linkWait = 5 * time.Second

// linkGate is shut until a node has a link to each other member, or has waited
// long enough. Then it stays open: a link that breaks later is the requests'
// matter.
type linkGate struct {
	open chan struct{} // closed when the gate opens

	mu      sync.Mutex
	up      map[dynamo.NodeID]bool
	members []dynamo.NodeID // the others; set by await
	opened  bool
	awaited bool
	timer   *time.Timer
}

func newLinkGate() *linkGate {
	return &linkGate{open: make(chan struct{}), up: map[dynamo.NodeID]bool{}}
}

// set notes that requests can be sent to a node, or no more.
func (g *linkGate) set(id dynamo.NodeID, up bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !up {
		delete(g.up, id)
		return
	}
	g.up[id] = true
	g.look(false)
}

// await says whose links count, and opens the gate at the latest after limit;
// then late is told who is lacking. Only the first call counts.
func (g *linkGate) await(members []dynamo.NodeID, limit time.Duration, late func(lacking string)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.awaited {
		return
	}
	g.awaited, g.members = true, members
	g.timer = time.AfterFunc(limit, func() {
		g.mu.Lock()
		lacking := g.lacking()
		opens := g.look(true)
		g.mu.Unlock()
		if opens {
			late(lacking)
		}
	})
	g.look(false)
}

// look opens the gate if it is time, and reports whether it did; the lock is
// held.
func (g *linkGate) look(late bool) bool {
	if g.opened || !g.awaited || !late && g.lacking() != "" {
		return false
	}
	g.opened = true
	g.timer.Stop()
	close(g.open)
	return true
}

// lacking are the members without a link; the lock is held.
func (g *linkGate) lacking() string {
	var out []string
	for _, id := range g.members {
		if !g.up[id] {
			out = append(out, string(id))
		}
	}
	return strings.Join(out, ", ")
}

// shut says what the gate waits for; empty once it is open.
func (g *linkGate) shut() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened {
		return ""
	}
	return "waiting for links to " + g.lacking()
}

// stop ends the waiting.
func (g *linkGate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer != nil {
		g.timer.Stop()
	}
}

// WaitReady returns once the node serves, or with the reason why it does not
// when ctx ends. A node serves when all its partitions do and its links to the
// other members are up; it does not wait for members that are down for longer
// than a few seconds.
func (n *Node) WaitReady(ctx context.Context) error {
	if err := n.actors.WaitReady(ctx); err != nil {
		return err
	}
	select {
	case <-n.linked.open:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %s", ctx.Err(), n.linked.shut())
	}
}

// Health is what the node says of itself.
func (n *Node) Health() actors.Health {
	h := n.actors.Health()
	if why := n.linked.shut(); h.Ready && why != "" {
		h.Ready, h.Reason = false, why
	}
	return h
}

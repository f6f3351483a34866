package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/messages"
)

const (
	// hedgeCost is how many gets pay for one that is asked twice; hedgeSaved how
	// many may be saved up for a node that falls silent under load.
	hedgeCost, hedgeSaved = 20, 4000
	// lateFor is how long a node comes last after another one answered in its
	// place.
	lateFor = time.Second
)

// budget bounds how often gets are asked twice, so that a cluster that is slow
// all over does not get twice the work.
type budget struct{ saved atomic.Int64 }

func newBudget() *budget {
	b := &budget{}
	b.saved.Store(hedgeSaved)
	return b
}

// earn is called for each get.
func (b *budget) earn() {
	if b.saved.Load() < hedgeSaved {
		b.saved.Add(1)
	}
}

// spend takes the price of asking twice, if it is there.
func (b *budget) spend() bool {
	if b.saved.Add(-hedgeCost) >= 0 {
		return true
	}
	b.saved.Add(hedgeCost)
	return false
}

// asked is a message on its way.
type asked struct {
	node string
	self *actor.PID
	done <-chan answered
}

// send sends a message to the coordinator of a node.
func (c *Client) send(node string, message any) (asked, error) {
	a, self := c.pending.open(node)
	if a == nil {
		return asked{}, errNotSent
	}
	c.system.Root.RequestWithCustomSender(actor.NewPID(node, messages.TargetCoordinator), message, self)
	return asked{node: node, self: self, done: a.done}, nil
}

// askEither asks a node and, if it says nothing for a while, another one, which
// spare names: empty as long as no other is connected. What comes first counts,
// except that a failure of one waits for the other. It is for reads only: a write
// that is carried out twice may leave a sibling.
func (c *Client) askEither(ctx context.Context, node string, spare func() string, message any) (answered, error) {
	first, err := c.send(node, message)
	if err != nil {
		return answered{}, err
	}
	defer c.pending.drop(first.self)
	c.budget.earn()
	wait := time.NewTicker(c.config.HedgeAfter)
	defer wait.Stop()
	var second asked
	for failures := 0; ; {
		var got answered
		select {
		case got = <-first.done:
		case got = <-second.done:
			c.routes.late(node, time.Now().Add(lateFor))
		case <-ctx.Done():
			return answered{node: node}, ctx.Err()
		case <-wait.C:
			other := spare()
			if second.done != nil || failures > 0 || other == "" || !c.budget.spend() {
				continue
			}
			if second, err = c.send(other, message); err != nil {
				return answered{}, err
			}
			defer c.pending.drop(second.self)
			continue
		}
		_, failed := got.message.(*messages.Failure)
		if failures++; !failed || failures > 1 || second.done == nil {
			return received(got)
		}
	}
}

// received makes an error of the end of the client.
func received(got answered) (answered, error) {
	if err, ok := got.message.(error); ok && errors.Is(err, ErrClosed) {
		return got, ErrClosed
	}
	return got, nil
}

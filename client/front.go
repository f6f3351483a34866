package client

import (
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
)

// Get asks the client's PID to read a key; the answer is a *GetResult to the
// sender.
type Get struct {
	Bucket, Key string
	Options     []Option
	// Timeout bounds the request; 0 is the client's own.
	Timeout time.Duration
	// Tag comes back in the answer.
	Tag any
}

// GetResult answers Get.
type GetResult struct {
	Tag    any
	Object Object
	Err    error
}

// Put asks the client's PID to write a key; the answer is a *PutResult to the
// sender.
type Put struct {
	Bucket, Key string
	Value       []byte
	Options     []Option
	Timeout     time.Duration
	Tag         any
}

// Delete asks the client's PID to delete a key; the answer is a *PutResult to
// the sender.
type Delete struct {
	Bucket, Key string
	Options     []Option
	Timeout     time.Duration
	Tag         any
}

// PutResult answers Put and Delete.
type PutResult struct {
	Tag     any
	Written Written
	Err     error
}

// maxInFlight bounds the requests that came as messages and are not answered.
const maxInFlight = 4096

// front is the actor form of the client. Each message becomes a request in a
// goroutine of its own, bounded in number; it is answered exactly once.
type front struct {
	client   *Client
	inFlight int
}

// over tells the front that a request has ended.
type over struct{}

func newFront(c *Client) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor { return &front{client: c} },
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{Shed: c.shed})))
}

// RuntimeControl lets an end make room before another request asks for it.
func (*over) RuntimeControl() {}

// shed answers a request that the front did not take: its queue is full, or the
// client is closed.
func (c *Client) shed(sender *actor.PID, message any) {
	err := ErrOverloaded
	select {
	case <-c.closed:
		err = ErrClosed
	default:
	}
	if sender == nil {
		return
	}
	switch m := message.(type) {
	case *Get:
		c.system.Root.Send(sender, &GetResult{Tag: m.Tag, Err: err})
	case *Put:
		c.system.Root.Send(sender, &PutResult{Tag: m.Tag, Err: err})
	case *Delete:
		c.system.Root.Send(sender, &PutResult{Tag: m.Tag, Err: err})
	}
}

// Receive starts requests.
func (f *front) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *Get:
		f.run(ctx, m.Timeout, func(c context.Context) any {
			o, err := f.client.Bucket(m.Bucket).Get(c, m.Key, m.Options...)
			return &GetResult{Tag: m.Tag, Object: o, Err: err}
		})
	case *Put:
		f.run(ctx, m.Timeout, func(c context.Context) any {
			w, err := f.client.Bucket(m.Bucket).Put(c, m.Key, m.Value, m.Options...)
			return &PutResult{Tag: m.Tag, Written: w, Err: err}
		})
	case *Delete:
		f.run(ctx, m.Timeout, func(c context.Context) any {
			w, err := f.client.Bucket(m.Bucket).Delete(c, m.Key, m.Options...)
			return &PutResult{Tag: m.Tag, Written: w, Err: err}
		})
	case *over:
		f.inFlight--
	}
}

// run carries out a request, or answers overloaded at once.
func (f *front) run(ctx actor.Context, timeout time.Duration, request func(context.Context) any) {
	sender, self, root := ctx.Sender(), ctx.Self(), ctx.ActorSystem().Root
	if f.inFlight >= maxInFlight {
		f.client.shed(sender, ctx.Message())
		return
	}
	f.inFlight++
	if timeout <= 0 {
		timeout = f.client.config.Timeout
	}
	f.client.wg.Go(func() {
		c, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if result := request(c); sender != nil {
			root.Send(sender, result)
		}
		root.Send(self, &over{})
	})
}

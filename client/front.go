package client

import (
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"
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

// Receive starts requests.
func (f *front) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *Get:
		f.run(ctx, m.Timeout, func(c context.Context) any {
			o, err := f.client.Bucket(m.Bucket).Get(c, m.Key, m.Options...)
			return &GetResult{Tag: m.Tag, Object: o, Err: err}
		}, &GetResult{Tag: m.Tag, Err: ErrOverloaded})
	case *Put:
		f.run(ctx, m.Timeout, func(c context.Context) any {
			w, err := f.client.Bucket(m.Bucket).Put(c, m.Key, m.Value, m.Options...)
			return &PutResult{Tag: m.Tag, Written: w, Err: err}
		}, &PutResult{Tag: m.Tag, Err: ErrOverloaded})
	case *Delete:
		f.run(ctx, m.Timeout, func(c context.Context) any {
			w, err := f.client.Bucket(m.Bucket).Delete(c, m.Key, m.Options...)
			return &PutResult{Tag: m.Tag, Written: w, Err: err}
		}, &PutResult{Tag: m.Tag, Err: ErrOverloaded})
	case *over:
		f.inFlight--
	}
}

// run carries out a request, or answers overloaded at once.
func (f *front) run(ctx actor.Context, timeout time.Duration, request func(context.Context) any, overloaded any) {
	sender, self, root := ctx.Sender(), ctx.Self(), ctx.ActorSystem().Root
	answer := func(m any) {
		if sender != nil {
			root.Send(sender, m)
		}
	}
	if f.inFlight >= maxInFlight {
		answer(overloaded)
		return
	}
	f.inFlight++
	if timeout <= 0 {
		timeout = f.client.config.Timeout
	}
	f.client.wg.Go(func() {
		c, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		answer(request(c))
		root.Send(self, &over{})
	})
}

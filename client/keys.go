package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/messages"
)

// pageSize is how many keys are asked for at once.
const pageSize = 1000

// Keys calls visit with every key of the bucket that some replica knows,
// deleted ones among them, each once, until visit returns an error. For each
// partition it asks so many replicas that at least one of them has each
// acknowledged write (N - W + 1), so no write is missed; that holds for writes
// with the bucket's own W or more, not for those that asked for less. Keys come
// partition by partition, in no useful order, and reflect no single moment.
func (b *Bucket) Keys(ctx context.Context, visit func(key string) error) error {
	if err := (dynamo.Key{Bucket: b.name, Name: "any"}).Validate(); err != nil {
		return &Error{Kind: ErrInvalid, Text: err.Error()}
	}
	if err := b.client.Ready(ctx); err != nil {
		return err
	}
	for p := range b.client.routes.partitions() {
		if err := b.partition(ctx, dynamo.Partition(p), visit); err != nil {
			return err
		}
	}
	return nil
}

// partition lists one partition's keys from enough replicas. Those that cannot
// be asked, for example because the client is only now connecting to them, are
// asked again for as long as a request may take.
func (b *Bucket) partition(ctx context.Context, p dynamo.Partition, visit func(string) error) error {
	list, needed := b.client.routes.primaries(p, b.name)
	nodes := list
	seen := map[string]bool{}
	fresh := func(key string) error {
		if seen[key] {
			return nil
		}
		seen[key] = true
		if err := visit(key); err != nil {
			return visitError{err}
		}
		return nil
	}
	for tries := time.Duration(0); ; tries++ {
		again, err := b.round(ctx, p, nodes, &needed, fresh)
		if needed == 0 {
			return nil
		}
		var failed *Error
		var stop visitError
		switch {
		case errors.As(err, &stop):
			return stop.error
		case err == nil || !errors.As(err, &failed):
			return err
		case ctx.Err() != nil || tries*ringRetry > b.client.config.Timeout:
			return &Error{Kind: ErrUnavailable, Text: fmt.Sprintf("listing partition %d needs %d more replicas: %v", p, needed, err)}
		}
		nodes = again
		if err := b.client.pause(ctx, ringRetry); errors.Is(err, ErrClosed) {
			return err
		}
		// Of a list and of the one that takes its place some replicas each are not enough.
		if now, all := b.client.routes.primaries(p, b.name); !slices.Equal(now, list) {
			list, nodes, needed = now, now, all
		}
	}
}

// visitError is an error of the application's function, which ends the listing
// whatever it is; that of a node may look the same.
type visitError struct{ error }

// round asks nodes until needed is 0 and returns those that failed, and why.
// What a replica that then fails has listed is visited already; the next one
// adds the rest.
func (b *Bucket) round(ctx context.Context, p dynamo.Partition, nodes []string, needed *int, visit func(string) error) ([]string, error) {
	var again []string
	var problems error
	for _, node := range nodes {
		if *needed == 0 {
			return nil, nil
		}
		err := b.list(ctx, node, p, visit)
		var failed *Error
		var stop visitError
		switch {
		case err == nil:
			*needed--
		case errors.As(err, &stop):
			return nil, err
		case errors.As(err, &failed):
			again, problems = append(again, node), errors.Join(problems, err)
		default:
			return nil, err
		}
	}
	return again, problems
}

// list pages through what one vnode holds.
func (b *Bucket) list(ctx context.Context, node string, p dynamo.Partition, visit func(string) error) error {
	var cursor []byte
	for {
		page, err := b.page(ctx, node, p, cursor)
		if err != nil {
			return err
		}
		for _, k := range page.GetKeys() {
			if err := visit(string(k)); err != nil {
				return err
			}
		}
		if cursor = page.GetCursor(); len(cursor) == 0 {
			return nil
		}
	}
}

func (b *Bucket) page(ctx context.Context, node string, p dynamo.Partition, cursor []byte) (*messages.KeysReply, error) {
	ctx, cancel := context.WithTimeout(ctx, b.client.config.Timeout)
	defer cancel()
	reply, err := b.client.ask(ctx, node, fmt.Sprintf("%s%d", messages.TargetVnode, p), &messages.KeysRequest{
		Partition: uint32(p), Bucket: []byte(b.name), Cursor: cursor, Limit: pageSize,
		TimeoutMs: uint32(b.client.config.Timeout.Milliseconds()),
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &Error{Kind: ErrUnavailable, Node: node, Text: "no answer in time"}
	case err != nil:
		return nil, err
	}
	switch m := reply.message.(type) {
	case *messages.KeysReply:
		return m, nil
	case *messages.Failure:
		if m.GetCode() == messages.CodeStale {
			b.client.stale()
		}
		return nil, fromFailure(reply.node, m)
	}
	return nil, &Error{Kind: ErrInternal, Node: reply.node, Text: fmt.Sprintf("unexpected answer %T", reply.message)}
}

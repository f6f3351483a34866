package client

import (
	"context"

	"github.com/dynactor/dynactor/messages"
)

type (
	// Actor is an actor as its node sees it from outside: what it does and has done, and what
	// waits for it. Stuck ones are seen like others.
	Actor = messages.Actor
	// Inspection is an actor and what it says of itself. Values of fields are string,
	// time.Duration, time.Time, Count, Bytes, Share, or List for further fields.
	Inspection = messages.Inspection
	// Fault is something that went wrong on a node: an actor that panicked, or an error that
	// was logged.
	Fault = messages.NodeFault
	// Panic is an actor's last failure.
	Panic = messages.ActorFault

	// Field is one thing that an actor says of itself.
	Field = messages.Field
	// List is a list of fields; More says that some were left out.
	List = messages.List
	// Count is a number of things.
	Count = messages.Count
	// Bytes is a size.
	Bytes = messages.Bytes
	// Share is a part of a whole that is 1.
	Share = messages.Share
)

// maxParts is in how many parts an answer may come.
const maxParts = 100

// Actors lists the actors of a node by name: those whose names have the pattern in them, or,
// if there is a * in it, which stands for any characters, fit it as a whole. A limit of 0
// lists all; left is how many more there are. Actors come and go meanwhile.
func (c *Cluster) Actors(ctx context.Context, node, pattern string, limit int) (all []Actor, left int, err error) {
	after := ""
	for range maxParts {
		m := &messages.ActorsRequest{Pattern: pattern, After: after, TimeoutMs: 1000}
		if limit > 0 {
			m.Limit = uint32(min(limit-len(all), messages.MaxActors))
		}
		r, err := askMember[*messages.ActorsReply](ctx, c.client, node, messages.TargetConsole, m)
		if err != nil {
			return all, left, err
		}
		var some []Actor
		if some, left, err = messages.ToActors(r, after); err != nil {
			return all, left, &Error{Kind: ErrInternal, Node: node, Text: err.Error()}
		}
		all = append(all, some...)
		if left == 0 || limit > 0 && len(all) >= limit {
			return all, left, nil
		}
		after = all[len(all)-1].Name
	}
	return all, left, nil
}

// Inspect asks an actor of a node how it is. One that does not say so within a second is
// described from outside (Inspection.NoAnswer). The error is ErrUnavailable when there is no
// such actor, or none any more.
func (c *Cluster) Inspect(ctx context.Context, node, actor string) (Inspection, error) {
	r, err := askMember[*messages.InspectReply](ctx, c.client, node, messages.TargetConsole, &messages.InspectRequest{Actor: actor, TimeoutMs: 1500})
	if err != nil {
		return Inspection{}, err
	}
	out, err := messages.ToInspection(r)
	if err != nil {
		return Inspection{}, &Error{Kind: ErrInternal, Node: node, Text: err.Error()}
	}
	return out, nil
}

// Errors tells what went wrong on a node lately, latest first, and how much more has since
// the node has started. A limit of 0 is all that the node keeps.
func (c *Cluster) Errors(ctx context.Context, node string, limit int) (all []Fault, more uint64, err error) {
	m := &messages.ErrorsRequest{TimeoutMs: 1000}
	if limit > 0 {
		m.Limit = uint32(min(limit, messages.MaxErrors))
	}
	r, err := askMember[*messages.ErrorsReply](ctx, c.client, node, messages.TargetConsole, m)
	if err != nil {
		return nil, 0, err
	}
	if all, err = messages.ToFaults(r); err != nil {
		return nil, 0, &Error{Kind: ErrInternal, Node: node, Text: err.Error()}
	}
	return all, r.GetMore(), nil
}

package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dynactor/dynactor/messages"
)

// What a request can end with. Errors are tested with errors.Is; errors.As with
// *Error gives the details.
var (
	// ErrNotFound: the key has no value. Get does not return it; One does.
	ErrNotFound = errors.New("client: not found")
	// ErrConflict: there are several values where one was asked for.
	ErrConflict = errors.New("client: several concurrent values")
	// ErrUnavailable: too few replicas answered, or no node could be reached. A
	// write was not attempted.
	ErrUnavailable = errors.New("client: unavailable")
	// ErrUnknown: a write that may or may not take effect.
	ErrUnknown = errors.New("client: outcome unknown")
	// ErrOverloaded: every node that was asked has too much to do.
	ErrOverloaded = errors.New("client: overloaded")
	// ErrInvalid: the request is malformed or over a limit.
	ErrInvalid = errors.New("client: invalid request")
	// ErrContext: the context is damaged or belongs to another key.
	ErrContext = errors.New("client: bad context")
	// ErrTooLarge: the value is over the store's limit.
	ErrTooLarge = errors.New("client: value is too large")
	// ErrSiblings: the write would leave too many concurrent values; read,
	// merge them, and write with the context.
	ErrSiblings = errors.New("client: too many concurrent values")
	// ErrRefused: the node does not let this client do that.
	ErrRefused = errors.New("client: refused")
	// ErrChanged: the cluster has changed since what was asked for was planned.
	ErrChanged = errors.New("client: the cluster has changed")
	// ErrInternal: a node failed while it had the request, or it does not
	// understand it.
	ErrInternal = errors.New("client: internal error of a node")
	// ErrClosed: the client was closed. A write that was under way then is
	// ErrUnknown too.
	ErrClosed = errors.New("client: closed")
)

// Error is a request's failure as the node reported it.
type Error struct {
	// Kind is one of the sentinels above.
	Kind error
	// Text says what was wrong and what to do.
	Text string
	// Node is the node that said so; empty if none did.
	Node string
	// Cause is what ended the request here: the error of its context, or
	// ErrClosed; nil when a node's answer did. errors.Is finds it too.
	Cause error
	// Answered of Needed replicas answered, when a quorum was not met; the same
	// of primaries.
	Answered, Needed                   int
	PrimariesAnswered, PrimariesNeeded int
}

// Error is kind, text and node. A text that begins with the kind, as those of
// nodes may, does not say it twice.
func (e *Error) Error() string {
	out := e.Kind.Error()
	if text := strings.TrimPrefix(e.Text, strings.TrimPrefix(out, "client: ")+": "); text != "" {
		out += ": " + text
	}
	if e.Node != "" {
		out += fmt.Sprintf(" (node %s)", e.Node)
	}
	return out
}

// Unwrap gives errors.Is the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

var kinds = map[uint32]error{
	messages.CodeInvalid: ErrInvalid, messages.CodeBadContext: ErrContext, messages.CodeTooLarge: ErrTooLarge,
	messages.CodeSiblings: ErrSiblings, messages.CodeClockAhead: ErrInvalid, messages.CodeUnavailable: ErrUnavailable,
	messages.CodeUnknown: ErrUnknown, messages.CodeOverloaded: ErrOverloaded, messages.CodeUnreachable: ErrUnavailable,
	messages.CodeExpired: ErrUnavailable, messages.CodeStorage: ErrUnavailable, messages.CodeStale: ErrUnavailable,
	messages.CodeNotReady: ErrUnavailable, messages.CodeRefused: ErrRefused,
	messages.CodeForgotten: ErrUnknown, messages.CodeConflict: ErrChanged,
}

func fromFailure(node string, f *messages.Failure) *Error {
	kind, ok := kinds[f.GetCode()]
	if !ok {
		kind = ErrInternal
	}
	return &Error{
		Kind: kind, Text: f.GetText(), Node: node, Answered: int(f.GetAnswered()), Needed: int(f.GetNeeded()),
		PrimariesAnswered: int(f.GetPrimariesAnswered()), PrimariesNeeded: int(f.GetPrimariesNeeded()),
	}
}

// verdict is what to do after a failed attempt.
type verdict uint8

const (
	// final: no node would say otherwise.
	final verdict = iota
	// nextNode: it was not carried out there; another node may.
	nextNode
	// sameAgain: a write that may have been carried out; repeat it under the
	// same request id.
	sameAgain
)

// judge decides by the code of a failure. write says that the request writes.
func judge(code uint32, write bool) verdict {
	switch code {
	case messages.CodeUnavailable, messages.CodeOverloaded, messages.CodeUnreachable, messages.CodeExpired,
		messages.CodeStorage, messages.CodeNotReady, messages.CodeStale:
		return nextNode
	case messages.CodeUnknown, messages.CodeInternal:
		if write {
			return sameAgain
		}
		return nextNode
	}
	return final
}

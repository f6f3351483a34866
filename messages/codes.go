package messages

import "fmt"

// Codes of Failure. They may only grow; an unknown one is treated as internal.
const (
	// CodeInternal: a defect on the answering node; the outcome is unknown.
	CodeInternal uint32 = 1
	// CodeInvalid: the request is malformed or over a limit; it never works.
	CodeInvalid uint32 = 2
	// CodeBadContext: the context is damaged or belongs to another key.
	CodeBadContext uint32 = 3
	// CodeTooLarge: the value is over the configured limit.
	CodeTooLarge uint32 = 4
	// CodeSiblings: the write would leave too many concurrent versions.
	CodeSiblings uint32 = 5
	// CodeClockAhead: a last-write-wins clock is too far in the future.
	CodeClockAhead uint32 = 6
	// CodeUnavailable: too few replicas answered. For a write: nothing was
	// attempted, trying again is safe.
	CodeUnavailable uint32 = 7
	// CodeUnknown: a write that may or may not take effect.
	CodeUnknown uint32 = 8
	// CodeOverloaded: not attempted, a queue is full; try again later.
	CodeOverloaded uint32 = 9
	// CodeUnsupported: the node does not know this message.
	CodeUnsupported uint32 = 10
	// CodeUnreachable: the addressed actor does not exist or its node is not
	// connected; nothing was attempted.
	CodeUnreachable uint32 = 11
	// CodeExpired: the time to answer was over before the work began.
	CodeExpired uint32 = 12
	// CodeStorage: the node's store failed; nothing was acknowledged.
	CodeStorage uint32 = 13
	// CodeStale: the request was planned with an old ring.
	CodeStale uint32 = 14
	// CodeNotReady: the node is starting, stopping or not yet in a cluster.
	CodeNotReady uint32 = 15
	// CodeRefused: the sender may not do this.
	CodeRefused uint32 = 16
	// CodeForgotten: a repeated write whose first attempt the store no longer
	// remembers; whether it took effect is not known, and asking again will not
	// tell.
	CodeForgotten uint32 = 17
	// CodeConflict: the cluster has changed since what was asked for was planned;
	// nothing was changed.
	CodeConflict uint32 = 18
	// CodeTooOld: a record in the message was read from its store so long ago that it
	// must not be merged any more. Nothing was; read it again.
	CodeTooOld uint32 = 19
)

var codeNames = map[uint32]string{
	CodeInternal: "internal", CodeInvalid: "invalid", CodeBadContext: "bad context", CodeTooLarge: "too large",
	CodeSiblings: "too many siblings", CodeClockAhead: "clock ahead", CodeUnavailable: "unavailable",
	CodeUnknown: "outcome unknown", CodeOverloaded: "overloaded", CodeUnsupported: "unsupported",
	CodeUnreachable: "unreachable", CodeExpired: "expired", CodeStorage: "storage failed", CodeStale: "stale ring",
	CodeNotReady: "not ready", CodeRefused: "refused",
	CodeForgotten: "no longer remembered", CodeConflict: "conflict", CodeTooOld: "read too long ago",
}

// CodeName is the code's word in errors and logs.
func CodeName(code uint32) string {
	if n, ok := codeNames[code]; ok {
		return n
	}
	return fmt.Sprintf("code %d", code)
}

// Fail makes a Failure with a formatted text.
func Fail(code uint32, format string, args ...any) *Failure {
	return &Failure{Code: code, Text: fmt.Sprintf(format, args...)}
}

// Error makes a Failure usable as an error.
func (x *Failure) Error() string {
	if x.GetText() == "" {
		return CodeName(x.GetCode())
	}
	return CodeName(x.GetCode()) + ": " + x.GetText()
}

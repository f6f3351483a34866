package link

import (
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/messages"
)

// Errors of a connection. They are wrapped with the details and end up in
// PeerStatus.LastError, the log and the Observer.
var (
	// ErrFrame: the bytes are not a frame; the two ends disagree about where
	// frames begin, so the connection is of no more use.
	ErrFrame = errors.New("damaged frame")
	// ErrFrameTooLong: a frame announces more than Config.MaxFrame.
	ErrFrameTooLong = errors.New("frame is too long")
	// ErrHello: the first frame is not a hello of this protocol.
	ErrHello = errors.New("bad hello")
	// ErrSilence: nothing arrived for Config.Silence.
	ErrSilence = errors.New("peer is silent")
	// ErrStalled: the peer did not take what was written for Config.Silence.
	ErrStalled = errors.New("peer does not read")
	// ErrReplaced: the peer has called again, so the old connection is dead.
	ErrReplaced = errors.New("replaced by a newer connection")
	// ErrRemoved: Remove was called, or an inbound peer has gone.
	ErrRemoved = errors.New("peer was removed")
	// ErrStopped: this node's links are stopping or have stopped.
	ErrStopped = errors.New("links are stopped")
	// ErrRestarted: the peer's actor failed and was restarted.
	ErrRestarted = errors.New("link actor was restarted")
	// ErrClusterChanged: this node has got a cluster id since the hello.
	ErrClusterChanged = errors.New("cluster id changed since the hello")
	// ErrDelivery: a local process panicked in the reader.
	ErrDelivery = errors.New("delivery failed")
)

// Reason says why a message did not get through.
type Reason uint8

// Reasons on the sending side come back to the sender in Undelivered; those
// on the receiving side are answered with a Failure if the message was a
// request. All are counted in PeerStatus.Dropped.
const (
	// Full: the lane's queue is at its bound.
	Full Reason = iota + 1
	// NotConnected: there is no connection to the node, or no such node.
	NotConnected
	// Broken: the connection broke while the message was still queued.
	Broken
	// Expired: the request's time was over before it could be written.
	Expired
	// TooLarge: the encoded message does not fit into a frame.
	TooLarge
	// Unencodable: the message has no number, fails to encode, or its sender
	// is not an actor of this node.
	Unencodable
	// System: stop, poison, watch and their like stay on their node.
	System
	// Unsupported: received, but this program does not know the number.
	Unsupported
	// Forbidden: received from a role that may not send it to that target.
	Forbidden
	// NoTarget: received for an actor that does not exist.
	NoTarget
	// Undecodable: received, but not a valid message of its number.
	Undecodable

	reasons
)

var reasonNames = [reasons]string{
	Full: "queue full", NotConnected: "not connected", Broken: "connection broke", Expired: "expired",
	TooLarge: "too large", Unencodable: "not encodable", System: "system message", Unsupported: "unsupported",
	Forbidden: "forbidden", NoTarget: "no such actor", Undecodable: "undecodable",
}

// String is the reason's word in logs and counters.
func (r Reason) String() string {
	if r < reasons && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Code is the messages code for the reason, for those who answer with a
// Failure.
func (r Reason) Code() uint32 {
	switch r {
	case Full:
		return messages.CodeOverloaded
	case NotConnected, Broken, NoTarget:
		return messages.CodeUnreachable
	case Expired:
		return messages.CodeExpired
	case TooLarge:
		return messages.CodeTooLarge
	case Unsupported:
		return messages.CodeUnsupported
	case Forbidden:
		return messages.CodeRefused
	case Undecodable:
		return messages.CodeInvalid
	}
	return messages.CodeInternal
}

// Undelivered tells the sender that a message was certainly not sent, so that
// it can take the next node. It comes to the sender's mailbox, possibly before
// the call that sent the message has returned.
type Undelivered struct {
	// Target is the PID that the message was sent to.
	Target *actor.PID
	// Message is what was sent (of a Shared, the message inside).
	Message any
	Reason  Reason
}

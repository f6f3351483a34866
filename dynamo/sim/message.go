package sim

import (
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// pid is where an answer goes: a request of a node or an attempt of a client,
// by number.
type pid struct {
	endpoint int
	number   uint64
}

// readRequest asks a vnode for its record; readReply answers it with the
// encoded record, or none.
type readRequest struct {
	key, digestAbove int
	timeout          time.Duration
	plan             uint64
}

type readReply struct {
	record        []byte
	read          time.Duration // when, from the store
	authoritative bool
}

// replicateRequest hands a vnode an encoded record; replicateReply confirms it.
type replicateRequest struct {
	key    int
	record []byte
	// read is when the oldest part of the record was read from a store, or made.
	read    time.Duration
	sync    bool
	timeout time.Duration
	// hintFor is whom the receiver stands in for.
	hintFor dynamo.NodeID
	// plan is the version of the document that the request was planned with.
	plan uint64
}

// staleReply refuses a request that was planned with an older document than the
// version that is in force at the replica.
type staleReply struct{ version uint64 }

type replicateReply struct{}

// coordinate asks the local vnode for the dot of a write. It is answered with
// prepared, then durable; or with refused or failure.
type coordinate struct {
	key     int
	hintFor dynamo.NodeID
	put     vnode.Put
	sync    bool
	timeout time.Duration
	plan    uint64
}

type prepared struct {
	result vnode.Result
	read   time.Duration
}

type durable struct{}

type refused struct{ err error }

// getRequest and putRequest are what clients send to a coordinator.
type getRequest struct {
	key     int
	timeout time.Duration
}

type putRequest struct {
	key     int
	id      dynamo.RequestID
	value   []byte
	context []byte
	delete  bool
	ttl     time.Duration // 0: the bucket's
	retry   bool
	age     time.Duration
	hops    int
	timeout time.Duration
}

// getReply and putReply answer clients.
type getReply struct {
	versions []version.Version
	context  []byte
}

type putReply struct {
	context []byte
}

// code says why something was not done.
type code uint8

const (
	codeUnavailable code = iota + 1
	codeUnknown
	codeOverloaded
	codeUnreachable
	codeNotReady
	codeExpired
	codeStorage
	codeInternal
	codeSiblings
	codeInvalid
)

var codeNames = [...]string{
	"", "unavailable", "unknown", "overloaded", "unreachable", "not ready", "expired", "storage", "internal", "siblings", "invalid",
}

// String is the code's word in traces.
func (c code) String() string { return codeNames[c] }

type failure struct{ code code }

// reason translates a replica's failure for a request machine.
func (f failure) reason() request.Reason {
	switch f.code {
	case codeOverloaded:
		return request.Overloaded
	case codeUnreachable, codeNotReady:
		return request.Unreachable
	case codeStorage:
		return request.StorageFailed
	case codeExpired:
		return request.TimedOut
	case codeInternal:
		return request.Crashed
	}
	return request.Declined
}

// notAttempted reports whether a failure means that nothing was written.
func (f failure) notAttempted() bool {
	switch f.code {
	case codeOverloaded, codeUnreachable, codeNotReady, codeUnavailable, codeStorage:
		return true
	}
	return false
}

// Package dynamo holds the nouns that every part of the store shares: nodes,
// keys, partitions, replicas, and the limits on what a client may send.
//
// The packages below it are the paper ("Dynamo: Amazon's Highly Available
// Key-value Store", SOSP 2007) as pure Go: no goroutine, lock, clock,
// randomness, log or I/O. Time and random ids come in as arguments, so the
// same input always gives the same output and a failure replays from its seed.
package dynamo

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Limits on client input. They hold for client requests only:
// replication, repair and handoff are never refused by them.
const (
	// MaxBucket is the longest bucket name in bytes; the shortest is 1.
	MaxBucket = 255
	// MaxKey is the longest key in bytes; the shortest is 1.
	MaxKey = 1024
	// DefaultMaxValue is the largest value in bytes unless configured.
	DefaultMaxValue = 1 << 20
	// CeilingMaxValue is the highest value size that can be configured.
	CeilingMaxValue = 16 << 20
	// MaxContext is the largest encoded causal context in bytes.
	MaxContext = 64 << 10
	// MaxSiblings is how many concurrent versions a client's put may leave.
	MaxSiblings = 100
	// MaxSiblingBytes is how many bytes the concurrent versions that a client's
	// put leaves may have together; one version alone may have more. A record
	// travels in one message of at most 32 MiB, also when three coordinators
	// that could not hear each other have each filled it.
	MaxSiblingBytes = 10 << 20
	// WarnSiblings is the number of siblings from which a warning is counted.
	WarnSiblings = 25
	// MaxNodeName is the longest node name in bytes.
	MaxNodeName = 64
)

// Errors of checking client input.
var (
	// ErrEmptyBucket: a bucket name has at least one byte.
	ErrEmptyBucket = errors.New("bucket is empty")
	// ErrBucketTooLong: a bucket name has at most MaxBucket bytes.
	ErrBucketTooLong = errors.New("bucket is too long")
	// ErrEmptyKey: a key has at least one byte.
	ErrEmptyKey = errors.New("key is empty")
	// ErrKeyTooLong: a key has at most MaxKey bytes.
	ErrKeyTooLong = errors.New("key is too long")
	// ErrNodeName: a node name is 1 to MaxNodeName of a-z A-Z 0-9 . _ -
	ErrNodeName = errors.New("bad node name")
)

// NodeID names one member of the cluster for as long as it is a member. It is
// the node's configured name, not its address: a node may move to another one.
type NodeID string

// Validate reports whether the id can be a member's name.
func (n NodeID) Validate() error {
	if len(n) == 0 || len(n) > MaxNodeName {
		return fmt.Errorf("%w: %q has %d bytes, allowed are 1 to %d", ErrNodeName, string(n), len(n), MaxNodeName)
	}
	for _, c := range []byte(n) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
		if !ok {
			return fmt.Errorf("%w: %q has %q, allowed are letters, digits and . _ -", ErrNodeName, string(n), c)
		}
	}
	return nil
}

// Key is what a client stores a value under: a name in a bucket. Both are
// arbitrary bytes, kept in strings so that keys compare and serve in maps.
type Key struct {
	Bucket string
	Name   string
}

// Validate checks both lengths against the limits.
func (k Key) Validate() error {
	switch {
	case k.Bucket == "":
		return ErrEmptyBucket
	case len(k.Bucket) > MaxBucket:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrBucketTooLong, len(k.Bucket), MaxBucket)
	case k.Name == "":
		return ErrEmptyKey
	case len(k.Name) > MaxKey:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrKeyTooLong, len(k.Name), MaxKey)
	}
	return nil
}

// String prints bucket/key, quoted so that hostile bytes stay harmless.
func (k Key) String() string { return fmt.Sprintf("%q/%q", k.Bucket, k.Name) }

// Partition is one of Q equal slices of the hash space (paper § 6.2,
// strategy 3), numbered from 0.
type Partition uint32

// Role says in what capacity a replica serves a key.
type Role uint8

const (
	// Primary: the node is among the first N of the preference list.
	Primary Role = iota
	// Fallback: the node stands in for a primary that is unreachable (§ 4.6).
	Fallback
)

// String is the role's word in the glossary.
func (r Role) String() string {
	if r == Fallback {
		return "fallback"
	}
	return "primary"
}

// Replica is one place that should hold a key: a vnode on a node.
type Replica struct {
	Partition Partition
	Node      NodeID
	Role      Role
	// For is the unreachable primary that a fallback stands in for; empty for
	// a primary.
	For NodeID
}

// RequestID names one client write over all of its retries. The zero id means
// that the client gave none; such a write is never recognised as a retry.
type RequestID [16]byte

// IsZero reports whether no id was given.
func (r RequestID) IsZero() bool { return r == RequestID{} }

// String is the id in hexadecimal.
func (r RequestID) String() string { return hex.EncodeToString(r[:]) }

// Timestamp is a wall-clock instant in nanoseconds since the Unix epoch. It
// orders nothing between nodes except in last-write-wins buckets.
type Timestamp int64

// Add returns the instant d later.
func (t Timestamp) Add(d time.Duration) Timestamp { return t + Timestamp(d) }

// Sub returns the time from u to t.
func (t Timestamp) Sub(u Timestamp) time.Duration { return time.Duration(t - u) }

// Time converts for printing, in UTC.
func (t Timestamp) Time() time.Time { return time.Unix(0, int64(t)).UTC() }

// Durability says when a write counts as done (paper § 6.1).
type Durability uint8

const (
	// DurabilityAll: every counted replica answers after its disk has it.
	DurabilityAll Durability = iota
	// DurabilityOne: the coordinating vnode answers after its disk has the
	// write, the others from memory.
	DurabilityOne
	// DurabilityNone: every replica answers from memory; a crash of the
	// machines may lose writes that were acknowledged.
	DurabilityNone
)

var durabilityNames = [...]string{"all", "one", "none"}

// String is the word used in configuration.
func (d Durability) String() string { return name(durabilityNames[:], int(d)) }

// ParseDurability reads the word used in configuration.
func ParseDurability(s string) (Durability, error) {
	i, err := parse("durability", durabilityNames[:], s)
	return Durability(i), err
}

// Conflicts says what a bucket does with concurrent versions.
type Conflicts uint8

const (
	// Siblings hands all of them to the client (paper § 4.4).
	Siblings Conflicts = iota
	// LastWriteWins shows the version with the latest timestamp; the others
	// stay in the store until a write supersedes them (§ 6, timestamp based
	// reconciliation).
	LastWriteWins
)

var conflictsNames = [...]string{"siblings", "lww"}

// String is the word used in configuration.
func (c Conflicts) String() string { return name(conflictsNames[:], int(c)) }

// ParseConflicts reads the word used in configuration.
func ParseConflicts(s string) (Conflicts, error) {
	i, err := parse("conflicts", conflictsNames[:], s)
	return Conflicts(i), err
}

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func parse(what string, names []string, s string) (int, error) {
	for i, n := range names {
		if n == s {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s %q is not one of %v", what, s, names)
}

package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

// Limits of the protocol, not configurable because both ends must agree.
const (
	// MaxNodeID is the longest node or client id in bytes.
	MaxNodeID = 64
	// MaxActorID is the longest actor id on the wire in bytes.
	MaxActorID = 512
	// MaxClusterID is the longest cluster id in bytes.
	MaxClusterID = 64
	// MaxText is the longest cluster name, address or refusal text in bytes.
	MaxText = 255
	// envelopeOverhead is more than an envelope takes besides its payload.
	envelopeOverhead = 2*MaxActorID + 64
)

// Config says who this end is and what it allows. Begin with Default.
type Config struct {
	// NodeID is this end's id: letters, digits and . _ - (at most MaxNodeID).
	// It must be the address of the actor system.
	NodeID string
	// Role is RoleNode or RoleClient.
	Role messages.Role
	// ClusterName must be the same at both ends.
	ClusterName string
	// ClusterID returns the id of the founded cluster, empty before. Two ends
	// with different ids refuse each other. Nodes of which one has none may
	// only exchange what founding needs. nil: a client that does not know it.
	// It is called from several goroutines.
	ClusterID func() []byte
	// Store is the id of the node's store; empty on clients.
	Store []byte
	// Admit, if set, says why a node that belongs to the cluster is not wanted, and the
	// version of the cluster document that says so. It is called from several goroutines.
	Admit func(Hello) (version uint64, err error)
	// Start grows with each start of this node: a process that was replaced by
	// a later one is refused. Clients use a random number.
	Start uint64
	// Listener accepts connections; Links closes it. nil for clients.
	Listener net.Listener
	// Advertise is where others can reach this end, for their information.
	Advertise string
	// TLS encrypts and authenticates; nil is plaintext. It serves both
	// directions, so it needs a certificate, RootCAs and, on a node, ClientCAs
	// with ClientAuth. TLS 1.3 is the lowest version whatever it says.
	TLS *tls.Config
	// VerifyPeer decides whether a certificate may say this hello. nil is
	// VerifyNodeName. Not called without TLS.
	VerifyPeer func(state tls.ConnectionState, hello Hello) error

	// MaxFrame is the longest frame body in bytes.
	MaxFrame int
	// QueueMessages and QueueBytes bound what waits to be written, per lane.
	QueueMessages, QueueBytes int
	// Heartbeat is the time between two heartbeats on a connection, Silence
	// how long nothing may arrive before it is broken.
	Heartbeat, Silence time.Duration
	// BackoffMin and BackoffMax bound the jittered pause between attempts.
	BackoffMin, BackoffMax time.Duration
	// DialTimeout bounds connecting, HelloTimeout the TLS handshake and hello.
	DialTimeout, HelloTimeout time.Duration
	// DrainTimeout is how long an orderly stop may take to write what is queued.
	DrainTimeout time.Duration
	// MaxConnections bounds accepted connections, MaxUnauthenticated those
	// among them that have not said hello yet.
	MaxConnections, MaxUnauthenticated int

	// Clock is what records in messages are dated by, on this node; nil is rt.Clock.
	Clock func() time.Duration
	// Dial connects to an address; nil is TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Observer is told of what happens.
	Observer Observer
	// Logger gets what an operator must see; nil discards.
	Logger *slog.Logger
	// Registry lists the link actors for a console; nil lists them nowhere.
	Registry *rt.Registry
}

// Default is a configuration with every limit set. Who this end is remains to
// be filled in.
func Default() Config {
	return Config{
		Role:               messages.RoleNode,
		MaxFrame:           32 << 20,
		QueueMessages:      16384,
		QueueBytes:         64 << 20,
		Heartbeat:          500 * time.Millisecond,
		Silence:            2 * time.Second,
		BackoffMin:         50 * time.Millisecond,
		BackoffMax:         2 * time.Second,
		DialTimeout:        2 * time.Second,
		HelloTimeout:       2 * time.Second,
		DrainTimeout:       time.Second,
		MaxConnections:     8192,
		MaxUnauthenticated: 1024,
	}
}

// Validate reports every problem of the configuration, joined.
func (c *Config) Validate() error {
	var problems []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			problems = append(problems, fmt.Errorf("link: "+format, args...))
		}
	}
	add(!validID(c.NodeID), "node id %q: want 1 to %d of a-z A-Z 0-9 . _ -", c.NodeID, MaxNodeID)
	add(c.Role != messages.RoleNode && c.Role != messages.RoleClient, "role %d is neither node nor client", c.Role)
	add(c.ClusterName == "" || len(c.ClusterName) > MaxText, "cluster name has %d bytes, want 1 to %d", len(c.ClusterName), MaxText)
	add(len(c.Advertise) > MaxText, "advertised address has %d bytes, at most %d", len(c.Advertise), MaxText)
	add(c.Role == messages.RoleClient && c.Listener != nil, "a client never listens")
	add(c.TLS != nil && c.Listener != nil && len(c.TLS.Certificates) == 0 && c.TLS.GetCertificate == nil,
		"a listener with TLS needs a certificate")
	add(c.MaxFrame < 64<<10, "MaxFrame is %d bytes, want at least 64 KiB", c.MaxFrame)
	add(c.QueueMessages < 1, "QueueMessages is %d, want at least 1", c.QueueMessages)
	add(c.QueueBytes < c.MaxFrame, "QueueBytes is %d, want at least MaxFrame (%d), or the largest message never fits", c.QueueBytes, c.MaxFrame)
	add(c.Heartbeat <= 0 || c.Silence < 2*c.Heartbeat, "Silence (%v) must be at least twice Heartbeat (%v)", c.Silence, c.Heartbeat)
	add(c.BackoffMin <= 0 || c.BackoffMax < c.BackoffMin, "back-off from %v to %v", c.BackoffMin, c.BackoffMax)
	add(c.DialTimeout <= 0 || c.HelloTimeout <= 0 || c.DrainTimeout <= 0, "timeouts must be positive: dial %v, hello %v, drain %v",
		c.DialTimeout, c.HelloTimeout, c.DrainTimeout)
	add(c.MaxUnauthenticated < 1 || c.MaxConnections < c.MaxUnauthenticated,
		"MaxConnections (%d) must be at least MaxUnauthenticated (%d), and that at least 1", c.MaxConnections, c.MaxUnauthenticated)
	return errors.Join(problems...)
}

// validID reports whether an id can name an end of a link. It is part of actor
// names and of log lines, so the set is narrow.
func validID(id string) bool {
	if id == "" || len(id) > MaxNodeID {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// clusterID is ClusterID with nil meaning none.
func (c *Config) clusterID() []byte {
	if c.ClusterID == nil {
		return nil
	}
	return c.ClusterID()
}

// Observer is told what happens on links. Every function may be nil; they are
// called from several goroutines and must not block.
type Observer struct {
	// Up: the request lane to a peer is up.
	Up func(p Peer)
	// Down: it is down again.
	Down func(p Peer, why error)
	// Refused: one end refused the other's hello.
	Refused func(r Refusal)
	// Dropped: n messages from or to a peer did not get through.
	Dropped func(peer string, why Reason, n int)
	// Slow: one write to a peer took longer than a heartbeat.
	Slow func(peer string, took time.Duration)
	// Heard: a heartbeat was answered; the round trip took so long.
	Heard func(peer string, rtt time.Duration)
}

// Peer names the other end of a link.
type Peer struct {
	ID   string
	Role messages.Role
	// Start is the peer's start number.
	Start uint64
	// Address is where it was dialled, or what it advertises.
	Address string
	// FoundingOnly: one end has no cluster id yet, so only founding messages pass.
	// The link is made anew when that changes.
	FoundingOnly bool
}

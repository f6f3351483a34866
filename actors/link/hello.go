package link

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/dynactor/dynactor/messages"
)

// Protocol versions that this program speaks. Version 2 is this file and
// frame.go; a change that an older program would misread needs a new one.
// Version 1 had no dates: its records cannot be told from ones that are too old.
const (
	minVersion = 2
	maxVersion = 2
)

// magic begins every hello, so that a stranger's bytes are told from a newer
// version's.
const magic = "DYNL"

// Lanes of a peer. A probe asks who is there and makes no link.
const (
	// LaneRequest carries requests and answers.
	LaneRequest = 0
	// LaneBulk carries what may wait: listings, transfers, exchanges.
	LaneBulk  = 1
	lanes     = 2
	laneProbe = 255
)

// Hello is what each end says first: the dialler in its hello, the acceptor in
// its welcome.
type Hello struct {
	// MinVersion and MaxVersion are the protocol versions the end speaks.
	MinVersion, MaxVersion uint16
	Role                   messages.Role
	Lane                   uint8
	// Start and Sequence order what this end has said about the lane.
	Start, Sequence uint64
	Cluster         string
	// ClusterID is empty before founding and with clients that do not know it.
	ClusterID []byte
	NodeID    string
	// Target is whom the end means to talk to; empty if it does not know yet.
	Target string
	// Advertise is where the end can be reached; empty if it cannot.
	Advertise string
	// Store is the id of the node's store; empty with clients.
	Store []byte
	// Process is a random number that each process has its own of: copies of one
	// store start under the same numbers.
	Process uint64
	// Stamp is the end's clock when it said this. A welcome repeats the hello's stamp as
	// Echo; the dialler answers the welcome's by its first frame.
	Stamp, Echo uint64
}

// appendHello appends a hello or welcome frame.
func appendHello(dst []byte, kind byte, h *Hello) []byte {
	dst, start := beginFrame(dst, kind)
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint16(dst, h.MinVersion)
	dst = binary.BigEndian.AppendUint16(dst, h.MaxVersion)
	dst = append(dst, byte(h.Role), h.Lane)
	dst = binary.BigEndian.AppendUint64(dst, h.Start)
	dst = binary.BigEndian.AppendUint64(dst, h.Sequence)
	dst = appendString(dst, h.Cluster)
	dst = appendString(dst, string(h.ClusterID))
	dst = appendString(dst, h.NodeID)
	dst = appendString(dst, h.Target)
	dst = appendString(dst, h.Advertise)
	dst = appendString(dst, string(h.Store))
	dst = binary.BigEndian.AppendUint64(dst, h.Process)
	dst = binary.BigEndian.AppendUint64(dst, h.Stamp)
	dst = binary.BigEndian.AppendUint64(dst, h.Echo)
	return endFrame(dst, start)
}

// parseHello reads the body of a hello or welcome after its kind. What follows
// the known fields belongs to a newer version and is ignored.
func parseHello(b []byte) (Hello, error) {
	d := decoder{rest: b}
	if string(d.fixed(len(magic))) != magic {
		return Hello{}, fmt.Errorf("%w: it does not begin with %q", ErrHello, magic)
	}
	var h Hello
	if v := d.fixed(4); v != nil {
		h.MinVersion, h.MaxVersion = binary.BigEndian.Uint16(v), binary.BigEndian.Uint16(v[2:])
	}
	h.Role = messages.Role(d.byte())
	h.Lane = d.byte()
	h.Start = d.uint64()
	h.Sequence = d.uint64()
	h.Cluster = string(d.bytes(MaxText))
	h.ClusterID = bytes.Clone(d.bytes(MaxClusterID))
	h.NodeID = string(d.bytes(MaxNodeID))
	h.Target = string(d.bytes(MaxNodeID))
	h.Advertise = string(d.bytes(MaxText))
	h.Store = bytes.Clone(d.bytes(MaxClusterID))
	h.Process = d.uint64()
	if len(d.rest) > 0 { // version 1, which is to be refused for that, ends here
		h.Stamp, h.Echo = d.uint64(), d.uint64()
	}
	if d.bad {
		return Hello{}, fmt.Errorf("%w: %d bytes are not its fields", ErrHello, len(b))
	}
	return h, nil
}

// RefusalCode says why an end does not want a link.
type RefusalCode uint8

// Refusal codes. They may only grow.
const (
	// RefusedVersion: no protocol version in common.
	RefusedVersion RefusalCode = iota + 1
	// RefusedCluster: another cluster name or id.
	RefusedCluster
	// RefusedSelf: an end has dialled itself.
	RefusedSelf
	// RefusedDuplicate: another process uses the same id.
	RefusedDuplicate
	// RefusedTarget: the address belongs to another node.
	RefusedTarget
	// RefusedStart: a later start of that node has been seen.
	RefusedStart
	// RefusedRole: the role may not do this, or not with this certificate.
	RefusedRole
	// RefusedHello: a field of the hello makes no sense.
	RefusedHello
	// RefusedSuperseded: the other end's own attempt goes on instead. Normal.
	RefusedSuperseded
	// RefusedStale: leftover of a race that is decided. Normal.
	RefusedStale
	// RefusedStopping: the end is stopping. The last frame of an orderly stop.
	RefusedStopping
	// RefusedMember: the node is no member any more.
	RefusedMember
)

var refusalNames = map[RefusalCode]string{
	RefusedVersion: "incompatible version", RefusedCluster: "wrong cluster", RefusedSelf: "dialled itself",
	RefusedDuplicate: "duplicate id", RefusedTarget: "wrong node", RefusedStart: "outdated start",
	RefusedRole: "role not allowed", RefusedHello: "bad hello", RefusedSuperseded: "superseded",
	RefusedStale: "stale attempt", RefusedStopping: "stopping", RefusedMember: "not a member",
}

// String is the code's name in logs and in the console.
func (c RefusalCode) String() string {
	if n, ok := refusalNames[c]; ok {
		return n
	}
	return fmt.Sprintf("refusal %d", uint8(c))
}

// normal refusals are part of two ends dialling at once and tell nobody
// anything.
func (c RefusalCode) normal() bool { return c == RefusedSuperseded || c == RefusedStale }

// Refusal is one end's no, seen from either end. It is an error.
type Refusal struct {
	// Peer is the other end's id as far as known, Address where it is.
	Peer, Address string
	Code          RefusalCode
	// Text is for people.
	Text string
	// Document is the version of the cluster document that the other is no member by
	// (RefusedMember); 0: not said.
	Document uint64
	// Ours: this end refused the other.
	Ours bool
}

// Error implements error.
func (r *Refusal) Error() string {
	who := "refused by peer"
	if r.Ours {
		who = "refused"
	}
	return fmt.Sprintf("%s: %v: %s", who, r.Code, r.Text)
}

func appendRefusal(dst []byte, r *Refusal) []byte {
	dst, start := beginFrame(dst, kindRefusal)
	dst = append(dst, byte(r.Code))
	dst = appendString(dst, r.Text[:min(len(r.Text), MaxText)])
	return endFrame(binary.BigEndian.AppendUint64(dst, r.Document), start)
}

func parseRefusal(b []byte) (*Refusal, error) {
	d := decoder{rest: b}
	r := &Refusal{Code: RefusalCode(d.byte()), Text: string(d.bytes(MaxText))}
	if len(d.rest) > 0 { // nodes did not always say it
		r.Document = d.uint64()
	}
	if d.bad {
		return nil, fmt.Errorf("%w: bad refusal", ErrHello)
	}
	return r, nil
}

// judge decides on another end's hello from what both ends have said; nil is
// yes. What needs memory (start numbers seen, connections held) is decided
// later.
func judge(own, their *Hello) *Refusal {
	no := func(code RefusalCode, format string, args ...any) *Refusal {
		return &Refusal{Peer: their.NodeID, Code: code, Text: fmt.Sprintf(format, args...), Ours: true}
	}
	switch {
	case their.MinVersion > own.MaxVersion || their.MaxVersion < own.MinVersion:
		return no(RefusedVersion, "%s speaks versions %d to %d, %s speaks %d to %d", own.NodeID, own.MinVersion, own.MaxVersion,
			their.NodeID, their.MinVersion, their.MaxVersion)
	case !validID(their.NodeID):
		return no(RefusedHello, "%q is not a node id", their.NodeID)
	case their.Lane >= lanes && their.Lane != laneProbe:
		return no(RefusedHello, "there is no lane %d", their.Lane)
	case their.Role != messages.RoleNode && their.Role != messages.RoleClient:
		return no(RefusedHello, "there is no role %d", their.Role)
	case own.Role == messages.RoleClient && their.Role == messages.RoleClient:
		return no(RefusedRole, "both ends are clients")
	case their.Cluster != own.Cluster:
		return no(RefusedCluster, "%s belongs to cluster %q, %s to %q", own.NodeID, own.Cluster, their.NodeID, their.Cluster)
	case len(own.ClusterID) > 0 && len(their.ClusterID) > 0 && !bytes.Equal(own.ClusterID, their.ClusterID):
		return no(RefusedCluster, "%s and %s are in two clusters of the name %q: %x and %x", own.NodeID, their.NodeID, own.Cluster,
			own.ClusterID, their.ClusterID)
	case their.NodeID == own.NodeID && their.Process == own.Process:
		return no(RefusedSelf, "%s has dialled itself", own.NodeID)
	case their.NodeID == own.NodeID:
		return no(RefusedDuplicate, "the id %s is in use by another process (starts %d and %d)", own.NodeID, own.Start, their.Start)
	case their.Target != "" && their.Target != own.NodeID:
		return no(RefusedTarget, "this is %s, not %s", own.NodeID, their.Target)
	}
	return nil
}

// founding reports whether the two ends may only exchange what founding needs:
// both are nodes and at least one is not in a cluster yet.
func founding(own, their *Hello) bool {
	nodes := own.Role == messages.RoleNode && their.Role == messages.RoleNode
	return nodes && (len(own.ClusterID) == 0 || len(their.ClusterID) == 0)
}

// foundingNumbers are the messages that need no cluster.
var foundingNumbers = map[string]bool{"Failure": true, "IdentityRequest": true, "IdentityReply": true, "JoinRequest": true, "JoinReply": true}

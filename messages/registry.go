package messages

import (
	"strings"

	"google.golang.org/protobuf/proto"
)

// Number stands for a message type on the wire.
type Number uint16

// Role is what the other end of a connection is allowed to be.
type Role uint8

const (
	// RoleNode is a member of the cluster, or a node that asks to be one.
	RoleNode Role = 1
	// RoleClient is an application.
	RoleClient Role = 2
)

// String is the role's name in logs and in the console.
func (r Role) String() string {
	switch r {
	case RoleNode:
		return "node"
	case RoleClient:
		return "client"
	}
	return "unknown"
}

// Names of the actors that other nodes and clients may address. A name that
// ends in a slash stands for all actors below it.
const (
	TargetCoordinator = "coordinator"
	TargetVnode       = "vnode/"
	TargetMembership  = "membership"
	TargetGet         = "get/"
	TargetPut         = "put/"
	TargetForward     = "forward/"
	TargetClient      = "client/"
	TargetTransfer    = "transfer/"
	TargetFill        = "fill/"
	TargetDetector    = "detector"
	TargetTransfers   = "transfers"
	TargetExchange    = "exchange/"
	TargetExchanges   = "exchanges"
	TargetAdmission   = "admission"
	TargetReap        = "reap/"
	TargetReaps       = "reaps"
	TargetConsole     = "console"
)

// Info says what a message type is.
type Info struct {
	Number Number
	// Name is the protobuf name without its package.
	Name string
	// Request: the sender expects an answer.
	Request bool
	// Bulk: travels on the second connection, where it delays no request.
	Bulk bool
	// FromNode and FromClient are the targets that each role may send it to.
	FromNode, FromClient []string

	make func() proto.Message
}

// answers are the actors that wait for replies of other nodes.
var answers = []string{TargetGet, TargetPut, TargetForward, TargetMembership, TargetClient, TargetTransfer, TargetFill, TargetExchange, TargetReap, TargetDetector}

// table lists every message type by number. Numbers are never reused.
var table = [...]Info{
	1: {Name: "Failure", FromNode: answers, make: func() proto.Message { return new(Failure) }},
	2: {Name: "GetRequest", Request: true, FromClient: []string{TargetCoordinator}, make: func() proto.Message { return new(GetRequest) }},
	3: {Name: "GetReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(GetReply) }},
	4: {
		Name: "PutRequest", Request: true, FromClient: []string{TargetCoordinator}, FromNode: []string{TargetCoordinator},
		make: func() proto.Message { return new(PutRequest) },
	},
	5: {Name: "PutReply", FromNode: []string{TargetForward, TargetClient}, make: func() proto.Message { return new(PutReply) }},
	6: {Name: "RingRequest", Request: true, FromClient: []string{TargetMembership}, make: func() proto.Message { return new(RingRequest) }},
	7: {Name: "RingReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(RingReply) }},
	8: {Name: "KeysRequest", Request: true, Bulk: true, FromClient: []string{TargetVnode}, make: func() proto.Message { return new(KeysRequest) }},
	9: {Name: "KeysReply", Bulk: true, FromNode: []string{TargetClient}, make: func() proto.Message { return new(KeysReply) }},

	10: {Name: "ReadRequest", Request: true, FromNode: []string{TargetVnode}, make: func() proto.Message { return new(ReadRequest) }},
	11: {Name: "ReadReply", FromNode: []string{TargetGet}, make: func() proto.Message { return new(ReadReply) }},
	12: {Name: "ReplicateRequest", Request: true, FromNode: []string{TargetVnode}, make: func() proto.Message { return new(ReplicateRequest) }},
	13: {Name: "ReplicateReply", FromNode: []string{TargetPut, TargetGet}, make: func() proto.Message { return new(ReplicateReply) }},
	14: {Name: "HandoffRequest", Request: true, Bulk: true, FromNode: []string{TargetVnode}, make: func() proto.Message { return new(HandoffRequest) }},
	15: {Name: "HandoffReply", Bulk: true, FromNode: []string{TargetTransfer}, make: func() proto.Message { return new(HandoffReply) }},
	16: {Name: "ProbeRequest", Request: true, FromNode: []string{TargetDetector}, make: func() proto.Message { return new(ProbeRequest) }},
	17: {Name: "ProbeReply", FromNode: []string{TargetDetector}, make: func() proto.Message { return new(ProbeReply) }},
	18: {Name: "FillRequest", Request: true, Bulk: true, FromNode: []string{TargetVnode}, make: func() proto.Message { return new(FillRequest) }},
	19: {Name: "FillReply", Bulk: true, FromNode: []string{TargetFill}, make: func() proto.Message { return new(FillReply) }},

	20: {Name: "IdentityRequest", Request: true, FromNode: []string{TargetMembership}, make: func() proto.Message { return new(IdentityRequest) }},
	21: {Name: "IdentityReply", FromNode: []string{TargetMembership}, make: func() proto.Message { return new(IdentityReply) }},
	22: {Name: "RegisterRequest", Request: true, FromNode: []string{TargetMembership}, make: func() proto.Message { return new(RegisterRequest) }},
	23: {Name: "RegisterReply", FromNode: []string{TargetMembership}, make: func() proto.Message { return new(RegisterReply) }},
	24: {Name: "GossipRequest", Request: true, FromNode: []string{TargetMembership}, make: func() proto.Message { return new(GossipRequest) }},
	25: {Name: "GossipReply", FromNode: []string{TargetMembership}, make: func() proto.Message { return new(GossipReply) }},
	26: {Name: "DocumentNews", FromNode: []string{TargetMembership}, make: func() proto.Message { return new(DocumentNews) }},
	27: {Name: "JoinRequest", Request: true, FromNode: []string{TargetMembership}, make: func() proto.Message { return new(JoinRequest) }},
	28: {Name: "JoinReply", FromNode: []string{TargetMembership}, make: func() proto.Message { return new(JoinReply) }},
	29: {Name: "ClusterRequest", Request: true, FromClient: []string{TargetMembership}, make: func() proto.Message { return new(ClusterRequest) }},
	30: {Name: "ClusterReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(ClusterReply) }},
	31: {Name: "TransfersRequest", Request: true, FromClient: []string{TargetTransfers}, make: func() proto.Message { return new(TransfersRequest) }},
	32: {Name: "TransfersReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(TransfersReply) }},
	33: {Name: "ExchangeRequest", Request: true, Bulk: true, FromNode: []string{TargetVnode}, make: func() proto.Message { return new(ExchangeRequest) }},
	34: {Name: "ExchangeReply", Bulk: true, FromNode: []string{TargetExchange}, make: func() proto.Message { return new(ExchangeReply) }},
	35: {Name: "ExchangesRequest", Request: true, FromClient: []string{TargetExchanges}, make: func() proto.Message { return new(ExchangesRequest) }},
	36: {Name: "ExchangesReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(ExchangesReply) }},
	37: {Name: "RepairRequest", Request: true, FromClient: []string{TargetExchanges}, make: func() proto.Message { return new(RepairRequest) }},
	38: {Name: "RepairReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(RepairReply) }},
	39: {Name: "BackgroundRequest", Request: true, FromClient: []string{TargetAdmission}, make: func() proto.Message { return new(BackgroundRequest) }},
	40: {Name: "BackgroundReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(BackgroundReply) }},
	41: {Name: "ReapRequest", Request: true, Bulk: true, FromNode: []string{TargetReaps}, make: func() proto.Message { return new(ReapRequest) }},
	42: {Name: "ReapReply", Bulk: true, FromNode: []string{TargetReap}, make: func() proto.Message { return new(ReapReply) }},
	43: {Name: "ReapDropRequest", Request: true, Bulk: true, FromNode: []string{TargetVnode}, make: func() proto.Message { return new(ReapDropRequest) }},
	44: {Name: "ReapDropReply", Bulk: true, FromNode: []string{TargetReap}, make: func() proto.Message { return new(ReapDropReply) }},
	45: {Name: "ReapsRequest", Request: true, FromClient: []string{TargetReaps}, make: func() proto.Message { return new(ReapsRequest) }},
	46: {Name: "ReapsReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(ReapsReply) }},
	47: {Name: "ActorsRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(ActorsRequest) }},
	48: {Name: "ActorsReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(ActorsReply) }},
	49: {Name: "InspectRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(InspectRequest) }},
	50: {Name: "InspectReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(InspectReply) }},
	51: {Name: "ErrorsRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(ErrorsRequest) }},
	52: {Name: "ErrorsReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(ErrorsReply) }},
	53: {Name: "SlowRequestsRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(SlowRequestsRequest) }},
	54: {Name: "SlowRequestsReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(SlowRequestsReply) }},
	57: {Name: "LookupRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(LookupRequest) }},
	58: {Name: "LookupReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(LookupReply) }},
	59: {Name: "BusiestRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(BusiestRequest) }},
	60: {Name: "BusiestReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(BusiestReply) }},
	61: {Name: "LogRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(LogRequest) }},
	62: {Name: "LogReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(LogReply) }},
	63: {Name: "SettingsRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(SettingsRequest) }},
	64: {Name: "SettingsReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(SettingsReply) }},
	65: {Name: "ControlRequest", Request: true, FromClient: []string{TargetConsole}, make: func() proto.Message { return new(ControlRequest) }},
	66: {Name: "ControlReply", FromNode: []string{TargetClient}, make: func() proto.Message { return new(ControlReply) }},
}

func init() {
	for i := range table {
		table[i].Number = Number(i)
	}
}

// NumberOf returns the number of m's type, or false when m cannot travel.
func NumberOf(m any) (Number, bool) {
	switch m.(type) {
	case *Failure:
		return 1, true
	case *GetRequest:
		return 2, true
	case *GetReply:
		return 3, true
	case *PutRequest:
		return 4, true
	case *PutReply:
		return 5, true
	case *RingRequest:
		return 6, true
	case *RingReply:
		return 7, true
	case *KeysRequest:
		return 8, true
	case *KeysReply:
		return 9, true
	case *ReadRequest:
		return 10, true
	case *ReadReply:
		return 11, true
	case *ReplicateRequest:
		return 12, true
	case *ReplicateReply:
		return 13, true
	case *HandoffRequest:
		return 14, true
	case *HandoffReply:
		return 15, true
	case *ProbeRequest:
		return 16, true
	case *ProbeReply:
		return 17, true
	case *FillRequest:
		return 18, true
	case *FillReply:
		return 19, true
	case *IdentityRequest:
		return 20, true
	case *IdentityReply:
		return 21, true
	case *RegisterRequest:
		return 22, true
	case *RegisterReply:
		return 23, true
	case *GossipRequest:
		return 24, true
	case *GossipReply:
		return 25, true
	case *DocumentNews:
		return 26, true
	case *JoinRequest:
		return 27, true
	case *JoinReply:
		return 28, true
	case *ClusterRequest:
		return 29, true
	case *ClusterReply:
		return 30, true
	case *TransfersRequest:
		return 31, true
	case *TransfersReply:
		return 32, true
	case *ExchangeRequest:
		return 33, true
	case *ExchangeReply:
		return 34, true
	}
	return rareNumberOf(m)
}

// rareNumberOf is NumberOf for what operators send, and for reapings.
func rareNumberOf(m any) (Number, bool) {
	switch m.(type) {
	case *ExchangesRequest:
		return 35, true
	case *ExchangesReply:
		return 36, true
	case *RepairRequest:
		return 37, true
	case *RepairReply:
		return 38, true
	case *BackgroundRequest:
		return 39, true
	case *BackgroundReply:
		return 40, true
	case *ReapRequest:
		return 41, true
	case *ReapReply:
		return 42, true
	case *ReapDropRequest:
		return 43, true
	case *ReapDropReply:
		return 44, true
	case *ReapsRequest:
		return 45, true
	case *ReapsReply:
		return 46, true
	case *ActorsRequest:
		return 47, true
	case *ActorsReply:
		return 48, true
	case *InspectRequest:
		return 49, true
	case *InspectReply:
		return 50, true
	case *ErrorsRequest:
		return 51, true
	case *ErrorsReply:
		return 52, true
	case *SlowRequestsRequest:
		return 53, true
	case *SlowRequestsReply:
		return 54, true
	case *LookupRequest:
		return 57, true
	case *LookupReply:
		return 58, true
	case *BusiestRequest:
		return 59, true
	case *BusiestReply:
		return 60, true
	case *LogRequest:
		return 61, true
	case *LogReply:
		return 62, true
	case *SettingsRequest:
		return 63, true
	case *SettingsReply:
		return 64, true
	case *ControlRequest:
		return 65, true
	case *ControlReply:
		return 66, true
	}
	return 0, false
}

// InfoOf describes a number, or returns false for one that this program does
// not know.
func InfoOf(n Number) (Info, bool) {
	if int(n) >= len(table) || table[n].make == nil {
		return Info{}, false
	}
	return table[n], true
}

// New makes an empty message of a number's type, or returns false for one that
// this program does not know.
func New(n Number) (proto.Message, bool) {
	info, ok := InfoOf(n)
	if !ok {
		return nil, false
	}
	return info.make(), true
}

// Allowed is the one table of who may send what to which actor. It is asked
// before a message is decoded; what it does not name is refused.
func Allowed(r Role, n Number, target string) bool {
	info, ok := InfoOf(n)
	if !ok {
		return false
	}
	targets := info.FromNode
	if r == RoleClient {
		targets = info.FromClient
	} else if r != RoleNode {
		return false
	}
	for _, t := range targets {
		if t == target || strings.HasSuffix(t, "/") && strings.HasPrefix(target, t) {
			return true
		}
	}
	return false
}

// Timed is a request that carries how long its answer is waited for. On the
// wire it is a duration, never a wall-clock time.
type Timed interface {
	GetTimeoutMs() uint32
	SetTimeoutMs(ms uint32)
}

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *GetRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *PutRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *RingRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *KeysRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ReadRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ReplicateRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *HandoffRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *FillRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ProbeRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *IdentityRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *RegisterRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *GossipRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *JoinRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ClusterRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *TransfersRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ExchangeRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ExchangesRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *RepairRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *BackgroundRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ReapRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ReapDropRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ReapsRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ActorsRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *InspectRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ErrorsRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *SlowRequestsRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *LookupRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *BusiestRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *LogRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *SettingsRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

// SetTimeoutMs lowers the time left; the link does so on receipt.
func (x *ControlRequest) SetTimeoutMs(ms uint32) { x.TimeoutMs = ms }

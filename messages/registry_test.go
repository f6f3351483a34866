package messages

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// parts are messages that travel inside others only.
var parts = map[protoreflect.Name]bool{
	"Quorum": true, "Value": true, "Address": true, "Document": true, "Member": true, "Ring": true, "ReplicaList": true, "Bucket": true,
	"HandoffRecord": true, "FillKey": true, "FillDigest": true, "Movement": true, "Switch": true, "Fill": true, "Change": true,
	"Ballot": true, "Vote": true, "RegisterState": true, "NodeRow": true, "NodeState": true, "TransferState": true, "Forced": true,
	"TreeRoot": true, "TreeNodes": true, "TreeLeaves": true, "RecordNames": true, "RecordPage": true, "LeafList": true, "ExchangeState": true, "BackgroundWork": true, "ReapKey": true,
	"ActorState": true, "ActorPanic": true, "ActorFields": true, "ActorField": true, "NodeError": true,
	"KeyCopy": true, "BusyActor": true, "LogLine": true, "Setting": true,
	"TimelineRecord": true, "TimelineStep": true, "SlowRequestRecord": true,
}

// TestEveryMessageHasItsNumber: what is generated is in the table or a part of
// what is, and table, NumberOf and New agree.
func TestEveryMessageHasItsNumber(t *testing.T) {
	numbers := map[Number]protoreflect.Name{}
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		if mt.Descriptor().FullName().Parent() != "dynactor.messages" {
			return true
		}
		name := mt.Descriptor().Name()
		n, ok := NumberOf(mt.New().Interface())
		if ok == parts[name] {
			t.Errorf("%s: has a number: %v", name, ok)
		}
		if !ok {
			return true
		}
		if other, taken := numbers[n]; taken {
			t.Errorf("%s and %s both have number %d", name, other, n)
		}
		numbers[n] = name
		info, ok := InfoOf(n)
		if !ok || info.Name != string(name) || info.Number != n {
			t.Errorf("%d is %s in the table and %s in NumberOf", n, info.Name, name)
		}
		if m, ok := New(n); !ok || m.ProtoReflect().Descriptor().Name() != name {
			t.Errorf("New(%d) is %T, want %s", n, m, name)
		}
		return true
	})
	known := 0
	for n := range Number(1 << 10) {
		if info, ok := InfoOf(n); ok {
			known++
			if numbers[n] == "" {
				t.Errorf("%d is %s in the table, which no message has", n, info.Name)
			}
		}
	}
	if known == 0 || known != len(numbers) {
		t.Errorf("%d messages in the table, %d generated", known, len(numbers))
	}
	for _, stranger := range []any{nil, "text", 7, new(Quorum), struct{}{}} {
		if n, ok := NumberOf(stranger); ok {
			t.Errorf("%T has number %d", stranger, n)
		}
	}
	if _, ok := New(0); ok {
		t.Error("number 0 is a message")
	}
	if _, ok := New(1 << 15); ok {
		t.Error("an unknown number is a message")
	}
}

// TestRequestsCarryTheirTime, and nothing else does; answers travel as the
// requests that they answer do.
func TestRequestsCarryTheirTime(t *testing.T) {
	for n := range Number(len(table)) {
		info, ok := InfoOf(n)
		if !ok {
			continue
		}
		m, _ := New(n)
		timed, is := m.(Timed)
		if is != info.Request {
			t.Errorf("%s: a request: %v, timed: %v", info.Name, info.Request, is)
		}
		if is {
			if timed.SetTimeoutMs(7); timed.GetTimeoutMs() != 7 {
				t.Errorf("%s: the time set is not the time read", info.Name)
			}
		}
		base, isReply := strings.CutSuffix(info.Name, "Reply")
		if !isReply {
			continue
		}
		for k := range Number(len(table)) {
			if q, ok := InfoOf(k); ok && q.Name == base+"Request" && q.Bulk != info.Bulk {
				t.Errorf("%s and %s travel on different connections", q.Name, info.Name)
			}
		}
	}
}

// TestAllowed is the whole table of who may send what to which actor. A change
// of it is a change of what a stolen key can do.
func TestAllowed(t *testing.T) {
	const want = `node    Failure          -> get/1 put/1 forward/1 membership client/1 transfer/1 fill/1 exchange/1 reap/1 detector
node    GetReply         -> client/1
node    PutRequest       -> coordinator
node    PutReply         -> forward/1 client/1
node    RingReply        -> client/1
node    KeysReply        -> client/1
node    ReadRequest      -> vnode/1
node    ReadReply        -> get/1
node    ReplicateRequest -> vnode/1
node    ReplicateReply   -> get/1 put/1
node    HandoffRequest   -> vnode/1
node    HandoffReply     -> transfer/1
node    ProbeRequest     -> detector
node    ProbeReply       -> detector
node    FillRequest      -> vnode/1
node    FillReply        -> fill/1
node    IdentityRequest  -> membership
node    IdentityReply    -> membership
node    RegisterRequest  -> membership
node    RegisterReply    -> membership
node    GossipRequest    -> membership
node    GossipReply      -> membership
node    DocumentNews     -> membership
node    JoinRequest      -> membership
node    JoinReply        -> membership
node    ClusterReply     -> client/1
node    TransfersReply   -> client/1
node    ExchangeRequest  -> vnode/1
node    ExchangeReply    -> exchange/1
node    ExchangesReply   -> client/1
node    RepairReply      -> client/1
node    BackgroundReply  -> client/1
node    ReapRequest      -> reaps
node    ReapReply        -> reap/1
node    ReapDropRequest  -> vnode/1
node    ReapDropReply    -> reap/1
node    ReapsReply       -> client/1
node    ActorsReply      -> client/1
node    InspectReply     -> client/1
node    ErrorsReply      -> client/1
node    SlowRequestsReply -> client/1
node    LookupReply      -> client/1
node    BusiestReply     -> client/1
node    LogReply         -> client/1
node    SettingsReply    -> client/1
node    ControlReply     -> client/1
client  GetRequest       -> coordinator
client  PutRequest       -> coordinator
client  RingRequest      -> membership
client  KeysRequest      -> vnode/1
client  ClusterRequest   -> membership
client  TransfersRequest -> transfers
client  ExchangesRequest -> exchanges
client  RepairRequest    -> exchanges
client  BackgroundRequest -> admission
client  ReapsRequest     -> reaps
client  ActorsRequest    -> console
client  InspectRequest   -> console
client  ErrorsRequest    -> console
client  SlowRequestsRequest -> console
client  LookupRequest    -> console
client  BusiestRequest   -> console
client  LogRequest       -> console
client  SettingsRequest  -> console
client  ControlRequest   -> console
`
	targets := []string{
		"coordinator", "vnode/1", "get/1", "put/1", "forward/1", "membership", "client/1", "node", "transfer/1", "fill/1", "exchange/1", "detector", "transfers", "exchanges", "admission", "reap/1", "reaps", "console", "vnodes", "links", "links/n1", "",
		"vnode", "guardian", "eventstream", "deadletter", "probe/1", "coordinator/x",
	}
	var got strings.Builder
	for _, role := range []Role{RoleNode, RoleClient, 0, 3} {
		for n := range Number(len(table) + 5) {
			var to []string
			for _, target := range targets {
				if Allowed(role, n, target) {
					to = append(to, target)
				}
			}
			if len(to) == 0 {
				continue
			}
			info, _ := InfoOf(n)
			fmt.Fprintf(&got, "%-7s %-16s -> %s\n", role, info.Name, strings.Join(to, " "))
		}
	}
	if sorted(got.String()) != sorted(want) {
		t.Errorf("allowed is\n%s\nwant\n%s", got.String(), want)
	}
}

// sorted makes the order of targets in a line not matter.
func sorted(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		head, targets, _ := strings.Cut(strings.TrimSpace(line), "-> ")
		words := strings.Fields(targets)
		for i := range words { // few: insertion sort
			for j := i; j > 0 && words[j] < words[j-1]; j-- {
				words[j], words[j-1] = words[j-1], words[j]
			}
		}
		out = append(out, head+strings.Join(words, " "))
	}
	return strings.Join(out, "\n")
}

func TestCodes(t *testing.T) {
	names := map[string]bool{}
	for c := CodeInternal; c <= CodeTooOld; c++ {
		name := CodeName(c)
		if strings.HasPrefix(name, "code ") || names[name] {
			t.Errorf("code %d is named %q", c, name)
		}
		names[name] = true
	}
	if len(codeNames) != len(names) {
		t.Errorf("%d names for %d codes", len(codeNames), len(names))
	}
	if got := CodeName(999); got != "code 999" {
		t.Errorf("an unknown code is %q", got)
	}
	var err error = Fail(CodeTooLarge, "%d bytes", 7)
	if err.Error() != "too large: 7 bytes" || (&Failure{Code: CodeTooLarge}).Error() != "too large" {
		t.Errorf("a failure says %q", err)
	}
	for role, want := range map[Role]string{RoleNode: "node", RoleClient: "client", 9: "unknown"} {
		if role.String() != want {
			t.Errorf("role %d is %q", role, role)
		}
	}
}

// TestWire: numbers of fields are the wire's; these bytes must be readable for
// ever.
func TestWire(t *testing.T) {
	for name, c := range map[string]struct {
		m    proto.Message
		want string
	}{
		"get":       {&GetRequest{Bucket: []byte("b"), Key: []byte("k"), TimeoutMs: 5}, "0a016212016b2005"},
		"put":       {&PutRequest{Bucket: []byte("b"), Key: []byte("k"), Value: []byte("v"), Delete: true, Hops: 1, Retry: true}, "0a016212016b1a0176280150015801"},
		"read":      {&ReadRequest{Partition: 1, Bucket: []byte("b"), Key: []byte("k"), N: 3, Plan: 2}, "080112016 21a016b28023803"},
		"replicate": {&ReplicateRequest{Partition: 1, Record: []byte("r"), Sync: true, N: 3}, "080122017228014003"},
		"failure":   {Fail(CodeUnknown, "x"), "08081 20178"},
	} {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.m)
		if got := fmt.Sprintf("%x", b); err != nil || got != strings.ReplaceAll(c.want, " ", "") {
			t.Errorf("%s: %s, want %s (%v)", name, got, c.want, err)
		}
	}
}

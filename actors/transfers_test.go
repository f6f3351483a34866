package actors

import (
	"fmt"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
)

// hinted is a rig whose n1 keeps a hint of a key for a replica that takes what is
// handed over, but leaves the answers to the test.
type hinted struct {
	*sloppy
	name     string
	p        dynamo.Partition
	back     dynamo.NodeID
	handoffs chan actortest.Received
}

func startHinted(t *testing.T) *hinted {
	t.Helper()
	x := &hinted{sloppy: startSloppy(t, nil, nil), handoffs: make(chan actortest.Received, 100)}
	var primaries []dynamo.NodeID
	x.name, x.p, primaries = x.key(false, 0)
	x.back = primaries[0]
	x.opinions.set(x.back, true)
	x.keep(x.name, 1)
	x.peers.Handle(string(x.back), func(m actortest.Received) {
		if _, ok := m.Message.(*messages.HandoffRequest); ok {
			x.handoffs <- m
		}
	})
	return x
}

// keep has n1 keep a record for the node that is to come back.
func (x *hinted) keep(name string, actor byte) {
	x.t.Helper()
	m := replicateOf(x.p, name, elsewhere(x.t, actor, "v"), true)
	m.HintFor = string(x.back)
	x.probe.Ask(on("n1", vnodeName(x.p)), m)
	actortest.Next[*messages.ReplicateReply](x.t, x.probe)
}

// next waits for the next batch that the node is handed.
func (x *hinted) next() actortest.Received {
	x.t.Helper()
	select {
	case m := <-x.handoffs:
		return m
	case <-time.After(actortest.Patience):
		x.t.Fatal("nothing was handed over")
	}
	return actortest.Received{}
}

// another is a further key of the same partition.
func (x *hinted) another() string {
	for i := 1; ; i++ {
		if name, p, _ := x.key(false, i); p == x.p && name != x.name {
			return name
		}
	}
}

func (x *hinted) transfer() string {
	return fmt.Sprintf("%s%d/%s", messages.TargetTransfer, x.p, x.back)
}

func (x *hinted) confirm(m actortest.Received) {
	x.peers.Answer(m, &messages.HandoffReply{Batch: m.Message.(*messages.HandoffRequest).GetBatch()})
}

// TestLateConfirmation: a confirmation of what an earlier transfer handed over
// confirms nothing of what the next one does, which has the same name.
func TestLateConfirmation(t *testing.T) {
	x := startHinted(t)
	x.opinions.set(x.back, false)
	first := x.next()
	x.system.Root.Stop(on("n1", x.transfer()))
	x.keep(x.name, 2) // which the first did not carry
	second := x.next()
	x.confirm(first)
	x.system.Root.Poison(on("n1", x.transfer())) // behind the confirmation
	x.next()
	if got := x.hintsOf(); got.Records != 1 {
		t.Errorf("%+v is kept after an answer to batch %d, which had not all of batch %d", got,
			first.Message.(*messages.HandoffRequest).GetBatch(), second.Message.(*messages.HandoffRequest).GetBatch())
	}
}

// TestReadOfEarlierTransfer: what an earlier transfer had read does not take the
// place of what was offered.
func TestReadOfEarlierTransfer(t *testing.T) {
	x := startHinted(t)
	x.opinions.set(x.back, false)
	first := x.next()
	name := x.another()
	x.keep(name, 2)
	lower, _ := vnode.HintRange(x.back, x.p)
	late := x.s.readBatch(slot{x.back, x.p}, lower)
	if len(late.hints) != 2 {
		t.Fatalf("%d hints were read", len(late.hints))
	}
	x.system.Root.Send(on("n1", x.transfer()), late)
	x.confirm(first)
	second := x.next() // the hint that the first batch had not
	if records := second.Message.(*messages.HandoffRequest).GetRecords(); len(records) != 1 || string(records[0].GetKey()) != name {
		t.Errorf("handed over next: %v", records)
	}
}

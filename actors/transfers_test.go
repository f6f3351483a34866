package actors

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
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

func startHinted(t *testing.T) *hinted { return startHintedOn(t, nil) }

func startHintedOn(t *testing.T, engine storage.Engine) *hinted {
	t.Helper()
	x := &hinted{sloppy: startSloppy(t, engine, nil), handoffs: make(chan actortest.Received, 100)}
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
	t.Parallel()
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
	t.Parallel()
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

// TestHandoffPassesOverSuspected: a third replica that is connected and does not
// answer does not keep the intended node from what is its own.
func TestHandoffPassesOverSuspected(t *testing.T) {
	x := startHinted(t)
	hanging := other(x.doc.Settled.Primaries(x.p, 3), 1)
	x.peers.Handle(string(hanging), func(actortest.Received) {})
	x.opinions.set(hanging, true)
	x.opinions.set(x.back, false)
	x.confirm(x.next())
	limit := time.After(transferTimeout / 2)
	for x.hintsOf() != (HintCount{}) {
		select {
		case <-limit:
			t.Fatal("it waits for the one that hangs")
		case <-time.After(time.Millisecond):
		}
	}
}

// TestHintsOfOneTurn: the bound holds for what a vnode takes in one turn too, and
// a turn that is not committed leaves nothing in the table, which would be looked
// for in vain for ever.
func TestHintsOfOneTurn(t *testing.T) {
	const bound = 2000
	for what, disturb := range map[string]func(*rig, func(actor byte, value string)){
		"all are committed":  func(*rig, func(byte, string)) {},
		"the commit fails":   func(r *rig, _ func(byte, string)) { r.engine.FailCommits(errTest) },
		"the vnode restarts": func(_ *rig, send func(byte, string)) { send(1, "one"); send(1, "another under the same dot") },
	} {
		t.Run(what, func(t *testing.T) {
			g := newGate(memory.New())
			x := startSloppy(t, g, func(c *Config) { c.HintBytes = bound })
			_, p, primaries := x.key(false, 0)
			x.opinions.set(primaries[0], true)
			sent := 0
			send := func(name string, actor byte, value string) {
				m := replicateOf(p, name, elsewhere(t, actor, value), true)
				m.HintFor = string(primaries[0])
				x.probe.Ask(on("n1", vnodeName(p)), m)
				sent++
			}
			var names []string
			for i := 0; len(names) < 20; i++ {
				if name, at, _ := x.key(false, i); at == p {
					names = append(names, name)
				}
			}
			g.shut()
			send(names[0], 1, "v")
			<-g.waiting
			for _, name := range names[1:] { // all in one turn
				send(name, 1, strings.Repeat("v", 300))
			}
			disturb(x.rig, func(actor byte, value string) { send(names[0], actor, value) })
			g.release()
			actortest.Eventually(t, "all are answered", func() bool { return len(x.probe.All()) >= sent })
			x.engine.Heal()
			actortest.Eventually(t, "the table says what the store has", func() bool {
				stored := HintCount{}
				lower, upper := vnode.Hints()
				err := x.engine.Scan(lower, upper, func(key, value []byte) bool { stored.add(hintSize(key, value)); return true })
				return err == nil && stored.Records > 0 && x.hintsOf() == stored
			})
			if got := x.hintsOf(); got.Bytes > bound {
				t.Errorf("%+v is kept, the bound is %d bytes", got, bound)
			}
		})
	}
}

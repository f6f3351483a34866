package actors

import (
	"log/slog"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/actortest"
	aae "github.com/dynactor/dynactor/dynamo/exchange"
	"github.com/dynactor/dynactor/messages"
)

// toSelf keeps what an actor sends.
type toSelf struct {
	actor.Context
	sent []any
}

func (c *toSelf) Send(_ *actor.PID, m any) { c.sent = append(c.sent, m) }

// idleExchanges begins nothing, and knows no document.
func idleExchanges() *exchangesActor {
	return &exchangesActor{
		s: &Services{Config: Config{Log: slog.New(slog.DiscardHandler)}, Counters: &Counters{}}, schedule: aae.NewSchedule(aae.Never, 0),
		rows: map[aae.Pair]*exchangeRow{}, running: map[string]*exchangeJob{}, stopping: true,
	}
}

// TestLastWordIsOfItsExchange: an exchange has ended in order when its actor's end is
// heard of, and the next one of the pair begins at once. It is not over by what is still
// said of the first.
func TestLastWordIsOfItsExchange(t *testing.T) {
	x, p, c := idleExchanges(), aae.Pair{N: 3, Peer: "n2"}, &toSelf{}
	name := exchangeName(p)
	x.running[name] = &exchangeJob{pair: p, number: 1, outcome: &aae.Outcome{Complete: true, Equal: true}}
	x.terminated(c, name)
	second := &exchangeJob{pair: p, number: 2}
	x.running[name] = second
	if len(c.sent) != 1 {
		t.Fatalf("sent: %v", c.sent)
	}
	x.ended(c, c.sent[0].(*exchangeEnded))
	if second.outcome != nil {
		t.Errorf("the exchange that has just begun is over: %+v", *second.outcome)
	}
	x.ended(c, &exchangeEnded{pair: p, number: 2, outcome: aae.Outcome{Complete: true}})
	if second.outcome == nil || !second.outcome.Complete {
		t.Error("its own last word was not heard")
	}
}

// TestRepairGoesOnWithNewPairs: the ring moves while a repair is waited for, and no
// exchange would begin by itself. The pair that is new must be compared, or the wait
// would never end.
func TestRepairGoesOnWithNewPairs(t *testing.T) {
	x, a, b := idleExchanges(), aae.Pair{N: 3, Peer: "n2"}, aae.Pair{N: 3, Peer: "n3"}
	set := func(p aae.Pair) {
		x.rows = map[aae.Pair]*exchangeRow{p: {}}
		x.schedule.Set(x.now(), []aae.Pair{p})
	}
	set(a)
	number := x.repair(&messages.RepairRequest{}).GetNumber()
	set(b)
	for range 2 { // asking again changes nothing
		if r := x.repair(&messages.RepairRequest{Number: number}); r.GetPairs() != 1 || r.GetComplete()+r.GetFailed() != 0 {
			t.Fatalf("before anything was compared: %v", r)
		}
	}
	if begun := x.schedule.Next(x.now()); len(begun) != 1 || begun[0] != b {
		t.Errorf("begun: %v", begun)
	}
}

// TestRepairInQuarantine: a node in quarantine begins no exchange, and says so instead of
// having somebody wait for one.
func TestRepairInQuarantine(t *testing.T) {
	t.Parallel()
	r := start(t, setup{nodes: 2})
	ask := func() {
		r.probe.Ask(on("n1", nameExchanges), &messages.RepairRequest{Number: 1})
	}
	r.s.quarantine.refuse("n2", &peerRefusal{why: "refused", until: time.Now().Add(time.Hour)})
	ask()
	if f := actortest.Next[*messages.Failure](t, r.probe); f.GetCode() != messages.CodeNotReady {
		t.Errorf("answered: %v", f)
	}
	r.s.quarantine.refuse("n2", nil)
	ask()
	actortest.Next[*messages.RepairReply](t, r.probe)
}

// TestVerifiedHasNothingDamaged: a pair is verified by an exchange that is complete and
// could read and merge everything.
func TestVerifiedHasNothingDamaged(t *testing.T) {
	for _, tc := range []struct {
		outcome aae.Outcome
		want    bool
	}{
		{aae.Outcome{Complete: true}, true},
		{aae.Outcome{Complete: true, In: 1, Out: 2}, true},
		{aae.Outcome{Complete: true, Damaged: 1}, false},
		{aae.Outcome{Reason: "failed"}, false},
	} {
		x, p := idleExchanges(), aae.Pair{N: 3, Peer: "n2"}
		x.rows[p] = &exchangeRow{}
		x.over(nil, &exchangeJob{pair: p, gone: true, outcome: &tc.outcome})
		if r := x.rows[p]; r.verified.IsZero() == tc.want || r.count != 1 {
			t.Errorf("%+v: %+v", tc.outcome, r)
		}
	}
}

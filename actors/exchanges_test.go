package actors

import (
	"log/slog"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	aae "github.com/dynactor/dynactor/dynamo/exchange"
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

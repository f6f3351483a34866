package actors

import (
	"slices"
	"time"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

const (
	// lookEvery is how often the actors are listed for those who watch the busiest: however
	// many watch, it costs the node no more.
	lookEvery = 500 * time.Millisecond
	// lookFar is how far two looks may be apart to make a rate of.
	lookFar = 10 * time.Second
)

// busiest is the last look at all actors of the node, shared by all who ask.
type busiest struct {
	at      time.Time
	handled map[string]uint64 // by then
	all     []messages.Busy
	answers [messages.EndOfBy]*messages.BusiestReply
}

// answer tells which actors have most to do. What was answered is never changed, only
// replaced.
func (b *busiest) answer(registry *rt.Registry, m *messages.BusiestRequest) any {
	by, limit, err := messages.ToBusiest(m)
	if err != nil {
		return messages.Fail(messages.CodeInvalid, "%v", err)
	}
	if now := time.Now(); b.at.IsZero() || now.Sub(b.at) >= lookEvery {
		b.look(registry, now)
	}
	if b.answers[by] == nil {
		slices.SortStableFunc(b.all, func(x, y messages.Busy) int { return by.Compare(&x, &y) })
		b.answers[by] = messages.FromBusiest(b.all, len(b.all))
	}
	whole := b.answers[by]
	return &messages.BusiestReply{All: whole.GetAll(), Actors: whole.GetActors()[:min(limit, len(whole.GetActors()))]}
}

// look lists the actors again.
func (b *busiest) look(registry *rt.Registry, now time.Time) {
	all, _ := registry.List(nil, 0)
	took, handled := now.Sub(b.at), make(map[string]uint64, len(all))
	b.all = b.all[:0]
	for _, s := range all {
		handled[s.ID] = s.Processed
		x := messages.Busy{Actor: actorOf(s)}
		before, known := b.handled[s.ID]
		switch {
		case known && took <= lookFar && s.Processed >= before:
			x.Rate = float64(s.Processed-before) / took.Seconds()
		case !known && !b.at.IsZero() && took <= lookFar && s.Age <= took: // came since
			x.Rate = float64(s.Processed) / took.Seconds()
		}
		b.all = append(b.all, x)
	}
	b.at, b.handled, b.answers = now, handled, [messages.EndOfBy]*messages.BusiestReply{}
}

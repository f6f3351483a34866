package client

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/messages"
)

// TestJudge: what every code means for the next attempt, and for the error.
func TestJudge(t *testing.T) {
	for code := messages.CodeInternal; code <= messages.CodeTooOld+1; code++ {
		kind := fromFailure("n1", messages.Fail(code, "text")).Kind
		get, put := judge(code, false), judge(code, true)
		if get == sameAgain {
			t.Errorf("%s: a read is never in doubt", messages.CodeName(code))
		}
		// A write that may have been carried out is neither final nor sent
		// elsewhere as if it had not been.
		inDoubt := code == messages.CodeUnknown || code == messages.CodeInternal
		if (put == sameAgain) != inDoubt {
			t.Errorf("%s: a write is in doubt: %v", messages.CodeName(code), put == sameAgain)
		}
		// What is worth another node is the state of one, not of the request.
		if again := kind == ErrUnavailable || kind == ErrOverloaded; put == nextNode && !again {
			t.Errorf("%s: another node is asked, the error is %v", messages.CodeName(code), kind)
		}
		if !inDoubt && get != put {
			t.Errorf("%s: %v for a get, %v for a put", messages.CodeName(code), get, put)
		}
	}
}

// TestUnknownStaysUnknown: once an attempt of a write may have been carried out,
// no later refusal, deadline or close says that it was not.
func TestUnknownStaysUnknown(t *testing.T) {
	refusal := fromFailure("n1", messages.Fail(messages.CodeSiblings, "too many"))
	for name, end := range map[string]func(*try) error{
		"refused":      func(x *try) error { return x.refused() },
		"time is over": func(x *try) error { return x.give(context.DeadlineExceeded) },
		"cancelled":    func(x *try) error { return x.give(context.Canceled) },
		"closed":       func(x *try) error { return x.give(ErrClosed) },
		"nobody is there": func(x *try) error {
			return x.give(&Error{Kind: ErrUnavailable, Text: "nobody", Cause: context.Canceled})
		},
	} {
		for _, last := range []*Error{nil, refusal} {
			if last == nil && name == "refused" {
				continue
			}
			if err := end(&try{unknown: true, last: last}); !errors.Is(err, ErrUnknown) {
				t.Errorf("%s after an attempt in doubt: %v", name, err)
			}
			err := end(&try{last: last})
			if errors.Is(err, ErrUnknown) {
				t.Errorf("%s: %v", name, err)
			}
			if name == "cancelled" && strings.Contains(err.Error(), "time is over") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if refusal.Kind != ErrSiblings {
		t.Error("the node's own error was changed")
	}
}

func TestPendingAnswersOnce(t *testing.T) {
	p := &pending{pid: actor.NewPID("client", "requests"), attempts: map[uint32]*attempt{}, next: ^uint32(0) - 1}
	a, first := p.open("n1")
	b, second := p.open("n2") // the counter wraps, and 0 is no number
	if first.RequestId == 0 || second.RequestId == 0 || first.RequestId == second.RequestId {
		t.Fatalf("numbers %d and %d", first.RequestId, second.RequestId)
	}
	p.answer(first.RequestId, "", "one")
	p.answer(first.RequestId, "", "two")
	if got := <-a.done; got.message != "one" || got.node != "n1" {
		t.Errorf("answered %+v", got)
	}
	p.lost("n1", errors.New("boom"))
	p.lost("n2", errors.New("boom"))
	if got := <-b.done; got.node != "n2" {
		t.Errorf("answered %+v", got)
	}
	c, third := p.open("n1")
	p.drop(third)
	p.close()
	if len(a.done)+len(b.done)+len(c.done) != 0 {
		t.Error("answered twice, or after it was dropped")
	}
	if d, _ := p.open("n1"); d != nil {
		t.Error("opened after the close")
	}
}

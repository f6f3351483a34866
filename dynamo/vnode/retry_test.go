package vnode

import (
	"errors"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
)

func TestRetries(t *testing.T) {
	id := dynamo.RequestID{1}
	write := func(i int) Put {
		return Put{Value: []byte{byte(i)}, Request: dynamo.RequestID{2, byte(i)}, Now: dynamo.Timestamp(i) * second}
	}
	s := open(1)
	first := must(t, s, Stored{}, Put{Value: []byte("a"), Request: id, Now: second})
	retry := Put{Value: []byte("a"), Request: id, Retry: true, Age: time.Second, Now: 2 * second}

	again := must(t, s, first.Stored, retry)
	if !again.Known || again.Dot != first.Dot {
		t.Fatalf("a known request wrote again: %+v", again)
	}

	gone := must(t, s, first.Stored, Put{Tombstone: true, Context: first.Stored.Record.Context(), Now: 2 * second})
	again = must(t, s, gone.Stored, retry)
	if !again.Known || values(again.Stored) != "-" {
		t.Fatalf("a retry undid the delete: %v", values(again.Stored))
	}

	st := first.Stored
	for i := range version.RecentRequests {
		st = must(t, s, st, write(i+2)).Stored
	}
	if r := must(t, s, st, Put{Request: id, Retry: true, Age: time.Minute, Now: 30 * second}); !r.Known || r.Dot != first.Dot {
		t.Fatalf("a request whose version is there wrote again: %+v", r)
	}
	st = must(t, s, st, Put{Tombstone: true, Context: first.Stored.Record.Context(), Now: 20 * second}).Stored
	if _, err := s.Coordinate(st, Put{Request: id, Retry: true, Age: time.Minute, Now: 30 * second}); !errors.Is(err, ErrUnknown) {
		t.Fatalf("a forgotten request must be unknown, have %v", err)
	}
	if r := must(t, s, st, Put{Request: dynamo.RequestID{9}, Retry: true, Age: time.Second, Now: 30 * second}); r.Known {
		t.Fatal("an attempt younger than all that was forgotten is new")
	}
	old := Put{Request: dynamo.RequestID{8}, Retry: true, Age: Remember, Now: 5 * dynamo.Timestamp(Remember)}
	if _, err := s.Coordinate(Stored{}, old); !errors.Is(err, ErrUnknown) {
		t.Fatalf("an attempt older than anything remembered must be unknown, have %v", err)
	}
}

// TestTwinFromACut: a write is carried out by a node that is cut off, and by another
// one for the client's second attempt; it is read and replaced, and the key is used
// forty times more before the cut heals.
func TestTwinFromACut(t *testing.T) {
	a, b := open(1), open(2)
	p := Put{Value: []byte("twice"), Request: dynamo.RequestID{1}, Now: 100 * second}
	apart := must(t, a, Stored{}, p).Stored
	p.Retry, p.Age = true, time.Second
	here := must(t, b, Stored{}, p).Stored
	for i := range 40 {
		here = must(t, b, here, Put{Value: []byte("later"), Request: dynamo.RequestID{2, byte(i)}, Context: here.Record.Context(), Now: dynamo.Timestamp(101+i) * second}).Stored
	}
	if m := version.Merge(apart.Record, here.Record); len(m.Versions) != 1 || string(m.Versions[0].Value) != "later" {
		t.Fatalf("what was replaced is back: %+v", m.Versions)
	}
}

// TestRetryOutlivesTheHorizon: a coordinator that forgets what is older than ten
// minutes and a replica that takes its record in remember the same.
func TestRetryOutlivesTheHorizon(t *testing.T) {
	a, b := open(1), open(2)
	here := must(t, a, Stored{}, Put{Value: []byte("x"), Request: dynamo.RequestID{1}, Now: 100 * second, Retry: true, Age: time.Second}).Stored
	there, _, err := b.Accept(Stored{}, here.Record)
	if err != nil {
		t.Fatal(err)
	}
	here = must(t, a, here, Put{Value: []byte("y"), Request: dynamo.RequestID{2}, Context: here.Record.Context(), Now: 800 * second}).Stored
	if there, _, err = b.Accept(there, here.Record); err != nil || !here.Record.Equal(there.Record) {
		t.Fatalf("%v:\n%+v\n%+v", err, here.Record, there.Record)
	}
}

// TestRetriesUnderSkew: a request is carried out by a node, seventeen more push
// it out of the record's memory, and then its retry comes to a node whose clock
// is off, later than its age says.
func TestRetriesUnderSkew(t *testing.T) {
	const ms = time.Millisecond
	id := dynamo.RequestID{1}
	for _, tc := range []struct {
		name string
		// ahead is how far the judging node's clock is ahead of the first one's,
		// underway how long the retry's message took.
		ahead, underway time.Duration
		slack           time.Duration
		refused         bool
	}{
		{name: "clocks agree", refused: true},
		{name: "clock behind", ahead: -time.Hour, refused: true},
		{name: "clock ahead", ahead: 900 * ms, refused: true},
		{name: "clock ahead and a late message", ahead: 900 * ms, underway: 2 * time.Second, refused: true},
		{name: "clock ahead by more than the slack", ahead: 900 * ms, underway: 2 * time.Second, slack: time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, begin := open(1), 1000*second
			st := must(t, s, Stored{}, Put{Value: []byte("v"), Request: id, Now: begin.Add(20 * ms)}).Stored
			for i := range version.RecentRequests + 1 {
				st = must(t, s, st, Put{
					Value: []byte{byte(i)}, Request: dynamo.RequestID{2, byte(i)}, Context: st.Record.Context(), Now: begin.Add(21 * ms),
				}).Stored
			}
			_, err := s.Coordinate(st, Put{
				Request: id, Retry: true, Age: 100 * ms, Slack: tc.slack, Now: begin.Add(100*ms + tc.underway + tc.ahead),
			})
			if refused := errors.Is(err, ErrUnknown); refused != tc.refused {
				t.Fatalf("refused %v (%v), want %v", refused, err, tc.refused)
			}
		})
	}
}

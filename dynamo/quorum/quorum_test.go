package quorum

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestValidateAll tries every combination up to one beyond the limits against
// the rule written out.
func TestValidateAll(t *testing.T) {
	for n := -1; n <= MaxN+1; n++ {
		for r := -1; r <= MaxN+1; r++ {
			for pr := -1; pr <= MaxN+1; pr++ {
				goodN := n >= 1 && n <= MaxN
				good := goodN && r >= 1 && r <= n && pr >= 0 && pr <= n
				read := Params{N: n, R: r, W: 1, PR: pr}
				if err := read.Validate(); (err == nil) != good {
					t.Fatalf("%v: got %v, want valid %v", read, err, good)
				}
				write := Params{N: n, R: 1, W: r, PW: pr}
				if err := write.Validate(); (err == nil) != good {
					t.Fatalf("%v: got %v, want valid %v", write, err, good)
				}
			}
		}
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	err := Params{N: 3, R: 0, W: 4, PR: -1, PW: 5}.Validate()
	for _, want := range []error{ErrR, ErrW, ErrPR, ErrPW} {
		if !errors.Is(err, want) {
			t.Errorf("%v is missing in %q", want, err)
		}
	}
	if errors.Is(err, ErrN) {
		t.Errorf("n = 3 was reported: %q", err)
	}
	if err := (Params{N: 8, R: 1, W: 1}).Validate(); !errors.Is(err, ErrN) {
		t.Errorf("n = 8: got %v, want ErrN", err)
	}
	if err := Default().Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
}

func TestOverride(t *testing.T) {
	base := Params{N: 3, R: 2, W: 2, PR: 1, PW: 1}
	cases := []struct {
		over Override
		want Params
		err  error
	}{
		{Override{}, base, nil},
		{Override{R: 1}, Params{3, 1, 2, 1, 1}, nil},
		{Override{W: 3, PW: 3}, Params{3, 2, 3, 1, 3}, nil},
		{Override{R: 3, W: 1, PR: 2, PW: 2}, Params{3, 3, 1, 2, 2}, nil},
		{Override{R: 4}, Params{3, 4, 2, 1, 1}, ErrR},
		{Override{W: -1}, Params{3, 2, -1, 1, 1}, ErrW},
		{Override{PR: 4}, Params{3, 2, 2, 4, 1}, ErrPR},
		{Override{PW: 4}, Params{3, 2, 2, 1, 4}, ErrPW},
	}
	for _, c := range cases {
		got, err := base.Override(c.over)
		if got != c.want || !errors.Is(err, c.err) || (c.err == nil) != (err == nil) {
			t.Errorf("%+v: got %v %v, want %v %v", c.over, got, err, c.want, c.err)
		}
	}
}

func TestParamsString(t *testing.T) {
	if got, want := Default().String(), "n=3 r=2 w=2 pr=0 pw=0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for s, want := range map[State]string{Pending: "pending", Met: "met", Lost: "lost", 9: "unknown(9)"} {
		if got := s.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	tally := NewTally(2, 1)
	tally.Add("a", true)
	tally.Add("b", false)
	tally.Answer("a")
	if got := tally.String(); !strings.HasPrefix(got, "1 of 2, primaries 1 of 1, pending") {
		t.Errorf("tally prints %q", got)
	}
	if got := fmt.Sprint(tally.Open(), tally.OpenPrimaries(), tally.Needed(), tally.NeededPrimaries()); got != "1 0 2 1" {
		t.Errorf("open, open primaries, needed, needed primaries: %s", got)
	}
}

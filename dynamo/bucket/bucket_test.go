package bucket

import (
	"errors"
	"testing"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

func TestDefault(t *testing.T) {
	want := Properties{Quorum: quorum.Params{N: 3, R: 2, W: 2}}
	if got := Default(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := Default().Validate(); err != nil {
		t.Errorf("the default does not validate: %v", err)
	}
}

func TestValidate(t *testing.T) {
	with := func(change func(*Properties)) Properties {
		p := Default()
		change(&p)
		return p
	}
	cases := []struct {
		name string
		p    Properties
		want []error
	}{
		{"ttl", with(func(p *Properties) { p.TTL = time.Hour }), nil},
		{"longest ttl", with(func(p *Properties) { p.TTL = MaxTTL }), nil},
		{"lww none", with(func(p *Properties) { p.Conflicts, p.Durability = dynamo.LastWriteWins, dynamo.DurabilityNone }), nil},
		{"negative ttl", with(func(p *Properties) { p.TTL = -time.Second }), []error{ErrTTL}},
		{"ttl below a millisecond", with(func(p *Properties) { p.TTL = time.Microsecond }), []error{ErrTTL}},
		{"ttl too long", with(func(p *Properties) { p.TTL = MaxTTL + time.Millisecond }), []error{ErrTTL}},
		{"everything", Properties{Quorum: quorum.Params{N: 9}, Durability: 7, Conflicts: 7, TTL: 1},
			[]error{quorum.ErrN, ErrDurability, ErrConflicts, ErrTTL}},
	}
	for _, c := range cases {
		err := c.p.Validate()
		if (err == nil) != (len(c.want) == 0) {
			t.Errorf("%s: got %v", c.name, err)
		}
		for _, want := range c.want {
			if !errors.Is(err, want) {
				t.Errorf("%s: %q does not report %v", c.name, err, want)
			}
		}
	}
}

func TestCheckChange(t *testing.T) {
	old := Default()
	next := old
	next.Quorum.R, next.Quorum.W, next.TTL, next.Durability = 1, 3, time.Minute, dynamo.DurabilityOne
	if err := old.CheckChange(next); err != nil {
		t.Errorf("a change of r, w, ttl and durability was refused: %v", err)
	}
	next.Quorum.N, next.Conflicts, next.Quorum.R = 5, dynamo.LastWriteWins, 0
	err := old.CheckChange(next)
	if !errors.Is(err, ErrFixed) || !errors.Is(err, quorum.ErrR) {
		t.Errorf("n, conflicts and r = 0: got %v", err)
	}
	next = old
	next.Conflicts = dynamo.LastWriteWins
	if err := old.CheckChange(next); !errors.Is(err, ErrFixed) {
		t.Errorf("conflicts: got %v", err)
	}
}

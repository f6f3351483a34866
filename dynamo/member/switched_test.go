package member

import (
	"slices"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

// switching is a cluster whose partition 0 has n replicas by a next list that reads use already, and that is not
// done: from are those by the list before, all of them others.
func switching(t testing.TB) (d Document, from, to []dynamo.NodeID) {
	t.Helper()
	d, _ = losing(t, 1)
	d = committed(t, d, of(Leave, d.Settled.Replicas(0)[0]))
	for range 10 {
		facts := perfect(d)
		if d.Phase(0) == PhaseSwitched {
			return d, d.Settled.Primaries(0, 1), d.Next.Primaries(0, 1)
		}
		d, _ = d.Advance(facts)
	}
	t.Fatalf("partition 0 is never switched: %+v", d.Movement)
	return d, nil, nil
}

// silent are perfect facts in which nobody says that a partition is filled.
func silent(d Document) map[dynamo.NodeID]Facts {
	out := perfect(d)
	for id, f := range out {
		f.Filled = nil
		out[id] = f
	}
	return out
}

// TestSwitchedIsFilled: a replica that loses its disk when reads have just begun to use it is filled by those
// before it, who keep what they have until it is.
func TestSwitchedIsFilled(t *testing.T) {
	d, from, to := switching(t)
	if slices.Equal(from, to) {
		t.Fatalf("the partition stays on %v", from)
	}
	lost := wiped(t, d, to...)
	f, _ := lost.Filling(0, to[0])
	if got := lost.Sources(f, 1); !slices.Equal(got, from) || lost.Lost(f) || lost.LostFor(0, 1) {
		t.Errorf("filled by %v, want %v; lost: %v", got, from, lost.Losses())
	}
	waits, _ := lost.Advance(silent(lost))
	if got := waits.Phase(0); got != PhaseSwitched {
		t.Errorf("the partition is %v before its replica is filled", got)
	}
	full, _ := waits.Advance(perfect(waits))
	if _, lacks := full.Filling(0, to[0]); lacks {
		t.Errorf("never filled: %+v", full.Movement)
	}
	if end := ended(t, full); end.Next != nil {
		t.Errorf("it ends with %+v", end.Movement)
	}
}

// TestSwitchedIsLost: when those before have lost their disks, too, the movement does not wait for what nobody has.
func TestSwitchedIsLost(t *testing.T) {
	d, from, to := switching(t)
	lost := wiped(t, d, append(slices.Clone(to), from...)...)
	if f, _ := lost.Filling(0, to[0]); !lost.Lost(f) {
		t.Errorf("nobody has it, and it is not lost: %+v", lost.Movement)
	}
	if end := ended(t, lost); end.Next != nil || len(end.Losses()) == 0 {
		t.Errorf("it ends with %+v", end.Movement)
	}
}

// TestDoneIsLost: once the partition is done those before drop what they have handed over, so they prove nothing.
func TestDoneIsLost(t *testing.T) {
	d, _, to := switching(t)
	done, _ := d.Advance(perfect(d))
	if got := done.Phase(0); got != PhaseDone && got != PhaseSettled {
		t.Fatalf("the partition is %v", got)
	}
	lost := wiped(t, done, to...)
	if f, _ := lost.Filling(0, to[0]); len(lost.Sources(f, 1)) != 0 || !lost.Lost(f) {
		t.Errorf("filled by %v", lost.Sources(f, 1))
	}
}

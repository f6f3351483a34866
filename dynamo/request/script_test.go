package request

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/dynactor/dynactor/dynamo"
)

// TestScripts runs the scenarios of testdata: what comes in on top, the effects
// and the new state below. Refresh them with -rewrite, and read the difference.
//
//	get n=3 r=2 pr=0 candidates=(a, b, c, d>) filling=(c) near=a digest=100
//	put n=3 w=2 pw=0 candidates=(a, b, c, d>) local=a durability=all
//	answer from=a [unfilled]        the record on the next line, or none
//	fetched from=a                  the same, to a fetch
//	fail from=a reason=timeout [fetched]
//	prepared [known]                the record on the next line
//	durable from=a
//	refused [unknown]               the error on the next line
//	deadline for=AwaitingQuorum
//	describe
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var m machine
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "get", "put":
				var err error
				if m, err = plan(t, d); err != nil {
					return "error: " + err.Error() + "\n"
				}
				return outcome(m, m.Start())
			case "describe":
				return sketch(m.Describe())
			}
			return outcome(m, m.Step(now, scripted(t, d)))
		})
	})
}

func outcome(m machine, effects []Effect) string {
	if len(effects) == 0 {
		return fmt.Sprintf("nothing; %v\n", m.State())
	}
	return fmt.Sprintf("%s\n-- %v\n", describeAll(effects), m.State())
}

func sketch(d Description) string {
	s := fmt.Sprintf("%v: %s\n", d.State, d.Quorum)
	for _, r := range d.Replicas {
		s += fmt.Sprintf("  %s: %s", showReplica(r.Replica), r.Stage)
		if r.Reason != NoReason {
			s += ", " + r.Reason.String()
		}
		s += "\n"
	}
	return s
}

// plan makes the machine that a get or put command describes.
func plan(t *testing.T, d *datadriven.TestData) (machine, error) {
	n, r, w, pr, pw, digest := 3, 2, 2, 0, 0, 0
	var near, local, durability string
	for name, dst := range map[string]any{
		"n": &n, "r": &r, "w": &w, "pr": &pr, "pw": &pw, "digest": &digest, "near": &near, "local": &local, "durability": &durability,
	} {
		d.MaybeScanArgs(t, name, dst)
	}
	list := func(name string) string {
		for _, a := range d.CmdArgs {
			if a.Key == name {
				return strings.Join(a.Vals, " ")
			}
		}
		return ""
	}
	if d.Cmd == "get" {
		cfg := GetConfig{
			Params: params(n, r, 1, pr, 0), Candidates: replicas(list("candidates")),
			Near: dynamo.NodeID(near), DigestAbove: digest,
		}
		for node := range strings.FieldsSeq(list("filling")) {
			cfg.Filling = append(cfg.Filling, dynamo.NodeID(node))
		}
		return NewGet(cfg)
	}
	cfg := PutConfig{Params: params(n, 1, w, 0, pw), Candidates: replicas(list("candidates")), Local: dynamo.NodeID(local)}
	if durability != "" {
		var err error
		if cfg.Durability, err = dynamo.ParseDurability(durability); err != nil {
			return nil, err
		}
	}
	return NewPut(cfg)
}

// scripted makes the event that a command describes.
func scripted(t *testing.T, d *datadriven.TestData) Event {
	var from, reason, state string
	d.MaybeScanArgs(t, "from", &from)
	d.MaybeScanArgs(t, "reason", &reason)
	d.MaybeScanArgs(t, "for", &state)
	switch d.Cmd {
	case "answer", "fetched":
		a := answer(from, d.Input)
		a.Fetched, a.Authoritative = d.Cmd == "fetched", !d.HasArg("unfilled")
		return a
	case "fail":
		return Fail{From: dynamo.NodeID(from), Fetched: d.HasArg("fetched"), Reason: named[Reason](t, reason)}
	case "prepared":
		rec := record(d.Input)
		return Prepared{Record: rec, Dot: rec.Versions[len(rec.Versions)-1].Dot, Known: d.HasArg("known")}
	case "durable":
		return Durable{dynamo.NodeID(from)}
	case "refused":
		return Refused{Err: fmt.Errorf("%s", d.Input), Unknown: d.HasArg("unknown")}
	case "deadline":
		return Deadline{named[State](t, state)}
	}
	d.Fatalf(t, "unknown command %s", d.Cmd)
	return nil
}

// named finds the value of a small enumeration by its name.
func named[T interface {
	~uint8
	fmt.Stringer
}](t *testing.T, name string) T {
	for i := range T(20) {
		if i.String() == name {
			return i
		}
	}
	t.Fatalf("%q names no %T", name, T(0))
	return 0
}

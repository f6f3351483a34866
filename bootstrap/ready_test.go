package bootstrap

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynactor/dynactor/dynamo"
)

// testGate notes who was lacking when the time was over.
type testGate struct {
	*linkGate
	late string
}

func (g *testGate) note(lacking string) { g.late = lacking }

func isOpen(g *linkGate) bool {
	select {
	case <-g.open:
		return true
	default:
		return false
	}
}

func TestLinkGate(t *testing.T) {
	members := []dynamo.NodeID{"n2", "n3"}
	for name, tc := range map[string]struct {
		steps func(g *testGate)
		shut  string // what it waits for after the steps; empty: it is open
	}{
		"not in a cluster":  {func(g *testGate) { g.set("n2", true) }, "waiting for links to "},
		"nobody is there":   {func(g *testGate) { g.await(members, time.Minute, g.note) }, "waiting for links to n2, n3"},
		"one is there":      {func(g *testGate) { g.await(members, time.Minute, g.note); g.set("n3", true) }, "waiting for links to n2"},
		"a stranger too":    {func(g *testGate) { g.await(members, time.Minute, g.note); g.set("n3", true); g.set("n9", true) }, "waiting for links to n2"},
		"all came":          {func(g *testGate) { g.await(members, time.Minute, g.note); g.set("n3", true); g.set("n2", true) }, ""},
		"all were there":    {func(g *testGate) { g.set("n3", true); g.set("n2", true); g.await(members, time.Minute, g.note) }, ""},
		"nobody to wait":    {func(g *testGate) { g.await(nil, time.Minute, g.note) }, ""},
		"one went again":    {func(g *testGate) { g.set("n3", true); g.set("n3", false); g.await(members[1:], time.Minute, g.note) }, "waiting for links to n3"},
		"it stays open":     {func(g *testGate) { g.await(members[:1], time.Minute, g.note); g.set("n2", true); g.set("n2", false) }, ""},
		"the time is over":  {func(g *testGate) { g.await(members, time.Minute, g.note); time.Sleep(time.Minute) }, ""},
		"the first await":   {func(g *testGate) { g.await(members, time.Minute, g.note); g.await(nil, 0, g.note) }, "waiting for links to n2, n3"},
		"stopped, not open": {func(g *testGate) { g.await(members, time.Minute, g.note); g.stop(); time.Sleep(time.Hour) }, "waiting for links to n2, n3"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &testGate{linkGate: newLinkGate()}
				tc.steps(g)
				synctest.Wait()
				if got := g.shut(); got != tc.shut || isOpen(g.linkGate) != (tc.shut == "") {
					t.Errorf("it says %q, open %v; want %q", got, isOpen(g.linkGate), tc.shut)
				}
				g.stop()
				if wantLate := map[bool]string{true: "n2, n3"}[name == "the time is over"]; g.late != wantLate {
					t.Errorf("told late: %q, want %q", g.late, wantLate)
				}
			})
		})
	}
}

// TestReadyMeansLinked: a node that says it is ready can send requests to all
// members that live, and it does not wait for ever for those that do not.
func TestReadyMeansLinked(t *testing.T) {
	t.Parallel()
	configs := onDisk(t, seeded(t, 3))
	nodes := make([]*testNode, len(configs))
	for i, c := range configs {
		nodes[i] = start(t, c)
	}
	// In turn, so that none has the time in which the others become ready.
	for _, n := range []*testNode{nodes[1], nodes[2], nodes[0]} {
		n.ready()
		if got := n.Connected(); len(got) != 2 {
			t.Errorf("%s is ready and linked to %v only", n.config.Name, got)
		}
	}
	for _, n := range nodes {
		n.stop()
	}
	alone := start(t, configs[1])
	alone.ready()
	if h := alone.Health(); !h.Ready || h.Reason != "" || len(alone.Connected()) != 0 {
		t.Errorf("alone: %+v, linked to %v", h, alone.Connected())
	}
	eventually(t, "the log saying who is lacking", func() bool {
		return strings.Contains(alone.log.String(), `"ready without links to all members" node=n2 lacking="n1, n3"`)
	})
}

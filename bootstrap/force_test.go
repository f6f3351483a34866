package bootstrap

import (
	"context"
	"slices"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

// force removes members by force at a node.
func force(t *testing.T, at *testNode, lost ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := newClient(t, at).Cluster()
	// The node may not have noticed yet that they are gone, or that others are there.
	eventually(t, "forced", func() bool {
		_, err := c.Force(ctx, lost...)
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
}

// TestMajorityIsLost: the others go on without it, with all that they have; who was lost
// is refused when it comes back, until its directory is emptied.
func TestMajorityIsLost(t *testing.T) {
	t.Parallel()
	configs := onDisk(t, seeded(t, 4))
	for i := range configs {
		configs[i].AutoJoin = true
	}
	nodes := startAll(t, configs)
	fill(t, 20, nodes[:3]...)
	left := nodes[:2]
	for _, n := range nodes[2:] {
		n.stop()
	}
	force(t, left[0], "n3", "n4")
	gone := func() bool {
		return !slices.ContainsFunc(left[1].Document().Members[2:], func(m member.Member) bool { return m.Status != member.Gone })
	}
	eventually(t, "n3 and n4 gone", gone)
	if d := left[1].Document(); len(d.Forced) != 1 || !slices.Equal(d.Forced[0].Lost, []dynamo.NodeID{"n3", "n4"}) {
		t.Errorf("recorded: %+v", d.Forced)
	}
	for _, n := range left {
		n.ready()
	}
	c := newClient(t, left...)
	for _, key := range []string{"k0", "k19"} {
		holds(t, c, key, []byte(key))
	}
	serves(t, left...)
	back := start(t, configs[3])
	back.says("n4 is no member of test any more")
	refusesClients(t, back, "n4 is no member of test any more")
	back.stop()
	empty(t, configs[3])
	back = start(t, configs[3])
	back.ready()
	eventually(t, "n4 a member", func() bool { m, _ := left[0].Document().Member("n4"); return m.Status == member.Up })
}

// TestBothSidesForced: when both sides of a cut were forced, one of them does not serve
// any more once they meet, and the other goes on.
func TestBothSidesForced(t *testing.T) {
	t.Parallel()
	configs := onDisk(t, seeded(t, 4))
	nodes := startAll(t, configs)
	left, right := nodes[:2], nodes[2:]
	for _, n := range right {
		n.stop()
	}
	force(t, left[0], "n3", "n4")
	eventually(t, "both of the left go by it", func() bool { return len(left[1].Document().Forced) == 1 })
	one := left[0].Document().Version
	for _, n := range left {
		n.stop()
	}
	right = startAll(t, configs[2:])
	force(t, right[0], "n1", "n2")
	eventually(t, "both of the right go by it", func() bool { return len(right[1].Document().Forced) == 1 })
	other := right[0].Document().Version
	for i := range left {
		left[i] = start(t, configs[i])
	}
	out, in := left, right // which side overrules depends on the ids of their stores
	if member.Overrules(one, other) {
		out, in = right, left
	}
	for _, n := range out {
		n.says("is no member of test any more")
		refusesClients(t, n, "is no member of test any more")
	}
	for _, n := range in {
		n.ready()
	}
	serves(t, in...)
}

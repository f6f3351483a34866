package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/bootstrap/consultest"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// joiner is a node that is to join the cluster of the others.
func joiner(name string, seed *testNode) Config {
	c := testConfig(name)
	c.Seeds = []string{seed.Addr()}
	return c
}

// settled waits until nothing moves at any node and all go by one document.
func settled(t *testing.T, nodes ...*testNode) *member.Document {
	t.Helper()
	eventually(t, "an end of the movement", func() bool {
		first := nodes[0].Document()
		for _, n := range nodes {
			if d := n.Document(); d == nil || !d.Equal(*first) || d.Unfinished() {
				return false
			}
		}
		return true
	})
	return nodes[0].Document()
}

// fillKeys writes keys, and hasKeys reads them all, with R + W > N.
func fillKeys(t *testing.T, c *client.Client, keys int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range keys {
		if _, err := c.Bucket("b").Put(ctx, fmt.Sprint("key ", i), fmt.Append(nil, "value ", i)); err != nil {
			t.Fatalf("put: %v", err)
		}
	}
}

func hasKeys(t *testing.T, c *client.Client, keys int) {
	t.Helper()
	for i := range keys {
		holds(t, c, fmt.Sprint("key ", i), fmt.Append(nil, "value ", i))
	}
}

// commit commits what is staged.
func commit(t *testing.T, c *client.Client) member.Plan {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, err := c.Cluster().Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := status.Document.Plan()
	if err == nil {
		_, err = c.Cluster().Commit(ctx, status.Document.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// joins is what a new node goes through: it is staged by itself and owns nothing until
// an operator commits; then it gets its share and serves.
func joins(t *testing.T, nodes []*testNode, c Config) (fresh *testNode) {
	t.Helper()
	const keys = 60
	cl := newClient(t, nodes[0])
	fillKeys(t, cl, keys)
	fresh = start(t, c)
	eventually(t, "its join being staged", func() bool { return len(nodes[0].Document().Staged) == 1 })
	if fresh.Document() != nil || len(nodes[0].Document().Members) != len(nodes) {
		t.Fatal("it is a member without a commit")
	}
	plan := commit(t, cl)
	all := append(nodes, fresh)
	doc := settled(t, all...)
	share := len(doc.Settled.PartitionsOf("joiner", ring.Focus))
	if fair := 3 * doc.Settled.Partitions() / len(all); share < fair || share > fair+1 {
		t.Errorf("it has %d of %d partitions", share, doc.Settled.Partitions())
	}
	if m, _ := doc.Member("joiner"); m.Status != member.Up || !plan.To.SameLists(doc.Settled) || plan.Moves != share {
		t.Errorf("%+v; %d moves for %d partitions", m, plan.Moves, share)
	}
	fresh.ready()
	hasKeys(t, newClient(t, fresh), keys)
	return fresh
}

// TestJoinAndLeave: a node joins, gets its share, and leaves again; what was written
// before is there all the time. Operators who talk to it change and learn what comes after it
// has left through others.
func TestJoinAndLeave(t *testing.T) {
	nodes := startAll(t, seeded(t, 3))
	fresh := joins(t, nodes, joiner("joiner", nodes[1]))
	cl := newClient(t, nodes[0])
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	talking := func() (operator *client.Client) {
		eventually(t, "an operator talking to the joiner", func() bool {
			operator = newClient(t, fresh)
			status, err := operator.Cluster().Status(ctx)
			return err == nil && status.Asked == "joiner"
		})
		return operator
	}
	operator, other, forcing := talking(), talking(), talking()
	if _, err := cl.Cluster().Stage(ctx, member.Change{Kind: member.Leave, Node: "joiner"}); err != nil {
		t.Fatal(err)
	}
	commit(t, cl)
	doc := settled(t, nodes...)
	if m, _ := doc.Member("joiner"); m.Status != member.Gone || doc.Settled.Has("joiner") {
		t.Errorf("%+v", m)
	}
	eventually(t, "the joiner hearing that it has left", func() bool {
		m, _ := fresh.Document().Member("joiner")
		return m.Out()
	})
	// The others are not asked whether they are lost themselves.
	if _, err := forcing.Cluster().Force(ctx, "n1", "n2", "n3"); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "no member of") {
		t.Errorf("by force, through one that has left: %v", err)
	}
	after, err := other.Cluster().CreateBucket(ctx, member.Bucket{Name: "after", Properties: bucket.Default()})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the operator hearing of it", func() bool {
		status, err := operator.Cluster().Status(ctx)
		return err == nil && status.Document.Version >= after.Document.Version
	})
	hasKeys(t, newClient(t, nodes[2]), 60)
}

// TestSeveralJoin in one commit: each partition moves once.
func TestSeveralJoin(t *testing.T) {
	nodes := startAll(t, seeded(t, 3))
	cl := newClient(t, nodes[0])
	fillKeys(t, cl, 60)
	all := append(nodes, start(t, joiner("n4", nodes[0])), start(t, joiner("n5", nodes[2])))
	eventually(t, "both being staged", func() bool { return len(nodes[0].Document().Staged) == 2 })
	plan := commit(t, cl)
	doc := settled(t, all...)
	if plan.Moves > plan.LeastMoves*105/100 || doc.Settled.Version() != 2 {
		t.Errorf("%d moves, %d would do; ring %d", plan.Moves, plan.LeastMoves, doc.Settled.Version())
	}
	hasKeys(t, newClient(t, all[4]), 60)
}

// TestClearedNodeAsksNoMore, until an operator says so.
func TestClearedNodeAsksNoMore(t *testing.T) {
	nodes := startAll(t, seeded(t, 3))
	cl := newClient(t, nodes[0])
	fresh := start(t, joiner("n4", nodes[0]))
	eventually(t, "its join being staged", func() bool { return len(nodes[0].Document().Staged) == 1 })
	eventually(t, "it knows", func() bool { return strings.Contains(fresh.log.String(), "staged to join") })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, err := cl.Cluster().Clear(ctx)
	if err != nil || len(status.Document.Staged) != 0 {
		t.Fatalf("clear: %v, %v", status.Document.Staged, err)
	}
	if _, err := cl.Cluster().Commit(ctx, status.Document.Version); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("commit of nothing: %v", err)
	}
	if _, err := newClient(t, fresh).Cluster().Join(ctx); err != nil {
		t.Fatalf("join again: %v", err)
	}
	eventually(t, "its join being staged again", func() bool { return len(nodes[0].Document().Staged) == 1 })
}

// TestAutoJoin: a cluster that was founded so takes nodes by itself, one after the
// other.
func TestAutoJoin(t *testing.T) {
	configs := seeded(t, 3)
	for i := range configs {
		configs[i].AutoJoin = true
	}
	nodes := startAll(t, configs)
	fillKeys(t, newClient(t, nodes[0]), 60)
	all := append(nodes, start(t, joiner("n4", nodes[0])), start(t, joiner("n5", nodes[1])))
	eventually(t, "both being members", func() bool { return len(nodes[0].Document().Members) == 5 })
	if doc := settled(t, all...); len(doc.Settled.PartitionsOf("n4", 3)) == 0 || len(doc.Settled.PartitionsOf("n5", 3)) == 0 {
		t.Error("they have no partitions")
	}
	hasKeys(t, newClient(t, all[3]), 60)
}

// TestConsulJoin: a new node finds the cluster by its service.
func TestConsulJoin(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	nodes := consulCluster(t, a, "test", 3)
	joins(t, nodes, consulConfig(a, "test", "joiner", 3))
}

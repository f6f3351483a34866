package bootstrap

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/dynactor/dynactor/bootstrap/consultest"
)

// consulConfig is that of a node that finds the others with the agent.
func consulConfig(a *consultest.Agent, cluster, name string, expect int) Config {
	c := testConfig(name)
	c.Cluster, c.Consul, c.Found, c.Expect = cluster, a.Addr(), true, expect
	return c
}

// consulCluster starts n nodes at once and waits until all serve.
func consulCluster(t *testing.T, a *consultest.Agent, cluster string, n int) []*testNode {
	t.Helper()
	var nodes []*testNode
	for i := range n {
		nodes = append(nodes, start(t, consulConfig(a, cluster, fmt.Sprintf("n%d", i+1), n)))
	}
	for _, n := range nodes {
		n.ready()
	}
	return nodes
}

// passing lists the addresses of a cluster's passing instances.
func passing(t *testing.T, a *consultest.Agent, cluster string) map[string]*api.AgentService {
	t.Helper()
	out := map[string]*api.AgentService{}
	entries, _, err := a.Management().Health().Service("dynactor-"+cluster, "", true, nil)
	if err != nil {
		return out // the agent may be coming back
	}
	for _, e := range entries {
		out[fmt.Sprintf("%s:%d", e.Service.Address, e.Service.Port)] = e.Service
	}
	return out
}

// founder is what the key of a cluster says.
func founder(t *testing.T, a *consultest.Agent, cluster string) founderEntry {
	t.Helper()
	pair, _, err := a.Management().KV().Get("dynactor/"+cluster+"/founder", nil)
	if err != nil || pair == nil {
		return founderEntry{}
	}
	var e founderEntry
	if err := json.Unmarshal(pair.Value, &e); err != nil {
		t.Fatalf("key %q: %v", pair.Value, err)
	}
	return e
}

// oneCluster checks that all nodes are in the same cluster, and returns its id.
func oneCluster(t *testing.T, nodes []*testNode) string {
	t.Helper()
	first := nodes[0].Document()
	for _, n := range nodes {
		if d := n.Document(); d.ClusterID != first.ClusterID || len(d.Members) != len(nodes) {
			t.Fatalf("%s is in %v of %d members, %s in %v", n.config.Name, d.ClusterID, len(d.Members), nodes[0].config.Name, first.ClusterID)
		}
	}
	return first.ClusterID.String()
}

func TestConsulRegistersAndLeaves(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	n := consulCluster(t, a, "one", 1)[0]
	s := passing(t, a, "one")[n.Addr()]
	if s == nil {
		t.Fatal("the node is not registered")
	}
	if s.ID != "dynactor-one-n1" || s.Meta["node"] != "n1" || s.Meta["store"] != n.identity.Store || s.Meta["version"] != "1" {
		t.Errorf("registered as %+v", s)
	}
	if e := founder(t, a, "one"); e.ClusterID != n.Document().ClusterID.String() || e.Founder != "n1" {
		t.Errorf("the founder's key says %+v", e)
	}
	if s := n.discovery.Status(); s.Problem != "" || s.Incomplete != "" || len(s.Listed) != 1 || s.Listed[0] != n.Addr() {
		t.Errorf("status %+v", s)
	}
	// Another cluster at the same agent is another world.
	other := consulCluster(t, a, "two", 1)[0]
	if other.Document().ClusterID == n.Document().ClusterID || len(other.discovery.Status().Listed) != 1 {
		t.Error("two clusters at one agent see each other")
	}
	n.stop()
	services, err := a.Management().Agent().Services()
	if err != nil {
		t.Fatal(err)
	}
	if _, there := services["dynactor-one-n1"]; there {
		t.Error("the registration is still there after an orderly stop")
	}
}

func TestConsulWatches(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	nodes := []*testNode{start(t, consulConfig(a, "test", "n1", 3)), start(t, consulConfig(a, "test", "n2", 3))}
	for _, n := range nodes {
		n.says("2 of 3 nodes are here: n1, n2")
	}
	third := start(t, consulConfig(a, "test", "n3", 3))
	nodes = append(nodes, third)
	for _, n := range nodes {
		n.ready()
	}
	oneCluster(t, nodes)
	serves(t, nodes...)
	third.stop()
	eventually(t, "the third leaving the list", func() bool { return len(nodes[0].discovery.Status().Listed) == 2 })
	if len(nodes[0].Document().Members) != 3 {
		t.Error("who leaves Consul is still a member")
	}
	serves(t, nodes[:2]...)
}

func TestConsulAgentKilledAndBack(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprintf("keeps its data %v", keep), func(t *testing.T) {
			a := consultest.Start(t, consultest.Options{Keep: keep})
			nodes := consulCluster(t, a, "test", 3)
			id := oneCluster(t, nodes)
			a.Kill()
			eventually(t, "the node noticing", func() bool { return nodes[0].discovery.Status().Problem != "" })
			serves(t, nodes...)
			for _, n := range nodes {
				if !n.Health().Ready {
					t.Errorf("%s is not ready without Consul: %s", n.config.Name, n.Health().Reason)
				}
			}
			a.Start()
			eventually(t, "all being registered again", func() bool { return len(passing(t, a, "test")) == 3 })
			eventually(t, "the founder's key being there", func() bool { return founder(t, a, "test").ClusterID == id })
			for _, n := range nodes {
				eventually(t, "Consul working for all", func() bool {
					s := n.discovery.Status()
					return s.Problem == "" && s.Incomplete == "" && len(s.Listed) == 3
				})
			}
			if !keep && !strings.Contains(nodes[0].log.String()+nodes[1].log.String()+nodes[2].log.String(), "wrote the founder's key again") {
				t.Error("nobody says that it wrote the key again")
			}
			serves(t, nodes...)
		})
	}
}

// TestConsulAgentFrozen: nothing waits for an agent that does not answer.
func TestConsulAgentFrozen(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	nodes := consulCluster(t, a, "test", 3)
	a.Freeze()
	eventually(t, "the node noticing", func() bool { return strings.Contains(nodes[0].discovery.Status().Problem, topicRegistration) })
	serves(t, nodes...)
	nodes[2].stop() // fails the test if it takes longer than StopTimeout
	late := start(t, consulConfig(a, "test", "late", 3))
	late.says("not in a cluster yet")
	late.stop()
	serves(t, nodes[:2]...)
	a.Thaw()
	eventually(t, "Consul working again", func() bool { return nodes[0].discovery.Status().Problem == "" })
}

// TestConsulAbsent starts nodes without an agent.
func TestConsulAbsent(t *testing.T) {
	t.Run("members are known", func(t *testing.T) {
		a := consultest.Start(t, consultest.Options{})
		dir, at := t.TempDir(), addresses(t, 3)
		begin := func() (nodes []*testNode) {
			for i := range 3 {
				c := consulConfig(a, "test", fmt.Sprintf("n%d", i+1), 3)
				c.Listen, c.DataDir = at[i], filepath.Join(dir, c.Name)
				nodes = append(nodes, start(t, c))
			}
			for _, n := range nodes {
				n.ready()
			}
			return nodes
		}
		nodes := begin()
		id := oneCluster(t, nodes)
		serves(t, nodes...)
		for _, n := range nodes {
			n.stop()
		}
		a.Kill()
		nodes = begin()
		serves(t, nodes...)
		if again := oneCluster(t, nodes); again != id {
			t.Errorf("now in cluster %s, was in %s", again, id)
		}
		a.Start()
		eventually(t, "all being registered", func() bool { return len(passing(t, a, "test")) == 3 })
		eventually(t, "the key being there", func() bool { return founder(t, a, "test").ClusterID == id })
	})
	t.Run("nothing is known", func(t *testing.T) {
		a := consultest.New(t, consultest.Options{})
		var nodes []*testNode
		for i := range 3 {
			nodes = append(nodes, start(t, consulConfig(a, "test", fmt.Sprintf("n%d", i+1), 3)))
		}
		alone := start(t, consulConfig(a, "alone", "n1", 1))
		alone.says("connection refused")
		for _, n := range nodes {
			n.says("connection refused")
			if n.Document() != nil {
				t.Fatal("founded without Consul")
			}
		}
		a.Start()
		for _, n := range append(nodes, alone) {
			n.ready()
		}
		oneCluster(t, nodes)
	})
}

// testConsul is discovery by itself, without a node.
func testConsul(t *testing.T, agent, name string) *consul {
	t.Helper()
	cfg := testConfig(name)
	cfg.Consul, cfg.Advertise = agent, "127.0.0.1:7800"
	log := &testLog{}
	l, err := NewLogger(log, "debug", "text")
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConsul(cfg, Identity{Store: fmt.Sprintf("%032x", 1)}, l.Logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.client.Load().http.CloseIdleConnections()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, log)
		}
	})
	return c
}

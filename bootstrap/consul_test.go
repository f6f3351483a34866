package bootstrap

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/dynactor/dynactor/bootstrap/consultest"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/storage/memory"
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

// TestConsulFoundsOnce starts three founders at once, several times.
func TestConsulFoundsOnce(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	for i := range 5 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			cluster := fmt.Sprintf("test%d", i)
			nodes := consulCluster(t, a, cluster, 3)
			id := oneCluster(t, nodes)
			if e := founder(t, a, cluster); e.ClusterID != id {
				t.Errorf("the key says %+v, the cluster is %s", e, id)
			}
			if i == 0 {
				serves(t, nodes...)
			}
		})
	}
}

// TestConsulResumes lets a founder go on that crashed after it was elected.
func TestConsulResumes(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	intent := founding.ClusterID{1, 2, 3}
	raw, err := json.Marshal(founderEntry{ClusterID: hex.EncodeToString(intent[:]), Founder: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Management().KV().Put(&api.KVPair{Key: "dynactor/test/founder", Value: raw}, nil); err != nil {
		t.Fatal(err)
	}
	n1, n3 := start(t, consulConfig(a, "test", "n1", 2)), start(t, consulConfig(a, "test", "n3", 2))
	n1.says("n2 was elected to found the cluster")
	n3.says("n2 was elected to found the cluster")
	engine := memory.New()
	if err := writeFact(engine, intentKey, intent[:]); err != nil {
		t.Fatal(err)
	}
	n2, err := startOn(t, consulConfig(a, "test", "n2", 2), Options{Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	nodes := []*testNode{n1, n2, n3}
	for _, n := range nodes {
		n.ready()
	}
	if id := oneCluster(t, nodes); id != hex.EncodeToString(intent[:]) {
		t.Errorf("founded %s, not what was decided before the crash", id)
	}
}

// TestConsulLostFounder: the winner is back with an empty disk. Its cluster may
// exist somewhere, so nobody founds another.
func TestConsulLostFounder(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	raw := fmt.Appendf(nil, `{"cluster_id":"%032x","founder":"n1"}`, 7)
	if _, err := a.Management().KV().Put(&api.KVPair{Key: "dynactor/test/founder", Value: raw}, nil); err != nil {
		t.Fatal(err)
	}
	n := start(t, consulConfig(a, "test", "n1", 1))
	n.says("n1 founded it with another data directory")
	if n.Document() != nil {
		t.Error("founded a second cluster")
	}
}

// TestConsulLateFounder: nodes that are told to found beside a running cluster
// do not, even where Consul has forgotten it.
func TestConsulLateFounder(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	nodes := consulCluster(t, a, "test", 3)
	id := oneCluster(t, nodes)
	for i, forget := range []bool{false, true} {
		if forget {
			if _, err := a.Management().KV().Delete("dynactor/test/founder", nil); err != nil {
				t.Fatal(err)
			}
		}
		late := start(t, consulConfig(a, "test", fmt.Sprintf("late%d", i), 1))
		late.says("is in a cluster that this node is not a member of")
		if late.Document() != nil {
			t.Fatal("the late node founded a cluster")
		}
		eventually(t, "the key coming back", func() bool { return founder(t, a, "test").ClusterID == id })
	}
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

// TestConsulForeignKey: a key that names another cluster is for people.
func TestConsulForeignKey(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	n := consulCluster(t, a, "test", 1)[0]
	foreign := fmt.Appendf(nil, `{"cluster_id":"%032x","founder":"n9"}`, 9)
	for _, value := range [][]byte{foreign, []byte("not json")} {
		if _, err := a.Management().KV().Put(&api.KVPair{Key: "dynactor/test/founder", Value: value}, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the node saying so", func() bool { return strings.Contains(n.discovery.Status().Problem, topicFounder) })
		pair, _, err := a.Management().KV().Get("dynactor/test/founder", nil)
		if err != nil || pair == nil || string(pair.Value) != string(value) {
			t.Fatalf("the key was changed: %v, %v", pair, err)
		}
	}
	if !strings.Contains(n.log.String(), "level=ERROR") || !strings.Contains(n.log.String(), "names another cluster") {
		t.Error("the log does not say so")
	}
	if h := n.Health(); !h.Ready {
		t.Errorf("not ready: %s", h.Reason)
	}
	if _, err := a.Management().KV().Delete("dynactor/test/founder", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key being right", func() bool {
		return founder(t, a, "test").ClusterID == n.Document().ClusterID.String() && n.discovery.Status().Problem == ""
	})
}

// grant makes a token that the rules hold for.
func grant(t *testing.T, a *consultest.Agent, name, rules string) string {
	t.Helper()
	acl := a.Management().ACL()
	if _, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil); err != nil {
		t.Fatalf("policy: %v", err)
	}
	token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: name}}}, nil)
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	return token.SecretID
}

// allNeeded are the rules of a token with which a node can do all it does.
const allNeeded = `
service "dynactor-test" { policy = "write" }
node_prefix "" { policy = "read" }
key_prefix "dynactor/test/" { policy = "write" }`

// TestConsulTokens: what a token may not see must not be taken for nothing.
func TestConsulTokens(t *testing.T) {
	a := consultest.Start(t, consultest.Options{ACL: true})
	good := grant(t, a, "good", allNeeded)
	for _, tc := range []struct {
		name, token, says string
	}{
		{"missing", "", "permission denied"},
		{"unknown", "11111111-2222-3333-4444-555555555555", "permission denied"},
		{"may not read nodes", grant(t, a, "hidden", `
service "dynactor-test" { policy = "write" }
key_prefix "dynactor/test/" { policy = "write" }`), "does not show this node"},
		{"may not write keys", grant(t, a, "keyless", `
service "dynactor-test" { policy = "write" }
node_prefix "" { policy = "read" }`), "permission denied"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(api.HTTPTokenEnvName, tc.token)
			n := start(t, consulConfig(a, "test", "n1", 1))
			n.says(tc.says)
			if n.Document() != nil || founder(t, a, "test") != (founderEntry{}) {
				t.Fatal("founded a cluster that it could not know to be the only one")
			}
			hides(t, n, tc.token)
		})
	}
	t.Run("right", func(t *testing.T) {
		t.Setenv(api.HTTPTokenEnvName, good)
		n := consulCluster(t, a, "test", 1)[0]
		hides(t, n, good)
		n.stop()
		if len(passing(t, a, "test")) != 0 {
			t.Error("still registered")
		}
	})
}

// hides checks that neither log nor health show a token.
func hides(t *testing.T, n *testNode, token string) {
	t.Helper()
	status, err := json.Marshal(n.status())
	if err != nil {
		t.Fatal(err)
	}
	if token != "" && (strings.Contains(n.log.String(), token) || strings.Contains(string(status), token)) {
		t.Error("the token is shown")
	}
}

// TestConsulTokenFile: a file with a new token is read again.
func TestConsulTokenFile(t *testing.T) {
	a := consultest.Start(t, consultest.Options{ACL: true})
	good := grant(t, a, "good", allNeeded)
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	const bad = "11111111-2222-3333-4444-555555555555"
	write(bad)
	t.Setenv(api.HTTPTokenFileEnvName, file)
	n := start(t, consulConfig(a, "test", "n1", 1))
	n.says("permission denied")
	write(good)
	n.ready()
	hides(t, n, good)
	hides(t, n, bad)

	t.Setenv(api.HTTPTokenFileEnvName, file+".missing")
	if _, err := tryStart(t, consulConfig(a, "test", "n2", 1)); err == nil || !strings.Contains(err.Error(), "token file") {
		t.Errorf("a token file that is not there: %v", err)
	}
}

// TestConsulElectIsExclusive lets many ask at once.
func TestConsulElectIsExclusive(t *testing.T) {
	a := consultest.Start(t, consultest.Options{})
	type result struct {
		won bool
		by  string
		err error
	}
	const candidates = 8
	results := make(chan result, candidates)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range candidates {
		c := testConsul(t, a.Addr(), fmt.Sprintf("n%d", i))
		go func() {
			won, by, err := c.Elect(ctx, founding.ClusterID{byte(i + 1)})
			results <- result{won, string(by), err}
		}()
	}
	winners, names := 0, map[string]bool{}
	for range candidates {
		r := <-results
		if r.err != nil {
			t.Errorf("elect: %v", r.err)
		}
		names[r.by] = true
		if r.won {
			winners++
		}
	}
	if winners != 1 || len(names) != 1 {
		t.Errorf("%d winners, founders %v", winners, names)
	}
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
	c, err := newConsul(cfg, Identity{Store: fmt.Sprintf("%032x", 1)}, l)
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

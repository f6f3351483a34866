package bootstrap

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/dynactor/dynactor/bootstrap/consultest"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/storage/memory"
)

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

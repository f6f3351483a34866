package bootstrap

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// spoiltEngine says that it failed when told to.
type spoiltEngine struct {
	storage.Engine
	failed atomic.Bool
}

func (e *spoiltEngine) Stats() storage.Stats {
	s := e.Engine.Stats()
	if e.failed.Load() {
		s.Failed = errors.New("the disk is gone")
	}
	return s
}

// ask gets one endpoint's status and body.
func ask(t *testing.T, method, url string) (int, status, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var s status
	if resp.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatalf("%s: %v in %s", url, err, raw)
		}
	}
	return resp.StatusCode, s, string(raw)
}

func TestHealthEndpoints(t *testing.T) {
	configs := seeded(t, 3)
	engine := &spoiltEngine{Engine: memory.New()}
	configs[0].HTTP = "127.0.0.1:0"
	first, err := startOn(t, configs[0], Options{Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + first.HTTPAddr()
	code, s, raw := ask(t, http.MethodGet, base+"/healthz")
	if code != 200 || s.Node != "n1" || s.Cluster != "test" || s.ClusterID != "" || s.Storage.Engine != "memory" || s.Registry.Kind != "static" {
		t.Errorf("before founding, healthz: %d %s", code, raw)
	}
	code, s, raw = ask(t, http.MethodGet, base+"/readyz")
	if code != 503 || s.Health.Ready || !strings.Contains(s.Health.Reason, "not in a cluster yet") {
		t.Errorf("before founding, readyz: %d %s", code, raw)
	}
	nodes := append([]*testNode{first}, start(t, configs[1]), start(t, configs[2]))
	for _, n := range nodes {
		n.ready()
	}
	id := oneCluster(t, nodes)
	eventually(t, "both peers being up", func() bool {
		code, s, raw = ask(t, http.MethodGet, base+"/readyz")
		up := 0
		for _, p := range s.Peers {
			if p.Role == "node" && p.State == "up" {
				up++
			}
		}
		return up == 2
	})
	if code != 200 || !s.Health.Ready || s.ClusterID != id || s.Version != 1 || s.Health.Serving != s.Health.Partitions || s.Health.Partitions == 0 {
		t.Errorf("in a cluster, readyz: %d %s", code, raw)
	}
	engine.failed.Store(true)
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, s, raw := ask(t, http.MethodGet, base+path); code != 503 || s.Storage.Failed != "the disk is gone" {
			t.Errorf("with a failed store, %s: %d %s", path, code, raw)
		}
	}
	if code, _, _ := ask(t, http.MethodGet, base+"/other"); code != 404 {
		t.Errorf("an unknown path: %d", code)
	}
	if code, _, _ := ask(t, http.MethodPost, base+"/healthz"); code != 405 {
		t.Errorf("a post: %d", code)
	}
}

// TestHTTPClientDoesNotDelayStop: somebody who asks for health and does not
// finish the question keeps no node from an orderly stop.
func TestHTTPClientDoesNotDelayStop(t *testing.T) {
	c := testConfig("n1")
	c.Found, c.HTTP = true, "127.0.0.1:0"
	n := start(t, c)
	n.ready()
	for _, question := range []string{"GET /healthz HTTP/1.1\r\nHost: n1\r\nContent-Length: 100\r\n\r\n", "GET /healthz HT"} {
		conn, err := net.Dial("tcp", n.HTTPAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, question); err != nil {
			t.Fatal(err)
		}
	}
	ask(t, http.MethodGet, "http://"+n.HTTPAddr()+"/healthz") // by now the server has begun with the others
	n.stop()                                                  // fails the test when the stop is not in order and in time
}

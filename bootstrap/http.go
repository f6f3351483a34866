package bootstrap

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynactor/dynactor/actors"
	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/bootstrap/telemetry"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// status is what /healthz and /readyz answer.
type status struct {
	Node    string `json:"node"`
	Cluster string `json:"cluster"`
	// ClusterID is empty before the node is in a cluster.
	ClusterID string        `json:"cluster_id,omitempty"`
	Version   uint64        `json:"document_version,omitempty"`
	Health    actors.Health `json:"health"`
	Storage   storageStatus `json:"storage"`
	// Registry is where other nodes are found; its problems keep no node from
	// serving.
	Registry RegistryStatus `json:"registry"`
	Peers    []peerStatus   `json:"peers"`
}

type storageStatus struct {
	Engine    string `json:"engine"`
	DiskBytes uint64 `json:"disk_bytes"`
	Failed    string `json:"failed,omitempty"`
}

type peerStatus struct {
	Node    string `json:"node,omitempty"`
	Role    string `json:"role"`
	Address string `json:"address"`
	// State is that of the connection for requests, Bulk of that for transfers.
	State string `json:"state"`
	Bulk  string `json:"bulk"`
	// Reachable is the failure detector's opinion of a node: one that has a link may be
	// suspected, because it does not answer or comes and goes.
	Reachable bool   `json:"reachable,omitempty"`
	Error     string `json:"error,omitempty"`
}

// startMetrics has the node's figures ready for who asks on http, and nowhere else.
func (n *Node) startMetrics(o Options) error {
	if n.config.HTTP == "" {
		return nil
	}
	var err error
	n.metrics, err = telemetry.NewMetrics(telemetry.Source{
		Node: n.config.Name, Cluster: n.config.Cluster, Zone: n.config.Zone, Version: cmp.Or(o.Version, "unknown"), Log: n.log,
		Health: n.Health, Figures: n.actors.Figures, Requests: n.actors.Requests, Counters: n.actors.Counters(),
		Kinds: n.registry.Kinds, Peers: n.links.Peers, Links: n.links.Totals, Logged: n.events.Counts,
	})
	if err != nil {
		return err
	}
	n.onStop(n.metrics.Stop)
	return nil
}

// Metrics is what a scrape gathers; nil when nothing is served on http.
func (n *Node) Metrics() prometheus.Gatherer {
	if n.metrics == nil {
		return nil
	}
	return n.metrics.Registry()
}

func (n *Node) startHTTP(Options) error {
	if n.config.HTTP == "" {
		return nil
	}
	l, err := net.Listen("tcp", n.config.HTTP)
	if err != nil {
		return fmt.Errorf("listen on %s for http: %w (choose another with --http)", n.config.HTTP, err)
	}
	n.httpAddr = l.Addr().String()
	n.http = n.serveHTTP(l)
	n.onStop(n.stopHTTP)
	return nil
}

// serveHTTP answers /healthz (the process lives and its store works) and
// /readyz (it serves requests): 200, or 503 with the reason. At /metrics are figures, at / is the dashboard.
func (n *Node) serveHTTP(l net.Listener) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		s := n.status()
		n.writeStatus(w, s, s.Storage.Failed == "")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s := n.status()
		n.writeStatus(w, s, s.Health.Ready && s.Storage.Failed == "")
	})
	mux.Handle("GET /metrics", n.metrics.Handler())
	n.page = n.newPage()
	n.page.Register(mux)
	server := &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	n.wg.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("http stopped", slog.Any("error", err))
		}
	})
	return server
}

// httpStop is how long clients of health may take when the node stops: the time
// of the stop belongs to what must be made durable.
const httpStop = time.Second

// stopHTTP ends health; who is not done by then is cut off.
func (n *Node) stopHTTP(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, httpStop)
	defer cancel()
	n.page.End()
	defer n.page.Close()
	if err := n.http.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return n.http.Close()
}

func (n *Node) writeStatus(w http.ResponseWriter, s status, ok bool) {
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(w).Encode(s); err != nil {
		n.log.Debug("http client went away", slog.Any("error", err))
	}
}

func (n *Node) status() status {
	s := status{
		Node: n.config.Name, Cluster: n.config.Cluster, Health: n.Health(), Storage: storageOf(n.engine),
		Registry: n.discovery.Status(), Peers: []peerStatus{},
	}
	if doc := n.document.Load(); doc != nil {
		s.ClusterID, s.Version = doc.ClusterID.String(), doc.Version
	}
	for _, p := range n.links.Peers() {
		peer := peerOf(p)
		peer.Reachable = p.Role == messages.RoleNode && n.actors.Reachable(dynamo.NodeID(p.ID))
		s.Peers = append(s.Peers, peer)
	}
	return s
}

func storageOf(e storage.Engine) storageStatus {
	stats := e.Stats()
	out := storageStatus{Engine: stats.Engine, DiskBytes: stats.DiskBytes}
	if stats.Failed != nil {
		out.Failed = stats.Failed.Error()
	}
	return out
}

func peerOf(p link.PeerStatus) peerStatus {
	s := peerStatus{Node: p.ID, Role: p.Role.String(), Address: p.Address, State: p.State.String(), Bulk: p.Bulk.String()}
	if !p.Up() { // what ended an earlier connection is no fault of this one
		s.Error = p.LastError
	}
	return s
}

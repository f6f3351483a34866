package client_test

import (
	"errors"
	"testing"
	"time"

	"github.com/dynactor/dynactor/bootstrap"
	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
)

// TestQuestionsOutliveConnections: a node answers a question, and the answer is lost with the
// connection. Another node is asked, or, if there is none, the same one when it is there again. A
// question is never of unknown outcome; a change is, and is not asked for twice.
func TestQuestionsOutliveConnections(t *testing.T) {
	proxies := map[string]*proxy{}
	c := clustertest.Start(t, clustertest.Options{Change: func(config *bootstrap.Config) {
		p := startProxy(t, config.Listen)
		proxies[config.Name] = p
		config.Advertise, config.ConsoleControl = p.address(), true
	}})
	cl := connectWith(t, c, func(config *client.Config) {
		config.Nodes = []string{proxies["n1"].address()}
		config.RingInterval = time.Hour // no other answer may be the one that is lost
	})
	cluster, ctx := cl.Cluster(), patient(t)
	if err := cl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	// all waits until each member is connected: then who answers does not depend on who was first.
	all := func() {
		for node := range proxies {
			if _, err := cluster.Settings(ctx, node); err != nil {
				t.Fatalf("%s: %v", node, err)
			}
		}
	}
	all()
	before, err := cluster.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	asked := proxies[before.Asked]
	asked.arm()
	after, err := cluster.Status(ctx)
	if err != nil || after.Asked == before.Asked || asked.losses() != 1 {
		t.Errorf("asked %s, then %s after %d losses: %v", before.Asked, after.Asked, asked.losses(), err)
	}
	for name, x := range map[string]struct {
		ask  func() error
		want error
	}{
		"clear":    {func() error { _, err := cluster.Clear(ctx); return err }, client.ErrUnknown},
		"settings": {func() error { _, err := cluster.Settings(ctx, after.Asked); return err }, client.ErrUnavailable},
		"set":      {func() error { _, err := cluster.Set(ctx, after.Asked, "log-level", "warn"); return err }, client.ErrUnknown},
		"fate":     {func() error { _, err := cluster.Fate(ctx, after.Asked, "vnode/1", true); return err }, client.ErrUnavailable},
		"kill":     {func() error { _, err := cluster.Kill(ctx, after.Asked, "vnode/1"); return err }, client.ErrUnknown},
		"busiest":  {func() error { _, _, err := cluster.Busiest(ctx, after.Asked, client.ByRate, 1); return err }, client.ErrUnavailable},
	} {
		all()
		if after, err = cluster.Status(ctx); err != nil {
			t.Fatal(err)
		}
		p := proxies[after.Asked]
		lost := p.losses()
		p.arm()
		if err := x.ask(); !errors.Is(err, x.want) || p.losses() != lost+1 {
			t.Errorf("%s: %v after %d losses, want %v", name, err, p.losses()-lost, x.want)
		}
	}
}

// TestQuestionWaitsForTheNode: the only node there is is asked again when it is connected again.
func TestQuestionWaitsForTheNode(t *testing.T) {
	c, p := proxied(t)
	cl := connectWith(t, c, func(config *client.Config) { config.Nodes, config.RingInterval = []string{p.address()}, time.Hour })
	ctx := patient(t)
	if err := cl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	p.arm()
	if status, err := cl.Cluster().Status(ctx); err != nil || status.Asked != "n1" || p.losses() != 1 {
		t.Errorf("asked %q after %d losses: %v", status.Asked, p.losses(), err)
	}
}

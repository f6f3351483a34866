package page_test

import (
	"context"
	"testing"
	"time"

	"github.com/dynactor/dynactor/bootstrap"
	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/member"
)

// cluster is three nodes that serve their page.
type cluster struct {
	*clustertest.Cluster
	client *client.Client
	pages  []string // http://host:port
}

func start(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Cluster: clustertest.Start(t, clustertest.Options{
		Buckets: []member.Bucket{}, Change: func(c *bootstrap.Config) { c.HTTP = "127.0.0.1:0" },
	})}
	for _, n := range c.Nodes {
		c.pages = append(c.pages, "http://"+n.HTTPAddr())
	}
	config := client.Default()
	config.Cluster, config.Nodes = c.Name, c.Addresses
	var err error
	if c.client, err = client.New(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.client.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// stop stops a node.
func (c *cluster) stop(t *testing.T, i int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Nodes[i].Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

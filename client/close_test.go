package client_test

import (
	"testing"

	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
)

// TestCloseWhileConnecting closes clients at every stage of finding the nodes.
// An actor that spawned a child while it was stopping would never end.
func TestCloseWhileConnecting(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	config := client.Default()
	config.Nodes, config.Cluster = c.Addresses, c.Name
	for i := range 120 {
		cl, err := client.New(config)
		if err != nil {
			t.Fatal(err)
		}
		for range i % 40 {
			cl.Nodes() // takes a little time, a different one each round
		}
		if err := cl.Close(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

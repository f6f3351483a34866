package bootstrap

import (
	"context"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
)

// Discovery finds the other nodes of the cluster (paper § 4.8.2: seeds, known
// through static configuration or from a configuration service). It serves for
// finding addresses and for electing a founder, never for deciding who is alive
// or a member.
type Discovery interface {
	// Run registers this node and calls seeds with the addresses of all that are
	// registered, the first time and whenever they change, until ctx ends; then
	// it takes the registration back. Failures are retried inside and reported
	// in the log: without a registry the node goes on with what it knows.
	Run(ctx context.Context, seeds func(addresses []string)) error
	// Status is what the registry says right now; it never waits.
	Status() RegistryStatus
	// Elects reports whether Elect decides who founds.
	Elects() bool
	// Elect puts this node's id for the cluster into the registry if there is
	// none, and reports whose id is there: won when it is this one.
	Elect(ctx context.Context, id founding.ClusterID) (won bool, founder dynamo.NodeID, err error)
	// Confirm names the cluster that this node is in. Run keeps the registry's
	// entry for it, and writes it again when the registry has lost it. It never
	// waits, and may be called before Run.
	Confirm(id founding.ClusterID, founder dynamo.NodeID)
}

// RegistryStatus is a registry as this node sees it.
type RegistryStatus struct {
	// Kind is static or consul.
	Kind string `json:"kind"`
	// Listed are the addresses that it lists, this node's own included.
	Listed []string `json:"listed"`
	// Incomplete says why Listed cannot be relied on as the list of all nodes
	// that run; empty if it can. An empty list never can.
	Incomplete string `json:"incomplete,omitempty"`
	// Problem is what is wrong with the registry; empty if nothing is known to
	// be.
	Problem string `json:"problem,omitempty"`
}

// static is a list of addresses from the configuration.
type static struct{ addresses []string }

// Run implements Discovery.
func (s static) Run(ctx context.Context, seeds func([]string)) error {
	seeds(s.addresses)
	<-ctx.Done()
	return nil
}

// Status implements Discovery.
func (s static) Status() RegistryStatus { return RegistryStatus{Kind: "static", Listed: s.addresses} }

// Elects implements Discovery: with a list, --found says who founds.
func (s static) Elects() bool { return false }

// Elect implements Discovery; it is never called.
func (s static) Elect(context.Context, founding.ClusterID) (bool, dynamo.NodeID, error) {
	return true, "", nil
}

// Confirm implements Discovery: there is nothing to keep.
func (s static) Confirm(founding.ClusterID, dynamo.NodeID) {}

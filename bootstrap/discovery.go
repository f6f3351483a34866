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
	// Run registers this node and calls seeds with the addresses of the others,
	// the first time and whenever they change, until ctx ends; then it takes the
	// registration back. Failures are retried inside and reported in the log:
	// without a registry the node goes on with what it knows.
	Run(ctx context.Context, seeds func(addresses []string)) error
	// Elects reports whether Elect decides who founds.
	Elects() bool
	// Elect puts this node's id for the cluster into the registry if there is
	// none, and reports whose id is there: won when it is this one.
	Elect(ctx context.Context, id founding.ClusterID) (won bool, founder dynamo.NodeID, err error)
	// Confirm rewrites the registry's entry for a cluster that exists, after the
	// registry lost its data.
	Confirm(ctx context.Context, id founding.ClusterID, founder dynamo.NodeID) error
}

// static is a list of addresses from the configuration.
type static struct{ addresses []string }

// Run implements Discovery.
func (s static) Run(ctx context.Context, seeds func([]string)) error {
	seeds(s.addresses)
	<-ctx.Done()
	return nil
}

// Elects implements Discovery: with a list, --found says who founds.
func (s static) Elects() bool { return false }

// Elect implements Discovery; it is never called.
func (s static) Elect(context.Context, founding.ClusterID) (bool, dynamo.NodeID, error) {
	return true, "", nil
}

// Confirm implements Discovery: there is nothing to rewrite.
func (s static) Confirm(context.Context, founding.ClusterID, dynamo.NodeID) error { return nil }

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/member"
)

type clusterAcceptCmd struct {
	operator
	Partition []int `help:"Only these partitions; none: all that are lost."`
	Yes       bool  `help:"Do not ask."`
}

const acceptWarning = `WARNING: this gives up all that was written to these partitions and not again since. If a disk that had it can still
  be brought back, do that instead: a node that is only down, or its data directory, as it was.
`

// Run says what is lost, asks, and accepts just that.
func (c *clusterAcceptCmd) Run(s *streams) error {
	losses, err := c.look()
	if err != nil {
		return err
	}
	// Who names one that is not lost is told so by the cluster, and not asked before.
	if len(losses) > 0 && len(losses) >= len(c.Partition) {
		fmt.Fprint(s.err, acceptWarning)
		for _, l := range losses {
			fmt.Fprintln(s.err, " ", describeLoss(l))
		}
		if err := confirm(s, c.Yes); err != nil {
			return err
		}
	}
	return c.do(s, func(ctx context.Context, cl *client.Cluster) (client.ClusterStatus, error) {
		status, err := cl.Status(ctx)
		if err != nil {
			return status, err
		}
		if !covers(status.Document.Losses(), losses) {
			return status, fmt.Errorf("%w: other data is lost by now; look at node cluster status, and say it again", member.ErrPlanChanged)
		}
		partitions := c.Partition
		if len(partitions) == 0 {
			for _, l := range losses {
				partitions = append(partitions, int(l.Partition))
			}
		}
		return cl.AcceptLoss(ctx, status.Document.Version, partitions...)
	}, func(w io.Writer, status client.ClusterStatus) error {
		for _, l := range losses {
			fmt.Fprintln(w, "Given up:", describeLoss(l))
		}
		showMovement(w, &status.Document)
		showLosses(w, status.Document.Losses())
		_, err := fmt.Fprintln(w, "Watch it with node cluster status.")
		return err
	})
}

// look asks what is lost of the partitions that are named.
func (c *clusterAcceptCmd) look() (losses []member.Loss, err error) {
	err = c.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		status, err := cl.Cluster().Status(ctx)
		for _, l := range status.Document.Losses() {
			if len(c.Partition) == 0 || slices.Contains(c.Partition, int(l.Partition)) {
				losses = append(losses, l)
			}
		}
		return err
	})
	return losses, err
}

// covers reports whether of all that is to be given up just that is lost now.
func covers(now, losses []member.Loss) bool {
	return !slices.ContainsFunc(losses, func(l member.Loss) bool {
		return !slices.ContainsFunc(now, func(x member.Loss) bool { return x.Partition == l.Partition && slices.Equal(x.N, l.N) })
	})
}

// describeLoss says what is lost of a partition.
func describeLoss(l member.Loss) string {
	sizes := make([]string, len(l.N))
	for i, n := range l.N {
		sizes[i] = fmt.Sprint(n)
	}
	return fmt.Sprintf("partition %d, keys of buckets with n = %s; on %s", l.Partition, strings.Join(sizes, ", "), list(l.Waiting))
}

// showLosses says what is lost, and what to do.
func showLosses(w io.Writer, losses []member.Loss) {
	if len(losses) == 0 {
		return
	}
	fmt.Fprintln(w, "LOST: no replica is left that has the data of")
	for _, l := range losses {
		fmt.Fprintln(w, " ", describeLoss(l))
	}
	fmt.Fprintln(w, "They take writes and wait for an operator. If no disk that had the data can be brought back: node cluster accept-loss")
}

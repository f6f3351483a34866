package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

type clusterAcceptCmd struct {
	operator
	Partition []int `help:"Only these partitions; none: all that are lost."`
	Yes       bool  `help:"Do not ask."`
}

const acceptWarning = `WARNING: this gives up what was written to these keys before their replicas lost it, and not again since. The disks that had
  it were replaced, or their members removed: they are refused if they come back, and only a backup has it then.
  After the ring has moved, nodes that had these keys before may still have them to hand over: node cluster transfers lists that.
`

// Run says what is lost, asks, and accepts just that.
func (c *clusterAcceptCmd) Run(s *streams) error {
	losses, err := c.look()
	if err != nil {
		return err
	}
	fmt.Fprint(s.err, acceptWarning)
	for _, l := range losses {
		fmt.Fprintln(s.err, " ", describeLoss(l))
	}
	if err := confirm(s, c.Yes); err != nil {
		return err
	}
	return c.do(s, func(ctx context.Context, cl *client.Cluster) (client.ClusterStatus, error) {
		status, err := cl.Status(ctx)
		if err != nil {
			return status, err
		}
		if !covers(status.Document.Losses(), losses) {
			return status, fmt.Errorf("%w: other data is lost by now; look at node cluster status, and say it again", member.ErrPlanChanged)
		}
		partitions := make([]int, len(losses))
		for i, l := range losses {
			partitions[i] = int(l.Partition)
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

// look asks what is lost of the partitions that are named; all of them must be.
func (c *clusterAcceptCmd) look() (losses []member.Loss, err error) {
	err = c.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		status, err := cl.Cluster().Status(ctx)
		if err != nil {
			return err
		}
		losses, err = c.named(&status.Document)
		return err
	})
	return losses, err
}

// named are the losses that are to be given up. The errors are those of AcceptLoss: who names what is
// not lost is told so, and not asked before.
func (c *clusterAcceptCmd) named(d *member.Document) ([]member.Loss, error) {
	partitions := make([]dynamo.Partition, len(c.Partition))
	for i, p := range c.Partition {
		if q := d.Settled.Partitions(); p < 0 || p >= q {
			return nil, fmt.Errorf("%w: partition %d; there are 0 to %d", member.ErrValue, p, q-1)
		}
		partitions[i] = dynamo.Partition(p)
	}
	if _, err := d.AcceptLoss(partitions, d.Version); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(d.Losses(), func(l member.Loss) bool {
		return len(partitions) > 0 && !slices.Contains(partitions, l.Partition)
	}), nil
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
	fmt.Fprintln(w, "Its disks were replaced or its members removed. They take writes, and wait for an operator to go on without it: node cluster accept-loss")
}

package client

import (
	"context"
	"time"

	"github.com/dynactor/dynactor/messages"
)

// Reaping is what a node reaps: tombstones and expired values of which no copy can come
// back any more. The first replica of a partition does it for all.
type Reaping struct {
	Node string
	// On: it begins to reap. Off, it still takes part in what others reap.
	On bool
	// Waiting are the records that it has found at its last look; Running are the reapings
	// under way, of UnderWay records: each takes somewhat more than the life of a message.
	Waiting, UnderWay uint64
	Running           int
	// Reaped are the records that were dropped from its store since it has started.
	Reaped uint64
	// Reason is why some were put off the last time, ReasonAgo; empty: none were.
	Reason    string
	ReasonAgo time.Duration
}

// Reaping asks every member what it reaps. Members that do not answer are in the error; the
// others' answers are there all the same.
func (c *Cluster) Reaping(ctx context.Context) ([]Reaping, error) {
	status, err := c.known(ctx)
	if err != nil {
		return nil, err
	}
	return ofAll(status.members(), func(node string) ([]Reaping, error) {
		r, err := askMember[*messages.ReapsReply](ctx, c.client, node, messages.TargetReaps, &messages.ReapsRequest{TimeoutMs: 1000})
		if err != nil {
			return nil, err
		}
		return []Reaping{{
			Node: node, On: r.GetOn(), Waiting: r.GetWaiting(), UnderWay: r.GetUnderWay(), Running: int(r.GetRunning()), Reaped: r.GetReaped(),
			Reason: r.GetReason(), ReasonAgo: time.Duration(r.GetReasonMsAgo()) * time.Millisecond,
		}}, nil
	})
}

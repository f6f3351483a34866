package client

import (
	"context"
	"time"

	"github.com/dynactor/dynactor/messages"
)

// Background is what a node does besides serving clients, and how much of its time that
// may take: transfers, fills, exchanges and the building of hash trees work in slices of
// time that its admission controller hands out (§ 6.5).
type Background struct {
	Node string
	// Share is the part of the time, from 0 to 1, that slices may take now; Floor the
	// least it is set to; Used what they took lately. Parallel slices are handed out at
	// once, so 1 is that many workers all the time.
	Share, Floor, Used float64
	Parallel           int
	// Why says why Share is what it is, set to that Changed ago (0: never changed).
	Why     string
	Changed time.Duration
	// With and Without are the 99th percentiles of clients' requests while slices are
	// handed out and while none are; 0 if there were too few.
	With, Without time.Duration
	// Working have a slice, Waiting wait for one, longest first: names of actors.
	Working, Waiting []string
	// Work is what each kind of work got since the node has started.
	Work []BackgroundWork
}

// BackgroundWork is what the actors whose names begin with Kind got.
type BackgroundWork struct {
	Kind   string
	Slices uint64
	Took   time.Duration
}

// Background asks every member. Members that do not answer are in the error; the
// others' answers are there all the same.
func (c *Cluster) Background(ctx context.Context) ([]Background, error) {
	status, err := c.known(ctx)
	if err != nil {
		return nil, err
	}
	return ofAll(status.members(), func(node string) ([]Background, error) {
		r, err := askMember[*messages.BackgroundReply](ctx, c.client, node, messages.TargetAdmission, &messages.BackgroundRequest{TimeoutMs: 1000})
		if err != nil {
			return nil, err
		}
		b := Background{
			Node: node, Share: r.GetShare(), Floor: r.GetFloor(), Used: r.GetUsed(), Parallel: int(r.GetParallel()), Why: r.GetWhy(),
			Changed: time.Duration(r.GetChangedMsAgo()) * time.Millisecond, With: time.Duration(r.GetWithUs()) * time.Microsecond,
			Without: time.Duration(r.GetWithoutUs()) * time.Microsecond, Working: r.GetWorking(), Waiting: r.GetWaiting(),
		}
		for _, w := range r.GetWork() {
			b.Work = append(b.Work, BackgroundWork{w.GetKind(), w.GetSlices(), time.Duration(w.GetTookMs()) * time.Millisecond})
		}
		return []Background{b}, nil
	})
}

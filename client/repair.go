package client

import (
	"context"
	"sync"
	"time"

	"github.com/dynactor/dynactor/messages"
)

// Exchange is what is known of the exchanges of two replicas of a partition, in which
// they find out in what they differ and mend it (§ 4.7). One of the two begins them all.
type Exchange struct {
	// Node begins the exchanges, With is the other replica. N is the number of replicas of
	// the buckets whose keys are compared.
	Node, With   string
	Partition, N int
	Running      bool
	// Ended is how many have ended since the node has started, of which the last is EndedAgo.
	Ended    uint64
	EndedAgo time.Duration
	// Complete says that the last one was, Equal that it found no difference; In and Out are
	// the records that Node got and gave, Damaged those that could not be merged, Bytes what
	// went over the wire. Reason says why it was not complete.
	Complete, Equal         bool
	In, Out, Damaged, Bytes uint64
	Reason                  string
	// Verified: one was complete, and nothing damaged, since the node has started, the last of them VerifiedAgo;
	// otherwise that is since when the pair is known.
	Verified    bool
	VerifiedAgo time.Duration
	// Mended is how many records all of them have mended.
	Mended uint64
}

// Exchanges asks every member for the pairs whose exchanges it begins. Members that do
// not answer are in the error; the others' answers are there all the same.
func (c *Cluster) Exchanges(ctx context.Context) ([]Exchange, error) {
	status, err := c.known(ctx)
	if err != nil {
		return nil, err
	}
	return ofAll(status.members(), func(node string) ([]Exchange, error) { return c.exchangesOf(ctx, node) })
}

// known is the status, of a cluster of which the client knows where the members are.
func (c *Cluster) known(ctx context.Context) (ClusterStatus, error) {
	status, err := c.Status(ctx)
	if err == nil {
		err = c.client.Ready(ctx)
	}
	return status, err
}

func (c *Cluster) exchangesOf(ctx context.Context, node string) ([]Exchange, error) {
	r, err := askMember[*messages.ExchangesReply](ctx, c.client, node, messages.TargetExchanges, &messages.ExchangesRequest{TimeoutMs: 1000})
	var out []Exchange
	for _, x := range r.GetExchanges() {
		out = append(out, Exchange{
			Node: node, With: x.GetNode(), Partition: int(x.GetPartition()), N: int(x.GetN()), Running: x.GetRunning(), Ended: x.GetEnded(),
			EndedAgo: time.Duration(x.GetEndedMsAgo()) * time.Millisecond, Complete: x.GetComplete(), Equal: x.GetEqual(),
			In: x.GetIn(), Out: x.GetOut(), Damaged: x.GetDamaged(), Bytes: x.GetBytes(), Reason: x.GetReason(),
			Verified: x.GetVerified(), VerifiedAgo: time.Duration(x.GetVerifiedMsAgo()) * time.Millisecond, Mended: x.GetMended(),
		})
	}
	return out, err
}

// Scope is what a repair is of; the zero value is everything.
type Scope struct {
	// Partition is the only one, if Single.
	Partition int
	Single    bool
	// N: only keys of buckets with so many replicas; 0 is all. A bucket's keys lie in all
	// partitions, together with those of the other buckets of its n.
	N int
}

// Repair is how far a repair is.
type Repair struct {
	// Pairs of replicas are compared; of so many the exchange is complete, or has failed.
	Pairs, Complete, Failed int
	// Mended records were changed on either side; Damaged ones could not be.
	Mended, Damaged uint64
	// Problems says why exchanges have failed, a few of them.
	Problems []string
}

func (r *Repair) add(o Repair) {
	r.Pairs, r.Complete, r.Failed = r.Pairs+o.Pairs, r.Complete+o.Complete, r.Failed+o.Failed
	r.Mended, r.Damaged = r.Mended+o.Mended, r.Damaged+o.Damaged
	r.Problems = append(r.Problems, o.Problems...)
}

// repairPoll is how often it is asked how far a repair is.
const repairPoll = 200 * time.Millisecond

// Repair has the replicas compared at once instead of when it is their turn. With a
// function to tell how far it is, it returns when all pairs had an exchange; each of them
// has seen what its replicas had when Repair was called. Without one it returns when the
// members were told. Members that do not answer are in the error, and what they would
// begin is not compared.
func (c *Cluster) Repair(ctx context.Context, scope Scope, tell func(Repair)) (Repair, error) {
	status, err := c.known(ctx)
	if err != nil {
		return Repair{}, err
	}
	var mu sync.Mutex
	parts := map[string]Repair{}
	sum := func(node string, r Repair) (all Repair) {
		mu.Lock()
		defer mu.Unlock()
		parts[node] = r
		for _, p := range parts {
			all.add(p)
		}
		if tell != nil {
			tell(all)
		}
		return all
	}
	_, err = ofAll(status.members(), func(node string) ([]Repair, error) {
		return nil, c.repairBy(ctx, node, scope, tell != nil, func(r Repair) { sum(node, r) })
	})
	return sum("", Repair{}), err
}

// repairBy has one member begin its part, and waits for its end if told to.
func (c *Cluster) repairBy(ctx context.Context, node string, scope Scope, wait bool, tell func(Repair)) error {
	m := &messages.RepairRequest{N: uint32(scope.N), TimeoutMs: 1000}
	if scope.Single {
		p := uint32(scope.Partition)
		m.Partition = &p
	}
	r, err := askMember[*messages.RepairReply](ctx, c.client, node, messages.TargetExchanges, m)
	if err != nil {
		return err
	}
	tell(toRepair(r))
	poll := time.NewTicker(repairPoll)
	defer poll.Stop()
	for silent := 0; wait && r.GetComplete()+r.GetFailed() < r.GetPairs(); {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return &Error{Kind: ErrUnavailable, Node: node, Text: "the repair goes on", Cause: ctx.Err()}
		}
		now, err := askMember[*messages.RepairReply](ctx, c.client, node, messages.TargetExchanges,
			&messages.RepairRequest{Partition: m.Partition, N: m.GetN(), Number: r.GetNumber(), TimeoutMs: 1000})
		if err != nil {
			if silent++; silent >= 10 {
				return err
			}
			continue
		}
		r, silent = now, 0
		tell(toRepair(r))
	}
	return nil
}

func toRepair(r *messages.RepairReply) Repair {
	return Repair{
		Pairs: int(r.GetPairs()), Complete: int(r.GetComplete()), Failed: int(r.GetFailed()),
		Mended: r.GetMended(), Damaged: r.GetDamaged(), Problems: r.GetProblems(),
	}
}

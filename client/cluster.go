package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// Cluster is what operators do with a cluster (§ 4.8.1): they look at its members
// and its ring, stage changes, and commit them. Calls ask one connected node, the same
// one as long as it is there, so that an operator sees what it has changed.
// A change is decided by a majority of the members; ErrUnavailable says that no
// majority could be reached and nothing was changed, ErrUnknown that it may still
// come into force.
type Cluster struct{ client *Client }

// Cluster gives access to the cluster itself.
func (c *Client) Cluster() *Cluster { return &Cluster{client: c} }

// ClusterStatus is what one node knows of the cluster.
type ClusterStatus struct {
	// Asked is that node.
	Asked    string
	Document member.Document
	// Nodes has an entry for each member that is not gone, by name.
	Nodes []NodeStatus
}

// NodeStatus is what is known of one member.
type NodeStatus struct {
	// Row is what the member said of itself last; Counter is 0 when nothing was
	// heard of it since the node that was asked has started.
	member.Row
	// Reachable and Slow are the opinion of the node that was asked.
	Reachable, Slow bool
}

// Status asks what a node knows.
func (c *Cluster) Status(ctx context.Context) (ClusterStatus, error) {
	return c.do(ctx, &messages.ClusterRequest{Operation: messages.OperationStatus})
}

// Stage adds a change to those that will be committed together. Nodes that join
// stage themselves: see Join.
func (c *Cluster) Stage(ctx context.Context, change member.Change) (ClusterStatus, error) {
	return c.do(ctx, &messages.ClusterRequest{Operation: messages.OperationStage, Change: messages.FromChange(change)})
}

// Clear drops what is staged.
func (c *Cluster) Clear(ctx context.Context) (ClusterStatus, error) {
	return c.do(ctx, &messages.ClusterRequest{Operation: messages.OperationClear})
}

// Commit makes the staged changes, if the cluster is still at the version of the
// document that was planned with (member.Document.Plan); else ErrChanged.
func (c *Cluster) Commit(ctx context.Context, version uint64) (ClusterStatus, error) {
	return c.do(ctx, &messages.ClusterRequest{Operation: messages.OperationCommit, Version: version})
}

// Force removes members that are lost for good when no majority is left without them:
// it is asked of one of the others, all of which must answer. What only the lost had is
// lost. Should they live, they are refused from then on. When the others are a majority
// it fails, and is not needed: stage their removal.
func (c *Cluster) Force(ctx context.Context, lost ...string) (ClusterStatus, error) {
	return c.do(ctx, &messages.ClusterRequest{Operation: messages.OperationForce, Lost: lost})
}

// AcceptLoss gives up what no replica has any more of the partitions, of all that are lost if none is
// named (member.Document.Losses), if the cluster is still at the version of the document in which they were looked at; else
// ErrChanged: look again. Keys of which a copy comes to light later are there again.
func (c *Cluster) AcceptLoss(ctx context.Context, version uint64, partitions ...int) (ClusterStatus, error) {
	m := &messages.ClusterRequest{Operation: messages.OperationAcceptLoss, Version: version}
	for _, p := range partitions {
		if p < 0 || uint64(p) > math.MaxUint32 {
			return ClusterStatus{}, &Error{Kind: ErrInvalid, Text: fmt.Sprintf("partition %d", p)}
		}
		m.Partitions = append(m.Partitions, uint32(p))
	}
	return c.do(ctx, m)
}

// Join has the connected node, which must be in no cluster, ask the cluster of its
// seeds to be staged. A node does so by itself when it starts for the first time.
func (c *Cluster) Join(ctx context.Context) (ClusterStatus, error) {
	return c.do(ctx, &messages.ClusterRequest{Operation: messages.OperationJoin})
}

// CreateBucket creates a bucket; SetBucket changes one, but for n and conflicts.
func (c *Cluster) CreateBucket(ctx context.Context, b member.Bucket) (ClusterStatus, error) {
	return c.do(ctx, &messages.ClusterRequest{Operation: messages.OperationCreateBucket, Bucket: messages.FromBucket(b)})
}

// SetBucket changes a bucket that exists, if the cluster is still at the version of the
// document that its properties were read from; else ErrChanged: read them again.
func (c *Cluster) SetBucket(ctx context.Context, b member.Bucket, version uint64) (ClusterStatus, error) {
	return c.do(ctx, &messages.ClusterRequest{Operation: messages.OperationSetBucket, Bucket: messages.FromBucket(b), Version: version})
}

// do asks a connected node, once: what may have been carried out is not asked for again. A node
// that does not serve, such as one that has just left, has carried out nothing: then the next
// one is asked, each once; so it is when a question alone is not answered, and when its
// connection broke it waits for any to be there. Only a join is what that very node is asked
// for, and members that are given up by force are not asked.
func (c *Cluster) do(ctx context.Context, m *messages.ClusterRequest) (ClusterStatus, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.client.config.Timeout)
		defer cancel()
	}
	node, err := c.client.operated(ctx)
	if err != nil {
		return ClusterStatus{}, err
	}
	for refused := m.GetLost(); ; {
		status, failure, err := c.once(ctx, node, m)
		switch {
		case failure != nil:
			err = fromFailure(node, failure)
			if failure.GetCode() != messages.CodeNotReady || m.GetOperation() == messages.OperationJoin {
				return status, err
			}
		case !errors.Is(err, ErrUnavailable): // answered, or it may have been carried out
			return status, err
		}
		refused = append(slices.Clip(refused), node)
		node = c.client.operatedBesides(refused)
		if node == "" && errors.Is(err, errBroken) {
			node, _ = c.client.operated(ctx) // err says why it was not answered
		}
		if node == "" || ctx.Err() != nil {
			return status, err
		}
	}
}

// once asks one node. What it answers is a status, a failure, or an error.
func (c *Cluster) once(ctx context.Context, node string, asked *messages.ClusterRequest) (ClusterStatus, *messages.Failure, error) {
	if !changes(asked) { // another one can be asked
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, memberWait)
		defer cancel()
	}
	m := proto.CloneOf(asked) // a message that was sent is never changed
	deadline, _ := ctx.Deadline()
	m.TimeoutMs = uint32(max(1, min(time.Until(deadline), messages.MaxTimeout).Milliseconds()))
	reply, err := c.client.ask(ctx, node, messages.TargetMembership, m)
	if err != nil {
		return ClusterStatus{}, nil, unanswered(node, m, err)
	}
	switch r := reply.message.(type) {
	case *messages.Failure:
		if r.GetCode() == messages.CodeUnknown && !changes(m) {
			return ClusterStatus{}, nil, broken(node, r)
		}
		return ClusterStatus{}, r, nil
	case *messages.ClusterReply:
		status, err := toStatus(reply.node, r)
		if m, ok := status.Document.Member(dynamo.NodeID(reply.node)); err == nil && (!ok || m.Out()) {
			c.client.leaveOperated(reply.node) // it hears of nothing that comes after it has left
		}
		return status, nil, err
	}
	return ClusterStatus{}, nil, &Error{Kind: ErrInternal, Node: reply.node, Text: fmt.Sprintf("unexpected answer %T", reply.message)}
}

// changes says that a message may change something, which must not be asked for twice. A second
// repair only finds that nothing is left to mend.
func changes(m proto.Message) bool {
	switch m := m.(type) {
	case *messages.ClusterRequest:
		return m.GetOperation() != messages.OperationStatus
	case *messages.SettingsRequest:
		return m.GetName() != ""
	case *messages.ControlRequest:
		return !m.GetAsk()
	}
	return false
}

// unanswered is the error of what was asked and not answered in time: what changes something may
// have been carried out.
func unanswered(node string, m proto.Message, cause error) error {
	kind := ErrUnavailable
	if changes(m) {
		kind = ErrUnknown
	}
	return &Error{Kind: kind, Node: node, Text: "no answer", Cause: cause}
}

// errBroken: the connection broke before the answer came.
var errBroken = errors.New("the connection broke")

// broken is the error of a question whose connection broke: it has changed nothing.
func broken(node string, f *messages.Failure) error {
	return &Error{Kind: ErrUnavailable, Node: node, Text: f.GetText(), Cause: errBroken}
}

func toStatus(node string, r *messages.ClusterReply) (ClusterStatus, error) {
	doc, err := messages.ToDocument(r.GetDocument())
	if err != nil {
		return ClusterStatus{}, &Error{Kind: ErrInternal, Node: node, Text: err.Error()}
	}
	out := ClusterStatus{Asked: node, Document: doc}
	for _, n := range r.GetNodes() {
		row, err := messages.ToRow(n.GetRow())
		if err != nil {
			return ClusterStatus{}, &Error{Kind: ErrInternal, Node: node, Text: err.Error()}
		}
		out.Nodes = append(out.Nodes, NodeStatus{Row: row, Reachable: n.GetReachable(), Slow: n.GetSlow()})
	}
	return out, nil
}

// Transfer is one thing that a node has to move.
type Transfer struct {
	// Node has to do it.
	Node      string
	Partition int
	// Kind is fill (of what the node lacks), hints (for For), or misplaced (what
	// belongs to others).
	Kind, For string
	// Running says that it is under way, for Took by now.
	Running        bool
	Took           time.Duration
	Records, Bytes uint64
	// Remaining is how many records are left, where that is known.
	Remaining uint64
	// Problem is why it did not end the last time, Retry when it is tried again.
	Problem string
	Retry   time.Duration
}

// Transfers asks every member what it has to move. Members that do not answer are in
// the error; the others' answers are there all the same.
func (c *Cluster) Transfers(ctx context.Context) ([]Transfer, error) {
	status, err := c.known(ctx)
	if err != nil {
		return nil, err
	}
	return ofAll(status.members(), func(node string) ([]Transfer, error) { return c.transfersOf(ctx, node) })
}

// members are the names of those that are not gone.
func (s ClusterStatus) members() []string {
	out := make([]string, len(s.Nodes))
	for i, n := range s.Nodes {
		out[i] = string(n.Node)
	}
	return out
}

// ofAll asks all nodes at once: one that is dead must not take the time of the others.
func ofAll[T any](nodes []string, ask func(node string) ([]T, error)) ([]T, error) {
	all, problems := make([][]T, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { all[i], problems[i] = ask(node) })
	}
	wg.Wait()
	return slices.Concat(all...), errors.Join(problems...)
}

// memberWait is how long a member may take to be connected and to answer.
const memberWait = 2 * time.Second

// askMember asks an actor of one member.
func askMember[R proto.Message](ctx context.Context, c *Client, node, target string, m proto.Message) (R, error) {
	var none R
	ctx, cancel := context.WithTimeout(ctx, memberWait)
	defer cancel()
	if err := c.connectedTo(ctx, node); err != nil {
		return none, err
	}
	reply, err := c.ask(ctx, node, target, m)
	if err != nil {
		return none, unanswered(node, m, err)
	}
	switch r := reply.message.(type) {
	case *messages.Failure:
		if r.GetCode() == messages.CodeUnknown && !changes(m) {
			return none, broken(node, r)
		}
		return none, fromFailure(node, r)
	case R:
		return r, nil
	}
	return none, &Error{Kind: ErrInternal, Node: node, Text: fmt.Sprintf("unexpected answer %T", reply.message)}
}

func (c *Cluster) transfersOf(ctx context.Context, node string) ([]Transfer, error) {
	r, err := askMember[*messages.TransfersReply](ctx, c.client, node, messages.TargetTransfers, &messages.TransfersRequest{TimeoutMs: 1000})
	var out []Transfer
	for _, x := range r.GetTransfers() {
		out = append(out, Transfer{
			Node: node, Partition: int(x.GetPartition()), Kind: x.GetKind(), For: x.GetNode(), Running: x.GetRunning(),
			Took: time.Duration(x.GetRunningMs()) * time.Millisecond, Records: x.GetRecords(), Bytes: x.GetBytes(),
			Remaining: x.GetRemaining(), Problem: x.GetProblem(), Retry: time.Duration(x.GetRetryMs()) * time.Millisecond,
		})
	}
	return out, err
}

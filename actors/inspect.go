package actors

import (
	"strconv"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// since is how long ago something was; nothing is said of what never was.
func since(f messages.Fields, name string, at time.Time) messages.Fields {
	if at.IsZero() {
		return f
	}
	return f.Add(name, time.Since(at))
}

// ofN names what there is for each number of replicas.
func ofN(n int) string { return "n=" + strconv.Itoa(n) }

// quoted is a key or a bucket's name, which may have any bytes.
func quoted[T string | []byte](s T) string { return strconv.QuoteToASCII(string(s)) }

// Inspect says how the node is as a whole.
func (n *nodeActor) Inspect() messages.Fields {
	h, _ := n.s.health()
	f := messages.Fields{}.Add("node", string(n.s.Self)).Add("ready", h.Ready).Add("reason", h.Reason)
	if doc := n.s.Document(); doc != nil {
		f = f.Add("cluster", doc.ClusterName).Add("cluster id", doc.ClusterID).Add("document version", doc.Version).Add("members", len(doc.Voters()))
	}
	return f.Add("partitions", h.Partitions).Add("serving", h.Serving).Add("hints", h.Hints.Records).Add("bytes of hints", messages.Bytes(h.Hints.Bytes)).
		Add("damaged blocks met", h.Damage.Blocks).Add("timers", n.s.Wheel.Armed()).Add("reads of the store that wait", n.s.Readers.Waiting()).
		Add("store", messages.Bytes(n.s.Engine.Stats().DiskBytes))
}

// Inspect says which vnodes do not serve.
func (v *vnodesActor) Inspect() messages.Fields {
	up, all, _, _ := v.s.vnodes.serving()
	problems := messages.Fields{}
	for _, row := range v.s.vnodes.down() {
		problems = problems.Add(vnodeName(row.Partition), row.Problem)
	}
	return messages.Fields{}.Add("vnodes", all).Add("serving", up).Add("not serving", problems).Add("stopping", v.stopping)
}

// Inspect says how the partition is on this node.
func (v *vnodeActor) Inspect() messages.Fields {
	f := messages.Fields{}.Add("partition", int(v.partition)).Add("state", v.status)
	if row := v.s.vnodes.row(v.partition); !row.Serving {
		f = f.Add("problem", row.Problem)
	}
	if doc := v.s.Document(); doc != nil {
		roles := messages.Fields{}
		for _, n := range replicaCounts(doc) {
			roles = roles.Add(ofN(n), v.s.role(doc, v.partition, n))
		}
		f = f.Add("role", roles).Add("movement", doc.Phase(v.partition))
	}
	if v.state != nil {
		f = f.Add("incarnation", v.state.Incarnation()).Add("epoch", v.state.Epoch()).Add("epoch floor", v.state.Floor()).Add("epochs left of the lease", v.state.Left())
	}
	f = f.Add("waiting until it opens", len(v.waiting.all)).Add("answers waiting for the disk", uint64(v.unsynced.Load()))
	return v.inspectLoss(v.inspectHints(v.inspectTrees(f)))
}

// role is what the node is, in words, to keys of a partition with n replicas.
func (s *Services) role(doc *member.Document, p dynamo.Partition, n int) string {
	switch {
	case doc.Authoritative(p, n, s.Self):
		return "replica"
	case doc.Holds(p, n, s.Self):
		return "replica that is being filled"
	}
	return "no replica"
}

func (v *vnodeActor) inspectTrees(f messages.Fields) messages.Fields {
	keys, trees := messages.Count(0), messages.Fields{}
	for n, t := range v.upkeep.trees {
		if t == nil {
			continue
		}
		keys += messages.Count(t.Root().Count)
		state := "settled"
		if !t.Settled() {
			state = "ranges are to be read"
		}
		tree := messages.Fields{}.Add("state", state).Add("keys", uint64(t.Root().Count)).Add("leaves", 1<<t.Bits())
		if t.stored {
			tree = since(tree, "checkpoint made", t.saved)
		}
		trees = trees.Add(ofN(n), tree.Add("changed since", t.changed))
	}
	// With tombstones, and only what the trees have counted so far.
	return f.Add("keys", keys).Add("hash trees", trees).Add("a range is being read", v.upkeep.reading != nil)
}

func (v *vnodeActor) inspectHints(f messages.Fields) messages.Fields {
	hints := messages.Fields{}
	for _, node := range v.s.hints.nodes(v.partition) {
		c := v.s.hints.of(slot{node, v.partition})
		hints = hints.Add(string(node), messages.Fields{}.Add("records", c.Records).Add("size", messages.Bytes(max(c.Bytes, 0))))
	}
	return f.Add("hints for", hints.Sorted())
}

func (v *vnodeActor) inspectLoss(f messages.Fields) messages.Fields {
	if v.loss.Suspect > 0 {
		f = f.Add("damaged since version", v.loss.Suspect)
	}
	if v.loss.dropping {
		f = f.Add("renewing", "what can be read is copied aside and put back")
	}
	return f
}

// down are the rows of those that do not serve, by partition.
func (t *vnodeTable) down() []VnodeStatus {
	var out []VnodeStatus
	for _, p := range t.partitions() {
		if row := t.row(p); !row.Serving {
			out = append(out, row)
		}
	}
	return out
}

// row is what is known of one partition.
func (t *vnodeTable) row(p dynamo.Partition) VnodeStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rows[p]
}

// Inspect says what requests the node coordinates.
func (c *coordinatorActor) Inspect() messages.Fields {
	state := "serving"
	switch {
	case c.stopping:
		state = "stopping"
	case c.s.Document() == nil:
		state = "not in a cluster yet"
	case c.s.quarantined() != "":
		state = "in quarantine"
	}
	k := c.s.Counters
	return messages.Fields{}.Add("state", state).Add("in flight", c.inFlight).Add("not answered yet", int(c.s.unanswered.Load())).Add("at most", int(c.s.maxRequests.Load())).
		Add("gets that found", k.GetsFound.Load()).Add("gets that found nothing", k.GetsNotFound.Load()).Add("gets that failed", k.GetsFailed.Load()).
		Add("puts done", k.PutsDone.Load()).Add("puts that failed", k.PutsFailed.Load()).Add("puts passed on", k.Forwards.Load()).
		Add("read repairs", k.Repairs.Load()).Add("reads with siblings", k.Siblings.Load())
}

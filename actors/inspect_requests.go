package actors

import (
	"cmp"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/messages"
)

// inspect says what all requests have in common.
func (x *exchange) inspect(state string) messages.Fields {
	if x.stale != nil {
		state = "AwaitingDocument"
	}
	f := messages.Fields{}.Add("state", state).Add("bucket", quoted(x.plan.key.Bucket)).Add("key", quoted(x.plan.key.Name)).
		Add("partition", int(x.plan.partition)).Add("client", x.plan.client.GetAddress()).Add("answered", x.answered)
	if !x.started.IsZero() && !x.answered {
		f = f.Add("time left", x.plan.timeout-time.Since(x.started))
	}
	f = f.Add("planned with version", x.plan.version)
	if x.newest > x.plan.version {
		f = f.Add("a replica knows version", x.newest)
	}
	if x.plan.round > 0 {
		f = f.Add("planned before", x.plan.round)
	}
	return f
}

// describe adds how far the machine of a get or a put is.
func (x *exchange) describe(d request.Description) messages.Fields {
	replicas := messages.Fields{}
	for _, r := range d.Replicas {
		said := r.Replica.Role.String()
		if r.Replica.For != "" {
			said += " for " + string(r.Replica.For)
		}
		if said += ": " + r.Stage; r.Reason != request.NoReason {
			said += ", " + r.Reason.String()
		}
		replicas = replicas.Add(string(r.Replica.Node), said)
	}
	return x.inspect(d.State.String()).Add("quorum", d.Quorum).Add("replicas", replicas)
}

// Inspect says how far the read is.
func (a *getActor) Inspect() messages.Fields {
	return a.describe(a.get.Describe()).Add("n", a.plan.params.N).Add("r", a.plan.params.R).Add("pr", a.plan.params.PR).
		Add("being filled", names(a.plan.filling))
}

// Inspect says how far the write is.
func (a *putActor) Inspect() messages.Fields {
	f := a.describe(a.put.Describe()).Add("n", a.plan.params.N).Add("w", a.plan.params.W).Add("pw", a.plan.params.PW).
		Add("durability", a.plan.properties.Durability).Add("delete", a.write.Delete).Add("value", messages.Bytes(len(a.write.Value)))
	if a.plan.prepared != nil {
		f = f.Add("dot", a.plan.prepared.Dot)
	}
	if a.lost {
		f = f.Add("own replica", "its commit failed")
	}
	return f
}

// Inspect says where the write is.
func (a *forwardActor) Inspect() messages.Fields {
	tried := messages.Fields{}
	for _, t := range a.tried {
		tried = tried.Add("tried", t)
	}
	var next []dynamo.NodeID
	for _, r := range a.next {
		next = append(next, r.Node)
	}
	state := "AwaitingCoordinator"
	if a.answered {
		state = request.Done.String()
	}
	return a.inspect(state).Add("asked", cmp.Or(string(a.asked), "nobody yet")).Add("without success", tried).Add("next", names(next))
}

// names lists nodes.
func names(nodes []dynamo.NodeID) string {
	out := ""
	for _, n := range nodes {
		if out != "" {
			out += " "
		}
		out += string(n)
	}
	return out
}

package actors

import (
	"slices"
	"testing"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/messages"
)

// inside finds a key that n1 is a replica of, and its primaries.
func (r *rig) inside() (name string, primaries []dynamo.NodeID) {
	for p := range dynamo.Partition(r.doc.Settled.Partitions()) {
		if list := r.doc.Settled.Primaries(p, 3); slices.Contains(list, r.s.Self) {
			return inPartition(r, p), list
		}
	}
	r.t.Fatal("n1 is a replica of nothing")
	return "", nil
}

// TestKilledRequest: a request that waits for replicas, for another coordinator or for a document
// ends at once when an operator wants that. Its client is told why, once; another one goes on
// waiting, and the coordinator takes more.
func TestKilledRequest(t *testing.T) {
	get := func(key string) any { return getOf(key) }
	put := func(key string) any { return putOf(key, "v", nil) }
	later := func(key string) any { m := getOf(key); m.Timeline = true; return m }
	for name, c := range map[string]struct {
		request func(key string) any
		kind    string
		key     func(*rig) (string, []dynamo.NodeID)
		state   string // in which it is killed
		restart bool
		code    uint32
		answer  string
	}{
		"read":                     {get, "get", (*rig).inside, "AwaitingQuorum", false, messages.CodeUnavailable, "the read was killed by an operator (n1) on n1"},
		"restarted read":           {get, "get", (*rig).inside, "AwaitingQuorum", true, messages.CodeUnavailable, "the read was restarted by an operator (n1) on n1"},
		"read with a timeline":     {later, "get", (*rig).inside, "AwaitingQuorum", false, messages.CodeUnavailable, "the read was killed by an operator (n1) on n1"},
		"read for a document":      {get, "get", (*rig).inside, "AwaitingDocument", false, messages.CodeUnavailable, "the read was killed by an operator (n1) on n1"},
		"write":                    {put, "put", (*rig).inside, "AwaitingQuorum", false, messages.CodeUnknown, "the write was killed by an operator (n1) on n1; it may still appear"},
		"write at another primary": {put, "forward", (*rig).outside, "AwaitingCoordinator", false, messages.CodeUnknown, "the write was killed by an operator (n1) on n1; it may still appear"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, setup{nodes: 6, partitions: 64, change: mayControl})
			key, primaries := c.key(r)
			primaries = slices.DeleteFunc(slices.Clone(primaries), func(n dynamo.NodeID) bool { return n == r.s.Self })
			for _, p := range primaries {
				r.peers.Handle(string(p), func(m actortest.Received) { // silent, or ahead
					if _, read := m.Message.(*messages.ReadRequest); read && c.state == "AwaitingDocument" {
						r.peers.Answer(m, &messages.Failure{Code: messages.CodeStale, DocumentVersion: r.doc.Version + 1})
					}
				})
			}
			first, second := actortest.NewProbe(r.system), actortest.NewProbe(r.system)
			first.Ask(r.coordinator(), c.request(key))
			id := r.only(c.kind + "/*").Name
			actortest.Eventually(t, "it waits", func() bool { return value(t, r.inspect(id), "state") == c.state })
			second.Ask(r.coordinator(), c.request(key))
			actortest.Eventually(t, "another one waits", func() bool { return len(r.actors(c.kind+"/*")) == 2 })

			asks[*messages.ControlReply](r, &messages.ControlRequest{Actor: id, Kill: !c.restart})
			if f := actortest.Next[*messages.Failure](t, first); f.GetCode() != c.code || f.GetText() != c.answer {
				t.Errorf("the client is told %v", f)
			}
			actortest.Eventually(t, "it is gone", func() bool { return len(r.actors(id)) == 0 })
			if all := r.actors(c.kind + "/*"); len(all) != 1 || len(second.All()) != 0 || r.s.unanswered.Load() != 1 {
				t.Errorf("the other one: %v, %v, %d unanswered", all, second.All(), r.s.unanswered.Load())
			}
			how := "killed by an operator (n1)"
			if c.restart {
				how = "restarted by an operator (n1)"
			}
			if !slices.ContainsFunc(r.errors(), func(e messages.NodeFault) bool { return e.Actor == id && e.Text == how }) {
				t.Errorf("no %q of %s in %+v", how, id, r.errors())
			}
			if failed := r.s.Counters.GetsFailed.Load() + r.s.Counters.PutsFailed.Load(); failed != 1 {
				t.Errorf("%d requests are counted as failed", failed)
			}
			if a := r.actors(nameCoordinator)[0]; a.Restarts != 0 || a.Panic != nil {
				t.Errorf("the coordinator: %+v", a)
			}
			for _, p := range primaries {
				r.replicas(string(p))
			}
			r.shown(key)
			for _, a := range r.actors(c.kind + "/*") { // for the node to stop, also reads that have answered
				asks[any](r, &messages.ControlRequest{Actor: a.Name, Kill: true})
			}
			if f := actortest.Next[*messages.Failure](t, second); f.GetCode() != c.code || len(first.All()) != 1 {
				t.Errorf("the other client is told %v, the first one has %v", f, first.All())
			}
		})
	}
}

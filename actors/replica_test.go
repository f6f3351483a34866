package actors

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
)

// replica is another node that does what a vnode does, in memory.
type replica struct {
	t       testing.TB
	peers   *actortest.Peers
	mu      sync.Mutex
	records map[string]version.Record
	// refuse is what requests are answered with instead, if set.
	refuse *messages.Failure
	// reads are all reads, whole those that asked for all values, writes all
	// replications, handoffs the records that were handed over.
	// refused is how many of the requests of clients it refused.
	reads, whole, writes, handoffs, refused int
	// dates are those of the replications; what it answers was read age ago.
	dates []int64
	age   time.Duration
}

// replicas connects the nodes n2 to nN.
func (r *rig) replicas(names ...string) map[string]*replica {
	out := map[string]*replica{}
	for _, name := range names {
		x := &replica{t: r.t, peers: r.peers, records: map[string]version.Record{}}
		out[name] = x
		r.peers.Handle(name, x.receive)
	}
	return out
}

func (x *replica) receive(m actortest.Received) {
	if answer := x.answer(m.Message); answer != nil {
		x.peers.Answer(m, answer)
	}
}

func (x *replica) answer(m any) any {
	if _, ok := m.(*messages.GossipRequest); ok {
		return nil // it is not for the replica
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.refuse != nil {
		switch m.(type) {
		case *messages.HandoffRequest, *messages.FillRequest: // of what moves by itself
		default:
			x.refused++
		}
		return x.refuse
	}
	switch m := m.(type) {
	case *messages.ReadRequest:
		x.reads++
		if m.GetDigestAbove() == 0 {
			x.whole++
		}
		rec, ok := x.records[string(m.GetKey())]
		if !ok {
			return &messages.ReadReply{Authoritative: true}
		}
		if m.GetDigestAbove() > 0 {
			rec, _ = rec.Omit(int(m.GetDigestAbove()))
		}
		return &messages.ReadReply{Record: version.Append(nil, rec), Authoritative: true, ReadMs: readNow() - x.age.Milliseconds()}
	case *messages.ReplicateRequest:
		x.writes++
		x.dates = append(x.dates, m.GetReadMs())
		req, err := messages.ToReplicate(m)
		if err != nil {
			x.t.Errorf("a replica got %v", err)
		}
		x.records[req.Key.Name] = version.Merge(x.records[req.Key.Name], req.Record)
		return &messages.ReplicateReply{}
	}
	if m, ok := m.(*messages.HandoffRequest); ok {
		all, err := messages.ToHandoff(m)
		if err != nil {
			x.t.Errorf("a replica got %v", err)
		}
		for _, r := range all {
			x.handoffs++
			x.records[r.Key.Name] = version.Merge(x.records[r.Key.Name], r.Record)
		}
		return &messages.HandoffReply{Batch: m.GetBatch()}
	}
	switch m.(type) {
	case *messages.RegisterRequest, *messages.FillRequest: // a movement goes on while a test takes its time
	default:
		x.t.Errorf("a replica got %T", m)
	}
	return nil
}

// handed is how many records were handed over, again and again.
func (x *replica) handed() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.handoffs
}

// holds is what the replica has of a key.
func (x *replica) holds(name string) version.Record {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.records[name]
}

func (x *replica) set(name string, rec version.Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.records[name] = rec
}

func (x *replica) fail(f *messages.Failure) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.refuse = f
}

// aged has it answer with what it has read so long ago.
func (x *replica) aged(age time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.age = age
}

// given are the dates of what it was given to replicate.
func (x *replica) given() []int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.dates)
}

func (x *replica) counts() (reads, whole, writes int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.reads, x.whole, x.writes
}

// ask sends a request to the coordinator and returns the one answer.
func (r *rig) ask(m any) any {
	r.t.Helper()
	p := actortest.NewProbe(r.system)
	p.Ask(r.coordinator(), m)
	return actortest.Next[any](r.t, p)
}

func getOf(name string) *messages.GetRequest {
	return &messages.GetRequest{Bucket: bucketB, Key: []byte(name)}
}

func putOf(name, value string, context []byte) *messages.PutRequest {
	return &messages.PutRequest{Bucket: bucketB, Key: []byte(name), Value: []byte(value), Context: context}
}

// put writes through the coordinator and returns the context.
func (r *rig) put(m *messages.PutRequest) []byte {
	r.t.Helper()
	reply, ok := r.ask(m).(*messages.PutReply)
	if !ok {
		r.t.Fatalf("put %s: no reply", m.GetKey())
	}
	return reply.GetContext()
}

// shown are the values that a get shows.
func (r *rig) shown(name string) ([]string, *messages.GetReply) {
	r.t.Helper()
	answer := r.ask(getOf(name))
	m, ok := answer.(*messages.GetReply)
	if !ok {
		r.t.Fatalf("get %s: %v", name, answer)
	}
	out := []string{}
	for _, v := range m.GetValues() {
		out = append(out, string(v.GetValue()))
	}
	return out, m
}

// quiet waits until no request is in flight, late answers included.
func (r *rig) quiet() {
	r.t.Helper()
	actortest.Eventually(r.t, "no request in flight", func() bool {
		for _, kind := range []string{messages.TargetGet, messages.TargetPut, messages.TargetForward} {
			if len(r.processes(kind)) > 0 {
				return false
			}
		}
		return true
	})
}

// processes are the names of the live actors below a prefix.
func (r *rig) processes(prefix string) []string {
	var out []string
	for _, shard := range r.system.ProcessRegistry.LocalPIDs.LocalPIDs {
		for _, id := range shard.Keys() {
			if len(id) > len(prefix) && id[:len(prefix)] == prefix {
				out = append(out, id)
			}
		}
	}
	return out
}

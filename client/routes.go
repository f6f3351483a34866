package client

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
)

// routes is what the client knows of the cluster: the document of the last
// answer, and which nodes are connected.
type routes struct {
	mu       sync.RWMutex
	document *member.Document
	up       map[string]bool
	// lateUntil is until when a node comes last, because it kept a request
	// waiting that another one answered.
	lateUntil map[string]time.Time
	// changed is closed and replaced whenever a node comes up.
	changed chan struct{}
}

func newRoutes() *routes {
	return &routes{up: map[string]bool{}, lateUntil: map[string]time.Time{}, changed: make(chan struct{})}
}

func (r *routes) setUp(node string, up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if up {
		r.up[node] = true
		close(r.changed)
		r.changed = make(chan struct{})
		return
	}
	delete(r.up, node)
	delete(r.lateUntil, node)
}

// late has a node come last for a while.
func (r *routes) late(node string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lateUntil[node] = until
}

// isLate reports whether a node comes last; the lock is held.
func (r *routes) isLate(node string) bool {
	until, ok := r.lateUntil[node]
	return ok && time.Now().Before(until)
}

func (r *routes) set(doc member.Document) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.document == nil || doc.Version > r.document.Version {
		r.document = &doc
	}
}

func (r *routes) version() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.document == nil {
		return 0
	}
	return r.document.Version
}

// any returns some connected node, or a channel that is closed when one comes
// up.
func (r *routes) any() (string, <-chan struct{}) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if node := r.some(nil); node != "" {
		return node, nil
	}
	return "", r.changed
}

// besides returns some connected node that is none of these; empty if there is none.
func (r *routes) besides(these []string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.some(these)
}

// some is besides; the lock is held.
func (r *routes) some(besides []string) string {
	nodes := make([]string, 0, len(r.up))
	for n := range r.up {
		if !slices.Contains(besides, n) {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return ""
	}
	return nodes[rand.N(len(nodes))]
}

// isUp reports whether a node is connected, and a channel that is closed when one
// comes up.
func (r *routes) isUp(node string) (bool, <-chan struct{}) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.up[node], r.changed
}

// order lists the connected nodes to send a request to, best first: the one
// that the context names, the primaries in the order of the preference list,
// then the others, which pass the request on. The first primary comes first
// for all clients, so a key's writes have one coordinator as long as it is up,
// and its clock stays short. Nodes that kept somebody waiting come last.
func (r *routes) order(key dynamo.Key, c version.Context) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []string
	add := func(node string) {
		if r.up[node] && !slices.Contains(out, node) {
			out = append(out, node)
		}
	}
	if r.document != nil {
		props, _ := r.document.Bucket(key.Bucket)
		p := r.document.Settled.PartitionOf(key)
		primaries := r.document.Reading(p).Primaries(p, props.Quorum.N)
		if c.Coordinator != "" && slices.Contains(primaries, c.Coordinator) {
			add(string(c.Coordinator))
		}
		for _, n := range primaries {
			add(string(n))
		}
	}
	rest := make([]string, 0, len(r.up))
	for n := range r.up {
		rest = append(rest, n)
	}
	slices.Sort(rest)
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	for _, n := range rest {
		add(n)
	}
	if len(r.lateUntil) > 0 {
		slices.SortStableFunc(out, func(a, b string) int {
			switch la, lb := r.isLate(a), r.isLate(b); {
			case la == lb:
				return 0
			case la:
				return 1
			}
			return -1
		})
	}
	return out
}

// other is the best node to send the request to besides one; empty if there is
// none.
func (r *routes) other(key dynamo.Key, c version.Context, besides string) string {
	for _, n := range r.order(key, c) {
		if n != besides {
			return n
		}
	}
	return ""
}

// primaries lists the replicas of a partition, and how many of them hold every
// acknowledged write of the bucket between them (N - W + 1).
func (r *routes) primaries(p dynamo.Partition, bucket string) (nodes []string, needed int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.document == nil {
		return nil, 0
	}
	props, _ := r.document.Bucket(bucket)
	for _, n := range r.document.Reading(p).Primaries(p, props.Quorum.N) {
		nodes = append(nodes, string(n))
	}
	return nodes, props.Quorum.N - props.Quorum.W + 1
}

func (r *routes) partitions() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.document == nil {
		return 0
	}
	return r.document.Settled.Partitions()
}

// learn takes the answer to a ring request, and dials members that were not
// known.
func (r *routes) learn(links *link.Links, m *messages.RingReply) error {
	if m.GetDocument() != nil {
		doc, err := messages.ToDocument(m.GetDocument())
		if err != nil {
			return err
		}
		r.set(doc)
	}
	for _, a := range m.GetAddresses() {
		if a.GetAddress() == "" {
			continue
		}
		if err := links.SetPeer(a.GetNode(), a.GetAddress()); err != nil {
			return err
		}
	}
	return nil
}

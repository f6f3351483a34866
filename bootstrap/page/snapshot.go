package page

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// How much of each list a page shows.
const (
	maxRows   = 50
	maxActors = 12
)

// Snapshot is how the cluster is at one time, as the node that serves the page knows it.
type Snapshot struct {
	At      int64  `json:"at"` // milliseconds since 1970
	Self    string `json:"self"`
	Cluster string `json:"cluster"`
	Version uint64 `json:"version"`
	// Problems are what is not known, and why.
	Problems []string `json:"problems"`
	Nodes    []Node   `json:"nodes"`
	// Sum is of all nodes; its percentiles are those of the slowest node.
	Sum       Point      `json:"sum"`
	Actors    []Actor    `json:"actors"`
	Transfers []Transfer `json:"transfers"`
	// Waiting is how many transfers there are beyond those listed.
	Waiting int         `json:"waiting"`
	AAE     AntiEntropy `json:"aae"`
}

// Point is a moment of the plots. Rates are requests a second.
type Point struct {
	At     int64   `json:"at"`
	Gets   float64 `json:"gets"`
	Puts   float64 `json:"puts"`
	Failed float64 `json:"failed"`
	// Percentiles of the last ten seconds in microseconds; 0: no requests.
	P50  int64 `json:"p50"`
	P99  int64 `json:"p99"`
	P999 int64 `json:"p999"`
}

// Node is one member.
type Node struct {
	Name      string `json:"name"`
	Status    string `json:"status"`
	Zone      string `json:"zone"`
	Address   string `json:"address"`
	Reachable bool   `json:"reachable"`
	Slow      bool   `json:"slow"`
	Answered  bool   `json:"answered"`
	// Partitions is of how many it is the first replica, Replicas of how many one of those that
	// the default bucket has.
	Partitions int    `json:"partitions"`
	Replicas   int    `json:"replicas"`
	Bytes      uint64 `json:"bytes"`
	State      string `json:"state"`
	InFlight   uint64 `json:"in_flight"`
	Hints      uint64 `json:"hints"`
	HintBytes  uint64 `json:"hint_bytes"`
	// Share is what of the time work in the background may take.
	Share float64 `json:"share"`
	Point
	sums map[string]uint64
}

// Actor is one of the busiest.
type Actor struct {
	Node   string  `json:"node"`
	Name   string  `json:"name"`
	Rate   float64 `json:"rate"`
	Queued uint64  `json:"queued"`
	Oldest int64   `json:"oldest_us"`
	// Restarts since it was spawned; State is as the console names it.
	Restarts uint64 `json:"restarts"`
	State    string `json:"state"`
}

// Transfer is something that moves.
type Transfer struct {
	Node      string  `json:"node"`
	Partition int     `json:"partition"`
	Kind      string  `json:"kind"`
	For       string  `json:"for"`
	Running   bool    `json:"running"`
	Records   uint64  `json:"records"`
	Rate      float64 `json:"bytes_per_second"`
	Remaining uint64  `json:"remaining"`
	Problem   string  `json:"problem"`
}

// AntiEntropy sums up the exchanges of all pairs of replicas.
type AntiEntropy struct {
	Pairs   int `json:"pairs"`
	Running int `json:"running"`
	// Differed had a difference the last time, Failed were not complete, Unverified never were.
	Differed   int    `json:"differed"`
	Failed     int    `json:"failed"`
	Unverified int    `json:"unverified"`
	Mended     uint64 `json:"mended"`
	// Oldest is how long ago the pair was compared that waits longest, in milliseconds.
	Oldest int64 `json:"oldest_ms"`
}

// Ring is who has what. Numbers of nodes are places in Snapshot.Nodes of the same version.
type Ring struct {
	Version uint64   `json:"version"`
	Nodes   []string `json:"nodes"`
	// Owners are the replicas of each partition, first ones first.
	Owners [][]int `json:"owners"`
	// Next are the replicas that a partition is to have, where those differ; Filling the
	// replicas that lack data, Lost the partitions of which nobody has all.
	Next    map[int][]int `json:"next"`
	Filling map[int][]int `json:"filling"`
	Lost    []int         `json:"lost"`
}

// printable is a text that cannot do harm where it is shown: what has no picture is escaped,
// also what turns the direction of writing.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsGraphic(r) }) {
		return s
	}
	q := strconv.QuoteToGraphic(s)
	return q[1 : len(q)-1]
}

// looker looks at the cluster again and again, and knows what it saw the last time.
type looker struct {
	self    string
	cluster *client.Cluster
	last    map[string]Node
	lastAt  time.Time
}

// look asks all nodes. What is not known is in the snapshot's problems.
func (l *looker) look(ctx context.Context, now time.Time) (Snapshot, *Ring) {
	s := Snapshot{At: now.UnixMilli(), Self: printable(l.self), Nodes: []Node{}, Actors: []Actor{}, Transfers: []Transfer{}, Problems: []string{}}
	s.Sum.At = s.At
	status, err := l.cluster.Status(ctx)
	if err != nil {
		s.Problems = append(s.Problems, printable(err.Error()))
		return s, nil
	}
	d := &status.Document
	s.Cluster, s.Version = printable(d.ClusterName), d.Version
	s.Nodes = nodesOf(&status)
	l.ask(ctx, &status, &s)
	l.rates(&s, now)
	return s, ringOf(d, s.Nodes)
}

// ask fills in what the nodes say, all at once: one that is dead takes no time of the others.
func (l *looker) ask(ctx context.Context, status *client.ClusterStatus, s *Snapshot) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	problem := func(err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			s.Problems = append(s.Problems, strings.Split(printable(strings.ReplaceAll(err.Error(), "\n", "; ")), "; ")...)
		}
	}
	for i, row := range status.Nodes {
		wg.Go(func() { problem(l.node(ctx, string(row.Node), &s.Nodes[i])) })
		wg.Go(func() {
			busy, _, err := l.cluster.Busiest(ctx, string(row.Node), client.ByRate, maxActors)
			mu.Lock()
			defer mu.Unlock()
			if err == nil { // else node says so
				s.Actors = append(s.Actors, actorsOf(string(row.Node), busy)...)
			}
		})
	}
	wg.Go(func() {
		all, _ := l.cluster.Transfers(ctx) // who does not answer, node says
		mu.Lock()
		defer mu.Unlock()
		s.transfers(all)
	})
	wg.Go(func() {
		all, _ := l.cluster.Exchanges(ctx)
		mu.Lock()
		defer mu.Unlock()
		s.AAE = antiEntropyOf(all)
	})
	wg.Wait()
	slices.Sort(s.Problems)
	s.Problems = slices.Compact(s.Problems)
	s.Problems = s.Problems[:min(len(s.Problems), maxRows)]
	slices.SortFunc(s.Actors, func(a, b Actor) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.Queued, a.Queued), strings.Compare(a.Node, b.Node), strings.Compare(a.Name, b.Name))
	})
	s.Actors = s.Actors[:min(len(s.Actors), maxActors)]
}

func nodesOf(status *client.ClusterStatus) []Node {
	d := &status.Document
	properties, _ := d.Bucket("")
	n := properties.Quorum.N
	out := make([]Node, len(status.Nodes))
	for i, row := range status.Nodes {
		m, _ := d.Member(row.Node)
		out[i] = Node{
			Name: printable(string(row.Node)), Status: m.Status.String(), Zone: printable(m.Zone), Address: printable(cmp.Or(row.Address, m.Address)),
			Reachable: row.Reachable, Slow: row.Slow, Bytes: row.Bytes, Partitions: len(d.Settled.PartitionsOf(row.Node, 1)), Replicas: len(d.Settled.PartitionsOf(row.Node, n)),
		}
	}
	return out
}

// node asks one member.
func (l *looker) node(ctx context.Context, name string, n *Node) error {
	coordinator, err := l.cluster.Inspect(ctx, name, "coordinator")
	if err != nil {
		return err
	}
	admission, err := l.cluster.Inspect(ctx, name, "admission")
	if err != nil {
		return err
	}
	node, err := l.cluster.Inspect(ctx, name, "node")
	if err != nil {
		return err
	}
	n.Answered = true
	c, a, f := fields(coordinator.Fields), fields(admission.Fields), fields(node.Fields)
	n.State, n.InFlight = printable(f.text("state", c)), c.number("in flight")
	n.Hints, n.HintBytes = f.number("hints"), f.number("bytes of hints")
	if share, ok := a["share"].(client.Share); ok {
		n.Share = float64(share)
	}
	n.sums = map[string]uint64{
		"gets": c.number("gets that found") + c.number("gets that found nothing"), "puts": c.number("puts done"),
		"failed": c.number("gets that failed") + c.number("puts that failed"),
	}
	if recent, ok := a["requests of the last 10s"].(client.List); ok {
		r := fields(recent.Fields)
		n.P50, n.P99, n.P999 = r.micros("p50"), r.micros("p99"), r.micros("p99.9")
	}
	return nil
}

// values are what an actor says of itself, by name.
type values map[string]any

func fields(all []client.Field) values {
	out := values{}
	for _, f := range all {
		out[f.Name] = f.Value
	}
	return out
}

func (v values) number(name string) uint64 {
	switch x := v[name].(type) {
	case client.Count:
		return uint64(x)
	case client.Bytes:
		return uint64(x)
	}
	return 0
}

func (v values) micros(name string) int64 {
	d, _ := v[name].(time.Duration)
	return d.Microseconds()
}

// text is how the node is: why it is not ready, or what its coordinator does.
func (v values) text(name string, coordinator values) string {
	if ready, _ := v["ready"].(string); ready == "no" {
		reason, _ := v["reason"].(string)
		return cmp.Or(reason, "not ready")
	}
	s, _ := coordinator[name].(string)
	return s
}

// rates makes rates of what has been counted since the last look, and sums up.
func (l *looker) rates(s *Snapshot, now time.Time) {
	took := now.Sub(l.lastAt).Seconds()
	last := map[string]Node{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		n.At = s.At
		before, known := l.last[n.Name]
		if known && took > 0 && n.Answered {
			rate := func(name string) float64 {
				if n.sums[name] < before.sums[name] { // it has started anew
					return 0
				}
				return float64(n.sums[name]-before.sums[name]) / took
			}
			n.Gets, n.Puts, n.Failed = rate("gets"), rate("puts"), rate("failed")
		}
		s.Sum.Gets, s.Sum.Puts, s.Sum.Failed = s.Sum.Gets+n.Gets, s.Sum.Puts+n.Puts, s.Sum.Failed+n.Failed
		s.Sum.P50, s.Sum.P99, s.Sum.P999 = max(s.Sum.P50, n.P50), max(s.Sum.P99, n.P99), max(s.Sum.P999, n.P999)
		if n.Answered {
			last[n.Name] = *n
		}
	}
	l.last, l.lastAt = last, now
}

func actorsOf(node string, busy []client.Busy) (out []Actor) {
	for _, b := range busy {
		state := b.State()
		if b.InHandler >= time.Second {
			state += fmt.Sprintf(" for %v", b.InHandler.Round(time.Second))
		}
		out = append(out, Actor{
			Node: printable(node), Name: printable(b.Name), Rate: b.Rate, Queued: b.Queued, Oldest: b.Oldest.Microseconds(), Restarts: b.Restarts, State: state,
		})
	}
	return out
}

// transfers lists what moves, what runs first.
func (s *Snapshot) transfers(all []client.Transfer) {
	slices.SortStableFunc(all, func(a, b client.Transfer) int {
		if a.Running != b.Running {
			if a.Running {
				return -1
			}
			return 1
		}
		return strings.Compare(b.Problem, a.Problem)
	})
	for _, t := range all[:min(len(all), maxRows)] {
		x := Transfer{
			Node: printable(t.Node), Partition: t.Partition, Kind: t.Kind, For: printable(t.For), Running: t.Running, Records: t.Records,
			Remaining: t.Remaining, Problem: printable(t.Problem),
		}
		if t.Took > 0 {
			x.Rate = float64(t.Bytes) / t.Took.Seconds()
		}
		s.Transfers = append(s.Transfers, x)
	}
	s.Waiting = max(0, len(all)-maxRows)
}

func antiEntropyOf(all []client.Exchange) (a AntiEntropy) {
	for _, x := range all {
		a.Pairs++
		a.Mended += x.Mended
		switch {
		case x.Running:
			a.Running++
		case x.Ended > 0 && !x.Complete:
			a.Failed++
		case x.Ended > 0 && !x.Equal:
			a.Differed++
		}
		if !x.Verified {
			a.Unverified++
		}
		a.Oldest = max(a.Oldest, x.VerifiedAgo.Milliseconds())
	}
	return a
}

// shown is how many replicas of a partition are drawn.
const shown = 3

func ringOf(d *member.Document, nodes []Node) *Ring {
	r := &Ring{Version: d.Version, Next: map[int][]int{}, Filling: map[int][]int{}, Owners: [][]int{}, Lost: []int{}}
	at := map[string]int{}
	for i, n := range nodes {
		r.Nodes = append(r.Nodes, n.Name)
		at[n.Name] = i
	}
	places := func(of ring.Ring, p dynamo.Partition) []int {
		out := []int{}
		for _, id := range of.Primaries(p, shown) {
			if i, ok := at[printable(string(id))]; ok {
				out = append(out, i)
			}
		}
		return out
	}
	for i := range d.Settled.Partitions() {
		p := dynamo.Partition(i)
		r.Owners = append(r.Owners, places(d.Settled, p))
		if d.Next == nil || d.Reading(p).Equal(*d.Next) && !d.Unfinished() {
			continue
		}
		if next := places(*d.Next, p); !slices.Equal(next, r.Owners[i]) {
			r.Next[i] = next
		}
	}
	for _, f := range d.Movement.Filling {
		if i, ok := at[printable(string(f.Node))]; ok {
			r.Filling[int(f.Partition)] = append(r.Filling[int(f.Partition)], i)
		}
	}
	for _, l := range d.Losses() {
		r.Lost = append(r.Lost, int(l.Partition))
	}
	slices.Sort(r.Lost)
	r.Lost = slices.Compact(r.Lost)
	return r
}

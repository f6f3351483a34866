// Package lookup puts together what the nodes of a cluster say of one key: where it lives, who has
// what of it, and what is the matter with it, in words.
package lookup

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	objects "github.com/dynactor/dynactor/dynamo/version"
)

// Report is where a key lives and what there is of it. Its JSON is that of the console.
type Report struct {
	Bucket    string `json:"bucket"`
	Key       string `json:"key"`
	Position  string `json:"position"`
	Partition int    `json:"partition"`
	N         int    `json:"n"`
	Version   uint64 `json:"version"`
	// Nodes are those of the preference list, in its order, then others that have something.
	Nodes []Node `json:"nodes"`
	// Versions are what a read of all replicas would find.
	Versions []Version `json:"versions"`
	// Findings say in words what is the matter.
	Findings []string `json:"findings"`
}

// Node is one node: what it is to the key, and what it has of it.
type Node struct {
	Node      string `json:"node"`
	Role      string `json:"role"`
	Reachable bool   `json:"reachable"`
	Answered  bool   `json:"answered"`
	Problem   string `json:"problem,omitempty"`
	Copies    []Copy `json:"copies"`
}

// Copy is one record that a node keeps.
type Copy struct {
	// For is whom it is kept for; empty: it is the node's own.
	For string `json:"for,omitempty"`
	// State is complete, behind, mark (of what the node has itself), or damaged.
	State    string    `json:"state"`
	Hash     string    `json:"hash,omitempty"`
	Clock    []string  `json:"clock"`
	Versions []Version `json:"versions"`
}

// Version is one version: its dot and what is known of its value.
type Version struct {
	Dot       string     `json:"dot"`
	By        string     `json:"by"`
	Time      time.Time  `json:"time"`
	Size      uint64     `json:"size"`
	Hash      string     `json:"hash,omitempty"`
	Tombstone bool       `json:"tombstone,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
}

// at is an instant of the store's clock.
func at(t dynamo.Timestamp) time.Time { return time.Unix(0, int64(t)).UTC() }

// report puts together what the nodes have said.
type report struct {
	Report
	status client.ClusterStatus
	said   map[string]client.Lookup
	merged objects.Record
	values map[clock.Dot]client.Copy // a copy that has the version
	by     map[clock.Incarnation]string
}

// Ask asks all members what they have of a key, and reports it. Members that do not answer are in
// the error; the report is there all the same, unless nobody answered: then it is nil.
func Ask(ctx context.Context, c *client.Cluster, bucket, key string) (*Report, error) {
	status, said, err := c.Lookup(ctx, bucket, key)
	if err != nil && len(said) == 0 {
		return nil, err
	}
	return describe(bucket, key, status, said), err
}

func describe(bucket, key string, status client.ClusterStatus, said map[string]client.Lookup) *Report {
	k := dynamo.Key{Bucket: bucket, Name: key}
	d := &status.Document
	properties, _ := d.Bucket(bucket)
	position := ring.Hash(k)
	r := &report{status: status, said: said, values: map[clock.Dot]client.Copy{}, by: map[clock.Incarnation]string{}, Report: Report{
		Bucket: bucket, Key: key, Position: position.String(), Partition: int(ring.PartitionOf(position, d.Settled.Partitions())),
		N: properties.Quorum.N, Version: d.Version, Nodes: []Node{}, Versions: []Version{}, Findings: []string{},
	}}
	for node, l := range said {
		if l.Incarnation != (clock.Incarnation{}) {
			r.by[l.Incarnation] = node
		}
		for _, c := range l.Copies {
			r.merged = objects.Merge(r.merged, c.Record)
			for _, v := range c.Record.Versions {
				r.values[v.Dot] = c
			}
		}
	}
	for _, v := range r.merged.Versions {
		r.Versions = append(r.Versions, r.version(r.values[v.Dot], v))
	}
	r.nodes()
	r.find()
	return &r.Report
}

// version describes one version of a copy.
func (r *report) version(c client.Copy, v objects.Version) Version {
	out := Version{Dot: v.Dot.String(), By: r.author(v.Dot.Actor), Time: at(v.Time), Tombstone: v.Tombstone}
	if i := slices.IndexFunc(c.Record.Versions, func(o objects.Version) bool { return o.Dot == v.Dot }); i >= 0 {
		out.Size, out.Hash = c.Values[i].Size, hex.EncodeToString(c.Values[i].Hash)
	}
	if v.Expires != 0 {
		expires := at(v.Expires)
		out.Expires = &expires
	}
	return out
}

// author is the node whose vnode made the dots of an actor.
func (r *report) author(a clock.Actor) string {
	return cmp.Or(r.by[a.Incarnation], "a vnode of before, or of a node that did not answer")
}

// nodes lists the preference list, and behind it who else has something of the key.
func (r *report) nodes() {
	d, p := &r.status.Document, dynamo.Partition(r.Partition)
	reachable := map[dynamo.NodeID]bool{}
	for _, n := range r.status.Nodes {
		reachable[n.Node] = n.Reachable
	}
	listed := map[string]bool{}
	add := func(node dynamo.NodeID, role string) {
		name := string(node)
		l, answered := r.said[name]
		if listed[name] || role == "" && len(l.Copies) == 0 {
			return
		}
		listed[name] = true
		out := Node{Node: name, Role: cmp.Or(role, "no replica"), Reachable: reachable[node], Answered: answered, Problem: l.Problem, Copies: []Copy{}}
		for _, c := range l.Copies {
			out.Copies = append(out.Copies, r.copy(c))
		}
		r.Nodes = append(r.Nodes, out)
	}
	up := func(node dynamo.NodeID) bool { return reachable[node] }
	now := d.Reading(p).Sloppy(p, r.N, 0, up)
	for i, node := range d.Reading(p).Primaries(p, r.N) {
		role := fmt.Sprintf("replica %d", i+1)
		if f, filling := d.Filling(p, node); filling && (f.Whole || !d.Settled.IsPrimary(p, r.N, node)) {
			role += ", being filled"
		}
		add(node, role)
	}
	if ph := d.Phase(p); ph == member.PhaseAnnounced || ph == member.PhaseJoint {
		for i, node := range d.Next.Primaries(p, r.N) {
			add(node, fmt.Sprintf("next replica %d", i+1))
		}
	}
	for _, x := range now {
		if x.Role == dynamo.Fallback && x.For != "" {
			add(x.Node, "stands in for "+string(x.For))
		}
	}
	for _, n := range r.status.Nodes {
		add(n.Node, "")
	}
}

func (r *report) copy(c client.Copy) Copy {
	out := Copy{For: string(c.For), Clock: []string{}, Versions: []Version{}}
	switch {
	case c.Mark:
		out.State = "mark"
		return out
	case c.Damaged:
		out.State = "damaged"
		return out
	}
	sum := c.Record.CausalHash()
	out.State, out.Hash = "behind", hex.EncodeToString(sum[:8])
	if c.Record.SameCausal(r.merged) {
		out.State = "complete"
	}
	for _, e := range c.Record.Clock.Entries() {
		out.Clock = append(out.Clock, clock.Dot{Actor: e.Actor, Counter: e.Counter}.String())
	}
	for _, v := range c.Record.Versions {
		out.Versions = append(out.Versions, r.version(c, v))
	}
	return out
}

// find says in words what is the matter with the key.
func (r *report) find() {
	say := func(format string, args ...any) { r.Findings = append(r.Findings, fmt.Sprintf(format, args...)) }
	if r.merged.IsZero() {
		say("No node that answered has anything of this key.")
	}
	complete, replicas := 0, 0
	for _, n := range r.Nodes {
		if !strings.HasPrefix(n.Role, "replica") {
			continue
		}
		replicas++
		own := slices.IndexFunc(n.Copies, func(c Copy) bool { return c.For == "" })
		switch {
		case !n.Answered:
			say("%s did not answer: what it has is not known.", n.Node)
		case own < 0 && !r.merged.IsZero():
			say("%s is behind: it has nothing of the key.", n.Node)
		case own >= 0 && n.Copies[own].State == "damaged":
			say("%s cannot read its copy: anti-entropy, or the next read, brings it back from the others.", n.Node)
		case own >= 0 && n.Copies[own].State == "behind":
			say("%s is behind: %s.", n.Node, r.lacks(n.Node))
		default:
			complete++
		}
	}
	switch {
	case r.merged.IsZero():
	case complete == replicas:
		say("All %d replicas have the same.", replicas)
	default:
		say("The next read repairs what is behind, as do hints and anti-entropy.")
	}
	r.findHints(say)
	r.findSiblings(say)
}

// lacks says which writes a node has not heard of, and which it still holds that others have superseded.
func (r *report) lacks(node string) string {
	var own objects.Record
	for _, c := range r.said[node].Copies {
		if c.For == "" {
			own = c.Record
		}
	}
	var missing, old []string
	for _, v := range r.merged.Versions {
		if !own.Has(v.Dot) {
			missing = append(missing, v.Dot.String())
		}
	}
	for _, v := range own.Versions {
		if !r.merged.Has(v.Dot) {
			old = append(old, v.Dot.String())
		}
	}
	var out []string
	if len(missing) > 0 {
		out = append(out, "it lacks version "+strings.Join(missing, ", "))
	}
	if len(old) > 0 {
		out = append(out, "it still has "+strings.Join(old, ", ")+", which was superseded")
	}
	if len(out) == 0 {
		return "it has the same versions, and has not seen all writes that they superseded"
	}
	return strings.Join(out, ", and ")
}

func (r *report) findHints(say func(string, ...any)) {
	for _, n := range r.Nodes {
		for _, c := range n.Copies {
			switch {
			case c.For == "":
			case c.State == "mark":
				say("%s keeps a hint: %s lacks what %s has, and gets it when it can be reached.", n.Node, c.For, n.Node)
			default:
				say("%s keeps a hint for %s, and hands it over when %s can be reached.", n.Node, c.For, c.For)
			}
		}
	}
}

// findSiblings says why there are several versions: of each two, neither writer had seen the
// other's.
func (r *report) findSiblings(say func(string, ...any)) {
	all := r.merged.Versions
	if len(all) < 2 {
		return
	}
	values := slices.DeleteFunc(slices.Clone(all), func(v objects.Version) bool { return v.Tombstone })
	say("There are %d siblings, %d with a value: concurrent writes. A put with the context of a get of all of them makes them one.", len(all), len(values))
	for i := 1; i < len(all) && i <= mostPairs; i++ {
		a, b := all[i-1], all[i]
		say("%s (by %s, %s) and %s (by %s, %s): neither was written with a context that has the other.",
			a.Dot, r.author(a.Dot.Actor), at(a.Time).Format(time.RFC3339Nano), b.Dot, r.author(b.Dot.Actor), at(b.Time).Format(time.RFC3339Nano))
	}
}

// mostPairs is how many siblings are told about one by one.
const mostPairs = 10

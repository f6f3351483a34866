package blackbox

import (
	"errors"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

func keysOfMap(m map[string]int) iter.Seq[string] { return maps.Keys(m) }

// change is a change of members under way: it goes on a bit with each step of the
// nemesis, whatever else happens meanwhile.
type change struct {
	kind string
	// node is who leaves or is removed, joins who joins.
	node, joins string
	committed   bool
	began       time.Time
}

// The changes.
const (
	replaceDead = "replace a dead node"
	joinOne     = "join"
	leaveOne    = "leave"
	removeDead  = "remove a dead node"
)

// members takes the change that is under way further, or begins one.
func (n *nemesis) members() {
	d, err := n.trial.document()
	if err != nil {
		return // nobody answers just now
	}
	c := &n.change
	switch {
	case c.kind == "":
		n.begin(d)
	case !c.committed:
		n.commit(d)
	case d.Next == nil && len(d.Staged) == 0 && !d.Unfinished():
		n.end(d)
	}
}

// begin begins a change: with five members or fewer one joins or replaces another,
// with more one goes.
func (n *nemesis) begin(d member.Document) {
	kind := []string{joinOne, replaceDead}[n.r.IntN(2)]
	if len(d.Settled.Nodes()) > 5 {
		kind = []string{leaveOne, removeDead}[n.r.IntN(2)]
	}
	var node *process
	if kind != joinOne {
		if node = n.victim(d); node == nil {
			return
		}
	}
	if kind == joinOne || kind == replaceDead {
		n.change.joins = n.nodes.join().name
	}
	n.change.kind, n.change.began = kind, time.Now()
	if node != nil {
		n.change.node = node.name
		if kind != leaveOne { // for good: its data are gone, too
			node.kill(n.t)
			if err := os.RemoveAll(filepath.Join(node.dir, "data")); err != nil {
				n.t.Error(err)
			}
		}
	}
	n.counts[kind]++
	n.say("%s: %s %s", kind, n.change.node, n.change.joins)
}

// victim picks a member that nothing else is done to and that keeps nothing for
// others: a write with W = 2 outlives one disk that is lost before it is repaired.
func (n *nemesis) victim(d member.Document) *process {
	var can []*process
	for _, p := range n.nodes.all {
		if n.harmed[p] != nil || !p.lives() || p.number == smallDisk || !d.Settled.Has(dynamo.NodeID(p.name)) {
			continue
		}
		if h, err := p.health(n.t.Context()); err == nil && h.Health.Hints.Records == 0 {
			can = append(can, p)
		}
	}
	if len(can) == 0 {
		return nil
	}
	return can[n.r.IntN(len(can))]
}

// commit stages what is not staged yet, and commits. What fails because of the harm
// is tried again with the next step.
func (n *nemesis) commit(d member.Document) {
	c := &n.change
	node := dynamo.NodeID(c.node)
	has := func(name string) bool {
		return slices.ContainsFunc(d.Staged, func(s member.Change) bool { return string(s.Node) == name })
	}
	cluster, ctx := n.trial.operator.Cluster(), n.t.Context()
	var err error
	switch {
	case n.inForce(d):
		c.committed = true
		n.say("%s: committed", c.kind)
	case c.joins != "" && !has(c.joins):
		return // it asks by itself
	case c.node != "" && !has(c.node):
		stage := member.Change{Kind: member.Leave, Node: node}
		switch c.kind {
		case removeDead:
			stage.Kind = member.Remove
		case replaceDead:
			stage = member.Change{Kind: member.Replace, Node: node, With: dynamo.NodeID(c.joins), Dead: true}
		}
		_, err = cluster.Stage(ctx, stage)
	default:
		_, err = cluster.Commit(ctx, d.Version)
	}
	switch {
	case err == nil, errors.Is(err, client.ErrChanged), errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrUnknown):
	default:
		n.counts["change refused"]++
		n.t.Logf("%s of %s %s: %v", c.kind, c.node, c.joins, err)
	}
}

// inForce reports whether the change was committed: an answer may have been lost.
func (n *nemesis) inForce(d member.Document) bool {
	c := &n.change
	if c.joins != "" {
		_, ok := d.Member(dynamo.NodeID(c.joins))
		return ok
	}
	m, ok := d.Member(dynamo.NodeID(c.node))
	return ok && m.Status != member.Up
}

// end ends a change: who has left is stopped.
func (n *nemesis) end(d member.Document) {
	c := &n.change
	if c.kind == leaveOne {
		m, ok := d.Member(dynamo.NodeID(c.node))
		if !ok || m.Status != member.Gone {
			return
		}
		n.stop(n.nodes.byName(c.node))
	}
	n.say("%s: complete", c.kind)
	n.change = change{}
}

// finish takes the change that is under way to its end.
func (n *nemesis) finish() {
	n.trial.waitLong("the change of members is complete: "+n.change.kind, func() bool {
		if n.change.kind != "" {
			n.members()
		}
		return n.change.kind == ""
	})
}

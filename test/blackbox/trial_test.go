package blackbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/test/journal"
	"github.com/dynactor/dynactor/test/load"
)

const bucket = "b"

// trial is a load on a cluster, with the files for the checker.
type trial struct {
	t     *testing.T
	nodes *nodes
	// client is the load's, operator another one.
	client, operator *client.Client
	load             *load.Load
	ops, final       string
	journal          *journal.Writer[journal.Op]
	newest           member.Document
}

func newTrial(t *testing.T, ns *nodes, c load.Config) *trial {
	t.Helper()
	tr := &trial{t: t, nodes: ns, client: connect(t, ns.all...), operator: connect(t, ns.all...)}
	tr.ops, tr.final = filepath.Join(ns.dir, "ops.jsonl"), filepath.Join(ns.dir, "final.jsonl")
	var err error
	if tr.journal, err = journal.Create[journal.Op](tr.ops); err != nil {
		t.Fatal(err)
	}
	c.Bucket = tr.client.Bucket(bucket)
	tr.load = load.New(c, tr.journal)
	t.Cleanup(tr.keep)
	return tr
}

// keep copies logs, data and journals of a test that failed to the folder that
// DYNACTOR_KEEP names.
func (tr *trial) keep() {
	if dir := os.Getenv("DYNACTOR_KEEP"); dir != "" && tr.t.Failed() {
		if err := os.CopyFS(dir, os.DirFS(tr.nodes.dir)); err != nil {
			tr.t.Error(err)
		}
	}
}

// progress waits until so many more operations of the load ended well.
func (tr *trial) progress(n int64) {
	tr.t.Helper()
	until := tr.load.OK() + n
	eventually(tr.t, fmt.Sprintf("%d more operations", n), func() bool { return tr.load.OK() >= until })
}

// stop ends the load and completes its journal; it returns what is in it.
func (tr *trial) stop() []journal.Op {
	tr.t.Helper()
	tr.load.Stop()
	if err := tr.journal.Close(); err != nil {
		tr.t.Fatal(err)
	}
	ops, err := journal.Read[journal.Op](tr.ops)
	if err != nil {
		tr.t.Fatal(err)
	}
	return ops
}

// keysOf are the keys of a journal.
func keysOf(ops []journal.Op) []string {
	var keys []string
	seen := map[string]bool{}
	for _, op := range ops {
		if !seen[op.Key] {
			seen[op.Key] = true
			keys = append(keys, op.Key)
		}
	}
	return keys
}

// settle waits until nothing moves and no node keeps anything for another.
func (tr *trial) settle() {
	tr.t.Helper()
	tr.settled("nothing moves")
	eventually(tr.t, "all hints are delivered", func() bool {
		return !slices.ContainsFunc(tr.nodes.all, func(p *process) bool {
			if !p.lives() {
				return false
			}
			h, err := p.health(tr.t.Context())
			return err != nil || h.Health.Hints.Records > 0
		})
	})
}

// whole reads keys of the cluster, in which all replicas have to answer: that
// repairs those which a coordinator has died on.
func (tr *trial) whole(keys []string, replicas int) []journal.Final {
	tr.t.Helper()
	return tr.read(load.Reader{Bucket: tr.operator.Bucket(bucket), R: replicas, Patience: patience}, keys)
}

func (tr *trial) read(r load.Reader, keys []string) []journal.Final {
	tr.t.Helper()
	var mu sync.Mutex
	var out []journal.Final
	err := r.Read(tr.t.Context(), keys, func(f journal.Final) {
		mu.Lock()
		defer mu.Unlock()
		out = append(out, f)
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	return out
}

// each reads what each replica has by itself: all processes are killed and one after
// the other is started alone, so that a read with R = 1 is answered by that one, from
// what it has as one of the first n nodes of the key's list, and no read can repair
// another one. Then all are started again.
func (tr *trial) each(keys []string) []journal.Final {
	tr.t.Helper()
	d, err := tr.document()
	if err != nil {
		tr.t.Fatal(err)
	}
	props, _ := d.Bucket(bucket)
	var all []*process
	for _, p := range tr.nodes.all {
		if p.lives() {
			p.kill(tr.t)
			all = append(all, p)
		}
	}
	var out []journal.Final
	for _, p := range all {
		var own []string
		for _, k := range keys {
			if d.Settled.IsPrimary(d.Settled.PartitionOf(dynamo.Key{Bucket: bucket, Name: k}), props.Quorum.N, dynamo.NodeID(p.name)) {
				own = append(own, k)
			}
		}
		if len(own) > 0 {
			out = append(out, tr.alone(p, own)...)
		}
	}
	if want := len(keys) * props.Quorum.N; len(out) != want {
		tr.t.Errorf("%d replicas were read, want %d", len(out), want)
	}
	for _, p := range all {
		p.start(tr.t)
	}
	for _, p := range all {
		p.waitReady(tr.t)
	}
	return out
}

// alone reads keys of a node while no other one runs.
func (tr *trial) alone(p *process, keys []string) []journal.Final {
	tr.t.Helper()
	p.start(tr.t)
	defer p.kill(tr.t)
	config := client.Default()
	config.Nodes = []string{p.address}
	cl, err := client.New(config)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer cl.Close()
	return tr.read(load.Reader{Bucket: cl.Bucket(bucket), Replica: p.name, R: 1, Patience: patience}, keys)
}

// differing counts the keys whose replicas are not equal.
func differing(finals []journal.Final) int {
	of, bad := map[string]string{}, map[string]bool{}
	for _, f := range finals {
		dots := slices.Sorted(slices.Values(f.Dots))
		text := fmt.Sprint(dots)
		if first, ok := of[f.Key]; ok && first != text {
			bad[f.Key] = true
		}
		of[f.Key] = text
	}
	return len(bad)
}

// judge writes down what was found and runs the checker.
func (tr *trial) judge(finals []journal.Final, flags ...string) {
	tr.t.Helper()
	w, err := journal.Create[journal.Final](tr.final)
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, f := range finals {
		w.Write(f)
	}
	if err := w.Close(); err != nil {
		tr.t.Fatal(err)
	}
	check(tr.t, append(flags, "-final", tr.final, tr.ops)...)
}

// document is the newest document that some node has told: the one that answers may
// be behind.
func (tr *trial) document() (member.Document, error) {
	status, err := tr.operator.Cluster().Status(tr.t.Context())
	if err == nil && status.Document.Version > tr.newest.Version {
		tr.newest = status.Document
	}
	return tr.newest, err
}

// settled waits until the ring is the one that is wanted and whole.
func (tr *trial) settled(what string) member.Document {
	tr.t.Helper()
	var d member.Document
	eventually(tr.t, what, func() bool {
		var err error
		d, err = tr.document()
		return err == nil && d.Next == nil && len(d.Movement.Filling) == 0 && !d.Unfinished()
	})
	return d
}

// staged waits until joins of the nodes are staged.
func (tr *trial) staged(names ...string) {
	tr.t.Helper()
	eventually(tr.t, fmt.Sprintf("%v are staged", names), func() bool {
		d, err := tr.document()
		return err == nil && !slices.ContainsFunc(names, func(name string) bool {
			return !slices.ContainsFunc(d.Staged, func(c member.Change) bool { return string(c.Node) == name })
		})
	})
}

// commit commits what is staged, as planned; it looks at the plan again when the
// cluster has changed since.
func (tr *trial) commit() member.Plan {
	tr.t.Helper()
	var plan member.Plan
	eventually(tr.t, "a commit", func() bool {
		d, err := tr.document()
		if err != nil {
			tr.t.Fatal(err)
		}
		if plan, err = d.Plan(); errors.Is(err, member.ErrNothingStaged) { // the node that answered is behind
			return false
		} else if err != nil {
			tr.t.Fatal(err)
		}
		_, err = tr.operator.Cluster().Commit(tr.t.Context(), d.Version)
		if err != nil && !errors.Is(err, client.ErrChanged) {
			tr.t.Fatal(err)
		}
		return err == nil
	})
	return plan
}

// movesLittle checks a plan: within 5 % of the least number of moves.
func movesLittle(t *testing.T, p member.Plan) {
	t.Helper()
	t.Logf("%d moves, no balanced ring does with less than %d; warnings: %v", p.Moves, p.LeastMoves, p.Warnings)
	if p.Moves*100 > p.LeastMoves*105 {
		t.Errorf("%d moves, the least are %d", p.Moves, p.LeastMoves)
	}
}

// balanced checks that each member has its share of partitions, within one.
func balanced(t *testing.T, d member.Document, members ...string) {
	t.Helper()
	share := float64(d.Settled.Partitions()*min(ring.Focus, len(members))) / float64(len(members))
	for _, m := range members {
		n := len(d.Settled.PartitionsOf(dynamo.NodeID(m), ring.Focus))
		t.Logf("%s: %d partitions of %.1f", m, n, share)
		if float64(n) > share+1 || float64(n) < share-1 {
			t.Errorf("%s has %d partitions, its share is %.1f", m, n, share)
		}
	}
	if got := len(d.Settled.Nodes()); got != len(members) {
		t.Errorf("%d nodes in the ring: %v", got, d.Settled.Nodes())
	}
}

// percentile is the latency of operations that began in a time, in order of length.
func percentile(ops []journal.Op, from, to time.Duration, share float64) (time.Duration, int) {
	var all []time.Duration
	for _, op := range ops {
		if op.Start >= from && op.Start < to {
			all = append(all, op.End-op.Start)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(share*float64(len(all))))], len(all)
}

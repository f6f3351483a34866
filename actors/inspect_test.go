package actors

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/actors/actortest"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/messages"
)

var emptyContext version.Context

// TestEveryActorSaysHowItIs: what has a Receive has an Inspect, here and at the links.
func TestEveryActorSaysHowItIs(t *testing.T) {
	for _, dir := range []string{".", "link"} {
		methods := map[string]map[string]bool{}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Recv == nil {
					continue
				}
				of := fn.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				name := fmt.Sprint(of)
				if methods[name] == nil {
					methods[name] = map[string]bool{}
				}
				methods[name][fn.Name.Name] = true
			}
		}
		found := 0
		for name, has := range methods {
			if has["Receive"] {
				found++
				if !has["Inspect"] {
					t.Errorf("%s: %s does not say how it is", dir, name)
				}
			}
		}
		if found < 3 {
			t.Errorf("%s: only %d actors", dir, found)
		}
	}
}

// TestInspectVnode, opening and serving, with hints and a write that waits for the disk.
func TestInspectVnode(t *testing.T) {
	r := start(t, setup{hold: true, nodes: 2})
	actortest.Eventually(t, "the vnode is there", func() bool { return len(r.actors("vnode/0")) == 1 })
	r.probe.Ask(r.pid(), readOf(0, "k", 0))
	actortest.Eventually(t, "it holds a read", func() bool {
		return value(t, r.inspect("vnode/0"), "waiting until it opens") == messages.Count(1)
	})
	says(t, r.inspect("vnode/0"), map[string]string{"state": "opening", "problem": "opening", "keys": "0"})
	says(t, r.inspect("vnodes"), map[string]string{"vnodes": "1", "serving": "0", "not serving > vnode/0": "opening"})
	r.engine.ReleaseSyncs()
	r.ready()
	actortest.Next[*messages.ReadReply](t, r.probe)
	r.written("k", "v", emptyContext)
	r.s.hints.add(slot{"n2", 0}, HintCount{Records: 2, Bytes: 300})
	r.engine.HoldSyncs()
	p := actortest.NewProbe(r.system)
	r.write(p, "l", "v", emptyContext, true)
	actortest.Next[*prepared](t, p)
	i := r.inspect("vnode/0")
	says(t, i, map[string]string{
		"partition": "0", "state": "serving", "role > n=3": "replica", "movement": "settled", "answers waiting for the disk": "1", "keys": "2",
		"hash trees > n=3 > state": "settled", "hash trees > n=3 > keys": "2", "hints for > n2 > records": "2", "hints for > n2 > size": "300",
		"waiting until it opens": "0",
	})
	if s, ok := value(t, i, "incarnation").(string); !ok || len(s) != 32 || i.Kind() != "vnode" || i.Parent != "vnodes" {
		t.Errorf("%+v", i)
	}
	r.engine.ReleaseSyncs()
	actortest.Next[*durable](t, p)
	says(t, r.inspect("vnode/0"), map[string]string{"answers waiting for the disk": "0"})
	r.s.hints.add(slot{"n2", 0}, HintCount{Records: -2, Bytes: -300})
	says(t, r.inspect("node"), map[string]string{"node": "n1", "ready": "yes", "cluster": "test", "members": "2", "partitions": "1", "serving": "1"})
}

// only is the one actor that fits a pattern.
func (r *rig) only(pattern string) messages.Inspection {
	r.t.Helper()
	actortest.Eventually(r.t, "one actor "+pattern, func() bool { return len(r.actors(pattern)) == 1 })
	return r.inspect(r.actors(pattern)[0].Name)
}

// TestInspectRequests: who has answered, who is awaited, and of which key, whatever that is.
func TestInspectRequests(t *testing.T) {
	r := start(t, setup{nodes: 3})
	h := r.held("n2", "n3")
	const name = "k\x1b[2J\xff"
	r.probe.Ask(r.coordinator(), putOf(name, "v", nil))
	actortest.Eventually(t, "the write was sent", func() bool { return h.waiting() == 2 })
	actortest.Eventually(t, "its own disk has it", func() bool {
		return value(t, r.only("put/*"), "replicas", "n1") == "primary: answered"
	})
	i := r.only("put/*")
	says(t, i, map[string]string{
		"state": "AwaitingQuorum", "bucket": `"b"`, "key": `"k\x1b[2J\xff"`, "partition": "0", "answered": "no", "quorum": "1 of 2, pending",
		"replicas > n2": "primary: asked", "n": "3", "w": "2", "durability": "all", "delete": "no", "value": "1", "planned with version": "1",
	})
	if left, ok := value(t, i, "time left").(time.Duration); !ok || left <= 0 || left > actortest.Patience || i.Parent != "coordinator" {
		t.Errorf("%+v", i)
	}
	value(t, i, "dot")
	says(t, r.inspect("coordinator"), map[string]string{"state": "serving", "in flight": "1", "not answered yet": "1", "at most": "100"})
	h.release()
	actortest.Next[*messages.PutReply](t, r.probe)
	r.quiet()
	r.probe.Ask(r.coordinator(), getOf(name))
	actortest.Eventually(t, "its own vnode has answered", func() bool {
		return value(t, r.only("get/*"), "replicas", "n1") == "primary: answered"
	})
	says(t, r.only("get/*"), map[string]string{
		"state": "AwaitingQuorum", "key": `"k\x1b[2J\xff"`, "quorum": "1 of 2, pending", "replicas > n3": "primary: asked", "r": "2", "answered": "no",
	})
	h.release()
	actortest.Next[*messages.GetReply](t, r.probe)
	r.quiet()
	if all := r.actors("*et/*"); len(all) != 0 {
		t.Errorf("requests that have ended are listed: %+v", all)
	}
}

func TestInspectForward(t *testing.T) {
	r := start(t, setup{nodes: 6, partitions: 64})
	name, primaries := r.outside()
	r.peers.Handle(string(primaries[0]), puts(func(m actortest.Received) {
		r.peers.Answer(m, messages.Fail(messages.CodeOverloaded, "busy"))
	}))
	got := make(chan actortest.Received, 1)
	r.peers.Handle(string(primaries[1]), puts(func(m actortest.Received) { got <- m }))
	r.probe.Ask(r.coordinator(), putOf(name, "v", nil))
	m := <-got
	says(t, r.only("forward/*"), map[string]string{
		"state": "AwaitingCoordinator", "asked": string(primaries[1]), "without success > tried": string(primaries[0]) + ": overloaded: busy",
		"next": string(primaries[2]), "answered": "no",
	})
	r.peers.Answer(m, &messages.PutReply{Context: []byte("context")})
	actortest.Next[*messages.PutReply](t, r.probe)
}

// TestInspectTransfer: which hints go where, and what is awaited.
func TestInspectTransfer(t *testing.T) {
	x := startHinted(t)
	x.opinions.set(x.back, false)
	m := x.next()
	says(t, x.inspect(x.transfer()), map[string]string{
		"partition": fmt.Sprint(x.p), "what": "hints", "for": string(x.back), "state": "confirming", "remaining": "1", "records in the batch": "1", "records": "0",
	})
	i := x.inspect("transfers")
	says(t, i, map[string]string{"running": "1", "hints kept": "1", "run > " + x.transfer() + " > records": "0"})
	value(t, x.inspect(x.transfer()), "has a slice for")
	says(t, x.inspect("admission"), map[string]string{"have a slice > " + x.transfer(): "works"})
	x.confirm(m)
}

// TestInspectFill: what is lacking, and from whom.
func TestInspectFill(t *testing.T) {
	asked := make(chan actortest.Received, 1000)
	x := startFiller(t, nil, nil)
	for _, node := range []string{"n2", "n3", "n4"} {
		x.peers.Handle(node, func(m actortest.Received) {
			if _, ok := m.Message.(*messages.FillRequest); ok {
				asked <- m
			}
		})
	}
	m := <-asked // of a fill that goes on, or of one that begins
	name := fmt.Sprint(messages.TargetFill, m.Message.(*messages.FillRequest).GetPartition())
	i := x.inspect(name)
	says(t, i, map[string]string{
		"partition": fmt.Sprint(m.Message.(*messages.FillRequest).GetPartition()), "state": "asking", "source": string(m.Target.GetAddress()), "damaged at a source": "0",
	})
	value(t, i, "streams left")
	value(t, i, "streams")
	value(t, i, "records")
}

// TestInspectExchange: with whom, and how far.
func TestInspectExchange(t *testing.T) {
	x := startTwins(t, keep{diskOf(t)}, keep{diskOf(t)}, nil)
	x.one.peers.Handle("n2", func(actortest.Received) {})
	p := actortest.NewProbe(x.one.system)
	p.Ask(on("n1", nameExchanges), &messages.RepairRequest{})
	actortest.Next[*messages.RepairReply](t, p)
	const name = "exchange/0/3/n2"
	actortest.Eventually(t, "it asks", func() bool { a := x.one.actors(name); return len(a) == 1 && a[0].State() == "idle" })
	says(t, x.one.inspect(name), map[string]string{
		"partition": "0", "n": "3", "with": "n2", "state": "greeting", "ranges left": "0", "records got": "0", "planned with version": "1",
	})
	says(t, x.one.inspect(nameExchanges), map[string]string{"pairs": "1", "running": "1", "run > " + name: "runs", "complete": "0"})
}

// TestInspectReap: what is to be forgotten, and what is awaited.
func TestInspectReap(t *testing.T) {
	x := startTrio(t, nil)
	x.lose(func(_, _ dynamo.NodeID, m actortest.Received) bool {
		_, asks := m.Message.(*messages.ReapRequest)
		return asks
	})
	x.have(x.first, "k", deleted(t, "v"), "")
	x.have(x.second, "k", deleted(t, "v"), "")
	first := x.node(x.first)
	says(t, first.only("reap/*"), map[string]string{
		"partition": "0", "n": "2", "state": "asking", "keys": "1", "planned with version": "1", "primaries": fmt.Sprintf("%s %s", x.first, x.second),
	})
	says(t, first.inspect("reaps"), map[string]string{"on": "yes", "running": "1"})
}

// TestInspectMembers: what the node thinks of the others.
func TestInspectMembers(t *testing.T) {
	r := detecting(t, 3)
	r.up("n2")
	says(t, r.inspect("detector"), map[string]string{"nodes > n2 > opinion": "up", "nodes > n2 > slow": "no", "probes waiting for the disk": "0"})
	says(t, r.inspect("membership"), map[string]string{
		"state": "member", "cluster": "test", "version in force": "1", "voter's version": "1", "members > up": "3", "partitions lost": "0", "staged changes": "0",
	})
}

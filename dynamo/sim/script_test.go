package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// TestScripts plays the scenarios of testdata on a cluster without faults of
// its own; every step is checked as in a seeded run. Refresh them with -rewrite
// and read the difference. Dots are named by node, epoch and counter; a node
// with a new incarnation gets a prime.
//
//	cluster nodes=3 n=3 r=2 w=2          prints the preference list of the key
//	put via=a value=v [context=c] [save=c] [id=1] [age=100ms] [delete]
//	get via=a [save=c]
//	cut from=(a, b) to=(c)               both ways;  clog from=a to=b for=10s
//	mend                                 ends cuts and clogs
//	slow node=a by=10s                   its disk
//	crash node=a [keep=1]  start node=a  stop node=a  forget node=a  wipe node=a  corrupt node=a
//	run for=100ms                        settle
//	show                                 what each node has
//	exchange                             hands all records to all primaries; checks the end
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.run(t, d)
			if v := s.c.violation; v != nil {
				t.Fatalf("%s: %v", d.Pos, v)
			}
			return out
		})
	})
}

// script is a cluster in the hands of a test.
type script struct {
	c        *cluster
	contexts map[string][]byte
	ids      map[string]dynamo.RequestID
	names    map[clock.Incarnation]string
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var at, lasts, by string
	d.MaybeScanArgs(t, "node", &at)
	d.MaybeScanArgs(t, "for", &lasts)
	d.MaybeScanArgs(t, "by", &by)
	switch d.Cmd {
	case "cluster":
		return s.cluster(t, d)
	case "put", "get":
		return s.request(t, d)
	case "cut", "clog":
		s.links(d, duration(t, lasts))
	case "mend":
		s.c.net.heal()
	case "slow":
		s.node(at).disk.slow = duration(t, by)
	case "crash":
		keep := 0
		d.MaybeScanArgs(t, "keep", &keep)
		s.node(at).crash(keep)
	case "start":
		s.node(at).start()
		s.advance(100 * time.Millisecond)
	case "stop":
		s.node(at).stop(time.Hour)
		s.advance(time.Second)
	case "forget":
		s.c.forget(s.node(at), &s.c.keys[0])
	case "corrupt":
		s.c.corrupt(s.node(at), &s.c.keys[0])
	case "wipe":
		s.c.wipe(s.node(at), 0)
		s.advance(100 * time.Millisecond)
	case "run":
		s.advance(duration(t, lasts))
	case "settle":
		s.c.settle()
	case "show":
		return s.show()
	case "exchange":
		s.c.heal()
		s.c.check.final()
		return s.show()
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return ""
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// cluster founds the cluster; nothing in it is random but the ids.
func (s *script) cluster(t *testing.T, d *datadriven.TestData) string {
	p := plan{
		seed: 1, nodes: 3, partitions: 1, lease: 16, batch: 16, queue: 64, inFlight: 64,
		properties: bucket.Properties{Quorum: quorum.Params{N: 3, R: 2, W: 2}},
		load:       loadPlan{clients: 1, keys: 1, timeout: time.Second},
		net:        netPlan{least: time.Millisecond, detect: 20 * time.Millisecond},
		disk:       diskPlan{sync: time.Millisecond, flush: 10 * time.Millisecond},
		slack:      vnode.Slack,
	}
	for name, dst := range map[string]*int{
		"nodes": &p.nodes, "n": &p.properties.Quorum.N, "r": &p.properties.Quorum.R, "w": &p.properties.Quorum.W, "spares": &p.spares,
	} {
		d.MaybeScanArgs(t, name, dst)
	}
	s.c = newCluster(p, sound, nil)
	s.contexts, s.ids, s.names = map[string][]byte{}, map[string]dynamo.RequestID{}, map[clock.Incarnation]string{}
	for _, n := range s.c.nodes {
		n.start()
	}
	s.c.settle()
	return fmt.Sprint(s.c.doc.Settled.Order(0)) + "\n"
}

func (s *script) node(name string) *node { return s.c.node(dynamo.NodeID(name)) }

// advance runs what happens within d.
func (s *script) advance(d time.Duration) {
	end := s.c.now + d
	for len(s.c.queue.heap) > 0 && s.c.queue.heap[0].at <= end && s.c.step() {
	}
	s.c.now = end
}

func (s *script) links(d *datadriven.TestData, lasts time.Duration) {
	list := func(name string) []string {
		i := slices.IndexFunc(d.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == name })
		return d.CmdArgs[i].Vals
	}
	for _, from := range list("from") {
		for _, to := range list("to") {
			a, b := s.node(from).index, s.node(to).index
			if d.Cmd == "clog" {
				s.c.net.clogged[a][b] = s.c.now + lasts
				continue
			}
			s.c.net.setCut(a, b, true)
			s.c.net.setCut(b, a, true)
		}
	}
}

// request makes one attempt of a client's request, without retries, and waits
// for its answer.
func (s *script) request(t *testing.T, d *datadriven.TestData) string {
	var via, value, context, save, id, age string
	for name, dst := range map[string]*string{"via": &via, "value": &value, "context": &context, "save": &save, "id": &id, "age": &age} {
		d.MaybeScanArgs(t, name, dst)
	}
	c, n, from := s.c, s.node(via), pid{endpoint: len(s.c.nodes), number: 1}
	out := "no answer\n"
	over := false
	c.clients[0].intercept = func(body any) {
		over, out = true, s.outcome(body)
		switch m := body.(type) {
		case getReply:
			s.contexts[save] = m.context
		case putReply:
			s.contexts[save] = m.context
		}
		delete(s.contexts, "") // of requests that save nothing
	}
	run := func() { n.takeGet(&getRequest{timeout: time.Second}, from, order{}) }
	if d.Cmd == "put" {
		m := &putRequest{
			value: []byte(value), context: s.contexts[context], delete: d.HasArg("delete"), timeout: time.Second,
			retry: age != "", age: duration(t, age), id: s.id(id),
		}
		run = func() { n.takePut(m, from, order{}) }
	}
	c.net.sendOnce(from.endpoint, n.index, func() { n.arrive(run) }, func(why request.Reason) { over, out = true, why.String()+"\n" })
	for end := c.now + 2*time.Second; !over && c.now < end && c.step(); {
	}
	c.clients[0].intercept = func(any) {}
	return out
}

func (s *script) id(name string) dynamo.RequestID {
	if id, ok := s.ids[name]; ok && name != "" {
		return id
	}
	s.ids[name] = s.c.requestID()
	return s.ids[name]
}

func (s *script) outcome(body any) string {
	switch m := body.(type) {
	case getReply:
		if len(m.versions) == 0 {
			return "not found\n"
		}
		return "found " + s.versions(m.versions) + "\n"
	case putReply:
		return "written\n"
	case failure:
		return m.code.String() + "\n"
	}
	return describe(body) + "\n"
}

// show prints what each node's store holds as reads see it.
func (s *script) show() string {
	var b strings.Builder
	for _, n := range s.c.nodes {
		rec := n.record(&s.c.keys[0], false)
		stored, err := vnode.DecodeStored(s.c.keys[0].stored, n.disk.volatile[string(s.c.keys[0].stored)])
		switch {
		case !n.up:
			fmt.Fprintf(&b, "%s is down; ", n.id)
		case err == nil && stored.Barred > 0:
			fmt.Fprintf(&b, "%s bars %d; ", n.id, stored.Barred)
		}
		if rec.IsZero() {
			fmt.Fprintf(&b, "%s: nothing\n", n.id)
			continue
		}
		fmt.Fprintf(&b, "%s: %s of", n.id, s.versions(rec.Versions))
		for _, e := range rec.Clock.Entries() {
			fmt.Fprintf(&b, " %s", s.dot(clock.Dot{Actor: e.Actor, Counter: e.Counter}))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *script) versions(list []version.Version) string {
	var out []string
	for _, v := range list {
		text := string(v.Value)
		if v.Tombstone {
			text = "deleted"
		}
		out = append(out, fmt.Sprintf("%s=%s", s.dot(v.Dot), text))
	}
	return strings.Join(out, " ")
}

func (s *script) dot(d clock.Dot) string {
	if _, ok := s.names[d.Actor.Incarnation]; !ok {
		for _, n := range s.c.nodes {
			if n.up && n.vnodes[0].state.Incarnation() == d.Actor.Incarnation {
				name := string(n.id)
				for _, taken := range s.names {
					if strings.HasPrefix(taken, string(n.id)) {
						name += "'"
					}
				}
				s.names[d.Actor.Incarnation] = name
			}
		}
	}
	return fmt.Sprintf("%s%d.%d", s.names[d.Actor.Incarnation], d.Actor.Epoch, d.Counter)
}

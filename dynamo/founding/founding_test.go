package founding

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
)

func candidate(id dynamo.NodeID, founding bool) Candidate {
	return Candidate{ID: id, Store: [16]byte{id[0]}, Capacity: 1, Founding: founding, Address: string(id) + ":1"}
}

func machine(id dynamo.NodeID, founding, elect bool, expect int) *Machine {
	return New(Config{Self: candidate(id, founding), Expect: expect, Elect: elect, Intent: ClusterID{id[0]}})
}

// listed is a machine whose register lists nodes, with the round begun.
func listed(id dynamo.NodeID, expect int, problem string, addresses ...string) *Machine {
	m := machine(id, true, true, expect)
	m.Step(Tick{Listed: addresses, Problem: problem})
	return m
}

func answer(id dynamo.NodeID, founding bool, known Known) Answer {
	return Answer{From: candidate(id, founding), Known: known}
}

func TestSteps(t *testing.T) {
	for _, tc := range []struct {
		name  string
		m     *Machine
		steps []Event
		want  string // the last step's effects
		state State
	}{
		{"asks each round", machine("a", true, false, 3), []Event{Tick{}}, "[founding.Ask]", AwaitingNodes},
		{"waits for all expected", machine("a", true, false, 3), []Event{answer("b", false, NoDocument)}, "[]", AwaitingNodes},
		{"founds with all expected", machine("a", true, false, 2), []Event{answer("b", false, NoDocument)}, "[founding.Found]", AwaitingDocument},
		{"does not found untold", machine("a", false, false, 2), []Event{answer("b", false, NoDocument)}, "[]", AwaitingNodes},
		{"the lowest founds", machine("b", true, false, 2), []Event{answer("a", true, NoDocument)}, "[]", AwaitingNodes},
		{"a higher one does not matter", machine("a", true, false, 2), []Event{answer("b", true, NoDocument)}, "[founding.Found]", AwaitingDocument},
		{"adopts", machine("b", true, false, 3), []Event{answer("a", true, NamesUs)}, "[founding.Adopt]", AwaitingDocument},
		{"adopts once", machine("b", true, false, 3), []Event{answer("a", true, NamesUs), answer("c", true, NamesUs)}, "[]", AwaitingDocument},
		{"does not found beside another cluster", machine("a", true, false, 2), []Event{answer("b", false, NamesOthers), answer("c", false, NoDocument)}, "[]", AwaitingNodes},
		{"nor with its name taken", machine("a", true, false, 2), []Event{answer("b", false, NamesOurName), answer("c", false, NoDocument)}, "[]", AwaitingNodes},
		{"ignores itself", machine("a", true, false, 2), []Event{answer("a", true, NoDocument)}, "[]", AwaitingNodes},
		{"counts only who is still there", machine("a", true, false, 3),
			[]Event{answer("b", false, NoDocument), Tick{}, Tick{}, answer("c", false, NoDocument)}, "[]", AwaitingNodes},
		{"stores its intent before the election", listed("b", 2, "", "a:1", "b:1"), []Event{answer("a", true, NoDocument)}, "[founding.StoreIntent]", AwaitingIntent},
		{"then is a candidate", listed("b", 2, "", "a:1", "b:1"), []Event{answer("a", true, NoDocument), IntentStored{}}, "[founding.Elect]", AwaitingElection},
		{"founds when elected", listed("b", 2, "", "a:1", "b:1"), []Event{answer("a", true, NoDocument), IntentStored{}, Elected{Won: true}}, "[founding.Found]", AwaitingDocument},
		{"waits when not", listed("b", 2, "", "a:1", "b:1"), []Event{answer("a", true, NoDocument), IntentStored{}, Elected{Founder: "a"}}, "[]", AwaitingNodes},
		{"tries again when the register fails", listed("b", 2, "", "a:1", "b:1"),
			[]Event{answer("a", true, NoDocument), IntentStored{}, ElectionFailed{"down"}, answer("a", true, NoDocument)}, "[founding.Elect]", AwaitingElection},
		{"repeats a lost election", listed("b", 2, "", "a:1", "b:1"), []Event{answer("a", true, NoDocument), IntentStored{}, Tick{}}, "[founding.Elect founding.Ask]", AwaitingElection},
		{"an election nobody asked for says nothing", listed("a", 3, "", "a:1"), []Event{Elected{Won: true}}, "[]", AwaitingNodes},
		{"one node founds alone, after a round", machine("a", true, false, 1), []Event{Tick{}, Tick{}}, "[founding.Found founding.Ask]", AwaitingDocument},
		{"but asks first", machine("a", true, false, 1), []Event{Tick{}}, "[founding.Ask]", AwaitingNodes},
		{"waits for every listed node", listed("b", 1, "", "a:1", "b:1"), []Event{Tick{Listed: []string{"a:1", "b:1"}}}, "[founding.Ask]", AwaitingNodes},
		{"whatever is expected", listed("b", 2, "", "a:1", "b:1", "c:1"), []Event{answer("a", true, NoDocument)}, "[]", AwaitingNodes},
		{"believes no list with a problem", listed("b", 2, "denied", "a:1", "b:1"), []Event{answer("a", true, NoDocument)}, "[]", AwaitingNodes},
		{"nor an empty one", listed("b", 1, "denied"), []Event{Tick{Problem: "denied"}}, "[founding.Ask]", AwaitingNodes},
		{"nor one it never got", machine("b", true, true, 2), []Event{answer("a", true, NoDocument)}, "[]", AwaitingNodes},
		{"joins no election with a cluster there", listed("d", 1, "", "a:1", "d:1"), []Event{answer("a", true, NamesOthers), Tick{}}, "[founding.Ask]", AwaitingNodes},
		{"gives an election up for a cluster that turns up", listed("d", 2, "", "a:1", "d:1"),
			[]Event{answer("a", true, NoDocument), IntentStored{}, answer("b", true, NamesOthers), Elected{Won: true}}, "[]", AwaitingNodes},
		{"does not found with a copy of its store", machine("a", true, false, 2),
			[]Event{Answer{From: Candidate{ID: "b", Store: [16]byte{'a'}, Capacity: 1, Address: "b:1"}}}, "[]", AwaitingNodes},
		{"nor with two copies elsewhere", machine("a", true, false, 2),
			[]Event{Tick{}, answer("b", false, NamesOthers), Answer{From: Candidate{ID: "c", Store: [16]byte{'b'}, Capacity: 1}}, Tick{},
				answer("b", false, NoDocument)}, "[]", AwaitingNodes},
		{"is done", machine("b", true, false, 3), []Event{answer("a", true, NamesUs), Stored{}, Tick{}}, "[]", Done},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out []Effect
			for _, e := range tc.steps {
				out = tc.m.Step(e)
			}
			got := make([]string, len(out))
			for i, e := range out {
				got[i] = fmt.Sprintf("%T", e)
			}
			if fmt.Sprint(got) != tc.want || tc.m.State() != tc.state {
				t.Fatalf("%v in state %v, want %v in %v (%s)", got, tc.m.State(), tc.want, tc.state, tc.m.Note())
			}
		})
	}
}

// cluster runs several machines against each other and a register, with
// answers late, lost and repeated, and founders that crash.
type cluster struct {
	nodes    []dynamo.NodeID
	machines map[dynamo.NodeID]*Machine
	intents  map[dynamo.NodeID]bool      // durable
	docs     map[dynamo.NodeID]ClusterID // durable
	members  map[ClusterID][]Candidate
	register dynamo.NodeID
	founded  map[ClusterID]bool
	elect    bool
	told     map[dynamo.NodeID]bool
	calm     bool // no more crashes and losses
}

func (c *cluster) start(id dynamo.NodeID) {
	m := machine(id, c.told[id], c.elect, len(c.nodes))
	m.intent = c.intents[id]
	if _, ok := c.docs[id]; ok {
		m.Step(Stored{})
	}
	c.machines[id] = m
}

// tick is a round with all nodes in the register.
func (c *cluster) tick() Tick {
	var t Tick
	for _, id := range c.nodes {
		t.Listed = append(t.Listed, candidate(id, false).Address)
	}
	return t
}

func (c *cluster) known(of, by dynamo.NodeID) Known {
	doc, ok := c.docs[of]
	if !ok {
		return NoDocument
	}
	for _, m := range c.members[doc] {
		if m.ID == by {
			return NamesUs
		}
	}
	return NamesOthers
}

// do carries out effects; each may be cut off by a crash before it is durable.
func (c *cluster) do(t *rapid.T, id dynamo.NodeID, effects []Effect) {
	for _, e := range effects {
		if !c.calm && rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
			c.start(id)
			return
		}
		m := c.machines[id]
		switch e := e.(type) {
		case StoreIntent:
			c.intents[id] = true
			c.do(t, id, m.Step(IntentStored{}))
		case Elect:
			if c.register == "" {
				c.register = id
			}
			if !c.calm && rapid.Bool().Draw(t, "answer lost") {
				continue
			}
			c.do(t, id, m.Step(Elected{Won: c.register == id, Founder: c.register}))
		case Found:
			c.founded[e.ID] = true
			c.members[e.ID] = e.Members
			c.docs[id] = e.ID
			m.Step(Stored{})
		case Adopt:
			c.docs[id] = c.docs[e.From]
			m.Step(Stored{})
		}
	}
}

// TestOneCluster founds from any subset of nodes told to, in any order of
// answers and crashes: never two clusters, and one in the end.
func TestOneCluster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &cluster{
			nodes: []dynamo.NodeID{"a", "b", "c"}, machines: map[dynamo.NodeID]*Machine{}, intents: map[dynamo.NodeID]bool{},
			docs: map[dynamo.NodeID]ClusterID{}, members: map[ClusterID][]Candidate{}, founded: map[ClusterID]bool{},
			elect: rapid.Bool().Draw(t, "elect"), told: map[dynamo.NodeID]bool{},
		}
		c.told[rapid.SampledFrom(c.nodes).Draw(t, "founder")] = true
		for _, id := range c.nodes {
			c.told[id] = c.told[id] || rapid.Bool().Draw(t, "told")
			c.start(id)
		}
		node := rapid.SampledFrom(c.nodes)
		turn := func(t *rapid.T) {
			id := node.Draw(t, "node")
			if rapid.IntRange(0, 5).Draw(t, "tick") == 0 {
				c.do(t, id, c.machines[id].Step(c.tick()))
				return
			}
			from := node.Draw(t, "from")
			c.do(t, id, c.machines[id].Step(Answer{From: candidate(from, c.told[from]), Known: c.known(from, id)}))
		}
		for range 60 {
			turn(t)
			if len(c.founded) > 1 {
				t.Fatalf("two clusters were founded: %v", c.founded)
			}
		}
		c.settle(t)
	})
}

// settle lets everybody hear everybody for some rounds; then all must be in
// the one cluster.
func (c *cluster) settle(t *rapid.T) {
	c.calm = true
	for range 3 * len(c.nodes) {
		for _, id := range c.nodes {
			c.do(t, id, c.machines[id].Step(c.tick()))
			for _, from := range c.nodes {
				c.do(t, id, c.machines[id].Step(Answer{From: candidate(from, c.told[from]), Known: c.known(from, id)}))
			}
		}
	}
	for _, id := range c.nodes {
		if c.docs[id] != c.docs[c.nodes[0]] || c.docs[id] == (ClusterID{}) || c.machines[id].State() != Done {
			t.Fatalf("%s is %v: %s", id, c.machines[id].State(), c.machines[id].Note())
		}
	}
	if len(c.founded) != 1 {
		t.Fatalf("%d clusters were founded", len(c.founded))
	}
}

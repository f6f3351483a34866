// Package founding decides how nodes that start together become one cluster
// (paper § 4.8.2: seeds keep logical partitions from forming).
//
// Every node without a cluster document asks those it can find who they are
// and what they know, again and again:
//
//  1. A document that names this node and its store is adopted, whoever has it.
//  2. A node that was told to found one waits until as many as expected answer
//     and none of them has a document. If several were told, the lowest name
//     founds and the others wait for its document.
//  3. With a register outside (Consul) the founder first makes the id of its
//     cluster durable, then puts it into the register with a compare-and-set.
//     Only the winner founds; a winner that crashed finds its own id there and
//     goes on. Before that, every node that the register lists must have
//     answered: the register may have lost what it knew of a cluster that
//     lives, and its members know better.
//
// The decision is durable at the founder before anybody hears of it, and all
// others pull it, so a crash at any point only delays.
package founding

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dynactor/dynactor/dynamo"
)

// ClusterID is the random id of a cluster.
type ClusterID [16]byte

// Candidate is what a node says of itself before there is a cluster.
type Candidate struct {
	ID       dynamo.NodeID
	Store    [16]byte
	Start    uint64
	Zone     string
	Capacity int
	Address  string
	// Founding: the node was told to found a cluster.
	Founding bool
	// Partitions it would found with.
	Partitions int
}

// Known says what a node's cluster document means to this node.
type Known uint8

const (
	// NoDocument: the node has none.
	NoDocument Known = iota
	// NamesUs: it has one with this node and its store among the members.
	NamesUs
	// NamesOthers: it has one without this node.
	NamesOthers
	// NamesOurName: it has one in which another store has this node's name.
	NamesOurName
)

// State is what the machine awaits.
type State uint8

const (
	// AwaitingNodes: too few have answered, or somebody else is to found.
	AwaitingNodes State = iota
	// AwaitingIntent: the id of the cluster to be is on its way to the disk.
	AwaitingIntent
	// AwaitingElection: the register outside was asked.
	AwaitingElection
	// AwaitingDocument: the document is on its way to the disk.
	AwaitingDocument
	// Done: the node has a document.
	Done
)

// String names the state in the console and in health.
func (s State) String() string {
	return [...]string{"awaiting nodes", "awaiting intent", "awaiting election", "awaiting document", "done"}[s]
}

// Config is what the machine is told at the start.
type Config struct {
	Self Candidate
	// Expect is how many nodes found the cluster together, this one included.
	Expect int
	// Elect: a register outside decides who founds.
	Elect bool
	// Intent is the id for a cluster that this node founds: the one it made
	// durable before a crash, or a fresh random one.
	Intent ClusterID
	// IntentDurable: Intent was read from the disk.
	IntentDurable bool
}

// Event is what happens to the machine.
type Event interface{ event() }

type (
	// Tick asks for another round. With a register outside, Listed are the
	// addresses of the nodes that it lists now, and Problem says why that list
	// cannot be relied on; empty if it can.
	Tick struct {
		Listed  []string
		Problem string
	}
	// Answer is what another node said.
	Answer struct {
		From  Candidate
		Known Known
	}
	// IntentStored: the cluster id is durable.
	IntentStored struct{}
	// Elected is the register's answer: whether it holds our id, else whose.
	Elected struct {
		Won     bool
		Founder dynamo.NodeID
	}
	// ElectionFailed: the register did not answer.
	ElectionFailed struct{ Reason string }
	// Stored: the document, founded or adopted, is durable and in force.
	Stored struct{}
)

func (Tick) event()           {}
func (Answer) event()         {}
func (IntentStored) event()   {}
func (Elected) event()        {}
func (ElectionFailed) event() {}
func (Stored) event()         {}

// Effect is what the actor is to do.
type Effect interface{ effect() }

type (
	// Ask every node that can be found who it is.
	Ask struct{}
	// StoreIntent makes the cluster id durable, then sends IntentStored.
	StoreIntent struct{ ID ClusterID }
	// Elect puts the id into the register if it is empty or holds this id.
	Elect struct{ ID ClusterID }
	// Found makes version 1 of the document with these members durable.
	Found struct {
		ID      ClusterID
		Members []Candidate
	}
	// Adopt makes the document of From durable.
	Adopt struct{ From dynamo.NodeID }
)

func (Ask) effect()         {}
func (StoreIntent) effect() {}
func (Elect) effect()       {}
func (Found) effect()       {}
func (Adopt) effect()       {}

// Machine is one node's way into its first cluster.
type Machine struct {
	config Config
	state  State
	// round holds the answers since the last tick but one, by name, so that
	// only nodes that are there now are counted.
	round, last map[dynamo.NodeID]Answer
	intent      bool
	note        string
	// listed and problem are the latest Tick's; asked: there was one.
	listed  []string
	problem string
	asked   bool
}

// New makes a machine that awaits nodes.
func New(c Config) *Machine {
	return &Machine{
		config: c, intent: c.IntentDurable, problem: "it was not asked yet",
		round: map[dynamo.NodeID]Answer{}, last: map[dynamo.NodeID]Answer{},
	}
}

// State is what the machine awaits.
func (m *Machine) State() State { return m.state }

// Note says in a sentence what is missing, for health and logs.
func (m *Machine) Note() string { return m.note }

// Step takes one event and returns what to do, in order.
func (m *Machine) Step(e Event) []Effect {
	if m.state == Done {
		return nil
	}
	if _, ok := e.(Stored); ok {
		m.state, m.note = Done, ""
		return nil
	}
	if t, ok := e.(Tick); ok {
		return append(m.tick(t), Ask{})
	}
	if a, ok := e.(Answer); ok {
		return m.answer(a)
	}
	switch m.state {
	case AwaitingIntent:
		return m.awaitIntent(e)
	case AwaitingElection:
		return m.awaitElection(e)
	}
	return nil
}

// tick begins a round: it repeats what may have been lost, and looks at the
// round that ended, since nobody need have answered for enough to be here.
func (m *Machine) tick(t Tick) []Effect {
	m.last, m.round = m.round, map[dynamo.NodeID]Answer{}
	m.listed, m.problem = t.Listed, t.Problem
	first := !m.asked
	m.asked = true
	switch {
	case m.state == AwaitingElection:
		return []Effect{Elect{ID: m.config.Intent}}
	case m.state == AwaitingNodes && !first:
		return m.awaitNodes()
	}
	return nil
}

func (m *Machine) answer(a Answer) []Effect {
	if a.From.ID == m.config.Self.ID {
		return nil
	}
	m.round[a.From.ID] = a
	if m.state == AwaitingDocument {
		return nil
	}
	switch a.Known {
	case NamesUs:
		m.state = AwaitingDocument
		return []Effect{Adopt{From: a.From.ID}}
	case NamesOthers:
		m.state = AwaitingNodes
		m.note = fmt.Sprintf("%s is in a cluster that this node is not a member of", a.From.ID)
		return nil
	case NamesOurName:
		m.state = AwaitingNodes
		m.note = fmt.Sprintf("the cluster of %s knows %s with another data directory", a.From.ID, m.config.Self.ID)
		return nil
	}
	if m.state != AwaitingNodes {
		return nil
	}
	return m.awaitNodes()
}

// awaitNodes founds once enough nodes answer, none has a document, and none
// with a lower name was told to found.
func (m *Machine) awaitNodes() []Effect {
	members := []Candidate{m.config.Self}
	for _, a := range m.present() {
		if a.Known != NoDocument {
			return nil
		}
		if !m.config.Elect && a.From.Founding && a.From.ID < m.config.Self.ID {
			m.note = fmt.Sprintf("waiting for %s to found the cluster", a.From.ID)
			return nil
		}
		members = append(members, a.From)
	}
	if a, b, twins := sameStore(members); twins {
		m.note = fmt.Sprintf("%s and %s have copies of one data directory; empty that of the copy", a, b)
		return nil
	}
	switch {
	case !m.config.Self.Founding:
		m.note = "waiting for a node that founds the cluster (--found)" + m.registerProblem()
		return nil
	case len(members) < m.config.Expect:
		m.note = fmt.Sprintf("%d of %d nodes are here: %s", len(members), m.config.Expect, names(members)) + m.registerProblem()
		return nil
	case !m.config.Elect:
		return m.found()
	case m.problem != "":
		m.note = "the list of nodes cannot be relied on" + m.registerProblem()
		return nil
	case m.silent(members) != "":
		m.note = "waiting for an answer of the node at " + m.silent(members)
		return nil
	case !m.intent:
		m.state = AwaitingIntent
		return []Effect{StoreIntent{ID: m.config.Intent}}
	}
	m.state = AwaitingElection
	return []Effect{Elect{ID: m.config.Intent}}
}

// sameStore finds two nodes with one store: a data directory that was copied.
func sameStore(members []Candidate) (a, b dynamo.NodeID, found bool) {
	seen := map[[16]byte]dynamo.NodeID{}
	for _, m := range members {
		if other, ok := seen[m.Store]; ok {
			return min(other, m.ID), max(other, m.ID), true
		}
		seen[m.Store] = m.ID
	}
	return "", "", false
}

// registerProblem is the end of a note.
func (m *Machine) registerProblem() string {
	if !m.config.Elect || m.problem == "" {
		return ""
	}
	return "; the register: " + m.problem
}

// silent is the address of a listed node that has not answered, empty if all
// have.
func (m *Machine) silent(here []Candidate) string {
	for _, address := range m.listed {
		if !slices.ContainsFunc(here, func(c Candidate) bool { return c.Address == address }) {
			return address
		}
	}
	return ""
}

func (m *Machine) awaitIntent(e Event) []Effect {
	if _, ok := e.(IntentStored); !ok {
		return nil
	}
	m.intent, m.state = true, AwaitingElection
	return []Effect{Elect{ID: m.config.Intent}}
}

func (m *Machine) awaitElection(e Event) []Effect {
	switch e := e.(type) {
	case Elected:
		if e.Won {
			return m.found()
		}
		m.state = AwaitingNodes
		m.note = fmt.Sprintf("%s was elected to found the cluster; if it is gone for good, remove the register's entry", e.Founder)
	case ElectionFailed:
		m.state = AwaitingNodes
		m.note = "the election failed: " + e.Reason
	}
	return nil
}

// found makes the document of all who are here now. If some have gone since,
// it waits for them again.
func (m *Machine) found() []Effect {
	members := []Candidate{m.config.Self}
	for _, a := range m.present() {
		members = append(members, a.From)
	}
	if _, _, twins := sameStore(members); twins || len(members) < m.config.Expect {
		m.state = AwaitingNodes
		m.note = fmt.Sprintf("elected to found the cluster; %d of %d nodes are here: %s", len(members), m.config.Expect, names(members))
		return nil
	}
	m.state = AwaitingDocument
	return []Effect{Found{ID: m.config.Intent, Members: members}}
}

// present lists the answers of this round and the last, sorted by name.
func (m *Machine) present() []Answer {
	all := map[dynamo.NodeID]Answer{}
	for _, round := range []map[dynamo.NodeID]Answer{m.last, m.round} {
		for id, a := range round {
			all[id] = a
		}
	}
	out := make([]Answer, 0, len(all))
	for _, a := range all {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Answer) int { return strings.Compare(string(a.From.ID), string(b.From.ID)) })
	return out
}

func names(c []Candidate) string {
	out := make([]string, len(c))
	for i, x := range c {
		out[i] = string(x.ID)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

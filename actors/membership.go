package actors

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// Founding is how a node takes part in founding a cluster, and what it needs
// from outside for that. The functions that take done never block; they call
// it from any goroutine, once.
type Founding struct {
	Config founding.Config
	// ClusterName and Buckets are what this node founds with.
	ClusterName string
	Buckets     []member.Bucket
	AutoJoin    bool
	// Load reads the persisted document and what the node must not forget of its
	// part in deciding on the next one; false if it has none.
	Load func() (member.Voter, bool, error)
	// Peers are the nodes that are connected right now.
	Peers func() []dynamo.NodeID
	// Members are those of them that take more than questions of who they are.
	Members func() []dynamo.NodeID
	// Listed are the addresses of the nodes that the register outside lists, and
	// why that cannot be relied on, if so; see founding.Tick.
	Listed func() (addresses []string, problem string)
	// Addresses are where members are, for clients.
	Addresses func() []*messages.Address
	// Moved is told where a member says that it is now.
	Moved func(node dynamo.NodeID, address string)
	// StoreDocument, StoreVote and StoreIntent make facts durable, in the order in
	// which they are called. Of the voter, StoreVote keeps all but the document.
	StoreDocument func(doc member.Document, done func(error))
	StoreVote     func(v member.Voter, done func(error))
	StoreIntent   func(id founding.ClusterID, done func(error))
	// Elect puts the id into the register outside, if there is one.
	Elect func(id founding.ClusterID, done func(won bool, founder dynamo.NodeID, err error))
}

// foundingRound is the time between two rounds of questions.
const foundingRound = 250 * time.Millisecond

// membershipActor holds the cluster document, changes it together with the other
// members, and spreads it. Before there is one it runs the founding machine.
type membershipActor struct {
	s       *Services
	self    *actor.PID
	machine *founding.Machine
	// offers are documents of other nodes that name this one.
	offers map[dynamo.NodeID]member.Document
	note   string
	// losing are the partitions whose loss is being proposed.
	losing map[dynamo.Partition]bool
	joining
	register
	gossip
}

// tick is the time for another round; stored and elected are the outcomes of
// effects; failed carries what prevented one.
type (
	tick   struct{ machine *founding.Machine } // of a machine that is gone: ignored
	stored struct {
		by  *membershipActor
		doc *member.Document // nil: the intent
		err error
	}
	elected struct {
		won     bool
		founder dynamo.NodeID
		err     error
	}
)

// behind: the node knows a version of the cluster document that is newer than the one
// in force here, as a request or the refusal of one has shown.
type behind struct {
	node    dynamo.NodeID
	version uint64
}

func newMembership(s *Services) *actor.Props {
	return actor.PropsFromProducer(func() actor.Actor { return &membershipActor{s: s} }, flat,
		actor.WithMailbox(rt.NewMailbox(rt.MailboxOptions{
			Shed: s.shed, Expired: s.expired, Failed: s.failed, TTL: messageTTL, Registry: s.Registry,
		})))
}

// Receive translates messages.
func (m *membershipActor) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		m.self = ctx.Self()
		m.start(ctx)
	case *tick:
		if msg.machine == m.machine {
			m.tick(ctx)
		}
	case *messages.IdentityRequest:
		m.s.answer(ctx.Sender(), ctx.Self(), m.identity())
	case *messages.IdentityReply:
		m.heard(ctx, msg)
	case *messages.RingRequest:
		m.s.answer(ctx.Sender(), ctx.Self(), m.ring(msg))
	case *stored:
		m.stored(ctx, msg)
	case *elected:
		m.elected(ctx, msg)
	case *actor.Stopping, *actor.Restarting:
		m.gossip.timer.Stop()
		m.end()
	default:
		if !m.decides(ctx) {
			m.gossips(ctx)
		}
	}
}

func (m *membershipActor) start(ctx actor.Context) {
	m.machine = founding.New(m.s.Founding.Config)
	m.offers = map[dynamo.NodeID]member.Document{}
	voter, found, err := m.s.Founding.Load()
	if err != nil {
		panic(err) // the store failed; the supervisor starts over
	}
	if found {
		m.machine.Step(founding.Stored{})
		m.belong(voter)
		m.enforce(ctx, voter.Document)
		return
	}
	m.tick(ctx)
}

// belong begins the node's part in deciding on documents, and in spreading them.
func (m *membershipActor) belong(v member.Voter) {
	v.Self, v.Store = m.s.Self, member.StoreID(m.s.Founding.Config.Self.Store)
	m.voter = &v
	m.startGossip()
}

func (m *membershipActor) tick(ctx actor.Context) {
	if m.machine.State() == founding.Done {
		return
	}
	var round founding.Tick
	if m.s.Founding.Listed != nil {
		round.Listed, round.Problem = m.s.Founding.Listed()
	}
	m.run(ctx, m.machine.Step(round))
	if note := m.machine.Note(); note != m.note {
		m.note = note
		m.tellNote()
		m.s.Log.Info("no cluster yet", slog.String("state", m.machine.State().String()), slog.String("why", note))
	}
	m.s.Wheel.Send(ctx.Self(), &tick{machine: m.machine}, foundingRound)
}

// tellNote tells health what this node waits for.
func (m *membershipActor) tellNote() {
	note := m.note
	if m.refusal != "" {
		note += ": " + m.refusal
	}
	m.s.foundingNote.Store(&note)
}

// run carries out effects in order.
func (m *membershipActor) run(ctx actor.Context, effects []founding.Effect) {
	self, root, f := ctx.Self(), m.s.System.Root, m.s.Founding
	for _, e := range effects {
		switch e := e.(type) {
		case founding.Ask:
			for _, peer := range f.Peers() {
				ctx.Request(on(peer, nameMembership), &messages.IdentityRequest{TimeoutMs: uint32(foundingRound.Milliseconds())})
			}
		case founding.StoreIntent:
			f.StoreIntent(e.ID, func(err error) { root.Send(self, &stored{by: m, err: err}) })
		case founding.Elect:
			f.Elect(e.ID, func(won bool, founder dynamo.NodeID, err error) { root.Send(self, &elected{won, founder, err}) })
		case founding.Found:
			m.found(ctx, e)
		case founding.Adopt:
			m.store(ctx, m.offers[e.From])
		}
	}
}

// found makes the first version of the document.
func (m *membershipActor) found(ctx actor.Context, e founding.Found) {
	f := member.Founding{
		ClusterID: member.ClusterID(e.ID), ClusterName: m.s.Founding.ClusterName,
		Partitions: m.s.Founding.Config.Self.Partitions, Buckets: m.s.Founding.Buckets, AutoJoin: m.s.Founding.AutoJoin,
	}
	for _, c := range e.Members {
		f.Members = append(f.Members, member.Member{
			ID: c.ID, Zone: c.Zone, Capacity: c.Capacity, Store: c.Store, Start: c.Start, Address: c.Address,
		})
	}
	doc, report, err := member.Found(f)
	if err != nil {
		panic(err) // the inputs were checked; the supervisor starts over
	}
	for _, w := range report.Warnings {
		m.s.Log.Warn("the ring of the new cluster", slog.String("warning", w.Text))
	}
	m.store(ctx, doc)
}

// store makes a document durable before it comes into force.
func (m *membershipActor) store(ctx actor.Context, doc member.Document) {
	self, root := ctx.Self(), m.s.System.Root
	m.s.Founding.StoreDocument(doc, func(err error) { root.Send(self, &stored{by: m, doc: &doc, err: err}) })
}

func (m *membershipActor) stored(ctx actor.Context, r *stored) {
	switch {
	case r.by != m: // of an instance before a restart, which has read the store since
	case r.err != nil:
		panic(r.err) // the store failed; the supervisor starts over
	case r.doc == nil:
		m.run(ctx, m.machine.Step(founding.IntentStored{}))
	case m.voter == nil:
		m.run(ctx, m.machine.Step(founding.Stored{}))
		m.s.Log.Info("in a cluster", slog.String("cluster", r.doc.String()), slog.String("id", r.doc.ClusterID.String()))
		m.belong(member.Voter{Document: *r.doc})
		m.enforce(ctx, *r.doc)
	default:
		if r.doc.Version == m.spreads {
			m.spread(ctx, *r.doc) // one that goes is still connected
		}
		m.enforce(ctx, *r.doc)
	}
}

func (m *membershipActor) elected(ctx actor.Context, r *elected) {
	if r.err != nil {
		m.run(ctx, m.machine.Step(founding.ElectionFailed{Reason: r.err.Error()}))
		return
	}
	m.run(ctx, m.machine.Step(founding.Elected{Won: r.won, Founder: r.founder}))
}

// enforce brings a durable document into force on this node.
func (m *membershipActor) enforce(ctx actor.Context, doc member.Document) {
	m.offers = nil
	if now := m.s.Document(); now != nil && now.Version > doc.Version {
		return // the actor has restarted, and what it had learned is on its way to the disk
	}
	m.tellForced(m.s.Document(), &doc)
	m.tellLost(m.s.Document(), &doc)
	m.s.enforce(doc)
	m.s.OnDocument(doc)
	ctx.Send(on(m.s.Self, nameVnodes), &document{doc: doc})
	ctx.Send(on(m.s.Self, nameCoordinator), &document{doc: doc})
	m.rows.Retain(&doc)
	voters := doc.Voters()
	maps.DeleteFunc(m.renewed, func(id dynamo.NodeID, _ time.Time) bool { return !slices.Contains(voters, id) })
	maps.DeleteFunc(m.contacted, func(id dynamo.NodeID, _ bool) bool { return !slices.Contains(voters, id) })
	m.factsChanged(ctx)
	m.tellWaiting(doc.Version)
}

// identity says who this node is and what it knows.
func (m *membershipActor) identity() *messages.IdentityReply {
	self := m.s.Founding.Config.Self
	out := &messages.IdentityReply{
		Node: string(self.ID), Store: self.Store[:], Start: self.Start, Zone: self.Zone, Capacity: uint32(self.Capacity),
		Address: self.Address, ClusterName: m.s.Founding.ClusterName, Founding: self.Founding, Partitions: uint32(self.Partitions),
	}
	if doc := m.s.Document(); doc != nil {
		out.Document = messages.FromDocument(*doc)
	}
	return out
}

// heard translates another node's identity to an event.
func (m *membershipActor) heard(ctx actor.Context, msg *messages.IdentityReply) {
	if m.machine.State() == founding.Done {
		return
	}
	who, doc, err := messages.ToIdentity(msg)
	if err != nil || who.ID != from(ctx) {
		m.s.Log.Warn("unusable identity", slog.String("from", string(from(ctx))), slog.Any("error", err))
		return
	}
	known := founding.NoDocument
	if doc != nil {
		known = m.named(*doc)
		m.offers[who.ID] = *doc
	}
	switch known {
	case founding.NamesOthers:
		m.ask(ctx, who.ID, *doc)
	case founding.NamesOurName:
		m.reclaim(ctx, who.ID, *doc)
	}
	m.run(ctx, m.machine.Step(founding.Answer{From: who, Known: known}))
}

// named says what a document of another node means to this one.
func (m *membershipActor) named(doc member.Document) founding.Known {
	self := m.s.Founding.Config.Self
	us, ok := doc.Member(self.ID)
	switch {
	case !ok:
		return founding.NamesOthers
	case us.Store != member.StoreID(self.Store) && us.Status != member.Gone:
		return founding.NamesOurName
	case us.Status == member.Gone:
		return founding.NamesOthers
	}
	return founding.NamesUs
}

// ring answers a client's poll.
func (m *membershipActor) ring(msg *messages.RingRequest) any {
	doc := m.s.Document()
	if doc == nil {
		return messages.Fail(messages.CodeNotReady, "%s is not in a cluster yet", m.s.Self)
	}
	out := &messages.RingReply{Addresses: m.s.Founding.Addresses()}
	if doc.Version > msg.GetVersion() {
		out.Document = messages.FromDocument(*doc)
	}
	return out
}

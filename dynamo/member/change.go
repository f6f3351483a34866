package member

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// Why a change is refused; each is wrapped with the facts and what to do.
var (
	// ErrUnknownMember: no member has the name, or it is gone.
	ErrUnknownMember = errors.New("no such member")
	// ErrAlreadyMember: the node is a member already.
	ErrAlreadyMember = errors.New("already a member")
	// ErrStagedAlready: another change of the node is staged.
	ErrStagedAlready = errors.New("another change of the node is staged")
	// ErrNothingStaged: there is nothing to plan or commit.
	ErrNothingStaged = errors.New("nothing is staged")
	// ErrLastMember: the change would leave nobody who holds data.
	ErrLastMember = errors.New("the last member cannot go")
	// ErrHoldsData: a node that is to take another one's place must be new.
	ErrHoldsData = errors.New("the node holds data")
	// ErrRemovedStore: the store belonged to a member that was removed.
	ErrRemovedStore = errors.New("the node was removed from the cluster")
	// ErrValue: a change is malformed, or a capacity, zone or address out of bounds.
	ErrValue = errors.New("bad value")
	// ErrPlanChanged: what is committed is not what was planned.
	ErrPlanChanged = errors.New("the cluster has changed since the plan was made")
	// ErrBucketExists: the bucket was created before.
	ErrBucketExists = errors.New("the bucket exists")
	// ErrNoBucket: the bucket was never created.
	ErrNoBucket = errors.New("no such bucket")
)

// ChangeKind says what a staged change does.
type ChangeKind uint8

const (
	// Join makes a node a member.
	Join ChangeKind = iota
	// Leave has a member hand over what it holds and go.
	Leave
	// Remove gives up a member that is dead; others make up for what it held.
	Remove
	// Replace puts a node that is staged to join in a member's places; the member
	// leaves, or, when Dead, is removed.
	Replace
	// SetCapacity and SetZone change what claims go by.
	SetCapacity
	// SetZone changes the zone.
	SetZone
)

var changeNames = [...]string{"join", "leave", "remove", "replace", "set-capacity", "set-zone"}

// String is the change's word in commands.
func (k ChangeKind) String() string {
	if int(k) < len(changeNames) {
		return changeNames[k]
	}
	return fmt.Sprintf("unknown(%d)", uint8(k))
}

// Change is one staged change of the members.
type Change struct {
	Kind ChangeKind
	// Node is whom it is about.
	Node dynamo.NodeID
	// Member is the node that joins, whole; its status counts for nothing.
	Member Member
	// With is the node that takes Node's places (Replace); Dead: Node is removed.
	With dynamo.NodeID
	Dead bool
	// Capacity and Zone are the new ones.
	Capacity int
	Zone     string
}

// String says the change as the command does.
func (c Change) String() string {
	s := c.Kind.String() + " " + string(c.Node)
	switch c.Kind {
	case Replace:
		s += " " + string(c.With)
		if c.Dead {
			s += " --dead"
		}
	case SetCapacity:
		s += fmt.Sprintf(" %d", c.Capacity)
	case SetZone:
		s += " " + c.Zone
	}
	return s
}

// sole reports whether a node may have only one change of the kind: all but those
// of capacity and zone.
func (k ChangeKind) sole() bool { return k != SetCapacity && k != SetZone }

// check reports what is wrong with a change whatever the members are.
func (c Change) check() error {
	if err := c.Node.Validate(); err != nil {
		return err
	}
	capacity, zone := 1, c.Zone
	switch m := c.Member; c.Kind {
	case Join:
		if m.ID != c.Node || m.Store.IsZero() || len(m.Address) > MaxAddress {
			return fmt.Errorf("%s joins as %q with store %v and an address of %d bytes, at most %d", c.Node, m.ID, m.Store, len(m.Address), MaxAddress)
		}
		capacity, zone = m.Capacity, m.Zone
	case Replace:
		if err := c.With.Validate(); err != nil {
			return err
		}
	case SetCapacity:
		capacity = c.Capacity
	case Leave, Remove, SetZone:
	default:
		return fmt.Errorf("change %v", c.Kind)
	}
	if capacity < 1 || capacity > ring.MaxCapacity {
		return fmt.Errorf("capacity %d, allowed are 1 to %d", capacity, ring.MaxCapacity)
	}
	if len(zone) > dynamo.MaxNodeName {
		return fmt.Errorf("a zone of %d bytes, at most %d", len(zone), dynamo.MaxNodeName)
	}
	return nil
}

// excludes reports whether both changes cannot be made together.
func (c Change) excludes(o Change) bool {
	return o.Kind.sole() && (o.Node == c.Node || o.With == c.Node || c.With != "" && c.With == o.With)
}

// successor is a copy to change, with the next version. What was accepted and has a source by
// now counts no more: what is lost from here on is another loss.
func (d Document) successor() Document {
	d.Version++
	d.Members = slices.Clone(d.Members)
	d.Staged = slices.Clone(d.Staged)
	d.Buckets = slices.Clone(d.Buckets)
	d.Movement.Switched = slices.Clone(d.Movement.Switched)
	d.Movement.Filling = slices.Clone(d.Movement.Filling)
	d.unaccept()
	return d
}

// Stage adds a change to those that will be committed together. Errors are those
// above.
func (d Document) Stage(c Change) (Document, error) {
	if err := c.check(); err != nil {
		return d, fmt.Errorf("%w: %w", ErrValue, err)
	}
	out := d.successor()
	if !c.Kind.sole() {
		out.Staged = slices.DeleteFunc(out.Staged, func(o Change) bool { return o.Kind == c.Kind && o.Node == c.Node })
	} else if i := slices.IndexFunc(out.Staged, c.excludes); i >= 0 {
		return d, fmt.Errorf("%w: %s; clear what is staged first", ErrStagedAlready, out.Staged[i])
	}
	out.Staged = append(out.Staged, c)
	if _, err := d.outdated(); err != nil {
		return d, err
	}
	if _, err := out.apply(); err != nil {
		return d, err
	}
	return out, nil
}

// outdated is apply, with what to do when changes that were possible when they were
// staged are so no more: for example because a member that was leaving has gone.
func (d Document) outdated() (Document, error) {
	out, err := d.apply()
	if err != nil {
		return d, fmt.Errorf("%w; clear what is staged, and stage it anew", err)
	}
	return out, nil
}

// Clear drops all staged changes.
func (d Document) Clear() (Document, error) {
	if len(d.Staged) == 0 {
		return d, ErrNothingStaged
	}
	out := d.successor()
	out.Staged = nil
	return out, nil
}

// apply returns the document with the staged changes of the members made, but no
// ring claimed. Joins come first, so that others may refer to them.
func (d Document) apply() (Document, error) {
	out := d.successor()
	out.Version, out.Staged = d.Version, nil
	changes := slices.Clone(d.Staged)
	slices.SortStableFunc(changes, func(a, b Change) int { return cmp.Compare(min(a.Kind, 1), min(b.Kind, 1)) })
	for _, c := range changes {
		if err := out.change(c); err != nil {
			return d, err
		}
	}
	if len(out.Claimants()) == 0 {
		return d, fmt.Errorf("%w: nobody would hold its data", ErrLastMember)
	}
	return out, nil
}

// change makes one change of the members.
func (d *Document) change(c Change) error {
	if c.Kind == Join {
		return d.join(c.Member)
	}
	i, ok := d.index(c.Node)
	if !ok || d.Members[i].Status == Gone {
		return fmt.Errorf("%w: %s", ErrUnknownMember, c.Node)
	}
	m := &d.Members[i]
	switch c.Kind {
	case Leave:
		if m.Status == Leaving {
			return fmt.Errorf("%w: %s is leaving", ErrStagedAlready, m.ID)
		}
		m.Status = Leaving
	case Remove:
		m.Status, m.Removed = Leaving, true
	case Replace:
		with, ok := d.Member(c.With)
		if !ok || with.Status == Gone {
			return fmt.Errorf("%w: %s; the node that replaces %s must be staged to join", ErrUnknownMember, c.With, c.Node)
		}
		if with.Status != Joining || d.inRings(c.With) || c.With == c.Node {
			return fmt.Errorf("%w: %s is a member that has partitions; %s can be replaced only by a node that is new", ErrHoldsData, c.With, c.Node)
		}
		m.Status, m.Removed = Leaving, m.Removed || c.Dead
	case SetCapacity:
		m.Capacity = c.Capacity
	case SetZone:
		m.Zone = c.Zone
	}
	return nil
}

// join makes a node a member, if its name and store may be one.
func (d *Document) join(m Member) error {
	m.Status, m.Removed = Joining, false
	for _, o := range d.Members {
		if o.Store == m.Store && o.Status == Gone {
			return fmt.Errorf("%w as %s; reset its data directory to let it join as a new one", ErrRemovedStore, o.ID)
		}
		if o.Store == m.Store && o.ID != m.ID {
			return fmt.Errorf("%w: %s shows the store of %s; a data directory must not be copied", ErrAlreadyMember, m.ID, o.ID)
		}
	}
	i, taken := d.index(m.ID)
	if !taken {
		d.Members = slices.Insert(d.Members, i, m)
		return nil
	}
	if d.Members[i].Status != Gone {
		return fmt.Errorf("%w: %s", ErrAlreadyMember, m.ID)
	}
	d.Members[i] = m
	return nil
}

func (d *Document) index(id dynamo.NodeID) (int, bool) {
	return slices.BinarySearchFunc(d.Members, id, func(m Member, id dynamo.NodeID) int { return cmp.Compare(m.ID, id) })
}

// inRings reports whether a node has a place in a ring.
func (d *Document) inRings(id dynamo.NodeID) bool {
	return d.Settled.Has(id) || d.Next != nil && d.Next.Has(id)
}

// Plan is what a commit of the staged changes would do.
type Plan struct {
	// Document is the one that the commit makes.
	Document Document
	// From and To are the rings before and after; equal when only members change
	// or the movement under way has to end first (Queued).
	From, To ring.Ring
	// Moves is how many (partition, node) pairs of the first ring.Focus places are
	// new, LeastMoves a number that no balanced ring can do with less.
	Moves, LeastMoves int
	Warnings          []string
	Queued            bool
}

// Plan computes what Commit would do, and changes nothing.
func (d Document) Plan() (Plan, error) {
	if len(d.Staged) == 0 {
		return Plan{}, ErrNothingStaged
	}
	out, err := d.outdated()
	if err != nil {
		return Plan{}, err
	}
	out.Version = d.Version + 1
	if d.Next != nil {
		out.Movement.Queued = true
		out.waive()
		return Plan{Document: out, From: d.Settled, To: *d.Next, Queued: true, Warnings: []string{
			"a movement is under way: the ring changes again when it is over",
		}}, out.Validate()
	}
	p, err := out.claim(d.replaced())
	if err != nil {
		return Plan{}, err
	}
	p.From = d.Settled
	return p, p.Document.Validate()
}

// Commit makes the staged changes. version is that of the document that the plan
// was made from.
func (d Document) Commit(version uint64) (Document, error) {
	if version != d.Version {
		return d, fmt.Errorf("%w: planned at version %d, now it is %d; look at the plan again", ErrPlanChanged, version, d.Version)
	}
	p, err := d.Plan()
	return p.Document, err
}

// replaced says whose places the nodes of staged replacements take.
func (d *Document) replaced() map[dynamo.NodeID]dynamo.NodeID {
	out := map[dynamo.NodeID]dynamo.NodeID{}
	for _, c := range d.Staged {
		if c.Kind == Replace {
			out[c.Node] = c.With
		}
	}
	return out
}

// claim computes the ring for the members as they are now and announces it, if it
// differs. replaced names nodes whose places others take.
func (d Document) claim(replaced map[dynamo.NodeID]dynamo.NodeID) (Plan, error) {
	base := d.Settled.Renamed(replaced)
	next, report, err := ring.Claim(base, d.Claimants(), d.Settled.Partitions(), d.Depth)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{To: d.Settled, LeastMoves: report.LeastMoves}
	for _, w := range report.Warnings {
		p.Warnings = append(p.Warnings, w.Text)
	}
	d.Movement.Queued = false
	if !next.SameLists(d.Settled) {
		next = next.WithVersion(d.Settled.Version() + 1)
		p.To, p.Moves = next, d.Settled.Moves(next, ring.Focus)
		d.announce(next)
	}
	d.promote()
	p.Document = d
	return p, nil
}

// announce makes next the ring where data should be.
func (d *Document) announce(next ring.Ring) {
	d.Next = &next
	d.Movement.Announced, d.Movement.Joint, d.Movement.Switched = d.Version, 0, nil
	for q := range next.Partitions() {
		p := dynamo.Partition(q)
		for _, node := range next.Replicas(p) {
			if _, lacks := d.Filling(p, node); lacks {
				continue
			}
			if from, to := d.FillRange(Fill{Partition: p, Node: node}); from <= to {
				i, _ := slices.BinarySearchFunc(d.Movement.Filling, Fill{Partition: p, Node: node}, compareFills)
				d.Movement.Filling = slices.Insert(d.Movement.Filling, i, Fill{Partition: p, Node: node})
			}
		}
	}
}

// CreateBucket adds a bucket, or changes one that exists when change is true: then
// n and conflicts must stay (bucket.ErrFixed).
func (d Document) CreateBucket(b Bucket, change bool) (Document, error) {
	if err := b.Validate(); err != nil {
		return d, fmt.Errorf("%w: %w", ErrBucket, err)
	}
	out := d.successor()
	i, exists := slices.BinarySearchFunc(out.Buckets, b.Name, func(x Bucket, name string) int { return cmp.Compare(x.Name, name) })
	switch {
	case change && !exists:
		return d, fmt.Errorf("%w: %q", ErrNoBucket, b.Name)
	case !change && exists:
		return d, fmt.Errorf("%w: %q", ErrBucketExists, b.Name)
	case !exists:
		out.neverLost(b.Properties.Quorum.N)
		out.Buckets = slices.Insert(out.Buckets, i, b)
	default:
		if err := out.Buckets[i].Properties.CheckChange(b.Properties); err != nil {
			return d, fmt.Errorf("%q: %w", b.Name, err)
		}
		out.Buckets[i] = b
	}
	return out, out.Validate()
}

// StageJoin stages a node that asks for it: again with the same facts changes
// nothing, and a node that was reset since takes the place of what it was. In a
// cluster that was founded with AutoJoin the join is committed at once, by itself.
func (d Document) StageJoin(c Change) (Document, error) {
	if slices.Contains(d.Staged, c) {
		return d, nil
	}
	base := d
	base.Staged = slices.DeleteFunc(slices.Clone(d.Staged), func(o Change) bool { return o.Kind == Join && o.Node == c.Node })
	out, err := base.Stage(c)
	if err != nil || !d.AutoJoin {
		return out, err
	}
	alone := d
	alone.Staged = []Change{c}
	p, err := alone.Plan()
	p.Document.Staged = base.Staged
	return p.Document, err
}

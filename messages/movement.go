package messages

import (
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// fromMovement converts the movement of a document; nil when nothing moves.
func fromMovement(m member.Movement) *Movement {
	out := &Movement{Announced: m.Announced, Joint: m.Joint, Queued: m.Queued}
	for _, s := range m.Switched {
		out.Switched = append(out.Switched, &Switch{Partition: uint32(s.Partition), At: s.At, Done: s.Done})
	}
	for _, f := range m.Filling {
		out.Filling = append(out.Filling, &Fill{Partition: uint32(f.Partition), Node: string(f.Node), Whole: f.Whole, Since: f.Since, Emptied: f.Emptied, Accepted: f.Accepted})
	}
	if out.Announced == 0 && !out.Queued && len(out.Filling) == 0 {
		return nil
	}
	return out
}

func toMovement(m *Movement) (member.Movement, error) {
	out := member.Movement{Announced: m.GetAnnounced(), Joint: m.GetJoint(), Queued: m.GetQueued()}
	if len(m.GetSwitched()) > ring.MaxPartitions || len(m.GetFilling()) > ring.MaxPartitions*ring.MaxDepth {
		return out, fmt.Errorf("%w: %d partitions switched, %d fills", ErrBounds, len(m.GetSwitched()), len(m.GetFilling()))
	}
	for _, s := range m.GetSwitched() {
		out.Switched = append(out.Switched, member.Switch{Partition: dynamo.Partition(s.GetPartition()), At: s.GetAt(), Done: s.GetDone()})
	}
	for _, f := range m.GetFilling() {
		out.Filling = append(out.Filling, member.Fill{
			Partition: dynamo.Partition(f.GetPartition()), Node: dynamo.NodeID(f.GetNode()), Whole: f.GetWhole(), Since: f.GetSince(),
			Emptied: f.GetEmptied(), Accepted: f.GetAccepted(),
		})
	}
	return out, nil
}

func fromStaged(all []member.Change) []*Change {
	var out []*Change
	for _, c := range all {
		out = append(out, FromChange(c))
	}
	return out
}

func toStaged(all []*Change) ([]member.Change, error) {
	if len(all) > member.MaxMembers {
		return nil, fmt.Errorf("%w: %d staged changes", ErrBounds, len(all))
	}
	var out []member.Change
	for _, m := range all {
		c, err := ToChange(m)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// FromChange converts a change of the members for the wire and the store.
func FromChange(c member.Change) *Change {
	out := &Change{
		Kind: uint32(c.Kind), Node: string(c.Node), With: string(c.With), Dead: c.Dead, Capacity: uint32(c.Capacity), Zone: c.Zone,
	}
	if c.Kind == member.Join {
		out.Member = fromMember(c.Member)
	}
	return out
}

// ToChange checks and converts a change of the members. Whether it can be made is
// for member.Document.Stage to say.
func ToChange(m *Change) (member.Change, error) {
	if m.GetKind() > uint32(member.SetZone) || m.GetCapacity() > ring.MaxCapacity {
		return member.Change{}, fmt.Errorf("%w: change %d with capacity %d", ErrBounds, m.GetKind(), m.GetCapacity())
	}
	c := member.Change{
		Kind: member.ChangeKind(m.GetKind()), Node: dynamo.NodeID(m.GetNode()), With: dynamo.NodeID(m.GetWith()),
		Dead: m.GetDead(), Capacity: int(m.GetCapacity()), Zone: m.GetZone(),
	}
	if err := c.Node.Validate(); err != nil {
		return c, fmt.Errorf("%w: %w", ErrBounds, err)
	}
	if c.Kind != member.Join {
		return c, nil
	}
	var err error
	if c.Member, err = toMember(m.GetMember()); err == nil && c.Member.ID != c.Node {
		err = fmt.Errorf("%w: %s joins as %s", ErrBounds, c.Member.ID, c.Node)
	}
	return c, err
}

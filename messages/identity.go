package messages

import (
	"fmt"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/ring"
)

// ToIdentity checks and converts what a node says of itself; doc is nil when it
// has no cluster document.
func ToIdentity(m *IdentityReply) (who founding.Candidate, doc *member.Document, err error) {
	who = founding.Candidate{
		ID: dynamo.NodeID(m.GetNode()), Start: m.GetStart(), Zone: m.GetZone(), Capacity: int(m.GetCapacity()),
		Address: m.GetAddress(), Founding: m.GetFounding(), Partitions: int(m.GetPartitions()),
	}
	if err := who.ID.Validate(); err != nil {
		return who, nil, err
	}
	if !toID(who.Store[:], m.GetStore()) {
		return who, nil, fmt.Errorf("%w: store id of %d bytes", ErrBounds, len(m.GetStore()))
	}
	if m.GetCapacity() < 1 || m.GetCapacity() > ring.MaxCapacity || len(m.GetAddress()) > member.MaxAddress ||
		len(m.GetZone()) > dynamo.MaxNodeName {
		return who, nil, fmt.Errorf("%w: identity of %q", ErrBounds, who.ID)
	}
	if m.GetDocument() == nil {
		return who, nil, nil
	}
	d, err := ToDocument(m.GetDocument())
	if err != nil {
		return who, nil, err
	}
	return who, &d, nil
}

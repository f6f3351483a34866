package actors

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// forcing is the change that removes members by force (member.Document.Force).
func (m *membershipActor) forcing(r *messages.ClusterRequest) (*change, error) {
	lost, err := messages.ToNames(r.GetLost())
	return &change{what: fmt.Sprintf("remove %v by force", lost), lost: lost, make: func(d member.Document) (member.Document, error) {
		if slices.Contains(lost, m.s.Self) {
			return d, fmt.Errorf("%w: %s is asked and named as lost; ask a member that is left", member.ErrValue, m.s.Self)
		}
		out, err := d.Force(lost, 0)
		if err != nil || out.Version == d.Version {
			return out, err
		}
		for _, node := range lost {
			if why := m.alive(node); why != "" {
				return d, fmt.Errorf("%w: %s", member.ErrOpposed, why)
			}
		}
		for _, node := range out.Voters() {
			if !m.s.reachable(node) {
				return d, fmt.Errorf("%w: without %s", member.ErrNotAll, node)
			}
		}
		return out, nil
	}}, err
}

// hearing is how long a node that starts may take to reach the members that live, or to
// hear of them: until then it knows of nobody that he is lost.
const hearing = 5 * time.Second

// alive says how this node knows that a member is not lost; empty if it does not.
func (m *membershipActor) alive(node dynamo.NodeID) string {
	switch {
	case m.s.reachable(node):
		return fmt.Sprintf("%s answers %s", node, m.s.Self)
	case time.Since(m.renewed[node]) < renewedLately:
		return fmt.Sprintf("%s has heard of %s just now", m.s.Self, node)
	case time.Since(m.began) < cmp.Or(m.s.hearing, hearing):
		return fmt.Sprintf("%s has just started, and may not have reached %s yet; try again in some seconds", m.s.Self, node)
	}
	return ""
}

// oppose is this node's answer to a ballot that gives up a member that is there; nil
// if there is none.
func (m *membershipActor) oppose(p *member.Prepare) member.Reply {
	for _, node := range p.Lost {
		if why := m.alive(node); why != "" {
			return member.Opposed{Why: why}
		}
	}
	return nil
}

// tellForced says it loudly when a forced version comes into force.
func (m *membershipActor) tellForced(before *member.Document, doc *member.Document) {
	if before == nil || len(doc.Forced) == 0 {
		return
	}
	if f := doc.Forced[len(doc.Forced)-1]; f.Version > before.Version {
		m.s.Log.Warn("members were removed by force: what only they had is lost, and so are changes of the cluster that only they knew",
			slog.Any("lost", f.Lost), slog.Uint64("at", f.At), slog.Uint64("version", f.Version))
	}
}

package actors

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo/member"
)

// commit is a commit that waits until those that it makes members are connected with
// this node. It holds up all that moves if one of them has gone since it was staged.
type commit struct {
	change  *change
	version uint64
	until   time.Time
}

// reachTime is how long a commit waits for a link to a node that is staged to join: it
// may be linked only with the member that it asked for that.
const reachTime = 2 * time.Second

var errUnreached = errors.New("nothing was changed")

// commit proposes a commit, or has it wait.
func (m *membershipActor) commit(ctx actor.Context, c *commit) {
	lacking := m.unreached(c.version)
	switch {
	case len(lacking) == 0 || m.s.quarantined() != "": // since it was asked for: then it is refused
		m.propose(ctx, c.change)
	case !time.Now().Before(c.until):
		x := lacking[0]
		c.change.done(m.voter.Document, fmt.Errorf("%w: %s, which is staged to join, cannot be reached from %s at %s; start it, or drop it with node cluster clear",
			errUnreached, x.ID, m.s.Self, x.Address))
	case len(m.commits) >= maxChanges:
		c.change.done(m.voter.Document, fmt.Errorf("%w: %d commits wait", errNotBegun, maxChanges))
	default:
		for _, x := range lacking {
			m.s.Founding.Moved(x.ID, x.Address)
		}
		m.commits = append(m.commits, c)
	}
}

// unreached are the nodes that a commit of the version makes members and that are not
// connected. Of another version than the one in force there are none: it is refused.
func (m *membershipActor) unreached(version uint64) []member.Member {
	var out []member.Member
	if d := &m.voter.Document; d.Version == version {
		peers := m.s.Founding.Peers()
		for _, c := range d.Staged {
			if c.Kind == member.Join && !slices.Contains(peers, c.Node) {
				out = append(out, c.Member)
			}
		}
	}
	return out
}

// commitAgain looks whether commits that wait can go on.
func (m *membershipActor) commitAgain(ctx actor.Context) {
	all := m.commits
	m.commits = nil
	for _, c := range all {
		m.commit(ctx, c)
	}
}

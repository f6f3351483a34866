package request

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// PutConfig is the plan of one put. A delete is a put of a tombstone.
type PutConfig struct {
	Key       dynamo.Key
	Partition dynamo.Partition
	// Params are the bucket's numbers with the request's own; N, W and PW count.
	Params quorum.Params
	// Durability says which confirmations mean that a disk has the write.
	Durability dynamo.Durability
	// Candidates are where to write, best first, on distinct nodes: the first N
	// at once, each further one when one of them fails (ring.Candidates).
	Candidates []dynamo.Replica
	// Also is where to write besides when the partition moves, in the same manner;
	// W and PW hold for each of the two lists. A node on both has the same task in
	// both, is asked once and counts in both (ring.Joint).
	Also []dynamo.Replica
	// Local is the node that runs this machine; it is one of the first N of a list.
	Local dynamo.NodeID
	// Resume, if set, is what an earlier plan of the same write has prepared: its
	// record goes to the replicas of this one. No dot is made, so that nothing has to
	// recognise the write, and Local counts for nothing.
	Resume *Prepared
}

// Put coordinates one write. It is made by NewPut, and belongs to one
// goroutine.
type Put struct {
	cfg    PutConfig
	state  State
	places places
	// prepared is what the local vnode made.
	prepared Prepared
	// lost: the quorum cannot be met any more; those who were asked get a moment
	// to say how far the write went.
	lost    bool
	effects []Effect
}

// NewPut plans a write. It fails with ErrParams on impossible numbers, with
// ErrTwoTasks on impossible lists, and with ErrNotOnList when this node may not
// coordinate the key: then the request is to be passed on to one that may.
func NewPut(cfg PutConfig) (*Put, error) {
	if err := checkParams(cfg.Params); err != nil {
		return nil, err
	}
	p := &Put{cfg: cfg, places: newPlaces(cfg.Candidates, cfg.Params.N, cfg.Params.W, cfg.Params.PW)}
	if len(cfg.Also) > 0 {
		if err := p.places.join(cfg.Also, cfg.Params.N, cfg.Params.W, cfg.Params.PW); err != nil {
			return nil, err
		}
	}
	if cfg.Resume != nil {
		p.cfg.Local, p.prepared = "", *cfg.Resume
		return p, nil
	}
	if !slices.ContainsFunc(p.places.list[:p.places.once], func(x place) bool { return x.replica.Node == cfg.Local }) {
		return nil, ErrNotOnList
	}
	return p, nil
}

// State says what the write awaits.
func (p *Put) State() State { return p.state }

// Describe is the write's state for the console.
func (p *Put) Describe() Description { return p.places.describe(p.state, p.cfg.Key) }

// Silent lists the nodes that were asked and have said nothing so far.
func (p *Put) Silent() []dynamo.NodeID { return p.places.silent() }

// Start begins the write (§ 4.5, step 1): the local vnode is to make the dot.
// When too few candidates are known the write is not attempted. The effects are
// valid until the next call of Step.
func (p *Put) Start() []Effect {
	if p.state != Ready {
		return nil
	}
	if p.places.state() == quorum.Lost {
		return p.finish(p.places.shortfall(p.cfg.Resume != nil))
	}
	if p.cfg.Resume != nil {
		return p.replicate()
	}
	p.state = AwaitingDot
	x := p.places.find(p.cfg.Local)
	x.stage, x.sync = asked, p.cfg.Durability != dynamo.DurabilityNone
	p.emit(Coordinate{x.replica, x.sync})
	p.emit(Arm{AwaitingDot, UntilRequestEnds})
	return p.effects
}

// Step advances the write by one event and returns what to do, in order. The
// time is not needed; the argument is there so that both machines are run
// alike. The effects are valid until the next call of Step.
func (p *Put) Step(_ dynamo.Timestamp, e Event) []Effect {
	clear(p.effects)
	p.effects = p.effects[:0]
	switch p.state {
	case AwaitingDot:
		return p.awaitDot(e)
	case AwaitingQuorum:
		return p.awaitQuorum(e)
	case AwaitingStragglers:
		return p.awaitStragglers(e)
	}
	return nil // Done: late confirmations change nothing
}

// awaitDot waits for the local vnode. Until it prepared the write nothing was
// sent to anybody, so a failure means that nothing was attempted, unless the
// vnode fell silent or crashed.
func (p *Put) awaitDot(e Event) []Effect {
	switch e := e.(type) {
	case Prepared:
		p.prepared = e
		return p.replicate()
	case Durable:
		// The commit's end may overtake the word that it began.
		if e.From == p.cfg.Local {
			p.confirm(e.From)
		}
		return nil
	case Refused:
		return p.finish(Unattempted{Err: e.Err, Earlier: e.Unknown})
	case Fail:
		if e.From != p.cfg.Local || !p.places.fail(p.places.find(e.From), e.Reason) {
			return nil
		}
		switch e.Reason {
		case TimedOut, Crashed:
			return p.finish(Unknown{})
		case Stale:
			return p.finish(Outdated{Node: e.From})
		}
		return p.finish(p.places.shortfall(false))
	case Deadline:
		if e.For == AwaitingDot {
			return p.finish(Unknown{})
		}
	}
	return nil
}

// replicate sends the record to the other replicas of the first N, while the
// local vnode makes it durable.
func (p *Put) replicate() []Effect {
	p.state = AwaitingQuorum
	for i := range p.places.once {
		if p.places.list[i].replica.Node != p.cfg.Local {
			// Without a local disk another one has to be the one.
			one := p.cfg.Resume != nil && i == 0 && p.cfg.Durability == dynamo.DurabilityOne
			p.send(p.places.take(nil), one || p.cfg.Durability == dynamo.DurabilityAll)
		}
	}
	p.emit(Arm{AwaitingQuorum, UntilRequestEnds})
	return p.judge()
}

// awaitQuorum waits for W confirmations, PW of them from primaries. A replica
// that fails is replaced by the next candidate, which keeps a hint (§ 4.6).
func (p *Put) awaitQuorum(e Event) []Effect {
	switch e := e.(type) {
	case Durable:
		if !p.confirm(e.From) {
			return nil
		}
	case Fail:
		x := p.places.find(e.From)
		if !p.places.fail(x, e.Reason) {
			return nil
		}
		if e.Reason == Stale {
			return p.finish(Outdated{Node: e.From, Attempted: true})
		}
		if y := p.places.take(x); y != nil {
			// With durability one the disk that failed is to be made up for.
			p.send(y, x.sync)
		}
	case Deadline:
		if e.For != AwaitingQuorum {
			return nil
		}
		p.places.giveUp()
	default:
		return nil
	}
	return p.judge()
}

// awaitStragglers counts late confirmations until none is awaited.
func (p *Put) awaitStragglers(e Event) []Effect {
	switch e := e.(type) {
	case Durable:
		p.confirm(e.From)
	case Fail:
		p.places.fail(p.places.find(e.From), e.Reason)
	case Deadline:
		if e.For == AwaitingStragglers {
			return p.stop()
		}
		return nil
	default:
		return nil
	}
	if p.places.pending() == 0 {
		return p.stop()
	}
	return nil
}

// confirm counts a confirmation and reports whether it is news. One that comes
// after its node was given up counts too: the write is there.
func (p *Put) confirm(node dynamo.NodeID) bool {
	x := p.places.find(node)
	if x == nil || x.stage != asked && x.stage != failed {
		return false
	}
	x.stage, x.reason = answered, NoReason
	p.places.count(x, (*quorum.Tally).Answer)
	return true
}

// judge replies when the quorum is met, or can no longer be and all have
// answered who soon will, so that the error says how many hold the write. What
// was written stays written: it is never rolled back.
func (p *Put) judge() []Effect {
	switch p.places.state() {
	case quorum.Met:
		p.emit(Reply{Written{
			Record: p.prepared.Record, Dot: p.prepared.Dot,
			Replicas: p.places.answered(), Known: p.prepared.Known,
		}})
		if p.places.pending() == 0 {
			return p.stop()
		}
		p.state = AwaitingStragglers
		p.emit(Arm{AwaitingStragglers, Linger})
	case quorum.Lost:
		if p.places.pending() == 0 {
			return p.finish(p.places.shortfall(true))
		}
		if !p.lost {
			p.lost = true
			p.emit(Arm{AwaitingQuorum, Linger})
		}
	}
	return p.effects
}

func (p *Put) send(x *place, sync bool) {
	x.sync = sync
	p.emit(Replicate{x.replica, p.prepared.Record, sync})
}

// finish replies and ends.
func (p *Put) finish(r Result) []Effect {
	p.emit(Reply{r})
	return p.stop()
}

func (p *Put) stop() []Effect {
	if p.state == AwaitingQuorum || p.state == AwaitingStragglers {
		p.hint()
	}
	p.state = Done
	p.emit(Stop{})
	return p.effects
}

// hint remembers the primaries for which nobody confirmed what was written,
// neither they nor a fallback that keeps it for them (§ 4.6). The local vnode keeps
// that in mind; it has the record only if it has made it in this plan.
func (p *Put) hint() {
	if p.cfg.Resume != nil {
		return
	}
	for i := range p.places.list {
		owner := p.lacking(&p.places.list[i])
		again := slices.ContainsFunc(p.places.list[:i], func(y place) bool { return p.lacking(&y) == owner })
		if owner != "" && !again {
			p.emit(KeepHint{owner})
		}
	}
}

// lacking is the primary whose copy another node was asked to keep, itself or in
// its place, and that nobody keeps; empty if there is none.
func (p *Put) lacking(x *place) dynamo.NodeID {
	if x.stage == spare || x.stage == answered || x.replica.Node == p.cfg.Local {
		return ""
	}
	primary := owner(x.replica)
	if slices.ContainsFunc(p.places.list, func(y place) bool { return y.stage == answered && owner(y.replica) == primary }) {
		return ""
	}
	return primary
}

func (p *Put) emit(e Effect) { p.effects = append(p.effects, e) }

package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

const (
	// dropPause is how long a drop rests that failed.
	dropPause = 200 * time.Millisecond
	// scanned is how likely a damaged partition is read as a whole, each time that a node looks
	// around.
	scanned = 0.02
)

// loss is a vnode's part in mending damage: what cannot be read is not mended in place. The replica
// is suspect, then lost, then what can be read of it is put back under a new incarnation and the rest filled by
// the others.
type loss struct {
	vnode.Loss
	// told: the suspicion is durable. kept: nobody else has the data, so that it is not given up.
	told, kept bool
	// interrupted: what was copied aside is to be put back. dropping: that is under way.
	interrupted, dropping bool
	// drops counts the drops, held is set from one until what was kept is back.
	drops int
	held  bool
}

// loadLoss reads what the vnode remembers of damage, and whether it was interrupted while that
// was mended.
func (v *vnodeShell) loadLoss() {
	v.loss.Loss, v.loss.told, v.loss.kept = vnode.Loss{}, false, false
	store := v.n.disk.volatile
	if b, found := store[string(vnode.LossKey(v.partition))]; found {
		var err error
		if v.loss.Loss, err = vnode.DecodeLoss(b); err != nil {
			v.n.c.fail("I8", "what partition %d on %s remembers of damage: %v", v.partition, v.n.id, err)
		}
	}
	v.loss.told = v.loss.Suspect > 0
	v.loss.interrupted = len(v.n.stored(vnode.SalvageRange(v.partition))) > 0
}

// stored are the keys of a range that reads see, sorted.
func (n *node) stored(lower, upper []byte) (keys []string) {
	for key := range n.disk.volatile {
		if key >= string(lower) && key < string(upper) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// isLost reports whether the vnode has to drop what it has before it may serve anything.
func (v *vnodeShell) isLost() bool {
	return v.lostIn() > v.loss.Dropped || v.n.c.mutation == dropAlone && v.loss.Suspect > 0 && v.loss.told
}

// lostIn is the version in which the document in force says that the vnode's replica was lost.
func (v *vnodeShell) lostIn() uint64 {
	if v.n.inForce == nil || !v.n.c.plan.loses() {
		return 0
	}
	f, _ := v.n.inForce.Filling(v.partition, v.n.id)
	return f.Since
}

// doubted reports whether the replica will be given up, so that it proves nothing.
func (v *vnodeShell) doubted() bool { return v.loss.Suspect > 0 && !v.loss.kept }

// refuses reports whether the vnode must not serve a request because of damage, and answers it
// then. plan is the version of the document that it was planned with.
func (v *vnodeShell) refuses(plan uint64, from pid) bool {
	if !v.isLost() && (v.loss.Suspect == 0 || v.n.inForce == nil || plan <= v.n.inForce.Version) {
		return false
	}
	v.n.behind(plan, from.endpoint)
	v.n.tell(from, failure{codeNotReady})
	return true
}

// doubtful reports whether nobody may rely on what the vnode has, and answers then.
func (v *vnodeShell) doubtful(from pid) bool {
	if !v.isLost() && !v.doubted() {
		return false
	}
	v.n.tell(from, failure{codeNotReady})
	return true
}

// cannotRead reports whether one of the keys is damaged, and answers then.
func (v *vnodeShell) cannotRead(keys []int, from pid) bool {
	if !slices.ContainsFunc(keys, func(i int) bool { return v.n.holed(&v.n.c.keys[i]) }) {
		return false
	}
	v.met(errHole)
	v.n.tell(from, failure{codeStorage})
	return true
}

// watch is for who reads objects later on: whole reports whether they lay here all the time.
func (v *vnodeShell) watch() (whole func() bool) {
	before := v.loss.drops
	return func() bool { return !v.loss.held && v.loss.drops == before }
}

// met tells the vnode of damage among its objects, if that is what an error says.
func (v *vnodeShell) met(err error) {
	if errors.Is(err, errHole) {
		v.n.after(0, v.onDamage)
	}
}

// onDamage makes the replica a suspect.
func (v *vnodeShell) onDamage() {
	if v.status != vnodeServing || v.loss.Suspect > 0 || v.isLost() || v.n.inForce == nil || !v.isReplica() {
		return
	}
	v.n.c.tracef("%s suspects partition %d", v.n.id, v.partition)
	v.loss.Suspect = v.n.inForce.Version
	v.rememberLoss()
}

// isReplica reports whether the node is a replica of the partition for some n.
func (v *vnodeShell) isReplica() bool {
	from, to := v.n.inForce.FillRange(member.Fill{Partition: v.partition, Node: v.n.id, Whole: true})
	return from <= to
}

func (v *vnodeShell) rememberLoss() {
	w := write{key: string(vnode.LossKey(v.partition)), value: v.loss.Encode()}
	v.n.commitNow([]write{w}, func(err error) {
		if err == nil {
			v.loss.told = true
			v.careForLoss()
		}
	})
}

// commitNow commits writes; then is called when they are durable, or with the error, if the process
// is still there: what it was told at the same time may have ended it.
func (n *node) commitNow(writes []write, then func(error)) {
	life := n.life
	done := func(err error) { n.run(life, func() { then(err) }) }
	if err := n.disk.commit(batch{writes: writes, sync: true, done: done}); err != nil {
		n.after(0, func() { then(err) })
	}
}

// lostNow has the vnodes whose replicas are lost by a new document drop them.
func (n *node) lostNow() {
	for _, v := range n.vnodes {
		if v.isLost() {
			n.after(0, v.careForLoss)
		}
	}
}

// careForLoss goes on with what is to be done about damage, also after it failed.
func (v *vnodeShell) careForLoss() {
	switch {
	case v.n.inForce == nil:
	case v.isLost() || v.loss.interrupted:
		v.drop()
	case v.loss.Suspect == 0:
	case !v.isReplica(): // any more
		v.loss.Suspect = 0
		v.rememberLoss()
	case !v.loss.told:
		v.rememberLoss()
	default:
		v.proposeLoss()
	}
}

// proposeLoss asks the membership to say in the document that the replica is lost.
func (v *vnodeShell) proposeLoss() {
	n, known := v.n, v.loss.Suspect
	n.members.propose(fmt.Sprintf("loss of partition %d on %s", v.partition, n.id), func(now member.Document) (member.Document, error) {
		if v.loss.Suspect != known {
			return now, member.ErrPlanChanged
		}
		next, err := now.LoseReplica(v.partition, n.id, n.store, known)
		v.loss.kept = errors.Is(err, member.ErrOnlyCopy)
		return next, err
	})
}

// drop rids the store of what cannot be read of the vnode's objects, and of what it knows of
// itself: what can be read is copied aside, the objects are dropped if they are lost, and the copy is put back.
// Nothing is served meanwhile. After a crash before the end all of it is done again.
func (v *vnodeShell) drop() {
	if v.loss.dropping || v.leasing || v.status == vnodeStopping {
		return // once the lease has come, or at the next tick
	}
	v.loss.dropping = true
	n, end, lost := v.n, v.loss.Loss, v.isLost()
	if lost {
		end = vnode.Loss{Dropped: v.lostIn()}
	}
	n.c.tracef("%s renews partition %d, lost %v", n.id, v.partition, lost)
	n.after(scale(n.c.random.loss.Float64(), n.c.plan.disk.read), func() {
		steps := []func() []write{v.salvage, v.restore, func() []write { return v.endLoss(end) }}
		if lost {
			steps = slices.Insert(steps, 1, v.dropObjects)
		}
		v.renew(steps, end)
	})
}

// renew makes the writes of one step after the other durable.
func (v *vnodeShell) renew(steps []func() []write, end vnode.Loss) {
	if len(steps) == 0 {
		v.onDropped(end, nil)
		return
	}
	v.n.commitNow(steps[0](), func(err error) {
		if err != nil {
			v.onDropped(end, err)
			return
		}
		v.renew(steps[1:], end)
	})
}

// salvage copies aside what can be read.
func (v *vnodeShell) salvage() (out []write) {
	for _, k := range v.n.c.sorted[v.partition] {
		b, there := v.n.disk.volatile[string(k.stored)]
		if there && !isHole(b) && v.n.c.mutation != salvageNothing {
			out = append(out, write{key: string(vnode.SalvageKey(k.stored)), value: b})
		}
	}
	return out
}

// dropObjects removes all objects and reads none.
func (v *vnodeShell) dropObjects() (out []write) {
	v.loss.drops++
	v.loss.held = true
	for _, k := range v.n.c.sorted[v.partition] {
		out = append(out, write{key: string(k.stored)})
	}
	return out
}

// restore removes what the vnode knows of itself, and puts back what was copied aside.
func (v *vnodeShell) restore() (out []write) {
	for _, r := range vnode.OwnRanges(v.partition) {
		for _, key := range v.n.stored(r[0], r[1]) {
			out = append(out, write{key: key})
		}
	}
	for _, key := range v.n.stored(vnode.SalvageRange(v.partition)) {
		out = append(out, write{key: string(vnode.SalvagedObject([]byte(key))), value: v.n.disk.volatile[key]})
	}
	return out
}

func (v *vnodeShell) endLoss(end vnode.Loss) (out []write) {
	for _, key := range v.n.stored(vnode.SalvageRange(v.partition)) {
		out = append(out, write{key: key})
	}
	return append(out, write{key: string(vnode.LossKey(v.partition)), value: end.Encode()})
}

// onDropped begins anew.
func (v *vnodeShell) onDropped(end vnode.Loss, err error) {
	v.loss.dropping = false
	switch {
	case v.status == vnodeStopping:
	case err != nil:
		v.n.after(dropPause, v.careForLoss)
	default:
		if end.Dropped > v.loss.Dropped {
			v.n.c.healed.Renewed++
		}
		v.loss.held = false
		v.status = vnodeOpening
		v.open()
	}
}

// authoritative is member.Document.Authoritative.
func (c *cluster) authoritative(d *member.Document, p dynamo.Partition, id dynamo.NodeID) bool {
	q := c.plan.properties.Quorum.N
	if c.mutation == lostCounts {
		if f, _ := d.Filling(p, id); f.Since > 0 {
			return d.Reading(p).IsPrimary(p, q, id)
		}
	}
	return d.Authoritative(p, q, id)
}

// hasFilled reports whether the node has filled what it lacks.
func (n *node) hasFilled(x member.Fill) bool {
	_, done := slices.BinarySearch(n.fills.filled, x.Partition)
	return done && (n.fills.since[x.Partition] >= x.Since || n.c.mutation == filledBefore)
}

// filledFacts are the partitions that the node has filled, and not those that were lost since or
// may have to be.
func (n *node) filledFacts() []dynamo.Partition {
	return slices.DeleteFunc(slices.Clone(n.fills.filled), func(p dynamo.Partition) bool {
		f, _ := n.inForce.Filling(p, n.id)
		f.Partition = p
		return !n.hasFilled(f) || n.vnodes[p].doubted()
	})
}

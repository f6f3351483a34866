package sim

import (
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// vnodeStatus says what a vnode does with messages.
type vnodeStatus uint8

const (
	vnodeOpening vnodeStatus = iota
	vnodeServing
	vnodeFailed
	vnodeStopping
)

// probeInterval is how often a failed vnode tries its store again.
const probeInterval = 500 * time.Millisecond

// envelope is a message in a vnode's mailbox.
type envelope struct {
	from    pid
	expires time.Duration
	body    any
}

// answer is a message to send once a commit is as far as it should be.
type answer struct {
	to   pid
	body any
}

// vnodeShell is the model of the actor that holds one partition: it takes all
// that its mailbox holds in one turn, writes it with one commit, answers from
// memory when reads see the commit and from the disk when the disk has it, and
// never waits.
type vnodeShell struct {
	n         *node
	partition dynamo.Partition
	status    vnodeStatus
	state     *vnode.State
	leasing   bool
	mailbox   []envelope
	scheduled bool
	waiting   []envelope

	// Of one turn: what is written, what reads do not show yet, and whom to
	// answer when.
	writes  []write
	fresh   map[int]vnode.Stored
	commits bool
	sync    bool
	applied []answer
	durable []answer
	made    []*put        // as the checker knows the turn's dots
	after   []func(error) // what to do when reads see the turn, or when it failed

	tree    keptTree
	touched []touched  // by the turn
	damaged []*keyInfo // objects that the turn could not read
	loss    loss
}

// open leases epochs; until the lease is durable messages wait.
func (v *vnodeShell) open() {
	if v.loadLoss(); v.loss.interrupted {
		v.n.after(0, v.drop)
		return
	}
	meta, found, err := v.n.readMeta(v.partition)
	if err != nil {
		v.n.c.fail("I8", "the meta of partition %d on %s: %v", v.partition, v.n.id, err)
		return
	}
	if v.n.c.mutation == keepFloor && found && !meta.Clean {
		meta.Clean, meta.Next = true, meta.Limit
	}
	v.loadTree()
	state, lease := vnode.Start(meta, found, v.n.incarnation(v.partition), v.n.c.plan.lease)
	v.state = state
	v.leasing = true
	if v.n.c.mutation == leaseLate {
		v.onLease(lease.Limit, nil)
	}
	v.commitMeta(lease, func(err error) { v.onLease(lease.Limit, err) })
}

// commitMeta makes the vnode's own state durable; done is always called.
func (v *vnodeShell) commitMeta(m vnode.Meta, done func(error)) {
	w := write{key: string(vnode.MetaKey(v.partition)), value: m.Encode()}
	if err := v.n.disk.commit(batch{writes: []write{w}, sync: true, done: done}); err != nil {
		v.n.after(0, func() { done(err) })
	}
}

// onLease takes a lease into use and lets the waiting messages in.
func (v *vnodeShell) onLease(to uint64, err error) {
	v.leasing = false
	if err != nil {
		v.fail()
		return
	}
	v.state.Extend(to)
	if v.isLost() {
		v.careForLoss() // it has waited for this
	}
	if v.status != vnodeOpening && v.status != vnodeFailed {
		return
	}
	v.status = vnodeServing
	waiting := v.waiting
	v.waiting = nil
	for len(waiting) > 0 {
		n := min(len(waiting), v.n.c.plan.batch)
		v.handle(waiting[:n])
		waiting = waiting[n:]
	}
}

// extend leases further epochs before the last lease is used up.
func (v *vnodeShell) extend() {
	if v.leasing || v.state.Left() > v.n.c.plan.lease/5 {
		return
	}
	v.leasing = true
	to := v.state.Lease(v.n.c.plan.lease)
	if v.n.c.mutation == leaseLate {
		v.state.Extend(to)
	}
	v.commitMeta(v.state.Meta(to), func(err error) { v.onLease(to, err) })
}

// drain refuses writes from now on and marks the stop as clean, if it is.
func (v *vnodeShell) drain(done func()) {
	serving := v.status == vnodeServing && !v.isLost()
	v.status = vnodeStopping
	if !serving {
		done()
		return
	}
	v.commitMeta(v.state.Stop(), func(error) { done() })
}

// fail stops acknowledging. The floor rises because replicas may hold a dot
// whose commit was lost here.
func (v *vnodeShell) fail() {
	if v.n.c.mutation != keepCommit {
		v.state.RaiseFloor()
	}
	v.status = vnodeFailed
	for _, e := range v.waiting {
		v.n.tell(e.from, failure{codeStorage})
	}
	v.waiting = nil
}

// probe tries to make a lease durable on a failed vnode.
func (v *vnodeShell) probe() {
	if v.leasing {
		return
	}
	v.leasing = true
	to := v.state.Lease(v.n.c.plan.lease)
	v.commitMeta(v.state.Meta(to), func(err error) {
		v.n.after(probeInterval, func() { v.onLease(to, err) })
	})
}

// receive puts a message into the mailbox, which is bounded.
func (v *vnodeShell) receive(e envelope) {
	if len(v.mailbox) >= v.n.c.plan.queue {
		v.n.tell(e.from, failure{codeOverloaded})
		return
	}
	v.mailbox = append(v.mailbox, e)
	v.schedule()
}

func (v *vnodeShell) schedule() {
	if v.scheduled {
		return
	}
	v.scheduled = true
	v.n.after(v.n.c.net.local()*5, v.turn)
}

func (v *vnodeShell) turn() {
	v.scheduled = false
	n := min(len(v.mailbox), v.n.c.plan.batch)
	turn := v.mailbox[:n:n]
	v.mailbox = v.mailbox[n:]
	v.handle(turn)
	if len(v.mailbox) > 0 {
		v.schedule()
	}
}

// handle serves a turn's messages with one commit.
func (v *vnodeShell) handle(turn []envelope) {
	if v.status == vnodeOpening {
		v.hold(turn)
		return
	}
	v.writes, v.commits, v.sync, v.applied, v.durable, v.fresh, v.made = nil, false, false, nil, nil, nil, nil
	v.after, v.touched, v.damaged = nil, nil, nil
	for _, e := range turn {
		late := v.n.c.now > e.expires
		if late && v.n.c.mutation != serveExpired {
			v.n.tell(e.from, failure{codeExpired})
			continue
		}
		if late {
			v.n.c.fail("I12", "%s carries out %T for %v after its deadline", v.n.id, e.body, v.n.c.now-e.expires)
		}
		switch m := e.body.(type) {
		case *readRequest:
			v.read(m, e.from)
		case *replicateRequest:
			v.replicate(m, e.from)
		case *coordinate:
			v.coordinate(m, e.from)
		case *keepHint:
			v.keepHint(m)
		case *handoffRequest:
			v.handoff(m, e.from)
		case *dropHints:
			v.dropHints(m, e.from)
		case *fillRequest:
			v.fill(m, e.from)
		case *treeQuestion:
			v.compare(m, e.from)
		case *mergePage:
			v.mergePage(m, e.from)
		case *reapAsk:
			v.reapAsk(m, e.from)
		case *reapDrop:
			v.reapDrop(m, e.from)
		}
	}
	v.commit()
}

// hold keeps messages until the vnode is open.
func (v *vnodeShell) hold(turn []envelope) {
	for _, e := range turn {
		if len(v.waiting) >= v.n.c.plan.queue {
			v.n.tell(e.from, failure{codeOverloaded})
			continue
		}
		v.waiting = append(v.waiting, e)
	}
}

// writable reports whether a write can be served now, and answers it if not.
func (v *vnodeShell) writable(from pid) bool {
	switch v.status {
	case vnodeStopping:
		v.n.tell(from, failure{codeNotReady})
		return false
	case vnodeFailed:
		v.probe()
		v.n.tell(from, failure{codeStorage})
		return false
	}
	return true
}

// set adds a record to the turn's commit.
func (v *vnodeShell) set(k *keyInfo, s vnode.Stored) {
	if v.fresh == nil {
		v.fresh = map[int]vnode.Stored{}
	}
	v.touch(k)
	v.fresh[k.index] = s
	v.writes = append(v.writes, write{key: string(k.stored), value: vnode.AppendStored(nil, k.stored, s)})
	v.commits = true
}

// coordinate makes the dot of a client's write.
func (v *vnodeShell) coordinate(m *coordinate, from pid) {
	if !v.writable(from) || !v.current(m.plan, from) {
		return
	}
	v.extend()
	k := &v.n.c.keys[m.key]
	stored, err := v.load(k)
	if err != nil {
		v.n.tell(from, failure{codeStorage})
		return
	}
	put := m.put
	known := stored
	v.mutatePut(&put, &known)
	result, err := v.state.Coordinate(known, put)
	if err != nil {
		v.n.tell(from, refused{err})
		return
	}
	if v.n.c.mutation == keepEpoch && stored.IsZero() && !result.Known {
		v.keepEpoch(k, &result)
	}
	if !result.Known || result.Marked {
		if !result.Known {
			w := v.n.c.check.coordinated(v, k, m.put, stored, result)
			w.by = from
			v.made = append(v.made, w)
		}
		v.set(k, result.Stored)
		if m.hintFor != "" {
			v.mark(k, m.hintFor)
		}
	}
	v.applied = append(v.applied, answer{from, prepared{result, v.n.c.now}})
	v.acknowledge(answer{from, durable{}}, m.sync)
}

// acknowledge answers after the turn's commit: when the disk has it, or as soon
// as reads see it.
func (v *vnodeShell) acknowledge(a answer, sync bool) {
	if !sync {
		v.applied = append(v.applied, a)
		return
	}
	v.sync, v.commits = true, true
	v.durable = append(v.durable, a)
}

// replicate merges a coordinator's record into what is stored.
func (v *vnodeShell) replicate(m *replicateRequest, from pid) {
	if !v.writable(from) || !v.current(m.plan, from) || !v.young(m.read, from) {
		return
	}
	k := &v.n.c.keys[m.key]
	if !v.n.owns(k) && (m.hintFor == "" || m.hintFor == v.n.id) {
		f := failure{codeInvalid}
		if v.n.behind(m.plan, from.endpoint) {
			f = failure{codeNotReady}
		}
		v.n.tell(from, f)
		return
	}
	if !v.take(k, m.record) {
		v.n.tell(from, failure{codeStorage})
		return
	}
	if m.hintFor != "" {
		v.mark(k, m.hintFor)
	}
	v.acknowledge(answer{from, replicateReply{}}, m.sync)
}

// take merges an encoded record into what is stored; false if that cannot be
// read.
func (v *vnodeShell) take(k *keyInfo, record []byte) bool {
	in, err := version.Decode(record)
	if err != nil {
		v.n.c.fail("I8", "%s cannot decode the record of %v that it was sent: %v", v.n.id, k.key, err)
		return false
	}
	v.n.c.check.canonical(k, in, record)
	stored, err := v.load(k)
	if err != nil {
		return false
	}
	merged, changed, err := v.accept(k, stored, in)
	if err != nil {
		v.n.c.fail("I1", "%s, %v: %v", v.n.id, k.key, err)
		return false
	}
	if changed {
		v.set(k, merged)
	}
	return true
}

// accept merges a record and checks the result.
func (v *vnodeShell) accept(k *keyInfo, stored vnode.Stored, in version.Record) (vnode.Stored, bool, error) {
	merged, changed, err := v.state.Accept(stored, in)
	if err != nil || !changed {
		return merged, changed, err
	}
	switch v.n.c.mutation {
	case forgetBar:
		merged.Barred = 0
	case expiryRenewed:
		merged.Record = v.renewed(merged.Record)
	case mergeByTime:
		latest := slices.MaxFunc(merged.Record.Versions, func(a, b version.Version) int { return int(a.Time - b.Time) })
		merged.Record.Versions = []version.Version{latest}
	}
	v.n.c.check.stored(v, k, stored, merged)
	return merged, true, nil
}

// commit applies the turn's writes and arranges the answers.
func (v *vnodeShell) commit() {
	if v.commits {
		v.markTree()
		waiting := v.durable
		b := batch{writes: v.writes, sync: v.sync}
		if v.n.c.mutation == ackEarly {
			v.applied, waiting = append(v.applied, waiting...), nil
		}
		b.done = func(err error) { v.committed(waiting, err) }
		if err := v.n.disk.commit(b); err != nil {
			v.uncommitted()
			return
		}
		v.growTree()
	}
	for _, a := range v.applied {
		v.n.tell(a.to, a.body)
	}
	for _, do := range v.after {
		do(nil)
	}
}

// committed answers those who waited for the disk. A commit that failed was
// applied, so its outcome is unknown.
func (v *vnodeShell) committed(waiting []answer, err error) {
	for _, a := range waiting {
		switch {
		case err == nil:
			v.n.tell(a.to, a.body)
		case v.n.c.mutation == failForCertain:
			v.n.tell(a.to, failure{codeStorage})
		default:
			v.n.tell(a.to, failure{codeInternal})
		}
	}
	if err != nil {
		v.fail()
	}
}

// uncommitted answers everybody of a turn whose batch was not applied, once.
func (v *vnodeShell) uncommitted() {
	v.n.c.check.void(v.made)
	told := map[pid]bool{}
	for _, a := range append(v.applied, v.durable...) {
		if !told[a.to] {
			told[a.to] = true
			v.n.tell(a.to, failure{codeStorage})
		}
	}
	for _, do := range v.after {
		do(errBroken)
	}
	v.fail()
}

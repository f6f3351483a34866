package actors

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

// lossTable is which partitions of this node's store are damaged, and which of them are being
// dropped.
type lossTable struct {
	mu       sync.Mutex
	suspects map[dynamo.Partition]suspicion
	// busy are those that are copied, dropped and put back. Until that is durable,
	// those in held do not lie here whole: true until they are dropped, so that they may be with a
	// neighbour.
	busy, held map[dynamo.Partition]bool
	// drops counts them, total all of them: what was read meanwhile proves nothing.
	drops map[dynamo.Partition]int
	total int
	// dropped are the versions for which partitions were dropped last: what is filled before
	// is dropped with the rest, and must not count as filled.
	dropped map[dynamo.Partition]uint64
	// maybeLost are the versions for which partitions were given up last while what could not be
	// read of them may have been nowhere else.
	maybeLost map[dynamo.Partition]uint64
	// dropping is held by who drops: a partition is not put back while it is dropped together
	// with another one. span are the first and the last of those that are then: no vnode opens between.
	dropping sync.Mutex
	span     []dynamo.Partition
}

// suspicion is that something of a partition could not be read.
type suspicion struct {
	// found is the version of the cluster document by then.
	found uint64
	// why it is not given up; empty: it will be.
	why string
}

func newLossTable() lossTable {
	return lossTable{
		suspects: map[dynamo.Partition]suspicion{}, busy: map[dynamo.Partition]bool{}, held: map[dynamo.Partition]bool{},
		drops: map[dynamo.Partition]int{}, dropped: map[dynamo.Partition]uint64{}, maybeLost: map[dynamo.Partition]uint64{},
	}
}

func (t *lossTable) suspect(p dynamo.Partition, found uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suspects[p] = suspicion{found: found}
}

// clear ends a suspicion: the partition was dropped, or this node is no replica any more.
func (t *lossTable) clear(p dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.suspects, p)
}

// amend changes why a suspect is not given up, if it still is one: it may have been dropped
// since.
func (t *lossTable) amend(p dynamo.Partition, why string) (was string, still bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, still := t.suspects[p]
	if still {
		t.suspects[p] = suspicion{found: s.found, why: why}
	}
	return s.why, still
}

// stands reports whether a suspicion is still that of a version.
func (t *lossTable) stands(p dynamo.Partition, found uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.suspects[p]
	return ok && s.found == found
}

// doubted reports whether a partition will be given up, so that it proves nothing.
func (t *lossTable) doubted(p dynamo.Partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.suspects[p]
	return ok && s.why == ""
}

// maxRenewed is how many partitions are copied and dropped at a time: each keeps a reader busy, and a core
// while it reads what is damaged, for the store looks for the bit that has changed.
const maxRenewed = 2

// begin lets one at a time work on a partition; the one before may be that of a vnode that failed.
func (t *lossTable) begin(p dynamo.Partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy[p] || len(t.busy) >= maxRenewed {
		return false
	}
	t.busy[p] = true
	return true
}

func (t *lossTable) end(p dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, p)
}

// hold lets a partition be dropped, also with a neighbour; free says that it lies here whole again.
func (t *lossTable) hold(p dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held[p] = true
	t.drops[p]++
	t.total++
}

func (t *lossTable) free(p dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, p)
}

// watch is for who reads objects of a partition: whole reports whether they lay here all the time.
func (t *lossTable) watch(p dynamo.Partition) (whole func() bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.drops[p]
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		_, held := t.held[p]
		return !held && t.drops[p] == before
	}
}

// watchAll is watch for all partitions.
func (t *lossTable) watchAll() (whole func() bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.total
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.held) == 0 && t.total == before
	}
}

// cover notes the span of a drop of several; covered reports whether a partition is in one.
func (t *lossTable) cover(span ...dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.span = span
}

func (t *lossTable) covered(p dynamo.Partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.span) == 2 && t.span[0] <= p && p <= t.span[1]
}

// droppedFor notes the version for which a partition was dropped last.
func (t *lossTable) droppedFor(p dynamo.Partition, since uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped[p] = since
}

// pending reports whether a partition that is to be filled is yet to be dropped.
func (t *lossTable) pending(f member.Fill) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped[f.Partition] < f.Since
}

// settle notes that a partition was dropped and is put back: it must not be dropped with another one any more.
func (t *lossTable) settle(p dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held[p] = false
}

// run are the partitions around one that may be dropped with it, and that one, of all that lie in the
// store, ascending; and the next ones on both sides.
func (t *lossTable) run(p dynamo.Partition, all []dynamo.Partition) (from, to dynamo.Partition, next []dynamo.Partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, _ := slices.BinarySearch(all, p)
	first, last := i, i
	for first > 0 && t.held[all[first-1]] {
		first--
	}
	for last+1 < len(all) && t.held[all[last+1]] {
		last++
	}
	if first > 0 {
		next = append(next, all[first-1])
	}
	if last+1 < len(all) {
		next = append(next, all[last+1])
	}
	return all[first], all[last], next
}

// noteMaybeLost notes that what could not be read of a partition that was given up by a version may
// have been nowhere else; first: it was not noted before.
func (t *lossTable) noteMaybeLost(p dynamo.Partition, since uint64) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first = t.maybeLost[p] < since
	t.maybeLost[p] = max(t.maybeLost[p], since)
	return first
}

// kept is how many partitions are suspect, why the first of them that is not given up is
// not, and of how many something may be lost.
func (t *lossTable) kept() (suspects int, why string, maybeLost int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(t.suspects)) {
		if w := t.suspects[p].why; w != "" {
			return len(t.suspects), fmt.Sprintf("partition %d: %s", p, w), len(t.maybeLost)
		}
	}
	return len(t.suspects), "", len(t.maybeLost)
}

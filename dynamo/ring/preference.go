package ring

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// Reachable says whether a node is worth asking, in the opinion of the one who
// asks (paper § 4.8.3).
type Reachable func(dynamo.NodeID) bool

// Everyone takes every node for reachable.
func Everyone(dynamo.NodeID) bool { return true }

// Preference returns where the n replicas of partition p are to be read or
// written now: the reachable primaries in list order, then for each unreachable
// primary one fallback, with For naming the primary it stands in for. Fallbacks
// are the next reachable nodes of Order, so all nodes of the result are
// distinct. The result is shorter than n when the ring has fewer nodes or too
// few are reachable.
func (r Ring) Preference(p dynamo.Partition, n int, reachable Reachable) []dynamo.Replica {
	return r.Candidates(p, n, 0, reachable)
}

// Candidates returns Preference followed by up to spares further fallbacks,
// whose For is empty: they are asked only when one of the first fails, and then
// stand in for that one.
func (r Ring) Candidates(p dynamo.Partition, n, spares int, reachable Reachable) []dynamo.Replica {
	n = min(n, r.depth)
	result := make([]dynamo.Replica, 0, n+spares)
	var absent []dynamo.NodeID
	for _, i := range r.Indexes(p)[:n] {
		node := r.nodes[i]
		if !reachable(node) {
			absent = append(absent, node)
			continue
		}
		result = append(result, dynamo.Replica{Partition: p, Node: node, Role: dynamo.Primary})
	}
	wanted := len(absent) + spares
	if wanted == 0 {
		return result
	}
	w := r.walk(p, n)
	for wanted > 0 {
		i, ok := w.next()
		if !ok {
			break
		}
		node := r.nodes[i]
		if !reachable(node) {
			continue
		}
		fallback := dynamo.Replica{Partition: p, Node: node, Role: dynamo.Fallback}
		if len(absent) > 0 {
			fallback.For, absent = absent[0], absent[1:]
		}
		result = append(result, fallback)
		wanted--
	}
	return result
}

// Sloppy returns where the n replicas of partition p are to be asked now
// (§ 4.6): like Candidates, but only nodes of the partition's own list take part,
// for they have a vnode of it; and a primary that nobody can stand in for is
// asked all the same, last: it may be reachable after all.
func (r Ring) Sloppy(p dynamo.Partition, n, spares int, reachable Reachable) []dynamo.Replica {
	list := r.Replicas(p)
	n = min(n, len(list))
	out := r.Candidates(p, n, min(spares, len(list)-n), func(node dynamo.NodeID) bool {
		return slices.Contains(list, node) && reachable(node)
	})
	if len(out) >= n && out[n-1].Role == dynamo.Primary {
		return out
	}
	for _, node := range list[:n] {
		known := slices.ContainsFunc(out, func(x dynamo.Replica) bool { return x.Node == node || x.For == node })
		if !known {
			out = append(out, dynamo.Replica{Partition: p, Node: node, Role: dynamo.Primary})
		}
	}
	return out
}

// Order returns all nodes of the ring in the order in which partition p would
// choose them: its replica list, then the nodes of the following partitions'
// lists, each node once.
func (r Ring) Order(p dynamo.Partition) []dynamo.NodeID {
	order := make([]dynamo.NodeID, 0, len(r.nodes))
	w := r.walk(p, 0)
	for i, ok := w.next(); ok; i, ok = w.next() {
		order = append(order, r.nodes[i])
	}
	return order
}

// walker visits the nodes of a ring in a partition's order, each once.
type walker struct {
	r Ring
	// at is an index into r.lists, left how many entries are still unread.
	at, left int
	// seen has a bit per node; unseen counts those without.
	seen   []uint64
	unseen int
}

// walk starts behind the first skip nodes of partition p's list.
func (r Ring) walk(p dynamo.Partition, skip int) walker {
	w := walker{
		r:      r,
		at:     int(p) * r.depth,
		left:   len(r.lists),
		seen:   make([]uint64, (len(r.nodes)+63)/64),
		unseen: len(r.nodes),
	}
	for range skip {
		w.next()
	}
	return w
}

// next returns the next node's index, or false after the last one.
func (w *walker) next() (uint32, bool) {
	for w.unseen > 0 && w.left > 0 {
		i := w.r.lists[w.at]
		w.at, w.left = w.at+1, w.left-1
		if w.at == len(w.r.lists) {
			w.at = 0 // the partition after the last one is the first
		}
		if word, bit := &w.seen[i/64], uint64(1)<<(i%64); *word&bit == 0 {
			*word |= bit
			w.unseen--
			return i, true
		}
	}
	return 0, false
}

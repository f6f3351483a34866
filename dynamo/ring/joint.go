package ring

import (
	"slices"

	"github.com/dynactor/dynactor/dynamo"
)

// Joint returns where a write of a partition that moves is to be sent, for each
// of its two rings: the reachable primaries in list order, a fallback for each
// unreachable one, up to spares further fallbacks, and at last the primaries that
// nobody can stand in for. The first n of each are to be asked at once.
//
// A primary of either ring stores a record as its own, so it is nobody's fallback.
// A node that is in both lists has one task: it is a primary in both, or it stands
// in for the same node, or for nobody yet.
func Joint(a, b Ring, p dynamo.Partition, n, spares int, reachable Reachable) (forA, forB []dynamo.Replica) {
	listA, listB := a.Replicas(p), b.Replicas(p)
	ownA, ownB := listA[:min(n, len(listA))], listB[:min(n, len(listB))]
	primaries := appendNew(slices.Clone(ownA), ownB...)
	// Those of the first ring come first: if reads use it, they look there.
	pool := slices.DeleteFunc(appendNew(slices.Clone(listA), listB...), func(node dynamo.NodeID) bool {
		return slices.Contains(primaries, node) || !reachable(node)
	})
	standIn := map[dynamo.NodeID]dynamo.NodeID{}
	for _, node := range primaries {
		if !reachable(node) && len(pool) > 0 {
			standIn[node], pool = pool[0], pool[1:]
		}
	}
	pool = pool[:min(spares, len(pool))]
	list := func(own []dynamo.NodeID) []dynamo.Replica {
		var up, fallbacks, alone []dynamo.Replica
		for _, node := range own {
			primary := dynamo.Replica{Partition: p, Node: node, Role: dynamo.Primary}
			switch other, covered := standIn[node]; {
			case covered:
				fallbacks = append(fallbacks, dynamo.Replica{Partition: p, Node: other, Role: dynamo.Fallback, For: node})
			case reachable(node):
				up = append(up, primary)
			default:
				alone = append(alone, primary) // it may be reachable after all
			}
		}
		for _, node := range pool {
			fallbacks = append(fallbacks, dynamo.Replica{Partition: p, Node: node, Role: dynamo.Fallback})
		}
		return slices.Concat(up, fallbacks, alone)
	}
	return list(ownA), list(ownB)
}

// appendNew appends the nodes that list does not name yet.
func appendNew(list []dynamo.NodeID, nodes ...dynamo.NodeID) []dynamo.NodeID {
	for _, node := range nodes {
		if !slices.Contains(list, node) {
			list = append(list, node)
		}
	}
	return list
}

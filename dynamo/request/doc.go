// Package request holds the machines that coordinate one get and one put
// (paper § 4.5 and § 5: each client request is a state machine on the node that
// received it). A machine decides; whoever runs it sends, waits and keeps time.
//
// A machine is driven by Start and Step: an event goes in, the effects to carry
// out, in order, come out. The same events always give the same effects. Time
// comes in as an argument and deadlines come in as events, tagged with the state
// that they were armed for, so that an old one says nothing.
//
// The get, by the steps of § 5:
//
//  1. send read requests to the nodes: Get.Start
//  2. wait for the minimum number of answers, replacing nodes that fail: AwaitingQuorum
//  3. if too few come in time, fail the request: Get.fail
//  4. gather all versions and decide which to return: Get.decide; fetch values
//     that were left out of the answers: AwaitingValues
//  5. after the reply wait for late answers, and repair stale replicas (read
//     repair): AwaitingStragglers
//
// The put, by § 4.5:
//
//  1. the local vnode makes the new version's dot and starts to write it: AwaitingDot
//  2. the version goes to the other N-1 replicas, while the local write is
//     under way: Put.replicate
//  3. when W nodes confirmed, the write is done: AwaitingQuorum; nodes that fail
//     are replaced by fallbacks that keep a hint (§ 4.6). While the partition
//     moves, W are needed of the nodes where it is and W of those where it will be
//  4. late confirmations are awaited for a while: AwaitingStragglers
//
// Invariants of both: exactly one Reply, unless neither the quorum nor a
// deadline ever comes; every node counts once; events that are impossible in a
// state, repeated, or late change nothing.
package request

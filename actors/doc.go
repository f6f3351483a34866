// Package actors is the running system: one supervised actor per vnode and per
// request. Decisions are made in dynamo; an actor translates messages to
// events, steps the machine, and carries its effects out.
//
//	node                  starts the rest in order, stops it in reverse
//	├─ vnodes             restarts its children from storage
//	│  └─ vnode/17        one partition: reads, writes, dots
//	├─ coordinator        admits requests, bounded; sheds the rest with an answer
//	│  ├─ get/<id>        one read; stops on failure and still answers
//	│  ├─ put/<id>        one write; the same
//	│  └─ forward/<id>    passes a write to a node that may coordinate it
//	├─ membership         holds the cluster document, founds the cluster
//	└─ console            answers operators: who is there, how each one is, what went wrong
//
// links and links/<peer>, beside node, belong to package link.
//
// No actor waits: not for the disk (the engine calls back), not for another
// actor (answers are messages, deadlines are messages), not for a lock that is
// held over I/O. Reads of the store run on a bounded pool.
package actors

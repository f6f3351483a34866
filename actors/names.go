package actors

import (
	"strconv"
	"strings"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/messages"
)

// Names of the actors that exist once on each node.
const (
	nameNode        = "node"
	nameVnodes      = "vnodes"
	nameCoordinator = messages.TargetCoordinator
	nameMembership  = messages.TargetMembership
	nameDetector    = messages.TargetDetector
	nameTransfers   = messages.TargetTransfers
	nameAdmission   = messages.TargetAdmission
	nameExchanges   = messages.TargetExchanges
	nameReaps       = messages.TargetReaps
	nameConsole     = messages.TargetConsole
)

// vnodeName is the name of a partition's vnode, the same on every node.
func vnodeName(p dynamo.Partition) string {
	if int(p) < len(vnodeNames) {
		return vnodeNames[p]
	}
	return makeVnodeName(p)
}

// vnodeNames are the names that are needed for each message of all but very
// large rings.
var vnodeNames = func() (names [1024]string) {
	for p := range names {
		names[p] = makeVnodeName(dynamo.Partition(p))
	}
	return names
}()

func makeVnodeName(p dynamo.Partition) string {
	return messages.TargetVnode + strconv.FormatUint(uint64(p), 10)
}

// on addresses an actor of another node, or of this one.
func on(node dynamo.NodeID, name string) *actor.PID { return actor.NewPID(string(node), name) }

// flat spawns children under names of their own instead of ones below their
// parent's: names are what nodes address each other by, and what the console
// shows, and should not tell who supervises whom.
var flat = actor.WithSpawnFunc(
	func(system *actor.ActorSystem, id string, props *actor.Props, parent actor.SpawnerContext) (*actor.PID, error) {
		return actor.DefaultSpawner(system, strings.TrimPrefix(id, parent.Self().Id+"/"), props, parent)
	})

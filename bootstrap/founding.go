package bootstrap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/actors"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// founding tells the membership actor how to come into a cluster.
func (n *Node) founding() (actors.Founding, error) {
	if _, _, err := n.loadVoter(); err != nil {
		return actors.Founding{}, err // before anything runs
	}
	intent, durable, err := n.readIntent()
	if err != nil {
		return actors.Founding{}, err
	}
	if n.discovery, err = n.newDiscovery(); err != nil {
		return actors.Founding{}, err
	}
	f := actors.Founding{
		Config: founding.Config{
			Self: founding.Candidate{
				ID: dynamo.NodeID(n.config.Name), Store: n.identity.StoreID(), Start: n.identity.Start, Zone: n.config.Zone,
				Capacity: n.config.Capacity, Address: n.config.Advertise, Founding: n.config.Found, Partitions: n.config.Partitions,
			},
			Expect: n.expect(), Elect: n.discovery.Elects(), Intent: intent, IntentDurable: durable,
		},
		ClusterName: n.config.Cluster, Buckets: n.config.Buckets, AutoJoin: n.config.AutoJoin, Peers: n.peers, Members: n.Connected, Addresses: n.addresses,
		Load: n.loadVoter, StoreDocument: n.storeDocument, StoreVote: n.storeVote, StoreIntent: n.storeIntent,
		Elect: n.elect, Listed: n.listed, Moved: n.moved,
	}
	return f, nil
}

// expect is how many nodes found the cluster together.
func (n *Node) expect() int {
	switch {
	case n.config.Expect > 0:
		return n.config.Expect
	case n.config.Consul != "":
		return 3
	}
	return 1 + n.config.otherSeeds()
}

var (
	intentKey   = vnode.NodeKey("intent")
	registerKey = vnode.NodeKey("register")
)

// readIntent returns the cluster id that this node meant to found, or a fresh
// one.
func (n *Node) readIntent() (id founding.ClusterID, durable bool, err error) {
	b, err := readFact(n.engine, intentKey)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		rand.Read(id[:]) // never fails: crypto/rand ends the process instead
		return id, false, nil
	case err != nil:
		return id, false, err
	case len(b) != len(id):
		return id, false, fmt.Errorf("%w: intent of %d bytes", ErrDamaged, len(b))
	}
	copy(id[:], b)
	return id, true, nil
}

func (n *Node) storeIntent(id founding.ClusterID, done func(error)) { n.store(intentKey, id[:], done) }

func (n *Node) storeDocument(doc member.Document, done func(error)) {
	raw, err := encodeDocument(doc)
	if err != nil {
		done(err)
		return
	}
	n.store(documentKey, raw, done)
}

// loadVoter is readVoter for the node's own store.
func (n *Node) loadVoter() (member.Voter, bool, error) { return readVoter(n.engine) }

// readVoter reads the document and what the node has promised about the next one.
func readVoter(e storage.Engine) (member.Voter, bool, error) {
	doc, found, err := readDocument(e)
	v := member.Voter{Document: doc}
	if err != nil || !found {
		return v, found, err
	}
	raw, err := readFact(e, registerKey)
	if errors.Is(err, storage.ErrNotFound) {
		return v, true, nil
	}
	if err != nil {
		return v, true, err
	}
	var wire messages.RegisterState
	if err := proto.Unmarshal(raw, &wire); err != nil {
		return v, true, fmt.Errorf("%w: register: %w", ErrDamaged, err)
	}
	if err := messages.ToRegisterState(&wire, &v); err != nil {
		return v, true, fmt.Errorf("%w: register: %w", ErrDamaged, err)
	}
	return v, true, nil
}

func (n *Node) storeVote(v member.Voter, done func(error)) {
	raw, err := proto.Marshal(messages.FromRegister(&v))
	if err != nil {
		done(err)
		return
	}
	n.store(registerKey, raw, done)
}

// moved tells the links where a member says that it is.
func (n *Node) moved(id dynamo.NodeID, address string) {
	if address == "" || string(id) == n.config.Name {
		return
	}
	if err := n.links.SetPeer(string(id), address); err != nil {
		n.log.Error("member's address", slog.String("member", string(id)), slog.Any("error", err))
	}
}

// store makes a fact durable without waiting.
func (n *Node) store(key, value []byte, done func(error)) {
	b := n.engine.NewBatch()
	b.Set(key, factBytes(value))
	if err := b.Commit(storage.Vital, done); err != nil {
		done(err)
	}
}

func (n *Node) elect(id founding.ClusterID, done func(bool, dynamo.NodeID, error)) {
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(n.life, electTimeout)
		defer cancel()
		done(n.discovery.Elect(ctx, id))
	})
}

// listed tells the founding machine who is registered.
func (n *Node) listed() (addresses []string, problem string) {
	s := n.discovery.Status()
	return s.Listed, s.Incomplete
}

// electTimeout bounds one question to the registry.
const electTimeout = 5 * time.Second

package bootstrap

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/messages"
	"github.com/dynactor/dynactor/storage"
)

// Why a data directory is refused.
var (
	// ErrOtherNode: the directory belongs to a node of another name.
	ErrOtherNode = errors.New("data directory belongs to another node")
	// ErrOtherCluster: the directory belongs to a node of another cluster.
	ErrOtherCluster = errors.New("data directory belongs to another cluster")
	// ErrNewerFormat: a newer program wrote the directory.
	ErrNewerFormat = errors.New("data directory was written by a newer program")
	// ErrDamaged: the node's own facts in the store cannot be read.
	ErrDamaged = errors.New("data directory is damaged")
)

// storeFormat is the version of the layout of a data directory.
const storeFormat = 1

// Identity is who a data directory belongs to.
type Identity struct {
	Format  int    `json:"format"`
	Node    string `json:"node"`
	Cluster string `json:"cluster"`
	// Store is the random id of this directory, in hexadecimal.
	Store string `json:"store"`
	// Start counts the starts on this directory; each raises it durably, so
	// that a restored or copied directory shows.
	Start uint64 `json:"start"`
}

// StoreID is the store's id as bytes; zero if it is not an id.
func (i Identity) StoreID() (id [16]byte) {
	b, err := hex.DecodeString(i.Store)
	if err == nil && len(b) == len(id) {
		copy(id[:], b)
	}
	return id
}

var (
	identityKey = vnode.NodeKey("identity")
	documentKey = vnode.NodeKey("document")
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

// claimStore checks that a store belongs to this node of this cluster, takes it
// if it is new, and raises its start number durably.
func claimStore(e storage.Engine, node, cluster string) (Identity, error) {
	id, err := readIdentity(e)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		var store [16]byte
		rand.Read(store[:]) // never fails: crypto/rand ends the process instead
		id = Identity{Format: storeFormat, Node: node, Cluster: cluster, Store: hex.EncodeToString(store[:])}
	case err != nil:
		return id, err
	case id.Format > storeFormat:
		return id, fmt.Errorf("%w: format %d, this program knows up to %d", ErrNewerFormat, id.Format, storeFormat)
	case id.Cluster != cluster:
		return id, fmt.Errorf("%w: it is of cluster %q, this node is to be of %q", ErrOtherCluster, id.Cluster, cluster)
	case id.Node != node:
		return id, fmt.Errorf("%w: it is of node %q, this node is %q", ErrOtherNode, id.Node, node)
	}
	id.Start++
	raw, err := json.Marshal(id)
	if err != nil {
		return id, err
	}
	return id, writeFact(e, identityKey, raw)
}

func readIdentity(e storage.Engine) (Identity, error) {
	var id Identity
	raw, err := readFact(e, identityKey)
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(raw, &id); err != nil {
		return id, fmt.Errorf("%w: identity: %w", ErrDamaged, err)
	}
	// A newer format may say it differently; it is refused by its number.
	if id.Format < 1 || id.Format <= storeFormat && id.StoreID() == [16]byte{} {
		return id, fmt.Errorf("%w: identity: format %d, store %q", ErrDamaged, id.Format, id.Store)
	}
	return id, nil
}

// readDocument returns the persisted cluster document; found is false when
// there is none.
func readDocument(e storage.Engine) (doc member.Document, found bool, err error) {
	raw, err := readFact(e, documentKey)
	if errors.Is(err, storage.ErrNotFound) {
		return doc, false, nil
	}
	if err != nil {
		return doc, false, err
	}
	var wire messages.Document
	if err := proto.Unmarshal(raw, &wire); err != nil {
		return doc, false, fmt.Errorf("%w: cluster document: %w", ErrDamaged, err)
	}
	doc, err = messages.ToDocument(&wire)
	if err != nil {
		return doc, false, fmt.Errorf("%w: cluster document: %w", ErrDamaged, err)
	}
	return doc, true, nil
}

// encodeDocument is the form in which the document is persisted.
func encodeDocument(doc member.Document) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(messages.FromDocument(doc))
}

// readFact reads a small value about the node itself and checks its checksum.
func readFact(e storage.Engine, key []byte) ([]byte, error) {
	b, err := e.Get(nil, key)
	if err != nil {
		return nil, err
	}
	if len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.BigEndian.Uint32(b) {
		return nil, fmt.Errorf("%w: checksum of %q", ErrDamaged, key)
	}
	return b[4:], nil
}

// factBytes prefixes a value with its checksum.
func factBytes(value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(value, castagnoli)), value...)
}

// writeFact makes a small value about the node itself durable.
func writeFact(e storage.Engine, key, value []byte) error {
	done := make(chan error, 1)
	b := e.NewBatch()
	b.Set(key, factBytes(value))
	if err := b.Commit(storage.Vital, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

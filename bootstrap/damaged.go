package bootstrap

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/pebbledb"
)

// openDisk opens the store in the data directory. One that is damaged so that it cannot
// be opened, or that does not say any more whose it is, is put aside, and the node starts
// with an empty one: as a node that has lost its disk it takes its member's place and is
// filled by the others (H43). Nothing is deleted: what only this store had may be in
// what is put aside, and while it lies there the node founds no cluster: that would be an
// empty one, under the name of the old. It is done for damage alone; whatever else keeps a
// store from being opened is for the operator.
func (n *Node) openDisk(options pebbledb.Options) (storage.Engine, error) {
	dir := filepath.Join(n.config.DataDir, "store")
	e, err := n.openReadable(dir, options)
	if isDamage(err) {
		aside := dir + asideInfix + time.Now().UTC().Format("20060102T150405.000Z")
		if moved := os.Rename(dir, aside); moved != nil {
			return nil, fmt.Errorf("the store is damaged, and cannot be put aside: %w", errors.Join(err, moved))
		}
		n.log.Error("the store is damaged: it is put aside, and this node starts with an empty one, which the others fill",
			slog.String("aside", aside), slog.Any("error", err))
		e, err = n.openReadable(dir, options)
	}
	if err != nil {
		return nil, err
	}
	if err := n.foundsNothing(dir); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// asideInfix is between the name of the store and the time in the name of one that was
// put aside.
const asideInfix = ".damaged-"

// foundsNothing keeps a node that has a store put aside from founding a cluster.
func (n *Node) foundsNothing(dir string) error {
	all, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, f := range all {
		if n.config.Found && strings.HasPrefix(f.Name(), filepath.Base(dir)+asideInfix) {
			n.config.Found = false
			n.log.Warn("a damaged store was put aside; this node founds no cluster while it is there", slog.String("aside", f.Name()))
		}
	}
	return nil
}

// openReadable opens a store in which what the node must know of itself can be read, as
// far as it is there. What is not this node's, or a newer program's, is not judged: who
// claims the store refuses it.
func (n *Node) openReadable(dir string, options pebbledb.Options) (storage.Engine, error) {
	e, err := pebbledb.Open(dir, options)
	if err != nil {
		return nil, err
	}
	id, err := readIdentity(e)
	if err == nil && id.Format <= storeFormat && id.Node == n.config.Name && id.Cluster == n.config.Cluster {
		_, _, err = readVoter(e)
	}
	if isDamage(err) {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil // who claims it meets other errors again
}

func isDamage(err error) bool {
	return errors.Is(err, storage.ErrDamaged) || errors.Is(err, ErrDamaged)
}

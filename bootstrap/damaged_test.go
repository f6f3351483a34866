package bootstrap

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/pebbledb"
)

// TestDamagedStore: a node whose store cannot be read puts it aside and is filled by the
// others, byte by byte, while they serve.
func TestDamagedStore(t *testing.T) {
	const keys = 60
	for name, harm := range map[string]func(t *testing.T, store string){
		"manifest gone": func(t *testing.T, store string) {
			t.Helper()
			removeAll(t, filepath.Join(store, "MANIFEST-*"))
		},
		"identity damaged": func(t *testing.T, store string) { t.Helper(); rewrite(t, store, identityKey, []byte("????{}")) },
		"vote damaged":     func(t *testing.T, store string) { t.Helper(); rewrite(t, store, registerKey, []byte("????{}")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			configs := onDisk(t, seeded(t, 3))
			nodes := startAll(t, configs)
			fill(t, keys, nodes...)
			nodes[2].stop()
			want, before := nodes[0].objects(), nodes[2].identity.StoreID()
			harm(t, filepath.Join(configs[2].DataDir, "store"))
			back := start(t, configs[2])
			if back.identity.StoreID() == before {
				t.Fatal("the store has its old id")
			}
			for _, n := range []*testNode{nodes[0], nodes[1], back} {
				n.filled(back.identity.StoreID())
			}
			back.ready()
			if got := back.objects(); !maps.Equal(got, want) {
				t.Errorf("%d objects came back, want the %d of another replica, byte by byte", len(got), len(want))
			}
			serves(t, nodes[0], nodes[1], back)
			if n := len(aside(t, configs[2])); n != 1 {
				t.Errorf("%d stores are put aside", n)
			}
			back.stop() // the new store is sound
			again := start(t, configs[2])
			again.ready()
			if again.identity.StoreID() != back.identity.StoreID() || len(aside(t, configs[2])) != 1 {
				t.Error("the new store is put aside, too")
			}
		})
	}
}

// TestSoundStoreStays: what keeps a store from being opened but is no damage leaves it
// where it is.
func TestSoundStoreStays(t *testing.T) {
	c := onDisk(t, seeded(t, 1))[0]
	startAll(t, []Config{c})[0].stop()
	store := filepath.Join(c.DataDir, "store")
	other := c
	other.Cluster = "other"
	if _, err := startOn(t, other, Options{}); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("started in another cluster: %v", err)
	}
	e, err := pebbledb.Open(store, pebbledb.Default())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startOn(t, c, Options{}); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("started on a store that is open: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if all := aside(t, c); len(all) > 0 {
		t.Errorf("put aside: %v", all)
	}
	start(t, c).ready()
}

// TestDamagedStoreFoundsNothing: where no other node has the data, an empty cluster must not
// take the place of the old one. With the store repaired and put back, it goes on.
func TestDamagedStoreFoundsNothing(t *testing.T) {
	c := onDisk(t, seeded(t, 1))[0]
	n := startAll(t, []Config{c})[0]
	before := n.Document().ClusterID
	n.stop()
	store := filepath.Join(c.DataDir, "store")
	old, err := os.ReadFile(one(t, filepath.Join(store, "MANIFEST-*")))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(one(t, filepath.Join(store, "MANIFEST-*")))
	removeAll(t, filepath.Join(store, "MANIFEST-*"))
	for range 2 {
		empty := start(t, c)
		eventually(t, "it waits for one that founds", func() bool {
			if empty.Document() != nil {
				t.Fatal("it has founded a cluster")
			}
			return strings.Contains(empty.Health().Reason, "waiting for a node that founds the cluster")
		})
		if !strings.Contains(empty.log.String(), "founds no cluster while it is there") {
			t.Error("the log does not say why")
		}
		empty.stop()
	}
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(c.DataDir, aside(t, c)[0])
	if err := os.WriteFile(filepath.Join(kept, name), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(kept, store); err != nil {
		t.Fatal(err)
	}
	again := start(t, c)
	again.ready()
	if now := again.Document().ClusterID; now != before {
		t.Errorf("it is in cluster %v, was in %v", now, before)
	}
}

// one is the only file that fits.
func one(t *testing.T, pattern string) string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: %v, %v", pattern, all, err)
	}
	return all[0]
}

// TestForeignStoreStays: of a store that is not this node's, or that a newer program has
// written, nothing is damage. It is refused and stays.
func TestForeignStoreStays(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Identity)
		want   error
	}{
		"another cluster": {func(id *Identity) { id.Cluster = "other" }, ErrOtherCluster},
		"another node":    {func(id *Identity) { id.Node = "other" }, ErrOtherNode},
		"newer format":    {func(id *Identity) { id.Format, id.Store = storeFormat+1, "said otherwise" }, ErrNewerFormat},
	} {
		t.Run(name, func(t *testing.T) {
			c := onDisk(t, seeded(t, 1))[0]
			n := startAll(t, []Config{c})[0]
			n.stop()
			id := n.identity
			tc.change(&id)
			raw, err := json.Marshal(id)
			if err != nil {
				t.Fatal(err)
			}
			store := filepath.Join(c.DataDir, "store")
			rewrite(t, store, identityKey, factBytes(raw))
			rewrite(t, store, documentKey, []byte("????not a document that this program knows"))
			if _, err := startOn(t, c, Options{}); !errors.Is(err, tc.want) {
				t.Errorf("started: %v, want %v", err, tc.want)
			}
			if all := aside(t, c); len(all) > 0 {
				t.Errorf("put aside: %v", all)
			}
		})
	}
}

// aside are the stores that were put aside.
func aside(t *testing.T, c Config) (out []string) {
	t.Helper()
	all, err := os.ReadDir(c.DataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, f := range all {
		if strings.HasPrefix(f.Name(), "store.damaged-") {
			out = append(out, f.Name())
		}
	}
	return out
}

func removeAll(t *testing.T, pattern string) {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %v, %v", pattern, all, err)
	}
	for _, name := range all {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// rewrite replaces a value in a store.
func rewrite(t *testing.T, store string, key, value []byte) {
	t.Helper()
	e, err := pebbledb.Open(store, pebbledb.Default())
	if err != nil {
		t.Fatal(err)
	}
	rawSet(t, e, key, value)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

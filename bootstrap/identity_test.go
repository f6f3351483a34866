package bootstrap

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
)

// rawSet writes bytes as they are.
func rawSet(t *testing.T, e storage.Engine, key, value []byte) {
	t.Helper()
	done := make(chan error, 1)
	b := e.NewBatch()
	b.Set(key, value)
	if err := b.Commit(storage.Synced, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func newMemory(t *testing.T) storage.Engine {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func TestStartNumberRises(t *testing.T) {
	e := newMemory(t)
	first, err := claimStore(e, "n1", "c")
	if err != nil || first.Start != 1 || first.StoreID() == [16]byte{} {
		t.Fatalf("first start: %+v, %v", first, err)
	}
	for want := uint64(2); want < 5; want++ {
		id, err := claimStore(e, "n1", "c")
		if err != nil || id.Start != want || id.Store != first.Store {
			t.Fatalf("start %d: %+v, %v", want, id, err)
		}
	}
	other, err := claimStore(newMemory(t), "n1", "c")
	if err != nil || other.Store == first.Store {
		t.Errorf("two stores have the id %s (%v)", other.Store, err)
	}
}

func TestStoreIsRefused(t *testing.T) {
	identity := func(change func(*Identity)) func(storage.Engine) {
		return func(e storage.Engine) {
			id, err := readIdentity(e)
			if err != nil {
				t.Fatal(err)
			}
			change(&id)
			raw, err := json.Marshal(id)
			if err != nil {
				t.Fatal(err)
			}
			rawSet(t, e, identityKey, factBytes(raw))
		}
	}
	for name, tc := range map[string]struct {
		node, cluster string
		spoil         func(storage.Engine)
		want          error
	}{
		"other node":    {"n2", "c", nil, ErrOtherNode},
		"other cluster": {"n1", "d", nil, ErrOtherCluster},
		"newer format":  {"n1", "c", identity(func(id *Identity) { id.Format++ }), ErrNewerFormat},
		"no format":     {"n1", "c", identity(func(id *Identity) { id.Format = 0 }), ErrDamaged},
		"short id":      {"n1", "c", identity(func(id *Identity) { id.Store = "00" }), ErrDamaged},
		"zero id":       {"n1", "c", identity(func(id *Identity) { id.Store = "00000000000000000000000000000000" }), ErrDamaged},
		"not hex":       {"n1", "c", identity(func(id *Identity) { id.Store = "x" }), ErrDamaged},
		"not json":      {"n1", "c", func(e storage.Engine) { rawSet(t, e, identityKey, factBytes([]byte("{"))) }, ErrDamaged},
		"a bit flipped": {"n1", "c", func(e storage.Engine) {
			raw, err := e.Get(nil, identityKey)
			if err != nil {
				t.Fatal(err)
			}
			raw[10] ^= 1
			rawSet(t, e, identityKey, raw)
		}, ErrDamaged},
		"cut off": {"n1", "c", func(e storage.Engine) { rawSet(t, e, identityKey, []byte{1, 2}) }, ErrDamaged},
		"empty":   {"n1", "c", func(e storage.Engine) { rawSet(t, e, identityKey, nil) }, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			e := newMemory(t)
			if _, err := claimStore(e, "n1", "c"); err != nil {
				t.Fatal(err)
			}
			if tc.spoil != nil {
				tc.spoil(e)
			}
			before, err := e.Get(nil, identityKey)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := claimStore(e, tc.node, tc.cluster); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if after, err := e.Get(nil, identityKey); err != nil || string(after) != string(before) {
				t.Error("what was refused was written to")
			}
		})
	}
}

// TestDamagedFacts: a node does not start as a fresh one on facts it cannot
// read.
func TestDamagedFacts(t *testing.T) {
	for name, spoil := range map[string]func(storage.Engine){
		"document":       func(e storage.Engine) { rawSet(t, e, documentKey, factBytes([]byte("junk"))) },
		"empty document": func(e storage.Engine) { rawSet(t, e, documentKey, factBytes(nil)) },
		"no checksum":    func(e storage.Engine) { rawSet(t, e, documentKey, []byte("xxxx")) },
		"intent":         func(e storage.Engine) { rawSet(t, e, intentKey, factBytes([]byte("short"))) },
	} {
		t.Run(name, func(t *testing.T) {
			e := memory.New()
			spoil(e)
			if n, err := startOn(t, testConfig("n1"), Options{Engine: e}); !errors.Is(err, ErrDamaged) || n != nil {
				t.Errorf("got %v, want %v", err, ErrDamaged)
			}
			if err := e.Close(); !errors.Is(err, storage.ErrClosed) {
				t.Errorf("the store was left open: %v", err)
			}
		})
	}
}

func TestDocumentIsKept(t *testing.T) {
	e := newMemory(t)
	if _, found, err := readDocument(e); found || err != nil {
		t.Fatalf("a document in an empty store: %v", err)
	}
	doc, _, err := member.Found(member.Founding{
		ClusterID: member.ClusterID{1}, ClusterName: "c", Partitions: 8,
		Members: []member.Member{{ID: "n1", Capacity: 1, Store: member.StoreID{1}, Start: 1, Address: "h:1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := encodeDocument(doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFact(e, documentKey, raw); err != nil {
		t.Fatal(err)
	}
	if got, found, err := readDocument(e); err != nil || !found || !got.Equal(doc) {
		t.Errorf("got %v, %v, %v", got, found, err)
	}
}

// TestOneProcessPerFolder starts a second node on a folder in use, and nodes
// that are not its owner.
func TestOneProcessPerFolder(t *testing.T) {
	c := testConfig("n1")
	c.DataDir = t.TempDir()
	first := start(t, c)
	if _, err := tryStart(t, c); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("a second node on the folder: %v", err)
	}
	first.stop()
	other := c
	other.Name = "n2"
	if _, err := tryStart(t, other); !errors.Is(err, ErrOtherNode) {
		t.Errorf("another node's folder: %v", err)
	}
	other = c
	other.Cluster = "other"
	if _, err := tryStart(t, other); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("another cluster's folder: %v", err)
	}
	again := start(t, c)
	if again.identity.Start != 2 {
		t.Errorf("start number %d, want 2: the refused ones do not count", again.identity.Start)
	}
}

package pebbledb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dynactor/dynactor/storage"
)

// one is the only file of a store whose name fits.
func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %v, %v", pattern, all, err)
	}
	return all[len(all)-1]
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// TestOpenSaysThatAStoreIsDamaged, and nothing else is: who hears of it puts the store aside.
func TestOpenSaysThatAStoreIsDamaged(t *testing.T) {
	for name, tc := range map[string]struct {
		harm    func(t *testing.T, dir string)
		damaged bool
	}{
		"nothing":             {func(*testing.T, string) {}, false},
		"manifest gone":       {func(t *testing.T, dir string) { remove(t, one(t, dir, "MANIFEST-*")) }, true},
		"manifest empty":      {func(t *testing.T, dir string) { truncate(t, one(t, dir, "MANIFEST-*")) }, true},
		"marker gone":         {func(t *testing.T, dir string) { remove(t, one(t, dir, "marker.manifest.*")) }, true},
		"table gone":          {func(t *testing.T, dir string) { remove(t, one(t, dir, "*.sst")) }, true},
		"file is no folder":   {func(t *testing.T, dir string) { notAFolder(t, dir) }, false},
		"options of no store": {func(t *testing.T, dir string) { remove(t, one(t, dir, "OPTIONS-*")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			e, err := Open(dir, Default())
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3000 {
				b := e.NewBatch()
				b.Set(fmt.Appendf(nil, "key-%06d", i), make([]byte, 100))
				if err := b.Commit(storage.Applied, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.db.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			tc.harm(t, dir)
			e, err = Open(dir, Default())
			if errors.Is(err, storage.ErrDamaged) != tc.damaged {
				t.Errorf("open: %v", err)
			}
			if err == nil {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func truncate(t *testing.T, name string) {
	t.Helper()
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
}

func notAFolder(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReadSaysThatATableIsDamaged: such a key is neither there nor missing.
func TestReadSaysThatATableIsDamaged(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, Default())
	if err != nil {
		t.Fatal(err)
	}
	b := e.NewBatch()
	b.Set([]byte("key"), []byte("value"))
	if err := b.Commit(storage.Applied, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	flipFirstByte(t, dir)
	if e, err = Open(dir, Default()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := e.Get(nil, []byte("key")); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("get: %v", err)
	}
	if err := e.Scan(nil, nil, func(_, _ []byte) bool { return true }); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("scan: %v", err)
	}
}

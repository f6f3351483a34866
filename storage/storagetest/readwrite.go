package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/dynactor/dynactor/storage"
)

func testGet(t *testing.T, e storage.Engine) {
	wantAbsent(t, e, "a")
	commit(t, e, set("a", "1"), set("b", "2"))
	wantValue(t, e, "a", "1")
	wantValue(t, e, "b", "2")
	wantAbsent(t, e, "aa")
	commit(t, e, set("a", "3"), del("b"), del("never"))
	wantValue(t, e, "a", "3")
	wantAbsent(t, e, "b")
}

func testGetAppends(t *testing.T, e storage.Engine) {
	commit(t, e, set("k", "value"))
	got, err := e.Get([]byte("head:"), []byte("k"))
	if err != nil || string(got) != "head:value" {
		t.Fatalf("get = %q, %v", got, err)
	}
	got, err = e.Get([]byte("head:"), []byte("none"))
	if !errors.Is(err, storage.ErrNotFound) || string(got) != "head:" {
		t.Fatalf("get = %q, %v; want dst and ErrNotFound", got, err)
	}
	// The result is the caller's own.
	mine, _ := e.Get(nil, []byte("k"))
	clear(mine)
	wantValue(t, e, "k", "value")
}

func testEmptyKeyAndValue(t *testing.T, e storage.Engine) {
	wantAbsent(t, e, "")
	commit(t, e, set("", "of empty key"), set("k", ""))
	wantValue(t, e, "", "of empty key")
	wantValue(t, e, "k", "")
	want := []string{"=of empty key", "k="}
	if got := scan(t, e, "", ""); !reflect.DeepEqual(got, want) {
		t.Fatalf("scan = %q, want %q", got, want)
	}
	commit(t, e, func(b storage.Batch) { b.Set([]byte("k"), nil) }, del(""))
	wantValue(t, e, "k", "")
	wantAbsent(t, e, "")
}

func testLargeValues(t *testing.T, e storage.Engine) {
	const size = 1 << 20
	value := func(i int) string { return string(bytes.Repeat([]byte{byte('a' + i)}, size)) }
	for i := range 8 {
		commit(t, e, set(fmt.Sprint("large", i), value(i)))
	}
	for i := range 8 {
		wantValue(t, e, fmt.Sprint("large", i), value(i))
	}
	// One batch larger than what an engine may keep in one piece.
	b := e.NewBatch()
	for i := range 8 {
		b.Set(fmt.Append(nil, "large", i), []byte(value(7-i)))
	}
	commit(t, e, func(b2 storage.Batch) {
		for i := range 8 {
			b2.Set(fmt.Append(nil, "large", i), []byte(value(7-i)))
		}
	})
	b.Discard()
	for i := range 8 {
		wantValue(t, e, fmt.Sprint("large", i), value(7-i))
	}
}

func testBuffersMayBeReused(t *testing.T, e storage.Engine) {
	key, value := []byte("key"), []byte("value")
	b := e.NewBatch()
	b.Set(key, value)
	copy(key, "xxx")
	copy(value, "xxxxx")
	b.Delete(key)
	copy(key, "yyy")
	if err := b.Commit(storage.Synced, nil); err != nil {
		t.Fatal(err)
	}
	wantValue(t, e, "key", "value")
	wantAbsent(t, e, "xxx")
	wantAbsent(t, e, "yyy")
}

func testBatchLastWriteWins(t *testing.T, e storage.Engine) {
	commit(t, e, set("a", "1"), set("a", "2"), set("b", "1"), del("b"), del("c"), set("c", "3"))
	want := []string{"a=2", "c=3"}
	if got := scan(t, e, "", ""); !reflect.DeepEqual(got, want) {
		t.Fatalf("scan = %q, want %q", got, want)
	}
}

func testBatchOrderOfKinds(t *testing.T, e storage.Engine) {
	commit(t, e, set("a", "old"), set("b", "old"), set("c", "old"))
	// A range delete takes what came before it, in the batch too, and spares
	// what comes after.
	commit(t, e, set("b", "lost"), delRange("a", "c"), set("a", "new"))
	want := []string{"a=new", "c=old"}
	if got := scan(t, e, "", ""); !reflect.DeepEqual(got, want) {
		t.Fatalf("scan = %q, want %q", got, want)
	}
}

func testBatchLen(t *testing.T, e storage.Engine) {
	b := e.NewBatch()
	defer b.Discard()
	for i, w := range []write{set("a", "1"), set("a", "2"), del("b"), delRange("c", "d")} {
		if b.Len() != i {
			t.Fatalf("len = %d, want %d", b.Len(), i)
		}
		w(b)
	}
	delRange("d", "c")(b) // removes nothing and counts for nothing
	if b.Len() != 4 {
		t.Fatalf("len = %d, want 4", b.Len())
	}
}

func testBatchDiscard(t *testing.T, e storage.Engine) {
	batchOf(e, set("a", "1")).Discard()
	b := batchOf(e, set("b", "1"))
	b.Discard()
	b.Discard()
	e.NewBatch().Discard()
	commit(t, e, set("c", "1")) // may reuse their memory
	want := []string{"c=1"}
	if got := scan(t, e, "", ""); !reflect.DeepEqual(got, want) {
		t.Fatalf("scan = %q, want %q", got, want)
	}
}

// testBatchUsedTwice: use after Commit is a bug of the caller that must not pass
// in silence, because the batch may be another's by then.
func testBatchUsedTwice(t *testing.T, e storage.Engine) {
	for _, use := range []write{
		set("a", "2"), del("a"), delRange("a", "b"),
		func(b storage.Batch) { _ = b.Commit(storage.Synced, nil) },
	} {
		b := batchOf(e, set("a", "1"))
		if err := b.Commit(storage.Synced, nil); err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("use of a committed batch did not panic")
				}
			}()
			use(b)
		}()
	}
	wantValue(t, e, "a", "1")
}

func testEmptyBatch(t *testing.T, e storage.Engine) {
	var l ledger
	for i, d := range []storage.Durability{storage.Synced, storage.Applied, storage.Synced} {
		if err := e.NewBatch().Commit(d, l.expect(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.wait(t); !reflect.DeepEqual(got, []int{0, 1, 2}) {
		t.Fatalf("done in order %v", got)
	}
}

func testDeleteRange(t *testing.T, e storage.Engine) {
	fill := []write{set("", "0"), set("a", "1"), set("b", "2"), set("c", "3"), set("d", "4")}
	for _, c := range []struct {
		lower, upper string
		left         []string
	}{
		{"b", "d", []string{"=0", "a=1", "d=4"}},
		{"b", "b", []string{"=0", "a=1", "b=2", "c=3", "d=4"}},
		{"d", "b", []string{"=0", "a=1", "b=2", "c=3", "d=4"}},
		{"b", "", []string{"=0", "a=1", "b=2", "c=3", "d=4"}},
		{"", "", []string{"=0", "a=1", "b=2", "c=3", "d=4"}},
		{"", "c", []string{"c=3", "d=4"}},
		{"aa", "cc", []string{"=0", "a=1", "d=4"}},
		{"x", "z", []string{"=0", "a=1", "b=2", "c=3", "d=4"}},
		{"", "\xff\xff", nil},
	} {
		commit(t, e, fill...)
		commit(t, e, delRange(c.lower, c.upper))
		if got := scan(t, e, "", ""); !reflect.DeepEqual(got, c.left) {
			t.Errorf("after delete of [%q, %q): %q, want %q", c.lower, c.upper, got, c.left)
		}
	}
}

func testScanBounds(t *testing.T, e storage.Engine) {
	commit(t, e, set("", "0"), set("a", "1"), set("a\x00", "2"), set("b", "3"), set("\xff", "4"))
	for _, c := range []struct {
		lower, upper string
		want         []string
	}{
		{"", "", []string{"=0", "a=1", "a\x00=2", "b=3", "\xff=4"}},
		{"a", "", []string{"a=1", "a\x00=2", "b=3", "\xff=4"}},
		{"a", "b", []string{"a=1", "a\x00=2"}},
		{"a", "a\x00", []string{"a=1"}},
		{"a\x00", "b\x00", []string{"a\x00=2", "b=3"}},
		{"b", "a", nil},
		{"b", "b", nil},
		{"c", "d", nil},
		{"\xff", "", []string{"\xff=4"}},
		{"\xff\xff", "", nil},
	} {
		if got := scan(t, e, c.lower, c.upper); !reflect.DeepEqual(got, c.want) {
			t.Errorf("scan [%q, %q) = %q, want %q", c.lower, c.upper, got, c.want)
		}
	}
	var keys int
	if err := e.Scan(nil, nil, func(_, _ []byte) bool { keys++; return true }); err != nil || keys != 5 {
		t.Errorf("scan with nil bounds: %d keys, %v", keys, err)
	}
}

func testScanStops(t *testing.T, e storage.Engine) {
	commit(t, e, set("a", "1"), set("b", "2"), set("c", "3"))
	var seen []string
	err := e.Scan(nil, nil, func(k, _ []byte) bool {
		seen = append(seen, string(k))
		return len(seen) < 2
	})
	if err != nil || !reflect.DeepEqual(seen, []string{"a", "b"}) {
		t.Fatalf("visited %q, %v", seen, err)
	}
}

func testScanSnapshot(t *testing.T, e storage.Engine) {
	const n = 200
	fill := func(v string) write {
		return func(b storage.Batch) {
			for i := range n {
				b.Set(fmt.Appendf(nil, "k%04d", i), []byte(v))
			}
		}
	}
	commit(t, e, fill("old"))
	visited := 0
	err := e.Scan(nil, nil, func(k, v []byte) bool {
		if visited == 0 {
			commit(t, e, fill("new"), set("k9999", "new"), del("k0100"))
			commit(t, e, delRange("k0150", "k0160"))
		}
		if string(v) != "old" {
			t.Errorf("scan sees a later write: %s=%s", k, v)
			return false
		}
		visited++
		return true
	})
	if err != nil || visited != n {
		t.Fatalf("visited %d of %d, %v", visited, n, err)
	}
	wantValue(t, e, "k0000", "new")
	wantAbsent(t, e, "k0100")
	wantAbsent(t, e, "k0155")
}

func testScanVisitMayUseEngine(t *testing.T, e storage.Engine) {
	commit(t, e, set("a", "1"), set("b", "2"))
	inner := 0
	err := e.Scan(nil, nil, func(k, v []byte) bool {
		wantValue(t, e, string(k), string(v))
		inner += len(scan(t, e, "", ""))
		return true
	})
	if err != nil || inner != 4 {
		t.Fatalf("%d inner entries, %v", inner, err)
	}
}

// testDrop: the range is gone, whatever a cache has of it, its neighbours are not, and it can
// be written again.
func testDrop(t *testing.T, e storage.Engine) {
	for _, k := range []string{"a", "b", "b1", "c", "d"} {
		commit(t, e, set(k, "1"))
		wantValue(t, e, k, "1")
	}
	drop := func(lower, upper string) {
		t.Helper()
		if err := e.Drop([]byte(lower), []byte(upper)); err != nil {
			t.Fatal(err)
		}
	}
	drop("b", "c")
	wantAbsent(t, e, "b")
	wantAbsent(t, e, "b1")
	want := []string{"a=1", "c=1", "d=1"}
	if got := scan(t, e, "", ""); !reflect.DeepEqual(got, want) {
		t.Fatalf("scan = %q, want %q", got, want)
	}
	commit(t, e, set("b", "2"), set("bb", "2"))
	drop("c", "b")
	drop("b", "b")
	drop("b", "")
	drop("bb", "bc")
	want = []string{"a=1", "b=2", "c=1", "d=1"}
	if got := scan(t, e, "", ""); !reflect.DeepEqual(got, want) {
		t.Fatalf("scan = %q, want %q", got, want)
	}
	drop("", "z")
	if got := scan(t, e, "", ""); len(got) > 0 {
		t.Fatalf("scan = %q", got)
	}
}

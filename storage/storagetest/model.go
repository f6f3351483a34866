package storagetest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/storage"
)

// testModel walks at random and compares with a map after every step.
func testModel(t *testing.T, open Open) {
	rapid.Check(t, func(rt *rapid.T) {
		e := open(t)
		defer func() {
			if err := e.Close(); err != nil {
				rt.Fatalf("close: %v", err)
			}
		}()
		m := &model{e: e, want: map[string]string{}}
		rt.Repeat(map[string]func(*rapid.T){
			"commit": m.commit,
			"get":    m.get,
			"scan":   m.scan,
			"drop":   m.drop,
			"":       func(*rapid.T) {},
		})
		m.l.count.Wait()
		m.compare(rt, "", "")
		for i, id := range m.l.ids {
			if i != id || m.l.errs[i] != nil {
				rt.Fatalf("done number %d was for commit %d: %v", i, id, m.l.errs[i])
			}
		}
	})
}

// model is an engine and what it should hold.
type model struct {
	e    storage.Engine
	want map[string]string
	l    ledger
	n    int
}

// keys are few and near each other, so that writes meet. What is written is not at the empty
// key: Pebble panics over tables that begin with it, and Drop has it write tables.
var (
	keys    = rapid.StringMatching(`[a-c\x00]{0,3}`)
	written = rapid.StringMatching(`[a-c\x00]{1,3}`)
)

func (m *model) commit(t *rapid.T) {
	b := m.e.NewBatch()
	next := maps.Clone(m.want)
	for range rapid.IntRange(0, 6).Draw(t, "writes") {
		key := written.Draw(t, "key")
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			b.Delete([]byte(key))
			delete(next, key)
		case 1:
			upper := keys.Draw(t, "upper")
			b.DeleteRange([]byte(key), []byte(upper))
			maps.DeleteFunc(next, func(k, _ string) bool { return key <= k && k < upper })
		default:
			value := rapid.StringN(0, 8, 64).Draw(t, "value")
			b.Set([]byte(key), []byte(value))
			next[key] = value
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "discard") == 0 {
		b.Discard()
		return
	}
	d := rapid.SampledFrom([]storage.Durability{storage.Synced, storage.Applied, storage.Vital}).Draw(t, "durability")
	if err := b.Commit(d, m.l.expect(m.n)); err != nil {
		t.Fatalf("commit: %v", err)
	}
	m.n++
	m.want = next
}

func (m *model) drop(t *rapid.T) {
	lower, upper := keys.Draw(t, "lower"), keys.Draw(t, "upper")
	if err := m.e.Drop([]byte(lower), []byte(upper)); err != nil {
		t.Fatalf("drop: %v", err)
	}
	maps.DeleteFunc(m.want, func(k, _ string) bool { return lower <= k && k < upper })
}

func (m *model) get(t *rapid.T) {
	key := keys.Draw(t, "key")
	got, err := m.e.Get(nil, []byte(key))
	want, ok := m.want[key]
	if (err == nil) != ok || string(got) != want {
		t.Fatalf("get %q = %q, %v; want %q, %v", key, got, err, want, ok)
	}
}

func (m *model) scan(t *rapid.T) {
	m.compare(t, keys.Draw(t, "lower"), keys.Draw(t, "upper"))
}

// compare compares the entries of [lower, upper) and their order.
func (m *model) compare(t *rapid.T, lower, upper string) {
	var want, got []string
	for _, k := range slices.Sorted(maps.Keys(m.want)) {
		if k >= lower && (upper == "" || k < upper) {
			want = append(want, fmt.Sprintf("%q=%q", k, m.want[k]))
		}
	}
	err := m.e.Scan([]byte(lower), []byte(upper), func(k, v []byte) bool {
		got = append(got, fmt.Sprintf("%q=%q", k, v))
		return true
	})
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("scan [%q, %q) = %v, %v; want %v", lower, upper, got, err, want)
	}
}

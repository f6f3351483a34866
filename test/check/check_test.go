package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/test/journal"
)

// The operations of a journal in short: times grow by two an operation.
func put(id string, how journal.Outcome, saw ...string) journal.Op {
	return journal.Op{Kind: journal.Put, Key: "k", ID: id, Outcome: how, Context: len(saw) > 0, Saw: saw}
}

func del(id string, how journal.Outcome, saw ...string) journal.Op {
	return journal.Op{Kind: journal.Delete, Key: "k", ID: id, Outcome: how, Context: true, Saw: saw}
}

func get(values ...string) journal.Op {
	return journal.Op{Kind: journal.Get, Key: "k", Read: values, Outcome: journal.OK}
}

func timed(ops ...journal.Op) []journal.Op {
	for i := range ops {
		ops[i].Start += time.Duration(2 * i)
		ops[i].End += time.Duration(2*i + 1)
	}
	return ops
}

func whole(values ...string) journal.Final { return journal.Final{Key: "k", Values: values} }

func replica(name string, versions ...string) journal.Final {
	f := journal.Final{Key: "k", Replica: name}
	for _, v := range versions {
		value, dot, _ := strings.Cut(v, "@")
		f.Values, f.Dots = append(f.Values, value), append(f.Dots, dot)
	}
	return f
}

// overlapping lets an operation end after all others.
func overlapping(op journal.Op) journal.Op {
	op.End = time.Duration(1000)
	return op
}

const ok, unsure, failed = journal.OK, journal.Unknown, journal.Failed

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name   string
		ops    []journal.Op
		final  []journal.Final
		strict bool
		want   []Kind
	}{
		{name: "siblings", ops: []journal.Op{put("a", ok), put("b", ok), get("a", "b")}, final: []journal.Final{whole("b", "a")}, strict: true},
		{name: "a merge", ops: []journal.Op{put("a", ok), put("b", ok), get("b", "a"), put("c", ok, "a", "b"), get("c")}, final: []journal.Final{whole("c")}, strict: true},
		{name: "a chain", ops: []journal.Op{put("a", ok), put("b", ok, "a"), put("c", ok, "b"), get("c")}, final: []journal.Final{whole("c")}, strict: true},
		{name: "an unknown write took effect", ops: []journal.Op{put("a", ok), put("b", unsure, "a")}, final: []journal.Final{whole("b")}},
		{name: "an unknown write did not", ops: []journal.Op{put("a", ok), put("b", unsure, "a")}, final: []journal.Final{whole("a")}},
		{name: "an unknown delete took effect", ops: []journal.Op{put("a", ok), del("d", unsure, "a"), get()}, final: []journal.Final{whole()}, strict: true},
		{name: "an unknown delete did not", ops: []journal.Op{put("a", ok), del("d", unsure, "a"), get("a")}, final: []journal.Final{whole("a")}, strict: true},
		{name: "deleted and written again", ops: []journal.Op{put("a", ok), del("d", ok, "a"), put("b", ok), get("b")}, final: []journal.Final{whole("b")}, strict: true},
		{name: "a delete beside a put", ops: []journal.Op{put("a", ok), put("b", ok, "a"), del("d", ok, "a"), get("b")}, final: []journal.Final{whole("b")}, strict: true},
		{name: "a write during the read", ops: []journal.Op{overlapping(put("a", ok)), get()}, final: []journal.Final{whole("a")}, strict: true},
		{name: "a delete during the read", ops: []journal.Op{put("a", ok), overlapping(del("d", ok, "a")), get("a"), get()}, final: []journal.Final{whole()}, strict: true},
		{name: "replicas", ops: []journal.Op{put("a", ok), put("b", ok)}, final: []journal.Final{whole("a", "b"), replica("n1", "a@1", "b@2"), replica("n2", "b@2", "a@1")}},

		{name: "lost", ops: []journal.Op{put("a", ok), put("b", ok)}, final: []journal.Final{whole("a")}, want: []Kind{Lost}},
		{name: "lost though a failed write had seen it", ops: []journal.Op{put("a", ok), put("b", failed, "a")}, final: []journal.Final{whole()}, want: []Kind{Lost}},
		{name: "lost with what it replaced", ops: []journal.Op{put("a", ok), put("b", ok, "a")}, final: []journal.Final{whole()}, want: []Kind{Lost, Lost}},
		{name: "lost though an unknown write had seen it, which is not there", ops: []journal.Op{put("a", ok), put("b", unsure, "a")}, final: []journal.Final{whole()}, want: []Kind{Lost}},
		{name: "lost by a delete that had not seen it", ops: []journal.Op{put("a", ok), put("b", ok), del("d", ok, "a")}, final: []journal.Final{whole()}, want: []Kind{Lost}},
		{name: "a failed write is there", ops: []journal.Op{put("a", failed)}, final: []journal.Final{whole("a")}, want: []Kind{Ghost}},
		{name: "a failed write was read", ops: []journal.Op{put("a", failed), get("a")}, final: []journal.Final{whole()}, want: []Kind{Ghost}},
		{name: "a value of nobody", ops: []journal.Op{put("a", ok)}, final: []journal.Final{whole("a", "x")}, want: []Kind{Foreign}},
		{name: "a deleted value is back", ops: []journal.Op{put("a", ok), del("d", ok, "a"), get()}, final: []journal.Final{whole("a")}, want: []Kind{Resurrected}},
		{name: "a deleted value is back, at a remove", ops: []journal.Op{put("a", ok), put("b", ok, "a"), del("d", ok, "b")}, final: []journal.Final{whole("a")}, want: []Kind{Resurrected, Resurrected}},
		{name: "a replaced value is back alone", ops: []journal.Op{put("a", ok), put("b", ok, "a")}, final: []journal.Final{whole("a")}, want: []Kind{Lost, Resurrected}},
		{name: "a replaced value is beside its successor", ops: []journal.Op{put("a", ok), put("b", unsure, "a"), get("a", "b")}, final: []journal.Final{whole("b")}, want: []Kind{Zombie}},
		{name: "a read misses a write", ops: []journal.Op{put("a", ok), get()}, final: []journal.Final{whole("a")}, strict: true, want: []Kind{Stale}},
		{name: "a read misses a successor", ops: []journal.Op{put("a", ok), put("b", ok, "a"), get("a")}, final: []journal.Final{whole("b")}, strict: true, want: []Kind{Stale}},
		{name: "a read misses a write that a later delete replaced", ops: []journal.Op{put("a", ok), get(), del("d", ok, "a")}, final: []journal.Final{whole()}, strict: true, want: []Kind{Stale}},
		{name: "the same where fallbacks may have taken part", ops: []journal.Op{put("a", ok), get()}, final: []journal.Final{whole("a")}},
		{name: "replicas differ in values", ops: []journal.Op{put("a", ok)}, final: []journal.Final{whole("a"), replica("n1", "a@1"), replica("n2")}, want: []Kind{Unequal}},
		{name: "replicas differ in dots", ops: []journal.Op{put("a", ok)}, final: []journal.Final{whole("a"), replica("n1", "a@1"), replica("n2", "a@2")}, want: []Kind{Unequal}},
		{name: "nobody looked", ops: []journal.Op{put("a", ok)}, want: []Kind{Unread}},
		{name: "an id twice", ops: []journal.Op{put("a", ok), put("a", ok)}, final: []journal.Final{whole("a")}, want: []Kind{Reused}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			findings := Check(timed(tc.ops...), tc.final, Options{Strict: tc.strict})
			var got []Kind
			for _, f := range findings {
				got = append(got, f.Kind)
			}
			if strings.Join(words(got), " ") != strings.Join(words(tc.want), " ") {
				t.Errorf("found %v, want %v: %v", got, tc.want, findings)
			}
		})
	}
}

func words(kinds []Kind) []string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = string(k)
	}
	return out
}

// TestProgram runs the program on files: a clean run, one with a loss, and what it
// cannot read.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	ops, final := filepath.Join(dir, "ops"), filepath.Join(dir, "final")
	write(t, ops, timed(put("a", ok), put("b", ok, "a"), get("b"))...)
	for _, tc := range []struct {
		name  string
		final journal.Final
		code  int
		want  string
	}{
		{"clean", whole("b"), clean, "findings=0\n"},
		{"a loss", whole(), wrong, "lost: k: b, acknowledged at "},
	} {
		write(t, final, tc.final)
		var out, errs bytes.Buffer
		if code := run([]string{"-strict", "-final", final, ops}, &out, &errs); code != tc.code || !strings.Contains(out.String(), tc.want) ||
			!strings.Contains(out.String(), "put    ok=2 unknown=0 failed=0\n") {
			t.Errorf("%s: status %d\n%s%s", tc.name, code, &out, &errs)
		}
	}
	if err := os.WriteFile(ops, []byte(`{"kind":"put"`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{ops}, {"-final", ops}, {"-nonsense"}, {filepath.Join(dir, "none")}} {
		var out, errs bytes.Buffer
		if code := run(args, &out, &errs); code != unknown || errs.Len() == 0 {
			t.Errorf("%v: status %d, %s%s", args, code, &out, &errs)
		}
	}
}

func write[T any](t *testing.T, path string, lines ...T) {
	t.Helper()
	w, err := journal.Create[T](path)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		w.Write(l)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// interrupted returns a file of records with the mark of an import of it that
// has come to the end of the third line, of which the first one failed.
func interrupted(t *testing.T, of place) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "in.jsonl")
	text := "broken\n\n"
	for i := 3; i <= 6; i++ {
		text += fmt.Sprintf("{\"id\":\"r%d\"}\n", i)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	of.Size, of.Modified = info.Size(), info.ModTime()
	m := newMark(file+".progress", of)
	for _, r := range []begun{{1, 7}, {3, 19}, {4, 31}, {5, 43}} {
		m.begin(r.line, r.end)
	}
	m.done(1, true)
	m.done(4, false)
	m.done(3, false)
	m.place.Line, m.place.Offset, m.place.Done = 3, 19, 1 // line 4 is done once more
	m.save()
	return file
}

func TestMarkFollowsTheGap(t *testing.T) {
	m := newMark(filepath.Join(t.TempDir(), "mark"), place{Bucket: "b", Key: "id", Size: 50})
	for line := int64(1); line <= 4; line++ {
		m.begin(line, line*10)
	}
	m.done(1, false)
	m.done(3, true)
	if m.place.Offset != 10 || m.place.Failed != 0 {
		t.Fatalf("line 2 is not done, the mark is %+v", m.place)
	}
	m.written = time.Time{}
	m.done(2, false)
	again := newMark(m.path, place{Bucket: "b", Key: "id", Size: 50})
	if err := again.read(); err != nil || again.place != m.place {
		t.Fatalf("an interrupted import goes on at %+v, %v; left was %+v", again.place, err, m.place)
	}
	if p := again.place; p.Line != 3 || p.Offset != 30 || p.Done != 2 || p.Failed != 1 {
		t.Fatalf("the mark is %+v", p)
	}
	for _, of := range []place{
		{Bucket: "other", Key: "id", Size: 50}, {Bucket: "b", Key: "name", Size: 50}, {Bucket: "b", Key: "id", Size: 51},
		{Bucket: "b", Key: "id", Size: 50, Modified: time.Unix(1, 0)},
	} {
		if err := newMark(m.path, of).read(); err == nil || !strings.Contains(err.Error(), "--restart") {
			t.Errorf("the mark of another import was taken for %+v: %v", of, err)
		}
	}
	if err := again.remove(); err != nil {
		t.Fatal(err)
	}
	if gone := newMark(m.path, place{}); gone.read() != nil || gone.place != (place{}) {
		t.Fatalf("after the end: %+v", gone.place)
	}
}

// TestImportGoesOnAfterAnInterruption: what failed before the interruption is
// neither forgotten nor taken out of the file of failed records.
func TestImportGoesOnAfterAnInterruption(t *testing.T) {
	at := cluster(t)
	file := interrupted(t, place{Bucket: "half", Key: "id"})
	if err := os.WriteFile(file+".failed", []byte("broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"import", "--bucket", "half", "--key", "id", file}, at...)
	r := node(t, "", args...)
	if r.code != exitFailed || !strings.Contains(r.out, "imported 4, failed 1") || !strings.Contains(r.err, "after line 3") {
		t.Fatalf("exit status %d: %s%s", r.code, r.out, r.err)
	}
	if failed, err := os.ReadFile(file + ".failed"); err != nil || string(failed) != "broken\n" {
		t.Fatalf("failed records: %q, %v", failed, err)
	}
	if _, err := os.Stat(file + ".progress"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the mark is still there: %v", err)
	}
	got := must(t, "", append([]string{"export", "--bucket", "half"}, at...)...)
	if strings.Count(got, "\n") != 3 || strings.Contains(got, "r3") {
		t.Fatalf("lines 4 to 6 are to be imported: %s", got)
	}

	file = interrupted(t, place{Bucket: "half", Key: "id"})
	if r := node(t, "", append([]string{"import", "--bucket", "half", "--key", "other", file}, at...)...); r.code != exitFailed || !strings.Contains(r.err, `--key "id"`) {
		t.Fatalf("exit status %d: %s%s", r.code, r.out, r.err)
	}
}

package page_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/bootstrap/page"
	"github.com/dynactor/dynactor/client/lookup"
	"github.com/dynactor/dynactor/dynamo"
)

// patience is how long something may take that must happen.
const patience = 20 * time.Second

// get fetches something of a node's page.
func (c *cluster) get(t *testing.T, node int, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.pages[node]+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w, b
}

// stream reads a node's events.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	r    *bufio.Reader
}

func (c *cluster) stream(t *testing.T, node int) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.pages[node]+"/api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Body.Close() })
	if w.StatusCode != http.StatusOK || w.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %s", w.Status, w.Header.Get("Content-Type"))
	}
	return &stream{t, w.Body, bufio.NewReader(w.Body)}
}

// event is the next one; an error when there is none any more.
func (s *stream) event() (name string, data []byte, err error) {
	for {
		line, err := s.r.ReadBytes('\n')
		if err != nil {
			return "", nil, err
		}
		switch line = bytes.TrimSuffix(line, []byte("\n")); {
		case len(line) == 0:
			return name, data, nil
		case bytes.HasPrefix(line, []byte("event: ")):
			name = string(line[7:])
		case bytes.HasPrefix(line, []byte("data: ")):
			data = line[6:]
		}
	}
}

// next is the next event of a name.
func next[T any](s *stream, name string) (out T) {
	s.t.Helper()
	for {
		got, data, err := s.event()
		if err != nil {
			s.t.Fatal(err)
		}
		if got != name {
			continue
		}
		if err := json.Unmarshal(data, &out); err != nil {
			s.t.Fatal(err)
		}
		return out
	}
}

// until is the first snapshot that something holds of.
func (s *stream) until(what string, holds func(page.Snapshot) bool) page.Snapshot {
	s.t.Helper()
	var last page.Snapshot
	for {
		got, data, err := s.event()
		if err != nil {
			s.t.Fatalf("%s never came, but %+v: %v", what, last, err)
		}
		last = page.Snapshot{}
		if got == "snapshot" {
			if err := json.Unmarshal(data, &last); err != nil {
				s.t.Fatal(err)
			}
			if holds(last) {
				return last
			}
		}
	}
}

// TestFiles: the page and what it needs come from the node, and it says to browsers that nothing
// else may.
func TestFiles(t *testing.T) {
	c := start(t)
	_, index := c.get(t, 0, "/")
	paths := []string{"/"}
	for _, part := range strings.Split(string(index), `"`) {
		if strings.HasPrefix(part, "/assets/") {
			paths = append(paths, part)
		}
	}
	if len(paths) < 5 {
		t.Fatalf("the page has only %q", paths)
	}
	for _, path := range append(paths, "/assets/ring.js", "/assets/plot.js", "/assets/vendor/LICENSE") {
		w, body := c.get(t, 0, path)
		if w.StatusCode != http.StatusOK || len(body) == 0 || !strings.Contains(w.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %s, %d bytes, %v", path, w.Status, len(body), w.Header)
		}
	}
	for path, want := range map[string]int{"/nothing": http.StatusNotFound, "/assets/nothing": http.StatusNotFound, "/api/": http.StatusNotFound} {
		if w, _ := c.get(t, 0, path); w.StatusCode != want {
			t.Errorf("%s: %s", path, w.Status)
		}
	}
	if w, _ := c.get(t, 0, "/api/key?bucket=a&key=b", "Sec-Fetch-Site", "cross-site"); w.StatusCode != http.StatusForbidden {
		t.Errorf("another site's page may ask: %s", w.Status)
	}
	w, err := http.Post(c.pages[0]+"/api/key?bucket=a&key=b", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.Body.Close(); w.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST: %s", w.Status)
	}
}

// TestEvents: a page begins with the ring and gets what the nodes do, and who comes later gets the
// same.
func TestEvents(t *testing.T) {
	c := start(t)
	s := c.stream(t, 0)
	r := next[page.Ring](s, "ring")
	d := c.Nodes[0].Document()
	if !slices.Equal(r.Nodes, []string{"n1", "n2", "n3"}) || len(r.Owners) != 16 || r.Version != d.Version || len(r.Next)+len(r.Filling)+len(r.Lost) > 0 {
		t.Errorf("%+v", r)
	}
	for p, owners := range r.Owners {
		var names []string
		for _, i := range owners {
			names = append(names, r.Nodes[i])
		}
		if want := fmt.Sprint(d.Settled.Primaries(dynamo.Partition(p), 3)); fmt.Sprint(names) != want {
			t.Errorf("partition %d has the owners %v, want %v", p, names, want)
		}
	}
	const gets, puts = 7, 5
	before := s.until("all nodes", func(s page.Snapshot) bool {
		return len(s.Nodes) == 3 && !slices.ContainsFunc(s.Nodes, func(n page.Node) bool { return !n.Answered }) && s.AAE.Pairs == 48
	})
	if before.Self != "n1" || before.Cluster != c.Name || len(before.Problems) > 0 {
		t.Errorf("%+v", before)
	}
	b := c.client.Bucket("carts")
	for i := range puts {
		if _, err := b.Put(t.Context(), fmt.Sprint(i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range gets {
		if _, err := b.Get(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	var got, put float64
	last := before.At
	s.until("the requests", func(s page.Snapshot) bool {
		took := float64(s.At-last) / 1000
		last = s.At
		got, put = got+s.Sum.Gets*took, put+s.Sum.Puts*took
		return got > gets-0.5 && put > puts-0.5 && s.Sum.P50 > 0 && s.Sum.P50 <= s.Sum.P999
	})
	if got > gets+0.5 || put > puts+0.5 {
		t.Errorf("%.2f gets and %.2f puts, want %d and %d", got, put, gets, puts)
	}
	late := c.stream(t, 0)
	if points := next[[]page.Point](late, "history"); len(points) < 2 {
		t.Errorf("who comes later gets %d points of before", len(points))
	}
	if again := next[page.Ring](late, "ring"); again.Version != r.Version {
		t.Errorf("and the ring %+v", again)
	}
}

// TestEventsOfADeadNode: what is known of the others is shown, and who did not answer.
func TestEventsOfADeadNode(t *testing.T) {
	c := start(t)
	s := c.stream(t, 0)
	s.until("all nodes", func(s page.Snapshot) bool { return len(s.Nodes) == 3 && s.Nodes[2].Answered })
	c.stop(t, 2)
	got := s.until("the dead node", func(s page.Snapshot) bool {
		return len(s.Nodes) == 3 && !s.Nodes[2].Reachable && !s.Nodes[2].Answered && s.Nodes[1].Answered && len(s.Problems) > 0
	})
	if !strings.Contains(strings.Join(got.Problems, "\n"), "n3") {
		t.Errorf("%q", got.Problems)
	}
	c.stop(t, 0) // while somebody watches
	for {
		if _, _, err := s.event(); err != nil {
			break
		}
	}
}

// TestKey: a look-up tells what the console tells, of names with any bytes.
func TestKey(t *testing.T) {
	c := start(t)
	name := "a\x00b\x1b]0;\u202e"
	if _, err := c.client.Bucket("carts").Put(t.Context(), name, []byte("secret value")); err != nil {
		t.Fatal(err)
	}
	ask := func(bucket, key string) (int, lookup.Report, string) {
		t.Helper()
		w, body := c.get(t, 1, "/api/key?"+url.Values{"bucket": {bucket}, "key": {key}}.Encode())
		var out struct {
			lookup.Report
			Error string `json:"error"`
		}
		if err := json.Unmarshal(body, &out); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if bytes.Contains(body, []byte("secret")) || bytes.ContainsAny(body, "\x00\x1b\u202e") {
			t.Errorf("%q", body)
		}
		return w.StatusCode, out.Report, out.Error
	}
	for _, typed := range []string{name, fmt.Sprintf("%q", name)} {
		status, r, problem := ask("carts", typed)
		if status != http.StatusOK || problem != "" || len(r.Nodes) != 3 || len(r.Versions) != 1 || r.Versions[0].Size != 12 {
			t.Errorf("%q: %d %q %+v", typed, status, problem, r)
		}
	}
	if status, r, _ := ask("carts", "nobody"); status != http.StatusOK || len(r.Versions) != 0 || len(r.Findings) == 0 {
		t.Errorf("%d %+v", status, r)
	}
	for _, bad := range [][2]string{{"carts", `"\x"`}, {"carts", ""}, {"", "k"}, {"carts", strings.Repeat("x", 70_000)}} {
		if status, _, problem := ask(bad[0], bad[1]); status != http.StatusBadRequest || problem == "" {
			t.Errorf("%.20q: %d %q", bad, status, problem)
		}
	}
}

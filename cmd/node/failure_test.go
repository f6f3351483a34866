package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
)

// hints is how many records the process keeps for others.
func (p *process) hints(t *testing.T) int {
	t.Helper()
	resp, err := http.Get("http://" + p.http + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var s struct {
		Health struct {
			Hints struct {
				Records int `json:"records"`
			} `json:"hints"`
		} `json:"health"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s.Health.Hints.Records
}

// eventually polls a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// connect makes a client of some of the processes.
func connect(t *testing.T, nodes ...*process) *client.Client {
	t.Helper()
	config := client.Default()
	config.Nodes = nil
	for _, n := range nodes {
		config.Nodes = append(config.Nodes, n.address)
	}
	cl, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	return cl
}

// TestHintsReachTheNodeThatWasAway: a node of three is killed, writes go on, and
// once it is back it gets them without any read: it shows them when it is the
// only one left.
func TestHintsReachTheNodeThatWasAway(t *testing.T) {
	nodes := processes(t, 3)
	b := connect(t, nodes...).Bucket("b")
	nodes[1].end(t, syscall.SIGKILL)
	const keys = 300
	for i := range keys {
		if _, err := b.Put(t.Context(), fmt.Sprintf("k%d", i), []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	kept := func() int { return nodes[0].hints(t) + nodes[2].hints(t) }
	eventually(t, "a hint for each write", func() bool { return kept() == keys })
	nodes[0].end(t, syscall.SIGKILL) // hints survive those who keep them
	nodes[0].start(t)
	nodes[0].waitReady(t)
	if n := kept(); n != keys {
		t.Errorf("%d hints of %d after a crash", n, keys)
	}
	nodes[1].start(t)
	nodes[1].waitReady(t)
	eventually(t, "all hints delivered", func() bool { return kept() == 0 })
	nodes[0].end(t, syscall.SIGKILL)
	nodes[2].end(t, syscall.SIGKILL)
	alone := connect(t, nodes[1]).Bucket("b")
	for i := range keys {
		key := fmt.Sprintf("k%d", i)
		o, err := alone.Get(t.Context(), key, client.R(1))
		if err != nil || len(o.Values) != 1 {
			t.Fatalf("%s alone: %d values, %v", key, len(o.Values), err)
		}
	}
}

// TestSloppyQuorumOfProcesses: with two nodes of five dead every key can be
// written and read, also where two of three primaries are the dead ones; pw = 2
// fails there, and says why.
func TestSloppyQuorumOfProcesses(t *testing.T) {
	nodes := processes(t, 5)
	b := connect(t, nodes[0], nodes[1], nodes[2]).Bucket("b")
	const keys = 200
	for i := range keys / 2 {
		if _, err := b.Put(t.Context(), fmt.Sprintf("k%d", i), []byte("before")); err != nil {
			t.Fatal(err)
		}
	}
	nodes[3].end(t, syscall.SIGKILL)
	nodes[4].end(t, syscall.SIGKILL)
	strict := 0
	for i := range keys {
		key := fmt.Sprintf("k%d", i)
		want := "after"
		if i < keys/2 {
			want = "before,after"
			_, err := b.Update(t.Context(), key, union, func(old []byte) ([]byte, error) { return append(old, ",after"...), nil })
			if err != nil {
				t.Fatalf("update %s: %v", key, err)
			}
		} else if _, err := b.Put(t.Context(), key, []byte(want)); err != nil {
			t.Fatalf("put %s: %v", key, err)
		}
		o, err := b.Get(t.Context(), key)
		if err != nil || len(o.Values) != 1 || string(o.Values[0].Value) != want {
			t.Fatalf("%s: %v, %v", key, o.Values, err)
		}
		var e *client.Error
		if _, err := b.Put(t.Context(), "strict"+key, nil, client.PW(2), client.Timeout(300*time.Millisecond)); errors.As(err, &e) {
			strict++
			if e.PrimariesNeeded != 2 || e.PrimariesAnswered > 1 || !strings.Contains(err.Error(), "of 2 primaries") {
				t.Errorf("pw=2: %v", err)
			}
		}
	}
	// Of the ten sets of three nodes, three hold both of the dead.
	if strict < keys/10 || strict > keys*2/3 {
		t.Errorf("%d of %d writes failed for lack of primaries", strict, keys)
	}
	nodes[3].start(t)
	nodes[4].start(t)
	nodes[3].waitReady(t)
	nodes[4].waitReady(t)
	eventually(t, "all hints delivered", func() bool {
		left := 0
		for _, n := range nodes {
			left += n.hints(t)
		}
		return left == 0
	})
	for i := range keys {
		if o, err := b.Get(t.Context(), fmt.Sprintf("k%d", i)); err != nil || len(o.Values) != 1 {
			t.Errorf("k%d: %v, %v", i, o.Values, err)
		}
	}
}

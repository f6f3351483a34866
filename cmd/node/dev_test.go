package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// output collects what a process prints and lets a test wait for it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) wait(t *testing.T, want string) string {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(o.String(), want) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%q was not printed:\n%s", want, o.String())
		}
	}
	return o.String()
}

// TestDev runs node dev as a user does: it founds a cluster, tells of a node
// that dies, stops all on Ctrl-C, and finds the data again.
func TestDev(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir, port := t.TempDir(), freePorts(t, 4)
	at := "--node=127.0.0.1:" + strconv.Itoa(port+10)
	run := func(nodes int, during func(out *output, pids []int)) {
		t.Helper()
		var out output
		cmd := command("dev", "--data-dir", dir, "--port", strconv.Itoa(port), "--partitions", "16", "--nodes", strconv.Itoa(nodes))
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		text := out.wait(t, "Ctrl-C stops")
		var pids []int
		for i, m := range regexp.MustCompile(`(?m)^n\d +127\.0\.0\.1:(\d+) +http://127\.0\.0\.1:(\d+) +(\d+) +16$`).FindAllStringSubmatch(text, -1) {
			if m[1] != strconv.Itoa(port+10*i) || m[2] != strconv.Itoa(port+10*i+1) {
				t.Errorf("node %d is at %s and %s", i, m[1], m[2])
			}
			pid, err := strconv.Atoi(m[3])
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		if len(pids) != nodes {
			t.Fatalf("the table does not show %d nodes:\n%s", nodes, text)
		}
		during(&out, pids)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("node dev ended with %v:\n%s", err, out.String())
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, 0); err == nil {
				t.Errorf("node process %d is still there", pid)
			}
		}
	}
	run(3, func(*output, []int) { must(t, "", "put", "hello", "world", at) })
	run(3, func(out *output, pids []int) {
		other := node(t, "", "dev", "--data-dir", t.TempDir(), "--port", strconv.Itoa(port))
		if other.code != exitFailed || !strings.Contains(other.err, "is another cluster running?") {
			t.Errorf("a second cluster on the same ports: exit status %d, %s", other.code, other.err)
		}
		if got := must(t, "", "get", "hello", at); got != "world" {
			t.Errorf("the data was not found again: %q", got)
		}
		if err := syscall.Kill(pids[2], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		out.wait(t, fmt.Sprintf("n3 (pid %d) ended", pids[2]))
		out.wait(t, "start --name=n3")
		if got := must(t, "", "get", "hello", at); got != "world" {
			t.Errorf("with two of three nodes: %q", got)
		}
	})
	r := node(t, "", "dev", "--data-dir", dir, "--nodes", "2", "--port", strconv.Itoa(port))
	if r.code != exitFailed || !strings.Contains(r.err, "holds a cluster of 3 nodes") {
		t.Errorf("fewer nodes: exit status %d, %s", r.code, r.err)
	}
	// One more joins, and one whose folder is gone gets its data back.
	if err := os.RemoveAll(filepath.Join(dir, "n2")); err != nil {
		t.Fatal(err)
	}
	run(4, func(*output, []int) {
		eventually(t, "four members and an end of the movement", func() bool {
			members := must(t, "", "cluster", "members", "--json", at)
			return strings.Count(members, `"status":"up"`) == 4 && strings.Contains(members, `"moving":false`)
		})
		if got := must(t, "", "get", "hello", "--r", "3", at); got != "world" {
			t.Errorf("read %q", got)
		}
	})
	if _, err := os.Stat(filepath.Join(dir, "logs", "n1.log")); err != nil {
		t.Error(err)
	}
	text, err := command("dev", "--data-dir", dir, "--nodes", "4", "--cluster", "other", "--port", strconv.Itoa(port)).CombinedOutput()
	if err == nil || !strings.Contains(string(text), "data directory belongs to another cluster") || strings.Contains(string(text), "level=INFO") {
		t.Errorf("with the data of another cluster: %v, %s", err, text)
	}
}

func TestCommandLine(t *testing.T) {
	got := commandLine([]string{"/bin/node", "--data-dir=/my data/it's", "--seed=127.0.0.1:7800"})
	if want := `/bin/node '--data-dir=/my data/it'\''s' --seed=127.0.0.1:7800`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestDevTellsWhoEnded: a node that cannot start ends the whole at once, with
// its own words. The others only wait for it.
func TestDevTellsWhoEnded(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "n3"), []byte("no folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command("dev", "--data-dir", dir, "--port", strconv.Itoa(freePorts(t, 3)))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "n3 ended") || !strings.Contains(string(out), "not a directory") {
		t.Errorf("ended with %v:\n%s", err, out)
	}
}
